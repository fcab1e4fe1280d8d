"""What is odd: the promised rate of false alarms above all, then what a score is worth."""

from math import sqrt

import pytest
import torch
from scipy.stats import betabinom

import pyrovae as pv
from pyrovae.posteriors import anomalies as module
from pyrovae.posteriors.anomalies import Anomalies


def judged(calibration, score, false_alarms=0.05):
    zero = torch.zeros_like(score)
    return Anomalies(score, zero, ["ok"] * len(score), calibration, false_alarms)


@pytest.fixture(scope="module")
def linear():
    """A VAE whose P(X) is normal; its guide was not trained."""
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 5)
    return pv.VAE(5, 2, (8,), pv.likelihoods.make("normal", sigma=0.5), decoder=net)


def exact(vae, x):
    w, b = (p.detach().double() for p in vae.decoder.parameters())
    cov = w @ w.T + 0.25 * torch.eye(5).double()
    return torch.distributions.MultivariateNormal(b, cov).log_prob(x.double())


@pytest.mark.parametrize("false_alarms", [0.05, 0.1, 0.29, 0.5, 0.999])
def test_p_values_and_threshold_are_as_defined(false_alarms):
    gen = torch.Generator().manual_seed(0)
    score = torch.randint(30, (200,), generator=gen).double()  # with ties
    calibration = torch.randint(30, (99,), generator=gen).double()
    calibration[3] = torch.inf
    found = judged(calibration, score, false_alarms)
    for s, p, flagged in zip(score, found.p_value, found.flagged, strict=True):
        assert p == (1 + sum(c >= s for c in calibration)) / 100
        assert flagged == (p <= false_alarms) == (s > found.threshold)


@pytest.mark.parametrize("n", [19, 20, 39])
def test_the_promise_is_kept_over_calibration_sets(n):
    """One new datum a set, so that false alarms are binomial; of no ties their rate is known."""
    sets, gen = 5_000, torch.Generator().manual_seed(0)
    scores = torch.randn(sets, n + 1, generator=gen).double()
    alarms = sum(bool(judged(s[:n], s[n:]).flagged) for s in scores)
    rate, spread = judged(scores[0, :n], scores[0, n:]).rate
    assert rate == pytest.approx(((n + 1) // 20) / (n + 1))
    assert abs(alarms - sets * rate) < 4 * sqrt(sets * rate * (1 - rate))
    beyond = [0.5 * torch.erfc(torch.tensor(judged(s[:n], s[n:]).threshold / sqrt(2)))
              for s in scores[:500]]  # fmt: skip
    error = spread / sqrt(500)
    assert torch.stack(beyond).mean() == pytest.approx(rate, abs=4 * error)
    assert torch.stack(beyond).std() == pytest.approx(spread, rel=0.2)


def rate_of(found):
    """False alarms among inliers, less what is promised, in standard errors."""
    n, total = len(found.calibration), len(found.score)
    least = round(found.rate[0] * (n + 1))
    of = betabinom(total, least, n + 1 - least)
    return (int(found.flagged.sum()) - of.mean()) / of.std()


@pytest.mark.parametrize(
    "asked", [pv.Importance(2), pv.AIS(3, 2), pv.Naive(4)], ids="guide ais prior".split()
)
def test_the_promise_is_kept_whatever_scores_are_worth(linear, asked, monkeypatch):
    """Of two or three particles they are worth little; odd data stand among the others."""
    x, others = linear.sample(1_000, seed=1), linear.sample(700, seed=2)
    data = torch.cat([x, 9 + x[:100]])
    options = {"calibration": others, "false_alarms": 0.1, "columns": "none", "seed": 0}
    found = pv.anomalies(linear.model, linear.guide, data, estimator=asked, **options)
    assert found.flagged[1_000:].all()
    assert (found.score[:1_000] + exact(linear, x)).std() > 0.3
    inliers = judged(found.calibration, found.score[:1_000], 0.1)
    assert abs(rate_of(inliers)) < 4
    if isinstance(asked, pv.Importance):  # calibration scored by more particles: no longer
        better = pv.Importance(200).values(linear.model, linear.guide, others, seed=0)
        assert rate_of(judged(-better, found.score[:1_000], 0.1)) > 6


def test_scores_are_log_p_and_columns_tell_what_is_odd(linear):
    x, others = linear.sample(40, seed=3), linear.sample(99, seed=4)
    x[7, 2] += 6.0
    found = pv.anomalies(linear.model, linear.guide, x, calibration=others, seed=0)
    truth = -exact(linear, x)
    assert ((found.score - truth) / found.std_error).abs().max() < 4
    assert (found.score - truth).abs().max() < 0.2
    known = -exact(linear, others)
    assert (found.calibration - known).abs().max() < 0.2  # in their own order
    assert found.oddest()[0] == 7
    assert found.p_value[7] == 1 / 100
    assert found.columns.shape == (40, 5)
    assert torch.equal(found.columns.isnan().all(1), ~found.flagged)
    assert found.columns[7].argmax() == 2
    assert set(found.verdict) == {"ok"}
    assert found.given_rest.verdict[7] == "ok"
    told = str(found)
    assert f"{int(found.flagged.sum())} of 40 data are odd" in told
    assert "the 99 of this one make it 5.0% +- 2.2%" in told
    assert "2: " in told.splitlines()[4]
    again = pv.anomalies(linear.model, linear.guide, x, calibration=others, seed=0)
    assert found == again
    one = pv.anomalies(linear.model, linear.guide, x[5:9], calibration=others, columns=1, seed=0)
    assert (~one.columns.isnan()).any(1).tolist() == [False, False, True, False]
    quiet = pv.anomalies(linear.model, linear.guide, linear.sample(3, seed=5) * 0,
                         calibration=others, seed=0)  # fmt: skip
    assert not quiet.flagged.any()
    assert quiet.columns.isnan().all()
    every = pv.anomalies(
        linear.model, linear.guide, x[:2], calibration=others, columns="all",
        num_particles=100,
    )  # fmt: skip
    assert not every.columns.isnan().any()


def test_of_a_mixture_scores_are_exact():
    torch.manual_seed(0)
    mixture = pv.GaussianMixture(3, 2)
    x, others = mixture.sample(20, seed=1), mixture.sample(59, seed=2)
    x[4] = 20.0
    found = pv.anomalies(mixture.model, mixture.guide, x, calibration=others)
    torch.testing.assert_close(found.score, -mixture.log_evidence(x).double())
    torch.testing.assert_close(found.calibration, -mixture.log_evidence(others).double())
    assert found.flagged[4]
    rest = mixture.log_evidence(x[4:5]).double() - mixture.log_evidence(
        torch.where(torch.eye(3, dtype=torch.bool), torch.nan, x[4])
    )
    torch.testing.assert_close(found.columns[4], -rest.double())
    assert found.to_csv()[0] == module.HEADER
    row = found.to_csv()[5].split(",")
    assert row[0] == "4"
    assert row[4:] == ["1", "ok"]
    assert float(row[1]) == found.score[4].item()
    summary = found.summary()
    assert summary["num_flagged"] == int(found.flagged.sum()) == len(summary["flagged"])
    assert summary["flagged"][0]["row"] == 4


def test_of_a_program_that_knows_no_gaps_there_are_no_columns(linear):
    x, others = linear.model.__self__.sample(5, seed=1), linear.model.__self__.sample(59, seed=2)

    def model(x):
        return linear.model(x)

    found = pv.anomalies(model, linear.guide, x, calibration=others, num_particles=20, seed=0)
    assert found.columns is None
    assert "columns" in found.table()
    with pytest.raises(ValueError, match="does not say that NaN is missing"):
        pv.anomalies(model, linear.guide, x, calibration=others, columns="all", num_particles=20)


def test_on_a_condition_the_score_is_of_that():
    torch.manual_seed(0)
    cvae = pv.CVAE(6, 2, 1, (4,))
    x, y = (torch.rand(30, 6) < 0.5).to(torch.get_default_dtype()), torch.arange(30) % 2
    found = pv.anomalies(
        cvae.model, cvae.guide, x[:5], y[:5], calibration=(x[5:], y[5:]), num_particles=50, seed=0
    )
    assert "their score, -log P(X|Y), is above" in found.reading()
    assert found.columns.shape == (5, 6)
    with pytest.raises(ValueError, match=r"of shapes \[\(6,\)\] a datum and the data of"):
        pv.anomalies(cvae.model, cvae.guide, x[:5], y[:5], calibration=x[5:])


def test_scores_that_are_not_to_be_trusted_are_told(linear):
    x, others = linear.sample(9, seed=1), linear.sample(19, seed=2)
    found = pv.anomalies(linear.model, linear.guide, x, calibration=others, seed=0,
                         estimator=pv.Importance(20), columns="none")  # fmt: skip
    assert not found.trusted.any()
    assert "Of 9 data, " in found.reading()
    assert "the score may exceed -log P(X) by more than its error" in found.reading()
    assert found.summary()["num_not_trusted"] == 9


def test_what_cannot_be_judged_says_so(linear):
    x, others = linear.sample(9, seed=1), linear.sample(18, seed=2)

    def told(match, error=ValueError, x=x, **options):
        with pytest.raises(error, match=match):
            pv.anomalies(linear.model, linear.guide, x, **{"calibration": others, **options})

    told("is of 18 data, whose least p-value is 1/19, above false_alarms=0.05; give 19 or more")
    told("false_alarms=0.29; give 3 or more", calibration=others[:2], false_alarms=0.29)
    more = torch.cat([others, others])
    told("false_alarms is 1; give a rate between 0 and 1", calibration=more, false_alarms=1)
    told("the very data that are to be judged", x=more, calibration=more.clone())
    gaps = more.clone()
    gaps[0, 0] = torch.nan
    told("the very data that are to be judged", x=gaps, calibration=gaps.clone())
    told(r"of shapes \[\(4,\)\] a datum and the data of \[\(5,\)\]", calibration=more[:, :4])
    told("columns is 'some'; give flagged, all, none or a number", columns="some")
    told("columns is 0; give", columns=0)
    told("estimator 'elbo' is a bound", calibration=more, estimator="elbo")
    told("calibration: the data are list", TypeError, calibration=[[1.0]])
    bad = more.clone()
    bad[3, 1] = torch.inf
    told("calibration: x holds inf at row 3, column 1", calibration=bad)
    told("^x holds inf at row 3, column 1", x=bad, calibration=more)
    told("no option 'num_samples'", TypeError, calibration=more, num_samples=3)
    binary = pv.VAE(5, 2, (4,)).to(x.dtype)
    with pytest.raises(ValueError, match="outside"):
        pv.anomalies(binary.model, binary.guide, x, calibration=more)
