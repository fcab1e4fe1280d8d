"""Self-checks that know a good guide from a narrow, a wide and a shifted one."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scenarios import Bounded, LinearGaussian, Mixture, TwoLevels

import pyrovae as pv
from pyrovae.diagnostics import ecdf_band

OPTIONS = {"num_temperatures": 20, "num_particles": 2, "seed": 0}


@pytest.fixture(scope="module")
def scenario():
    torch.set_default_dtype(torch.float64)
    return LinearGaussian.make()


@pytest.mark.slow
def test_the_posterior_is_calibrated(scenario):
    x = torch.zeros(400, 5)
    outside = 0
    for seed in range(20):
        result = pv.calibrate(
            scenario.model, scenario.exact, x, **{**OPTIONS, "num_temperatures": 1, "seed": seed}
        )
        outside += result.outside.sum()
    assert outside <= 6  # of 40, each with probability 0.05
    assert result.names == ("z[0]", "z[1]")
    assert result.ranks.shape == (400, 2)
    assert result.ranks.max() == 99
    assert result.ecdf.shape == (100, 2)
    assert "of 2 latent dimensions are uniform" in str(result)


@pytest.mark.parametrize(("scale", "shift", "word"), [
    (0.7, 0.0, "too narrow"), (1.6, 0.0, "too wide"), (1.0, 0.3, "shifted"),
])  # fmt: skip
def test_guides_that_are_off(scenario, scale, shift, word):
    def guide(x):
        with pyro.plate("data", len(x)):
            s = scale * scenario.cov.diagonal().sqrt()
            loc = scenario.posterior_mean(x) + shift * s
            pyro.sample("z", dist.Normal(loc, s).to_event(1))

    result = pv.calibrate(scenario.model, guide, torch.zeros(500, 5), **OPTIONS)
    assert result.verdict() == [word, word]
    assert f"z[0]: the guide is {word}" in str(result)
    assert "data simulated from the model" in str(result)
    assert repr(result) == "Calibration(0 of 2 dimensions ok)"


def test_bounds_are_those_of_the_same_data(scenario):
    x = torch.zeros(60, 5)
    result = pv.calibrate(scenario.model, scenario.mean_field, x, **OPTIONS)
    bounds = pv.bdmc(scenario.model, x, guide=scenario.mean_field, **OPTIONS)
    assert torch.equal(result.bounds.lower, bounds.lower)
    truth = scenario.log_evidence(bounds.data[0]).mean()
    assert bounds.lower.mean() - 0.1 < truth < bounds.upper.mean() + 0.1


def test_all_kinds_of_latents():
    two = TwoLevels()
    result = pv.calibrate(two.model, two.guide, two.data(40), **OPTIONS)
    assert result.names == ("m", "t[0]", "t[1]", "t[2]")
    bounded = Bounded()
    result = pv.calibrate(bounded.model, bounded.guide, torch.zeros(300), **OPTIONS)
    assert result.names == ("a", "b")
    assert "too wide" in result.verdict()
    mixture = Mixture()
    result = pv.calibrate(mixture.with_latent, mixture.guide, mixture.data(100), **OPTIONS)
    assert result.names == ("z[0]", "z[1]", "z[2]", "z[3]")


def test_the_band_is_arvizs():
    ecdf_utils = pytest.importorskip("arviz.stats.ecdf_utils")
    points = np.arange(1, 51) / 50
    theirs = np.array(ecdf_utils.ecdf_confidence_band(300, points, points, prob=0.95))
    np.testing.assert_allclose(ecdf_band(300, 49), theirs, atol=1.5 / 300)


def test_the_band_covers():
    band = ecdf_band(200, 19)
    rng = np.random.default_rng(1)
    ranks = rng.integers(0, 20, size=(4000, 200))
    ecdf = (ranks[:, :, None] <= np.arange(20)).mean(1)
    inside = ((ecdf >= band[0] - 1e-12) & (ecdf <= band[1] + 1e-12)).all(1).mean()
    assert inside == pytest.approx(0.95, abs=0.02)


def test_options_are_checked(scenario):
    with pytest.raises(ValueError, match="num_samples is 0"):
        pv.calibrate(scenario.model, scenario.exact, torch.zeros(4, 5), num_samples=0)
