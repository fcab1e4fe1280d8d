"""Normalizing flows, as guides and as models."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms

from programs.answers import axis, forward
from programs.cases import case
from programs.nets import mlp
from programs.sequences import music
from programs.vae import PIXELS, binary, by_grid


def with_guide(guide_of, x, *modules):
    """The VAE of two dimensions with a guide `guide_of(x)`, a distribution."""
    decoder = mlp(2, 8, PIXELS)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=3 * decoder(z)).to_event(1), obs=x)

    def guide(x):
        for i, module in enumerate(modules):
            pyro.module(f"flow_{i}", module)
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide_of(x))

    return model, guide, (x,), lambda: by_grid(lambda z: 3 * decoder(z), x)


GRID = "a grid over z"


@case("examples/dmm/dmm.py, tutorial/normalizing_flows", GRID, "importance ais")
def iaf_guide():
    """An inverse autoregressive flow behind the encoder."""
    encoder, flow = mlp(PIXELS, 2), transforms.affine_autoregressive(2, [4])

    def guide(x):
        base = dist.Normal(0.3 * encoder(x), 1.2).to_event(1)
        return dist.TransformedDistribution(base, [flow])

    return with_guide(guide, binary(), encoder, flow)


@case("tutorial/normalizing_flows", GRID, "importance")
def conditional_flow_guide():
    """A flow whose parameters are a network's output on the datum."""
    net = mlp(PIXELS, 3, 4)
    flow = transforms.ConditionalAffineAutoregressive(Conditional())

    def guide(x):
        flow_x = flow.condition(0.3 * net(x))
        return dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.2).to_event(1), [flow_x])

    return with_guide(guide, binary(), net, flow)


def Conditional():
    return pyro.nn.ConditionalAutoRegressiveNN(2, 4, [4])


@case("tutorial/normalizing_flows", GRID, "importance", without="ais")
def planar_guide():
    """A planar flow, which has no inverse: its cache alone knows the density of a draw."""
    encoder, flow = mlp(PIXELS, 2), transforms.planar(2)

    def guide(x):
        base = dist.Normal(0.3 * encoder(x), 1.2).to_event(1)
        return dist.TransformedDistribution(base, [flow])

    return with_guide(guide, binary(), encoder, flow)


@case("tutorial/normalizing_flows", "a change of variables by hand", "importance prior")
def flow_model():
    """Data by a flow, an affine map and an exponential: no latents."""
    x = torch.randn(5, 2)
    loc, scale = torch.tensor([0.2, -0.3]), torch.tensor([1.0, 0.7])
    flow = [transforms.AffineTransform(loc, scale), transforms.ExpTransform()]

    def model(x):
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
            pyro.sample("x", dist.TransformedDistribution(base, flow), obs=x.exp())

    def exact():
        return dist.Normal(loc, scale).log_prob(x).sum(-1) - x.sum(-1)

    return model, lambda x: None, (x,), exact


@case(
    "examples/dmm/dmm.py with flows",
    "the forward algorithm on a grid of states",
    "importance",
    plate="sequences",
)
def dmm_iaf():
    """A deep Markov model in two dimensions, an autoregressive flow at each step of its guide."""
    x, _ = music()
    x = x[:, :2]
    emitter, flow = mlp(2, 4, 2), transforms.affine_autoregressive(2, [4])

    def model(x):
        pyro.module("emitter", emitter)
        z = x.new_zeros(len(x), 2)
        with pyro.plate("sequences", len(x)):
            for t in pyro.markov(range(2)):
                z = pyro.sample(f"z_{t}", dist.Normal(0.7 * z, 0.8).to_event(1))
                fn = dist.Bernoulli(logits=3 * emitter(z)).to_event(1)
                pyro.sample(f"x_{t}", fn, obs=x[:, t])

    def guide(x):
        pyro.module("flow", flow)
        z = x.new_zeros(len(x), 2)
        with pyro.plate("sequences", len(x)):
            for t in pyro.markov(range(2)):
                base = dist.Normal(0.7 * z, 1.2).to_event(1)
                z = pyro.sample(f"z_{t}", dist.TransformedDistribution(base, [flow]))

    def exact():
        line = axis(-5, 5, 31)
        z = torch.cartesian_prod(line, line)
        log_h = 2 * math.log(line[1] - line[0])
        log_trans = dist.Normal(0.7 * z[:, None], 0.8).log_prob(z).sum(-1) + log_h
        log_init = dist.Normal(0.0, 0.8).log_prob(z).sum(-1) + log_h
        log_x = dist.Bernoulli(logits=3 * emitter(z)).log_prob(x[:, :, None]).sum(-1)
        return forward(log_init, log_trans, log_x, torch.full((len(x),), 2))

    return model, guide, (x,), exact
