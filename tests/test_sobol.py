"""Quasi-random draws: finite in float32, inside their supports, and errors that cover."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from scenarios import LinearGaussian
from scipy.stats import t

import pyrovae as pv
from pyrovae.program import Quantiles

ENDS = 0.5 / 2**30  # the least and, from 1, the greatest that Sobol's points are


def test_points_next_to_one_stay_finite_in_float32(float32):
    """Of 128 x 1,024 x 50 points some are nearer to 1 than any float32 is."""
    vae = pv.VAE(x_dim=4, z_dim=50)
    x = torch.ones(128, 4)
    options = {"num_particles": 1024, "qmc": True, "block_size": 128}
    for seed in range(2):
        w = pv.importance_sampling(vae.model, vae.guide, x, seed=seed, **options)
        assert w.log_w.isfinite().all()


def test_data_of_integers_leave_the_points_alone():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Bernoulli(logits=z), obs=x.double())

    x = torch.tensor([0, 1, 1])
    w = pv.prior_sampling(model, x, num_particles=512, qmc=True, seed=0)
    torch.testing.assert_close(w.log_evidence(), torch.full((3,), 0.5).log(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "make",
    [
        lambda one: dist.Normal(0 * one, one),
        lambda one: dist.Uniform(100 * one, 101 * one),
        lambda one: dist.Uniform(-one, 3 * one),
        lambda one: dist.LogNormal(0 * one, one),
        lambda one: dist.Laplace(0 * one, one),
        lambda one: dist.Cauchy(0 * one, one),
        lambda one: dist.Exponential(one),
        lambda one: dist.HalfNormal(one),
        lambda one: dist.Gumbel(0 * one, one),
        lambda one: dist.Weibull(one, 2 * one),
        lambda one: dist.MultivariateNormal(0 * one, torch.eye(1, dtype=one.dtype)),
    ],
)
def test_quantiles_of_the_outermost_points(make, dtype):
    """They have a density, in the type of the distribution's own; in order where it has one."""
    fn = make(torch.ones(1, dtype=dtype))
    u = torch.tensor([ENDS, 1e-3, 0.5, 1 - 1e-3, 1 - ENDS], dtype=torch.float64)
    with Quantiles(u[:, None], None):
        z = pyro.sample("z", fn.expand([5, *fn.batch_shape]))
    assert z.dtype == dtype
    assert fn.log_prob(z).isfinite().all()
    assert (z.flatten().diff() > 0).all()
    if type(fn) is dist.Normal:
        assert torch.equal(z, -z.flip(0))


@pytest.mark.parametrize("width", [0.8, 1.2])
def test_intervals_cover_also_where_weights_have_a_tail(width):
    """k-hat is 0.36 under a guide of width 0.8: their spread alone covers 87 %."""
    scenario = LinearGaussian.make(x_dim=5, z_dim=2)
    x = scenario.data(400)

    def guide(x):
        with pyro.plate("data", len(x)):
            tril = width * torch.linalg.cholesky(scenario.cov)
            mean = scenario.posterior_mean(x)
            pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=tril))

    options = {"num_particles": 512, "qmc": True, "seed": 0, "block_size": 400}
    w = pv.importance_sampling(scenario.model, guide, x, **options)
    low, high = w.interval()
    stated = (high - low) / 2 / t(15).ppf(0.975)
    truth = scenario.log_evidence(x)
    covered = ((low <= truth) & (truth <= high)).double().mean()
    assert covered > 0.95 - 4 * (0.95 * 0.05 / 400) ** 0.5
    off = (w.log_evidence() - truth).square().mean().sqrt()
    assert 0.8 < stated.square().mean().sqrt() / off < 2


def test_intervals_are_those_of_student():
    log_w = torch.randn(64, 3)
    for randomizations, df in ((1, 63), (16, 15)):
        w = pv.LogWeights(log_w, randomizations=randomizations)
        low, high = w.interval(0.9)
        quantile = t(df).ppf(0.95)
        torch.testing.assert_close(high - w.log_evidence(), quantile * w.std_error())
        torch.testing.assert_close(w.log_evidence() - low, quantile * w.std_error())
    assert pv.LogWeights(log_w[:1]).interval()[0].isnan().all()
    with pytest.raises(ValueError, match=r"prob is 95; give a probability between 0 and 1"):
        w.interval(95)
