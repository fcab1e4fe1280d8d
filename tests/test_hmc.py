"""The kernel by itself: reversible, of second order, and leaving its target where it is."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from pyrovae.evidence.samplers import hmc


def skewed(u):
    """N(0, I) at one end; at the other a correlated, asymmetric density."""
    log_f0 = Normal(0.0, 1.0).log_prob(u).sum(-1)
    a, b = u[..., 0], u[..., 1]
    log_f1 = -0.5 * (a - 0.5 * b).square() - a.exp() + 2 * a - 0.5 * b.square()
    return torch.stack([log_f0, log_f1])


states = partial(hmc.at, skewed)


def test_leapfrog_is_reversible():
    state = states(torch.randn(50, 3, 2))
    v = torch.randn_like(state.u)
    step = torch.tensor([0.1, 0.3])
    moved, w = hmc.leapfrog(states, state, v, 0.6, step, 17)
    back, w = hmc.leapfrog(states, moved, -w, 0.6, step, 17)
    assert (moved.u - state.u).abs().mean() > 0.5
    assert (back.u - state.u).abs().max() < 1e-10
    assert (w + v).abs().max() < 1e-10


def test_energy_error_is_of_second_order():
    state = states(torch.randn(200, 2))
    v = torch.randn_like(state.u)

    def energy(state, v):
        return hmc.along(state.log_f, 0.6) - 0.5 * v.square().sum(-1)

    steps, errors = np.array([0.02, 0.01, 0.005, 0.0025]), []
    for step in steps:
        moved, w = hmc.leapfrog(states, state, v, 0.6, step, round(1 / step))
        errors.append((energy(moved, w) - energy(state, v)).abs().mean().item())
    order = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx(2, abs=0.05)


def test_leapfrog_keeps_volume():
    u, v = torch.tensor([0.3, -0.2]), torch.tensor([0.5, 1.0])

    def move(both):
        u, v = both[:2], both[2:]
        for _ in range(3):
            v = v + 0.1 * torch.func.grad(lambda u: skewed(u)[1])(u)
            u = u + 0.2 * v
            v = v + 0.1 * torch.func.grad(lambda u: skewed(u)[1])(u)
        return torch.cat([u, v])

    moved, w = hmc.leapfrog(states, states(u), v, 1, 0.2, 3)
    torch.testing.assert_close(move(torch.cat([u, v])), torch.cat([moved.u, w]))
    jacobian = torch.autograd.functional.jacobian(move, torch.cat([u, v]))
    assert torch.linalg.det(jacobian).item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("b", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("accepts", [True, False])
def test_geweke(b, accepts, monkeypatch):
    """The joint of (z, x) stays as it is when x | z is drawn and z moved by the kernel, in turn.

    z ~ N(0, 1), x | z ~ exp(b log N(x; z, 1)): moments of the chain against exact draws.

    References:
        Getting it right: joint distribution tests of posterior simulators (Geweke, 2004)
    """
    if not accepts:
        monkeypatch.setattr(hmc, "accept", lambda rate: torch.ones_like(rate, dtype=torch.bool))
    n = 20_000
    z = torch.randn(n, 1)
    for _ in range(20):
        x = z + torch.randn(n, 1) / b**0.5

        def ends(u, x=x):
            log_prior = Normal(0.0, 1.0).log_prob(u)
            return torch.stack([log_prior, log_prior + Normal(u, 1.0).log_prob(x)])[..., 0]

        state, _ = hmc.transition(partial(hmc.at, ends), hmc.at(ends, z), b, 1.2, 2)
        z = state.u
    exact = torch.randn(n, 1)
    pairs = [(z, exact), (z**2, exact**2), (z * x, exact * (exact + torch.randn(n, 1) / b**0.5))]
    scores = [
        (ours.mean() - theirs.mean()) / ((ours.var() + theirs.var()) / n).sqrt()
        for ours, theirs in pairs
    ]
    worst = max(abs(s.item()) for s in scores)
    assert worst < 4 if accepts else worst > 6


def test_moves_without_density_are_rejected():
    def walled(u):
        inside = (u[..., 0] > 0) & (u[..., 0] < 1)
        hole = torch.where(u[..., 0] > 0.9, torch.nan, 0.0)
        return torch.stack([torch.where(inside, 0.0 * u[..., 0] + hole, -torch.inf)] * 2)

    state = hmc.at(walled, torch.rand(5000, 1) * 0.9)
    for _ in range(20):
        state, rate = hmc.transition(partial(hmc.at, walled), state, 0.5, 0.3, 1)
        assert ((rate == 0) | (rate == 1)).all()
    assert (state.u > 0).all()
    assert (state.u < 0.9).all()
    assert state.u.mean().item() == pytest.approx(0.45, abs=4 * 0.26 / 5000**0.5)
