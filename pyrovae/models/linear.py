"""The linear-Gaussian model: a VAE whose log P(X) and posterior are known exactly."""

__all__ = ["LinearGaussian"]

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.checks import check_sizes, nan_is_missing
from pyrovae.distributions import seen
from pyrovae.gaps import filled, has_gaps
from pyrovae.likelihoods import Config, Normal
from pyrovae.models.base import Model
from pyrovae.rng import seeded


class LinearGaussian(Model):
    r"""Probabilistic PCA: a VAE with a linear decoder, and its exact posterior as the guide.

    .. math::
        z_n \sim N(0, I), \quad X_n \mid z_n \sim N(W z_n + m, \sigma^2 I), \quad
        X_n \sim N(m, W W^T + \sigma^2 I)

    Where an estimator of log P(X) has to be tried on a known answer, this is it: the posterior is
    normal as well, and as the guide it makes every log-weight equal to log P(X):

    .. math::
        z \mid X \sim N(M^{-1} W^T (X - m) / \sigma^2,\; M^{-1}), \quad
        M = W^T W / \sigma^2 + I

    X is `(N, x_dim)`, z `(N, z_dim)`; log P(X) is a log-density, in nats per datum. W begins at
    independent N(0, 1), m at 0; as the parameters of any program, `pyrovae.svi.fit` learns them.

    Args:
        x_dim: Dimensions of one datum, D.
        z_dim: Dimensions of its latent.
        sigma: The standard deviation of X given z; `None` to learn it.

    Raises:
        ValueError: If a size is no positive integer, or sigma not positive.

    References:
        Probabilistic principal component analysis (Tipping and Bishop, 1999), JRSS B 61(3),
        https://doi.org/10.1111/1467-9868.00196

    Example:
        >>> import pyrovae as pv
        >>> model, x = LinearGaussian(x_dim=5, z_dim=2), torch.zeros(3, 5)
        >>> log_w = pv.importance_sampling(model.model, model.guide, x, num_particles=2).log_w
        >>> torch.allclose(log_w, model.log_evidence(x).double(), atol=1e-5)  # every weight
        True
    """

    name = "linear-gaussian"
    binary = False

    def __init__(self, x_dim: int, z_dim: int, sigma: float | None = 1.0) -> None:
        super().__init__()
        check_sizes(x_dim=x_dim, z_dim=z_dim)
        self.x_dim, self.z_dim = x_dim, z_dim
        self.decoder = torch.nn.Linear(z_dim, x_dim)
        self.likelihood = Normal(sigma)
        torch.nn.init.normal_(self.decoder.weight)
        torch.nn.init.zeros_(self.decoder.bias)

    @nan_is_missing("x")
    def model(self, x: Tensor) -> None:
        """Generative model: P(z) P(X|z), plated over the data x `(N, x_dim)`, NaN is missing."""
        self.register(decoder=self.decoder, likelihood=self.likelihood)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(x))  # z ~ N(0, I)
            pyro.sample("x", seen(self.decode(z), x), obs=x)  # X ~ N(W z + m, sigma^2 I)

    def guide(self, x: Tensor) -> None:
        """The posterior P(z|X) itself, plated over the data x `(N, x_dim)`."""
        self.register(decoder=self.decoder, likelihood=self.likelihood)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encode(x))  # z ~ P(z|X)

    def prior(self, x: Tensor) -> TorchDistribution:
        """Returns P(z) = N(0, I) for each row of x `(N, ...)`.

        Batch shape `(N,)`, event shape `(z_dim,)`.
        """
        return dist.Normal(x.new_zeros(len(x), self.z_dim), 1.0).to_event(1)

    def decode(self, z: Tensor) -> TorchDistribution:
        """Returns P(X|z) for z `(..., z_dim)`: batch shape `(...)`, event shape `(x_dim,)`."""
        return self.likelihood(self.decoder(z))

    def encode(self, x: Tensor) -> TorchDistribution:
        """Returns `posterior(x)` for x `(N, x_dim)`: the guide is exact."""
        return self.posterior(x)

    def posterior(self, x: Tensor) -> TorchDistribution:
        r"""Returns P(z|X) for x `(N, x_dim)`: batch shape `(N,)`, event shape `(z_dim,)`.

        Where something is missing, W and X - m are those rows of them that are seen.
        """
        w, m, sigma = self.decoder.weight, self.decoder.bias, self.likelihood.sigma
        pull = filled(x - m) @ w / sigma**2  # (N, z_dim)
        if has_gaps(x):
            squares = (w[:, :, None] * w[:, None]).flatten(1)  # (x_dim, z_dim^2)
            squares = ((~x.isnan()).to(w) @ squares).unflatten(1, (self.z_dim, self.z_dim))
            precision = squares / sigma**2 + torch.eye(self.z_dim).to(w)  # M, one for each row
            loc = torch.linalg.solve(precision, pull[..., None])[..., 0]
        else:
            precision = w.T @ w / sigma**2 + torch.eye(self.z_dim).to(w)  # M, (z_dim, z_dim)
            loc = torch.linalg.solve(precision, pull, left=False)
        return dist.MultivariateNormal(loc, precision_matrix=precision)

    @torch.no_grad()
    def log_evidence(self, x: Tensor) -> Tensor:
        r"""Returns log P(X) of each row of x `(N, x_dim)`, exactly, `(N,)`, in nats.

        It is the log-density of N(m, W W^T + sigma^2 I), of those dimensions that are seen, by

        .. math::
            \log P(X) = \log P(X \mid z) + \log P(z) - \log P(z \mid X)

        which holds at every z, and is taken at the posterior's mean, where nothing cancels.
        """
        posterior = self.posterior(x)
        z = posterior.mean
        log_joint = seen(self.decode(z), x).log_prob(x) + self.prior(x).log_prob(z)
        return log_joint - posterior.log_prob(z)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int | None = None) -> Tensor:
        """Returns n draws of X ~ P(X), `(n, x_dim)`: z from the prior, then X given z.

        Args:
            n: How many.
            seed: Fixes them; `None` goes on with torch's random stream.
        """
        with seeded(seed):
            z = torch.randn(n, self.z_dim).to(self.decoder.weight)
            return self.decode(z).sample()

    def config(self) -> Config:
        """Returns the constructor's arguments; sigma `None` where it is learned."""
        return {
            "x_dim": self.x_dim,
            "z_dim": self.z_dim,
            "sigma": self.likelihood.config()["sigma"],
        }
