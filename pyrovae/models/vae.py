"""The variational autoencoder as a probabilistic program."""

__all__ = ["VAE"]

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae import guides, likelihoods, priors
from pyrovae.checks import check_sizes, check_widths, nan_is_missing
from pyrovae.data.rows import Rows
from pyrovae.data.splits import Splits
from pyrovae.distributions import seen
from pyrovae.gaps import or_prior
from pyrovae.likelihoods import Config, Likelihood
from pyrovae.models.base import Model
from pyrovae.models.parts import begin, make_family, rows_of, shape_of
from pyrovae.nn import MLP, Encoder
from pyrovae.registry import written
from pyrovae.rng import seeded


class VAE(Model):
    r"""A variational autoencoder: P(z) P(X|z), plated over the data, and Q(z|X).

    .. math::
        z_n \sim N(0, I), \quad X_n \mid z_n \sim P(X \mid f_\theta(z_n)), \quad
        Q_\phi(z \mid X) = N(\mu_\phi(X), \mathrm{diag}\, \sigma_\phi(X)^2)

    theta are the decoder's parameters, phi the encoder's. Both are learned by raising the ELBO,

    .. math::
        \log P(X) \ge E_{z \sim Q(z \mid X)}[\log P(X \mid z)] - KL(Q(z \mid X) \,\|\, P(z))

    in nats per datum. `model` and `guide` take X of shape `(N, x_dim)`; they are plain Pyro
    callables with plate "data" and sites "z" and "x", and run under Pyro's own `SVI`, `Trace_ELBO`
    and `Predictive`. Of images X is `(N, C, H, W)` or those numbers in rows, as the data sets have
    them.

    Args:
        x_dim: Dimensions of one datum, D; or `(C, H, W)` of an image, D = C H W, which is then the
            shape that `encoder` takes and `decoder` returns, there `(N, outputs * C, H, W)`.
        z_dim: Dimensions of its latent.
        hidden_dims: Hidden widths of the encoder; the decoder has them in reverse.
        likelihood: P(X|z): a family's name, a `Likelihood` class or an instance.
        encoder: Any module from X `(N, x_dim)` to mu(X) and sigma(X) > 0, each `(N, z_dim)`;
            of a `posterior` that is not diagonal, to what it is made of, `(N, outputs)`; default:
            a `pyrovae.nn.Encoder` of `hidden_dims`, or an `MLP`.
        decoder: Any module from z `(N, z_dim)` to f(z) `(N, likelihood.outputs * x_dim)`; default:
            a `pyrovae.nn.MLP`.
        prior: P(z) in place of N(0, I): a name, with options as in "vamp(500)", or an object of
            `pyrovae.priors`; or anything that gives it for X, batch shape `(N,)`, event shape
            `(z_dim,)`; the parameters of a module are learned.
        posterior: The family of Q(z|X), by name, with options as in "flow(8)", or an object of
            `pyrovae.guides`.
        activation: Of the hidden layers, a name of `pyrovae.nn.ACTIVATIONS`.
        residual: Whether they add to each other, as `pyrovae.nn.MLP` says.

    Raises:
        TypeError: If `hidden_dims` is no list, or `likelihood` no family.
        ValueError: If a size is no positive integer, or no family has the likelihood's name.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114
        Tutorial on variational autoencoders (Doersch, 2016), https://arxiv.org/abs/1606.05908

    Example:
        >>> vae = VAE(x_dim=64, z_dim=2)
        >>> vae.sample(3).shape
        torch.Size([3, 64])
    """

    name = "vae"

    def __init__(
        self,
        x_dim: int | Sequence[int],
        z_dim: int,
        hidden_dims: Sequence[int] = (256,),
        likelihood: str | type[Likelihood] | Likelihood = "bernoulli",
        *,
        encoder: torch.nn.Module | None = None,
        decoder: torch.nn.Module | None = None,
        prior: str | Callable[..., TorchDistribution] | None = None,
        posterior: str | guides.Family = "diagonal",
        activation: str = "tanh",
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.hidden_dims = check_widths(hidden_dims=hidden_dims)
        shape = shape_of(x_dim)
        check_sizes(z_dim=z_dim)
        self.x_dim = x_dim = prod(shape)
        self.z_dim = z_dim = int(z_dim)  # not of a parser's types
        self.image_shape = shape if len(shape) == 3 else None
        self.likelihood = likelihoods.make(likelihood)
        self.activation, self.residual = activation, residual
        outputs, inputs = self.likelihood.num_outputs(x_dim), self.likelihood.num_features(x_dim)
        if prior is None or isinstance(prior, str | priors.Prior):
            prior = priors.make(prior, z_dim, x_dim)
        self.own_prior = prior
        self.posterior = guides.make(posterior, z_dim)
        if encoder is None and isinstance(self.posterior, guides.Diagonal):
            encoder = Encoder(inputs, self.hidden_dims, z_dim, activation, residual)
        elif encoder is None:
            encoder = MLP(inputs, self.hidden_dims, self.posterior.outputs, activation, residual)
        if decoder is None:
            decoder = MLP(z_dim, self.hidden_dims[::-1], outputs, activation, residual)
        self.encoder, self.decoder = encoder, decoder

    @nan_is_missing("x")
    def model(self, x: Tensor) -> None:
        """Generative model: P(z) P(X|z), plated over the data.

        Args:
            x: `(N, x_dim)`, or images `(N, C, H, W)`; NaN is missing, and P(X|z) that of the rest.

        Raises:
            ValueError: If x is of another shape, or no floats.
        """
        self.register(decoder=self.decoder, likelihood=self.likelihood)
        if isinstance(self.own_prior, torch.nn.Module):
            self.register(prior=self.own_prior)
        if isinstance(self.own_prior, priors.Vamp):  # Q(z|u) is part of P(z)
            self.register(encoder=self.encoder, posterior=self.posterior)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(x))  # z ~ N(0, I), or another
            x = self.checked(x)
            pyro.sample("x", seen(self.decode(z), x, self.likelihood.filler), obs=x)  # X ~ P(X|z)

    def guide(self, x: Tensor) -> None:
        """Variational posterior: Q(z|X), plated over the data.

        Args:
            x: `(N, x_dim)`, or images `(N, C, H, W)`.
        """
        self.register(encoder=self.encoder, posterior=self.posterior)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encode(x))  # z ~ N(mu(X), diag sigma(X)^2)

    def prior(self, x: Tensor) -> TorchDistribution:
        """Returns P(z) for each row of x `(N, ...)`, N(0, I) if no other is given.

        Batch shape `(N,)`, event shape `(z_dim,)`.
        """
        if isinstance(self.own_prior, priors.Prior):
            return self.own_prior(x, self.encode)
        assert callable(self.own_prior)
        return self.own_prior(x)

    def encode(self, x: Tensor) -> TorchDistribution:
        """Returns Q(z|X) for x `(N, x_dim)`: batch shape `(N,)`, event shape `(z_dim,)`.

        Raises:
            ValueError: If x is not of shape `(N, x_dim)`.
            TypeError: If an encoder of your own returns no pair.
        """
        rows = self.checked(x)
        x = self.likelihood.features(rows)
        if self.image_shape and not isinstance(self.encoder, Encoder | MLP):
            x = x.unflatten(-1, self.image_shape)
        q = self.encoder(x)
        form = f"what Q(z|x) is made of, (N, {self.posterior.outputs})"
        if isinstance(self.posterior, guides.Diagonal):
            if isinstance(q, tuple) and len(q) == 2:
                if isinstance(self.own_prior, priors.Normal):
                    q = or_prior(rows, q[0], 0.0), or_prior(rows, q[1], 1.0)
                return dist.Normal(*q).to_event(1)
            form = f"(mu(x), sigma(x)), each of shape (N, {self.z_dim})"
        elif isinstance(q, Tensor):
            return self.posterior(q)
        raise TypeError(f"the encoder returned a {type(q).__name__}; return {form}")

    def decode(self, z: Tensor) -> TorchDistribution:
        """Returns P(X|z) for z `(..., z_dim)`: batch shape `(...)`, event shape `(x_dim,)`."""
        f = self.decoder(z)
        return self.likelihood(f.flatten(-3) if f.ndim == z.ndim + 2 else f)  # images, as rows

    @torch.no_grad()
    def sample(self, n: int, *, seed: int | None = None) -> Tensor:
        """Returns n draws of X ~ P(X), `(n, x_dim)`: z from the prior, then X given z.

        Args:
            n: How many.
            seed: Fixes them; `None` goes on with torch's random stream.
        """
        with seeded(seed):
            return self.decode(self.prior(self._like(n)).sample()).sample()

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Returns E[X|z] at the mean of Q(z|X), `(N, x_dim)`, for x `(N, x_dim)`."""
        return self.decode(self.encode(x).mean).mean

    @torch.no_grad()
    def start_at(self, x: Tensor | Rows) -> Self:
        """Sets the decoder's last bias: X begins at the mean of x `(N, x_dim)`; returns self.

        SVI then need not first find the mean of the data. A prior made of data gets some of x.

        Args:
            x: The training data.

        Raises:
            ValueError: If x is of another shape, or no floats.
            TypeError: If the decoder is one of your own that does not end in a linear layer, or a
                `pyrovae.nn.Bias`.
        """
        rows = x if isinstance(x, Rows) else self.checked(x)
        begin(self.decoder, self.likelihood, rows)
        if isinstance(self.own_prior, priors.Prior):
            self.own_prior.start_at(rows)
        return self

    def config(self) -> Config:
        """Returns what `VAE.from_config` needs to build the same architecture, fit for JSON."""
        config = {
            "x_dim": list(self.image_shape) if self.image_shape else self.x_dim,
            "z_dim": self.z_dim,
            "hidden_dims": list(self.hidden_dims),
            "likelihood": self.likelihood.name,
            "likelihood_config": self.likelihood.config(),
        }
        if self.activation != "tanh":
            config["activation"] = self.activation
        if self.residual:
            config["residual"] = True
        own = self.own_prior
        if isinstance(own, priors.Prior) and not isinstance(own, priors.Normal):
            config["prior"] = written(own.name, own.config())
        if not isinstance(self.posterior, guides.Diagonal):
            config["posterior"] = written(self.posterior.name, self.posterior.config())
        return config

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Returns an untrained model of that `config()`."""
        config = dict(config)
        family = likelihoods.make(config.pop("likelihood"), **config.pop("likelihood_config"))
        return cls(**config, likelihood=family)

    @classmethod
    def for_data(
        cls,
        splits: Splits,
        z_dim: int = 16,
        hidden_dims: Sequence[int] = (256,),
        likelihood: str = "bernoulli",
        sigma: float | None = None,
        prior: str = "normal",
        posterior: str = "diagonal",
        **config: Any,
    ) -> Self:
        """Returns an untrained model that begins at the mean of the training data.

        Args:
            splits: The data set.
            z_dim: Latent dimensions.
            hidden_dims: Widths of the encoder's layers, the decoder's in reverse.
            likelihood: P(X|z), by name, with options as in "student-t(df=3)"; of a table
                the default is "columns".
            sigma: Of the normal likelihood; `None` to learn it.
            prior: P(z), by name: normal, mixture(100), vamp(500) or flow(4).
            posterior: Q(z|X), by name: diagonal, full or flow(4).
            config: What the constructor takes besides.

        Raises:
            ValueError: If sigma is given to another family.
        """
        x, family = splits.train.x, make_family(likelihood, sigma, splits)
        asked = {"prior": (prior, "normal"), "posterior": (posterior, "diagonal")}
        config |= {name: given for name, (given, plain) in asked.items() if given != plain}
        return cls(x.shape[1], z_dim, hidden_dims, family, **config).start_at(x)

    def checked(self, x: Tensor) -> Tensor:
        """Returns x in rows, `(N, x_dim)`.

        Args:
            x: `(N, x_dim)`, or images `(N, C, H, W)` where the VAE is of images.

        Raises:
            ValueError: If it is of another shape, or no floats.
        """
        return rows_of(x, self.x_dim, "VAE", self.image_shape)

    def _like(self, n: int) -> Tensor:
        """Returns n rows of no numbers, `(n, 0)`, of the decoder's type and device."""
        return next(self.decoder.parameters()).new_empty(n, 0)
