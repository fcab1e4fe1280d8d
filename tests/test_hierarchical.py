"""Layers of latents: log P(X) against closed forms and a grid, in both directions of the guide."""

import math

import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.poutine import trace

import pyrovae as pv
from pyrovae.__main__ import main
from pyrovae.models.hierarchical import weighed
from pyrovae.rng import seeded

BOTH = pytest.mark.parametrize("direction", ["ladder", "bottom-up"])


def linear(direction):
    """Means linear and scales constant, so that X is normal; three layers."""
    model = pv.HierarchicalVAE(5, (3, 2, 2), (), pv.likelihoods.Normal(0.5), direction)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn_like(p))
        for net in model.down:
            net.net[-1].weight.tensor_split(2)[1].zero_()
    return model


def log_evidence(model, x):
    """Exactly, of `linear`."""
    loc, cov = torch.zeros(2), torch.eye(2)
    for net in reversed(model.down):
        (w, _), (b, _) = (p.tensor_split(2) for p in net.net[-1].parameters())
        scale = net(torch.zeros(1, len(loc)))[1][0]
        loc, cov = w @ loc + b, w @ cov @ w.T + scale.square().diag()
    w, b = model.decoder[-1].weight, model.decoder[-1].bias
    return dist.MultivariateNormal(w @ loc + b, w @ cov @ w.T + 0.25 * torch.eye(5)).log_prob(x)


@BOTH
def test_log_p_through_all_layers(direction):
    model, x = linear(direction), torch.randn(6, 5)
    exact = log_evidence(model, x).detach()
    naive = pv.prior_sampling(model.model, x, num_particles=20_000, seed=0)
    assert ((naive.log_evidence() - exact).abs() < 6 * naive.std_error()).all()
    run = {"num_particles": 2_000, "seed": 0, "proposal": pv.Defensive(0.5)}
    post = pv.importance_sampling(model.model, model.guide, x, **run)
    assert ((post.log_evidence() - exact).abs() < 5 * post.std_error()).all()
    ais = pv.ais(model.model, x, num_temperatures=40, num_particles=16, seed=0)
    assert ((ais.log_evidence() - exact).abs() < 5 * ais.std_error() + 0.02).all()


@BOTH
def test_log_p_on_a_grid(direction):
    """Nonlinear, two layers of one dimension."""
    with seeded(1):
        model, x = pv.HierarchicalVAE(4, (1, 1), (6,), direction=direction), torch.eye(4)
    axis = torch.linspace(-9, 9, 361)
    z1, z2 = torch.cartesian_prod(axis, axis).split(1, 1)
    with torch.no_grad():
        log_p = model.top(z2).log_prob(z2) + model.given_above(z2, 1).log_prob(z1)
        log_p = log_p + model.decode(z1).log_prob(x[:, None])
    exact = log_p.logsumexp(1) + 2 * math.log(0.05)
    found = pv.quadrature(model.model, x, guide=model.guide, tolerance=1e-4)
    torch.testing.assert_close(found, exact, atol=1e-3, rtol=0)
    post = pv.importance_sampling(
        model.model, model.guide, x, num_particles=4_000, seed=0, proposal=pv.Defensive(0.5)
    )
    assert ((post.log_evidence() - exact).abs() < 5 * post.std_error()).all()


@BOTH
def test_elbos(direction):
    """Pyro's own; with KL integrated the same in the mean, and for the ladder with less noise."""
    with seeded(0):
        model, x = pv.HierarchicalVAE(4, (3, 2), (6,), direction=direction), torch.eye(4)
    with seeded(0):
        loss = Trace_ELBO().differentiable_loss(model.model, model.guide, x)
    with seeded(0):
        value = pv.svi.objectives.ELBO().per_datum(model.model, model.guide, x)
    torch.testing.assert_close(-value.sum(), loss)
    assert all(g.any() for g in torch.autograd.grad(loss, list(model.parameters())))
    many = x.repeat(2_000, 1)
    with torch.no_grad():
        one, other = (
            o.per_datum(model.model, model.guide, many).reshape(2_000, 4)
            for o in (pv.svi.objectives.ELBO(), pv.svi.objectives.AnalyticELBO())
        )
    error = ((one.var(0) + other.var(0)) / 2_000).sqrt()
    assert ((one.mean(0) - other.mean(0)).abs() < 4.5 * error).all()
    assert direction == "bottom-up" or (other.var(0) < one.var(0)).all()


def test_sites_stand_in_the_models_order():
    model, x = pv.HierarchicalVAE(4, (3, 2, 1), (6,)), torch.eye(4)
    up = pv.HierarchicalVAE(4, (3, 2, 1), (6,), direction="bottom-up")

    def names(fn):
        return [n for n, s in trace(fn).get_trace(x).nodes.items() if n[0] == "z" and s["fn"]]

    assert names(model.model) == names(model.guide) == ["z3", "z2", "z1"]
    assert names(up.guide) == ["z1", "z2", "z3"]


def test_precisions_add_up():
    one, other = (torch.randn(5, 3), torch.rand(5, 3) + 0.1), (torch.zeros(3), torch.ones(3))
    q, z = weighed(one, other), torch.randn(4, 5, 3)
    product = sum(dist.Normal(*p).to_event(1).log_prob(z) for p in (one, other))
    off = q.log_prob(z) - product  # a constant in z
    torch.testing.assert_close(off, off[:1].expand(4, 5))


@BOTH
def test_draws_and_saving(direction, tmp_path):
    model = linear(direction)
    x = model.sample(20_000, seed=0)
    assert torch.equal(x, model.sample(20_000, seed=0))
    other = log_evidence(model, x).mean()  # minus the entropy of X
    exact = -0.5 * torch.logdet(2 * math.pi * math.e * x.T.cov())
    assert abs(other - exact) < 0.05
    model = pv.HierarchicalVAE(4, (3, 2), (6,), "poisson", direction, "relu")
    pv.save(model, tmp_path / "run")
    again = pv.load(tmp_path / "run")
    assert again.config() == model.config()
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"z_dims": (3,)}, r"z_dims is \[3\]; give two layers or more"),
        ({"z_dims": (3, 0)}, "z_dims is 0; give a positive integer"),
        ({"z_dims": (3, 2), "direction": "up"}, "direction is 'up'; give 'ladder' or 'bottom-up'"),
    ],
)
def test_what_it_does_not_take(wrong, words):
    with pytest.raises(ValueError, match=words):
        pv.HierarchicalVAE(4, **wrong)
    with pytest.raises(ValueError, match=r"x is .* this model takes floating \(N, 4\)"):
        pv.HierarchicalVAE(4, (3, 2)).model(torch.zeros(2, 3))


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = "--model hierarchical-vae --model.z_dims 4 2 --model.hidden_dims 16 --num-epochs 2"
    quick = "--num-particles 50 --no-progress".split()
    assert main(["svi", *asked.split(), *quick, "--out", "run"]) == 0
    assert main(["evidence", "run", "--rows", "20", "--estimators", "importance", *quick]) == 0
    assert main(["report", "run"]) == 0
    assert pv.load("run").z_dims == (4, 2)
