"""The mixture of Gaussians: against scikit-learn's, and its exact evidence."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

import pyrovae as pv


def blobs(n=600):
    c = torch.arange(n) % 3
    return torch.tensor([[0.0, 0.0], [4.0, 1.0], [-3.0, 5.0]])[c] + torch.randn(n, 2)


def taken_over(theirs):
    """Ours, with the parameters of scikit-learn's."""
    ours = pv.GaussianMixture(2, len(theirs.weights_), floor=1e-3)
    raw = np.log(np.expm1(np.sqrt(theirs.covariances_) - ours.floor))
    for parameter, value in (
        (ours.components.logits, np.log(theirs.weights_)),
        (ours.components.locs, theirs.means_),
        (ours.components.raw_scales, raw),
    ):
        parameter.data.copy_(torch.from_numpy(value))
    return ours


def test_is_scikit_learns_at_its_parameters():
    x = blobs()
    theirs = GaussianMixture(3, covariance_type="diag", random_state=0).fit(x)
    ours = taken_over(theirs)
    exact = pv.evaluate(ours.model, None, x, estimators="exact", progress=False)["exact"].value
    for found in (exact, ours.log_evidence(x)):
        assert np.abs(found.numpy() - theirs.score_samples(x)).max() < 1e-8
    assert np.abs(ours.responsibilities(x).numpy() - theirs.predict_proba(x)).max() < 1e-8


def test_svi_finds_the_maximum_that_em_finds():
    x = blobs()
    theirs = GaussianMixture(3, covariance_type="diag", random_state=0, tol=1e-8, max_iter=500)
    best = theirs.fit(x).score(x)
    ours = pv.GaussianMixture(2, 3).start_at(x)
    options = {"num_epochs": 200, "lr": 0.02, "batch_size": len(x), "seed": 0}
    pv.svi.fit(ours.model, ours.guide, x, progress=False, **options)
    assert ours.log_evidence(x).mean() <= best + 1e-6
    assert ours.log_evidence(x).mean() > best - 1e-3


def test_draws_are_those_of_the_mixture():
    """Their log P(X) is that of other draws, and their mean the mixture's."""
    ours = taken_over(GaussianMixture(3, covariance_type="diag", random_state=0).fit(blobs()))
    x = ours.sample(20_000, seed=1)
    weights, locs = ours.components.logits.detach().softmax(0), ours.components.locs.detach()
    error = (x.mean(0) - weights @ locs) / (x.std(0) / len(x) ** 0.5)
    assert error.abs().max() < 4
    c = torch.distributions.Categorical(weights).sample((20_000,))
    theirs = locs[c] + ours.scales.detach()[c] * torch.randn(20_000, 2)
    both = [ours.log_evidence(draws) for draws in (x, theirs)]
    error = sum(v.var() / len(v) for v in both) ** 0.5
    assert abs(both[0].mean() - both[1].mean()) < 4 * error


def test_a_component_does_not_shrink_onto_a_datum():
    """Without a floor log P(X) of the training data grows without end."""
    x = torch.cat([torch.randn(50, 2), torch.full((1, 2), 30.0)])
    ours = pv.GaussianMixture(2, 2).start_at(x)
    pv.svi.fit(ours.model, None, x, num_epochs=300, lr=0.1, batch_size=51, seed=0, progress=False)
    assert ours.scales.min() >= 0.01
    assert ours.log_evidence(x[-1:]) < np.log(1 / 51) - np.log(2 * np.pi * 0.01**2) + 0.1


@pytest.mark.parametrize("x", [torch.zeros(5, 3), torch.zeros(2, 2), torch.zeros(6)])
def test_cannot_start_at_other_data(x):
    with pytest.raises(ValueError, match=r"x has shape .*; give \(N, 2\), of 3 rows or more"):
        pv.GaussianMixture(2, 3).start_at(x)


def test_cannot_start_at_too_few_places():
    with pytest.raises(ValueError, match="x has 2 rows that differ; give 3 or more"):
        pv.GaussianMixture(2, 3).start_at(torch.eye(2).repeat(10, 1))
