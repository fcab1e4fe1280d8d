"""Plates and arguments as people write them: z ~ N(0, 1), x ~ N(z, 1/2) under many a shape."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from scipy.special import voigt_profile
from torch import nn

from programs.cases import case

ALL = "importance prior ais quadrature"
CLOSED = "closed form"
SCALE = 1.25**0.5  # of x


def data(n=5):
    return torch.randn(n)


def log_x(x):
    return dist.Normal(0.0, SCALE).log_prob(x)


def sample_z(x):
    """The guide's draw of z, wider than the posterior N(0.8 x, 0.45^2)."""
    return pyro.sample("z", dist.Normal(0.7 * x, 0.6))


def sample_x(x):
    """The model's z and x."""
    z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
    pyro.sample("x", dist.Normal(z, 0.5), obs=x)


@case("examples/vae/ss_vae_M2.py", CLOSED, ALL)
def unsized():
    """`pyro.plate("data")` without a size."""
    x = data()

    def model(x):
        with pyro.plate("data"):
            sample_x(x)

    def guide(x):
        with pyro.plate("data"):
            sample_z(x)

    return model, guide, (x,), lambda: log_x(x)


@case("tutorial/svi_part_ii", CLOSED, "importance prior")
def subsampled():
    """A plate that takes two of five rows at a time."""
    x = data()

    def model(x):
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            sample_x(x[rows])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            sample_z(x[rows])

    return model, guide, (x,), lambda: log_x(x)


@case("tutorial/svi_part_ii", CLOSED, "importance ais")
def subsample_given():
    """`pyro.plate(..., subsample=x)`, which hands the rows out."""
    x = data()

    def model(x):
        with pyro.plate("data", x.size(0), subsample=x) as batch:
            sample_x(batch)

    def guide(x):
        with pyro.plate("data", x.size(0), subsample=x) as batch:
            sample_z(batch)

    return model, guide, (x,), lambda: log_x(x)


@case("tutorial/svi_part_ii", CLOSED, "importance prior", without="ais quadrature")
def loop():
    """`for i in pyro.plate(...)` with a latent of each datum."""
    x = data()

    def model(x):
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z_{i}", dist.Normal(0.0, 1.0))
            pyro.sample(f"x_{i}", dist.Normal(z, 0.5), obs=x[i])

    def guide(x):
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z_{i}", dist.Normal(0.7 * x[i], 0.6))

    return model, guide, (x,), lambda: log_x(x)


@case("examples/lda.py, tutorial/tensor_shapes", CLOSED, ALL)
def data_in_columns():
    """Data in columns: a plate over axis 1 of x, repeats along axis 0."""
    x = torch.randn(3, 5)

    def model(x):
        with pyro.plate("data", x.shape[1], dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("repeats", x.shape[0], dim=-2):
                pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[1], dim=-1):
            pyro.sample("z", dist.Normal(0.9 * x.mean(0), 0.4))

    cov = 0.25 * torch.eye(3) + 1.0
    exact = dist.MultivariateNormal(torch.zeros(3), cov)
    return model, guide, (x,), lambda: exact.log_prob(x.T)


@case("tutorial/tensor_shapes", CLOSED, "importance prior")
def nested():
    """A plate of parts in the plate of data, latents in both."""
    x = torch.randn(5, 2)

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            m = pyro.sample("m", dist.Normal(torch.zeros(1), 1.0))
            with pyro.plate("parts", 2, dim=-1):
                t = pyro.sample("t", dist.Normal(m, 1.0))
                pyro.sample("x", dist.Normal(t, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            m = pyro.sample("m", dist.Normal(0.6 * x.mean(-1, keepdim=True), 0.9))
            with pyro.plate("parts", 2, dim=-1):
                pyro.sample("t", dist.Normal(0.2 * m + 0.8 * x, 0.6))

    exact = dist.MultivariateNormal(torch.zeros(2), 1.25 * torch.eye(2) + 1.0)
    return model, guide, (x,), lambda: exact.log_prob(x)


@case("tutorial/custom objectives", CLOSED, "importance prior")
def masked_rows():
    """A mask on what is observed of some rows, a scale on all."""
    x, keep = data(), torch.tensor([True, False, True, True, False])

    @poutine.scale(scale=0.1)
    def model(x, keep):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
            with poutine.mask(mask=keep):
                pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x, keep):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.where(keep, 0.7 * x, 0.0), 1.0))

    return model, guide, (x, keep), lambda: torch.where(keep, log_x(x), 0.0)


@case("Pyro's obs_mask", "closed form of what is observed", "importance prior")
def missing():
    """`obs_mask`: what is missing is the latent `x_unobserved`, which the guide draws."""
    x, seen = data(), torch.tensor([True, False, True, True, False])

    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x, obs_mask=seen)

    def guide(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.where(seen, 0.7 * x, 0.0), 1.0))
            with poutine.mask(mask=~seen):
                pyro.sample("x_unobserved", dist.Normal(z, 0.6))

    return model, guide, (x, seen), lambda: torch.where(seen, log_x(x), 0.0)


@case("examples/cvae, dmm, scanvi", CLOSED, "importance prior")
def other_arguments():
    """A module, a flag, a number, a name and `None` beside the data."""
    x, half = data(), nn.Linear(1, 1)
    half.weight.data.fill_(0.7), half.bias.data.zero_()

    def model(net, x, y=None, training=False, count=3, kind="normal"):
        assert kind == "normal"
        with pyro.plate("data", len(x)):
            sample_x(x)
            if y is not None:
                pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    def guide(net, x, y=None, training=False, count=3, kind="normal"):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x[:, None])[:, 0], 0.2 * count))

    return model, guide, (half, x, None, False, 3, "normal"), lambda: log_x(x)


@case("tutorial/enumeration", CLOSED, "importance prior")
def nothing_hidden():
    """A model without latents: a density."""
    x = data()

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, SCALE), obs=x)

    def guide(x):
        """Nothing is left to guess."""

    return model, guide, (x,), lambda: log_x(x)


@case("tutorial/forecasting, dist.GaussianHMM", "a dense normal", "importance")
def kalman():
    """Time series by `dist.GaussianHMM`, whose states are integrated out."""
    x, decay, steps = torch.randn(5, 4, 1), 0.8, 4
    one = torch.eye(1)
    start = dist.MultivariateNormal(torch.zeros(1), one)
    step = dist.MultivariateNormal(torch.zeros(1), 0.36 * one)
    noise = dist.MultivariateNormal(torch.zeros(1), 0.25 * one)

    def model(x):
        with pyro.plate("data", len(x)):
            fn = dist.GaussianHMM(start, decay * one, step, one, noise, duration=steps)
            pyro.sample("x", fn.expand([len(x)]), obs=x)

    def exact():
        weight = torch.zeros(steps, steps + 1)  # of start and steps in the states
        state = torch.zeros(steps + 1)
        state[0] = 1.0
        for t in range(steps):
            state = decay * state
            state[t + 1] = 0.6
            weight[t] = state
        cov = weight @ weight.T + 0.25 * torch.eye(steps)
        return dist.MultivariateNormal(torch.zeros(steps), cov).log_prob(x[..., 0])

    return model, lambda x: None, (x,), exact


@case("tutorial/stable", "a Voigt profile, by scipy", draws=200)
def stable():
    """A stable likelihood, here Cauchy's, whose density Pyro integrates numerically."""
    x = data()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
            pyro.sample("x", dist.Stable(1.0, 0.0, 0.5, z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.4 * x, 1.0))

    return model, guide, (x,), lambda: torch.from_numpy(voigt_profile(x.numpy(), 1.0, 0.5)).log()
