"""What a model is: known by its name, asked for what it can do, and never for its class."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae import report
from pyrovae.data import DataError, Split
from pyrovae.models import base
from pyrovae.models.base import Model, named


@pytest.fixture
def forgotten():
    """Leaves the registry as it was."""
    before = dict(base._known)
    yield
    base._known.clear()
    base._known.update(before)


@pytest.mark.usefixtures("forgotten")
def test_a_name_is_of_one_class():
    def made():
        class Mine(Model):
            name = "mine"

        return Mine

    first, second = made(), made()  # as a notebook's cell that is run again
    assert first is not second
    assert named("mine") is second
    with pytest.raises(TypeError, match=r"the name 'vae' is that of pyrovae.models.vae.VAE; give"):
        type("Other", (Model,), {"name": "vae"})
    wide = type("Wide", (pv.VAE,), {})  # no name of its own
    assert named("vae") is pv.VAE is not wide
    with pytest.raises(ValueError, match="no model named 'vea'; did you mean vae"):
        named("vea")
    with pytest.raises(TypeError, match=r"Mine has no model; define model\(self, \*data\)"):
        second().model(torch.zeros(3, 2))


class Clustered(Model):
    """Nothing left to guess, no latent, and labels as well as x."""

    name = "test-clustered"
    inputs = ("x", "y")

    def __init__(self, x_dim):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.zeros(2, x_dim))

    def model(self, x, y):
        self.register(means=torch.nn.ParameterList([self.loc]))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.loc[y], 1.0).to_event(1), obs=x)


def test_a_model_takes_its_inputs():
    split = Split(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]))
    x, y = Clustered.arrays(split)
    assert x is split.x
    assert y is split.y
    with pytest.raises(DataError, match="Clustered takes y, and these data have none"):
        Clustered.arrays(Split(torch.zeros(4, 2)))


def test_a_page_shows_what_the_model_can_do():
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((30, 6), 0.4))

    def page(model):
        evidence = pv.evaluate(model.model, model.guide, x, num_particles=20, seed=0)
        return report.render(model, Split(x), (2, 3), evidence, {}, {"data": "d"}, "a run")

    oracle = page(pv.LinearGaussian(6, 3))
    assert re.search(r"A LinearGaussian of 6 dimensions .*3 latent dimensions .*24", oracle)
    assert "principal components" in oracle
    assert "dimensions of largest KL" not in oracle  # its latents are not independent under Q
    assert "for z from the prior" in oracle
