"""Rates, distortions and what x tells of z, against closed forms."""

import pytest
import torch
from scenarios import BernoulliDecoder, LinearGaussian

import pyrovae as pv


def exact(scenario, x, b):
    """Rate and distortion of q_b = N(m, C), C^-1 = I + b W^T W / s^2, `(N,)` each."""
    w, s = scenario.weight, scenario.sigma
    cov = torch.linalg.inv(torch.eye(w.shape[1]) + b * w.T @ w / s**2)
    mean = b * (x - scenario.mean) @ w @ cov / s**2
    rate = 0.5 * (cov.trace() + mean.square().sum(-1) - w.shape[1] - cov.logdet())
    off = (x - scenario.mean - mean @ w.T).square().sum(-1) + (w @ cov @ w.T).trace()
    distortion = 0.5 * off / s**2 + 0.5 * x.shape[1] * torch.tensor(2 * torch.pi * s**2).log()
    return rate, distortion


def test_the_curve_of_a_normal_model():
    scenario = LinearGaussian.make(x_dim=6, z_dim=3)
    x = scenario.data(40)
    curve = pv.rate_distortion(scenario.model, x, num_temperatures=200, num_particles=64, seed=0)
    assert curve.rate.shape == curve.distortion.shape == (201, 40)
    assert curve.temperatures[0] == 0
    torch.testing.assert_close(curve.rate[0], torch.zeros(40), rtol=0, atol=1e-9)
    for i in (60, 120, 200):
        for found, true in zip(
            (curve.rate[i], curve.distortion[i]),
            exact(scenario, x, curve.temperatures[i]),
            strict=True,
        ):
            off = found - true
            assert abs(off.mean()) < 4 * off.std() / 40**0.5 + 0.01
    whole = -(curve.rate + curve.distortion)[-1]  # log p(x)
    assert (whole - scenario.log_evidence(x)).abs().max() < 0.5
    assert (curve.distortion[[0, 60, 120, 200]].mean(1).diff() < 0).all()
    errors = curve.errors()
    assert errors[0].shape == errors[1].shape == (201,)
    assert "201 temperatures, 40 data: distortion" in repr(curve)


def test_it_is_the_annealing_of_ais():
    scenario = BernoulliDecoder()
    x = scenario.data(9)
    options = {"num_temperatures": 5, "num_particles": 3, "chunk_size": 12}
    curve = pv.rate_distortion(scenario.model, x, **options, seed=0)
    again = pv.rate_distortion(scenario.model, x, **options, seed=0)
    assert curve == again
    joint = pv.rate_distortion(scenario.model, x, num_temperatures=5, plate=None, seed=0)
    assert joint.rate.shape == (6, 1)
    one = pv.rate_distortion(scenario.model, x, num_temperatures=1, num_particles=500, seed=0)
    post = pv.prior_sampling(scenario.model, x, num_particles=500, seed=0)
    whole = -(one.rate + one.distortion)[-1]
    assert (whole - post.log_evidence()).abs().max() < 0.5


def test_mutual_information_from_both_sides():
    """I(x; z) = 1/2 log det(I + W^T W / s^2)."""
    scenario = LinearGaussian.make(x_dim=6, z_dim=3)
    w = scenario.weight
    true = 0.5 * (torch.eye(3) + w.T @ w / scenario.sigma**2).logdet().item()
    bounds = pv.bdmc(
        scenario.model, torch.zeros(400, 6), guide=scenario.mean_field, num_temperatures=50, seed=0
    )
    low, low_error, high, high_error = bounds.mutual_information()
    assert low - 3 * low_error < true < high + 3 * high_error
    assert low <= high
    assert high - low == pytest.approx(bounds.gap.mean().item(), abs=1e-9)
    assert max(low_error, high_error) < 0.2


def test_errors():
    scenario = LinearGaussian.make(x_dim=6, z_dim=3)
    with pytest.raises(ValueError, match="num_particles is 0"):
        pv.rate_distortion(scenario.model, scenario.data(3), num_particles=0)
    with pytest.raises(TypeError, match="schedul"):
        pv.rate_distortion(scenario.model, scenario.data(3), schedul="linear")
