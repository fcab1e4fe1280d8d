"""Mixtures: discrete latents that are summed out, or that the guide draws."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoDelta

from programs.cases import case
from programs.nets import mlp


def nothing(*_):
    """All latents are summed out."""


@case("tutorial/gmm", "a sum over components at the points")
def gmm():
    """Weights, locations and scale by AutoDelta, assignments summed out."""
    x = 3 * torch.randn(5)

    @config_enumerate
    def model(x):
        weights = pyro.sample("weights", dist.Dirichlet(2 * torch.ones(2)))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("components", 2):
            locs = pyro.sample("locs", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x)):
            k = pyro.sample("assignment", dist.Categorical(weights))
            pyro.sample("obs", dist.Normal(locs[k], scale), obs=x)

    shared = poutine.block(model, expose=["weights", "locs", "scale"])
    guide = AutoDelta(shared)

    def exact():
        at = guide(x)
        log_x = dist.Normal(at["locs"], at["scale"]).log_prob(x[:, None])
        return (at["weights"].log() + log_x).logsumexp(-1)

    return model, guide, (x,), exact


@case("tutorial/enumeration", "a sum over components", "importance prior")
def gmm_parameters():
    """The same with parameters in place of latents, and nothing left to the guide."""
    x, loc = 3 * torch.randn(5), torch.tensor([-1.0, 2.0])

    def model(x):
        weights = pyro.param("weights", torch.tensor([0.3, 0.7]), constraints.simplex)
        locs = pyro.param("locs", loc)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
            pyro.sample("obs", dist.Normal(locs[k], 1.0), obs=x)

    def exact():
        log_x = dist.Normal(loc, 1.0).log_prob(x[:, None])
        return (torch.tensor([0.3, 0.7]).log() + log_x).logsumexp(-1)

    return model, nothing, (x,), exact


@case(
    "tutorial/dirichlet_process_mixture",
    "predictive density in closed form",
    draws=200,
    singly=True,
)
def dpmm():
    """Stick-breaking weights and rates that are sampled, assignments drawn by the guide."""
    x, size = torch.tensor([0.0, 2.0, 3.0, 9.0, 5.0]), 3

    def weights(beta):
        rest = (1 - beta).cumprod(-1)
        one = torch.ones_like(beta[..., :1])
        return torch.cat([beta, one], -1) * torch.cat([one, rest], -1)

    def model(data):
        with pyro.plate("beta_plate", size - 1):
            beta = pyro.sample("beta", dist.Beta(1.0, 1.5))
        with pyro.plate("lambda_plate", size):
            rate = pyro.sample("lambda", dist.Gamma(3.0, 0.5))
        with pyro.plate("data", len(data)):
            z = pyro.sample("z", dist.Categorical(weights(beta)))
            pyro.sample("obs", dist.Poisson(rate[z]), obs=data)

    a, b = torch.tensor([4.0, 6.0, 20.0]), torch.tensor([4.0, 2.0, 3.0])

    def guide(data):
        kappa = pyro.param("kappa", torch.tensor([1.5, 2.0]), constraints.positive)
        phi = pyro.param("phi", lambda: torch.ones(len(data), size) / size, constraints.simplex)
        with pyro.plate("beta_plate", size - 1):
            pyro.sample("beta", dist.Beta(torch.ones(size - 1), kappa))
        with pyro.plate("lambda_plate", size):
            pyro.sample("lambda", dist.Gamma(a, b))
        with pyro.plate("data", len(data)):
            pyro.sample("z", dist.Categorical(phi))

    def exact():
        mean = 1 / (1 + torch.tensor([1.5, 2.0]))  # of independent betas
        return (weights(mean).log() + dist.GammaPoisson(a, b).log_prob(x[:, None])).logsumexp(-1)

    return model, guide, (x,), exact


@case("examples/toy_mixture_model_discrete_enumeration.py", "a sum by hand", "importance prior")
def bayes_net():
    """A chain of discrete latents whose tables are parameters."""
    p_a, p_b = torch.tensor([0.2, 0.8]), torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    p_c = torch.tensor([[0.1, 0.6], [0.8, 0.3]])
    c = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])

    @config_enumerate
    def model(c):
        table = pyro.param("p_b", p_b, constraint=constraints.simplex)
        with pyro.plate("data", len(c)):
            a = pyro.sample("a", dist.Categorical(p_a))
            b = pyro.sample("b", dist.Categorical(table[a]))
            pyro.sample("c", dist.Bernoulli(p_c[a, b]), obs=c)

    def exact():
        one = (p_a[:, None] * p_b * p_c).sum()
        return torch.where(c == 1, one.log(), (1 - one).log())

    return model, nothing, (c,), exact


class Air:
    """Attend, infer, repeat in one dimension: up to two objects, each there or not."""

    basis = torch.tensor([[1.0, 0.5, 0.0], [0.2, -1.0, 1.0]], dtype=torch.float64)

    def __init__(self):
        self.predict = mlp(3, 2)

    def model(self, x):
        with pyro.plate("data", len(x)):
            there, image = x.new_ones(len(x)), 0.0
            for t in range(2):
                there = pyro.sample(f"z_pres_{t}", dist.Bernoulli(0.6 * there))
                what = pyro.sample(f"z_what_{t}", dist.Normal(0.0, 1.0).mask(there.bool()))
                image = image + (there * what)[..., None] * self.basis[t]
            pyro.sample("obs", dist.Normal(image, 0.7).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("predict", self.predict)
        with pyro.plate("data", len(x)):
            there, logits = x.new_ones(len(x)), self.predict(x)
            for t in range(2):
                fn = dist.Bernoulli(torch.sigmoid(logits[:, t]) * there)
                there = pyro.sample(f"z_pres_{t}", fn)
                what = dist.Normal(0.3 * logits[:, t], 1.1).mask(there.bool())
                pyro.sample(f"z_what_{t}", what)

    def continuous(self, x):
        """The guide without the discrete sites, all objects there."""
        with pyro.plate("data", len(x)):
            for t in range(2):
                pyro.sample(f"z_what_{t}", dist.Normal(x.new_zeros(len(x)), 1.1))

    def log_evidence(self, x):
        rows = []
        for count, p in enumerate((0.4, 0.6 * 0.4, 0.36)):
            b = self.basis[:count]
            cov = 0.49 * torch.eye(3) + b.T @ b
            rows.append(math.log(p) + dist.MultivariateNormal(torch.zeros(3), cov).log_prob(x))
        return torch.stack(rows).logsumexp(0)


@case(
    "examples/air/air.py",
    "a sum over objects, each in closed form",
    "importance prior",
    without="ais",
)
def air():
    """Objects that are there or not, what is not there masked: discrete draws by a network."""
    net, x = Air(), torch.randn(5, 3)
    return net.model, net.guide, (x,), lambda: net.log_evidence(x)


@case(
    "examples/air/air.py",
    refused="a mask on latents that depends on a site that is summed out leaves no density",
    message=r"(?i)mask",
)
def air_summed_out():
    """The same with a guide that leaves the discrete sites out."""
    net, x = Air(), torch.randn(5, 3)
    return net.model, net.continuous, (x,)


@case("pyroVED jVAE, tutorial/enumeration", "a sum over k, in closed form", "importance prior ais")
def mixture_drawn():
    """A class drawn by the guide, a latent given the class; annealing sums the class out."""
    loc, x = torch.tensor([-2.0, 0.0, 2.0]), 2 * torch.randn(5)

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3)))
            z = pyro.sample("z", dist.Normal(loc[k], 0.8))
            pyro.sample("x", dist.Normal(z, 0.6), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=-0.3 * (x[:, None] - loc) ** 2))
            pyro.sample("z", dist.Normal((x + loc[k]) / 2, 0.8))

    def exact():
        return dist.Normal(loc, 1.0).log_prob(x[:, None]).logsumexp(-1) - math.log(3)

    return model, guide, (x,), exact
