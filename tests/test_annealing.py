"""Annealing against exact answers, and its bounds around them."""

from dataclasses import replace
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from scenarios import (
    BernoulliDecoder,
    Bounded,
    GammaPoisson,
    GlobalMean,
    LinearGaussian,
    Mixture,
    TwoLevels,
)

import pyrovae as pv
from pyrovae.evidence.samplers import annealing, hmc, tuning


def unbiased(log_w, truth):
    """How far mean(exp(log w - log p)) is from 1, in standard errors, over all of a table."""
    ratio = (log_w - truth).exp().flatten()
    return (ratio.mean() - 1) / (ratio.std() / len(ratio) ** 0.5)


@pytest.mark.parametrize("start", ["prior", "guide"])
@pytest.mark.parametrize("schedule", ["linear", "sigmoid", "tuned", (0, 0.01, 0.1, 0.4, 1)])
def test_weights_are_unbiased(start, schedule):
    scenario = LinearGaussian.make(sigma=1.0)
    x = scenario.data(20)
    w = pv.ais(
        scenario.model, x, guide=scenario.mean_field if start == "guide" else None,
        num_temperatures=10, num_particles=500, schedule=schedule, seed=0,
    )  # fmt: skip
    assert w.log_w.shape == (500, 20)
    assert abs(unbiased(w.log_w, scenario.log_evidence(x))) < 4


@pytest.mark.slow
@pytest.mark.parametrize("start", ["prior", "guide"])
def test_unbiased_on_twenty_seeds(start):
    scenario = LinearGaussian.make(sigma=1.0)
    x = scenario.data(5)
    guide = scenario.mean_field if start == "guide" else None
    for seed in range(20):
        w = pv.ais(
            scenario.model, x, guide=guide, num_temperatures=10, num_particles=200, seed=seed
        )
        assert abs(unbiased(w.log_w, scenario.log_evidence(x))) < 4, seed


@pytest.mark.slow
def test_error_at_a_thousand_temperatures():
    """Under 0.02 nats in the mean over data; under 0.03 for one, whose weights spread by 0.1."""
    scenario = LinearGaussian.make(x_dim=20, z_dim=10)
    x = scenario.data(20)
    w = pv.ais(
        scenario.model, x, guide=scenario.mean_field, num_temperatures=1000, num_particles=16,
        seed=0,
    )  # fmt: skip
    error = w.log_evidence() - scenario.log_evidence(x)
    assert abs(error.mean()) < 0.02
    assert error.abs().mean() < 0.03


def test_one_temperature_is_importance_sampling():
    scenario = BernoulliDecoder()
    x = scenario.data(10)
    for guide in (scenario.guide, None):
        w = pv.ais(scenario.model, x, guide=guide, num_temperatures=1, num_particles=5000, seed=0)
        assert len(w.acceptance) == 0
        assert ((w.log_evidence() - scenario.log_evidence(x)) / w.std_error()).abs().max() < 4
    scenario = LinearGaussian.make()
    x = scenario.data(10)
    w = pv.ais(scenario.model, x, guide=scenario.exact, num_temperatures=1, seed=0)
    torch.testing.assert_close(w.log_w, scenario.log_evidence(x).expand(8, 10), rtol=0, atol=1e-10)


def test_positive_and_bounded_latents():
    scenario = Bounded()
    x = scenario.data()
    truth = scenario.log_evidence(x)
    for guide in (scenario.guide, None):
        w = pv.ais(scenario.model, x, guide=guide, num_temperatures=20, num_particles=2000, seed=0)
        assert ((w.log_evidence() - truth) / w.std_error()).abs().max() < 4
        assert w.std_error().max() < 0.02
    scenario = GammaPoisson()
    x = scenario.data()
    for guide in (scenario.wide, None):
        w = pv.ais(scenario.model, x, guide=guide, num_temperatures=20, num_particles=2000, seed=0)
        assert ((w.log_evidence() - scenario.log_evidence(x)) / w.std_error()).abs().max() < 4


def test_simplex_latent():
    """Dirichlet and multinomial: the evidence is Dirichlet-multinomial."""
    alpha = torch.tensor([0.8, 2.0, 3.0])

    def model(x):
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Dirichlet(alpha))
            pyro.sample("x", dist.Multinomial(6, p, validate_args=False), obs=x)

    x = torch.tensor([[1.0, 2, 3], [6, 0, 0], [0, 0, 6]])
    truth = dist.DirichletMultinomial(alpha, 6).log_prob(x)
    w = pv.ais(model, x, num_temperatures=30, num_particles=1000, seed=0)
    assert ((w.log_evidence() - truth) / w.std_error()).abs().max() < 4


@pytest.mark.slow
def test_discrete_latents_are_summed_out():
    scenario = Mixture()
    x = scenario.data()
    truth = scenario.log_evidence(x, (1 + 0.5**2) ** 0.5)
    for guide in (scenario.guide, None):
        w = pv.ais(
            scenario.with_latent, x, guide=guide, num_temperatures=100, num_particles=200, seed=0
        )
        assert abs(unbiased(w.log_w, truth)) < 4
        assert (w.log_evidence() - truth).abs().mean() < 0.2


def test_levels_and_nested_plates():
    scenario = TwoLevels()
    x = scenario.data()
    for guide in (scenario.guide, None):
        w = pv.ais(scenario.model, x, guide=guide, num_temperatures=50, num_particles=300, seed=0)
        assert ((w.log_evidence() - scenario.log_evidence(x)) / w.std_error()).abs().max() < 4


def test_global_latents():
    scenario, x = GlobalMean(), torch.tensor([0.3, 1.9, -0.4, 1.1])

    def guide(x):
        pyro.sample("m", dist.Normal(0.0, 1.0))

    for g in (guide, None):
        w = pv.ais(scenario.model, x, guide=g, num_temperatures=20, num_particles=1000, plate=None,
                   seed=0)  # fmt: skip
        assert w.log_w.shape == (1000,)
        assert abs(w.log_evidence() - scenario.log_evidence(x)) < 4 * w.std_error()


@pytest.mark.parametrize("autoguide", [AutoNormal, AutoDiagonalNormal])
def test_guides_that_map_auxiliary_values(autoguide):
    """Pyro's autoguides draw unconstrained values and map them to latents, as points."""
    x = torch.tensor([0.3, 1.9, 0.4, 1.1])

    def model(x):
        s = pyro.sample("s", dist.Gamma(2.0, 1.5))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(s), obs=x.round())

    guide = autoguide(model, init_scale=0.5)
    guide(x)
    w = pv.ais(model, x, guide=guide, num_temperatures=20, num_particles=1000, plate=None, seed=0)
    grid = torch.logspace(-5, 2, 20_001)
    log_p = dist.Gamma(2.0, 1.5).log_prob(grid) + grid.log()
    log_p = log_p + dist.Poisson(grid[:, None]).log_prob(x.round()).sum(1)
    truth = log_p.logsumexp(0) + np.log(7 * np.log(10) / 20_000)
    assert abs(w.log_evidence() - truth) < 4 * w.std_error()
    assert w.std_error() < 0.05


def test_programs_that_do_not_broadcast_take_particles_as_rows():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            mean = z.reshape(len(x), 1)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    x = torch.tensor([[0.3], [2.0]])
    w = pv.ais(model, x, num_temperatures=5, num_particles=50, seed=0)
    truth = dist.Normal(0.0, 2**0.5).log_prob(x[:, 0])
    assert ((w.log_evidence() - truth) / w.std_error()).abs().max() < 4


def test_without_the_acceptance_step_weights_are_biased(monkeypatch):
    scenario = LinearGaussian.make(sigma=1.0)
    x = scenario.data(20)
    program = pv.program.inspect(scenario.model, None, x)
    kernel = tuning.tune(program, 30, "tuned", 2, seed=0)
    log_w, _ = annealing.anneal(program, range(20), 2000, 0, kernel)
    assert abs(unbiased(log_w, scenario.log_evidence(x))) < 4
    monkeypatch.setattr(hmc, "accept", lambda rate: torch.ones_like(rate, dtype=torch.bool))
    log_w, _ = annealing.anneal(program, range(20), 2000, 0, kernel)
    assert abs(unbiased(log_w, scenario.log_evidence(x))) > 4


def test_pilot_decides_and_is_frozen():
    """Tuning draws from streams of its own: the runs see its step sizes, never its particles."""
    scenario = LinearGaussian.make()
    x = scenario.data(70)
    program = pv.program.inspect(scenario.model, scenario.mean_field, x)
    kernel = tuning.tune(program, 20, "tuned", 2, seed=0)
    assert np.array_equal(
        kernel.temperatures, tuning.tune(program, 20, "tuned", 2, 0).temperatures
    )
    table, _ = annealing.anneal(program, range(64, 70), 4, 0, kernel)
    w = pv.ais(
        scenario.model, x, guide=scenario.mean_field, num_temperatures=20, num_particles=4,
        seed=0, chunk_size=256,
    )  # fmt: skip
    torch.testing.assert_close(w.log_w[:, 64:], table, rtol=0, atol=0)
    torch.testing.assert_close(w.step_size.numpy(), kernel.step_size, rtol=0, atol=0)
    other = replace(kernel, step_size=kernel.step_size * 0.5)
    assert not torch.equal(annealing.anneal(program, range(64, 70), 4, 0, other)[0], table)


def test_acceptance_by_temperature_is_in_the_result():
    scenario = LinearGaussian.make(x_dim=20, z_dim=10)
    w = pv.ais(
        scenario.model, scenario.data(10), guide=scenario.mean_field, num_temperatures=50, seed=0
    )
    assert w.temperatures.shape == (51,)
    assert w.acceptance.shape == w.step_size.shape == (49,)
    assert w.acceptance.mean().item() == pytest.approx(0.8, abs=0.1)
    assert w.verdict() == ["not contradicted"] * 10
    assert w.verdict(tolerance=1e-6) == ["more temperatures"] * 10
    short = pv.ais(scenario.model, scenario.data(10), num_temperatures=2, seed=0)
    assert "more temperatures" in short.verdict()
    assert repr(w).startswith("AnnealedWeights(8 x 10; log p(x) = ")


def test_tuned_schedule_makes_equal_steps():
    scenario = LinearGaussian.make(x_dim=20, z_dim=10, sigma=0.3)
    x = scenario.data(20)
    short = {}
    for schedule in ("linear", "tuned"):
        w = pv.ais(scenario.model, x, num_temperatures=100, schedule=schedule, seed=0)
        short[schedule] = (scenario.log_evidence(x) - w.log_evidence()).mean()
    assert short["tuned"] < short["linear"] / 3
    assert (w.temperatures.diff() > 0).all()


def test_seeds_and_streams():
    scenario, x = LinearGaussian.make(), LinearGaussian.make().data(4)

    def draw(seed):
        return pv.ais(scenario.model, x, num_temperatures=3, num_particles=2, seed=seed).log_w

    stream = torch.get_rng_state()
    assert torch.equal(draw(1), draw(1))
    assert torch.equal(torch.get_rng_state(), stream)
    assert not torch.equal(draw(1), draw(2))
    assert not torch.equal(draw(None), draw(None))


def test_float32_programs_stay_float32(float32):
    vae = pv.VAE(x_dim=4, z_dim=2)
    x = torch.ones(5, 4)
    w = pv.ais(vae.model, x, guide=vae.guide, num_temperatures=10, num_particles=500, seed=0)
    assert w.log_w.dtype == torch.float64
    z = (w.log_evidence() - pv.quadrature(vae.model, x)) / w.std_error()
    assert z.abs().max() < 4


@pytest.mark.slow
def test_bounds_bracket_the_truth_on_twenty_seeds():
    scenario = LinearGaussian.make(x_dim=10, z_dim=5)
    for seed in range(20):
        bounds = pv.bdmc(
            scenario.model, torch.zeros(50, 10), guide=scenario.mean_field, num_temperatures=50,
            num_particles=4, seed=seed,
        )  # fmt: skip
        truth = scenario.log_evidence(bounds.data[0])
        noise = 3 * bounds.forward.std_error().square().sum().sqrt() / 50
        assert bounds.lower.mean() - noise < truth.mean() < bounds.upper.mean() + noise
        assert bounds.gap.mean() < 0.1


@pytest.mark.slow
def test_bounds_from_the_prior():
    scenario = LinearGaussian.make(x_dim=10, z_dim=5)
    bounds = pv.bdmc(scenario.model, torch.zeros(50, 10), num_temperatures=1000, seed=0)
    truth = scenario.log_evidence(bounds.data[0])
    noise = 3 * bounds.forward.std_error().square().sum().sqrt() / 50
    assert bounds.lower.mean() - noise < truth.mean() < bounds.upper.mean() + noise
    assert bounds.gap.mean() < 0.1


@pytest.mark.slow
def test_bounds_of_a_trained_vae(float32):
    """On the digits, latent dimension 8: a gap under 0.1 nats by what it does by default."""
    splits = pv.data.load("digits")
    vae = pv.VAE(64, 8)
    pv.svi.fit(vae.model, vae.guide, splits.train.x, num_epochs=30, seed=0)
    x = splits.test.x[:100]
    bounds = pv.bdmc(vae.model, x, guide=vae.guide, seed=0)
    assert abs(bounds.gap.mean()) < 0.1
    held_out = pv.ais(vae.model, x, guide=vae.guide, seed=0)
    post = pv.importance_sampling(vae.model, vae.guide, x, num_particles=5000, seed=0)
    gap = held_out.log_evidence() - post.log_evidence()
    assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5 + 0.01


def test_reverse_weights_are_unbiased():
    """E[1/w'] = 1/p(x), for reverse runs from exact draws of the posterior."""
    scenario = LinearGaussian.make(sigma=1.0)
    for guide in (scenario.mean_field, None):
        bounds = pv.bdmc(
            scenario.model, torch.zeros(4000, 5), guide=guide, num_temperatures=10,
            num_particles=1, seed=0,
        )  # fmt: skip
        truth = scenario.log_evidence(bounds.data[0])
        assert abs(unbiased(-bounds.upper, -truth)) < 4
        assert abs(unbiased(bounds.lower, truth)) < 4
        assert bounds.gap.mean() > 0


def test_bounds_take_sizes_and_covariates_only():
    """x is drawn anew, y stays; the observed value may be columns or another shape of the data."""

    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(y, 1.0))
            pyro.sample("x0", dist.Normal(z, 1.0), obs=x[:, 0])
            pyro.sample("x1", dist.Normal(2 * z, 1.0), obs=x[:, 2])

    x, y = torch.full((300, 3), 7.0), torch.linspace(-9, 9, 300)
    bounds = pv.bdmc(model, x, y, num_temperatures=150, seed=0, chunk_size=1000)
    made, covariate = bounds.data
    assert torch.equal(covariate, y)
    assert (x == 7).all()
    assert (made[:, 1] == 7).all()
    assert ((made[:, 0] - y).mean() / (2 / 300) ** 0.5).abs() < 4
    assert ((made[:, 2] - 2 * y).mean() / (5 / 300) ** 0.5).abs() < 4
    cov = torch.tensor([[2.0, 2.0], [2.0, 5.0]])
    mean = torch.stack([y, 2 * y], 1)
    truth = dist.MultivariateNormal(mean, cov).log_prob(made[:, [0, 2]])
    assert bounds.lower.mean() - 0.02 < truth.mean() < bounds.upper.mean() + 0.02
    assert bounds.gap.mean() < 0.2
    assert "simulated from the model" in repr(bounds)
    assert "simulated" in pv.bdmc.__doc__


@pytest.mark.slow
def test_bounds_of_global_and_discrete_latents():
    scenario = GlobalMean()
    bounds = pv.bdmc(
        scenario.model, torch.zeros(6), plate=None, num_temperatures=300, num_particles=200, seed=0
    )
    truth = scenario.log_evidence(bounds.data[0])
    assert bounds.lower - 0.1 < truth < bounds.upper + 0.1
    mixture = Mixture()
    bounds = pv.bdmc(mixture.with_latent, mixture.data(200), num_temperatures=200, seed=0)
    truth = mixture.log_evidence(bounds.data[0], (1 + 0.5**2) ** 0.5)
    assert bounds.lower.mean() - 0.05 < truth.mean() < bounds.upper.mean() + 0.05


def normal_then(sample):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            sample(x, z)

    return model


@pytest.mark.parametrize(
    ("model", "guide", "message"),
    [
        (
            normal_then(lambda x, z: pyro.sample("x", dist.Poisson(
                pyro.sample("rate", dist.Poisson(3.0)) + 1 + z**2), obs=x)),
            None, "latent site 'rate' is Poisson: it is discrete and has no gradient; its values",
        ),
        (
            normal_then(lambda x, z: pyro.sample("x", dist.Normal(pyro.sample(
                "v", dist.ProjectedNormal(torch.ones(2))).sum(-1) + z, 1.0), obs=x)),
            None, "latent site 'v' is ProjectedNormal with support .*; use importance_sampling",
        ),
        (
            lambda x: normal_then(lambda x, z: pyro.sample("x", dist.Normal(z, 1.0), obs=x))(x),
            lambda x: None, "the guide misses latent site 'z'",
        ),
    ],
)  # fmt: skip
def test_programs_that_cannot_be_annealed(model, guide, message):
    with pytest.raises(ValueError, match=message):
        pv.ais(model, torch.ones(4), guide=guide, num_temperatures=3, seed=0)


def test_latents_without_gradient():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Delta(torch.zeros(len(x))))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="no gradient with respect to any continuous latent"):
        pv.ais(model, torch.ones(4), num_temperatures=3, seed=0)


def test_temperatures_may_be_an_array():
    scenario = LinearGaussian.make()
    call = partial(pv.ais, scenario.model, scenario.data(3), guide=scenario.exact, seed=0)
    b = (0.0, 0.25, 0.5, 1.0)
    for schedule in (np.array(b), torch.tensor(b)):
        assert torch.equal(call(schedule=schedule).log_w, call(schedule=b).log_w)


@pytest.mark.parametrize("schedule", [(0, 0.5), (0.1, 1), (0, 0.6, 0.4, 1), (0, 0, 1), (1,), ()])
def test_schedules_run_from_zero_to_one(schedule):
    scenario = LinearGaussian.make()
    with pytest.raises(ValueError, match="does not rise from 0 to 1"):
        pv.ais(scenario.model, scenario.data(3), schedule=schedule, seed=0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"schedule": "cubic"}, "no schedule 'cubic'; take 'linear', 'sigmoid' or 'tuned'"),
        ({"num_temperatures": 0}, "num_temperatures is 0; give a positive integer"),
        ({"num_particles": 0}, "num_particles is 0"),
        ({"num_leapfrog": 1.5}, "num_leapfrog is 1.5"),
    ],
)
def test_options_are_checked(option, message):
    scenario = LinearGaussian.make()
    with pytest.raises(ValueError, match=message):
        pv.ais(scenario.model, scenario.data(3), seed=0, **option)


def test_simulation_needs_views_of_the_data():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x * 2)

    with pytest.raises(ValueError, match="site 'x' observes a value computed from the data"):
        pv.bdmc(model, torch.ones(4), seed=0)


def test_reverse_runs_need_the_guide_inverted():
    scenario = GlobalMean()
    guide = AutoNormal(scenario.model)
    guide(torch.zeros(4))
    with pytest.raises(ValueError, match="cannot be inverted, so leave the guide out"):
        pv.bdmc(scenario.model, torch.zeros(4), guide=guide, plate=None, seed=0)


def test_nan_names_the_datum():
    def guide(x):
        with pyro.plate("data", len(x)):
            loc = torch.where(x[:, :1] > 50, torch.nan, 0.0).expand(-1, 2)
            pyro.sample("z", dist.Normal(loc, 1.0, validate_args=False).to_event(1))

    scenario = LinearGaussian.make()
    x = scenario.data(100)
    x[77] += 1000
    with pytest.raises(ValueError, match="log w is nan at particle 0 of datum 77"):
        pv.ais(
            scenario.model, x, guide=guide, num_temperatures=3, num_particles=4, chunk_size=256,
            seed=0,
        )  # fmt: skip


def test_a_proposal_whose_density_is_flat_has_no_gradient():
    """Masked, the prior's log-density is 0 whatever z is: the path begins without a force."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0).mask(False))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    annealed = pv.ais(model, torch.zeros(3), num_temperatures=10, num_particles=50, seed=0)
    assert annealed.log_evidence().isfinite().all()
