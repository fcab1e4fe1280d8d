"""Draws with weights, against closed forms: normals, mixtures, topics; annealed where it needs."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scenarios import LinearGaussian

import pyrovae as pv


@pytest.fixture
def normal():
    return LinearGaussian.make(x_dim=3, z_dim=2, sigma=0.7)


def cov(z):
    """z z', from which the second moments are read."""
    return z["z"][..., :, None] * z["z"][..., None, :]


@pytest.mark.parametrize("guide", ["mean_field", None])
def test_mean_and_covariance_of_a_linear_gaussian(normal, guide):
    x = normal.data(100)
    d = pv.posterior(normal.model, guide and getattr(normal, guide), x, seed=0)
    mean, error = d.expectation(lambda z: z["z"]), d.std_error(lambda z: z["z"])
    exact = normal.posterior_mean(x).double()
    assert ((mean - exact) / error).square().mean().sqrt() == pytest.approx(1, abs=0.25)
    second = normal.cov.double() + exact[:, :, None] * exact[:, None, :]
    error = d.std_error(cov)
    assert ((d.expectation(cov) - second) / error).square().mean().sqrt() < 1.3
    assert set(d.verdict()) == {"not contradicted"}


def test_intervals_cover(normal):
    x = normal.data(2_000)
    d = pv.posterior(normal.model, normal.mean_field, x, num_particles=200, seed=0)
    low, high = d.interval(lambda z: z["z"][..., 0], 0.9)
    exact = normal.posterior_mean(x).double()[:, 0]
    share = ((low < exact) & (exact < high)).double().mean().item()
    assert abs(share - 0.9) < 4 * math.sqrt(0.09 / 2_000)


def test_the_exact_posterior_has_equal_weights(normal):
    d = pv.posterior(normal.model, normal.exact, normal.data(5), num_particles=50, seed=0)
    torch.testing.assert_close(d.ess(), torch.full((5,), 50.0).double(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("block_size", [7, 64])
def test_draws_are_the_same_again_and_do_not_move_the_callers_stream(normal, block_size):
    x = normal.data(20)
    d = pv.posterior(
        normal.model, normal.mean_field, x, num_particles=100, seed=3, block_size=block_size
    )
    state = torch.get_rng_state()
    a, b = (d.resample(9)["z"] for _ in range(2))
    assert torch.equal(a, b)
    assert a.shape == (9, 20, 2)
    assert torch.equal(torch.get_rng_state(), state)
    same = pv.importance_sampling(normal.model, normal.mean_field, x, num_particles=5_000, seed=1)
    off = (d.weights.log_evidence() - same.log_evidence()) / d.weights.std_error()
    assert off.square().mean().sqrt() < 1.6  # the table is the one of log p(x)


def test_resampled_and_predicted(normal):
    """z ~ N(m, C) given x, and x anew ~ N(W m + b, W C W' + s^2 I)."""
    x = normal.data(6)
    d = pv.posterior(normal.model, normal.mean_field, x, num_particles=4_000, seed=0)
    z, again = d.resample(3_000)["z"].double(), d.predict("x", 3_000).double()
    m = normal.posterior_mean(x).double()
    # of draws from draws: the error of the weights comes on top of that of resampling
    error = (z.var(0) * (1 / 3_000 + 1 / d.ess()[:, None])).sqrt()
    assert ((z.mean(0) - m) / error).abs().max() < 4.5
    w = normal.weight.double()
    mean = m @ w.T + normal.mean.double()
    spread = w @ normal.cov.double() @ w.T + normal.sigma**2 * torch.eye(3)
    assert again.shape == (3_000, 6, 3)
    error = (again.var(0) * (1 / 3_000 + 1 / d.ess()[:, None])).sqrt()
    assert ((again.mean(0) - mean) / error).abs().max() < 4.5
    ratio = again.var(0) / spread.diagonal()
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / 3_000 + 2 / d.ess().min())
    assert torch.equal(d.predict("z", 7), d.resample(7)["z"])
    assert torch.equal(d.mean_of("z"), d.expectation(lambda z: z["z"]))
    assert (d.mean_of("x") - mean).abs().max() < 0.1
    with pytest.raises(ValueError, match="the model has no site 'y'; choose of z, x"):
        d.predict("y")


def test_what_importance_sampling_misses_is_annealed(normal):
    """A guide far off, where a weight of 1,000 has it all: annealed particles are right."""
    x = normal.data(12)

    def far(x):
        with pyro.plate("data", len(x)):
            loc = normal.posterior_mean(x) + 3
            pyro.sample("z", dist.Normal(loc, 0.3).to_event(1))

    state = torch.get_rng_state()
    plain = pv.posterior(normal.model, far, x, num_temperatures=0, seed=0)
    assert "use ais" in plain.verdict()
    d = pv.posterior(normal.model, far, x, num_temperatures=200, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert (d.num_temperatures == 200).all()
    assert (d.weights.num_draws == 64).all()
    exact = normal.posterior_mean(x).double()
    mean, error = d.expectation(lambda z: z["z"]), d.std_error(lambda z: z["z"])
    assert ((mean - exact) / error).square().mean().sqrt() < 1.5
    assert d.verdict().count("not contradicted") >= 6  # the others say "more temperatures"
    off = plain.expectation(lambda z: z["z"]) - exact
    assert off.abs().mean() > 4 * (mean - exact).abs().mean()
    z = d.resample(500)["z"].double()
    assert (z.mean(0) - exact).abs().max() < 5 * error.max()


def mixture(x):
    loc = torch.tensor([-2.0, 0.0, 3.0])
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(torch.tensor([0.5, 0.3, 0.2])))
        pyro.sample("x", dist.Normal(loc[c], 1.0), obs=x)


def test_responsibilities_of_a_mixture():
    x = torch.linspace(-3, 4, 20)
    d = pv.posterior(mixture, None, x, num_particles=4_000, seed=0)

    def one_hot(z):
        return torch.nn.functional.one_hot(z["c"].long(), 3).double()

    loc, weight = torch.tensor([-2.0, 0.0, 3.0]), torch.tensor([0.5, 0.3, 0.2])
    exact = (dist.Normal(loc, 1.0).log_prob(x[:, None]) + weight.log()).softmax(1).double()
    error = (exact * (1 - exact) / 4_000).sqrt() + 1e-4
    assert ((d.expectation(one_hot) - exact) / error).abs().max() < 4.5
    again = d.predict("x", 2_000)
    mean = (exact * loc).sum(1)
    assert ((again.mean(0) - mean) / (again.std(0) / 2_000**0.5)).abs().max() < 5


def test_a_class_beside_a_latent_is_drawn_given_both():
    """c is summed out, z drawn by a guide; both have their exact joint posterior."""
    x = torch.tensor([-1.0, 0.3, 2.0])

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.4))
            z = pyro.sample("z", dist.Normal(3 * c, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 2.0))

    d = pv.posterior(model, guide, x, num_particles=8_000, seed=0)
    log_p = dist.Normal(torch.tensor([0.0, 3.0]), 2**0.5).log_prob(x[:, None])
    one = (log_p + torch.tensor([0.6, 0.4]).log()).softmax(1)[:, 1].double()
    p = d.expectation(lambda z: z["c"])
    assert ((p - one) / d.std_error(lambda z: z["c"])).abs().max() < 4
    both = d.expectation(lambda z: z["c"] * z["z"])  # p(c = 1 | x) E[z | x, c = 1]
    error = d.std_error(lambda z: z["c"] * z["z"])
    assert ((both - one * (x + 3).double() / 2) / error).abs().max() < 4


def test_against_quadrature():
    torch.manual_seed(0)
    vae = pv.VAE(6, 1, (5,))
    x = (torch.rand(9, 6) < 0.5).to(torch.get_default_dtype())
    d = pv.posterior(vae.model, vae.guide, x, num_particles=4_000, seed=0)
    grid = torch.linspace(-8, 8, 4_001)[:, None]
    with torch.no_grad():
        log_p = vae.decode(grid).log_prob(x[:, None]) - grid[:, 0] ** 2 / 2  # (N, G)
    exact = (log_p.double().softmax(1) * grid[:, 0]).sum(1)
    mean, error = d.expectation(lambda z: z["z"][..., 0]), d.std_error(lambda z: z["z"][..., 0])
    assert ((mean - exact) / error).abs().max() < 4


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda z: z["z"].mean(0), "return .draws, data, ...."),
        (lambda z: z["z"] / 0 * 0, "fn returned NaN for datum 0"),
    ],
)
def test_functions_that_are_none(normal, fn, words):
    d = pv.posterior(normal.model, normal.exact, normal.data(5), num_particles=50, seed=0)
    with pytest.raises(ValueError, match=words):
        d.expectation(fn)


def test_a_datum_without_any_weight_has_no_expectation():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.factor("in", torch.where(z > x, 0.0, -torch.inf))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    x = torch.tensor([0.0, 30.0])
    d = pv.posterior(model, guide, x, num_particles=50, num_temperatures=0, seed=0)
    for asked in (lambda: d.expectation(lambda z: z["z"]), lambda: d.resample(3)):
        with pytest.raises(ValueError, match="all 50 draws of datum 1 have weight 0"):
            asked()


def test_latents_of_all_data_are_refused():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="latent 'w' is common to all data"):
        pv.posterior(model, guide, torch.zeros(5))
    with pytest.raises(ValueError, match="plate is None"):
        pv.posterior(model, guide, torch.zeros(5), plate=None)
