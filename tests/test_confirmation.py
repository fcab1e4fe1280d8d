"""Verdicts on models that deceive: never ok where the error exceeds what is stated."""

import re
from dataclasses import replace
from importlib import import_module

import known
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from scenarios import LinearGaussian
from scipy.stats import t as student_t

import pyrovae as pv
from pyrovae.evidence import confirmation
from pyrovae.evidence.confirmation import Confirmation
from pyrovae.evidence.estimate import Estimate
from pyrovae.evidence.samplers import paths


def evaluated(model, name, seed=0, **options):
    return pv.evaluate(
        model.model, model.guide, model.x, estimators=[name], num_particles=1000, seed=seed,
        **{**model.options, **options},
    )[name]  # fmt: skip


EASY = {  # made in the test, in its dtype
    "exact": lambda: known.linear("", 10, 5, n=24),
    "wide": lambda: known.linear("", 10, 5, 1.2, n=24),
    "mixture": lambda: known.mixture(24),
    "mixture and latent": lambda: known.gaussians(24, 0.5),
    "Gamma-Poisson": lambda: known.gamma_poisson(24, 1.3),
    "Beta-Binomial": lambda: known.beta_binomial(24),
}
HARD = {
    "half lost": (lambda: known.two_modes(24, 0.5), "importance"),
    "half lost, annealed": (lambda: known.two_modes(24, 0.5), "ais"),
    "5 % lost": (lambda: known.two_modes(24, 0.05), "importance"),
    "2 % lost, annealed": (lambda: known.two_modes(24, 0.02), "ais"),
    "ties": (lambda: known.rare_state(24), "importance"),
    "condition": (lambda: known.ill_conditioned(24, 10), "ais"),
    "4 particles": (lambda: known.ill_conditioned(24, 10, options={"num_chains": 4}), "ais"),
    "2 particles": (lambda: known.ill_conditioned(24, 10, options={"num_chains": 2}), "ais"),
    "Student": (lambda: known.student(24, 10, 0.1, "prior"), "ais"),
    "funnel": (lambda: known.funnel(24, "guide"), "ais"),
    "banana": (lambda: known.banana(24), "ais"),
    "breast cancer": (lambda: known.breast_cancer(24, 300), "ais"),
}


@pytest.mark.parametrize("steps", [10, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", EASY.values(), ids=EASY)
def test_ok_where_it_is_deserved(make, steps):
    model = make()
    for name in ["importance"] if model.discrete else ["importance", "ais"]:
        e = evaluated(model, name, num_temperatures=steps)
        assert e.share("ok") >= 0.8, name
        low, high = e.interval(0.9999)
        assert ((low - 1e-6 <= model.truth) & (model.truth <= high + 1e-6)).all()


@pytest.mark.parametrize("steps", [20, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("make", "name"), HARD.values(), ids=HARD)
def test_never_ok_where_mass_is_missed(make, name, steps):
    model = make()
    e = evaluated(model, name, num_temperatures=steps)
    assert e.share("ok") == 0
    if name == "importance":
        low, high = e.interval()
        assert not ((low <= model.truth) & (model.truth <= high)).any()
    else:
        off = e.value - model.truth
        assert off.mean() < -0.015 or off.square().mean().sqrt() > 0.3


def test_without_the_second_way_lost_modes_are_not_contradicted(monkeypatch):
    """What the second way is for: a datum's own weights show nothing of it."""
    e = evaluated(known.two_modes(24, 0.5), "importance")
    assert set(e.own_verdict()) == {"not contradicted"}
    assert set(replace(e, confirmation=Confirmation(reason="none")).verdict()) == {
        "not contradicted"
    }
    assert e.confirmation.gap > 1
    monkeypatch.setattr(confirmation, "gap_of", lambda ratio, s: torch.zeros_like(ratio))
    assert evaluated(known.two_modes(24, 0.5), "importance").share("ok") == 1


def test_a_proposal_is_confirmed_by_its_own_draws():
    """The guide knows both modes, a normal at one of them knows that one."""
    model = known.two_modes(24, 0.5)

    def both(x):
        loc = torch.stack([0.8 * x + 1, -0.8 * x - 1], -1)
        with pyro.plate("data", len(x)):
            which = dist.Categorical(torch.ones(len(x), 2))
            pyro.sample("z", dist.MixtureSameFamily(which, dist.Normal(loc, 0.5)))

    guided, normal = (
        pv.evaluate(model.model, both, model.x, estimators=e, seed=0)["importance"]
        for e in (pv.Importance(1000), pv.Importance(1000, proposal=pv.Laplace()))
    )
    assert guided.share("ok") == 1
    assert ((guided.value - model.truth) / guided.std_error).abs().max() < 4
    assert set(normal.own_verdict()) == {"not contradicted"}
    assert (normal.value - model.truth).mean() < -0.6
    assert normal.share("ok") == 0


OWN = [pv.Laplace(), pv.Laplace(1.2, df=8), pv.Widened(1.6), pv.Refined()]


@pytest.mark.parametrize("proposal", OWN, ids=repr)
def test_a_proposal_is_confirmed_where_the_guide_is_not(proposal):
    scenario = LinearGaussian.make(x_dim=10, z_dim=3)
    x = scenario.data(24)

    def narrow(x):
        scenario.mean_field(x, 0.7)

    def found(e):
        return pv.evaluate(scenario.model, narrow, x, estimators=e, seed=0)["importance"]

    assert found(pv.Importance(1000)).share("ok") == 0
    e = found(pv.Importance(1000, proposal=proposal))
    assert e.share("ok") > 0.9
    assert ((e.value - scenario.log_evidence(x)) / e.std_error).abs().max() < 4


def test_a_mixture_with_the_prior_is_confirmed():
    scenario = LinearGaussian.make()
    x, asked = scenario.data(24), pv.Importance(1000, proposal=pv.Defensive())
    e = pv.evaluate(scenario.model, scenario.exact, x, estimators=asked, seed=0)["importance"]
    assert e.share("ok") == 1
    assert 0 < e.confirmation.std_error < 0.02


def test_a_proposal_known_at_its_own_draws_alone_is_not_confirmed():
    scenario = LinearGaussian.make()

    class Own:
        def sampler(self, program, rows):
            return lambda num_particles: program.propose(rows, num_particles)

    e = pv.evaluate(
        scenario.model,
        scenario.exact,
        scenario.data(5),
        estimators=pv.Importance(100, proposal=Own()),
        seed=0,
    )["importance"]
    assert set(e.verdict()) == {"not contradicted"}
    assert "the proposal's density is known at its own draws alone" in e.confirmation.reason


def test_a_few_data_with_a_narrow_guide_are_not_drawn_to_the_others():
    """Of 2 % of the data, whose guide is half as wide, the k-hats stay as large as they are."""
    model = known.half_as_wide(1000)
    w = pv.importance_sampling(model.model, model.guide, model.x, num_particles=1000, seed=0)
    data = LinearGaussian.make(x_dim=10, z_dim=5).data(10_000, seed=7)
    narrow = model.x[:, 0] > torch.quantile(data[:, 0], 0.98)
    words = np.array(w.verdict())
    assert 10 <= narrow.sum() <= 40
    assert not (words[narrow.numpy()] == "not contradicted").any()
    assert (words[~narrow.numpy()] == "not contradicted").mean() > 0.8


def test_nothing_is_said_of_data_that_are_unlike_the_models():
    """Outliers, whose runs scatter tenfold, are half a nat short; simulated data are not."""
    model = known.outliers(40)
    runs = [evaluated(model, "ais", seed, num_temperatures=50) for seed in range(4)]
    words = np.array([e.verdict() for e in runs])
    assert (words[:, ::10] == "ok").mean() <= 0.25  # 8 particles know little of their own tails
    assert torch.stack([e.value - model.truth for e in runs])[:, ::10].mean() < -0.2
    typical = np.delete(words, range(0, 40, 10), axis=1)
    assert (typical[(typical == "ok").any(1)] == "ok").all()
    assert (typical == "ok").any()


def test_the_gap_is_a_bound_on_both_sides():
    """E[log mean w] <= log p <= E[log (w* + sum w) / (S + 1)], against the exact log p(x)."""
    scenario = LinearGaussian.make(sigma=1.0)
    x = scenario.data(2000)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(2000, 2, generator=generator)
    z = scenario.posterior_mean(x) + noise @ torch.linalg.cholesky(scenario.cov).T

    def guide(x):
        scenario.mean_field(x, 2.0)

    w = pv.importance_sampling(scenario.model, guide, x, num_particles=3, seed=0)
    program = pv.program.inspect(scenario.model, guide, x, block_size=2000)
    rows = range(2000)
    exact = program.log_joint({"z": z}, rows, None) - program.log_guide({"z": z}, rows, None)
    lower, truth = w.log_evidence(), scenario.log_evidence(x)
    upper = lower + confirmation.gap_of(exact - lower, w.num_draws)
    for below, above in ((lower, truth), (truth, upper)):
        gap = above - below
        assert gap.mean() > 4 * gap.std() / 2000**0.5
    torch.testing.assert_close(upper.exp(), (exact.exp() + w.log_w.exp().sum(0)) / 4)


def test_one_chain_is_never_ok_and_the_tolerance_counts():
    model = known.linear("", 5, 2, 1.1, n=20)
    one = evaluated(model, "ais", num_chains=1, num_temperatures=10)
    assert one.std_error.isnan().all()
    assert set(one.verdict()) == {"more temperatures"}
    e = evaluated(model, "ais", num_temperatures=10)
    assert e.share("ok") == 1
    assert set(replace(e, tolerance=1e-6).verdict()) == {"more temperatures"}


def test_intervals_are_students():
    w = pv.LogWeights(torch.randn(8, 5))
    low, high = w.interval(0.95)
    reach = student_t.ppf(0.975, 7) * w.std_error()
    torch.testing.assert_close(high - w.log_evidence(), reach)
    torch.testing.assert_close(w.log_evidence() - low, reach)
    quasi = pv.LogWeights(torch.randn(160, 5), randomizations=16)
    torch.testing.assert_close(
        quasi.interval()[1] - quasi.log_evidence(), student_t.ppf(0.975, 15) * quasi.std_error()
    )


def test_the_error_of_the_mean_holds_its_bias():
    """Of 20,000 data with an error of 0.3 each, the mean is 0.045 too low, and not +- 0.002."""
    log_w = 1.2 * torch.randn(16, 20_000) - 0.72
    w, none = pv.LogWeights(log_w), torch.empty(0, 20_000)
    e = Estimate("importance", w.log_evidence(), w.std_error(), w.ess(), w.ess(), w.num_draws,
                 none, none, 0.0)  # fmt: skip
    assert e.mean < -0.03
    assert abs(e.mean) < 2 * e.monte_carlo_error
    assert abs(e.mean) > 5 * replace(e, name="elbo").monte_carlo_error


def test_the_mass_matrix_is_not_ruled_by_outliers():
    """Of a Student-t(2), whose variance is infinite; of a normal it is the standard deviation."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.StudentT(2.0, torch.zeros(len(x)), 1.0))
            pyro.sample("y", dist.Normal(torch.zeros(len(x)), 3.0))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    program = pv.program.inspect(model, None, torch.zeros(400), block_size=400)
    with pv.program.evaluation():
        scale = paths.GuidePath(pv.program.GeometricPath(program, range(400))).scale
    heavy = student_t.ppf(0.9, 2) / 1.2816
    assert scale[:, 0].mean().item() == pytest.approx(heavy, rel=0.03)
    assert scale[:, 0].max() < 1.6 * heavy
    assert scale[:, 1].mean().item() == pytest.approx(3, rel=0.02)


def test_bounds_that_crossed_are_no_inequality():
    scenario = LinearGaussian.make()
    bounds = pv.bdmc(scenario.model, torch.zeros(4, 5), guide=scenario.exact, num_temperatures=3,
                     seed=0)  # fmt: skip
    assert "<=" not in repr(bounds)
    assert "gap" in repr(bounds)


def test_what_cannot_be_confirmed_is_not_contradicted():
    scenario = LinearGaussian.make()
    x = scenario.data(20)

    def computed(x):
        scenario.model(2 * x)

    def guide(x):
        scenario.exact(2 * x)

    for name in ("importance", "ais"):
        e = pv.evaluate(
            computed, guide, x, estimators=[name], num_particles=500, num_temperatures=5, seed=0
        )
        assert set(e[name].verdict()) == {"not contradicted"}
        assert "Nothing confirms it: site 'x'" in e.reading()
        assert "at least" not in e.reading()

    def nothing(x):
        """No latent is left."""

    def mixture(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(k, 1.0), obs=2 * x)

    e = pv.evaluate(mixture, nothing, x[:, 0], estimators=["importance"], num_particles=30, seed=0)
    assert set(e["importance"].verdict()) == {"ok"}
    assert "No draw enters it: it is exact." in e.reading()


def test_guides_whose_density_at_the_exact_z_is_unknown():
    x = torch.randn(30)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = AutoNormal(model, init_scale=0.7)
    guide(x)
    e = pv.evaluate(model, guide, x, estimators=["importance"], num_particles=500, seed=0)
    assert "ok" not in e["importance"].verdict()


def test_naive_sampling_is_no_headline_for_being_lucky():
    """Its weights are bad and its value higher than that of a guide which is worse still."""
    scenario = LinearGaussian.make(x_dim=10, z_dim=5, sigma=0.5)
    x = scenario.data(20)

    def astray(x):
        with pyro.plate("data", len(x)):
            loc = scenario.posterior_mean(x) + 4
            pyro.sample("z", dist.Normal(loc, 0.1).to_event(1))

    evidence = pv.evaluate(scenario.model, astray, x, num_particles=500, seed=0)
    assert evidence["prior"].mean > evidence["importance"].mean + 10
    assert evidence["prior"].trusted < 0.5
    assert evidence.best().name == "importance"
    assert "nats higher" in evidence.reading()
    assert "cannot be trusted" in evidence.reading()


def test_confirmations_are_kept_and_come_back(tmp_path):
    model = known.linear("", 5, 2, 1.1, n=20)
    options = {
        "estimators": ["importance", "prior", "ais"], "num_particles": 200, "seed": 0,
        "num_temperatures": 10,
    }  # fmt: skip
    blocks, calls = {}, []

    def counted(x):
        calls.append(len(x))
        model.model(x)

    whole = pv.evaluate(counted, model.guide, model.x, blocks=blocks, **options)
    runs = len(calls)
    again = pv.evaluate(counted, model.guide, model.x, blocks=blocks, **options)
    assert len(calls) - runs < runs / 3  # what finds out what the program is, and no more
    workers = pv.evaluate(model.model, model.guide, model.x, workers=1, **options)
    back = pv.Evidence.from_xarray(whole.to_xarray())
    for e in (again, workers, back):
        for name in options["estimators"]:
            assert str(e[name].confirmation) == str(whole[name].confirmation)
            assert e[name].verdict() == whole[name].verdict()
    assert whole["importance"].share("ok") == 1
    assert re.search(r"second way confirms it: .*256 data", whole.reading())
    assert "1.2%" in whole.reading()  # of data, of which what is missed would go unseen


def test_what_another_estimate_shows_to_fall_short_is_not_ok(monkeypatch):
    """A guide that lost one mode of two, where simulated data say nothing of it."""
    model = known.two_modes(24, 0.5)
    right = Confirmation(256, 256, 256, 0.0, 0.0, 0.01, 1.0)
    evaluation = import_module("pyrovae.evidence.evaluate")
    monkeypatch.setattr(evaluation, "_confirmed", lambda e, *_: replace(e, confirmation=right))
    args, options = (model.model, model.guide, model.x), {"seed": 0, "num_particles": 20_000}
    alone = pv.evaluate(*args, estimators="importance", **options)["importance"]
    assert set(alone.verdict()) == {"ok"}
    e = pv.evaluate(*args, estimators=["importance", "prior"], **options)["importance"]
    assert set(e.verdict()) == {"use ais"}
    assert torch.allclose(e.extras["short"], torch.tensor(2.0).log().double(), atol=0.3)
    low, high = e.interval()
    assert ((low <= model.truth) & (model.truth <= high)).all()


def test_estimates_that_agree_contradict_nothing():
    model = known.linear("", 10, 5, n=200)  # an exact guide: weights differ by rounding
    asked = ["importance", "ais", "best"]
    e = pv.evaluate(model.model, model.guide, model.x, estimators=asked, seed=0)
    for estimate in e.estimates.values():
        assert "short" not in estimate.extras
        assert estimate.share("ok") == 1.0
