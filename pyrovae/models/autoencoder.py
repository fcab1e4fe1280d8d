"""The autoencoder: two nets and a code, with no distribution over it and no log P(X)."""

__all__ = ["AutoEncoder"]

from collections.abc import Sequence
from typing import Self

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae import likelihoods
from pyrovae.checks import check_sizes, check_widths, nan_is_missing
from pyrovae.data.splits import Splits
from pyrovae.distributions import seen
from pyrovae.errors import DataError
from pyrovae.likelihoods import Config, Likelihood
from pyrovae.models.base import Model
from pyrovae.models.parts import begin, make_family, rows_of
from pyrovae.nn import MLP
from pyrovae.registry import written


class AutoEncoder(Model):
    r"""An autoencoder: a code z = c(X), and P(X|z) of it; what is raised is how well X comes back.

    .. math::
        \max_{\theta, \phi} \sum_n \log P(X_n \mid f_\theta(c_\phi(X_n)))

    in nats per datum. It is no generative model: nothing says which codes there are, so that there
    is no P(z) to draw from, no P(X), and no log P(X). The reconstruction is no log-density of X:
    with X on both sides it does not integrate to 1 over X, and more dimensions of z raise it as
    far as one likes. So `model` observes nothing and has a `pyro.factor`, and every estimator
    refuses the program with that reason. `guide` is `None`, as nothing is left to guess; `fit`
    trains both nets, and keeps the epoch of the best reconstruction of validation data.

    Args:
        x_dim: Dimensions of one datum, D.
        z_dim: Dimensions of its code.
        hidden_dims: Hidden widths of the encoder; the decoder has them in reverse.
        likelihood: P(X|z): a family's name, a `Likelihood` class or an instance.
        encoder: Any module from X `(N, x_dim)` to codes `(N, z_dim)`; default: a `pyrovae.nn.MLP`
            of `hidden_dims`.
        decoder: Any module from z `(N, z_dim)` to f(z) `(N, likelihood.outputs * x_dim)`.

    Raises:
        ValueError: If a size is no positive integer, or no family has the likelihood's name.

    References:
        Reducing the dimensionality of data with neural networks (Hinton and Salakhutdinov, 2006),
        https://doi.org/10.1126/science.1127647
        Tutorial on variational autoencoders (Doersch, 2016), https://arxiv.org/abs/1606.05908

    Example:
        >>> import pyrovae as pv
        >>> ae, x = AutoEncoder(x_dim=64, z_dim=2), torch.ones(3, 64)
        >>> ae.reconstruct(x).shape
        torch.Size([3, 64])
        >>> pv.evaluate(ae.model, ae.guide, x)
        Traceback (most recent call last):
        ...
        pyrovae.errors.NoDensity: there is no log P(X): the model observes no data ...
    """

    name = "autoencoder"

    def __init__(
        self,
        x_dim: int,
        z_dim: int,
        hidden_dims: Sequence[int] = (256,),
        likelihood: str | type[Likelihood] | Likelihood = "bernoulli",
        *,
        encoder: torch.nn.Module | None = None,
        decoder: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_sizes(x_dim=x_dim, z_dim=z_dim)
        self.x_dim, self.z_dim = int(x_dim), int(z_dim)
        self.hidden_dims = widths = check_widths(hidden_dims=hidden_dims)
        self.likelihood = likelihoods.make(likelihood)
        outputs = self.likelihood.num_outputs(self.x_dim)
        inputs = self.likelihood.num_features(self.x_dim)
        self.encoder = encoder or MLP(inputs, widths, self.z_dim)
        self.decoder = decoder or MLP(self.z_dim, widths[::-1], outputs)

    @nan_is_missing("x")
    def model(self, x: Tensor) -> None:
        """What training raises, log P(X|c(X)), plated over the data: a factor, no density.

        Args:
            x: `(N, x_dim)`; what is missing, NaN, has no part in it, and the encoder gets zeros.

        Raises:
            ValueError: If x is of another shape, no floats, or outside the likelihood's support.
        """
        self.register(encoder=self.encoder, decoder=self.decoder, likelihood=self.likelihood)
        with pyro.plate("data", len(x)):
            pyro.factor("reconstruction", self.reconstruction(x))

    def reconstruction(self, x: Tensor) -> Tensor:
        """Returns log P(X|c(X)) for x `(N, x_dim)`, `(N,)`, nats; it is no log P(X).

        Raises:
            DataError: If x lies outside the likelihood's support, where Pyro's validation is on.
        """
        p = seen(self.decode(self.code(x)), x, self.likelihood.filler)
        try:
            return p.log_prob(x)
        except ValueError as e:
            raise DataError(
                f"x has values outside the support of the likelihood {self.likelihood.name!r}; "
                "binarize grey data first, pyrovae.data.binarize(x), or take another likelihood"
            ) from e

    def code(self, x: Tensor) -> Tensor:
        """Returns the codes c(X) for x `(N, x_dim)`, `(N, z_dim)`.

        Raises:
            ValueError: If x is of another shape, or no floats.
        """
        return self.encoder(self.likelihood.features(rows_of(x, self.x_dim, "autoencoder")))

    def encode(self, x: Tensor) -> TorchDistribution:
        """Returns the code as a distribution, a point: batch shape `(N,)`, event shape `(z_dim,)`.

        Its mean is `code(x)`; so pictures of a latent space take it as they take Q(z|X).

        Args:
            x: `(N, x_dim)`.
        """
        return dist.Delta(self.code(x), event_dim=1)

    def decode(self, z: Tensor) -> TorchDistribution:
        """Returns P(X|z) for z `(..., z_dim)`: batch shape `(...)`, event shape `(x_dim,)`."""
        return self.likelihood(self.decoder(z))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Returns E[X|z] at the code of x `(N, x_dim)`, `(N, x_dim)`."""
        return self.decode(self.code(x)).mean

    def config(self) -> Config:
        """Returns what `from_config` needs to build the same architecture, fit for JSON."""
        return {
            "x_dim": self.x_dim,
            "z_dim": self.z_dim,
            "hidden_dims": list(self.hidden_dims),
            "likelihood": written(self.likelihood.name, self.likelihood.config()),
        }

    @classmethod
    def for_data(  # pyright: ignore[reportIncompatibleMethodOverride]  # options of its own
        cls,
        splits: Splits,
        z_dim: int = 16,
        hidden_dims: Sequence[int] = (256,),
        likelihood: str = "bernoulli",
        sigma: float | None = None,
    ) -> Self:
        """Returns an untrained model that begins at the mean of the training data.

        Args:
            splits: The data set.
            z_dim: Dimensions of the code.
            hidden_dims: Widths of the encoder's layers, the decoder's in reverse.
            likelihood: P(X|z), by name.
            sigma: Of the normal likelihood; `None` to learn it.

        Raises:
            ValueError: If sigma is given to another family.
        """
        x = splits.train.x
        model = cls(x.shape[1], z_dim, hidden_dims, make_family(likelihood, sigma, splits))
        begin(model.decoder, model.likelihood, x)
        return model
