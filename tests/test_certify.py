"""Bounds from both sides, and what certifies nothing."""

from dataclasses import replace
from types import SimpleNamespace

import known
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from scenarios import LinearGaussian

import pyrovae as pv
from pyrovae.evidence import certification
from pyrovae.evidence.certification import Agreement, ladder
from pyrovae.evidence.samplers import sides
from pyrovae.evidence.samplers.rungs import Elsewhere
from pyrovae.evidence.samplers.sides import (
    CERTIFIED,
    FEW,
    NONE,
    SIMULATED,
    TAIL,
    WIDE,
    WORDS,
    Sides,
)
from pyrovae.program import inspect

QUICK = {"max_temperatures": 128}  # two ways; from the guide is the last


def covered(c, truth):
    low, high = c.interval()
    return ((low <= truth) & (truth <= high))[c.certified].double().mean().item()


KNOWN = {
    "PPCA 5, guide x 0.3": lambda n: known.linear("", 10, 5, 0.3, n=n),
    "PPCA 5, guide x 3": lambda n: known.linear("", 10, 5, 3.0, n=n),
    "PPCA 5, guide shifted": lambda n: known.linear("", 10, 5, n=n, shift=3.0),
    "PPCA 20, from the prior": lambda n: known.linear("", 40, 20, n=n, sigma=0.1, kind="prior"),
    "sigma 0.01": lambda n: known.linear("", 10, 3, n=n, sigma=0.01),
    "condition 10^4": lambda n: known.ill_conditioned(n, 10),
    "Gamma-Poisson": lambda n: known.gamma_poisson(n, 1.3),
    "Beta-Binomial": lambda n: known.beta_binomial(n),
    "mixture and latent": lambda n: known.gaussians(n, 0.5),
    "Student": lambda n: known.student(n, 2, 2.0, "guide"),
    "a tenth outliers": lambda n: known.outliers(n),
    **known.CERTIFIABLE,
}
FAST = "PPCA 5, guide x 0.3", "nested plates 4", "masked"
MANY = "PPCA 5, guide x 3", "Gamma-Poisson", "Student"
LONG = [pytest.mark.slow, pytest.mark.long]
DEAR = "PPCA 200, guide shifted", "Dirichlet-Multinomial 10"
FEWER = {"PPCA 200, guide shifted": (24, QUICK)}  # each of them takes seconds


def certified(model, seed, **options):
    c = pv.certify(model.model, model.guide, model.x, seed=seed, **options)
    assert c.certified.double().mean() >= 0.8
    assert (c.upper >= c.lower).all()
    assert (c.gap <= c.tolerance)[c.certified].all()
    return c


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[] if name in FAST else LONG if name in DEAR else pytest.mark.slow
        )
        for name in KNOWN
        if name in FAST or name not in MANY
    ],
)
def test_certified_intervals_hold_the_truth(name):
    n, options = FEWER.get(name, (60, {}))
    model = KNOWN[name](n)
    share = covered(certified(model, 0, **options), model.truth)
    assert share >= 0.95 - 3 * (0.95 * 0.05 / n) ** 0.5  # less 3 standard errors


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", MANY)
def test_95_percent_of_many_intervals_hold_the_truth(name):
    model = KNOWN[name](600)
    assert covered(certified(model, 1), model.truth) >= 0.94


LOST = {
    "half": lambda: known.two_modes(24, 0.5),
    "5 %": lambda: known.two_modes(24, 0.05),
}


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=LONG) for s in range(1, 4))])
@pytest.mark.parametrize("make", LOST.values(), ids=LOST)
def test_no_certificate_for_a_lost_mode(make, seed):
    model, options = make(), {} if seed else QUICK
    assert not pv.certify(model.model, model.guide, model.x, seed=seed, **options).certified.any()


@pytest.mark.slow
def test_what_refuses_a_lost_mode_is_what_the_other_start_and_simulated_data_say(monkeypatch):
    """Its own runs show nothing: without those two, it would be certified, half a nat short."""
    model = known.two_modes(12, 0.5)
    monkeypatch.setattr(Agreement, "code", lambda self, tolerance: CERTIFIED)
    c = pv.certify(model.model, model.guide, model.x, seed=0, **QUICK)
    assert c.certified.double().mean() < 0.2  # the other start alone
    assert WORDS[sides.STARTS] in c.reasons
    every = lambda self, i, todo, highest, num_runs: torch.ones_like(todo) > 0  # noqa: E731
    monkeypatch.setattr(Elsewhere, "reaches", every)
    c = pv.certify(model.model, model.guide, model.x, seed=0, **QUICK)
    assert c.certified.double().mean() > 0.8
    assert ((c.value - model.truth)[c.certified] < -0.5).all()


@pytest.mark.parametrize(
    ("dims", "temperatures", "seed"),
    [
        (5, 1, 0),
        pytest.param(5, 128, 1, marks=pytest.mark.slow),
        pytest.param(20, 1, 2, marks=pytest.mark.slow),
    ],
)
def test_no_certificate_where_a_tenth_of_the_mass_is_out_of_reach(dims, temperatures, seed):
    """0.105 nats short, and nothing shows it but a tenth of the simulated data."""
    model = known.mirrored(12, dims, 0.1)
    options = {"max_temperatures": temperatures, "seed": seed}
    assert not pv.certify(model.model, model.guide, model.x, **options).certified.any()


NARROW = {
    "curvature": (3, 1.0, pv.Laplace(0.7)),
    "guide x 0.7": (3, 0.7, pv.Widened(1.0)),
    "guide x 0.5": (8, 0.5, pv.Widened(1.5)),
}


@pytest.mark.parametrize(
    ("dims", "scale", "proposal"),
    [pytest.param(*a, marks=[pytest.mark.slow] * ("x" in name)) for name, a in NARROW.items()],
    ids=NARROW,
)
def test_no_certificate_of_those_in_whose_runs_a_heavy_tail_does_not_show(dims, scale, proposal):
    """All data have the same law of weights; about half of them, or more, show its tail."""
    model = known.linear("", 2 * dims, dims, scale, n=24)
    options = {"max_temperatures": 1, "tolerance": 0.3, "proposal": proposal}
    c = pv.certify(model.model, model.guide, model.x, seed=0, **options)
    assert WORDS[TAIL] in c.reasons
    assert not c.certified.any()


@pytest.mark.long
@pytest.mark.slow
def test_a_funnel_is_certified_where_it_is_right_and_nowhere_else():
    model = known.funnel(24, "guide")
    c = pv.certify(model.model, model.guide, model.x, seed=0)
    assert not c.certified.all()
    low, high = c.interval(3)
    assert ((low <= model.truth) & (model.truth <= high))[c.certified].all()


def normal_runs(sd, n=2000, num_runs=16, size=8, seed=0):
    """log w of particles whose p(x) is 1."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(num_runs, size, n, generator=generator, dtype=torch.float64)
    return sd * z - sd**2 / 2


def test_both_sides_of_normal_runs():
    """For log w ~ N(-s^2 / 2, s^2) of one particle a run, the bounds are -+ s^2 / 2."""
    s = Sides.of(normal_runs(0.3, size=1), 0, 1.0, (0, 1))
    for bound, error, sign in ((s.lower, s.lower_error, -1), (s.upper, s.upper_error, 1)):
        off = bound - sign * 0.045
        assert abs(off.mean() / (off.std() / len(off) ** 0.5)) < 4
        assert 0.9 < (off.abs() <= 2 * error).double().mean() < 0.98
    assert (s.value.exp().mean() - 1).abs() < 4 * s.value.exp().std() / len(s.value) ** 0.5


def test_each_gate_of_the_runs():
    fine = Sides.of(normal_runs(0.1), 0, 0.1, (0, 1)).code
    assert ((fine == CERTIFIED) | (fine == TAIL)).all()
    assert (fine == TAIL).double().mean() < 0.02  # of a few runs, k-hat is known badly
    assert (Sides.of(normal_runs(2.0), 0, 0.1, (0, 1)).code == WIDE).double().mean() > 0.95
    heavy = normal_runs(0.01, num_runs=16, size=256, n=20)
    pareto = torch.distributions.Pareto(torch.tensor(1.0, dtype=torch.float64), 1.0)
    torch.manual_seed(0)
    heavy = heavy + (pareto.sample(heavy.shape) / 1e3).log1p()  # k = 1, yet of little weight
    codes = Sides.of(heavy, 0, 1.0, (0, 1)).code
    assert (codes == TAIL).double().mean() > 0.8
    runs = torch.zeros(8, 1, 5, dtype=torch.float64)
    runs[0] = 4.0  # one run holds nearly everything
    assert not Sides.of(runs, 0, 100.0, (0, 1)).certified.any()


def test_more_runs_are_asked_for_where_they_would_do():
    s = Sides.of(normal_runs(0.6, size=16), 0, 0.05, (0, 1))
    wide = (s.code == WIDE) & (s.upper - s.lower < 0.04)
    factor = s.more_runs(0.05)
    assert wide.any()
    assert (factor[wide] < torch.inf).all()
    assert (factor[s.certified] == torch.inf).all()


def test_coupled_bounds_agree_with_exact_ones_on_simulated_data():
    """The reverse run from the exact z has the law that coupled chains keep."""
    model = known.linear("", 20, 10, n=64)
    program = pv.program.inspect(model.model, model.guide, model.x, block_size=64)
    ways = ladder(program, pv.Laplace(scale=1.3), 1.0, 128, 0)  # so wide that there is a gap
    for way in ways.agreements:
        assert way.num_data >= 4
        assert abs(way.difference) < 4 * way.error
        assert way.away == 0
    away = replace(ways.agreements[0], difference=1.0, error=0.1)
    assert away.code(0.1) == SIMULATED
    assert replace(ways.agreements[0], away=0.1).code(0.1) == SIMULATED
    assert Agreement(num_data=32, good=1.0, away=0.02).code(0.1) == SIMULATED
    assert Agreement(num_data=32, good=0.6, heavy=0.31).code(0.1) == FEW
    assert Agreement(num_data=32, good=0.6, heavy=0.3).code(0.1) == CERTIFIED
    assert Agreement(reason="none").code(0.1) == NONE


@pytest.mark.long
@pytest.mark.slow
def test_blocks_workers_and_seeds_give_the_same_bytes():
    scenario = LinearGaussian.make(x_dim=5, z_dim=2)
    x = scenario.data(70)
    args = (scenario.model, scenario.mean_field, x)
    blocks = {}
    c = pv.certify(*args, seed=3, workers=1, blocks=blocks, **QUICK)
    assert c == pv.certify(*args, seed=3, workers=2, **QUICK)
    first = next(iter(blocks))
    assert c == pv.certify(*args, seed=3, workers=1, blocks={first: blocks[first]}, **QUICK)
    assert c != pv.certify(*args, seed=4, workers=1, **QUICK)


@pytest.mark.slow
def test_no_block_goes_further_up_when_time_has_run_out():
    model = known.student(20, 2, 2.0, "guide")
    args = (model.model, model.guide, model.x)
    c = pv.certify(*args, seed=0, max_seconds=0.0, **QUICK)
    assert set(c.reasons) <= {"certified", "time ran out"}
    assert "time ran out" in c.reasons
    assert (c.temperatures == 1).all()
    assert c == pv.certify(*args, seed=0, max_seconds=0.0, **QUICK)
    c = pv.certify(*args, seed=0, max_seconds=1e6, **QUICK)
    assert c == pv.certify(*args, seed=0, **QUICK)
    assert "time ran out" not in c.reasons
    assert (c.temperatures > 1).any()
    with pytest.raises(ValueError, match="max_seconds is -1; give a number, 0 or more"):
        pv.Sandwich(max_seconds=-1)


def test_small_weights_are_no_heavy_tail():
    """2 % of normal log-weights look heavy by chance; 21 % if those below the mean counted too."""
    log_w = 0.3 * torch.randn(8, 8, 1000, dtype=torch.float64)
    k = Sides.of(log_w, 0, 0.2, (0, 1)).pareto_k
    assert (k > sides.HEAVY).double().mean() < 0.05


def test_errors_cover_the_tail_that_was_not_met():
    """w = 1 + 0.1 y, y generalised Pareto with k = 0.2: without it, 93 to 94 % hold log E[w]."""
    k = 0.2
    y = (torch.rand(8, 8, 8000, dtype=torch.float64) ** -k - 1) / k
    s = Sides.of((0.1 * y).log1p(), 0, 0.1, (0, 96))
    truth = torch.tensor(0.1 / (1 - k)).log1p()
    low, high = s.lower - 2 * s.lower_error, s.upper + 2 * s.upper_error
    held = ((low <= truth) & (truth <= high))[s.certified].double().mean()
    assert held >= 0.95


@pytest.mark.parametrize(
    ("num_data", "hard", "num_ways"), [(150, 0, 1), (150, 1, 3), (150, 2, 4), (20, 1, 4)]
)
def test_no_more_ways_are_tried_than_some_data_need(monkeypatch, num_data, hard, num_ways):
    """From the guide, more than one; of so few data that all are seen, one."""
    fine = certification.Agreement(num_data=64, good=1.0)
    found = lambda self, i, todo: SimpleNamespace(certified=todo >= hard)  # noqa: E731
    monkeypatch.setattr(certification, "_agreement", lambda *args: fine)
    monkeypatch.setattr(certification._Climb, "at", found)
    scenario = LinearGaussian.make(x_dim=5, z_dim=2)
    program = inspect(scenario.model, scenario.mean_field, scenario.data(num_data), block_size=128)
    ways = certification.ladder(program, pv.Laplace(), 0.1, 512, seed=0)
    assert len(ways.rungs) == len(ways.agreements) == num_ways


@pytest.mark.parametrize(
    ("most", "steps"),
    [(1, [1]), (128, [1, 96]), (512, [1, 96, 384, 384]), (2048, [1, 96, 384, 1536, 1536])],
)
def test_more_temperatures_are_more_ways(monkeypatch, most, steps):
    monkeypatch.setattr(certification, "_tried", lambda program, ways, seed: ways)
    scenario = LinearGaussian.make(x_dim=5, z_dim=2)
    program = inspect(scenario.model, scenario.mean_field, scenario.data(8), block_size=128)
    ways = certification.ladder(program, pv.Laplace(), 0.1, most, seed=0)
    assert [rung.temperatures for rung in ways.rungs] == steps


@pytest.mark.slow
def test_other_programs():
    """Without a guide, and with one of auxiliary draws."""
    model = known.linear("", 6, 3, n=20)
    auto = AutoNormal(model.model, init_scale=0.5)
    auto(model.x)
    for guide in (None, auto):
        c = pv.certify(model.model, guide, model.x, seed=0, **QUICK)
        assert c.certified.all()
        assert covered(c, model.truth) >= 0.8


@pytest.mark.parametrize("proposal", [pv.Widened(), pv.Defensive(0.5)], ids=str)
def test_begins_where_told(proposal):
    """More data than run together: a way is put together of parts, and cut into parts again."""
    model = known.two_modes(40, 0.5)
    c = pv.certify(
        model.model, model.guide, model.x, seed=0, proposal=proposal, max_temperatures=1
    )
    if isinstance(proposal, pv.Defensive):  # the prior knows the mode that the guide lost
        assert c.certified.double().mean() > 0.8
        assert covered(c, model.truth) >= 0.84  # 95 % of 40, less 3 standard errors
    else:
        assert not c.certified.any()


@pytest.mark.long
@pytest.mark.slow
def test_all_data_as_one():
    model = known.linear("", 6, 3, n=20)
    few = model.x[:3]
    c = pv.certify(model.model, model.guide, few, seed=0, plate=None, **QUICK)
    assert c.value.shape == (1,)
    low, high = c.interval(3)
    assert (low <= model.truth[:3].sum()).all()
    assert (model.truth[:3].sum() <= high).all()


def test_the_certificate_in_words_and_as_a_table():
    model = known.linear("", 6, 3, n=20)
    c = pv.certify(model.model, model.guide, model.x, seed=0, **QUICK)
    assert "20 of 20 data is known to 0.1 nats" in repr(c)
    assert c.mean().lower <= c.value.mean() <= c.mean().upper
    lines = c.to_csv()
    assert len(lines) == 21
    assert lines[0].split(",")[-1] == "reason"
    none = replace(c, certified=~c.certified, reasons=(WORDS[WIDE],) * 20)
    assert "Not certified: runs scatter too much: 20" in repr(none)
    assert np.isnan(none.mean().lower)


@pytest.mark.slow
def test_in_an_evaluation():
    model = known.linear("", 6, 3, n=20)
    way = pv.Sandwich(max_temperatures=128)
    e = pv.evaluate(model.model, model.guide, model.x, estimators=["elbo", way], seed=0)
    assert e.best().name == "sandwich"
    assert e["sandwich"].verdict() == ["ok"] * 20
    low, high = e["sandwich"].extras["lower"], e["sandwich"].extras["upper"]
    reach = [2 * e["sandwich"].extras[f"{s}_error"].norm() / 20 for s in ("lower", "upper")]
    ends = f"between {low.mean() - reach[0]:.4f} and {high.mean() + reach[1]:.4f} nats"
    assert f"20 of 20 data are certified, their mean {ends}" in e.reading()
    assert "Nothing confirms" not in e.reading()
    assert "both sides, to 0.1 nats: " in e.reading()
    assert e.protocol["sandwich_tolerance"] == 0.1
    assert e.protocol["sandwich_max_temperatures"] == 128
    names, first = (line.split(",") for line in e.to_csv()[:2])
    said = dict(zip(names, first, strict=True))
    assert float(said["sandwich_upper"]) == high[0]
    assert {f"sandwich_{key}" for key in e["sandwich"].extras} < set(said)
    again = pv.Evidence.from_xarray(e.to_xarray())
    assert again == e
    assert torch.equal(again["sandwich"].extras["upper"], e["sandwich"].extras["upper"])
    c = pv.Certificate.of(e["sandwich"], 0.1)
    assert c == pv.certify(model.model, model.guide, model.x, seed=0, **QUICK)
    with pytest.raises(ValueError, match=r"elbo knows no upper bound; evaluate pv.Sandwich"):
        pv.Certificate.of(e["elbo"], 0.1)


def results(name, codes, **more):
    """An estimate of as many data as there are codes, of bounds that are 1/8 apart."""
    code = torch.tensor(codes, dtype=torch.float64)
    n, half = len(code), 1 / 16
    value = torch.arange(n, dtype=torch.float64) - 30
    one = torch.ones(n, dtype=torch.float64)
    extras = {
        "lower": value - half, "lower_error": one / 64, "upper": value + half,
        "upper_error": one / 32, "temperatures": one, "rung": 0 * one, "code": code,
    }  # fmt: skip
    nan = one * torch.nan
    path = torch.zeros(0, n)
    columns = value, one / 100, nan, nan, one.long() * 64, path, path, 1.0
    return pv.evidence.estimate.Estimate(name, *columns, extras=extras, **more)


def test_what_is_said_of_a_certificate_in_part_and_beside_another():
    some = pv.Evidence({"sandwich": results("sandwich", [0, 0, WIDE, TAIL])}, ())
    text = some.reading()
    assert text.count("2 of 4 data are certified, their mean between") == 1
    assert "Trust it as a lower bound" in text
    assert "allow more temperatures, or a larger tolerance" in text
    none = pv.Evidence({"sandwich": results("sandwich", [WIDE] * 3)}, ())
    assert "none of the data is certified" in none.reading()
    exact = replace(results("quadrature", [0] * 4), extras={}, std_error=torch.zeros(4))
    both = pv.Evidence({**some.estimates, "quadrature": exact}, ())
    assert both.best() is exact
    fine = pv.Evidence({"sandwich": results("sandwich", [0] * 4), "quadrature": exact}, ())
    assert fine.best() is exact
    [line] = [line for line in both.reading().splitlines() if line.startswith("Both sides")]
    low, high = -29.5 - 1 / 16 - 2 * 2**-6.5, -29.5 + 1 / 16 + 2 * 2**-5.5
    assert line == (
        "Both sides, to 0.1 nats, agrees (0.000 +- 0.000 nats above); 2 of 4 data are certified, "
        f"their mean between {low:.4f} and {high:.4f} nats, 2 standard errors included."
    )


def test_certificates_of_an_evaluation_have_the_tolerances_that_it_names():
    estimates = {n: results(n, [0, WIDE]) for n in ("sandwich", "sandwich_2")}
    e = pv.Evidence(estimates, (), {"sandwich_tolerance": 0.2, "sandwich_2_tolerance": 0.05})
    found = pv.Certificate.all_in(pv.Evidence.from_xarray(e.to_xarray()))
    assert {name: c.tolerance for name, c in found.items()} == {
        "sandwich": 0.2,
        "sandwich_2": 0.05,
    }
    assert found["sandwich"].reasons == ("certified", WORDS[WIDE])
    assert [e.budget(estimates[n]) for n in estimates] == ["to 0.2 nats", "to 0.05 nats"]
    assert not pv.Certificate.all_in(pv.Evidence({"ais": results("ais", [0])}, ()))
    model = known.linear("", 6, 3, n=4)
    twice = [pv.Sandwich(t, max_temperatures=1) for t in (0.2, 0.05)]
    e = pv.evaluate(model.model, model.guide, model.x, estimators=twice, seed=0)
    assert [c.tolerance for c in pv.Certificate.all_in(e).values()] == [0.2, 0.05]


def test_errors():
    model = known.linear("", 6, 3, n=4)
    args = (model.model, model.guide, model.x)
    with pytest.raises(ValueError, match="tolerance is -1"):
        pv.certify(*args, tolerance=-1)
    with pytest.raises(TypeError, match="max_temperature"):
        pv.certify(*args, max_temperature=3)

    def counts(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Poisson(torch.ones(len(x))))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    with pytest.raises(ValueError, match="'k' is Poisson: it is discrete"):
        pv.certify(counts, None, torch.zeros(3))
