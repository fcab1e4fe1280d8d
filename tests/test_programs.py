"""Other people's programs: accepted and right, or refused in a sentence, never wrong."""

import re
import warnings
from contextlib import contextmanager

import pytest
import torch
from programs import CASES
from programs.__main__ import PAGE, page

import pyrovae as pv

ACCEPTED = [case for case in CASES if not case.refused]
REFUSED = [case for case in CASES if case.refused]
CHAINS, TEMPERATURES = 64, 5
GRID = 1e-6  # to which the answers of a grid are good, nats


def run(case, estimator, made):
    """An estimator's log p(x) and its standard error."""
    model, guide, data, _ = made
    options = {"plate": case.plate, "seed": 0}
    if estimator == "importance":
        w = pv.importance_sampling(model, guide, *data, num_particles=case.draws, **options)
    elif estimator == "prior":
        w = pv.prior_sampling(model, *data, num_particles=2 * case.draws, **options)
    elif estimator == "ais":
        w = pv.ais(
            model,
            *data,
            guide=guide,
            num_particles=CHAINS,
            num_temperatures=TEMPERATURES,
            **options,
        )
    else:
        value, error = pv.quadrature(model, *data, plate=case.plate, with_error=True)
        return value, error
    return w.log_evidence(), w.std_error()


LONG = [
    "stable",
    "eight_schools",
    "coin_jointly",
    *(f"auto_{kind}_messenger" for kind in ("regressive", "hierarchical", "normal")),
]


@contextmanager
def expected_warnings(case):
    """Lets only those programs run one particle at a time of which that is known."""
    with warnings.catch_warnings():
        if case.singly:
            warnings.filterwarnings("ignore", "the program runs one particle at a time")
        yield


def agree(value, error, made):
    with torch.no_grad():
        exact = made[-1]()
    assert value.shape == exact.shape
    off = (value - exact).abs()
    assert (off <= 4 * error + GRID).all(), f"{value} +- {error} where {exact} is true"


@pytest.mark.parametrize(
    ("case", "estimator"),
    [
        pytest.param(case, estimator, id=f"{case.name}-{estimator}")
        for case in ACCEPTED
        for estimator in case.estimators
    ],
)
def test_right(case, estimator):
    made = case.make()
    with expected_warnings(case):
        value, error = run(case, estimator, made)
    agree(value, error, made)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] * (case.name in LONG))
        for case in ACCEPTED
    ],
)
def test_checked_and_right_in_other_blocks(case):
    made = case.make()
    model, guide, data, _ = made
    report = pv.check(model, guide, *data, plate=case.plate)
    slow = case.singly and "one particle at a time" in report.verdict
    assert report.ok or slow, report.verdict
    with expected_warnings(case):
        evidence = pv.evaluate(
            model,
            guide,
            *data,
            plate=case.plate,
            num_particles=case.draws,
            estimators=["importance"],
            block_size=3,
            seed=1,
            progress=False,
        )
    value, error = evidence["importance"].value, evidence["importance"].std_error
    if case.plate is None:  # log p of all data, as of one datum
        [value], [error] = value, error
    agree(value, error, made)


@pytest.mark.parametrize(
    ("case", "estimator"),
    [
        pytest.param(case, estimator, id=f"{case.name}-{estimator}")
        for case in ACCEPTED
        for estimator in case.without
    ],
)
def test_estimators_that_refuse(case, estimator):
    with pytest.raises((ValueError, TypeError)) as raised:
        run(case, estimator, case.make())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_refused_in_a_sentence(case):
    model, guide, data = case.make()
    report = pv.check(model, guide, *data, plate=case.plate)
    assert not report.ok
    assert re.search(case.message, report.verdict)
    for call in (pv.importance_sampling, pv.evaluate):
        with pytest.raises((ValueError, TypeError), match=case.message) as raised:
            call(model, guide, *data, plate=case.plate, num_particles=50, seed=0)
        assert "\n" not in str(raised.value)


def test_the_table_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "make programs"
    assert len(ACCEPTED) >= 34
    assert len(CASES) >= 40
