"""The linear-Gaussian model: a VAE whose log P(X) and posterior are known exactly."""

__all__ = ["LinearGaussian"]

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.likelihoods import Normal
from pyrovae.models.base import Model


class LinearGaussian(Model):
    r"""Probabilistic PCA: a VAE with a linear decoder, and its exact posterior as the guide.

    .. math::
        z_n \sim N(0, I), \quad X_n \mid z_n \sim N(W z_n + m, \sigma^2 I), \quad
        X_n \sim N(m, W W^T + \sigma^2 I)

    Where an estimator of log P(X) has to be tried on a known answer, this is it. W begins at
    independent N(0, 1), m at 0; as the parameters of any program, `pyrovae.svi.fit` learns them.

    Args:
        x_dim: Dimensions of one datum, D.
        z_dim: Dimensions of its latent.
        sigma: The standard deviation of X given z; `None` to learn it.

    References:
        Probabilistic principal component analysis (Tipping and Bishop, 1999), JRSS B 61(3).

    Example:
        >>> import pyrovae as pv
        >>> model, x = LinearGaussian(x_dim=5, z_dim=2), torch.zeros(3, 5)
        >>> log_w = pv.importance_sampling(model.model, model.guide, x, num_particles=2).log_w
        >>> torch.allclose(log_w, model.log_evidence(x).double(), atol=1e-5)  # every weight
        True
    """

    name = "linear-gaussian"

    def __init__(self, x_dim: int, z_dim: int, sigma: float | None = 1.0) -> None:
        super().__init__()
        check_sizes(x_dim=x_dim, z_dim=z_dim)
        self.x_dim, self.z_dim = x_dim, z_dim
        self.decoder = torch.nn.Linear(z_dim, x_dim)
        self.likelihood = Normal(sigma)
        torch.nn.init.normal_(self.decoder.weight)
        torch.nn.init.zeros_(self.decoder.bias)

    def model(self, x: Tensor) -> None:
        """Generative model: P(z) P(X|z), plated over the data."""
        self.register(decoder=self.decoder, likelihood=self.likelihood)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(x))
            pyro.sample("x", self.decode(z), obs=x)

    def guide(self, x: Tensor) -> None:
        """The posterior P(z|X) itself, plated over the data."""
        self.register(decoder=self.decoder, likelihood=self.likelihood)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encode(x))

    def prior(self, x: Tensor) -> Any:
        """Returns P(z) = N(0, I) for each row of x: batch shape `(N,)`, event shape `(z_dim,)`."""
        return dist.Normal(x.new_zeros(len(x), self.z_dim), 1.0).to_event(1)

    def decode(self, z: Tensor) -> Any:
        """Returns P(X|z) for z `(..., z_dim)`: batch shape `(...)`, event shape `(x_dim,)`."""
        return self.likelihood(self.decoder(z))

    def encode(self, x: Tensor) -> Any:
        """Returns `posterior(x)`: the guide is exact."""
        return self.posterior(x)

    def posterior(self, x: Tensor) -> Any:
        """Returns P(z|X) for x `(N, x_dim)`: batch shape `(N,)`, event shape `(z_dim,)`."""
        w, m, sigma = self.decoder.weight, self.decoder.bias, self.likelihood.sigma
        precision = w.T @ w / sigma**2 + torch.eye(self.z_dim).to(w)
        loc = torch.linalg.solve(precision, (x - m) @ w / sigma**2, left=False)
        return dist.MultivariateNormal(loc, precision_matrix=precision)

    def log_evidence(self, x: Tensor) -> Tensor:
        """Returns log P(X) of each row of x `(N, x_dim)`, exactly, `(N,)`, in nats."""
        m = self.decoder.bias
        noise = torch.as_tensor(self.likelihood.sigma).to(m).square().expand_as(m)
        return dist.LowRankMultivariateNormal(m, self.decoder.weight, noise).log_prob(x).detach()

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Returns n draws of X ~ P(X), `(n, x_dim)`."""
        z = torch.randn(n, self.z_dim).to(self.decoder.weight)
        return self.decode(z).sample()

    def config(self) -> dict[str, Any]:
        """Returns the constructor's arguments; sigma `None` where it is learned."""
        return {
            "x_dim": self.x_dim,
            "z_dim": self.z_dim,
            "sigma": self.likelihood.config()["sigma"],
        }
