"""Six programs, each a shape that plate diagrams have to show: (model, guide, data, plate)."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.constraints import positive

import pyrovae as pv


def vae():
    torch.manual_seed(0)
    net = pv.VAE(x_dim=64, z_dim=2, hidden_dims=(16,))
    return net.model, net.guide, (torch.rand(359, 64).bernoulli(),), "data"


def two_sites():
    decoder, middle = torch.nn.Linear(2, 5), torch.nn.Linear(3, 2)
    below, above = torch.nn.Linear(5, 4), torch.nn.Linear(2, 6)

    def model(x):
        pyro.module("decoder", decoder)
        pyro.module("middle", middle)
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(len(x), 3), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(middle(z2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z1), 0.5).to_event(1), obs=x)

    def guide(x):
        pyro.module("below", below)
        pyro.module("above", above)
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", normal(below(x)))
            pyro.sample("z2", normal(above(z1)))

    return model, guide, (torch.randn(40, 5),), "data"


def nested_plate():
    def model(x):
        sigma = pyro.param("sigma", torch.tensor(0.5), constraint=positive)
        with pyro.plate("data", len(x), dim=-2):
            school = pyro.sample("school", dist.Normal(torch.zeros(len(x), 1), 1.0))
            with pyro.plate("pupils", x.shape[1], dim=-1):
                ability = pyro.sample("ability", dist.Normal(school, 1.0))
                pyro.sample("score", dist.Normal(ability, sigma), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        spread = pyro.param("spread", torch.tensor(0.5), constraint=positive)
        with pyro.plate("data", len(x), dim=-2):
            school = pyro.sample("school", dist.Normal(slope * x.mean(1, keepdim=True), spread))
            with pyro.plate("pupils", x.shape[1], dim=-1):
                pyro.sample("ability", dist.Normal((x + school) / 2, spread))

    return model, guide, (torch.randn(30, 4),), "data"


def conditional():
    decoder, encoder = torch.nn.Linear(5, 5), torch.nn.Linear(8, 4)

    def model(x, y):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            logits = decoder(torch.cat([z, y], 1))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x, y):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(encoder(torch.cat([x, y], 1))))

    y = torch.nn.functional.one_hot(torch.arange(60) % 3, 3).to(torch.get_default_dtype())
    return model, guide, (torch.rand(60, 5).bernoulli(), y), "data"


def mixture():
    encoder = torch.nn.Linear(3, 6)

    def model(x):
        means = pyro.param("means", lambda: torch.randn(4, 3))
        weights = pyro.param("weights", torch.zeros(4))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=weights))
            z = pyro.sample("z", dist.Normal(means[k], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(encoder(x)))

    return model, guide, (torch.randn(80, 3),), "data"


def global_latent():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ w, sigma), obs=y)

    def guide(x, y):
        loc = pyro.param("loc", torch.zeros(2))
        scale = pyro.param("scale", torch.ones(2), constraint=positive)
        pyro.sample("w", dist.Normal(loc, scale).to_event(1))
        pyro.sample("sigma", dist.LogNormal(pyro.param("log_sigma", torch.tensor(0.0)), 0.3))

    return model, guide, (torch.randn(50, 2), torch.randn(50)), None


def normal(raw):
    loc, log_scale = raw.chunk(2, -1)
    return dist.Normal(loc, log_scale.exp()).to_event(1)


ALL = vae, two_sites, nested_plate, conditional, mixture, global_latent
