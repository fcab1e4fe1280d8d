"""Families of P(X|z): their draws, their supports, and what is special to one."""

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae import distributions, likelihoods

MEANS = {  # of X, given decoder outputs
    "student-t": lambda f: f,
    "log-normal": lambda f: (f + 0.5).exp(),
    "beta": lambda f, c: f.sigmoid(),
    "poisson": lambda f: f.exp(),
    "negative-binomial": lambda f, r: f.exp(),
    "binomial": lambda f: 255 * f.sigmoid(),
}


@pytest.mark.parametrize("name", MEANS)
def test_outputs_are_means_on_their_scale(name):
    family, f = likelihoods.make(name), 0.3 * torch.randn(6)
    f = f[: 3 * family.outputs]
    with torch.no_grad():
        x = family(f).sample((20_000,)).double()
        error = (x.mean(0) - MEANS[name](*f.chunk(family.outputs))) / (x.std(0) / 20_000**0.5)
    assert error.abs().max() < 4.5


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("log-normal", 2.0, 0.0),
        ("beta", 0.5, 0.0),
        ("beta", 0.5, 1.0),
        ("poisson", 3.0, 2.5),
        ("negative-binomial", 3.0, -1.0),
        ("binomial", 255.0, 256.0),
        ("categorical", 255.0, 256.0),
        ("discretized-logistic", 100 / 255, 0.5),
    ],
)
def test_data_outside_a_support_are_refused(name, good, bad):
    x = torch.full((6, 3), good)
    vae = pv.VAE(3, 2, (4,), likelihood=name)
    assert pv.importance_sampling(vae.model, vae.guide, x, num_particles=4).log_w.isfinite().all()
    x[4, 1] = bad
    with pytest.raises(ValueError, match="^[^\n]*at row 4, column 1"):  # in one line
        pv.importance_sampling(vae.model, vae.guide, x, num_particles=4)


def test_classes_have_the_mean_of_their_numbers():
    """Which pictures show; a category of torch's has none."""
    p = likelihoods.make("categorical(4)")(torch.randn(3, 2 * 4)).expand((5, 3))
    each, numbers = p.base_dist.probs, torch.arange(4.0)
    torch.testing.assert_close(p.mean, (each * numbers).sum(-1))
    torch.testing.assert_close(p.variance, (each * (numbers - p.mean[..., None]) ** 2).sum(-1))
    assert p.mean.shape == (5, 3, 2)


@pytest.mark.parametrize(("loc", "scale"), [(0.3, 0.1), (0.0, 1e-4), (1.2, 0.02), (-20.0, 0.3)])
def test_discretized_logistic_is_a_probability(loc, scale):
    """It adds up to 1, tails included, and no level is lost to rounding."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    double = (torch.tensor(number, dtype=torch.float64) for number in (loc, scale))
    p = distributions.DiscretizedLogistic(*double)
    log_p = p.log_prob(levels)
    assert log_p.logsumexp(0).abs() < 1e-9
    assert log_p.isfinite().all()
    assert torch.allclose(p.mean, (log_p.exp() * levels).sum(), atol=1e-9)
    draws = (p.sample((50_000,)) * 255).round().long()
    share = torch.bincount(draws, minlength=256) / len(draws)
    error = (share - log_p.exp()) / (log_p.exp() * (1 - log_p.exp()) / len(draws)).sqrt().clamp(
        min=1e-4
    )
    assert error.abs().max() < 5
    single = (torch.tensor(number, dtype=torch.float32) for number in (loc, scale))
    in_float32 = distributions.DiscretizedLogistic(*single)
    assert torch.allclose(
        in_float32.log_prob(levels.float()).double(), log_p, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [("student-t", {"floor": 0.1}), ("log-normal", {"floor": 0.1}), ("beta", {"most": 100.0})],
)
def test_unbounded_densities_have_a_floor(name, options):
    """However small a scale is asked for, data are not certain without end."""
    family = likelihoods.make(name, **options)
    for parameter in family.parameters():
        parameter.data.fill_(-1e3)
    f = torch.tensor([0.0, 1e3])[: family.outputs]
    x = torch.tensor([{"student-t": 0.0, "log-normal": 1.0, "beta": 0.5}[name]])
    assert 1 < family(f).log_prob(x) < 3


@pytest.mark.parametrize("name", ["poisson", "negative-binomial", "binomial", "log-normal"])
def test_start_puts_the_mean_where_the_data_are(name):
    family, x = likelihoods.make(name), torch.tensor([[3.0, 20.0, 100.0]])
    mean = family(family.start(x[0])).mean
    assert np.allclose(mean.detach() / (np.exp(0.5) if name == "log-normal" else 1), x, rtol=1e-4)


def test_options_are_checked():
    for name, options in {
        "student-t": {"df": 0.0},
        "beta": {"most": -1.0},
        "binomial": {"total_count": 0},
        "categorical": {"num_classes": 0},
        "discretized-logistic": {"levels": 1},
    }.items():
        with pytest.raises(ValueError, match=next(iter(options))):
            likelihoods.make(name, **options)


@pytest.mark.parametrize("name", ["negative-binomial", "categorical", "discretized-logistic"])
def test_is_fitted_kept_and_evaluated(name, tmp_path):
    """Of several outputs a dimension: all of them reach the decoder, and come back from a file."""
    x = {"discretized-logistic": torch.randint(256, (64, 3)) / 255}.get(
        name, torch.randint(3, (64, 3)) * 1.0
    )
    family = likelihoods.make(name, **({"num_classes": 3} if name == "categorical" else {}))
    vae = pv.VAE(3, 2, (8,), likelihood=family).start_at(x)
    pv.svi.fit(vae.model, vae.guide, x, num_epochs=30, lr=0.02, seed=0, progress=False)
    kept = pv.load(pv.save(vae, tmp_path / "vae") or tmp_path / "vae")
    options = {"num_particles": 50, "seed": 0}
    one, other = (
        pv.importance_sampling(v.model, v.guide, x, **options).log_evidence() for v in (vae, kept)
    )
    assert torch.equal(one, other)
    if name == "categorical":
        assert abs(one.mean() + 3 * np.log(3)) < 0.3  # of uniform classes, at most their entropy
