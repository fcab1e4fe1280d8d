"""The programs that the tests share, each with its truth in closed form or by quadrature."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.stats import nbinom
from torch import Tensor

from pyrovae import SemiSupervisedVAE
from pyrovae.likelihoods import Normal


class LinearClasses:
    """A `SemiSupervisedVAE` with a linear decoder, each class normal, and its exact posterior.

    P(c|x) and P(z|x, c) are linear in x, since all classes have one covariance.
    """

    K, SIGMA = 3, 0.6

    def __init__(self, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            vae = SemiSupervisedVAE(4, self.K, 1, (), likelihood=Normal(sigma=self.SIGMA))
            with torch.no_grad():
                for p in vae.decoder.parameters():
                    p.normal_()
        self.vae, self.model, self.exact = vae, vae.model, vae.guide
        self.weight, of_class = vae.decoder.last.weight.detach().split([1, self.K], 1)
        self.locs = of_class.T + vae.decoder.last.bias.detach()  # (K, 4)
        self.cov = self.weight @ self.weight.T + self.SIGMA**2 * torch.eye(4)
        gain = self.weight[:, 0] / (self.weight.square().sum() + self.SIGMA**2)
        std = (1 + self.weight.square().sum() / self.SIGMA**2) ** -0.5
        slope = self.locs @ torch.linalg.inv(self.cov)
        with torch.no_grad():
            vae.classifier[0].weight.copy_(slope)
            vae.classifier[0].bias.copy_(-0.5 * (slope * self.locs).sum(1))
            vae.encoder.last.weight.zero_()
            vae.encoder.last.weight[0] = torch.cat([gain, -self.locs @ gain])
            vae.encoder.last.bias.zero_()
            vae.encoder.last.bias[1] = (std - 1e-4).expm1().log()

    def data(self, n):
        """x, and y without a label."""
        generator = torch.Generator().manual_seed(1)
        return 2 * torch.randn(n, 4, generator=generator), torch.full((n,), -1)

    def log_joint(self, x):
        """log p(x, c) of each class, `(n, K)`."""
        p = dist.MultivariateNormal(self.locs, self.cov)
        return p.log_prob(x[:, None]) - np.log(self.K)

    def log_evidence(self, x):
        return self.log_joint(x).logsumexp(1)


@dataclass(frozen=True)
class LinearGaussian:
    """Probabilistic PCA: z ~ N(0, I), x ~ N(W z + m, s^2 I); all in closed form."""

    weight: Tensor  # (D, d)
    mean: Tensor  # (D,)
    sigma: float

    @classmethod
    def make(cls, x_dim=5, z_dim=2, sigma=0.5, seed=0):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(x_dim, z_dim, generator=generator)
        return cls(weight, torch.randn(x_dim, generator=generator), sigma)

    def data(self, n, seed=1):
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(n, self.weight.shape[1], generator=generator)
        noise = torch.randn(n, len(self.mean), generator=generator)
        return z @ self.weight.T + self.mean + self.sigma * noise

    @cached_property
    def cov(self):
        precision = self.weight.T @ self.weight / self.sigma**2
        return torch.linalg.inv(precision + torch.eye(self.weight.shape[1]))

    def posterior_mean(self, x):
        return (x - self.mean) @ self.weight @ self.cov / self.sigma**2

    def log_evidence(self, x):
        cov = self.weight @ self.weight.T + self.sigma**2 * torch.eye(len(self.mean))
        return dist.MultivariateNormal(self.mean, cov).log_prob(x)

    def prior(self, n):
        return dist.Normal(torch.zeros(n, self.weight.shape[1]), 1.0).to_event(1)

    def likelihood(self, z):
        return dist.Normal(z @ self.weight.T + self.mean, self.sigma).to_event(1)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(len(x)))
            pyro.sample("x", self.likelihood(z), obs=x)

    def exact(self, x):
        """The exact posterior."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(self.posterior_mean(x), self.cov))

    def mean_field(self, x, scale=1.0):
        """The best guide with independent dimensions; `scale` widens it."""
        with pyro.plate("data", len(x)):
            s = scale / torch.linalg.inv(self.cov).diagonal().sqrt()
            pyro.sample("z", dist.Normal(self.posterior_mean(x), s.expand(len(x), -1)).to_event(1))

    def mean_field_kl(self):
        """KL(mean_field || posterior), the same for every x."""
        precision = torch.linalg.inv(self.cov)
        return 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))


class GammaPoisson:
    """An asymmetric target: rate ~ Gamma(a, b), x ~ Poisson(rate); evidence negative binomial."""

    a, b = 2.0, 0.7

    def data(self):
        return torch.tensor([0.0, 1.0, 2.0, 5.0, 12.0])

    def log_evidence(self, x):
        return torch.from_numpy(nbinom.logpmf(x.numpy(), self.a, self.b / (1 + self.b)))

    def model(self, x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(self.a, self.b))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def exact(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(self.a + x, self.b + 1.0))

    def wide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma((self.a + x) / 2, (self.b + 1.0) / 2))


class BernoulliDecoder:
    """A 2-d latent with a nonlinear Bernoulli decoder; evidence by quadrature on a grid."""

    def __init__(self, x_dim=6, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.weight = 2 * torch.randn(x_dim, 2, generator=generator)
        self.bias = torch.randn(x_dim, generator=generator)

    def logits(self, z):
        return torch.tanh(z) @ self.weight.T + self.bias

    def data(self, n=7, seed=1):
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(n, 2, generator=generator)
        return torch.bernoulli(torch.sigmoid(self.logits(z)), generator=generator)

    def log_evidence(self, x):
        axis = torch.linspace(-8, 8, 401)
        z = torch.cartesian_prod(axis, axis)
        log_prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
        log_x = dist.Bernoulli(logits=self.logits(z)).to_event(1).log_prob(x[:, None])
        return (log_prior + log_x).logsumexp(1) + 2 * np.log(16 / 400)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.logits(z)).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.3).to_event(1))


class GlobalMean:
    """A latent that all data share: m ~ N(0, 1), x_n ~ N(m, 1)."""

    def log_evidence(self, x):
        cov = torch.eye(len(x)) + torch.ones(len(x), len(x))
        return dist.MultivariateNormal(torch.zeros(len(x)), cov).log_prob(x)

    def model(self, x):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m, 1.0), obs=x)

    def exact(self, x):
        n = len(x)
        pyro.sample("m", dist.Normal(x.sum() / (n + 1), (1 / (n + 1)) ** 0.5))


class Mixture:
    """Ten Gaussians in four dimensions, the component a discrete latent; in closed form."""

    def __init__(self, size=10, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.loc = 2 * torch.randn(size, 4, generator=generator)
        self.probs = torch.rand(size, generator=generator)
        self.probs = self.probs / self.probs.sum()

    def data(self, n=13, seed=1):
        return 2 * torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))

    def log_evidence(self, x, scale=0.7):
        log_x = dist.Normal(self.loc, scale).to_event(1).log_prob(x[:, None])
        return (self.probs.log() + log_x).logsumexp(1)

    def model(self, x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(self.probs))
            pyro.sample("x", dist.Normal(self.loc[k], 0.7).to_event(1), obs=x)

    def with_latent(self, x):
        """The same with a continuous latent: k, z ~ N(loc_k, 1), x ~ N(z, 0.5^2)."""
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(self.probs))
            z = pyro.sample("z", dist.Normal(self.loc[k], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def no_guide(self, x):
        """Nothing is left to guess."""

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.7).to_event(1))


class Bounded:
    """A latent in (low, high), another positive, on a grid: x ~ N(a + b, 0.5^2)."""

    def data(self):
        return torch.tensor([0.2, 1.0, 2.5])

    def log_evidence(self, x):
        a = torch.linspace(0, 2, 2001)[1:-1]
        b = torch.logspace(-6, 1.5, 2000)
        log_b = dist.Gamma(2.0, 1.5).log_prob(b) + b.log()  # in the variable log b
        step = (b[1] / b[0]).log().log() + np.log(2 / 2000)
        log_x = dist.Normal(a[:, None] + b, 0.5).log_prob(x[:, None, None])
        log_a = dist.Beta(2.0, 3.0).log_prob(a / 2) - np.log(2)
        return (log_x + log_b + log_a[:, None]).flatten(1).logsumexp(1) + step

    def model(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Beta(2.0, 3.0))
            b = pyro.sample("b", dist.Gamma(2.0, 1.5))
            pyro.sample("x", dist.Normal(2 * a + b, 0.5), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Uniform(0.0, 1.0))
            pyro.sample("b", dist.LogNormal(0.0, 1.0))


class TwoLevels:
    """Two levels and nested plates: m_n ~ N(0, 1), t_nj ~ N(m_n, 1), x_nj ~ N(t_nj, 0.5^2)."""

    parts = 3

    def data(self, n=6, seed=1):
        return torch.randn(n, self.parts, generator=torch.Generator().manual_seed(seed))

    def log_evidence(self, x):
        cov = 1.25 * torch.eye(self.parts) + torch.ones(self.parts, self.parts)
        return dist.MultivariateNormal(torch.zeros(self.parts), cov).log_prob(x)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-2):
            m = pyro.sample("m", dist.Normal(torch.zeros(len(x), 1), 1.0))
            with pyro.plate("parts", self.parts, dim=-1):
                t = pyro.sample("t", dist.Normal(m, 1.0))
                pyro.sample("x", dist.Normal(t, 0.5), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-2):
            m = pyro.sample("m", dist.Normal(x.mean(1, keepdim=True) / 2, 0.8))
            with pyro.plate("parts", self.parts, dim=-1):
                pyro.sample("t", dist.Normal(0.2 * m + 0.8 * x, 0.5))
