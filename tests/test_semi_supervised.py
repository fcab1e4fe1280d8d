"""The semi-supervised VAE: its evidence against closed forms, its objective against Pyro's."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from scenarios import LinearClasses

import pyrovae as pv
from pyrovae.commands import evidence, svi
from pyrovae.distributions import Label
from pyrovae.likelihoods import Normal
from pyrovae.nn import ConvClassifier, Distorted
from pyrovae.rng import seeded
from pyrovae.svi.objectives import objective_of
from pyrovae.svi.semi_supervised import SemiSupervised

K = 3
fit = partial(pv.svi.fit, progress=False)


def labels(n=8):
    """Those of every other row are missing."""
    return torch.where(torch.arange(n) % 2 == 0, torch.arange(n) // 2 % K, -1)


def bernoulli(n=8):
    """Binary data, with nets that are not flat, and a guide that is wide enough."""
    torch.manual_seed(3)
    m = pv.SemiSupervisedVAE(5, K, 1, hidden_dims=(6,))
    with torch.no_grad():
        for p in m.decoder.parameters():
            p.mul_(2).add_(0.3 * torch.randn(p.shape))
        m.encoder.last.bias[1] = 1.5
    return m, torch.bernoulli(torch.rand(n, 5))


def log_joint_bernoulli(m, x):
    """log p(x, c) of each class, `(N, K)`, by a sum over a grid of z and products over pixels."""
    z = torch.linspace(-9, 9, 4001)
    first, second = (layer for layer in m.decoder.net if isinstance(layer, torch.nn.Linear))
    columns = []
    for c in torch.eye(K):
        h = torch.cat([z[:, None], c.expand(4001, K)], 1) @ first.weight.T + first.bias
        p = torch.sigmoid(torch.tanh(h) @ second.weight.T + second.bias)  # (4001, 5)
        of_x = torch.where(x[:, None] == 1, p, 1 - p).prod(-1)  # (N, 4001)
        density = (-0.5 * z.square()).exp() / (2 * torch.pi) ** 0.5
        columns.append((of_x * density).sum(1) * (18 / 4000) / K)
    return torch.stack(columns, 1).log().detach()


def of_what_is_known(log_joint, y):
    at = log_joint.gather(1, y.clamp(min=0)[:, None])[:, 0]
    return torch.where(y >= 0, at, log_joint.logsumexp(1))


def test_every_weight_of_the_exact_guide_is_the_evidence_of_what_is_known():
    known = LinearClasses()
    m, (x, missing), y = known.vae, known.data(8), labels()
    log_joint = known.log_joint(x)
    every = torch.arange(K).repeat(8)
    for truth, rows, told in (
        (of_what_is_known(log_joint, y), x, y),
        (log_joint.logsumexp(1), x, missing),
        (log_joint.flatten(), x.repeat_interleave(K, 0), every),
    ):
        log_w = pv.importance_sampling(m.model, m.guide, rows, told, num_particles=5).log_w
        torch.testing.assert_close(log_w, truth.expand(5, -1), rtol=0, atol=1e-10)
        value = SemiSupervised(0.0).per_datum(m.model, m.guide, rows, told)
        torch.testing.assert_close(value.detach(), truth, rtol=0, atol=1e-10)
    posterior = (log_joint - log_joint.logsumexp(1, keepdim=True)).exp()
    torch.testing.assert_close(m.classify(x), posterior)


@pytest.mark.parametrize("missing", [-1, torch.nan])
def test_the_evidence_is_that_of_quadrature_and_a_sum(missing):
    m, x = bernoulli()
    y = labels()
    truth = of_what_is_known(log_joint_bernoulli(m, x), y)
    y = torch.where(y >= 0, y, missing)
    estimators = {-1: ["importance", "quadrature"]}.get(missing, ["prior", pv.AIS(20, 16)])
    options = {"num_particles": 2_000, "seed": 0, "progress": False}
    e = pv.evaluate(m.model, m.guide, x, y, estimators=estimators, **options)
    for name, each in e.estimates.items():
        assert ((each.value - truth).abs() < 4.5 * each.std_error + 1e-6).all(), name
    elbo = -Trace_ELBO(num_particles=20).loss(m.model, m.guide, x, y)
    assert elbo < truth.sum()


def test_what_it_draws_is_annealed_from_both_sides():
    m, x = bernoulli(100)
    bounds = pv.bdmc(m.model, x, labels(100), num_temperatures=40, seed=0)
    x, y = bounds.data
    assert set(y.tolist()) == {0, 1, 2}  # no label is missing of what the model draws
    truth = of_what_is_known(log_joint_bernoulli(m, x), y)
    for bound, sign in ((bounds.lower, 1), (bounds.upper, -1)):
        gap = sign * (truth - bound)
        assert gap.mean() > -4 * gap.std() / 10
        assert gap.mean() < 0.1


@pytest.mark.parametrize("told", ["all", "some", "none"])
def test_the_objective_is_pyros_with_the_class_enumerated(told):
    """Value and gradients, at the same draws; the classifier's term comes on top."""
    m, x = bernoulli()
    y = {"all": torch.arange(8) % K, "some": labels(), "none": torch.full((8,), -1)}[told]
    with seeded(0):
        value = SemiSupervised(0.0).per_datum(m.model, m.guide, x, y)
    with seeded(0):
        guide = config_enumerate(m.guide, default="parallel")
        loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(m.model, guide, x, y)
    assert value.shape == (8,)
    torch.testing.assert_close(-value.sum(), loss)
    parameters = [p for n, p in m.named_parameters() if told != "all" or "classifier" not in n]
    pairs = (torch.autograd.grad(v, parameters) for v in (-value.sum(), loss))
    for ours, pyros in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, pyros)
    with seeded(0):
        more = SemiSupervised(7.0).per_datum(m.model, m.guide, x, y)
    log_q = m.classify(x).log().gather(1, y.clamp(min=0)[:, None])[:, 0]
    torch.testing.assert_close(more, value + torch.where(y >= 0, 7 * log_q, 0.0))


def test_data_without_labels_come_to_teach_the_classifier():
    """Warm-up scales their gradient in its parameters, and no other number."""
    m, x = bernoulli()

    def gradients(objective, epoch=0):
        objective.begin(epoch)
        with seeded(0):
            value = objective.per_datum(m.model, m.guide, x, labels()).sum()
        of = [
            dict(m.named_parameters())[f"{net}.2.weight"] for net in ("classifier", "decoder.net")
        ]
        return value, *torch.autograd.grad(value, of)

    value, classifier, decoder = gradients(SemiSupervised(5.0))
    slow = SemiSupervised(5.0, warmup=4)
    log_q = m.classifier(x).log_softmax(-1)[labels() >= 0, labels()[labels() >= 0]]
    (of_labels,) = torch.autograd.grad(5 * log_q.sum(), m.classifier[2].weight)
    for epoch, share in ((0, 0.0), (1, 0.25), (4, 1.0), (9, 1.0)):
        found = gradients(slow, epoch)
        expected = of_labels + share * (classifier - of_labels)
        torch.testing.assert_close(found, (value, expected, decoder))


@pytest.mark.usefixtures("compiler")
def test_it_is_compiled():
    learned = []
    for compile in (False, True):
        m, x = bernoulli()
        run = {"num_epochs": 2, "batch_size": 8, "seed": 0, "lr": 0.01, "compile": compile}
        learned.append(fit(m.model, m.guide, (x, labels()), objective="semi-supervised", **run))
    torch.testing.assert_close(*(torch.tensor(r.elbo) for r in learned))


def test_it_learns_classes_from_two_labels_each():
    """Three clouds: without the labels no name is right, without the rest two are too few."""
    torch.manual_seed(1)
    c = torch.arange(300) % K
    x = torch.tensor([[2.0, 0, 0, 1], [-1, 2, 1, 0], [0, -2, 0, -2]])[c] + torch.randn(300, 4)
    y = torch.where(torch.arange(300) < 6, c, -1)
    m = pv.SemiSupervisedVAE(4, K, 1, (16,), Normal(sigma=1.0))
    run = {"num_epochs": 60, "batch_size": 50, "lr": 0.01, "seed": 0}
    fit(m.model, m.guide, (x, y), objective=SemiSupervised(50.0), **run)
    assert (m.classify(x).argmax(1) == c).double().mean() > 0.9
    assert m.classifier.training


def test_draws_are_those_of_the_mixture():
    known = LinearClasses()
    x = known.vae.sample(20_000, seed=0)
    mean, cov = known.locs.mean(0), known.cov + torch.cov(known.locs.T, correction=0)
    assert ((x.mean(0) - mean) / (x.std(0) / 20_000**0.5)).abs().max() < 4
    draws = torch.distributions.MultivariateNormal(mean, cov).sample((20_000,))
    assert (torch.cov(x.T) - cov).abs().max() < 6 * (torch.cov(draws.T) - cov).abs().max()


def test_images_are_distorted_while_their_classifier_trains(monkeypatch):
    """A turn by a right angle, and a move by a pixel, by hand; else they stay near."""
    x = torch.rand(5, 2, 8, 8)
    turned, moved = (torch.full((5, 5), 0.5) for _ in "ab")
    turned[0], moved[3] = 1.0, 1.0
    monkeypatch.setattr(torch, "rand", lambda *size, **options: turned)
    distort = Distorted(4.5)  # of 20 degrees
    torch.testing.assert_close(distort(x), x.rot90(1, (2, 3)))
    monkeypatch.setattr(torch, "rand", lambda *size, **options: moved)
    left = torch.nn.functional.pad(x, (0, 1))[..., 1:]
    torch.testing.assert_close(Distorted(7 / 4)(x), left)  # of a seventh of half the width
    monkeypatch.undo()
    image = torch.nn.functional.pad(torch.ones(50, 1, 4, 4), (6, 6, 6, 6))
    some = Distorted(1.0)(image)
    assert len(some.unique(dim=0)) == 50
    assert some.sum((1, 2, 3)).sub(16).abs().max() < 9
    assert torch.equal(distort.eval()(x), x)
    assert torch.equal(Distorted(0.0)(x), x)
    net = ConvClassifier((1, 4, 4), (3,), K, distortion=1.0)
    rows = torch.rand(6, 16)
    assert net(rows).shape == (6, K)
    assert net(rows[:1]).shape == (1, K)  # a last batch of one row
    assert net.training
    assert not torch.equal(net(rows), net(rows))
    assert torch.equal(net.eval()(rows), net(rows))


def test_images_are_their_rows():
    m = pv.SemiSupervisedVAE((1, 4, 4), K, 2, channels=(3,), distortion=1.0)
    x, y = torch.bernoulli(torch.rand(6, 1, 4, 4)), labels(6)
    tables = [
        pv.importance_sampling(m.model, m.guide, rows, y, num_particles=5, seed=0).log_w
        for rows in (x, x.flatten(1))
    ]
    assert torch.equal(*tables)
    assert torch.equal(m.classify(x), m.classify(x.flatten(1)))
    assert pv.SemiSupervisedVAE.from_config(m.config()).config() == m.config()
    with pytest.raises(ValueError, match="distortion is -1; give a number, 0 or more"):
        pv.SemiSupervisedVAE((1, 4, 4), K, 2, distortion=-1)


def test_labels_are_hidden_evenly():
    split = pv.data.load("digits").train
    kept = pv.data.hide_labels(split, 50, seed=1)
    known = kept.y >= 0
    assert kept.y[known].bincount().tolist() == [5] * 10
    assert torch.equal(kept.y[known], split.y[known])
    assert torch.equal(kept.x, split.x)
    assert (kept.y[~known] == -1).all()
    assert not torch.equal(kept.y, pv.data.hide_labels(split, 50, seed=2).y)
    assert (pv.data.hide_labels(split, 0).y == -1).all()
    more = pv.data.hide_labels(split, 50, seed=1, share=0.25)
    assert torch.equal(more.y[: len(split)], kept.y)
    assert abs((more.y >= 0).double().mean() - 0.25) < 0.02
    rows = [x[y >= 0].unique(dim=0) for x, y in ((more.x, more.y), (kept.x, kept.y))]
    assert torch.equal(*rows)
    for n, share, error in (
        (55, 0.0, "num_labels is 55; give a multiple of the 10 classes"),
        (5000, 0.0, "500 of each class, and of class"),
        (50, 1.0, "share is 1.0; give a number from 0 to below 1"),
    ):
        with pytest.raises(ValueError, match=error):
            pv.data.hide_labels(split, n, share=share)
    with pytest.raises(pv.data.DataError, match="have no labels"):
        pv.data.hide_labels(replace(split, y=None), 10)


@pytest.mark.usefixtures("float32")
def test_a_run_with_few_labels(tmp_path, capsys):
    """The command hides labels, tells the accuracy, and evaluates log P(X), not log P(X, y)."""
    run = f"--model semi-supervised-vae --num-labels 100 --model.z_dim 2 --out {tmp_path}/run"
    run += " --binarize static --num-epochs 3 --num-particles 50 --estimators importance"
    assert svi.main(run.split()) == 0
    told = capsys.readouterr().out
    m, test = pv.load(tmp_path / "run"), pv.data.load("digits").test
    share = (m.classify(test.x).argmax(1) == test.y).double().mean().item()
    assert f"accuracy of the test data's labels: {share:.2%}" in told
    assert "objective semi-supervised" in " ".join(told.split())
    y = torch.full_like(test.y, -1)
    again = pv.evaluate(m.model, m.guide, test.x, y, num_particles=50, seed=0, estimators="elbo")
    found = pv.runs.load_evidence(tmp_path / "run")
    assert found.protocol["accuracy"] == share
    assert abs(found["importance"].mean - again["elbo"].mean) < 1
    assert (pv.runs.read_run(tmp_path / "run").arrays(test)[1] == -1).all()
    assert evidence.main(f"{tmp_path}/run --rows 20 --estimators elbo".split()) == 0
    assert f"accuracy {share}"[:15] in " ".join(capsys.readouterr().out.split())
    assert svi.main(["--num-labels", "100", "--out", f"{tmp_path}/other"]) == 2
    assert "for a model that takes labels" in capsys.readouterr().err


def test_what_it_does_not_take_is_told():
    m, x = bernoulli()
    with pytest.raises(ValueError, match=r"takes floating \(N, 5\)"):
        m.model(x[:, :4], labels())
    with pytest.raises(ValueError, match=r"y has shape \(7,\); give a label for each row"):
        m.guide(x, labels(7))
    for wrong in (3, -2):
        with pytest.raises(ValueError, match=r"\by\b.* at row 0"):
            fit(m.model, m.guide, (x, torch.full((8,), wrong)), num_epochs=1)
    splits = pv.data.load("digits")
    hidden = replace(splits, train=replace(splits.train, y=torch.full_like(splits.train.y, -1)))
    with pytest.raises(pv.data.DataError, match="no training datum has a label"):
        pv.SemiSupervisedVAE.for_data(hidden)


def test_the_objective_says_what_it_needs():
    assert objective_of("semi-supervised") == SemiSupervised()
    with pytest.raises(ValueError, match="alpha is -1; give a number, 0 or more"):
        SemiSupervised(-1)
    vae, x = pv.VAE(4, 2), torch.ones(3, 4)
    model, guide = (lambda x, y, fn=fn: fn(x) for fn in (vae.model, vae.guide))
    with pytest.raises(ValueError, match="draws discrete latents none"):
        SemiSupervised().per_datum(model, guide, x, x[:, 0])
    with pytest.raises(TypeError, match="needs one that draws the class"):
        SemiSupervised().per_datum(vae.model, None, x)


def test_a_label_is_its_class_or_missing():
    p = Label(torch.tensor([0, 2, 1, 1]), K)
    y = torch.tensor([0.0, 1.0, -1.0, torch.nan])
    assert p.log_prob(y).tolist() == [0.0, -torch.inf, 0.0, 0.0]
    assert p.sample((2,)).tolist() == [[0, 2, 1, 1]] * 2
    assert p.expand((5, 4)).log_prob(y).shape == (5, 4)
    with pytest.raises(ValueError, match="support"):
        Label(torch.zeros(1), K, validate_args=True).log_prob(torch.tensor([3.0]))
