"""In which order: what intervals of ranks hold, ties as ties, and the two uncertainties apart."""

from math import sqrt

import pytest
import torch
from scenarios import LinearGaussian
from scipy.stats import kendalltau, rankdata, spearmanr, t

import pyrovae as pv
from pyrovae.posteriors import ordering as module
from pyrovae.posteriors.ordering import HEADER, Ordered, places


@pytest.fixture
def normal():
    return LinearGaussian.make(x_dim=3, z_dim=2, sigma=0.7)


def wide(normal):
    return lambda x: normal.mean_field(x, scale=1.3)


def held(values, low, high):
    """Whether each interval holds all ranks of true values, by the ones below and those above."""
    below = (values[None] < values[:, None]).sum(1)
    above = (values[None] > values[:, None]).sum(1)
    return (low <= 1 + below) & (high >= len(values) - above)


def ordered(value, error=None, verdict=None, **options):
    error = torch.zeros_like(value) if error is None else error
    verdict = verdict or ["ok"] * len(value)
    trusted = torch.tensor([word == "ok" for word in verdict])
    return Ordered(value, error, verdict, *places(value, 1.96 * error, trusted), 0.95, **options)


def test_without_errors_ranks_are_those_of_the_values():
    gen = torch.Generator().manual_seed(0)
    value = torch.randint(20, (50,), generator=gen).double()
    found = ordered(value)
    assert found.rank.tolist() == rankdata(value).tolist()
    assert held(value, found.low, found.high).all()
    assert value[found.order].equal(value.sort().values)
    hidden = torch.randn(50, generator=gen)
    assert found.spearman(hidden) == pytest.approx(spearmanr(value, hidden).statistic)
    assert found.kendall(-hidden) == pytest.approx(-kendalltau(value, hidden).statistic)
    assert ordered(-value).spearman(hidden) == pytest.approx(-found.spearman(hidden))


@pytest.mark.parametrize("shared", [False, True])
def test_places_are_counts_of_what_is_told_apart(shared, monkeypatch):
    gen = torch.Generator().manual_seed(0)
    value, reach = torch.randn(2, 40, generator=gen).double()
    reach, trusted = 0.3 * reach.abs(), torch.rand(40, generator=gen) < 0.8
    monkeypatch.setattr(module, "COMPARED", 7 * 40)  # seven rows at a time
    low, high = places(value, reach, trusted, shared=shared)
    for n in range(40):
        below = above = 0
        for k in range(40):
            r = reach[n] + reach[k] if shared else (reach[n] ** 2 + reach[k] ** 2).sqrt()
            r += module.ROUNDING * (1 + value[n].abs() / 2 + value[k].abs() / 2)
            below += bool(trusted[n] & trusted[k] & (value[k] < value[n] - r))
            above += bool(trusted[n] & trusted[k] & (value[k] > value[n] + r))
        assert (low[n], high[n]) == (1 + below, 40 - above)
    assert (low[~trusted] == 1).all()
    assert (high[~trusted] == 40).all()


@pytest.mark.parametrize("freedom", [[7, 7], [7, 999], [999, 999]])
def test_two_equals_are_told_apart_as_often_as_said(freedom):
    """Nominal of two data; of unequal degrees of freedom and errors less often, never more."""
    gen, n = torch.Generator().manual_seed(0), 20_000
    apart, freedom = 0, torch.tensor(freedom).double()
    scale = torch.tensor([1.0, 1.0 if freedom[0] == freedom[1] else 0.2]).double()
    chi2 = [2 * torch._standard_gamma((f / 2).expand(n), generator=gen) / f for f in freedom]
    value = scale[:, None] * torch.randn(2, n, generator=gen).double()
    error = scale[:, None] * torch.stack(chi2).sqrt()
    reach = torch.from_numpy(t.ppf(0.975, freedom.numpy()))[:, None] * error
    apart = ((value[0] - value[1]).abs() > torch.hypot(*reach)).double().mean().item()
    assert apart < 0.05 + 4 * sqrt(0.05 * 0.95 / n)
    if freedom[0] == 999:
        assert apart == pytest.approx(0.05, abs=4 * sqrt(0.05 * 0.95 / n))


@pytest.mark.parametrize("size", [2, 20])
def test_intervals_hold_the_ranks_of_equal_data(normal, size):
    """Where all log P(x) are the same each of them is a miss that tells two data apart.

    Normal errors make it 0.05 of two data, and 0.036 of 20, whose comparisons go together.
    """
    x = normal.data(1).expand(4_000, -1)
    table = pv.importance_sampling(normal.model, wide(normal), x, num_particles=300, seed=0)
    value, (_, top) = table.log_evidence(), table.interval(1 - 0.05 / (size - 1))
    sure, missed = torch.ones(size, dtype=torch.bool), []
    for v, r in zip(value.reshape(-1, size), (top - value).reshape(-1, size), strict=True):
        missed.append(~held(torch.zeros(size), *places(v, r, sure)))
    share = torch.stack(missed).double().mean(1)  # data of a set go together
    assert share.mean().item() == pytest.approx(
        {2: 0.05, 20: 0.036}[size], abs=4 * share.std().item() / sqrt(len(share))
    )


def test_data_in_the_order_of_log_p(normal):
    x = normal.data(20)
    x[7] = x[6]
    options = {"estimator": pv.Importance(1_000), "seed": 0}
    found = pv.order(normal.model, wide(normal), x, **options)
    truth = normal.log_evidence(x).double()
    assert ((found.value - truth) / found.std_error).abs().max() < 4.5
    assert held(truth, found.low, found.high).all()
    assert found.known.all()
    assert found.high[6] > found.low[7]  # the same datum twice
    assert found.target == "log P(X)"
    assert found.spread is None
    assert found.spearman(truth) > 0.99
    assert found == pv.order(normal.model, wide(normal), x, prob=0.95, **options)
    for prob in (0.95, 0.5):  # of 19 comparisons
        reach = t.ppf(1 - (1 - prob) / 19 / 2, 999) * found.std_error
        low, high = places(found.value, reach, found.known)
        one = pv.order(normal.model, wide(normal), x, prob=prob, **options)
        assert (one.low.equal(low), one.high.equal(high)) == (True, True)
    shared = pv.order(normal.model, None, x, estimator=pv.Naive(2_000), seed=0)
    reach = t.ppf(1 - 0.05 / 19 / 2, 1_999) * shared.std_error
    assert shared.low.equal(places(shared.value, reach, shared.known, shared=True)[0])


def test_along_a_latent_error_and_spread_are_two_things(normal):
    x = normal.data(40)
    found = pv.order(normal.model, wide(normal), x, along=1, seed=0, num_particles=2_000)
    truth = normal.posterior_mean(x).double()[:, 1]
    assert ((found.value - truth) / found.std_error).square().mean().sqrt() < 1.5
    assert held(truth, found.low, found.high).all()
    assert found.target == "E[z[1]|X]"
    draws = pv.posterior(normal.model, wide(normal), x, seed=0, num_particles=2_000)
    value, (_, top) = found.value, draws.interval(lambda z: z["z"][..., 1], 1 - 0.05 / 39)
    assert found.high.equal(places(value, top - value, found.known)[1])
    sd = normal.cov[1, 1].sqrt().item()
    assert found.spread.mean().item() == pytest.approx(sd, rel=0.02)
    assert (found.std_error < 0.2 * found.spread).all()
    assert "the spread, " in str(found)
    by = pv.order(
        normal.model, wide(normal), x, along=lambda z: -z["z"][..., 1], seed=0, num_particles=2_000
    )
    torch.testing.assert_close(by.value, -found.value)
    assert by.order.tolist() == found.order.tolist()[::-1]
    assert by.target == "E[f(z)|X]"
    mixture = pv.GaussianMixture(3, 2)
    y = mixture.sample(4, seed=0)
    share = pv.order(mixture.model, None, y, along=0, seed=0, num_particles=4_000)
    exact = mixture.responsibilities(y)[:, 1].double()
    assert ((share.value - exact).abs() < 4.5 * share.std_error + 1e-9).all()


def test_where_values_are_not_to_be_trusted_ranks_are_not_known(normal):
    words = ["ok", "use ais", "ok", "ok"]
    found = ordered(torch.tensor([3.0, 9.0, 1.0, 2.0]).double(), verdict=words)
    assert found.low.tolist() == [3, 1, 1, 2]
    assert found.high.tolist() == [4, 4, 2, 3]  # any may stand above or below the second
    assert found.rank.isnan().tolist() == [False, True, False, False]
    assert "Of 1 data the value is not to be trusted (use ais: 1)" in found.reading()
    assert found.summary()["num_not_known"] == 1
    lines = found.to_csv(["a", "b", 'c"', "d"])
    assert lines[0] == HEADER
    assert lines[1] == '"c""",1.0,0.0,,1.5,1,2,ok'
    assert lines[4] == "b,9.0,0.0,,,,,use ais"
    assert found.table(2).splitlines()[2].split() == "? ? 1 9.000 0.000 - use ais".split()
    few = pv.order(normal.model, wide(normal), normal.data(5), estimator=pv.Importance(10), seed=0)
    assert not few.known.any()
    assert few.low.tolist() == [1] * 5
    assert "rank 1 is the lowest.\nOf 5 data" in few.reading()


def test_what_is_no_order_says_so(normal):
    x = normal.data(4)

    def told(match, error=ValueError, **options):
        with pytest.raises(error, match=match):
            pv.order(normal.model, wide(normal), x, **options)

    told("along is 2; give 'log_p', a function of latents, or the number of one of their 2 dim",
         along=2)  # fmt: skip
    told("along is True; give", along=True)
    told("along is 0.5; give", along=0.5)
    told("along is 'z'; give 'log_p'", along="z")
    told(r"along returned shape \(1, 2, 2\); return a number", along=lambda z: z["z"])
    told("estimator is of log P", along=0, estimator="ais")
    told("there is no option 'compile'; take num_particles", TypeError, along=0, compile=True)
    told("no option 'num_samples'", TypeError, num_samples=3)
    told("prob is 95; give a probability", prob=95)
    told("'elbo' is a bound", estimator="elbo")
    found = ordered(torch.arange(3.0))
    with pytest.raises(ValueError, match=r"hidden is of shape \(4,\); give a number of each of 3"):
        found.spearman([1, 2, 3, 4])
    with pytest.raises(ValueError, match="hidden is the same of all data"):
        found.kendall([1, 1, 1])
    with pytest.raises(ValueError, match="no finite number"):
        found.kendall([1, torch.nan, 1])
    with pytest.raises(ValueError, match="the value is the same of all data"):
        ordered(torch.ones(3)).spearman([1, 2, 3])
