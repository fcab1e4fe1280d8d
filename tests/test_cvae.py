"""The conditional VAE: log P(X|Y) against closed forms, classes, vectors and parts of images."""

from dataclasses import replace
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

import pyrovae as pv
from pyrovae import report, runs
from pyrovae.__main__ import main
from pyrovae.data import Split
from pyrovae.models.base import Generates
from pyrovae.rng import seeded


def linear(**options):
    """Linear decoder and normal X, so that log P(X|Y) is that of a normal; of three classes."""
    model = pv.CVAE(5, 3, 2, (), likelihood=pv.likelihoods.Normal(0.5), **options)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.4 * torch.randn_like(p))
    return model


def log_evidence(model, x, y):
    """Exactly, of `linear`."""
    weight, vectors, prior = model.decoder[-1].weight, model.vectors(y), model.p_z(y)
    a, b = weight.tensor_split((2,), 1)
    loc = prior.mean @ a.T + vectors @ b.T + model.decoder[-1].bias
    cov = a @ prior.variance.diag_embed() @ a.T + 0.25 * torch.eye(5)
    return dist.MultivariateNormal(loc, cov).log_prob(x).detach()


Y = torch.tensor([0, 2, 1, 1, 2, 0])
VECTORS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("conditional_prior", [True, False])
@pytest.mark.parametrize("y", [Y, Y.double(), VECTORS], ids=["class", "float", "vector"])
def test_log_p_of_x_given_y_in_closed_form(y, conditional_prior):
    model, x = linear(conditional_prior=conditional_prior), torch.randn(6, 5)
    exact = log_evidence(model, x, y)
    run = {"num_particles": 2_000, "seed": 0}
    for proposal in (pv.Defensive(0.5), pv.Laplace()):
        post = pv.importance_sampling(model.model, model.guide, x, y, proposal=proposal, **run)
        assert ((post.log_evidence() - exact).abs() < 5 * post.std_error() + 1e-6).all()
    ais = pv.ais(model.model, x, y, num_temperatures=40, num_particles=16, seed=0)
    assert ((ais.log_evidence() - exact).abs() < 5 * ais.std_error() + 0.02).all()
    naive = pv.prior_sampling(model.model, x, y, num_particles=20_000, seed=0)
    assert ((naive.log_evidence() - exact).abs() < 6 * naive.std_error()).all()


def test_the_exact_evidence_depends_on_y():
    model, x = linear(), torch.randn(6, 5)
    other = log_evidence(model, x, (Y + 1) % 3)
    assert ((log_evidence(model, x, Y) - other).abs() > 0.1).all()


def test_draws_on_a_condition():
    model = linear()
    y = torch.full((20_000,), 2)
    x = model.generate(y, seed=0)
    prior, (a, b) = model.p_z(y[:1]), model.decoder[-1].weight.tensor_split((2,), 1)
    loc = prior.mean @ a.T + b[:, 2] + model.decoder[-1].bias
    error = (x.mean(0) - loc) / (x.std(0) / len(x) ** 0.5)
    assert error.abs().max() < 4.5
    assert torch.equal(x, model.generate(y, seed=0))


def test_its_elbo_is_pyros_and_every_parameter_learns():
    with seeded(0):
        model, x = pv.CVAE(4, 3, 2, (6,)), (torch.rand(6, 4) < 0.5).double()
    with seeded(0):
        loss = Trace_ELBO().differentiable_loss(model.model, model.guide, x, Y)
    with seeded(0):
        value = pv.svi.objectives.ELBO().per_datum(model.model, model.guide, x, Y)
    torch.testing.assert_close(-value.sum(), loss)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    assert all(g.any() for g in grads)


def test_what_is_no_class_has_no_evidence():
    """-1 and classes beyond are no vector of zeros, which would be a condition like others."""
    model, x = linear(), torch.randn(6, 5)
    for wrong in (-1, 3):
        y = Y.clone()
        y[4] = wrong
        with pytest.raises(ValueError, match=r"NaN|nan"):
            pv.importance_sampling(model.model, model.guide, x, y, num_particles=5, seed=0)
        with pytest.raises((ValueError, pv.svi.Diverged)):
            pv.svi.fit(model.model, model.guide, (x, y), num_epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"y has shape \(6, 2\); this CVAE takes classes"):
        model.model(x, torch.zeros(6, 2))
    with pytest.raises(ValueError, match="x is torch.int64 of shape"):
        model.model(x.long(), Y)


def test_saved_and_read_again(tmp_path):
    model, x = pv.CVAE(4, 3, 2, (6,), conditional_prior=False, activation="relu"), torch.ones(6, 4)
    pv.save(model, tmp_path / "run")
    again = pv.load(tmp_path / "run")
    torch.testing.assert_close(again.q_z(x, Y).mean, model.q_z(x, Y).mean)
    assert again.config() == model.config()


def test_completes_an_image():
    """Pixels that are known are the condition, and X the others; X copies them here."""
    given = pv.data.quadrants((4, 4), 2)
    assert given.reshape(4, 4)[:, :2].all()
    assert given.sum() == 8
    assert pv.data.quadrants((5, 3), 3).reshape(5, 3).tolist() == [
        *[[True, True, True]] * 2,
        *[[True, False, False]] * 3,
    ]
    with seeded(0):
        left = (torch.rand(400, 4, 2) < 0.5).double()
        images = torch.cat([left, left], 2).flatten(1)
        model = pv.CVAE(8, 8, 2, (16,))
    x, y = images[:, ~given], images[:, given]
    run = {"num_epochs": 40, "lr": 0.02, "seed": 0, "progress": False}
    pv.svi.fit(model.model, model.guide, (x, y), **run)
    post = pv.importance_sampling(model.model, model.guide, x, y, num_particles=100, seed=0)
    assert post.log_evidence().mean() > -1  # without Y it is 8 log 1/2 = -5.5
    assert (model.generate(y, seed=0) == x).double().mean() > 0.9
    with pytest.raises(ValueError, match="num_given is 4; give 1, 2 or 3 quadrants"):
        pv.data.quadrants((4, 4), 4)


def test_for_data():
    splits = pv.data.load("digits")
    model = pv.CVAE.for_data(splits, z_dim=2)
    assert (model.x_dim, model.y_dim) == (64, 10)
    bare = replace(splits, train=replace(splits.train, y=None))
    with pytest.raises(pv.data.DataError, match="CVAE takes y, and these data have none"):
        pv.CVAE.for_data(bare)


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = "--model cvae --model.z_dim 2 --model.hidden_dims 16 --num-epochs 2 --num-particles 50"
    assert main(["svi", *asked.split(), "--out", "run", "--no-progress"]) == 0
    assert "log P(X|Y) of these" in capsys.readouterr().out
    rows = "--rows 20 --estimators importance --num-particles 50 --no-progress".split()
    assert main(["evidence", "run", *rows]) == 0
    assert main(["report", "run"]) == 0
    page = Path("run/report.html").read_text()
    assert "log P(X|Y): run" in page
    assert "what is drawn given their Y" in page
    assert Path("run/figures/conditions.png").exists()
    assert pv.load("run").decoder[-1].bias.isfinite().all()


def test_its_evidence_says_that_it_is_given_y():
    model, x = linear(), torch.randn(6, 5)
    run = {"estimators": ["elbo", "importance"], "num_particles": 20, "seed": 0}
    evidence = pv.evaluate(model.model, model.guide, x, Y, **run)
    assert evidence.protocol["target"] == evidence.target == "log P(X|Y)"
    text = evidence.reading()
    assert text.startswith("log P(X|Y) of these 6 data by importance sampling")
    assert "KL(q(z|x, y) || p(z|x, y))" in text
    only = pv.evaluate(model.model, model.guide, x, Y, **{**run, "estimators": "elbo"})
    assert "a lower bound of log P(X|Y), by KL(q(z|x, y) || p(z|x, y))" in only.reading()
    assert evidence.protocol["dims"] == 5  # y is none of them
    again = type(evidence).from_xarray(evidence.to_xarray())
    for figure in (pv.plots.convergence(again), pv.plots.histogram(again)):
        words = [axes.get_title() for axes in figure.axes]
        assert any("(X|Y)" in w or "(x|y)" in w for w in words), words
    page = report.render(model, Split(x, Y), None, evidence, {}, {}, "a run")
    assert "<title>log P(X|Y): a run</title>" in page
    assert "What is log P(X|Y) of 6 data that" in page
    assert '"value": "log p(x|y)"' in page
    assert "log p(x)" not in page.lower()
    vae = pv.VAE(5, 2, likelihood="normal")
    assert "target" not in pv.evaluate(vae.model, vae.guide, x, **run).protocol


@pytest.mark.parametrize("y", [torch.tensor([2, -1, 0, 2, 0, 1]), VECTORS])
def test_data_are_shown_beside_draws_on_their_condition(y, monkeypatch):
    """Of each class that is known the first datum, or all data; the mean is that of the draws."""
    model, x, drawn = linear(), torch.randn(6, 5), []
    monkeypatch.setattr(pv.plots, "images", lambda rows, *words: drawn.append((rows, words)))
    runs.pictures.conditions(model, x, y, (1, 5))
    [(rows, (_, shape, title))] = drawn
    few = [2, 5, 0] if y.ndim == 1 else [*range(6)]
    assert ("Y = 0, 1, 2" in title) == (y.ndim == 1)
    assert torch.equal(rows[0], x[few])
    prior, (a, b) = model.p_z(y[few]), model.decoder[-1].weight.tensor_split((2,), 1)
    exact = prior.mean @ a.T + model.vectors(y[few]) @ b.T + model.decoder[-1].bias
    spread = (prior.variance @ a.square().T + 0.25).sqrt()
    assert ((rows[1] - exact) / spread * 200**0.5).abs().max() < 4.5
    assert not torch.equal(rows[2], rows[3])
    assert all(r.shape == (len(few), 5) for r in rows)
    vae = pv.VAE(5, 2, likelihood="normal")
    assert runs.pictures.can(model, Generates)
    assert not runs.pictures.can(model)
    assert not runs.pictures.can(vae, Generates)
