"""Quadrature against closed forms, and models that scikit-learn fits and scores exactly."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scenarios import (
    BernoulliDecoder,
    Bounded,
    GammaPoisson,
    GlobalMean,
    LinearGaussian,
    Mixture,
)
from scipy.integrate import quad
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture

import pyrovae as pv


@pytest.mark.parametrize("z_dim", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sigma", [1.0, 0.03])
def test_closed_form(z_dim, sigma):
    scenario = LinearGaussian.make(x_dim=5, z_dim=z_dim, sigma=sigma)
    x = scenario.data(70)
    exact, error = pv.quadrature(scenario.model, x, with_error=True)
    off = (exact - scenario.log_evidence(x)).abs()
    assert exact.shape == (70,)
    assert off.max() < 1e-6
    assert (off <= error + 1e-11).all()
    assert (error < 1e-6).all()


def test_asymmetric_and_constrained_latents():
    scenario = GammaPoisson()
    x = scenario.data()
    exact, error = pv.quadrature(scenario.model, x, with_error=True)
    off = (exact - scenario.log_evidence(x)).abs()
    assert off.max() < 1e-6
    assert (off <= error).all()
    scenario = Bounded()
    x = scenario.data()
    torch.testing.assert_close(
        pv.quadrature(scenario.model, x), scenario.log_evidence(x), rtol=0, atol=3e-6
    )


def test_nonlinear_decoder():
    scenario = BernoulliDecoder()
    x = scenario.data(10)
    torch.testing.assert_close(
        pv.quadrature(scenario.model, x), scenario.log_evidence(x), rtol=0, atol=1e-6
    )


@pytest.mark.slow
def test_agreement_by_chance_does_not_end_it():
    """Of 300 data some lattice agrees with the coarser one by chance, far too soon."""
    scenario = BernoulliDecoder()
    x = scenario.data(300)
    exact, error = pv.quadrature(scenario.model, x, with_error=True)
    off = (exact - scenario.log_evidence(x)).abs()
    assert off.max() < 1e-7
    assert (off <= error + 1e-11).all()


def test_two_narrow_modes():
    """z^2 = x gives a mode at either root, each 40 times narrower than their distance."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 3.0))
            pyro.sample("x", dist.Normal(z.square(), 0.2), obs=x)

    x = torch.tensor([1.0, 4.0, 9.0])
    prior = torch.distributions.Normal(0.0, 3.0)

    def half(v):
        def integrand(z):
            like = torch.distributions.Normal(z * z, 0.2).log_prob(v)
            return (prior.log_prob(torch.tensor(z)) + like).exp().item()

        return quad(integrand, 0, 10, points=[v.sqrt().item()], epsabs=1e-14)[0]

    truth = torch.tensor([np.log(2 * half(v)) for v in x])
    torch.testing.assert_close(pv.quadrature(model, x), truth, rtol=0, atol=1e-6)


def test_global_and_discrete_latents():
    scenario, x = GlobalMean(), torch.tensor([0.3, 1.9, -0.4])
    exact = pv.quadrature(scenario.model, x, plate=None)
    torch.testing.assert_close(exact, scenario.log_evidence(x), rtol=0, atol=1e-6)
    mixture = Mixture()

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(mixture.probs))
            z = pyro.sample("z", dist.Normal(mixture.loc[k, 0], 0.2))
            pyro.sample("x", dist.Normal(z, 0.3), obs=x)

    log_x = dist.Normal(mixture.loc[:, 0], 0.13**0.5).log_prob(x[:, None])
    truth = (mixture.probs.log() + log_x).logsumexp(1)
    torch.testing.assert_close(pv.quadrature(model, x), truth, rtol=0, atol=1e-6)


def test_needs_no_gradient():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z.detach(), 1.0), obs=x)

    x = torch.tensor([0.3, -2.0])
    truth = dist.Normal(0.0, 2**0.5).log_prob(x)
    torch.testing.assert_close(pv.quadrature(model, x), truth, rtol=0, atol=1e-6)


def test_what_is_not_reached_is_said():
    scenario = BernoulliDecoder()
    x = scenario.data(3)
    with pytest.warns(UserWarning, match="stopped at max_points=500 for 3 of 3 data"):
        value, error = pv.quadrature(scenario.model, x, max_points=500, with_error=True)
    assert (error > 1e-6).all()
    assert ((value - scenario.log_evidence(x)).abs() <= error).all()


@pytest.mark.parametrize("z_dim", [4, 50])
def test_four_dimensions_are_too_many(z_dim):
    scenario = LinearGaussian.make(x_dim=5, z_dim=z_dim)
    message = rf"latents of a datum \('z'\) have {z_dim} continuous dimensions; quadrature takes 1"
    with pytest.raises(ValueError, match=message):
        pv.quadrature(scenario.model, scenario.data(3))


def test_nothing_is_left_to_integrate():
    scenario = Mixture()
    with pytest.raises(
        ValueError, match="none is left to integrate.* importance_sampling is exact"
    ):
        pv.quadrature(scenario.model, scenario.data())
    exact = pv.importance_sampling(
        scenario.model, scenario.no_guide, scenario.data(), num_particles=1
    )
    truth = scenario.log_evidence(scenario.data())
    torch.testing.assert_close(exact.log_evidence(), truth, rtol=0, atol=1e-10)


def test_discrete_latents_without_end_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Poisson(3.0))
            pyro.sample("x", dist.Normal(rate, 1.0), obs=x)

    with pytest.raises(ValueError, match="latent site 'rate' is Poisson: it is discrete"):
        pv.quadrature(model, torch.ones(3))


def test_nan_names_the_datum():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            scale = torch.where(x > 50, torch.nan, 1.0)
            pyro.sample("x", dist.Normal(z, scale, validate_args=False), obs=x)

    x = torch.zeros(100)
    x[77] = 60
    with pytest.raises(ValueError, match="datum 77 is NaN"):
        pv.quadrature(model, x)


@pytest.fixture(scope="module")
def table():
    return np.random.default_rng(0).normal(size=(300, 2)) @ [[1, 2, 0, 1], [0, 1, -1, 3]]


def linear(components, mean, noise):
    """x = z W + mean + noise as a Pyro program, W of shape (d, D)."""
    weight, mean, noise = map(torch.as_tensor, (components, mean, noise))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(weight)), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight + mean, noise.sqrt()).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            precision = weight / noise @ weight.T + torch.eye(len(weight))
            cov = torch.linalg.inv(precision)
            loc = (x - mean) / noise @ weight.T @ cov
            scale = 1.3 * cov.diagonal().sqrt().expand(len(x), -1)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return model, guide


def test_factor_analysis_of_sklearn(table):
    x = table + np.random.default_rng(1).normal(size=(300, 4)) * [0.5, 1.0, 0.3, 0.7]
    fitted = FactorAnalysis(2).fit(x)
    model, guide = linear(fitted.components_, fitted.mean_, fitted.noise_variance_)
    agrees(model, guide, torch.from_numpy(x[:10]), fitted.score_samples(x[:10]))


def test_probabilistic_pca_of_sklearn(table):
    x = table + np.random.default_rng(1).normal(size=(300, 4))
    fitted = PCA(2).fit(x)
    scale = np.sqrt(fitted.explained_variance_ - fitted.noise_variance_)
    noise = np.full(4, fitted.noise_variance_)
    model, guide = linear(fitted.components_ * scale[:, None], fitted.mean_, noise)
    agrees(model, guide, torch.from_numpy(x[:10]), fitted.score_samples(x[:10]))


def agrees(model, guide, x, score):
    score = torch.from_numpy(score)
    torch.testing.assert_close(pv.quadrature(model, x), score, rtol=0, atol=1e-6)
    for w in (
        pv.importance_sampling(model, guide, x, num_particles=4000, seed=0),
        pv.prior_sampling(model, x, num_particles=200_000, seed=0),
        pv.ais(model, x, guide=guide, num_temperatures=20, num_particles=400, seed=0),
    ):
        ok = ~w.bad()
        assert ok.sum() >= 5
        assert ((w.log_evidence() - score) / w.std_error())[ok].abs().max() < 4


def test_gaussian_mixture_of_sklearn(table):
    x = table + np.random.default_rng(1).normal(size=(300, 4))
    fitted = GaussianMixture(5, random_state=0).fit(x)
    probs, loc, cov = map(torch.from_numpy, (fitted.weights_, fitted.means_, fitted.covariances_))

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(probs))
            pyro.sample("x", dist.MultivariateNormal(loc[k], cov[k]), obs=x)

    w = pv.importance_sampling(model, lambda x: None, torch.from_numpy(x), num_particles=1)
    score = torch.from_numpy(fitted.score_samples(x))
    torch.testing.assert_close(w.log_evidence(), score, rtol=0, atol=1e-10)
