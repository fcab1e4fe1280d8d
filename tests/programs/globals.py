"""Latents that all data share: points are parameters, draws give the predictive density."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib import gp
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal, init_to_value
from pyro.infer.reparam import LocScaleReparam
from pyro.nn import PyroModule, PyroSample
from torch import nn
from torch.distributions.utils import clamp_probs

from programs.answers import axis, expectation, integral
from programs.cases import case

JOINT = "joint evidence: "


def schools():
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    return torch.stack([y, torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])], -1)


def schools_exact(y, sigma, log_tau):
    """mu ~ N(0, 10^2) and the effects are integrated out in closed form, tau on a grid."""

    def log_joint(u):  # u = log tau
        cov = torch.diag_embed(sigma**2 + (2 * u).exp()) + 100.0
        log_y = dist.MultivariateNormal(torch.zeros(len(y)), cov).log_prob(y)
        return log_tau(u[..., 0].exp()) + u[..., 0] + log_y

    return integral(log_joint, axis(-12, 9, 601))[0]


@case(
    "examples/eight_schools/svi.py",
    JOINT + "closed form, a grid over tau",
    "importance prior ais",
    plate=None,
)
def eight_schools():
    """A program of fixed size without a plate: effects, their mean and spread, evidence of all."""
    data = schools()

    def model(data):
        y, sigma = data[:, 0], data[:, 1]
        eta = pyro.sample("eta", dist.Normal(torch.zeros(8), torch.ones(8)).to_event(1))
        mu = pyro.sample("mu", dist.Normal(torch.zeros(1), 10.0).to_event(1))
        tau = pyro.sample("tau", dist.HalfCauchy(scale=5 * torch.ones(1)).to_event(1))
        pyro.sample("obs", dist.Normal(mu + tau * eta, sigma).to_event(1), obs=y)

    def guide(data):
        loc = pyro.param("loc_eta", torch.zeros(8))
        scale = pyro.param("scale_eta", torch.ones(8), constraint=constraints.positive)
        m_log_tau = pyro.param("loc_logtau", torch.full((1,), 1.5))
        pyro.sample("eta", dist.Normal(loc, scale).to_event(1))
        pyro.sample("mu", dist.Normal(torch.full((1,), 6.0), 6.0).to_event(1))
        log_tau = dist.Normal(m_log_tau, 1.5).to_event(1)
        exp = dist.transforms.ExpTransform()
        pyro.sample("tau", dist.TransformedDistribution(log_tau, exp))

    prior = dist.HalfCauchy(5.0)
    return model, guide, (data,), lambda: schools_exact(*data.T, prior.log_prob)


@case(
    "infer.reparam",
    JOINT + "closed form, a grid over tau",
    "importance prior",
    plate=None,
)
def eight_schools_reparametrized():
    """The same with a plate, `LocScaleReparam` and an AutoNormal."""
    y, sigma = schools().T

    def centered(y, sigma):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        tau = pyro.sample("tau", dist.LogNormal(1.0, 1.0))
        with pyro.plate("schools", len(y)):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
            pyro.sample("obs", dist.Normal(theta, sigma), obs=y)

    config = {"theta": LocScaleReparam(0.0), "mu": LocScaleReparam(0.0)}
    model = poutine.reparam(centered, config=config)
    start = {"mu_decentered": torch.tensor(0.6), "tau": torch.tensor(3.0)}
    start["theta_decentered"] = torch.zeros(8)
    guide = AutoNormal(model, init_loc_fn=init_to_value(values=start), init_scale=1.0)
    prior = dist.LogNormal(1.0, 1.0)
    return model, guide, (y, sigma), lambda: schools_exact(y, sigma, prior.log_prob)


class Regression(PyroModule):
    """Pyro's tutorial: weights of a linear layer and the noise are sampled."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](1, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 1]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 2.0).expand([1]).to_event(1))

    def forward(self, x, y=None):
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def line(n=5):
    x = torch.randn(n, 1)
    return x, 0.8 * x[:, 0] + 0.3 + 0.5 * torch.randn(n)


@case(
    "tutorial/bayesian_regression",
    "predictive density: closed form, Gauss-Hermite over sigma",
    draws=200,
    singly=True,
)
def regression_module():
    """Weights of `PyroModule[nn.Linear]`, which admits no particles, by AutoDiagonalNormal."""
    model, (x, y) = Regression(), line()
    start = {"sigma": torch.tensor(1.0), "linear.weight": torch.tensor([[0.7]])}
    start["linear.bias"] = torch.tensor([0.2])
    guide = AutoDiagonalNormal(model, init_loc_fn=init_to_value(values=start), init_scale=0.3)

    def exact():
        [(w, sw)], [(b, sb)], [(u, su)] = (
            [(at[i], guide.scale[i])] for at in [guide.loc] for i in order(guide)
        )

        def log_y(g):
            sigma = 10 * torch.sigmoid(g[..., 0])
            var = sigma**2 + (x[:, 0] * sw) ** 2 + sb**2
            return dist.Normal(x[:, 0] * w + b, var.sqrt()).log_prob(y)

        return expectation(log_y, u[None], su[None, None], 60)

    return model, guide, (x, y), exact


def order(guide):
    """Where weight, bias and sigma are in an autoguide's packed latent."""
    names = [name for name, _ in guide.prototype_trace.iter_stochastic_nodes()]
    return [names.index(name) for name in ("linear.weight", "linear.bias", "sigma")]


@case("tutorial/intro_long", "closed form at the points", "importance")
def regression_points():
    """Regression weights and noise by AutoDelta: they are parameters."""
    x, y = line()

    def model(x, y):
        a = pyro.sample("a", dist.Normal(0.0, 10.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        with pyro.plate("data", len(x)):
            mean = pyro.deterministic("mean", a + b * x[:, 0])
            return pyro.sample("y", dist.Normal(mean, sigma), obs=y)

    guide = AutoDelta(model)

    def exact():
        at = guide(x, y)
        return dist.Normal(at["a"] + at["b"] * x[:, 0], at["sigma"]).log_prob(y)

    return model, guide, (x, y), exact


@case("tutorial/intro_long", "closed form at the points", "importance")
def conditioned():
    """The outcome is no argument: the model is conditioned on it; its size is fixed."""
    x, y = line()

    def model(x):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(b * x[:, 0], 0.5))

    fixed = poutine.condition(model, data={"y": y})
    guide = AutoDelta(fixed)
    return fixed, guide, (x,), lambda: dist.Normal(guide(x)["b"] * x[:, 0], 0.5).log_prob(y)


@case("tutorial/bayesian_regression_ii", "predictive density: Gauss-Hermite")
def logistic_regression():
    """Sampled weights, a matrix product that has room for particles."""
    x = torch.randn(5, 2)
    y = torch.bernoulli(torch.full((5,), 0.5))
    scale_tril = torch.tensor([[0.8, 0.0], [0.3, 0.5]])

    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=(x * w).sum(-1)), obs=y)

    def guide(x, y):
        loc = pyro.param("loc", torch.tensor([0.5, -0.5]))
        tril = pyro.param("tril", scale_tril, constraint=constraints.lower_cholesky)
        pyro.sample("w", dist.MultivariateNormal(loc, scale_tril=tril))

    def exact():
        def log_y(w):
            return dist.Bernoulli(logits=(x * w).sum(-1)).log_prob(y)

        return expectation(log_y, torch.tensor([0.5, -0.5]), scale_tril)

    return model, guide, (x, y), exact


class Network(PyroModule):
    """A Bayesian neural network of one hidden unit."""

    def __init__(self):
        super().__init__()
        self.first = PyroModule[nn.Linear](1, 1, bias=False)
        self.first.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 1]).to_event(2))
        self.second = PyroModule[nn.Linear](1, 1, bias=False)
        self.second.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 1]).to_event(2))

    def forward(self, x, y=None):
        mean = self.second(torch.tanh(self.first(x))).squeeze(-1)
        with pyro.plate("data", len(x)):
            return pyro.sample("obs", dist.Normal(mean, 0.5), obs=y)


@case(
    "tutorial/bayesian neural networks",
    "predictive density: Gauss-Hermite",
    draws=200,
    singly=True,
)
def neural_network():
    """A Bayesian neural network under an AutoNormal."""
    model, (x, y) = Network(), line()
    start = {f"{name}.weight": torch.tensor([[0.8]]) for name in ("first", "second")}
    guide = AutoNormal(model, init_loc_fn=init_to_value(values=start), init_scale=0.4)

    def exact():
        def log_y(w):
            mean = w[..., 1] * torch.tanh(w[..., 0] * x[:, 0])
            return dist.Normal(mean, 0.5).log_prob(y)

        return expectation(log_y, torch.full((2,), 0.8), 0.4 * torch.eye(2))

    return model, guide, (x, y), exact


@case("tutorial/svi_part_i", "predictive density: mean of a beta", without="ais")
def coin():
    """A loop over tosses, `for i in pyro.plate(...)`, and a fairness that all share."""
    x = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])

    def model(data):
        f = pyro.sample("latent_fairness", dist.Beta(10.0, 10.0))
        for i in pyro.plate("data", len(data)):
            pyro.sample(f"obs_{i}", dist.Bernoulli(f), obs=data[i])

    def guide(data):
        a = pyro.param("alpha_q", torch.tensor(6.0), constraint=constraints.positive)
        b = pyro.param("beta_q", torch.tensor(4.0), constraint=constraints.positive)
        pyro.sample("latent_fairness", dist.Beta(a, b))

    return model, guide, (x,), lambda: torch.where(x == 1, math.log(0.6), math.log(0.4))


@case("tutorial/svi_part_i", JOINT + "beta-binomial", "importance quadrature", plate=None)
def coin_jointly():
    """The same tosses as one: their joint evidence."""
    x = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])

    def model(data):
        f = pyro.sample("latent_fairness", dist.Beta(10.0, 10.0))
        for i in range(len(data)):
            pyro.sample(f"obs_{i}", dist.Bernoulli(f), obs=data[i])

    def guide(data):
        pyro.sample("latent_fairness", dist.Beta(6.0, 6.0))

    def log_beta(a, b):
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    return model, guide, (x,), lambda: torch.tensor(log_beta(13, 12) - log_beta(10, 10))


@case("examples/baseball.py", "beta-binomial, a grid over m and kappa", "importance")
def baseball():
    """Partially pooled rates: a mean and a concentration are shared, a rate is a player's."""
    at_bats = torch.tensor([10.0, 12.0, 9.0, 15.0, 11.0])
    hits = torch.tensor([3.0, 6.0, 1.0, 5.0, 4.0])

    def model(at_bats, hits):
        m = pyro.sample("m", dist.Uniform(0.0, 1.0))
        kappa = pyro.sample("kappa", dist.Pareto(1.0, 1.5))
        with pyro.plate("data", len(at_bats)):
            phi = pyro.sample("phi", dist.Beta(m * kappa, (1 - m) * kappa))
            pyro.sample("hits", dist.Binomial(at_bats, probs=phi), obs=hits)

    more = dist.transforms.ComposeTransform(
        [dist.transforms.ExpTransform(), dist.transforms.AffineTransform(1.0, 1.0)]
    )

    def guide(at_bats, hits):
        pyro.sample("m", dist.Beta(4.0, 8.0))
        pyro.sample("kappa", dist.TransformedDistribution(dist.Normal(1.5, 0.5), [more]))
        with pyro.plate("data", len(at_bats)):
            pyro.sample("phi", dist.Beta(1 + hits, 1 + at_bats - hits))

    def exact():
        def log_q(u):  # m = sigmoid(u_0), kappa = 1 + exp(u_1)
            m, kappa = torch.sigmoid(u[..., 0]), 1 + u[..., 1].exp()
            log_m = dist.Beta(4.0, 8.0).log_prob(m) + m.log() + (1 - m).log()
            rate = dist.BetaBinomial(m * kappa, (1 - m) * kappa, at_bats)
            return log_m + dist.Normal(1.5, 0.5).log_prob(u[..., 1]) + rate.log_prob(hits)

        return integral(log_q, axis(-6, 4, 101), axis(-2, 5, 101))

    return model, guide, (at_bats, hits), exact


def captured():
    history = torch.bernoulli(torch.full((6, 4), 0.5))
    history[0], history[1, :3] = 0.0, 0.0
    history[1, 3] = 1.0
    return history


def recapture(history, phi, rho):
    """log p of a history after its first capture, by hand: phi `(G, T)`, rho `(G,)`: `(G, N)`."""
    first = torch.where(history.any(1), history.argmax(1), history.shape[1])
    total = []
    for row, start in zip(history, first, strict=True):
        alive, dead = torch.ones_like(rho), torch.zeros_like(rho)
        for t in range(int(start) + 1, history.shape[1]):
            alive, dead = alive * phi[:, t], dead + alive * (1 - phi[:, t])
            alive, dead = alive * (rho if row[t] else 1 - rho), dead * (1 - row[t])
        total.append((alive + dead).log())
    return torch.stack(total, -1)


@case(
    "examples/capture_recapture/cjs.py, model_1",
    "states by hand, a grid over the rates",
    plate="animals",
)
def capture_recapture():
    """States of animals are masked until first capture and summed out; rates are sampled."""
    history = captured()

    def model(history, sex):
        n, steps = history.shape
        phi = pyro.sample("phi", dist.Uniform(0.0, 1.0))
        rho = pyro.sample("rho", dist.Uniform(0.0, 1.0))
        with pyro.plate("animals", n, dim=-1):
            z, seen = torch.ones(n), torch.zeros(n).bool()
            for t in pyro.markov(range(steps)):
                with poutine.mask(mask=seen):
                    mean = seen.to(z) * phi * z + (1 - seen.to(z))
                    fn = dist.Bernoulli(clamp_probs(mean))
                    z = pyro.sample(f"z_{t}", fn, infer={"enumerate": "parallel"})
                    fn = dist.Bernoulli(clamp_probs(rho * z))
                    pyro.sample(f"y_{t}", fn, obs=history[:, t])
                seen = seen | history[:, t].bool()

    rates = poutine.block(model, expose=["phi", "rho"])
    start = {"phi": torch.tensor(0.6), "rho": torch.tensor(0.5)}
    guide = AutoDiagonalNormal(rates, init_loc_fn=init_to_value(values=start), init_scale=0.6)

    def exact():
        def log_p(u):
            at = torch.sigmoid(u[:, 0])
            return recapture(history, at[:, :1].expand(-1, 4), at[:, 1])

        return expectation(log_p, guide.loc, guide.scale.diag())

    return model, guide, (history, None), exact


@case("examples/capture_recapture/cjs.py, model_2", "states by hand", plate="animals")
def capture_recapture_in_time():
    """A rate for each year, sampled between entries of the plate; the mask changes in place."""
    history = captured()

    def model(history, sex):
        n, steps = history.shape
        rho = pyro.sample("rho", dist.Uniform(0.0, 1.0))
        z, seen = torch.ones(n), torch.zeros(n).bool()
        animals = pyro.plate("animals", n, dim=-1)
        for t in pyro.markov(range(steps)):
            phi = pyro.sample(f"phi_{t}", dist.Uniform(0.0, 1.0)) if t > 0 else 1.0
            with animals, poutine.mask(mask=seen):
                mean = seen.to(z) * phi * z + (1 - seen.to(z))
                fn = dist.Bernoulli(clamp_probs(mean))
                z = pyro.sample(f"z_{t}", fn, infer={"enumerate": "parallel"})
                fn = dist.Bernoulli(clamp_probs(rho * z))
                pyro.sample(f"y_{t}", fn, obs=history[:, t])
            seen |= history[:, t].bool()

    rates = poutine.block(model, expose_fn=lambda m: m["name"][:3] in ("phi", "rho"))
    guide = AutoDelta(rates)

    def exact():
        at = guide(history, None)
        phi = torch.stack([torch.tensor(1.0), *(at[f"phi_{t}"] for t in range(1, 4))])
        return recapture(history, phi[None], at["rho"][None])[0]

    return model, guide, (history, None), exact


@case("examples/lkj.py", "predictive density: Gauss-Hermite", plate="observations")
def correlations():
    """Scales and an LKJ correlation that all share, under an AutoDiagonalNormal."""
    x = torch.randn(5, 2)

    def model(y):
        theta = pyro.sample("theta", dist.HalfCauchy(torch.ones(2)).to_event(1))
        omega = pyro.sample("L_omega", dist.LKJCholesky(2, concentration=1.0))
        tril = theta.sqrt()[..., None] * omega
        with pyro.plate("observations", len(y)):
            pyro.sample("obs", dist.MultivariateNormal(torch.zeros(2), scale_tril=tril), obs=y)

    start = {"theta": torch.ones(2), "L_omega": torch.eye(2)}
    guide = AutoDiagonalNormal(model, init_loc_fn=init_to_value(values=start), init_scale=0.5)

    def exact():
        def log_x(u):  # log theta, and atanh of the correlation
            s, r = (u[..., :2] / 2).exp(), torch.tanh(u[..., 2])
            a, b = x[:, 0] / s[..., 0], x[:, 1] / s[..., 1]
            square = (a**2 - 2 * r * a * b + b**2) / (1 - r**2)
            log_det = s.log().sum(-1) + (1 - r**2).log() / 2
            return -square / 2 - log_det - math.log(2 * math.pi)

        return expectation(log_x, guide.loc, guide.scale.diag(), 20)

    return model, guide, (x,), exact


def rbf(x, variance, length):
    return variance * (-0.5 * ((x[:, None] - x) / length) ** 2).exp()


@case(
    "contrib/gp, tutorial/gp", JOINT + "a grid over the length", plate=None, draws=100, singly=True
)
def gaussian_process():
    """`contrib.gp` regression with a prior over its kernel's length."""
    x = torch.linspace(0, 1, 6)
    y = torch.sin(4 * x) + 0.2 * torch.randn(6)
    kernel = gp.kernels.RBF(1, variance=torch.tensor(1.0))
    kernel.lengthscale = PyroSample(dist.LogNormal(-0.5, 0.5))
    kernel.autoguide("lengthscale", dist.Normal)
    kernel.lengthscale_loc.data.fill_(-0.5)
    kernel.lengthscale_scale = torch.tensor(0.5)
    net = gp.models.GPRegression(x, y, kernel, noise=torch.tensor(0.1), jitter=0.0)

    def model(x, y):
        net.set_data(x, y)
        net.model()

    def guide(x, y):
        net.guide()

    def exact():
        def log_joint(u):
            covs = [rbf(x, 1.0, v.exp()) + 0.1 * torch.eye(6) for v in u.flatten()]
            log_y = dist.MultivariateNormal(torch.zeros(6), torch.stack(covs)).log_prob(y)
            return (dist.Normal(-0.5, 0.5).log_prob(u.flatten()) + log_y)[:, None]

        return integral(log_joint, axis(-5, 4, 201))[0]

    return model, guide, (x, y), exact


@case(
    "tutorial/gplvm, contrib/gp",
    JOINT + "a grid over all positions",
    plate=None,
    draws=200,
    singly=True,
)
def gplvm():
    """A GP latent variable model: `contrib.gp` over positions that are sampled."""
    y = torch.randn(2, 3)  # two genes, three cells
    kernel = gp.kernels.RBF(1, variance=torch.tensor(1.0), lengthscale=torch.tensor(1.0))
    noise = torch.tensor(0.5)
    base = gp.models.GPRegression(torch.zeros(3, 1), y, kernel, noise=noise, jitter=0.0)
    net = gp.models.GPLVM(base)
    net.X = PyroSample(dist.Normal(torch.zeros(3, 1), 1.0).to_event(2))
    net.autoguide("X", dist.Normal)
    net.X_loc.data.zero_()

    def model(y):
        net.model()

    def guide(y):
        net.guide()

    def exact():
        def log_joint(x):
            x = x[:, 0]
            k = (-0.5 * (x[:, :, None] - x[:, None]) ** 2).exp() + 0.5 * torch.eye(3)
            log_y = dist.MultivariateNormal(torch.zeros(3), k[:, None]).log_prob(y).sum(-1)
            return (dist.Normal(0.0, 1.0).log_prob(x).sum(-1) + log_y)[:, None]

        return integral(log_joint, *[axis(-6, 6, 41)] * 3)[0]

    return model, guide, (y,), exact
