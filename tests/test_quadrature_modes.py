"""Quadrature where the posterior has modes of very different widths, and where it fails."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import nbinom

import pyrovae as pv
from pyrovae.evidence.estimate import contradicted


class SpikeAndHill:
    """z ~ N(0, I), x ~ (1 - w) N(0, I) + w N(z, s^2 I): a spike at x on the prior's hill."""

    def __init__(self, d, s, w=0.5):
        self.d, self.s, self.probs = d, s, torch.tensor([w, 1 - w])

    def data(self):
        line = torch.linspace(-2.5, 2.5, 21)
        return torch.stack([line, 0.6 * line.flip(0) ** 2 - 1], -1)[:, : self.d]

    def log_evidence(self, x):
        scales = torch.tensor([(1 + self.s**2) ** 0.5, 1.0])[:, None, None]
        log_x = dist.Normal(0.0, scales).log_prob(x).sum(-1)
        return (self.probs.log()[:, None] + log_x).logsumexp(0)

    def mixture(self, shape, loc, widths):
        scale = torch.tensor(widths)[:, None].expand(2, self.d)
        kind = dist.Categorical(self.probs.expand(*shape, 2))
        return dist.MixtureSameFamily(kind, dist.Normal(loc, scale).to_event(1))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), self.d), 1.0).to_event(1))
            loc = torch.stack([z, 0 * z], -2)
            pyro.sample("x", self.mixture(z.shape[:-1], loc, [self.s, 1.0]), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc = torch.stack([x, 0 * x], -2)
            pyro.sample("z", self.mixture(x.shape[:-1], loc, [1.5 * self.s, 1.0]))

    def hill(self, x):
        """A guide that knows nothing of the spike."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), self.d), 1.0).to_event(1))


@pytest.mark.parametrize(
    ("d", "s"),
    [
        (1, 1e-1),
        (1, 1e-2),
        (1, 1e-3),
        (1, 1e-4),
        (2, 1e-1),
        (2, 1e-2),
        pytest.param(2, 3e-2, marks=pytest.mark.slow),
    ],
)
def test_a_spike_is_found_and_resolved(d, s):
    program = SpikeAndHill(d, s)
    x = program.data()
    value, error = pv.quadrature(program.model, x, with_error=True)
    off = (value - program.log_evidence(x)).abs()
    assert off.max() < 1e-6
    assert (off <= error + 1e-11).all()
    assert error.max() < 1e-6


@pytest.mark.parametrize(("d", "s", "seed", "count"), [(2, 1e-2, 5, 8), (3, 1e-1, 16, 2)])
def test_the_error_stated_holds_for_faint_spikes(d, s, seed, count):
    """Where a cell is barely resolved, halving it along one axis tells little of the others."""
    program = SpikeAndHill(d, s, 0.01)
    x = torch.randn(count, d, generator=torch.Generator().manual_seed(seed))
    value, error = pv.quadrature(program.model, x, guide=program.guide, with_error=True)
    assert ((value - program.log_evidence(x)).abs() <= error + 1e-11).all()


@pytest.mark.parametrize("w", [0.5, 0.01])
@pytest.mark.parametrize("s", [1e-3, 1e-4])
def test_the_guide_shows_where_to_look(s, w):
    program = SpikeAndHill(2, s, w)
    x = program.data()
    value, error = pv.quadrature(program.model, x, guide=program.guide, with_error=True)
    off = (value - program.log_evidence(x)).abs()
    assert off.max() < 1e-6
    assert (off <= error + 1e-11).all()


def test_several_spikes_at_their_own_scales():
    """A spike of width 1e-3 at x + 1, one of 3e-2 at x - 1, and the hill."""
    scales, probs = torch.tensor([1e-3, 3e-2, 1.0]), torch.tensor([0.4, 0.3, 0.3])

    def likelihood(z):
        loc = torch.stack([z - 1, z + 1, 0 * z], -1)
        return dist.MixtureSameFamily(dist.Categorical(probs), dist.Normal(loc, scales))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", likelihood(z), obs=x)

    x = torch.linspace(-1, 1, 9)
    means = torch.tensor([-1.0, 1.0, 0.0])
    widths = (scales.square() + torch.tensor([1.0, 1.0, 0.0])).sqrt()
    truth = (probs.log() + dist.Normal(means, widths).log_prob(x[:, None])).logsumexp(1)
    torch.testing.assert_close(pv.quadrature(model, x), truth, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_correlated_and_kinked_densities_are_honest():
    """A decoder of ReLUs has a kink on each of its lines, where no polynomial fits."""
    generator = torch.Generator().manual_seed(0)
    w1, b1 = torch.randn(2, 30, generator=generator), torch.randn(30, generator=generator)
    w2 = 0.5 * torch.randn(30, 20, generator=generator)

    def likelihood(z):
        return dist.Bernoulli(logits=(z @ w1 + b1).relu() @ w2).to_event(1)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", likelihood(z), obs=x)

    z = torch.randn(3, 2, generator=generator)
    x = torch.bernoulli(likelihood(z).base_dist.probs, generator=generator)
    line = torch.linspace(-6, 6, 1201)
    grid = torch.cartesian_prod(line, line)
    log_prior = dist.Normal(0.0, 1.0).log_prob(grid).sum(-1)
    fn = likelihood(grid)
    truth = torch.stack([(log_prior + fn.log_prob(row)).logsumexp(0) for row in x])
    truth += 2 * torch.log(torch.tensor(12 / 1200))
    value, error = pv.quadrature(model, x, tolerance=1e-4, with_error=True)
    assert ((value - truth).abs() <= error + 1e-5).all()  # the grid's own error is 1e-5
    assert error.max() < 1e-4


def test_an_estimate_above_the_answer_is_its_error():
    """A spike of width 1e-5 in two dimensions, seen by importance sampling alone."""
    program = SpikeAndHill(2, 1e-5)
    x = program.data()[:4]
    names = ["importance", "quadrature"]
    found = pv.evaluate(program.model, program.guide, x, estimators=names, seed=0)
    off = (found["quadrature"].value - program.log_evidence(x)).abs()
    assert (off <= found["quadrature"].std_error).all()
    lost = pv.evaluate(program.model, program.hill, x, estimators=["quadrature"], seed=0)
    both = contradicted(lost["quadrature"], [found["importance"]])
    assert (lost["quadrature"].std_error < 1e-3).all()  # nobody tells it
    assert (both.std_error > 0.5).all()
    assert both.verdict() == ["use ais"] * 4


def test_a_guide_that_cannot_be_used_is_no_hindrance():
    program = SpikeAndHill(1, 0.1)
    x = program.data()

    def point(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x, event_dim=1))

    found = pv.evaluate(program.model, point, x, estimators=["quadrature"], seed=0)
    off = (found["quadrature"].value - program.log_evidence(x)).abs()
    assert off.max() < 1e-6


@pytest.mark.parametrize("a", [0.9, 0.3, 0.05])
def test_a_density_that_is_infinite_at_an_end_of_its_support(a):
    """Gamma(a), a < 1: far out z rounds to 0, in float32 before a 200th of Gamma(0.05) is seen."""

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(torch.full_like(x, a), 0.01))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    x = torch.tensor([0.0, 1.0])
    truth = torch.from_numpy(nbinom.logpmf(x.numpy(), a, 0.01 / 1.01))
    torch.testing.assert_close(pv.quadrature(model, x), truth, rtol=0, atol=1e-6)
    if a == 0.05:
        with pytest.raises(ValueError, match="is (NaN or )?inf"):
            pv.quadrature(model, x.float())


def test_rounding_is_stated_and_ends_the_refinement(float32):
    program = SpikeAndHill(1, 1e-3)
    x = program.data().float()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="quadrature stopped")
        value, error = pv.quadrature(program.model, x, with_error=True)
    off = (value - program.log_evidence(x.double())).abs()
    assert (off <= error).all()
    assert error.max() < 1e-3
