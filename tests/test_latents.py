"""What `pv.latent` says of codes, against closed forms and torch's own KL."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scenarios import LinearGaussian
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae.latents.information import information
from pyrovae.latents.walks import spherical, straight, traversals
from pyrovae.program import inspect


@pytest.fixture
def normal():
    return LinearGaussian.make(x_dim=3, z_dim=2, sigma=0.7)


def exactly(normal):
    """The exact posterior, as a guide."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(normal.posterior_mean(x), normal.cov))

    return guide


def bits(n, d):
    gen = torch.Generator().manual_seed(0)
    return torch.bernoulli(torch.full((n, d), 0.5), generator=gen)


def test_rate_and_information_of_the_exact_posterior(normal):
    found = pv.latent(normal.model, exactly(normal), normal.data(600), seed=0)
    truth = -0.5 * normal.cov.logdet().item()  # I(x; z), the prior's covariance is 1
    rate, error = found.rate()
    assert abs(rate - truth) < 4 * error
    (low, high), errors = found.information.bounds(), found.information.errors()
    assert truth - 0.15 < low < truth + 4 * errors[0]
    assert truth - 4 * errors[1] < high < truth + 0.15
    assert low < high
    assert found.information.one_prior
    assert found["z"].kl.shape == (1,)  # no product over dimensions
    assert "between" in str(found)


def test_rate_by_dimension_is_torchs():
    torch.manual_seed(0)
    vae, x = pv.VAE(4, 3, (5,)), bits(90, 4)
    found = pv.latent(vae.model, vae.guide, x, seed=0)["z"]
    q, p = vae.encode(x).base_dist, vae.prior(x).base_dist
    torch.testing.assert_close(found.divergence, kl_divergence(q, p).detach().double())
    torch.testing.assert_close(found.mean, q.mean.detach().double())
    torch.testing.assert_close(found.sd, q.stddev.detach().double())
    assert not found.error.any()
    axes, shares = found.components()
    torch.testing.assert_close(axes @ axes.T, torch.eye(3).double())
    assert shares.sum() == pytest.approx(1)


def without_mean(loc, scale):
    """A normal whose mean nobody has told torch."""
    same = dist.transforms.AffineTransform(0.0, 1.0)
    return dist.TransformedDistribution(dist.Normal(loc, scale), [same])


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_means_that_are_known_by_draws_alone_make_no_dimension_active(scale):
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))

    def prior(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def blind(x):  # the first dimension follows x, the second knows nothing of it
        loc = torch.stack([x[:, 0], 0 * x[:, 0]], 1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", without_mean(loc, scale).to_event(1))

    found = pv.latent(prior, blind, x, seed=0)["z"]
    assert found.active.tolist() == [True, False]
    assert (found.error > 0).all()
    z_scores = (found.mean[:, 1] / found.error[:, 1]).square().mean()
    assert z_scores == pytest.approx(1, abs=4 * math.sqrt(2.4 / 400))  # of Student's t, 15 degrees
    exact = math.log(1 / scale) + scale**2 / 2 - 0.5  # KL of the blind dimension
    both = found.divergence.mean() - (x[:, 0].square() / 2).double().mean()
    assert both == pytest.approx(2 * exact, abs=0.1)


@pytest.mark.parametrize("known", [True, False])
def test_activity_is_measured_by_the_priors_variance(known):
    """On any scale of z: the same program at 1/10 of it has the same active units."""
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))
    normal = dist.Normal if known else without_mean

    def make(scale):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", normal(x.new_zeros(len(x), 3), scale).to_event(1))
                pyro.sample("x", dist.Normal(z[..., :2] / scale, 1.0).to_event(1), obs=x)

        def guide(x):  # shares of the prior's variance in the means: 1/4, 0.04, 0
            loc = torch.stack([0.5 * x[:, 0], 0.2 * x[:, 1], 0 * x[:, 0]], 1)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(scale * loc, scale / 2).to_event(1))

        return pv.latent(model, guide, x, seed=0)["z"]

    for scale in (0.1, 1.0, 10.0):
        z = make(scale)
        error = 4 * scale**2 * math.sqrt(2 / (400 * (1 if known else 16)))
        assert (z.prior_variance - scale**2).abs().max() < (1e-6 * scale**2 if known else error)
        assert z.active.tolist() == [True, True, False]


def test_shares_of_topics_are_active():
    words = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]]).repeat(20, 1)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(x.new_full((len(x), 3), 20.0)))
            pyro.sample("x", dist.Multinomial(9, z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Dirichlet(20 + x))

    z = pv.latent(model, guide, words, seed=0)["z"]
    torch.testing.assert_close(z.prior_variance, torch.full((3,), 2 / 9 / 61).double())
    assert z.active.all()
    assert (z.variance < 0.01).all()


def test_layers_have_a_rate_each():
    torch.manual_seed(0)
    deep, x = pv.HierarchicalVAE(4, (3, 2), (5,)), bits(64, 4)
    found = pv.latent(deep.model, deep.guide, x, num_particles=64, seed=0)
    assert list(found.codes) == ["z2", "z1"]
    assert [len(c.kl) for c in found.codes.values()] == [2, 3]
    program = inspect(deep.model, deep.guide, x)
    z, log_q = program.propose(range(64), 2_000)
    drawn = log_q - program.log_prior(z, range(64), 2_000)  # (S, N), whose mean is the rate
    error = (drawn.var(0) / 2_000).sum().sqrt() / 64
    spread = drawn.std(0).mean() / 64  # of the layers' 64 draws, at most
    assert abs(drawn.mean() - found.rate()[0]) < 4 * (error + spread)
    assert not found["z2"].error.any()
    assert found["z1"].error.any()


def test_what_has_no_codes_says_so():
    x = torch.zeros(6, 1)

    def joint(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(1), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w[..., None], 1.0).to_event(1), obs=x)

    def common(x):
        pyro.sample("w", dist.Normal(torch.zeros(1), 1.0))

    with pytest.raises(ValueError, match="no datum has latents of its own"):
        pv.latent(joint, common, x)
    with pytest.raises(TypeError, match="the guide is None"):
        pv.latent(joint, None, x)


def test_information_is_that_of_the_first_data_in_blocks_of_any_size(normal):
    x, guide = normal.data(150), exactly(normal)
    programs = (inspect(normal.model, guide, x, block_size=size) for size in (32, 100))
    found = [information(program, 100, seed=0) for program in programs]
    assert all(len(f.lower) == 100 for f in found)
    (a, _), (b, _) = (f.bounds() for f in found)
    assert a == pytest.approx(b, abs=4 * math.hypot(*(f.errors()[0] for f in found)))


def test_one_prior_is_not_claimed_where_there_are_many():
    torch.manual_seed(0)
    cvae, x = pv.CVAE(4, 2, 2, (5,)), bits(20, 4)
    found = pv.latent(cvae.model, cvae.guide, x, torch.arange(20) % 2, seed=0)
    assert not found.information.one_prior
    assert "of all codes together" not in str(found)


def test_csv_has_a_row_for_each_datum():
    vae, x = pv.VAE(4, 2, (5,)), torch.ones(3, 4)
    lines = list(pv.latent(vae.model, vae.guide, x, seed=0).to_csv([7, 8, 9]))
    assert lines[0] == "datum,label,kl,z_1_mean,z_2_mean,z_1_sd,z_2_sd"
    assert [line.split(",")[:2] for line in lines[1:]] == [["0", "7"], ["1", "8"], ["2", "9"]]


def test_ways_from_one_code_to_another():
    a, b = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    for way in (straight, spherical):
        z = way(a, b, 5)
        torch.testing.assert_close(z[[0, 4]], torch.stack([a, b]))
    assert straight(a, b, 5)[2].norm() == pytest.approx(2**0.5)
    torch.testing.assert_close(spherical(a, b, 5).norm(dim=1), torch.full((5,), 2.0))
    angles = spherical(a, 3 * b, 5)
    angles = torch.atan2(angles[:, 1] / 3, angles[:, 0])  # even, with the lengths taken out
    torch.testing.assert_close(angles, torch.linspace(0, torch.pi / 2, 5))
    for other in (a, -a, 0 * a, 3 * a):
        torch.testing.assert_close(spherical(a, other, 4), straight(a, other, 4))
    walked = traversals(a, torch.tensor([2, 0]), -torch.ones(3), torch.ones(3), 3)
    assert walked.tolist() == [
        [[2, 0, -1], [2, 0, 0], [2, 0, 1]],
        [[-1, 0, 0], [0, 0, 0], [1, 0, 0]],
    ]
    with pytest.raises(ValueError, match="steps"):
        straight(a, b, 0)
