"""Variational autoencoders: a latent vector for each datum, an encoder for the guide."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn

from programs.answers import axis, integral
from programs.cases import case
from programs.nets import mlp

PIXELS = 6


def binary(n=5, *shape):
    return torch.bernoulli(torch.full((n, *(shape or (PIXELS,))), 0.5))


def by_grid(decode, x, event_dims=1):
    """log p(x) of a standard normal latent in two dimensions and Bernoulli pixels, on a grid."""

    def log_joint(z):
        logits = decode(z[:, 0])[:, None]
        log_x = dist.Bernoulli(logits=logits).to_event(event_dims).log_prob(x)
        return dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + log_x

    return integral(log_joint, axis(size=41), axis(size=41))


@case("examples/vae/vae.py", "a grid over z", "importance prior ais quadrature")
def vae():
    """A VAE, its networks registered by `pyro.module`."""
    decoder, encoder, x = mlp(2, 8, PIXELS), mlp(PIXELS, 8, 2), binary()

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", x.shape[0]):
            zeros = x.new_zeros(torch.Size((x.shape[0], 2)))
            z = pyro.sample("latent", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=3 * decoder(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", x.shape[0]):
            loc = encoder(x)
            pyro.sample("latent", dist.Normal(loc, torch.full_like(loc, 1.1)).to_event(1))

    return model, guide, (x,), lambda: by_grid(lambda z: 3 * decoder(z), x)


@case("examples/svi_torch.py", "a grid over z", "importance prior")
def vae_of_modules():
    """The same as one `PyroModule`, with `poutine.scale` for a KL that is annealed."""

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.decoder = mlp(2, 8, PIXELS)

        def forward(self, x):
            with pyro.plate("data", x.size(0)), poutine.scale(scale=0.2):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                with poutine.scale(scale=5.0):
                    logits = 3 * self.decoder(z)
                    pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.encoder = mlp(PIXELS, 8, 2)

        def forward(self, x):
            with pyro.plate("data", x.size(0)), poutine.scale(scale=0.2):
                pyro.sample("z", dist.Normal(self.encoder(x), 1.1).to_event(1))

    model, x = Model(), binary()
    return model, Guide(), (x,), lambda: by_grid(lambda z: 3 * model.decoder(z), x)


class Deconvolution(nn.Module):
    """Images (1, 4, 4) of latents (2,), by way of `view`."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3 * 2 * 2)
        self.conv = nn.ConvTranspose2d(3, 1, 2, stride=2)

    def forward(self, z):
        return 5 * self.conv(torch.tanh(self.linear(z)).view(-1, 3, 2, 2))


@case("examples/air, pyroVED", "a grid over z", "importance prior ais quadrature")
def convolutions():
    """Convolutions and `view`: networks that take no more than one batch dimension."""
    decoder, x = Deconvolution(), binary(5, 1, 4, 4)
    encoder = nn.Sequential(
        nn.Conv2d(1, 3, 2, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)
    )

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(3), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.1).to_event(1))

    return model, guide, (x,), lambda: by_grid(decoder, x, 3)


@case("tutorial/prodlda", "a grid over z", "importance prior ais quadrature")
def batch_normalization():
    """BatchNorm1d and dropout in both networks, which evaluation runs as trained."""
    decoder = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, PIXELS))
    encoder = nn.Sequential(nn.Linear(PIXELS, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
    decoder(torch.randn(50, 2)), encoder(torch.randn(50, PIXELS))  # running statistics
    x = binary()

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=2 * decoder(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.2).to_event(1))

    def exact():
        decoder.eval()
        return by_grid(lambda z: 2 * decoder(z), x)

    return model, guide, (x,), exact
