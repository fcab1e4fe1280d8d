"""Draws from the prior that all data share: where no latent depends on them, and then alike."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scenarios import BernoulliDecoder, GammaPoisson, LinearGaussian, Mixture, TwoLevels

import pyrovae as pv
from pyrovae.evidence.samplers import sampler
from pyrovae.program import (
    evaluation,
    inspect,
    log_likelihood_of_all,
    scored_by_products,
    shares_latents,
)


def vae(likelihood):
    torch.manual_seed(0)
    return pv.VAE(x_dim=5, z_dim=2, hidden_dims=(4,), likelihood=likelihood).model


class TwoSites:
    """Two observed sites of one latent, of two event dimensions, the second one masked."""

    def model(self, x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            mean = z[..., None, None] * torch.arange(6.0).reshape(2, 3)
            pyro.sample("x", dist.Normal(mean, 0.3).to_event(2), obs=x)
            with poutine.mask(mask=y > 0):
                pyro.sample("y", dist.Normal(z, 2.0), obs=y)


SHARE = {
    "linear": (lambda: (LinearGaussian.make().model, LinearGaussian.make().data(9)), True),
    "bernoulli": (lambda: (vae("bernoulli"), torch.bernoulli(torch.full((9, 5), 0.4))), True),
    "normal": (lambda: (vae("normal"), torch.randn(9, 5)), True),
    "continuous": (lambda: (vae("continuous-bernoulli"), torch.rand(9, 5)), False),
    "poisson": (lambda: (GammaPoisson().model, GammaPoisson().data()), False),
    "two sites": (lambda: (TwoSites().model, torch.randn(9, 2, 3), torch.randn(9)), False),
    "two levels": (lambda: (TwoLevels().model, TwoLevels().data()), False),
    "mixture": (lambda: (Mixture().model, Mixture().data()), True),
}


@pytest.mark.parametrize(("make", "products"), SHARE.values(), ids=SHARE)
def test_scores_are_those_of_the_plain_way(make, products):
    """The same draws, written out for each row and scored by the model itself."""
    model, *data = make()
    program = inspect(model, None, *data)
    rows, size = range(len(program)), 7
    with evaluation(), pyro.validation_enabled(False):
        assert shares_latents(program)
        z = sampler.draw_latents(program, size)
        ours = log_likelihood_of_all(program, z, rows)
        for n in rows:
            one = inspect(model, None, *(d[n : n + 1] for d in data))
            sites = one.run(poutine.condition(model, data=z), range(1), size)
            observed = [s for s in sites if s["name"] not in z]
            plain = one.log_sum(observed, range(1), size)[:, 0]
            torch.testing.assert_close(ours[:, n], plain, rtol=1e-6, atol=1e-6)
        assert scored_by_products(program) == products


def depends_on_x(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.mean(1), 1.0))
        pyro.sample("x", dist.Normal(z[..., None] + torch.zeros(5), 1.0).to_event(1), obs=x)


def depends_on_a_constant_covariate(x, y):
    """y is 0 in all rows: no trial of numbers could tell."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0 * x[:, 0] + y, 1.0))
        pyro.sample("x", dist.Normal(z[..., None] + torch.zeros(5), 1.0).to_event(1), obs=x)


def decides_by_a_value(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(1.0 if x.sum().item() > 0 else -1.0, 1.0))
        pyro.sample("x", dist.Normal(z[..., None] + torch.zeros(5), 1.0).to_event(1), obs=x)


def depends_on_the_place(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.arange(len(x)) * 1.0, 1.0))
        pyro.sample("x", dist.Normal(z[..., None] + torch.zeros(5), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(
    "model",
    [depends_on_x, depends_on_a_constant_covariate, depends_on_the_place],
)
def test_latents_that_depend_on_the_data_are_not_shared(model):
    data = (torch.randn(6, 5), torch.zeros(6))[: model.__code__.co_argcount]
    program = inspect(model, None, *data)
    with evaluation(), pyro.validation_enabled(False):
        assert not shares_latents(program)
    weights = pv.prior_sampling(model, *data, num_particles=2000, seed=0)
    assert weights.log_w.shape == (2000, 6)


def test_a_decision_by_all_rows_makes_them_depend_on_each_other():
    x = torch.randn(6, 5)
    x[-1] = -x.sum(0)  # alone, and copied, it decides the other way
    with pytest.raises(ValueError, match="the rows depend on each other"):
        inspect(decides_by_a_value, None, x)


def test_a_likelihood_of_covariates_shares_draws_all_the_same():
    """x | z, y: z does not depend on y, so its draws serve all; each row is scored with its y."""

    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + y, 0.5), obs=x)

    x, y = torch.randn(30), torch.randn(30)
    weights = pv.prior_sampling(model, x, y, num_particles=200_000, seed=0)
    exact = dist.Normal(y, (1 + 0.25) ** 0.5).log_prob(x)
    scores = (weights.log_evidence() - exact) / weights.std_error()
    assert scores.abs().max() < 4.5


def test_each_latent_is_decoded_once_for_all_data():
    scenario, decoded = BernoulliDecoder(), []

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            decoded.append(z[..., 0].numel())
            pyro.sample("x", dist.Bernoulli(logits=scenario.logits(z)).to_event(1), obs=x)

    x = scenario.data(1000)
    pv.prior_sampling(model, x, num_particles=50_000, seed=0)
    assert sum(decoded) < 2.1 * 50_000  # once to draw it, once to score all data


def test_estimates_are_right_and_of_one_draw_whatever_the_blocks(monkeypatch):
    scenario = BernoulliDecoder()
    x = scenario.data(40)
    weights = pv.prior_sampling(scenario.model, x, num_particles=20_000, seed=0)
    scores = (weights.log_evidence() - scenario.log_evidence(x)) / weights.std_error()
    assert scores.abs().max() < 4
    monkeypatch.setattr("pyrovae.program.particles.SHARED_ROWS", 16)
    monkeypatch.setattr(sampler, "SHARED_ROWS", 16)
    monkeypatch.setattr(sampler, "SCORES", 16 * (2**20 // 40))
    parts = pv.prior_sampling(scenario.model, x, num_particles=20_000, seed=0, block_size=16)
    torch.testing.assert_close(parts.log_w, weights.log_w)
    options = dict(estimators=["prior"], num_particles=20_000, seed=0, block_size=16)
    blockwise = pv.evaluate(scenario.model, None, x, **options)["prior"]
    torch.testing.assert_close(blockwise.value, weights.log_evidence())


def spread_and_told(model, x):
    """How the mean over data spreads over 40 seeds, its error as told, and as of draws apart."""
    options = dict(estimators=["prior"], num_particles=2000)
    estimates = [pv.evaluate(model, None, x, seed=s, **options)["prior"] for s in range(40)]
    spread = torch.tensor([e.mean for e in estimates]).std().item()
    apart = sum(e.std_error.square().sum().sqrt().item() / len(x) for e in estimates)
    return spread, sum(e.monte_carlo_error for e in estimates) / 40, apart / 40


@pytest.mark.slow
def test_the_mean_error_of_shared_draws_is_honest():
    """Of like data, whose errors go together; and of all six-bit data, whose errors cancel."""
    oracle, scenario = LinearGaussian.make(), BernoulliDecoder()
    alike = oracle.data(1).expand(50, -1) + 0.01 * torch.randn(50, 5)
    spread, told, apart = spread_and_told(oracle.model, alike)
    assert spread == pytest.approx(told, rel=4 / 80**0.5)
    assert spread > 4 * apart
    spread, told, apart = spread_and_told(scenario.model, scenario.data(50))
    assert spread == pytest.approx(told, rel=4 / 80**0.5)
