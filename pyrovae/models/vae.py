"""The variational autoencoder as a probabilistic program."""

__all__ = ["VAE"]

from collections.abc import Iterable, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae import likelihoods
from pyrovae.checks import check_sizes
from pyrovae.likelihoods import Likelihood
from pyrovae.models.base import Model
from pyrovae.nn import MLP, Encoder
from pyrovae.rng import seeded


class VAE(Model):
    r"""A variational autoencoder: P(z) P(X|z), plated over the data, and Q(z|X).

    .. math::
        z_n \sim N(0, I), \quad X_n \mid z_n \sim P(X \mid f_\theta(z_n)), \quad
        Q_\phi(z \mid X) = N(\mu_\phi(X), \mathrm{diag}\, \sigma_\phi(X)^2)

    `model` and `guide` take X of shape `(N, x_dim)`; they are plain Pyro callables with plate
    "data" and sites "z" and "x", and run under Pyro's own `SVI`, `Trace_ELBO` and `Predictive`.

    Args:
        x_dim: Dimensions of one datum, D.
        z_dim: Dimensions of its latent.
        hidden_dims: Hidden widths of the encoder; the decoder has them in reverse.
        likelihood: P(X|z): a family's name, a `Likelihood` class or an instance.
        encoder: Any module from X `(N, x_dim)` to mu(X) and sigma(X) > 0, each `(N, z_dim)`;
            default: a `pyrovae.nn.Encoder` of `hidden_dims`.
        decoder: Any module from z `(N, z_dim)` to f(z) `(N, likelihood.outputs * x_dim)`; default:
            a `pyrovae.nn.MLP`.

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
        x_dim: int,
        z_dim: int,
        hidden_dims: Sequence[int] = (256,),
        likelihood: str | type[Likelihood] | Likelihood = "bernoulli",
        *,
        encoder: torch.nn.Module | None = None,
        decoder: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        if isinstance(hidden_dims, str) or not isinstance(hidden_dims, Iterable):
            raise TypeError(
                f"hidden_dims is {hidden_dims!r}; give a list of widths, such as [256]"
            )
        for width in hidden_dims:
            check_sizes(hidden_dims=width)
        check_sizes(x_dim=x_dim, z_dim=z_dim)
        x_dim, z_dim, *widths = map(int, (x_dim, z_dim, *hidden_dims))  # not of a parser's types
        self.x_dim, self.z_dim, self.hidden_dims = x_dim, z_dim, tuple(widths)
        self.likelihood = likelihoods.make(likelihood)
        outputs = self.likelihood.outputs * x_dim
        if encoder is None:
            encoder = Encoder(x_dim, self.hidden_dims, z_dim)
        if decoder is None:
            decoder = MLP(z_dim, self.hidden_dims[::-1], outputs)
        self.encoder, self.decoder = encoder, decoder

    def model(self, x: Tensor) -> None:
        """Generative model: P(z) P(X|z), plated over the data."""
        self.register(decoder=self.decoder, likelihood=self.likelihood)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(x))  # z ~ N(0, I)
            pyro.sample("x", self.decode(z), obs=self.checked(x))  # X ~ P(X|z)

    def guide(self, x: Tensor) -> None:
        """Variational posterior: Q(z|X), plated over the data."""
        self.register(encoder=self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encode(x))  # z ~ N(mu(X), diag sigma(X)^2)

    def prior(self, x: Tensor) -> Any:
        """Returns P(z) = N(0, I) for each row of x: batch shape `(N,)`, event shape `(z_dim,)`."""
        zeros = x.new_zeros(len(x), self.z_dim)
        return dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)

    def encode(self, x: Tensor) -> Any:
        """Returns Q(z|X) for x `(N, x_dim)`: batch shape `(N,)`, event shape `(z_dim,)`.

        Raises:
            ValueError: If x is not of shape `(N, x_dim)`.
            TypeError: If an encoder of your own returns no pair.
        """
        q = self.encoder(self.checked(x))
        if not (isinstance(q, tuple) and len(q) == 2):
            raise TypeError(
                f"the encoder returned a {type(q).__name__}; return (mu(x), sigma(x)), each of "
                f"shape (N, {self.z_dim})"
            )
        return dist.Normal(*q).to_event(1)

    def decode(self, z: Tensor) -> Any:
        """Returns P(X|z) for z `(..., z_dim)`: batch shape `(...)`, event shape `(x_dim,)`."""
        return self.likelihood(self.decoder(z))

    @torch.no_grad()
    def sample(self, n: int, *, seed: int | None = None) -> Tensor:
        """Returns n draws of X ~ P(X), `(n, x_dim)`: z from the prior, then X given z."""
        with seeded(seed):
            return self.decode(self.prior(self._like(n)).sample()).sample()

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Returns E[X|z] at the mean of Q(z|X), `(N, x_dim)`, for x `(N, x_dim)`."""
        return self.decode(self.encode(x).mean).mean

    @torch.no_grad()
    def start_at(self, x: Tensor) -> "VAE":
        """Sets the decoder's last bias: X begins at the mean of x `(N, x_dim)`; returns self.

        Raises:
            TypeError: If the decoder is one of your own that does not end in a linear layer.
        """
        last = [self.decoder, *self.decoder.children()][-1]
        if not isinstance(last, torch.nn.Linear):
            raise TypeError(
                f"the decoder ends in a {type(last).__name__}, not a Linear layer; set its first "
                "bias yourself, to vae.likelihood.start(x.mean(0))"
            )
        last.bias.copy_(self.likelihood.start(self.checked(x).mean(0)))
        return self

    def config(self) -> dict[str, Any]:
        """Returns what `VAE.from_config` needs to build the same architecture, fit for JSON."""
        return {
            "x_dim": self.x_dim,
            "z_dim": self.z_dim,
            "hidden_dims": list(self.hidden_dims),
            "likelihood": self.likelihood.name,
            "likelihood_config": self.likelihood.config(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "VAE":
        """Returns an untrained VAE of that `config()`."""
        config = dict(config)
        family = likelihoods.make(config.pop("likelihood"), **config.pop("likelihood_config"))
        return cls(**config, likelihood=family)

    def checked(self, x: Tensor) -> Tensor:
        """Returns x, or raises ValueError where it is no floating `(N, x_dim)`."""
        if x.ndim != 2 or x.shape[1] != self.x_dim or not x.is_floating_point():
            raise ValueError(
                f"x is {x.dtype} of shape {tuple(x.shape)}; "
                f"this VAE takes floating (N, {self.x_dim})"
            )
        return x

    def _like(self, n: int) -> Tensor:
        return next(self.decoder.parameters()).new_empty(n, 0)
