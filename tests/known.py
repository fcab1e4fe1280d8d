"""Models with exactly known log p(x), easy and hard: what a verdict has to be right on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from scenarios import LinearGaussian
from scipy.stats import betabinom, dirichlet_multinomial, nbinom
from torch import Tensor


@dataclass(frozen=True)
class Known:
    """A program, data, and log p(x) of each datum.

    Where `easy`, "ok" is deserved by at least 80 % of the data, of the `deserving` estimators.
    """

    name: str
    model: Callable[..., Any]
    guide: Callable[..., Any] | None
    x: Tensor
    truth: Tensor
    deserving: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    discrete: bool = False

    @property
    def estimators(self) -> list[str]:
        names = ["importance"] if self.guide else []
        return [*names, "prior", *([] if self.discrete else ["ais"])]


BOTH = "importance", "ais"


def grid(low: float, high: float, log_f: Callable[[Tensor], Tensor], size: int = 20_001) -> Tensor:
    """The integral of exp log_f from low to high on a grid, which comes first in its shape."""
    z = torch.linspace(low, high, size)
    return log_f(z).logsumexp(0) + np.log((high - low) / (size - 1))


def numbers(values: Any) -> Tensor:
    """A tensor of numpy's numbers, of the default type."""
    return torch.as_tensor(values, dtype=torch.get_default_dtype())


def linear(
    name: str,
    x_dim: int,
    z_dim: int,
    scale: Any = 1.0,
    *,
    n: int,
    sigma: float = 0.5,
    shift: float = 0.0,
    kind: str = "exact",
    scenario: LinearGaussian | None = None,
    **rest: Any,
) -> Known:
    """Probabilistic PCA with its posterior as guide: `scale` times as wide, or without
    correlations, `shift` standard deviations off, or no guide (the path then begins at the prior).
    """
    s = scenario or LinearGaussian.make(x_dim=x_dim, z_dim=z_dim, sigma=sigma)
    x = s.data(n)
    factor = torch.linalg.cholesky(s.cov)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            width = scale(x)[:, None, None] if callable(scale) else scale
            loc = s.posterior_mean(x) + shift * s.cov.diagonal().sqrt()
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=width * factor))

    guides = {"exact": guide, "prior": None, "mean field": lambda x: s.mean_field(x, scale)}
    return Known(name, s.model, guides[kind], x, s.log_evidence(x), **rest)


def mixture(n: int) -> Known:
    """Three normals whose component is the only latent: summed out, nothing is left to draw."""
    loc, probs = torch.tensor([-2.0, 0.0, 3.0]), torch.tensor([0.2, 0.5, 0.3])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(probs))
            pyro.sample("x", dist.Normal(loc[k], 0.7), obs=x)

    def guide(x: Tensor) -> None:
        """Nothing is left to guess."""

    x = torch.linspace(-4, 5, n)
    truth = (probs.log() + dist.Normal(loc, 0.7).log_prob(x[:, None])).logsumexp(1)
    return Known("GMM, summed out", model, guide, x, truth, ("importance",), discrete=True)


def gaussians(n: int, wide: float) -> Known:
    """The same with z ~ N(loc_k, 1), x ~ N(z, 0.5^2) in two dimensions."""
    loc = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, -1.0]])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3) / 3))
            z = pyro.sample("z", dist.Normal(loc[k], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.8 * x, wide).to_event(1))

    k = torch.arange(n) % 3
    x = loc[k] + 1.25**0.5 * torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    log_x = dist.Normal(loc, 1.25**0.5).to_event(1).log_prob(x[:, None])
    truth = log_x.logsumexp(1) - np.log(3)
    return Known("GMM over a latent", model, guide, x, truth, BOTH)


def gamma_poisson(n: int, wide: float, **rest: Any) -> Known:
    """rate ~ Gamma(2, 0.7), x ~ Poisson(rate): negative binomial; a guide of `wide` variance."""
    a, b = 2.0, 0.7

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(a, b))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma((a + x) / wide, (b + 1.0) / wide))

    x = torch.arange(n) % 9 * 1.0
    truth = torch.from_numpy(nbinom.logpmf(x.numpy(), a, b / (1 + b)))
    name = "Gamma-Poisson, " + ("exact guide" if wide == 1 else f"variance x {wide}")
    return Known(name, model, guide, x, truth, **rest)


def beta_binomial(n: int) -> Known:
    """p ~ Beta(2, 3), x ~ Binomial(12, p)."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Beta(2.0, 3.0))
            pyro.sample("x", dist.Binomial(12, p), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("p", dist.Beta((2.0 + x) / 1.2, (15.0 - x) / 1.2))

    x = torch.arange(n) % 13 * 1.0
    truth = torch.from_numpy(betabinom.logpmf(x.numpy(), 12, 2.0, 3.0))
    return Known("Beta-Binomial, variance x 1.2", model, guide, x, truth, BOTH)


def two_modes(n: int, lost: float) -> Known:
    """z ~ (1 - lost) N(5, 1) + lost N(-5, 1), x ~ N(|z|, 0.5^2); the guide knows the first."""
    weights = torch.tensor([1 - lost, lost])

    def prior(shape: tuple[int, ...] = ()) -> Any:
        modes = dist.Normal(torch.tensor([5.0, -5.0]).expand(*shape, 2), 1.0)
        return dist.MixtureSameFamily(dist.Categorical(weights.expand(*shape, 2)), modes)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior((len(x),)))
            pyro.sample("x", dist.Normal(z.abs(), 0.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.8 * x + 0.2 * 5, 1.1 * 0.2**0.5))

    x = 5 + 1.25**0.5 * torch.randn(n, generator=torch.Generator().manual_seed(1))
    truth = grid(-15, 15, lambda z: (
        prior().log_prob(z)[:, None] + dist.Normal(z.abs()[:, None], 0.5).log_prob(x)
    ))  # fmt: skip
    return Known(f"two modes, one of {lost:.0%} lost", model, guide, x, truth)


def mirrored(n: int, dims: int, lost: float, narrow: float = 0.05) -> Known:
    """z ~ N(0, I), x ~ (1 - lost) N(z, 0.5^2) + lost N(-z, narrow^2); the guide knows the first.

    The lost mode is so narrow that annealing from the prior does not find it either.
    """
    log_share, sigma = torch.tensor([1 - lost, lost]).log(), torch.tensor([0.5, narrow])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), dims), 1.0).to_event(1))
            loc = torch.stack([z, -z], -2)
            both = dist.Normal(loc, sigma[:, None].expand(2, dims)).to_event(1)
            which = dist.Categorical(logits=log_share.expand(loc.shape[:-1]))
            pyro.sample("x", dist.MixtureSameFamily(which, both), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.8 * x, 1.1 * 0.2**0.5).to_event(1))

    generator = torch.Generator().manual_seed(1)
    z, noise = torch.randn(2, n, dims, generator=generator)
    which = torch.rand(n, 1, generator=generator) < lost
    x = torch.where(which, narrow * noise - z, z + 0.5 * noise)
    scale = (1 + sigma.square()).sqrt()[:, None, None]
    truth = (dist.Normal(0.0, scale).log_prob(x).sum(-1) + log_share[:, None]).logsumexp(0)
    return Known(f"a narrow mode of {lost:.0%} lost in {dims}", model, guide, x, truth)


def rare_state(n: int) -> Known:
    """k ~ Bernoulli(1/2) says nothing of x, and the guide draws k = 1 once in 100,000 times."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(torch.full((len(x),), 0.5)))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(torch.full((len(x),), 1e-5)))

    x = torch.linspace(-2, 2, n)
    truth = dist.Normal(0.0, 1.0).log_prob(x)
    return Known("ties: a state of half the mass never drawn", model, guide, x, truth,
                 discrete=True)  # fmt: skip


def student(n: int, dims: int, sigma: float, start: str) -> Known:
    """z ~ Student-t(2), x ~ N(z, sigma^2), each dimension by itself."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.StudentT(2.0, torch.zeros(dims), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, sigma).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            scale = sigma / (1 + sigma**2) ** 0.5
            pyro.sample("z", dist.Normal(x / (1 + sigma**2), scale).to_event(1))

    rng = np.random.default_rng(1)
    z = torch.from_numpy(rng.standard_t(2, (n, dims))).to(torch.get_default_dtype())
    x = z + sigma * torch.from_numpy(rng.standard_normal((n, dims))).to(z)
    t = torch.linspace(-12, 12, 4001)
    terms = dist.StudentT(2.0).log_prob(x[..., None] + sigma * t) + dist.Normal(0, 1).log_prob(t)
    truth = (terms.logsumexp(-1) + np.log(24 / 4000)).sum(1)
    name = f"Student-t(2) prior in {dims}, from the {start}"
    return Known(name, model, guide if start == "guide" else None, x, truth)


def funnel(n: int, start: str) -> Known:
    """Neal's funnel: v ~ N(0, 3^2), z_i ~ N(0, exp(v)), x_i ~ N(z_i, 1), i up to 5."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(torch.zeros(len(x)), 3.0))
            z = pyro.sample("z", dist.Normal(0.0, (v / 2).exp()[..., None].expand(*v.shape, 5))
                            .to_event(1))  # fmt: skip
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            excess = x.square().mean(1)
            pyro.sample("v", dist.Normal((excess + 0.1).log(), 1.5))
            share = excess / (1 + excess)
            pyro.sample("z", dist.Normal(share[:, None] * x, share.sqrt()[:, None]).to_event(1))

    generator = torch.Generator().manual_seed(1)
    v = 3 * torch.randn(n, 1, generator=generator)
    x = (1 + v.exp()).sqrt() * torch.randn(n, 5, generator=generator)
    truth = grid(-30, 30, lambda v: (
        dist.Normal(0.0, 3.0).log_prob(v)[:, None]
        + dist.Normal(0.0, (1 + v.exp()).sqrt()[:, None, None]).log_prob(x).sum(-1)
    ))  # fmt: skip
    return Known(f"funnel, from the {start}", model, guide if start == "guide" else None, x, truth)


def banana(n: int) -> Known:
    """z ~ N(0, I_2), x ~ N(z_1 + z_2^2, 0.2^2): the posterior is curved, the guide is not."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0] + z[..., 1].square(), 0.2), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            loc = torch.stack([x / 2, torch.zeros_like(x)], -1)
            pyro.sample("z", dist.Normal(loc, torch.tensor([0.9, 0.7])).to_event(1))

    generator = torch.Generator().manual_seed(1)
    z = torch.randn(n, 2, generator=generator)
    x = z[:, 0] + z[:, 1].square() + 0.2 * torch.randn(n, generator=generator)
    truth = grid(-9, 9, lambda z: (
        dist.Normal(0.0, 1.0).log_prob(z)[:, None]
        + dist.Normal(z.square()[:, None], 1.04**0.5).log_prob(x)
    ))  # fmt: skip
    return Known("banana", model, guide, x, truth)


def ill_conditioned(n: int, dims: int, **rest: Any) -> Known:
    """A posterior of condition 10^4, turned at random, under the best mean-field guide."""
    generator = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn(dims, dims, generator=generator))[0]
    precision = torch.logspace(0, 4, dims)
    weight = (precision - 0.999).clamp(min=1e-6).sqrt()[:, None] * turn.T
    scenario = LinearGaussian(weight, torch.zeros(dims), 1.0)
    return linear("", dims, dims, n=n, scenario=scenario, kind="mean field", **rest)


def breast_cancer(n: int, num_temperatures: int) -> Known:
    """scikit-learn's FactorAnalysis(5) of its breast-cancer data, from the prior."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.decomposition import FactorAnalysis
    from sklearn.preprocessing import StandardScaler

    table = StandardScaler().fit_transform(load_breast_cancer().data)
    fa = FactorAnalysis(5, random_state=0).fit(table)
    rows = table[:: len(table) // n][:n]
    dtype = torch.get_default_dtype()
    weight, mean, sd = (
        torch.from_numpy(a).to(dtype)
        for a in (fa.components_, fa.mean_, np.sqrt(fa.noise_variance_))
    )

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 5), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight + mean, sd).to_event(1), obs=x)

    x, truth = torch.from_numpy(rows).to(dtype), torch.from_numpy(fa.score_samples(rows))
    name = f"FactorAnalysis(5) of breast cancer, {num_temperatures} temperatures"
    return Known(name, model, None, x, truth, options={"num_temperatures": num_temperatures})


def outliers(n: int) -> Known:
    """Probabilistic PCA; a tenth of the data lie where an amortized guide no longer follows."""
    s = LinearGaussian.make(x_dim=5, z_dim=2)
    x = s.data(n)
    x[::10] = x[::10] + 6 * s.weight[:, 0]

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            loc = s.posterior_mean(x).clamp(-2.5, 2.5)
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=1.1 * tril))

    tril = torch.linalg.cholesky(s.cov)
    return Known("a tenth outliers that the guide loses", s.model, guide, x, s.log_evidence(x))


def half_as_wide(n: int) -> Known:
    """Probabilistic PCA in 5 dimensions; the guide is half as wide for about 2 % of the data."""
    scenario = LinearGaussian.make(x_dim=10, z_dim=5)
    edge = torch.quantile(scenario.data(10_000, seed=7)[:, 0], 0.98)
    return linear(
        "2 % of the data, guide x 0.5", 10, 5, lambda x: torch.where(x[:, 0] > edge, 0.5, 1.1), n=n
    )


def everything(n: int = 48) -> list[Known]:
    """All models, with n data each."""
    few = {"num_chains": 4}
    return [
        linear("PPCA 2, exact guide", 5, 2, n=n, deserving=BOTH),
        linear("PPCA 10, exact guide", 20, 10, n=n, deserving=BOTH),
        linear("PPCA 2, guide x 1.1", 5, 2, 1.1, n=n, deserving=BOTH),
        linear("PPCA 2, guide x 1.2", 5, 2, 1.2, n=n, deserving=BOTH),
        linear("PPCA 5, guide x 1.2", 10, 5, 1.2, n=n, deserving=BOTH),
        linear("PPCA 10, guide x 1.1", 20, 10, 1.1, n=n, deserving=BOTH),
        linear("PPCA 10, guide x 1.2", 20, 10, 1.2, n=n, deserving=BOTH),
        linear("PPCA 20, guide x 1.1", 40, 20, 1.1, n=n, deserving=BOTH),
        linear("PPCA 2, sigma 1, from the prior", 5, 2, n=n, sigma=1.0, kind="prior",
               deserving=("ais",)),
        mixture(n),
        gaussians(n, 0.5),
        gamma_poisson(n, 1.0, deserving=BOTH),
        gamma_poisson(n, 1.3, deserving=BOTH),
        beta_binomial(n),
        linear("PPCA 10, from the prior", 20, 10, n=n, kind="prior"),
        linear("PPCA 20, sigma 0.1, from the prior", 40, 20, n=n, sigma=0.1, kind="prior"),
        linear("PPCA 2, guide x 0.5", 5, 2, 0.5, n=n),
        linear("PPCA 5, guide x 0.7", 10, 5, 0.7, n=n),
        linear("PPCA 10, guide x 0.8", 20, 10, 0.8, n=n),
        linear("PPCA 5, guide shifted by 1.5 s.d.", 10, 5, n=n, shift=1.5),
        linear("PPCA 4, mean field", 8, 4, n=n, kind="mean field"),
        half_as_wide(2 * n),
        outliers(n),
        two_modes(n, 0.5),
        two_modes(n, 0.05),
        rare_state(n),
        named("condition 10^4, mean field", ill_conditioned(n, 10)),
        named("condition 10^4, mean field, 4 particles", ill_conditioned(n, 10, options=few)),
        named("condition 10^4, mean field, 2 particles",
              ill_conditioned(n, 10, options={"num_chains": 2})),
        breast_cancer(n, 300),
        breast_cancer(n, 1000),
        student(n, 10, 0.1, "prior"),
        student(n, 2, 2.0, "guide"),
        funnel(n, "guide"),
        funnel(n, "prior"),
        banana(n),
    ]  # fmt: skip


def beta_normal(n: int) -> Known:
    """p ~ Beta(2, 5), x ~ N(p, 0.1^2): a share, measured; some are measured below 0."""
    prior = dist.Beta(2.0, 5.0)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", prior)
            pyro.sample("x", dist.Normal(p, 0.1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            mean = (0.7 * x + 0.3 * 2 / 7).clamp(0.05, 0.95)
            pyro.sample("p", dist.Beta(16 * mean, 16 * (1 - mean)))

    rng = np.random.default_rng(1)
    x = numbers(rng.beta(2, 5, n) + 0.1 * rng.standard_normal(n))
    truth = grid(0, 1, lambda p: (
        prior.log_prob(p)[:, None] + dist.Normal(p[:, None], 0.1).log_prob(x)
    ))  # fmt: skip
    return Known("Beta, measured", model, guide, x, truth)


def log_normal(n: int, size: int = 5) -> Known:
    """s ~ LogNormal(0, 1), x_i ~ N(0, s^2), i up to 5; the guide is 1.2 times too wide."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
            pyro.sample("x", dist.Normal(0.0, s[..., None].expand(*s.shape, size)).to_event(1),
                        obs=x)  # fmt: skip

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            precision = 1 + 2 * size
            loc = size / precision * x.square().mean(1).log()
            pyro.sample("s", dist.LogNormal(loc, 1.2 / precision**0.5))

    rng = np.random.default_rng(1)
    x = numbers(rng.lognormal(size=(n, 1)) * rng.standard_normal((n, size)))
    truth = grid(-8, 8, lambda t: (
        dist.Normal(0.0, 1.0).log_prob(t)[:, None]
        + dist.Normal(0.0, t.exp()[:, None, None]).log_prob(x).sum(-1)
    ), 4_001)  # fmt: skip
    return Known("LogNormal", model, guide, x, truth)


def dirichlet(n: int, size: int) -> Known:
    """p ~ Dirichlet(0.5, ...), x ~ Multinomial(20, p); a guide of 1.2 times its variance."""
    a = torch.full((size,), 0.5)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Dirichlet(a))
            pyro.sample("x", dist.Multinomial(20, p), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("p", dist.Dirichlet((a + x) / 1.2))

    rng = np.random.default_rng(1)
    x = numbers(rng.multinomial(20, rng.dirichlet(a, n)))
    truth = torch.from_numpy(dirichlet_multinomial.logpmf(x.long().numpy(), a.numpy(), 20))
    return Known(f"Dirichlet-Multinomial {size}", model, guide, x, truth)


def correlation(n: int, size: int = 8) -> Known:
    """L ~ LKJ(2) of a 2 x 2 correlation, x_i ~ N(0, L L^T), i up to 8; Fisher's z as guide."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            tril = pyro.sample("L", dist.LKJCholesky(2, 2.0))
            rows = tril[..., None, :, :].expand(*tril.shape[:-2], size, 2, 2)
            pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), scale_tril=rows)
                        .to_event(1), obs=x)  # fmt: skip

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            r = x.prod(-1).sum(1) / x.square().sum(1).prod(-1).sqrt()
            z = dist.Normal(0.8 * r.atanh()[:, None], 1.2 * size**-0.5).to_event(1)
            pyro.sample(
                "L", dist.TransformedDistribution(z, dist.transforms.CorrCholeskyTransform())
            )

    rng = np.random.default_rng(1)
    rho = 2 * rng.beta(2, 2, (n, 1)) - 1
    z = rng.standard_normal((2, n, size))
    x = numbers(np.stack([z[0], rho * z[0] + (1 - rho**2) ** 0.5 * z[1]], -1))
    truth = grid(-1 + 1e-6, 1 - 1e-6, lambda rho: (
        (0.75 * (1 - rho**2)).log()[:, None]
        + dist.Normal(0.0, 1.0).log_prob(x[..., 0]).sum(-1)
        + dist.Normal(rho[:, None, None] * x[..., 0], (1 - rho**2).sqrt()[:, None, None])
        .log_prob(x[..., 1]).sum(-1)
    ))  # fmt: skip
    return Known("LKJ 2 x 2", model, guide, x, truth)


def nested(n: int, parts: int) -> Known:
    """m ~ N(0, 1) of a group, t_i ~ N(m, 0.7^2), x_i ~ N(t_i, 0.5^2); a mean-field guide."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            m = pyro.sample("m", dist.Normal(torch.zeros(1), 1.0))
            with pyro.plate("parts", parts, dim=-1):
                t = pyro.sample("t", dist.Normal(m, 0.7))
                pyro.sample("x", dist.Normal(t, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            mean = parts / (parts + 0.74) * x.mean(1, keepdim=True)
            pyro.sample("m", dist.Normal(mean, (1 + parts / 0.49) ** -0.5))
            with pyro.plate("parts", parts, dim=-1):
                pyro.sample("t", dist.Normal(mean + 0.49 / 0.74 * (x - mean), 0.4))

    cov = 0.74 * torch.eye(parts) + 1
    exact = dist.MultivariateNormal(torch.zeros(parts), cov)
    noise = torch.randn(n, parts, generator=torch.Generator().manual_seed(1))
    x = noise @ torch.linalg.cholesky(cov).T
    return Known(f"a plate of {parts} in the data's", model, guide, x, exact.log_prob(x))


def masked(n: int) -> Known:
    """Probabilistic PCA of which 40 % is not seen: of x[:, 0] that where x[:, 1] is 1 counts.

    The guide takes what is not seen for its mean, which is off and too narrow.
    """
    s = LinearGaussian.make(x_dim=8, z_dim=3)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, 3), 1.0).to_event(1))
            loc = (z @ s.weight.T + s.mean).squeeze(-2)
            with pyro.plate("columns", 8, dim=-1), poutine.mask(mask=x[:, 1] > 0):
                pyro.sample("x", dist.Normal(loc, s.sigma), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            loc = s.posterior_mean(torch.where(x[:, 1] > 0, x[:, 0], s.mean))
            pyro.sample("z", dist.Normal(loc[:, None], 0.4).to_event(1))

    x = s.data(n)
    seen = torch.rand(n, 8, generator=torch.Generator().manual_seed(2)) < 0.6
    cov = s.weight @ s.weight.T + s.sigma**2 * torch.eye(8)
    truth = torch.stack([
        dist.MultivariateNormal(s.mean[i], cov[i][:, i]).log_prob(row[i])
        if i.any() else torch.tensor(0.0)
        for row, i in zip(x, seen, strict=True)
    ])  # fmt: skip
    return Known("PPCA 3, 40 % masked", model, guide, torch.stack([x, seen.to(x)], 1), truth)


CERTIFIABLE: dict[str, Callable[[int], Known]] = {
    "LogNormal": log_normal,
    "Beta, measured": beta_normal,
    "Dirichlet-Multinomial 3": lambda n: dirichlet(n, 3),
    "Dirichlet-Multinomial 10": lambda n: dirichlet(n, 10),
    "LKJ": correlation,
    "nested plates 4": lambda n: nested(n, 4),
    "nested plates 20": lambda n: nested(n, 20),
    "masked": masked,
    "sigma 0.01, mean field": lambda n: linear(
        "PPCA 10, sigma 0.01, mean field", 20, 10, n=n, sigma=0.01, kind="mean field"
    ),
    "PPCA 100, guide x 0.3": lambda n: linear("PPCA 100, guide x 0.3", 50, 100, 0.3, n=n),
    "PPCA 200, guide shifted": lambda n: linear("PPCA 200, shifted", 10, 200, n=n, shift=3.0),
}  # models of other families and shapes, of n data


def named(name: str, known: Known) -> Known:
    from dataclasses import replace

    return replace(known, name=name)
