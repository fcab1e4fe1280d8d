"""A number given the others of its row, against conditional normals and closed scores."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

import pyrovae as pv


@pytest.fixture(scope="module")
def linear():
    """A VAE whose P(X) is normal, data of its own, and y given the rest: mean and sd."""
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 5)
    vae = pv.VAE(5, 2, (8,), pv.likelihoods.make("normal", sigma=0.5), decoder=net)
    x = vae.sample(400, seed=1)
    w, b = (p.detach() for p in net.parameters())
    cov, rest = w @ w.T + 0.25 * torch.eye(5), [0, 1, 2, 4]
    a = torch.linalg.solve(cov[rest][:, rest], cov[rest, 3])
    mean = b[3] + (x[:, rest] - b[rest]) @ a
    return vae, x, mean.double(), (cov[3, 3] - cov[rest, 3] @ a).sqrt().item()


@pytest.fixture(scope="module")
def found(linear):
    vae, x, *_ = linear
    options = {"num_particles": 2_000, "num_draws": 2_000, "num_temperatures": 0, "seed": 0}
    return pv.regress(vae.model, None, x[:150], column=3, **options)


def test_it_is_the_conditional_normal(linear, found):
    _, x, mean, sd = linear
    off = (found.mean - mean[:150]) / found.std_error
    assert off.abs().max() < 4
    assert off.square().mean() < 1.2  # an upper end of the error, which says so
    assert found.std.mean() == pytest.approx(sd, rel=0.02)
    low, high = found.interval(0.9)
    assert (high - low).mean() == pytest.approx(2 * 1.645 * sd, rel=0.03)
    assert repr(found).startswith("150 numbers predicted, +- ")


def test_its_scores_are_those_of_a_normal(linear, found):
    _, x, mean, sd = linear
    y = x[:150, 3].double()
    u = ((y - mean[:150]) / sd).numpy()
    exact = sd * (u * (2 * norm.cdf(u) - 1) + 2 * norm.pdf(u) - 1 / np.sqrt(np.pi))
    assert found.crps(y).mean() == pytest.approx(exact.mean(), rel=0.02)
    share = found.covered(y, 0.9).mean().item()
    assert abs(share - 0.9) < 4 * (0.9 * 0.1 / 150) ** 0.5
    y[:100] = torch.nan
    assert found.summary(y)["num_known"] == 50
    assert found.crps(y).isnan().sum() == found.covered(y).isnan().sum() == 100
    assert "num_known" not in found.summary(y * torch.nan)


def test_what_stands_in_the_column_is_not_looked_at(linear):
    vae, x, *_ = linear
    other = x[:20].clone()
    other[:, 3] = 1e6
    options = {"num_particles": 100, "num_temperatures": 0, "seed": 0}
    found, same = (pv.regress(vae.model, None, y, column=3, **options) for y in (x[:20], other))
    assert found == same
    assert other[0, 3] == 1e6


def test_of_a_number_on_a_condition_alone():
    """P(X|Y) of one X: all draws of z have one weight, that of the prior."""
    torch.manual_seed(0)
    model = pv.CVAE(1, 3, 2, (4,), pv.likelihoods.make("normal", sigma=0.1))
    y = torch.randn(20, 3)
    x = torch.full((20, 1), torch.nan)
    found = pv.regress(model.model, model.guide, x, y, column=0, seed=0)
    assert torch.allclose(found.ess, torch.tensor(1_000.0).double())
    off = found.draws.mean(0) - found.mean
    assert (off / found.std_error).abs().max() < 4 * 2**0.5
    assert set(found.verdict) == {"not contradicted"}


def test_what_cannot_be(linear, found):
    vae, x, *_ = linear
    for column in (5, -1, 0.5, True):
        with pytest.raises(ValueError, match="give a number from 0 to 4"):
            pv.regress(vae.model, vae.guide, x, column=column)
    with pytest.raises(TypeError, match=r"give floats \(N, D\)"):
        pv.regress(vae.model, vae.guide, x.long(), column=0)
    with pytest.raises(ValueError, match=r"y is of shape \(3,\) and 150 numbers"):
        found.crps(torch.ones(3))
    with pytest.raises(ValueError, match="say that NaN is missing"):
        pv.regress(lambda x: None, None, x, column=0)
