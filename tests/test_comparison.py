"""`pv.compare`: the difference itself, how often it is called real, and what it is refused for."""

from dataclasses import replace

import pytest
import torch
from scenarios import LinearGaussian

import pyrovae as pv
from pyrovae.evidence.confirmed import Confirmation
from pyrovae.evidence.estimate import Estimate

REAL, UNTOLD = "the difference is real", "cannot be told"
OK = Confirmation()  # of what no draw enters


def estimate(value, name="exact", error=0.0, **rest):
    """Results of one estimator, each datum with the same error and the best of weights."""
    value = torch.as_tensor(value, dtype=torch.float64)
    full = torch.full_like(value, 1.0)
    empty = torch.empty(0, len(value))
    rest = {"confirmation": OK, **rest}
    columns = error * full, 900 * full, 0.1 * full, (1000 * full).long(), empty, empty
    return Estimate(name, value, *columns, 0.0, **rest)


def evidence(*estimates, **protocol):
    return pv.Evidence({e.name: e for e in estimates}, (), protocol)


def compared(a, b):
    return pv.compare(evidence(a), evidence(b))


def normal(n, mean, sd=1.0, seed=0):
    """Numbers of exactly this mean and standard deviation."""
    z = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mean + sd * (z - z.mean()) / z.std()


def shifted(s, by):
    return replace(s, mean=s.mean + by)


def test_the_difference_of_known_models_is_exact():
    a = LinearGaussian.make(x_dim=3, z_dim=2)
    b = LinearGaussian.make(x_dim=3, z_dim=1, seed=3)
    x = a.data(120)
    one, other = (
        pv.evaluate(m.model, m.exact, x, estimators="importance", num_particles=60, seed=0)
        for m in (a, b)
    )
    found = pv.compare(one, other)
    truth = (a.log_evidence(x) - b.log_evidence(x)).double()
    assert torch.allclose(found.difference, truth, atol=1e-3, rtol=1e-4)
    assert found.mean == pytest.approx(truth.mean().item(), rel=1e-4)
    assert found.data_error == pytest.approx(truth.std().item() / 120**0.5, rel=1e-4)
    assert found.monte_carlo_error < 1e-4
    assert found.verdict == REAL
    assert found.share == (truth > 0).double().mean()
    assert not found.not_ok.any()
    back = pv.compare(other, one)
    assert back.mean == -found.mean
    assert back.verdict == REAL
    assert "b is better" in str(back)
    assert "a is better for" in str(back)
    assert pv.compare(one, one).verdict == UNTOLD


@pytest.mark.parametrize("n", [6, 100])
def test_equal_models_are_rarely_told_apart(n):
    """Both are as far from the truth: 400 sets of data, of which 2 errors are exceeded by 5 %."""
    s = LinearGaussian.make(x_dim=3, z_dim=2)
    by = torch.tensor([0.5, -0.2, 0.3])
    x = s.data(400 * n)
    one, other = (shifted(s, sign * by).log_evidence(x).view(400, n) for sign in (1, -1))
    found = [compared(estimate(a), estimate(b)) for a, b in zip(one, other, strict=True)]
    real = sum(c.verdict == REAL for c in found)
    assert 4 <= real <= 35  # of 400; 20 +- 4.3 are expected


def test_monte_carlo_errors_of_both_count():
    """Of equal log p(x), with noise that all data share but for little, or each has its own."""
    generator = torch.Generator().manual_seed(0)
    real = {"own": 0, "shared": 0}
    for _ in range(400):
        noise = 0.1 * torch.randn(2, 50, generator=generator, dtype=torch.float64)
        sides = [estimate(row, "importance", error=0.1) for row in noise]
        real["own"] += compared(*sides).verdict == REAL
        small = 1e-3 * noise
        batches = 0.1 * torch.randn(2, 64, 1, generator=generator, dtype=torch.float64)
        sides = [
            estimate(row + b.exp().mean().log(), "importance", error=0.1 / 8, batches=b + row)
            for row, b in zip(small, batches, strict=True)
        ]
        real["shared"] += compared(*sides).verdict == REAL
    assert real["own"] <= 12  # the spread of the differences holds it as well: 2 sqrt(2) errors
    assert real["shared"] <= 37


def test_the_power_is_that_of_pairs():
    """One sets of 60 data in two tells 0.3 nats of standard deviation 1.2; unpaired none would."""
    generator = torch.Generator().manual_seed(0)
    hard = 20 * torch.randn(400, 60, generator=generator, dtype=torch.float64)
    d = 0.3 + 1.2 * torch.randn(400, 60, generator=generator, dtype=torch.float64)
    found = [compared(estimate(h + x), estimate(h)) for h, x in zip(hard, d, strict=True)]
    assert 148 <= sum(c.verdict == REAL for c in found) <= 228  # 188 +- 10 are expected
    assert all(c.mean > 0 for c in found if c.verdict == REAL)


def test_a_difference_of_bounds_is_none_of_models():
    low, high = normal(100, -90), normal(100, -80, seed=1)
    elbos = compared(estimate(high, "elbo", 0.1), estimate(low, "elbo", 0.1))
    assert elbos.verdict == UNTOLD
    assert "both are lower bounds, each by an unknown gap" in str(elbos)
    assert "one of bounds, not of models" in str(elbos)
    assert elbos.not_ok.all()
    # an ELBO above what is known is a lower bound of something higher
    found = compared(estimate(high, "elbo", 0.1), estimate(low))
    assert found.verdict == REAL
    assert "By how much is unknown" in str(found)
    found = compared(estimate(high), estimate(low, "elbo", 0.1))
    assert found.verdict == UNTOLD
    assert "b is a lower bound by an unknown gap" in str(found)


def test_of_the_lower_one_nothing_may_be_missing():
    low, high = normal(100, -90), normal(100, -80, seed=1)
    untried = Confirmation(reason="no second way was tried")
    unsure = {"name": "importance", "error": 0.1, "confirmation": untried}
    found = compared(estimate(high), estimate(low, **unsure))
    assert found.verdict == UNTOLD
    assert "b, not ok for 100 of 100 data, may be too low" in str(found)
    # what is missing of the higher one would make the difference larger
    found = compared(estimate(low), estimate(high, **unsure))
    assert found.verdict == REAL
    assert "It may be larger: b is not ok for 100 of 100 data" in str(found)
    jackknife = estimate(high, **{**unsure, "name": "jackknife"})  # which is no bound
    assert compared(estimate(low), jackknife).verdict == UNTOLD


def test_a_measured_shortfall_has_to_be_exceeded():
    second = Confirmation(
        num_simulated=128, num_tried=128, num_good=128, gap=1.0, gap_error=0.1, std_error=0.01
    )
    assert second.agrees is False
    sides = {
        mean: (estimate(normal(100, mean, 0.1)), estimate(normal(100, 0, 0.1), "importance", 0.01))
        for mean in (1.1, 1.3)  # beyond 1.16 and 2 errors of 0.014
    }
    short = replace(second, largest=0.01)
    found = {m: compared(a, replace(b, confirmation=short)) for m, (a, b) in sides.items()}
    assert found[1.1].verdict == UNTOLD
    assert "may be 1.16" in str(found[1.1])
    assert found[1.3].verdict == REAL
    a, b = sides[1.3]
    jackknife = replace(b, name="jackknife", confirmation=short)  # no bound, which has no gap
    assert compared(a, jackknife).verdict == UNTOLD
    # of data that are harder than those simulated it says nothing
    unlike = replace(second, largest=0.001)
    assert compared(a, replace(b, confirmation=unlike)).verdict == UNTOLD


def test_a_difference_that_rests_on_data_not_ok_is_not_clear():
    """Four of 100 data that the lower one may have missed are all there is to it."""
    high, low = normal(100, 0, 0.1), normal(100, 0, 0.1, seed=1)
    low[:4] -= torch.tensor([40.0, 42.0, 44.0, 41.0])
    k = torch.full((100,), 0.1, dtype=torch.float64)
    k[:4] = 2.0
    second = Confirmation(128, 128, 128, gap=0.0, gap_error=0.0, std_error=0.01, largest=0.01)
    b = replace(estimate(low, "importance", 0.01, confirmation=second), pareto_k=k)
    assert b.share("ok") == 0.96
    found = compared(estimate(high), b)
    assert found.mean > 2 * found.error
    assert found.verdict == UNTOLD
    assert "without that it is not clear" in str(found)
    clear = compared(estimate(high + 1), b)
    assert clear.verdict == REAL


def test_rounding_constants_and_infinities():
    value = normal(50, -80)
    assert compared(estimate(value + 5e-5), estimate(value)).verdict == UNTOLD
    assert compared(estimate(value + 5e-4), estimate(value)).verdict == REAL
    never = value.clone()
    never[3] = -torch.inf
    found = compared(estimate(value), estimate(never))
    assert found.verdict == UNTOLD
    assert "not finite for 1 data" in str(found)
    assert found.summary()["difference"] is None
    a, b = evidence(estimate(value + 1), factors="f"), evidence(estimate(value))
    assert "with factors beside what is observed (f)" in str(pv.compare(a, b))


def test_the_estimate_to_go_by_or_the_one_named():
    value = normal(50, -80)
    both = evidence(estimate(value, "elbo"), estimate(value + 1))
    assert pv.compare(both, both).a.name == "exact"
    found = pv.compare(both, both, estimator_b="elbo")
    assert (found.a.name, found.b.name) == ("exact", "elbo")
    with pytest.raises(ValueError, match="estimator_a is 'ais'; a has elbo, exact"):
        pv.compare(both, both, estimator_a="ais")


V = torch.linspace(-3.0, 0.0, 10)
DATA = {"part": "test", "sha256_test": "1" * 64, "data": "digits", "binarize": "static"}
OTHER = {**DATA, "sha256_test": "2" * 64, "binarize": "threshold"}


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({}, {"n": 9}, "a is of 10 data and b of 9"),
        ({"n": 1}, {"n": 1}, r"of all data as one \(plate=None\)"),
        (DATA, OTHER, r"different data \(binarize static and threshold\)"),
        (DATA, {**DATA, "sha256_test": "2" * 64}, "their SHA-256 differ"),
        ({"data": "digits"}, {"data": "mnist"}, "data digits and mnist"),
        ({"dims": 3}, {"dims": 4}, "data of 3 dimensions and b of data of 4"),
        ({"discrete": True}, {"discrete": False}, "a is of probabilities and b of densities"),
        ({"target": "log P(X|Y)"}, {}, r"a is log P\(X\|Y\) and b log P\(X\)"),
        (
            {**DATA, "rows_chosen": "10", "rows_available": 30},
            {**DATA, "rows_chosen": "0:10", "rows_available": 30},
            "of the rows 10 and b of 0:10",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(one, other, said):
    sides = []
    for facts in (one, other):
        facts = dict(facts)
        sides.append(evidence(estimate(V[: facts.pop("n", 10)]), **facts))
    with pytest.raises(ValueError, match=said):
        pv.compare(*sides)


def test_what_cannot_be_compared_for_want_of_estimates():
    with pytest.raises(ValueError, match="b has no estimates to compare: There is no density"):
        pv.compare(evidence(estimate(V)), evidence(no_log_p="There is no density."))
    with pytest.raises(TypeError, match="a is 3; give what pv.evaluate returns"):
        pv.compare(3, evidence(estimate(V)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (DATA, {**DATA, "binarize": "dynamic"}),  # of which the test part is the static one
        (DATA, {}),
        ({**DATA, "rows_chosen": "10", "rows_available": 30}, {"rows": 10}),
        ({**DATA, "rows_chosen": "10", "rows_available": 10}, DATA),
        ({"part": "all", "sha256_all": "1" * 64, "sha256_test": "3"}, DATA),
    ],
)
def test_what_is_of_the_same_data_or_may_be_is_compared(one, other):
    found = pv.compare(evidence(estimate(V), **one), evidence(estimate(V), **other))
    assert found.mean == 0


def test_a_row_a_datum():
    a, b = estimate(V + 1, "importance", 0.3), estimate(V, "elbo", 0.4)
    names, *rows = compared(a, b).to_csv()
    assert names.startswith("datum,difference,std_error,a_value,a_std_error,a_verdict,b_value")
    assert len(rows) == 10
    number, difference, error, *_, verdict = rows[3].split(",")
    assert (number, verdict) == ("3", "a bound")
    assert (float(difference), float(error)) == pytest.approx((1, 0.5))


def test_the_table():
    a, b = estimate(V + 1), estimate(V, "elbo", 0.4)
    found = compared(a, b)
    lines = str(found).splitlines()
    assert lines[0].split() == "by nats/datum MC s.e. data s.e. not ok".split()
    assert lines[2].split() == ["b", "ELBO", "-1.500", "0.1265", "0.319", "10"]
    assert lines[3].split() == ["a", "-", "b", "1.000", "0.1265", "0.000", "10"]
    assert found == compared(a, b)
    assert found != compared(b, a)
