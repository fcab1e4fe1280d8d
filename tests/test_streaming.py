"""Sums of log-weights say what the table would."""

from functools import partial

import pytest
import torch
from scenarios import LinearGaussian

import pyrovae as pv
from pyrovae.evidence.samplers import streaming
from pyrovae.evidence.samplers.streaming import StreamedWeights
from pyrovae.evidence.weights import LogWeights

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9, equal_nan=True)
ALL = ("log_evidence", "std_error", "ess", "pareto_k", "elbo", "elbo_std_error")
GRID = (1, 7, 100, 900, 1000, 2500, 4000)


def added(log_w, chunks, monkeypatch, table=3000, grid=GRID):
    monkeypatch.setattr(streaming, "TABLE_SIZE", table)
    total = StreamedWeights(len(log_w), grid, range(log_w.shape[1]))
    for chunk in log_w.split(chunks):
        total.add(chunk)
    return total


@pytest.fixture
def log_w():
    """Light and heavy tails, a peak that comes late, an impossible draw, and equal weights."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(4000, 6, generator=generator) * torch.tensor([0.3, 1, 3, 6, 1, 0]) - 700
    table[3777, 1] += 50
    table[:2000, 4] = -torch.inf
    return table


@pytest.mark.parametrize("chunks", [1, 37, 999, 4000])
def test_reductions_are_the_tables(log_w, chunks, monkeypatch):
    total, table = added(log_w, chunks, monkeypatch), LogWeights(log_w)
    for name in ALL:
        close(getattr(total, name)(), getattr(table, name)())
    several = [0, 2, 3, 4, 5]  # where one weight is all there is, the others' log-mean is -inf
    assert (total.jackknife() - table.jackknife())[several].abs().max() < 1e-5
    assert torch.equal(total.num_draws, table.num_draws)


def test_the_path_is_the_tables_as_far_as_one_goes(log_w, monkeypatch):
    values, errors = added(log_w, 64, monkeypatch, table=6000).path(GRID)
    within = LogWeights(log_w[:1000])
    for ours, theirs in zip((values, errors), within.path(GRID[:5]), strict=True):
        close(ours[:5], theirs)
    for i, k in ((5, 2500), (6, 4000)):
        torch.testing.assert_close(values[i], LogWeights(log_w[:k]).log_evidence())
        torch.testing.assert_close(errors[i], LogWeights(log_w[:k]).std_error())
    assert len(values) == len(errors) == len(GRID)


@pytest.mark.parametrize("size", [5, 32, 1000, 4000])
def test_batches_are_the_means_of_successive_draws(log_w, size, monkeypatch):
    total = added(log_w[:size], 37, monkeypatch, grid=())
    count = min(32, size)
    batch = torch.arange(size) * count // size
    for b in range(count):
        close(total.batches()[b], LogWeights(log_w[:size][batch == b]).log_evidence())


@pytest.mark.parametrize("size", [1, 2, 25, 300])
def test_few_draws(size, monkeypatch):
    log_w = torch.randn(size, 3)
    total, table = added(log_w, 7, monkeypatch, grid=(1,)), LogWeights(log_w)
    for name in (
        "log_evidence",
        "std_error",
        "ess",
        "pareto_k",
        "elbo",
        "elbo_std_error",
        "jackknife",
    ):
        close(getattr(total, name)(), getattr(table, name)())


def test_no_mass_at_all(monkeypatch):
    total = added(torch.full((50, 2), -torch.inf), 20, monkeypatch, table=20, grid=())
    assert (total.log_evidence() == -torch.inf).all()
    assert (total.ess() == 0).all()


def test_nan_names_the_datum():
    log_w = torch.zeros(10, 3)
    log_w[4, 2] = torch.nan
    total = StreamedWeights(10, (), range(40, 43))
    with pytest.raises(ValueError, match="nan at particle 4 of datum 42"):
        total.add(log_w)


def test_float32_weights_sum_to_float32_accuracy(monkeypatch):
    log_w = torch.randn(20_000, 2, dtype=torch.float32) * 2 - 90
    total, table = added(log_w, 4096, monkeypatch), LogWeights(log_w)
    for name in ALL[:3] + ALL[4:]:
        close(getattr(total, name)(), getattr(table, name)(), rtol=1e-5, atol=1e-5)


def test_evaluate_does_not_depend_on_the_size_of_its_tables(monkeypatch):
    oracle = LinearGaussian.make()
    x, options = oracle.data(20), dict(num_particles=3000, seed=0)
    names = ("elbo", "importance", "jackknife", "prior")
    whole = pv.evaluate(oracle.model, oracle.mean_field, x, estimators=names, **options)
    monkeypatch.setattr(streaming, "TABLE_SIZE", 20 * 100)
    parts = pv.evaluate(oracle.model, oracle.mean_field, x, estimators=names, **options)
    for name in names:
        for field in ("value", "std_error", "ess", "pareto_k", "num_draws"):
            ours, theirs = (getattr(e.estimates[name], field) for e in (parts, whole))
            torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=1e-6, atol=1e-5)
        assert parts.estimates[name].path.shape == whole.estimates[name].path.shape


def test_the_jackknife_is_as_exact_where_float32_is_the_default(float32):
    log_w = 1.5 * torch.randn(100_000, 3)
    total = StreamedWeights(len(log_w), (), range(3))
    total.add(log_w)
    assert (total.jackknife() - LogWeights(log_w).jackknife()).abs().max() < 1e-6
