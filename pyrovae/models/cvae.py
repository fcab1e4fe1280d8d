"""The conditional VAE: P(X|Y), where Y is a class, a vector, or the part of X that is known."""

__all__ = ["CVAE"]

from collections.abc import Sequence
from typing import ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae import likelihoods
from pyrovae.checks import check_sizes, check_widths, nan_is_missing
from pyrovae.data.rows import Rows
from pyrovae.data.splits import Splits
from pyrovae.distributions import seen
from pyrovae.errors import DataError
from pyrovae.gaps import has_gaps, or_prior
from pyrovae.likelihoods import Config, Likelihood
from pyrovae.models.base import Model
from pyrovae.models.parts import begin, make_family, rows_of
from pyrovae.nn import MLP, Encoder
from pyrovae.registry import written
from pyrovae.rng import seeded


class CVAE(Model):
    r"""A VAE in which all is given Y: P(z|Y) P(X|z, Y), plated over the data, and Q(z|X, Y).

    .. math::
        z_n \sim P(z \mid Y_n), \quad X_n \mid z_n \sim P(X \mid f_\theta(z_n, Y_n)), \quad
        \log P(X \mid Y) = \log \int P(X \mid z, Y)\, P(z \mid Y)\, dz

    The evidence is log P(X|Y), in nats per datum; Y has no density of its own. `model` and `guide`
    take X `(N, x_dim)` and Y: classes 0 to y_dim - 1, `(N,)`, or vectors `(N, y_dim)`. To complete
    an image let Y be the pixels that are known, X the others, see `pyrovae.data.quadrants`.

    Args:
        x_dim: Dimensions of one datum, D.
        y_dim: Number of classes, or dimensions of Y.
        z_dim: Dimensions of the latent.
        hidden_dims: Hidden widths of the encoder; the decoder has them in reverse.
        likelihood: P(X|z, Y): a family's name, a `Likelihood` class or an instance.
        conditional_prior: Whether P(z|Y) is a normal whose mean and scales a network of
            `hidden_dims` makes of Y; else it is N(0, I) for all Y.
        activation: Of the hidden layers, a name of `pyrovae.nn.ACTIVATIONS`.

    Raises:
        ValueError: If a size is no positive integer, or no family has the likelihood's name.

    References:
        Learning structured output representation using deep conditional generative models (Sohn,
        Lee and Yan, 2015), https://papers.nips.cc/paper/5775
        Tutorial on variational autoencoders (Doersch, 2016), section 3,
        https://arxiv.org/abs/1606.05908

    Example:
        >>> model = CVAE(x_dim=64, y_dim=10, z_dim=2)
        >>> model.generate(torch.tensor([3, 3, 7])).shape
        torch.Size([3, 64])
    """

    name = "cvae"
    inputs: ClassVar[tuple[str, ...]] = ("x", "y")
    target: ClassVar[str] = "log P(X|Y)"

    def __init__(
        self,
        x_dim: int,
        y_dim: int,
        z_dim: int,
        hidden_dims: Sequence[int] = (256,),
        likelihood: str | type[Likelihood] | Likelihood = "bernoulli",
        conditional_prior: bool = True,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        check_sizes(x_dim=x_dim, y_dim=y_dim, z_dim=z_dim)
        self.x_dim, self.y_dim, self.z_dim = int(x_dim), int(y_dim), int(z_dim)
        self.hidden_dims = widths = check_widths(hidden_dims=hidden_dims)
        self.likelihood, self.activation = likelihoods.make(likelihood), activation
        outputs = self.likelihood.num_outputs(self.x_dim)
        inputs = self.likelihood.num_features(self.x_dim)
        self.encoder = Encoder(inputs + self.y_dim, widths, self.z_dim, activation)
        self.decoder = MLP(self.z_dim + self.y_dim, widths[::-1], outputs, activation)
        self.prior_net = (
            Encoder(self.y_dim, widths, self.z_dim, activation) if conditional_prior else None
        )

    @nan_is_missing("x")
    def model(self, x: Tensor, y: Tensor) -> None:
        """Generative model: P(z|Y) P(X|z, Y), plated over the data.

        Args:
            x: `(N, x_dim)`; NaN is missing, and P(X|z, Y) that of the rest.
            y: Classes, `(N,)`, or vectors `(N, y_dim)`.

        Raises:
            ValueError: If one is of another shape, or x no floats.
        """
        self.register(decoder=self.decoder, likelihood=self.likelihood)
        if self.prior_net is not None:
            self.register(prior_net=self.prior_net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p_z(y))  # z ~ P(z|Y)
            x = self.checked(x)
            p = seen(self.p_x(z, y), x, self.likelihood.filler)
            pyro.sample("x", p, obs=x)  # X ~ P(X|z, Y)

    def guide(self, x: Tensor, y: Tensor) -> None:
        """Variational posterior: Q(z|X, Y), plated over the data.

        Args:
            x: `(N, x_dim)`.
            y: Classes, `(N,)`, or vectors `(N, y_dim)`.
        """
        self.register(encoder=self.encoder)
        if self.prior_net is not None:  # it guesses where nothing of X is seen
            self.register(prior_net=self.prior_net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q_z(x, y))  # z ~ N(mu(X, Y), diag sigma(X, Y)^2)

    def p_z(self, y: Tensor) -> TorchDistribution:
        """Returns P(z|Y), batch shape `(N,)`, event shape `(z_dim,)`.

        Args:
            y: Classes, `(N,)`, or vectors `(N, y_dim)`.
        """
        return dist.Normal(*self._prior(y)).to_event(1)

    def q_z(self, x: Tensor, y: Tensor) -> TorchDistribution:
        """Returns Q(z|X, Y), batch shape `(N,)`, event shape `(z_dim,)`.

        Args:
            x: `(N, x_dim)`.
            y: Classes, `(N,)`, or vectors `(N, y_dim)`.
        """
        x = self.checked(x)
        loc, scale = self.encoder(torch.cat([self.likelihood.features(x), self.vectors(y)], -1))
        if has_gaps(x):
            p = self._prior(y)
            loc, scale = or_prior(x, loc, p[0]), or_prior(x, scale, p[1])
        return dist.Normal(loc, scale).to_event(1)

    def p_x(self, z: Tensor, y: Tensor) -> TorchDistribution:
        """Returns P(X|z, Y), batch shape `(..., N)`, event shape `(x_dim,)`.

        Args:
            z: `(..., N, z_dim)`.
            y: Classes, `(N,)`, or vectors `(N, y_dim)`.
        """
        y = self.vectors(y).expand(*z.shape[:-1], -1)
        return self.likelihood(self.decoder(torch.cat([z, y], -1)))

    @torch.no_grad()
    def generate(self, y: Tensor, *, seed: int | None = None) -> Tensor:
        """Returns a draw of X ~ P(X|Y) for each row of Y, `(N, x_dim)`: z, then X given both.

        Args:
            y: Classes, `(N,)`, or vectors `(N, y_dim)`; repeated rows get other draws.
            seed: Fixes them; `None` goes on with torch's random stream.

        Raises:
            ValueError: If one is no class.
        """
        if (none := self.vectors(y).isnan().any(1)).any():
            raise ValueError(
                f"y holds {y[none][0].tolist()}, which is no class; this CVAE has 0 to "
                f"{self.y_dim - 1}"
            )
        with seeded(seed):
            return self.p_x(self.p_z(y).sample(), y).sample()

    @torch.no_grad()
    def start_at(self, x: Tensor | Rows) -> Self:
        """Sets the decoder's last bias: X begins at the mean of x `(N, x_dim)`; returns self."""
        begin(self.decoder, self.likelihood, x)
        return self

    def vectors(self, y: Tensor) -> Tensor:
        """Returns Y as vectors `(N, y_dim)`: of a class, 1 at its place and 0 elsewhere.

        What is no class becomes NaN, and so does its log P(X|Y), which whoever computes it
        refuses: nothing is read here, so that a graph can be had.

        Args:
            y: Classes, `(N,)`, or vectors `(N, y_dim)`.

        Raises:
            ValueError: If it is neither.
        """
        weight = next(self.encoder.parameters())
        if y.ndim == 1:
            classes = torch.arange(self.y_dim, device=y.device)
            found = (y[:, None] == classes).to(weight.dtype)
            return torch.where(found.any(1, keepdim=True), found, torch.nan)
        if y.ndim != 2 or y.shape[1] != self.y_dim:
            raise ValueError(
                f"y has shape {tuple(y.shape)}; this CVAE takes classes (N,) of 0 to "
                f"{self.y_dim - 1}, or vectors (N, {self.y_dim})"
            )
        return y.to(weight.dtype)

    def checked(self, x: Tensor) -> Tensor:
        """Returns x `(N, x_dim)`.

        Raises:
            ValueError: If it is of another shape, or no floats.
        """
        return rows_of(x, self.x_dim, "CVAE")

    def _prior(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and scales of P(z|Y), `(N, z_dim)` each.

        Args:
            y: Classes, `(N,)`, or vectors `(N, y_dim)`.
        """
        y = self.vectors(y)
        if self.prior_net is not None:
            return self.prior_net(y)
        zeros = y.new_zeros(len(y), self.z_dim)
        return zeros, torch.ones_like(zeros)

    def config(self) -> Config:
        """Returns what `from_config` needs to build the same architecture, fit for JSON."""
        return {
            "x_dim": self.x_dim,
            "y_dim": self.y_dim,
            "z_dim": self.z_dim,
            "hidden_dims": list(self.hidden_dims),
            "likelihood": written(self.likelihood.name, self.likelihood.config()),
            "conditional_prior": self.prior_net is not None,
            "activation": self.activation,
        }

    @classmethod
    def for_data(  # pyright: ignore[reportIncompatibleMethodOverride]  # options of its own
        cls,
        splits: Splits,
        z_dim: int = 16,
        hidden_dims: Sequence[int] = (256,),
        likelihood: str = "bernoulli",
        sigma: float | None = None,
        conditional_prior: bool = True,
        activation: str = "tanh",
    ) -> Self:
        """Returns an untrained model of X given the labels, which begins at the mean of X.

        Args:
            splits: The data set, with labels.
            z_dim: Latent dimensions.
            hidden_dims: Widths of the encoder's layers, the decoder's in reverse.
            likelihood: P(X|z, Y), by name.
            sigma: Of the normal likelihood; `None` to learn it.
            conditional_prior: Whether a network makes P(z|Y); else it is N(0, I).
            activation: Of the hidden layers.

        Raises:
            DataError: If the data have no labels.
        """
        x, y = splits.train.x, splits.train.y
        if y is None:
            raise DataError(f"{cls.__name__} takes y, and these data have none")
        classes = y.shape[1] if y.ndim == 2 else int(y.max()) + 1
        family = make_family(likelihood, sigma, splits)
        sizes = x.shape[1], classes, z_dim, hidden_dims
        return cls(*sizes, family, conditional_prior, activation).start_at(x)
