"""Programs of which no number would be right: a sentence says why."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from programs.cases import case
from programs.nets import mlp
from programs.plates import sample_x, sample_z


def data():
    return torch.randn(20)


def model(x):
    with pyro.plate("data", len(x)):
        sample_x(x)


def guide(x):
    with pyro.plate("data", len(x)):
        sample_z(x)


ROWS = r"(?i)rows?|depend"


@case("standardized data", refused="rows depend on each other, by a mean over them", message=ROWS)
def mean_of_the_rows():
    """`x - x.mean(0)` in the model."""

    def centered(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + x.mean(0), 0.5), obs=x)

    return centered, guide, (data(),)


@case(
    "tutorial/prodlda",
    refused="rows depend on each other, by the statistics of a batch",
    message=ROWS,
)
def batch_statistics():
    """BatchNorm1d that keeps no running statistics."""
    net = nn.Sequential(
        nn.Linear(1, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 1)
    )

    def by_batch(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x[:, None])[:, 0], 1.1))

    return model, by_batch, (data(),)


@case("tutorial/forecasting", refused="rows depend on each other, as a random walk", message=ROWS)
def random_walk():
    """Steps in a plate, observed as their sums."""

    def walk(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 0.3))
            pyro.sample("x", dist.Normal(z.cumsum(-1), 1.0), obs=x)

    return walk, guide, (data(),)


@case("guides by hand", refused="the guide draws no negative z", message=r"(?i)never proposes")
def half_normal_guide():
    """A HalfNormal guide for a normal latent."""

    def half(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.HalfNormal(torch.ones_like(x)))

    return model, half, (data(),)


@case("guides by hand", refused="the guide draws no z beyond 1", message=r"(?i)never proposes")
def narrow_uniform_guide():
    """A Uniform(0, 1) guide for a latent in (0, 2)."""

    def wide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(torch.zeros_like(x), 2.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def narrow(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(torch.zeros_like(x), 1.0))

    return wide, narrow, (data(),)


@case(
    "auxiliary deep generative models",
    refused="q(z | x) is no density of z alone, r(u | z, x) is missing",
    message=r"(?i)auxiliary|r\(u",
)
def auxiliary():
    """z drawn given an auxiliary u of the guide's."""

    def by_u(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample(
                "u", dist.Normal(torch.zeros_like(x), 1.0), infer={"is_auxiliary": True}
            )
            pyro.sample("z", dist.Normal(0.7 * x + 0.3 * u, 0.5))

    return model, by_u, (data(),)


@case(
    "guides by hand",
    refused="plates of the same name have other sizes",
    message=r"(?i)plate|size|elements",
)
def plates_of_two_sizes():
    """A guide whose plate of parts is larger than the model's."""

    def of(size):
        def program(x):
            with pyro.plate("data", len(x), dim=-2), pyro.plate("parts", size, dim=-1):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x), size), 1.0))
                if size == 1:
                    pyro.sample("x", dist.Normal(z, 0.5), obs=x[:, None])

        return program

    return of(1), of(3), (data(),)


@case("guides by hand", refused="a latent is missing", message=r"misses latent site 'z'")
def latent_missing():
    """A guide that leaves a continuous latent out."""
    return model, lambda x: None, (data(),)


@case("guides by hand", refused="a site of the guide is not the model's", message=r"'w'")
def latent_of_the_guide_alone():
    """A guide with a site that the model lacks."""

    def more(x):
        with pyro.plate("data", len(x)):
            sample_z(x)
            pyro.sample("w", dist.Normal(torch.zeros_like(x), 1.0))

    return model, more, (data(),)


@case(
    "examples/vae/vae.py",
    refused="grey pixels are outside a Bernoulli's support",
    message=r"binarize",
)
def grey_pixels():
    """Grey pixels under `validate_args=False`: the number would be no log-likelihood."""
    decoder = mlp(1, 4)

    def grey(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            fn = dist.Bernoulli(logits=decoder(z), validate_args=False).to_event(1)
            pyro.sample("x", fn, obs=x)

    def flat(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.1).to_event(1))

    return grey, flat, (torch.rand(20, 4),)
