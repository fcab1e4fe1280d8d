"""Estimators as objects: IWAE, those of names and import paths, and what options do."""

import math
import sys

import pytest
import torch
from scenarios import BernoulliDecoder, LinearGaussian

import pyrovae as pv
from pyrovae.evidence.estimators import base, estimator
from pyrovae.evidence.samplers.groups import Groups

MODULE = '''
"""An estimator of a module outside the package."""

from dataclasses import dataclass
from typing import ClassVar

import torch

import pyrovae as pv
from pyrovae.program import evaluation
from pyrovae.rng import seeded


@dataclass(frozen=True)
class Own(pv.Estimator):
    num_draws: int = 10
    tilt: float = 0.0
    plain: bool = True

    name: ClassVar[str] = "test-own"
    needs_guide: ClassVar[bool] = True

    def weights(self, program, rows, work):
        with evaluation(), seeded(work.seed, 7, rows.start):
            z, log_q = program.propose(rows, self.num_draws)
            return pv.LogWeights(program.log_joint(z, rows, self.num_draws) - log_q + self.tilt)


class Nameless(Own):
    pass
'''


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module outside the package, which nothing has imported."""
    (tmp_path / "outside_estimators.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(base, "kinds", dict(base.kinds))
    yield "outside_estimators.Own"
    sys.modules.pop("outside_estimators", None)


def bits(table):
    return table.numpy().tobytes()


def test_iwae_reads_the_particles_of_importance_sampling():
    scenario = BernoulliDecoder()
    x, pair = scenario.data(6), (scenario.model, scenario.guide)
    asked = [pv.ELBO(120), pv.IWAE(1, 120), pv.IWAE(8, 120), pv.IWAE(120, 120), pv.Importance(120)]
    elbo, one, eight, all_of, importance = pv.evaluate(
        *pair, x, estimators=asked, seed=0
    ).estimates.values()
    table = pv.importance_sampling(*pair, x, num_particles=120, seed=0)
    torch.testing.assert_close(eight.value, table.iwae(8))
    torch.testing.assert_close(eight.std_error, table.iwae_std_error(8))
    torch.testing.assert_close(one.value, elbo.value)
    torch.testing.assert_close(one.std_error, elbo.std_error)
    torch.testing.assert_close(all_of.value, importance.value)
    assert all_of.std_error.isnan().all()  # of one group
    assert (eight.label, eight.verdict()) == ("IWAE, k = 8", ["a bound"] * 6)
    without = pv.evaluate(*pair, x, estimators=[pv.Importance(120)], seed=0)["importance"]
    assert bits(importance.value) == bits(without.value)


def test_iwae_of_a_known_model_lies_between_elbo_and_truth_and_rises_with_k():
    """Of a normal posterior and a normal guide E[L_k] is known: by quadrature for k = 1 and 2."""
    scenario = LinearGaussian.make(z_dim=1)
    x = scenario.data(4)

    def guide(x):
        scenario.mean_field(x, scale=0.6)

    names = {k: pv.IWAE(k, 24_000) for k in (1, 2, 4, 16, 64)}
    evidence = pv.evaluate(scenario.model, guide, x, estimators=[*names.values()], seed=0)
    means, errors = zip(
        *((e.mean, e.monte_carlo_error) for e in evidence.estimates.values()), strict=True
    )
    assert list(means) == sorted(means)
    truth = scenario.log_evidence(x)
    assert means[-1] < truth.mean() + 4 * errors[-1]
    log_ratio = math.log(0.6) + 0.5 - 0.6**2 / 2  # -KL of scales 0.6 and 1 about one mean
    assert abs(means[0] - truth.mean() - log_ratio) < 4 * errors[0]
    # log w = log p(x) + log 0.6 + u^2 (1 - 0.36) / 2, u standard normal: L_2 over a square
    u = torch.linspace(-9, 9, 601)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(u).exp() * (u[1] - u[0])
    w = math.log(0.6) + u.square() * (1 - 0.6**2) / 2
    two = torch.logaddexp(w[:, None], w) - math.log(2)
    expected = (density[:, None] * density * two).sum()
    assert abs(means[1] - truth.mean() - expected) < 4 * errors[1]


@pytest.mark.parametrize(("k", "size"), [(1, 50), (3, 50), (7, 5), (50, 13), (60, 50)])
def test_groups_are_those_of_the_table(k, size):
    table = torch.randn(50, 3)
    table[4, 0] = -torch.inf
    groups = Groups(k, 3)
    for part in table.split(size):
        groups.add(part)
    if k > 50:
        assert groups.mean().isnan().all()
        return
    weights = pv.LogWeights(table)
    torch.testing.assert_close(groups.mean(), weights.iwae(k))
    error = weights.iwae_std_error(k)
    torch.testing.assert_close(groups.std_error(), error, equal_nan=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: pv.IWAE(0), "k is 0; give a positive integer"),
        (lambda: pv.IWAE(11, 10), "k is 11, more than the 10 particles that each datum has"),
        (lambda: pv.IWAE(200, "auto"), "more than the 128 particles"),
        (lambda: pv.IWAE(4, 64, qmc=True), "groups of k are no IWAE bound; take qmc=False"),
        (lambda: pv.Quadrature(tolerance=0.0), "tolerance is 0.0; give a positive number"),
    ],
)
def test_options_of_estimators_are_checked(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_iwae_by_name_and_where_s_is_found_by_itself():
    scenario = BernoulliDecoder()
    x, pair = scenario.data(5), (scenario.model, scenario.guide)
    names = ["elbo", "iwae", "importance"]
    evidence = pv.evaluate(*pair, x, estimators=names, num_particles=60, iwae_k=6, seed=0)
    assert evidence.protocol["iwae_k"] == 6
    assert "The IWAE, k = 6 lies " in evidence.reading()
    assert "IWAE, k = 6" in evidence.table()
    assert evidence["elbo"].mean < evidence["iwae"].mean < evidence["importance"].mean
    assert pv.Evidence.from_xarray(evidence.to_xarray()) == evidence
    few = pv.evaluate(*pair, x, estimators=names, num_particles=7, seed=0)
    assert few.protocol["iwae_k"] == 7  # at most S, where it is not given
    auto = pv.evaluate(*pair, x, estimators=names, num_particles="auto", tolerance=0.1, seed=0)
    assert auto["iwae"].value.isfinite().all()
    only = pv.evaluate(*pair, x, estimators=["elbo", "iwae"], num_particles=60, seed=0)
    assert only.best().name == "iwae"
    assert "IWAE, k = 50, " in only.reading()
    joint = pv.evaluate(*pair, x, estimators=["iwae"], num_particles=60, seed=0, plate=None)
    assert joint["iwae"].value.shape == (1,)


OBJECTS = {
    "widened": pv.Importance(48, proposal=pv.Widened(1.2)),
    "auto and widened": pv.Importance("auto", tolerance=0.1, proposal=pv.Widened(1.2)),
    "defensive": pv.Importance(48, proposal=pv.Defensive(0.2)),
    "refined": pv.Importance(48, proposal=pv.Refined(num_steps=2)),
    "sobol": pv.Importance(48, qmc=True),
    "sobol, of the prior": pv.Naive(48, qmc=True),
    "linear": pv.AIS(6, 30, schedule="linear"),
    "sigmoid": pv.AIS(6, 30, schedule="sigmoid", num_leapfrog=3),
    "temperatures": pv.AIS(3, 30, schedule=(0.0, 0.2, 0.7, 1.0)),
}


@pytest.mark.parametrize("e", OBJECTS.values(), ids=OBJECTS)
def test_what_evaluate_takes_of_objects_is_the_table_of_the_function(e):
    """With the same seed: proposals, Sobol draws and schedules."""
    scenario = BernoulliDecoder()
    x, pair = scenario.data(5), (scenario.model, scenario.guide)
    found = pv.evaluate(*pair, x, estimators=[e], seed=3)[e.name]
    if isinstance(e, pv.AIS):
        options = {"num_temperatures": e.num_temperatures, "num_particles": 30, "seed": 3}
        options |= {"schedule": e.schedule, "num_leapfrog": e.num_leapfrog}
        table = pv.ais(scenario.model, x, guide=scenario.guide, **options)
    elif isinstance(e, pv.Naive):
        table = pv.prior_sampling(scenario.model, x, num_particles=48, qmc=True, seed=3)
    else:
        options = {"num_particles": e.num_particles, "tolerance": e.tolerance, "seed": 3}
        table = pv.importance_sampling(*pair, x, proposal=e.proposal, qmc=e.qmc, **options)
    same = pv.importance_sampling(*pair, x, num_particles=48, seed=3)
    assert not torch.equal(table.log_evidence(), same.log_evidence())
    torch.testing.assert_close(found.value, table.log_evidence(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.std_error, table.std_error(), rtol=1e-9, atol=1e-12)
    assert torch.equal(found.num_draws, table.num_draws)
    torch.testing.assert_close(e(*pair, x, seed=3).log_w, table.log_w, rtol=0, atol=0)


def test_one_from_outside_by_import_path(outside):
    scenario = BernoulliDecoder()
    x, pair = scenario.data(6), (scenario.model, scenario.guide)
    evidence = pv.evaluate(*pair, x, estimators=["importance", outside], num_particles=50, seed=0)
    assert list(evidence.estimates) == ["importance", "test-own"]
    one = estimator(outside, {"num_draws": "20", "tilt": "-1e-1", "plain": "false"})
    assert (one.num_draws, one.tilt, one.plain) == (20, -0.1, False)
    assert estimator("test-own") == type(one)()  # known by now
    table = one(*pair, x, seed=0)
    again = pv.evaluate(*pair, x, estimators=[one], seed=0)
    assert again.protocol["test-own_tilt"] == -0.1
    torch.testing.assert_close(again["test-own"].value, table.log_evidence())
    assert again.best().name == "test-own"
    assert "by test-own, K = 20" in again.reading()
    stored = again.to_xarray()
    del base.kinds["test-own"]  # as where its module was not imported
    assert f"{pv.Evidence.from_xarray(stored)}" == f"{again}"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("ias", {}, "there is no estimator named 'ias'; did you mean ais"),
        ("ais", {"num_temperature": 3}, "ais has no option num_temperature; did you mean num_t"),
        ("exact", {"k": 3}, "the estimator exact has no option k; it takes none"),
        ("ais", {"num_particles": "x"}, "num_particles of the estimator ais is 'x'; give a whole"),
        ("ais", {"num_particles": "2.5"}, "is '2.5'; give a whole number"),
        ("ais", {"num_particles": "0"}, "num_chains is 0; give a positive integer"),
        ("importance", {"proposal": "wide"}, "no proposal 'wide'; did you mean widened"),
        ("importance", {"proposal": "widened(1.2"}, "cannot be read; write options as in"),
        ("importance", {"proposal": "widened(open('x'))"}, "cannot be read; write options"),
        ("importance", {"proposal": "widened(width=2)"}, "cannot be had .*; it takes scale, df"),
        ("ais", {"proposal": "laplace(0)"}, "scale is 0; give a positive number"),
        ("importance", {"qmc": "perhaps"}, "qmc of the estimator importance is 'perhaps'; give"),
        ("nowhere_at_all.Mine", {}, "cannot be had: there is no module 'nowhere_at_all'"),
        ("outside_estimators.Onw", {}, "no subclass of pyrovae.Estimator with a name of its own"),
        ("outside_estimators.Nameless", {}, "no subclass of pyrovae.Estimator with a name"),
    ],
)
def test_names_and_options_that_are_not_there(outside, name, options, said):
    with pytest.raises(ValueError, match=said) as caught:
        estimator(name, options)
    assert "\n" not in str(caught.value)


def test_text_is_read_as_the_types_of_options_say():
    ais = estimator("ais", {"schedule": "[0, 0.5, 1]", "num_leapfrog": "3"}, num_chains=4)
    assert ais == pv.AIS(100, 4, schedule=(0, 0.5, 1), num_leapfrog=3)
    assert estimator("ais", {"schedule": "linear"}) == pv.AIS(schedule="linear")
    auto = estimator("importance", {"num_particles": "auto", "max_seconds": "none"})
    assert auto == pv.Importance("auto")
    assert estimator("importance", {"num_particles": "7"}, num_particles=9) == pv.Importance(7)
    assert estimator("prior", num_particles="auto") == pv.Naive()
    assert estimator("prior", num_temperatures=3) == pv.Naive()  # not its own
    for proposal in (pv.Laplace(), pv.Widened(1.3, df=5), pv.Defensive(), pv.Refined(lr=0.2)):
        assert estimator("importance", {"proposal": repr(proposal)}).proposal == proposal
    assert estimator("ais", {"proposal": "laplace"}) == pv.AIS(proposal=pv.Laplace())


@pytest.mark.parametrize("start", [pv.Laplace(1.2), "guide"], ids=["mode", "guide"])
def test_annealing_from_a_proposal(start):
    """As `ais` does; the protocol names it."""
    scenario = BernoulliDecoder()
    x = scenario.data(8)
    start = scenario.guide if start == "guide" else start
    e = pv.AIS(5, 8, proposal=start)
    table = e(scenario.model, None, x, seed=3)
    w = pv.ais(
        scenario.model, x, proposal=start, num_temperatures=5, num_particles=8, seed=3
    )  # fmt: skip
    assert torch.equal(table.log_w, w.log_w)
    found = pv.evaluate(scenario.model, None, x, estimators=[e], seed=3, progress=False)
    torch.testing.assert_close(found["ais"].value, w.log_evidence())
    assert found.protocol["ais_proposal"] == f"{start}"


def test_weights_that_cannot_be_read(outside):
    scenario = BernoulliDecoder()
    own = estimator(outside)

    class Tables(type(own)):
        name = "test-tables"

        def weights(self, program, rows, work):
            return super().weights(program, rows, work).log_w

    pair, x = (scenario.model, scenario.guide), scenario.data(3)
    with pytest.raises(
        TypeError, match="weights of Tables are a Tensor; return pv.LogWeights, or"
    ):
        pv.evaluate(*pair, x, estimators=[Tables()])
    with pytest.raises(TypeError, match="Tables makes no table of log-weights"):
        Tables()(*pair, x)
    with pytest.raises(TypeError, match="Nameless has no name of its own"):
        pv.evaluate(*pair, x, estimators=[sys.modules["outside_estimators"].Nameless()])
    with pytest.raises(TypeError, match="the name 'test-own' is that of outside_estimators.Own"):
        type("Other", (pv.Estimator,), {"name": "test-own"})


def test_evidence_is_equal_by_its_numbers():
    scenario = BernoulliDecoder()
    x, pair = scenario.data(5), (scenario.model, scenario.guide)
    one, same, other = (
        pv.evaluate(*pair, x, num_particles=30, seed=seed, estimators=["elbo", "prior"])
        for seed in (0, 0, 1)
    )
    assert one == same
    assert one["prior"] == same["prior"] != other["prior"]
    assert one != other
    assert pv.Evidence.from_xarray(one.to_xarray()) == one
    assert one != "evidence"
    assert one["elbo"] != one["prior"]
    assert type(one)(one.estimates, one.num_samples, {**one.protocol, "rows": 6}) != one


def test_options_that_are_not_there():
    scenario = BernoulliDecoder()
    for function in (pv.evaluate, pv.evidence.cost.cost, pv.evidence.planning.plan):
        with pytest.raises(TypeError, match="no option 'block_sizes'; did you mean block_size?"):
            function(scenario.model, scenario.guide, scenario.data(2), block_sizes=3)
