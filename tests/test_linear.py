import numpy as np
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA

import pyrovae as pv


def test_log_evidence_and_posterior_are_exact():
    linear = pv.LinearGaussian(x_dim=5, z_dim=2, sigma=0.7)
    with torch.no_grad():
        linear.decoder.bias.copy_(torch.arange(5.0))
    x = linear.sample(40)
    w, m = linear.decoder.weight.detach(), linear.decoder.bias.detach()
    cov = w @ w.T + 0.49 * torch.eye(5)
    truth = multivariate_normal(m.numpy(), cov.numpy()).logpdf(x.numpy())
    assert np.allclose(linear.log_evidence(x).numpy(), truth, atol=1e-10)
    log_w = pv.importance_sampling(linear.model, linear.guide, x, num_particles=7).log_w
    assert np.allclose(log_w.numpy(), truth, atol=1e-10)


def test_draws_have_the_mean_and_covariance_of_the_model():
    linear = pv.LinearGaussian(x_dim=3, z_dim=2)
    x = linear.sample(100_000)
    w = linear.decoder.weight.detach()
    cov = w @ w.T + torch.eye(3)
    assert (x.mean(0) / (cov.diagonal() / len(x)).sqrt()).abs().max() < 4
    error = ((cov.diagonal()[:, None] * cov.diagonal() + cov**2) / len(x)).sqrt()
    assert ((x.T.cov() - cov) / error).abs().max() < 4


def test_learns_what_pca_finds():
    """The maximum of the likelihood is known: Tipping and Bishop, equation 7."""
    truth = pv.LinearGaussian(x_dim=6, z_dim=2, sigma=0.5)
    x = truth.sample(500)
    linear = pv.LinearGaussian(x_dim=6, z_dim=2, sigma=None)
    pv.svi.fit(linear.model, linear.guide, x, num_epochs=300, batch_size=500, lr=0.02, seed=0)
    best = PCA(n_components=2).fit(x.numpy()).score(x.numpy())
    assert abs(linear.log_evidence(x).mean().item() - best) < 0.01


def test_a_perfect_guide_is_trusted_in_float32(float32):
    """Its weights are constant but for rounding, whose k-hat means nothing."""
    linear = pv.LinearGaussian(x_dim=20, z_dim=5, sigma=0.7)
    w = pv.importance_sampling(
        linear.model, linear.guide, linear.sample(100), num_particles=2000, seed=0
    )
    assert w.log_w.std(0).max() > 0
    assert set(w.verdict()) == {"not contradicted"}
    assert (w.pareto_k() == 0).all()
