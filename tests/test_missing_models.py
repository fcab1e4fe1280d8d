"""Data with gaps in every model of the family, against closed forms, grids and other people's."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.distributions import Normal

import pyrovae as pv
from pyrovae import likelihoods
from pyrovae.errors import DataError, NoDensity
from pyrovae.likelihoods import Column
from pyrovae.models.parts import begin
from pyrovae.svi.semi_supervised import SemiSupervised

QUIET = {"seed": 0, "progress": False}
GRID = torch.linspace(-7, 7, 201, dtype=torch.float64)
STEPS = Normal(0.0, 1.0).log_prob(GRID) + np.log(14 / 200)  # of z ~ N(0, I)
fit = partial(pv.svi.fit, **QUIET)


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("graph", "compiler")]


@pytest.fixture(params=["eager", *SLOW])
def compiled(request, monkeypatch):
    """Whether programs are captured; quickly, their graphs then run as they are."""
    if request.param == "graph":
        monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    return request.param != "eager"


def holes(x, share=0.5, seed=0):
    """x with that share of its cells missing; in row 0 all are, in row 1 none."""
    gone = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < share
    gone[0], gone[1] = True, False
    return torch.where(gone, torch.nan, x)


def drawn(model, *names):
    """Parameters that are not flat, of the parts of these names."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in (p for n, p in model.named_parameters() if n.startswith(names)):
            p.add_(0.5 * torch.randn(p.shape))
    return model


def linear():
    m = pv.LinearGaussian(5, 2, sigma=0.7)
    with torch.no_grad():
        m.decoder.bias.copy_(torch.arange(5.0))
    return m


def log_linear(m, row):
    """log P of what is seen of a row, by scipy; mean and covariance of z and of the gaps."""
    w, b = (p.detach().numpy() for p in (m.decoder.weight, m.decoder.bias))
    row, s = row.numpy(), ~np.isnan(row.numpy())
    cov = w @ w.T + 0.49 * np.eye(5)
    log_p = multivariate_normal(b[s], cov[np.ix_(s, s)]).logpdf(row[s]) if s.any() else 0.0
    gain = w[s].T @ np.linalg.inv(cov[np.ix_(s, s)])  # (2, seen)
    loc = gain @ (row[s] - b[s])
    return log_p, loc, np.eye(2) - gain @ w[s], b + w @ loc


def mixture():
    """Three components that differ in all."""
    m = pv.GaussianMixture(4, 3)
    with torch.no_grad():
        m.components.logits.copy_(torch.tensor([0.2, -0.5, 0.9]))
        m.components.locs.copy_(3 * torch.randn(3, 4))
        m.components.raw_scales.copy_(torch.randn(3, 4))
    return m


def log_mixture(m, row):
    """log P of what is seen of a row and each component, by scipy."""
    s, pi = ~row.isnan().numpy(), m.components.logits.softmax(0).detach().numpy()
    locs, scales = (t.detach().numpy()[:, s] for t in (m.components.locs, m.scales))
    x = row.numpy()[s]
    each = [
        multivariate_normal(loc, np.diag(scale**2)).logpdf(x) if s.any() else 0.0
        for loc, scale in zip(locs, scales, strict=True)
    ]
    return np.log(pi) + each


def test_linear_gaussian_is_the_conditional_normal(compiled):
    m = linear()
    x = m.sample(24, seed=1)
    x[12:] = holes(x[12:])  # so that graphs made of whole blocks are none for the others
    truth = [log_linear(m, row) for row in x]
    log_p, loc, cov, mean = (torch.from_numpy(np.stack(t)) for t in zip(*truth, strict=True))
    assert (m.log_evidence(x) - log_p).abs().max() < 1e-10
    assert m.log_evidence(x)[12].abs() < 1e-12
    q = m.posterior(x)
    assert (q.mean - loc).abs().max() < 1e-10
    assert (q.covariance_matrix - cov).abs().max() < 1e-10
    found = pv.evaluate(
        m.model, m.guide, x, estimators="importance", block_size=6, compile=compiled, **QUIET
    )["importance"]
    assert (found.value - log_p).abs().max() < 1e-10
    assert found.std_error.max() < 1e-8  # the root of a variance that is rounded
    assert (pv.quadrature(m.model, x[10:16]) - log_p[10:16]).abs().max() < 1e-5
    whole = pv.impute(m.model, m.guide, x, num_particles=1_000, seed=0)
    spread = (cov.diagonal(dim1=1, dim2=2).sum(1) / 1_000).sqrt().max() * m.decoder.weight.norm()
    assert ((whole.mean - mean)[x.isnan()]).abs().max() < 4 * spread


def test_exact_of_a_mixture_is_that_of_what_is_seen(compiled):
    m = mixture()
    x = m.sample(60, seed=1)
    x[30:] = holes(x[30:])
    joint = torch.from_numpy(np.stack([log_mixture(m, row) for row in x]))
    truth = joint.logsumexp(1)
    found = pv.evaluate(
        m.model, None, x, estimators="exact", block_size=15, compile=compiled, **QUIET
    )["exact"]
    for value in (found.value, m.log_evidence(x)):
        assert (value - truth).abs().max() < 1e-10
        assert value[30].abs() < 1e-12
    assert (m.responsibilities(x) - joint.softmax(1)).abs().max() < 1e-10
    whole = pv.impute(m.model, None, x, num_particles=4_000, seed=0)
    off = whole.mean - joint.softmax(1) @ m.components.locs.detach()
    spread = (m.components.locs.max() - m.components.locs.min()).item() / 2
    assert off[x.isnan()].abs().max() < 4 * spread / 4_000**0.5


def test_a_mixture_begins_and_ends_at_what_is_seen():
    truth = mixture()
    x = holes(truth.sample(900, seed=1), 0.3)
    m = pv.GaussianMixture(4, 3).start_at(x)
    assert all(p.isfinite().all() for p in m.parameters())
    options = {"num_epochs": 100, "batch_size": 900, "lr": 0.05}
    fit(m.model, None, x, **options)
    assert m.log_evidence(x).mean() > truth.log_evidence(x).mean()  # that of more freedom


def test_components_begin_at_moments_of_what_is_seen():
    x = torch.tensor([[0.0, 1.0], [0.2, torch.nan], [9.0, torch.nan], [9.2, torch.nan]])
    x = torch.cat([x, torch.full((3, 2), torch.nan)])
    m = pv.GaussianMixture(2, 2, floor=1e-3).start_at(x)
    order = m.components.locs[:, 0].argsort()
    torch.testing.assert_close(m.components.locs[order], torch.tensor([[0.1, 1.0], [9.1, 1.0]]))
    assert m.scales[:, 0].tolist() == pytest.approx([0.1, 0.1])
    assert m.components.logits.tolist() == pytest.approx([np.log(0.5)] * 2)
    with pytest.raises(ValueError, match="of 5 rows or more that are not all NaN"):
        pv.GaussianMixture(2, 5).start_at(x)
    none = torch.cat([x, torch.full((7, 1), torch.nan)], 1)
    m = pv.GaussianMixture(3, 2).start_at(none)
    assert m.scales[:, 2].tolist() == pytest.approx([1.0, 1.0])


def test_a_bayesian_mixture_of_few_rows_is_exact():
    m = pv.BayesianGaussianMixture(2, 2, prior_scale=2.0, sigma=0.7)
    x = holes(m.sample(6, seed=1))
    parts = []
    for number in range(2**6):
        c = (number >> np.arange(6)) & 1
        # cov of all that is seen, given who is in which component
        row, column = np.nonzero(~x.isnan().numpy())
        same = (c[row][:, None] == c[row]) & (column[:, None] == column)
        cov = 4.0 * same + 0.49 * np.eye(len(row))
        parts.append(multivariate_normal(np.zeros(len(row)), cov).logpdf(x[row, column].numpy()))
    truth = np.logaddexp.reduce(parts) - 6 * np.log(2)
    assert m.joint_log_evidence(x).item() == pytest.approx(truth, abs=1e-10)


def test_a_bayesian_mixture_rises_and_predicts_by_what_is_seen():
    m = pv.BayesianGaussianMixture(3, 2, prior_scale=3.0)
    x = holes(m.sample(200, seed=1))
    x[50:, 0] = torch.nan  # so that of the dimensions not as much is known
    elbo = m.start_at(x).cavi(x)
    assert len(elbo) > 4
    assert elbo.diff().min() > -1e-9
    scales = m.means.log_scales.detach().clone()
    for step in (0.05, -0.05):
        m.means.log_scales.data.copy_(scales + step)
        assert m.elbo(x) < elbo[-1]
    m.means.log_scales.data.copy_(scales)
    few = x[:8]
    few_elbo = pv.BayesianGaussianMixture(3, 2, prior_scale=3.0).start_at(few).cavi(few)[-1]
    assert few_elbo < m.joint_log_evidence(few)
    log_p = m.log_predictive(x[:9])
    assert log_p[0].abs() < 1e-12
    w = pv.importance_sampling(m.model, m.guide, x[:9], num_particles=20_000, seed=0)
    assert ((w.log_evidence() - log_p) / w.std_error().clamp(min=1e-12)).abs().max() < 4
    before = m.elbo(x)
    fit(m.model, m.guide, x, num_epochs=30, lr=0.003, batch_size=200)
    assert m.elbo(x) > before - 1  # of a step's noise: cavi's was the best
    with pytest.raises(ValueError, match="mu"):
        pv.impute(m.model, m.guide, x)


def of_seen(p, x):
    """Returns log P of what is seen, `(..., N)`, by the densities of single numbers."""
    return p.base_dist.log_prob(x.nan_to_num(1.0)).masked_fill(x.isnan(), 0).sum(-1)


def cvae():
    """A model, its data, a table on a grid of z, and E[x|z].

    The table has log P(X, z) dz of what is seen, `(grid, N)`, and E[x|z], `(grid, 1 or N, D)`.
    """
    m = drawn(pv.CVAE(4, 3, 1, (5,), "normal(sigma=0.8)"), "decoder", "prior")
    y = torch.arange(40) % 3
    x = holes(m.generate(y, seed=1))

    def table():
        prior = m.p_z(y).base_dist
        p = m.p_x(prior.loc + prior.scale * GRID[:, None, None], y)
        return STEPS[:, None] + of_seen(p, x), p.mean

    return m, (x, y), table, lambda z: m.p_x(z["z"], y).mean


def hierarchical(direction):
    m = drawn(pv.HierarchicalVAE(4, (1, 1), (5,), "normal(sigma=0.8)", direction), "d")
    x = holes(m.sample(40, seed=1))

    def table():
        above = m.given_above(GRID[:, None], 1).base_dist  # (grid, 1)
        z = above.loc + above.scale * GRID  # z1, by the grids of z2 and of itself
        p = m.decode(z.flatten()[:, None, None])
        return (STEPS[:, None] + STEPS).flatten()[:, None] + of_seen(p, x), p.mean

    return m, (x,), table, lambda z: m.decode(z["z1"]).mean


def semi_supervised():
    m = drawn(pv.SemiSupervisedVAE(4, 3, 1, (5,), "normal(sigma=0.8)"), "decoder")
    y = torch.arange(40) % 4 - 1.0
    y[3] = torch.nan
    x = holes(m.sample(40, seed=1))
    x[5] = torch.nan  # and its label is known

    def table():
        c, z = torch.arange(3).repeat_interleave(len(GRID)), GRID.repeat(3)
        p = m.p_x(z[:, None, None], c[:, None])  # (3 grid, 1)
        log_p = STEPS.repeat(3)[:, None] - np.log(3) + of_seen(p, x)
        return log_p.masked_fill((y >= 0) & (c[:, None] != y), -torch.inf), p.mean

    return m, (x, y), table, lambda z: m.p_x(z["z"], z["c"]).mean


# where no guide of the kind is the prior, and where the prior draws labels that are known
INEXACT = {("bottom-up", "importance"), ("semi-supervised", "prior")}
MODELS = {
    "cvae": cvae,
    "ladder": partial(hierarchical, "ladder"),
    "bottom-up": partial(hierarchical, "bottom-up"),
    "semi-supervised": semi_supervised,
}


@pytest.mark.parametrize("name", MODELS)
def test_log_p_of_what_is_seen_rises_and_is_the_sum_over_a_grid(name, compiled):
    m, data, table, _ = MODELS[name]()
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(0.3 * torch.randn(p.shape))
    before, first = table()[0].logsumexp(0).mean(), len(data[0]) // 2
    options = {"num_epochs": 15, "lr": 0.03, "batch_size": first, "compile": compiled}
    fit(m.model, m.guide, data, objective=m.objective, **options)
    assert all(p.isfinite().all() for p in m.parameters())
    expected = table()[0].logsumexp(0).detach()
    assert expected.mean() > before + 0.1
    asked = [pv.Importance(4_000), pv.Naive(4_000)]
    run = {"estimators": asked, "block_size": first, "compile": compiled}
    found = pv.evaluate(m.model, m.guide, *data, **run, **QUIET)
    blank = data[0].isnan().all(1)
    for e in map(found.__getitem__, ("importance", "prior")):
        good = (e.ess > 200) & (e.pareto_k < 0.5)
        assert good.sum() > 30
        error = e.std_error.clamp(min=1e-9)
        assert ((e.value - expected) / error)[good].abs().max() < 4
        if (name, e.name) not in INEXACT:
            assert e.std_error[blank].max() < 1e-8
            assert (e.value - expected)[blank].abs().max() < 1e-9


def everything():
    """Models of all kinds, their data of which nothing is seen, and log P of those."""
    x, y = torch.full((3, 4), torch.nan), torch.tensor([0, 1, 2])
    sizes = 4, 2, (3,)
    yield pv.VAE(*sizes), (x,), 0.0
    yield pv.ConvVAE((1, 2, 2), 2, (3,)), (x,), 0.0
    yield pv.LinearGaussian(4, 2), (x,), 0.0
    yield pv.GaussianMixture(4, 3), (x,), 0.0
    yield pv.CVAE(4, 3, 2, (3,)), (x, y), 0.0
    yield pv.HierarchicalVAE(4, (2, 2), (3,)), (x,), 0.0
    yield pv.SemiSupervisedVAE(4, 3, 2, (3,)), (x, y), -np.log(3)
    yield pv.SemiSupervisedVAE(4, 3, 2, (3,)), (x, torch.full((3,), torch.nan)), 0.0
    yield pv.AutoEncoder(*sizes), (x,), 0.0
    yield pv.TableVAE(*sizes), (x,), 0.0


@pytest.mark.parametrize("number", range(10))
def test_of_nothing_log_p_is_zero_for_certain(number):
    m, data, truth = list(everything())[number]
    drawn(m, "")
    before = [p.clone() for p in m.parameters()]
    objective = SemiSupervised(alpha=0) if isinstance(m, pv.SemiSupervisedVAE) else "elbo"
    found = fit(m.model, m.guide, data, objective=objective, num_epochs=2)
    assert found.elbo == pytest.approx((truth, truth), abs=1e-12)
    for p, q in zip(m.parameters(), before, strict=True):
        assert (p - q).abs().max() < 1e-9
    if not isinstance(m, pv.AutoEncoder):
        names = ["exact"] if m.guide is None else ["importance", "prior"][: 2 if truth == 0 else 1]
        found = pv.evaluate(m.model, m.guide, *data, estimators=names, **QUIET)
        for e in map(found.__getitem__, names):
            assert (e.value - truth).abs().max() < 1e-12
            assert e.std_error.max() < 1e-8


def test_conditions_have_to_be_whole():
    m = pv.CVAE(4, 3, 2)
    y = torch.rand(5, 3)
    y[2, 1] = torch.nan
    with pytest.raises(DataError, match=r"data\[1\] holds nan at row 2, column 1; remove"):
        pv.evaluate(m.model, m.guide, torch.ones(5, 4), y)
    with pytest.raises(DataError, match=r"data\[1\] holds nan at row 2, column 1; remove"):
        fit(m.model, m.guide, (torch.ones(5, 4), y))


@pytest.mark.parametrize("name", MODELS)
def test_gaps_are_filled_in_by_the_posterior_on_a_grid(name):
    m, data, table, mean = MODELS[name]()
    x, (log_p, means) = data[0], table()
    expected = (log_p.softmax(0)[..., None] * means).sum(0)
    options = {"num_particles": 4_000, "num_temperatures": 0, "seed": 0}
    whole = pv.impute(m.model, m.guide, *data, **options)
    assert torch.equal(whole.gaps, x.isnan())
    assert torch.equal(whole.mean[~whole.gaps], x[~whole.gaps])
    assert whole.draws.isfinite().all()
    d = pv.posterior(m.model, m.guide, *data, **options)
    assert (d.expectation(mean) - whole.mean)[whole.gaps].abs().max() < 1e-10
    d = pv.posterior(m.model, None, *data, **options)  # the guides are untrained, and too narrow
    good = whole.gaps & ((d.ess() > 200) & (d.weights.pareto_k() < 0.5))[:, None]
    assert good.sum() > 50
    assert ((d.mean_of("x") - expected) / d.std_error(mean))[good].abs().max() < 4


def test_an_autoencoder_counts_what_is_seen():
    m = drawn(pv.AutoEncoder(4, 2, (5,), "normal(sigma=0.8)"), "")
    x = holes(torch.randn(50, 4))
    p = m.decode(m.encoder(x.nan_to_num(0.0)))
    assert torch.equal(m.reconstruction(x), of_seen(p, x))
    before = m.reconstruction(x).mean()
    fit(m.model, None, x, num_epochs=20, lr=0.01, batch_size=50)
    assert m.reconstruction(x).mean() > before
    assert m.reconstruct(x).isfinite().all()
    with pytest.raises(NoDensity):
        pv.evaluate(m.model, m.guide, x)


@pytest.mark.parametrize("kind", ["CVAE", "HierarchicalVAE", "SemiSupervisedVAE", "AutoEncoder"])
def test_models_take_rows_of_mixed_columns(kind):
    kinds = [("real", ()), ("count", ()), ("categorical", (0, 1, 2)), ("ordinal", (0, 1, 2, 3))]
    table = likelihoods.Columns([Column(k, k, c) for k, c in kinds], mask=True)
    x = torch.stack([5 + torch.randn(60), *((torch.arange(60) // n) % n for n in (5, 3, 4))], 1)
    data = (holes(x), torch.arange(60) % 3)[: 1 + (kind in ("CVAE", "SemiSupervisedVAE"))]
    sizes = {"HierarchicalVAE": ((2, 1),), "AutoEncoder": (2,)}.get(kind, (3, 2))
    model = getattr(pv, kind)(4, *sizes, (5,), table)
    begin(model.decoder.net if "Semi" in kind else model.decoder, table, data[0])
    assert table.loc[0] == pytest.approx(data[0][:, 0].nanmean().item())
    found = fit(model.model, model.guide, data, objective=model.objective, num_epochs=3)
    assert all(p.isfinite().all() for p in model.parameters())
    assert torch.tensor(found.elbo).isfinite().all()
    if kind != "AutoEncoder":
        w = pv.importance_sampling(model.model, model.guide, *data, num_particles=9, seed=0)
        assert w.log_w.isfinite().all()


@pytest.mark.parametrize("kind", ["CVAE", "HierarchicalVAE", "SemiSupervisedVAE", "AutoEncoder"])
def test_models_begin_at_the_mean_of_what_is_seen(kind):
    x = holes(torch.rand(200, 3).round())
    x[:, 2] = torch.nan
    sizes = {"CVAE": (2, 1), "HierarchicalVAE": ((2, 1),), "SemiSupervisedVAE": (2, 1)}
    if kind == "AutoEncoder":
        train = pv.data.Split(x, None)
        m = pv.AutoEncoder.for_data(type("Splits", (), {"train": train, "columns": None}))
    else:
        m = getattr(pv, kind)(3, *sizes[kind]).start_at(x)
    net = m.decoder.net if kind == "SemiSupervisedVAE" else m.decoder
    bias = net[-1].bias
    expected = m.likelihood.start(torch.cat([x[:, :2].nanmean(0), torch.zeros(1)]))
    torch.testing.assert_close(bias.detach(), expected)
