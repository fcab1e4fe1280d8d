"""Which class: Bayes' rule against closed forms, temperature, "none of these", and verdicts."""

from dataclasses import replace
from math import log, sqrt

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scenarios import LinearClasses
from scipy.stats import betabinom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import pyrovae as pv
from pyrovae.posteriors.classified import HEADER, Classified
from pyrovae.posteriors.tempering import temperature_of, tempered


def normal(loc, scale=1.0, size=1):
    """A program of x alone whose log P(x) is known, and has no latent."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc + x.new_zeros(size), scale).to_event(1), obs=x)

    return model


def classified(log_p, error=0.0, words="ok", **fields):
    log_p = torch.as_tensor(log_p).double()
    words = [[words] * log_p.shape[1]] * len(log_p) if isinstance(words, str) else words
    even = torch.full(log_p.shape[1:], -log(log_p.shape[1])).double()
    error = torch.as_tensor(error).double().expand(log_p.shape)
    return Classified(log_p, error, words, **{"log_prior": even, **fields})


@pytest.fixture(scope="module")
def linear():
    """Two linear-Gaussian classes, and their data with labels: a third of them of class 1."""
    torch.manual_seed(0)
    models = [pv.LinearGaussian(4, 2), pv.LinearGaussian(4, 2)]
    x = torch.cat([models[0].sample(400, seed=1), models[1].sample(200, seed=2)])
    y = torch.arange(600) // 400
    order = torch.randperm(600)
    return models, x[order], y[order]


def pairs(models):
    return [m.model for m in models], [m.guide for m in models]


def poor(model, shift, scale=1.0):
    """The posterior of a linear-Gaussian model, moved by so many standard deviations."""

    def guide(x):
        q = model.posterior(x)
        loc = q.mean + shift * q.stddev
        with pyro.plate("data", len(x)):
            tril = scale * q.scale_tril.expand(len(x), 2, 2)
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=tril))

    return guide


def bayes(models, x, prior):
    joint = (
        torch.stack([m.log_evidence(x).double() for m in models], 1) + torch.tensor(prior).log()
    )
    return joint.softmax(1), joint.logsumexp(1)


def test_of_two_linear_gaussian_classes_it_is_bayes_rule(linear):
    models, x, _ = linear
    wide = [poor(m, 0.0, 1.3) for m in models]
    even = pv.classify([m.model for m in models], wide, x[:60], seed=0,
                       estimator=pv.Importance(500))  # fmt: skip
    shares = torch.tensor([2 / 3, 1 / 3]).double().log()
    for found, prior in ((even, [0.5, 0.5]), (replace(even, log_prior=shares), [2 / 3, 1 / 3])):
        truth, log_p_x = bayes(models, x[:60], prior)
        assert found.probability.sum(1).sub(1).abs().max() < 1e-12
        off = (found.probability - truth) / found.probability_error
        assert off.abs().max() < 4
        assert 0.7 < off.std() < 1.3
        assert ((found.log_p_x - log_p_x) / found.log_p_x_error).abs().max() < 4
        assert found.probability_error.max() < 0.03
        assert found.trusted.all()
        sure = found.told
        assert sure.sum() > 40
        assert torch.equal(found.predicted[sure], truth.argmax(1)[sure])
    assert even.p_value is even.none is even.anomalies is None


def test_exact_guides_give_exact_probabilities_also_of_what_has_gaps(linear):
    models, x, _ = linear
    x = x[:9].clone()
    x[3, 1] = x[4, 2:] = x[5] = torch.nan
    found = pv.classify(*pairs(models), x, prior=[0.7, 0.3], seed=0, num_particles=30,
                        estimator="importance")  # fmt: skip
    truth, log_p_x = bayes(models, x, [0.7, 0.3])
    torch.testing.assert_close(found.probability, truth)
    torch.testing.assert_close(found.log_p_x, log_p_x)
    torch.testing.assert_close(found.probability[5], torch.tensor([0.7, 0.3]).double())


def test_of_components_it_is_a_mixtures_responsibilities():
    torch.manual_seed(0)
    mixture = pv.GaussianMixture(3, 4)
    with torch.no_grad():
        for p in mixture.parameters():
            p.normal_()
    x, others = mixture.sample(30, seed=1), mixture.sample(99, seed=2)

    def component(c):
        def model(x):
            with pyro.plate("data", len(x)):
                p = mixture.component(torch.full((len(x),), c))
                pyro.sample("x", p, obs=x)

        return model

    weights = mixture.weights().probs.detach()
    y = mixture.responsibilities(others).argmax(1)
    components = [component(c) for c in range(4)]
    found = pv.classify(components, None, x, prior=weights, calibration=(others, y))
    raw = replace(found, temperature=1.0)
    torch.testing.assert_close(raw.probability, mixture.responsibilities(x).double())
    torch.testing.assert_close(found.log_p_x, mixture.log_evidence(x).double())
    torch.testing.assert_close(found.calibration, -mixture.log_evidence(others).double())
    assert set(found.verdict) == {"ok"}
    assert not found.probability_error.any()


def test_a_model_that_observes_y_has_the_prior_inside():
    s = LinearClasses()
    x, _ = s.data(20)
    found = pv.classify(s.model, s.exact, x, num_particles=40, estimator="importance", seed=0)
    truth = s.log_joint(x).double()
    torch.testing.assert_close(found.log_p, truth)
    torch.testing.assert_close(found.probability, truth.softmax(1))
    torch.testing.assert_close(found.log_p_x, s.log_evidence(x).double())
    with pytest.raises(ValueError, match="has one of its own, as it observes y; leave it out"):
        pv.classify(s.model, s.exact, x, prior=[0.2, 0.2, 0.6])


def test_of_a_model_given_y_each_class_is_evaluated():
    torch.manual_seed(0)
    cvae = pv.CVAE(4, 3, 1, (4,), pv.likelihoods.make("normal", sigma=0.5))
    x, y = torch.randn(4, 4), torch.arange(3).repeat(4)
    found = pv.classify(cvae.model, cvae.guide, x, estimator="quadrature", seed=0)
    truth = pv.quadrature(cvae.model, x.repeat_interleave(3, 0), y).reshape(4, 3)
    torch.testing.assert_close(found.log_p, truth, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.log_p_x, truth.logsumexp(1) - log(3), atol=1e-5, rtol=0)


def test_errors_of_probabilities_are_their_spread():
    gen = torch.Generator().manual_seed(0)
    log_p = torch.tensor([[0.0, -0.4, -2.0]]).double()
    error = torch.tensor([[0.02, 0.05, 0.03]]).double()
    one = classified(log_p, error, temperature=1.7)
    noise = error * torch.randn(20_000, 3, generator=gen).double()
    many = classified(log_p + noise, 0.0, temperature=1.7)
    assert many.probability.std(0).tolist() == pytest.approx(
        one.probability_error[0].tolist(), rel=0.03
    )
    assert many.log_p_x.std().item() == pytest.approx(one.log_p_x_error.item(), rel=0.03)


def test_the_temperature_is_that_of_least_log_loss():
    """With two classes it is a logistic regression without a constant: sklearn's, a reference."""
    gen = torch.Generator().manual_seed(0)
    y = (torch.rand(3_000, generator=gen) < 0.3).long()
    x = torch.randn(3_000, generator=gen).double() + 2.0 * y - 1
    log_p = 3 * torch.stack(
        [-0.5 * (x + 1).square(), -0.5 * (x - 1).square()], 1
    )  # thrice as sure
    log_prior = torch.tensor([0.7, 0.3]).double().log()
    t = temperature_of(log_p, log_prior, y)
    assert t == pytest.approx(3, abs=4 * 3 / sqrt(1_000))
    even = temperature_of(log_p, torch.zeros(2).double(), y)
    fit = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
    fit.fit((log_p[:, 1] - log_p[:, 0])[:, None].numpy(), y.numpy())
    assert 1 / even == pytest.approx(fit.coef_.item(), rel=1e-4)

    found = classified(log_p, log_prior=log_prior, temperature=t)
    p = found.probability.numpy()
    assert found.log_loss(y) == pytest.approx(log_loss(y.numpy(), p))
    for other in (1.0, 0.97 * t, 1.03 * t):
        assert replace(found, temperature=other).log_loss(y) > found.log_loss(y)
    assert replace(found, temperature=1.0).calibration_error(y) > 0.05 > 0.03
    assert found.calibration_error(y) < 0.03


def test_temperatures_at_their_ends():
    log_p, prior = torch.tensor([[0.0, -3.0], [-9.0, 0.0], [0.0, -0.1]]).double(), torch.zeros(2)
    prior = torch.tensor([0.4, 0.6]).double().log()
    assert temperature_of(log_p, prior, torch.tensor([0, 1, 0])) == 1
    assert temperature_of(log_p, prior, torch.tensor([1, 0, 1])) == pytest.approx(1e6)
    never = classified(log_p, log_prior=prior, temperature=1e6)
    torch.testing.assert_close(never.probability, prior.exp().expand(3, 2), atol=1e-5, rtol=0)
    lost = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0], [-torch.inf] * 2]).double()
    y = torch.tensor([0, 1, 0])
    assert temperature_of(lost, prior, y) == 1
    torch.testing.assert_close(tempered(lost, prior, 3.0)[2], prior)
    found = classified(lost, torch.where(lost.isneginf(), torch.nan, 0.1), log_prior=prior)
    assert found.predicted.tolist() == [0, 1, 1]
    assert not found.probability_error.isnan().any()
    assert found.verdict == ["ok", "ok", "cannot be told"]
    assert temperature_of(lost, prior, torch.tensor([1, 1, 0])) == pytest.approx(1e6)


def test_the_calibration_error_is_that_of_bins():
    p = torch.tensor([0.95, 0.85, 0.65, 0.55, 0.55]).double()
    found = classified(torch.stack([p, 1 - p], 1).log())
    y = torch.tensor([0, 1, 0, 0, 1])
    bins = [0.05, 0.85, 0.35, abs(1 - 1.1)]
    assert found.calibration_error(y, bins=10) == pytest.approx(sum(bins) / 5)
    assert found.accuracy(y) == pytest.approx(0.6)


def test_what_is_none_of_these_keeps_its_promise_beside_the_temperature(linear):
    """Two particles a datum, from guides that are wide: what scores are worth does not matter."""
    models, x, y = linear
    wide = [poor(m, 0.3, 1.5) for m in models]
    new = torch.cat([models[0].sample(1_000, seed=3), models[1].sample(500, seed=4)])
    data = torch.cat([new, 30 + new[:50]])
    options = {"estimator": pv.Importance(2), "false_alarms": 0.1, "prior": [2 / 3, 1 / 3]}
    options |= {"seed": 0}
    found = pv.classify([m.model for m in models], wide, data, calibration=(x, y), **options)
    assert found.none[1_500:].all()
    n, alarms = len(x), int(found.none[:1_500].sum())
    least = int(0.1 * (n + 1))
    of = betabinom(1_500, least, n + 1 - least)
    assert abs(alarms - of.mean()) < 4 * of.std()
    assert found.temperature > 1.3  # of estimates that scatter by a nat
    shuffled = y[torch.randperm(n)]
    other = pv.classify(
        [m.model for m in models], wide, data, calibration=(x, shuffled), **options
    )
    assert torch.equal(other.p_value, found.p_value)  # knows of no labels
    assert other.temperature > 3 * found.temperature
    raw = replace(found, temperature=1.0)
    truth = torch.arange(1_500) // 1_000
    inliers = [replace(f, log_p=f.log_p[:1_500], std_error=f.std_error[:1_500],
                       words=f.words[:1_500]) for f in (found, raw)]  # fmt: skip
    loss, raw_loss = (f.log_loss(truth) for f in inliers)
    assert loss < raw_loss
    assert inliers[0].calibration_error(truth) < inliers[1].calibration_error(truth)


def test_a_poor_guide_is_not_believed(linear):
    """That of class 1 misses its posterior by eight deviations: its data look like those of 0."""
    models, x, y = linear
    guides = [models[0].guide, poor(models[1], 8.0)]
    found = pv.classify([m.model for m in models], guides, x[:80],
                        estimator=pv.Importance(1_000), seed=0)  # fmt: skip
    truth, _ = bayes(models, x[:80], [0.5, 0.5])
    wrong = (found.predicted != truth.argmax(1)).nonzero()[:, 0].tolist()
    assert len(wrong) > 10
    assert not any(found.verdict[i] in ("ok", "not contradicted") for i in wrong)
    off = (found.probability - truth).abs().max(1).values
    assert not (found.trusted & (off > 0.01)).any()
    assert "ok" not in found.verdict
    assert "the class is open to doubt (" in found.reading()
    usual = pv.classify([m.model for m in models], guides, x[:80], seed=0)  # from modes
    assert torch.equal(usual.predicted[usual.told], truth.argmax(1)[usual.told])
    assert (usual.probability - truth).abs().max() < 0.02


def test_which_verdicts_count():
    few, ais = "more samples", "use ais"
    found = classified(
        [[0, -16, -40], [0, -17, -40], [0, -99, -40], [0, -17, -1], [0, -0.5, -9], [0, -30, -30]],
        0.1,
        [
            ["ok", few, "ok"],  # near
            ["ok", few, "not contradicted"],  # far
            ["ok", ais, few],  # far, and who knows how far
            ["ok", "ok", "ok"],
            ["ok", "ok", "ok"],  # level
            [few, "ok", "ok"],  # the most probable one
        ],
    )
    assert found.verdict == [few, "not contradicted", ais, "ok", "cannot be told", few]
    assert found.trusted.tolist() == [False, True, False, True, True, False]
    assert replace(found, temperature=2.0).verdict[1] == few  # what is far is nearer
    assert found.summary()["num_not_told"] == 1
    assert found.summary()["num_not_trusted"] == 3
    tie = pv.classify([normal(0.0), normal(0.0)], None, torch.zeros(2, 1))
    assert tie.verdict == ["cannot be told"] * 2
    assert tie.probability.tolist() == [[0.5, 0.5]] * 2


def test_what_is_written_and_said():
    odd = torch.arange(19).double()
    found = classified([[-1.0, -1.0 - log(3)], [-50.0, -49.0]], 0.01, calibration=odd)
    lines = found.to_csv(index=["a", 'b "1"'], names=["cat", "dog, wet"])
    assert lines[0] == f'{HEADER},p(cat),"p(dog, wet)"'
    row = lines[1].split(",")
    assert row[:2] == ["a", "cat"]
    assert float(row[2]) == pytest.approx(0.75)
    assert float(row[3]) == pytest.approx(0.75 * 0.25 * sqrt(2) * 0.01)
    assert float(row[4]) == pytest.approx(-1 + log(0.5 + 1 / 6))
    assert row[5:8] == ["0.9", "0", "ok"]
    assert lines[2].startswith('"b ""1""","dog, wet",')
    assert found.none.tolist() == [False, True]
    table = found.table(names=["cat", "dog"]).splitlines()
    assert "none of these" in table[1] or "none of these" in table[2]
    assert "All 19 labels of the calibration" in str(found)
    assert "1 data are none of these: log P(x) is below -18.000 nats, as of 5.0%" in str(found)
    y = torch.tensor([0, 0])
    assert "It is the right one of 50.0%" in found.reading(y)
    summary = found.summary(y)
    assert summary["num_none"] == 1
    assert summary["num_predicted"] == [1, 1]
    assert summary["accuracy"] == 0.5
    plain = replace(found, calibration=None)
    assert "Bayes' own probabilities" in plain.reading()
    assert plain.to_csv()[1].split(",")[5:7] == ["", ""]


def test_what_cannot_be_classified_says_so(linear):
    models, x, y = linear
    many, guides = pairs(models)
    cvae = pv.CVAE(4, 2, 1, (4,), "normal")

    def told(match, model=many, guide=guides, error=ValueError, data=x[:5], **options):
        with pytest.raises(error, match=match):
            pv.classify(model, guide, data, num_particles=30, **options)

    told("there is 1 class, of which every datum is; give two or more", many[:1], guides[:1])
    told("there is 1 class", cvae.model, cvae.guide, classes=1)
    told("there are 2 models and 1 guides; give a guide for each model", many, guides[:1])
    told("there are 2 models and one guides", many, guides[0])
    told("there are 2 guides and one model", cvae.model, guides)
    told("classes is 3, and there are 2 models", classes=3)
    told(r"the model takes \(x: .*, and log P\(x\|y\) needs \(x, y\)", many[0], guides[0],
         error=TypeError)  # fmt: skip

    def plain(x, y):
        cvae.model(x, y)

    told("classes is None, and the model has no y_dim", plain, cvae.guide)
    told("classes is 2.5; give how many there are", plain, cvae.guide, classes=2.5)
    told(r"prior is \[0.5, 0.6\], of sum 1.1; give 2 probabilities above 0", prior=[0.5, 0.6])
    told(r"prior is \[0.0, 1.0\], of sum 1;", prior=[0, 1])
    told(r"give 2 probabilities above 0", prior=[0.2, 0.3, 0.5])
    told("calibration: y is of torch.float64; give a tensor of integers, 0 to 1",
         error=TypeError, calibration=(x, y.double()))  # fmt: skip
    told(r"calibration: y has shape \(599,\); give a class a datum, \(600,\)",
         calibration=(x, y[1:]))  # fmt: skip
    told("calibration: y is 2 at row 7, and the classes are 0 to 1",
         calibration=(x, y.index_fill(0, torch.tensor([7]), 2)))  # fmt: skip
    told("calibration has no datum of class 1, whose probability nothing",
         calibration=(x, torch.zeros_like(y)))  # fmt: skip
    told("give data and their classes", error=TypeError, calibration=x)
    told("is of 18 data, whose least p-value is 1/19", calibration=(x[:18], y[:18]))
    told("the very data that are to be judged", data=x, calibration=(x.clone(), y))
    told("estimator 'elbo' is a bound", estimator="elbo")
    told("no option 'num_samples'", error=TypeError, num_samples=3)
    bad = x[:5].clone()
    bad[2, 1] = torch.inf
    told("x holds inf at row 2, column 1", data=bad)
    found = classified(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"y has shape \(2,\); give a class a datum, \(3,\)"):
        found.accuracy(torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="y is of torch.float32"):
        found.log_loss(torch.zeros(3, dtype=torch.float32))
