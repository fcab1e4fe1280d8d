"""The Bayesian mixture of Gaussians: against enumeration, loops, quadrature, scikit-learn."""

from itertools import permutations, product
from math import factorial, log

import numpy as np
import pytest
import torch
from sklearn.mixture import BayesianGaussianMixture
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import pyrovae as pv
from pyrovae.distributions import ExchangeableNormal, log_permanent

QUIET = {"seed": 0, "progress": False}
CENTRES = torch.tensor([[0.0, 0.0], [2.0, 1.0], [-1.5, 2.5]])


def blobs(n=12, apart=1.0):
    """n rows of three blobs, in two dimensions."""
    return apart * CENTRES.double()[torch.arange(n) % 3] + torch.randn(n, 2)


def mixture(*, x_dim=2, num_components=3, **options):
    return pv.BayesianGaussianMixture(x_dim, num_components, **{"prior_scale": 2.0, **options})


def assignments(x, m):
    """Each c, log P(x, c), and the normals P(mu | x, c), `(K, D)`: of all K^N, one by one."""
    noise, spread = m.sigma**2, m.prior_scale**2
    for c in product(range(m.num_components), repeat=len(x)):
        c, log_p, parts = torch.tensor(c), -len(x) * log(m.num_components), []
        for k in range(m.num_components):
            part = x[c == k]
            n = len(part)
            cov = noise * torch.eye(n) + spread * torch.ones(n, n)
            log_p += MultivariateNormal(torch.zeros(n), cov).log_prob(part.T).sum() if n else 0
            variance = 1 / (1 / spread + n / noise)
            parts.append((variance * part.sum(0) / noise, variance**0.5))
        loc, scale = (torch.stack([torch.as_tensor(p[i]) for p in parts]) for i in (0, 1))
        yield c, log_p, Normal(loc, scale[:, None].expand_as(loc))


@pytest.mark.parametrize(("n", "k", "sigma"), [(4, 3, 0.7), (6, 2, 1.0), (4, 1, 1.3), (1, 4, 1)])
def test_joint_evidence_is_the_sum_over_all_assignments(n, k, sigma):
    x, m = blobs(n), mixture(num_components=k, sigma=sigma)
    exact = torch.stack([log_p for _, log_p, _ in assignments(x, m)]).logsumexp(0)
    assert abs(m.joint_log_evidence(x) - exact) < 1e-10


def test_joint_evidence_is_that_of_quadrature():
    x, m = blobs(9)[:, :1], mixture(x_dim=1, num_components=2)
    found = pv.quadrature(m.model, x, plate=None)
    assert abs(found - m.joint_log_evidence(x)) < 1e-8


@pytest.mark.parametrize("sweeps", [0, 1, 1000])
def test_elbo_and_kl_are_log_p(sweeps):
    """Of Q as it was drawn, on its way, and at its best; KL by enumeration, of both parts."""
    x, m = blobs(5), mixture(sigma=0.8)
    if sweeps:
        m.cavi(x, max_sweeps=sweeps)
    log_phi = m.responsibilities(x).log()
    q = Normal(m.means.locs.detach(), m.scales.detach()[:, None].expand(3, 2))
    every = list(assignments(x, m))
    log_p = torch.stack([one for _, one, _ in every]).logsumexp(0)
    kl = 0.0
    for c, one, posterior in every:
        log_q = log_phi.gather(1, c[:, None]).sum()
        kl += log_q.exp() * (log_q - (one - log_p) + kl_divergence(q, posterior).sum())
    assert kl > 0
    assert abs(m.elbo(x) + kl - log_p) < 1e-8
    assert abs(m.joint_log_evidence(x) - log_p) < 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_elbo_rises_at_each_update_to_a_maximum(seed):
    torch.manual_seed(seed)
    x, m = blobs(200), mixture(sigma=0.9)
    elbo = m.cavi(x, tolerance=1e-10)
    assert len(elbo) > 20
    assert elbo.diff().min() > -4e-15 * elbo[-1].abs()  # the last digit of a sum of N terms
    assert abs(m.elbo(x) - elbo[-1]) < 1e-9
    for p in m.parameters():
        best = p.detach().clone()
        for step in 1e-3 * torch.randn(20, *p.shape):
            p.data.copy_(best + step)
            assert m.elbo(x) < elbo[-1]
        p.data.copy_(best)


def test_a_sweep_is_that_of_plain_loops():
    """Algorithm 2 of Blei et al., in whose formulas sigma is 1 and D too."""
    x, m = blobs(7)[:, :1], mixture(x_dim=1, prior_scale=1.5)
    loc, variance = m.means.locs[:, 0].tolist(), m.scales.square().tolist()
    m.cavi(x, max_sweeps=1)
    phi = []
    for (xn,) in x.tolist():
        row = [np.exp(mk * xn - (vk + mk**2) / 2) for mk, vk in zip(loc, variance, strict=True)]
        phi.append([r / sum(row) for r in row])
    for k in range(3):
        precision = 1 / 1.5**2 + sum(row[k] for row in phi)
        mean = sum(row[k] * xn for row, (xn,) in zip(phi, x.tolist(), strict=True)) / precision
        assert m.means.locs[k, 0].item() == pytest.approx(mean, abs=1e-12)
        assert m.scales[k].item() == pytest.approx(precision**-0.5, abs=1e-12)


def test_is_scikit_learns_with_weights_and_precisions_held():
    """There both have priors, here so narrow that they are as good as fixed at 1/K and 1."""
    x, sigma, tau, much = blobs(300, apart=1.5).numpy(), 0.9, 2.0, 1e9
    theirs = BayesianGaussianMixture(
        n_components=3,
        covariance_type="spherical",
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=much,
        mean_prior=np.zeros(2),
        mean_precision_prior=(sigma / tau) ** 2,
        degrees_of_freedom_prior=much,
        covariance_prior=much * sigma**2,
        max_iter=5000,
        tol=1e-10,
        random_state=0,
    ).fit(x)
    ours = mixture(prior_scale=tau, sigma=sigma)
    ours.start_at(torch.from_numpy(x)).cavi(torch.from_numpy(x))
    order = [np.argsort(m[:, 0]) for m in (theirs.means_, ours.means.locs.detach().numpy())]
    locs, scales = ours.means.locs.detach().numpy()[order[1]], ours.scales.detach()[order[1]]
    assert np.abs(theirs.means_[order[0]] - locs).max() < 1e-4
    theirs_scales = sigma / np.sqrt(theirs.mean_precision_[order[0]])
    assert np.abs(theirs_scales - scales.numpy()).max() < 1e-5
    phi = ours.responsibilities(torch.from_numpy(x)).numpy()[:, order[1]]
    assert np.abs(theirs.predict_proba(x)[:, order[0]] - phi).max() < 1e-4


@pytest.mark.slow
def test_svi_goes_beyond_cavi_and_not_far():
    """Its Q has c summed out: that bound is higher, and it is raised; theirs of Q(c) is not."""
    x, m = blobs(90), mixture()
    best = m.start_at(x).cavi(x)[-1].item()
    joint = {"num_particles": 5_000, "plate": None, "seed": 0}
    before = pv.importance_sampling(m.model, m.guide, x, **joint)
    options = {"lr": 0.02, "lr_schedule": "one-cycle", "batch_size": len(x)}
    pv.svi.fit(m.model, m.guide, x, num_epochs=300, **options, **QUIET)
    after = pv.importance_sampling(m.model, m.guide, x, **joint)
    errors = before.elbo_std_error(), after.elbo_std_error()
    assert before.elbo() > best + 4 * errors[0]
    assert after.elbo() > before.elbo() + 4 * sum(e**2 for e in errors) ** 0.5
    assert best - 2 < m.elbo(x) < best


def test_svi_finds_the_posterior_where_the_components_lie_apart():
    """There Q is exact: the posterior given the components, which cavi gives as well."""
    x, m = blobs(90, apart=8), mixture(prior_scale=10.0)
    m.start_at(x).cavi(x)
    locs, scales = m.means.locs.detach().clone(), m.scales.detach().clone()
    with torch.no_grad():
        m.means.locs.add_(0.3 * torch.randn(3, 2))
        m.means.log_scales.add_(1.0)
    options = {"lr": 0.05, "lr_schedule": "one-cycle", "batch_size": 30}
    fit = pv.svi.fit(m.model, m.guide, x, num_epochs=100, **options, **QUIET)
    assert abs(fit.elbo[-1] - m.elbo(x) / len(x)) < 0.1
    assert ((m.means.locs - locs) / scales[:, None]).abs().max() < 0.3
    assert (m.scales / scales).log().abs().max() < 0.2


def test_evidence_of_held_out_data_is_the_predictive_density():
    x, m = blobs(90, apart=1.5), mixture()
    m.start_at(x).cavi(x)
    held_out = m.sample(40, seed=1)
    found = pv.evaluate(m.model, m.guide, held_out, num_particles=4_000, **QUIET)["importance"]
    score = (found.value - m.log_predictive(held_out)) / found.std_error
    assert score.abs().max() < 4.5
    assert set(found.verdict()) == {"not contradicted"}  # of what the guide knows of mu


def test_exact_predictive_density_is_one():
    """It integrates to 1; and is that of Q where Q is exact."""
    x, m = blobs(5, apart=8)[:, :1], mixture(x_dim=1, prior_scale=8.0)
    grid = torch.linspace(-60, 60, 601)[:, None]
    exact = m.log_predictive(grid, x)
    assert abs(exact.exp().sum() * 0.2 - 1) < 1e-6
    near = m.log_predictive(x[:1], x)
    assert not torch.allclose(near, m.log_predictive(x[:1]), atol=1e-2)


def test_evidence_of_the_whole_set_needs_all_orders_of_the_components():
    """Far apart Q is the posterior in one order: each weight of the other guide is the answer."""
    x, m = blobs(12, apart=6), mixture(prior_scale=6.0)
    with torch.no_grad():
        m.means.locs.copy_(6 * CENTRES)
    m.cavi(x)
    exact, options = m.joint_log_evidence(x), {"num_particles": 50, "plate": None, "seed": 0}
    assert abs(m.elbo(x) + log(factorial(3)) - exact) < 1e-8
    for guide, missed in ((m.guide, log(factorial(3))), (m.exchangeable_guide, 0)):
        log_w = pv.importance_sampling(m.model, guide, x, **options).log_w
        assert (log_w + missed - exact).abs().max() < 1e-8


@pytest.mark.slow
def test_one_order_of_the_components_is_not_ok():
    """Its weights are constant, and all of them log 6 too low."""
    x, m = blobs(12, apart=5), mixture(prior_scale=6.0)
    m.start_at(x).cavi(x)
    found = pv.evaluate(m.model, m.guide, x, num_particles=1000, plate=None, **QUIET)
    assert found["importance"].verdict() == ["not contradicted"]


def test_evidence_of_the_whole_set_by_weights_that_differ():
    x, m = blobs(14, apart=4), mixture(prior_scale=6.0)
    with torch.no_grad():
        m.means.locs.copy_(4 * CENTRES)
        m.cavi(x)
        m.means.log_scales.add_(0.2)
        m.means.locs.add_(0.1)
    options = {"num_particles": 4_000, "plate": None, "seed": 0}
    w = pv.importance_sampling(m.model, m.exchangeable_guide, x, **options)
    assert abs(w.log_evidence() - m.joint_log_evidence(x)) < 4 * w.std_error()
    assert 0.005 < w.std_error() < 0.05


def test_draws_are_of_the_predictive_density():
    m = mixture()
    with torch.no_grad():
        m.means.log_scales.copy_(torch.tensor([-1.0, 0.0, 0.5]))
    x, n = m.sample(20_000, seed=1), 20_000
    mu = m.means.locs + m.scales[:, None] * torch.randn(n, 3, 2)
    theirs = mu[torch.arange(n), torch.randint(3, (n,))] + torch.randn(n, 2)
    both = [m.log_predictive(draws) for draws in (x, theirs)]
    error = sum(v.var() / n for v in both) ** 0.5
    assert abs(both[0].mean() - both[1].mean()) < 4 * error


def test_permanents_are_sums_over_permutations():
    a = torch.randn(5, 4, 4)
    plain = [a[:, range(4), order].sum(-1) for order in permutations(range(4))]
    torch.testing.assert_close(log_permanent(a), torch.stack(plain).logsumexp(0))


def test_exchangeable_normals_are_drawn_as_their_density_says():
    """The mean of p'/p over draws of p is 1, for p' that is nowhere far larger."""
    p = ExchangeableNormal(torch.randn(3, 2), torch.tensor([0.5, 1.0, 0.7]))
    v = p.sample((20_000,))
    other = ExchangeableNormal(p.locs + 0.1, 0.8 * p.scales)
    ratio = (other.log_prob(v) - p.log_prob(v)).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / 20_000**0.5
    torch.testing.assert_close(p.log_prob(v), p.log_prob(v[:, [2, 0, 1]]))
    assert (v[:, 0].mean(0) - p.locs.mean(0)).abs().max() < 4 * (v[:, 0].std() / 20_000**0.5)


@pytest.mark.parametrize("x", [torch.zeros(5, 3), torch.zeros(6), torch.zeros(5, 2).long()])
def test_takes_no_other_data(x):
    m = mixture()
    for verb in (m.model, m.cavi, m.elbo, m.responsibilities, m.log_predictive):
        with pytest.raises(ValueError, match=r"x is .*; this mixture takes floating \(N, 2\)"):
            verb(x)


def test_says_what_is_too_much():
    with pytest.raises(ValueError, match=r"their 3\^15 assignments are too many .* plate=None"):
        mixture().joint_log_evidence(blobs(15))
    with pytest.raises(ValueError, match="13 components have 8192 subsets"):
        mixture(num_components=13).exchangeable_guide(blobs())
    with pytest.raises(ValueError, match=r"x has shape \(2, 2\); give \(N, 2\), of 3 rows"):
        mixture().start_at(blobs(2))
    with pytest.raises(ValueError, match="prior_scale is 0; give a positive number"):
        mixture(prior_scale=0)
