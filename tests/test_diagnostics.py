import warnings

import numpy as np
import pytest

from pyrovae import diagnostics

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore", FutureWarning
    )  # once a day, ArviZ 0.23 announces its successor
    import arviz


def psislw(log_w):
    """ArviZ itself: 0.23 takes log-weights, 1.x their negatives."""
    if arviz.__version__ < "1":
        return arviz.psislw(log_w.copy())
    return pytest.importorskip("arviz_stats.base").array_stats.psislw(-log_w)


def test_equals_arviz():
    # of 900 weights both generations fit 90; 0.23 rounds 3 sqrt(S) up, 1.x down
    log_w = np.random.default_rng(0).normal(size=(900, 3)) * [0.5, 2.0, 4.0]
    smoothed, k = diagnostics.psis(log_w)
    for n in range(3):
        theirs, their_k = psislw(log_w[:, n])
        np.testing.assert_allclose(smoothed[:, n], theirs)
        assert k[n] == pytest.approx(float(their_k))
    np.testing.assert_allclose(np.exp(smoothed).sum(0), 1)
    assert (np.diff(k) > 0).all()  # heavier tails, larger k-hat


def test_does_not_change_its_argument():
    log_w = np.random.default_rng(0).normal(size=(100, 2))
    before = log_w.copy()
    diagnostics.psis(log_w)
    np.testing.assert_array_equal(log_w, before)


def test_known_tail():
    # weights u**-k have a generalised Pareto tail of shape k exactly
    u = np.random.default_rng(0).uniform(size=(20_000, 1))
    for k in (0.3, 0.7, 1.2):
        assert diagnostics.pareto_k(-k * np.log(u))[0] == pytest.approx(k, abs=0.12)


def test_constant_weights_are_perfect():
    np.testing.assert_array_equal(diagnostics.pareto_k(np.full((100, 2), -3.0)), 0)


def test_rounding_noise_is_constant():
    log_w = -1234.5 + 1e-13 * np.random.default_rng(0).normal(size=(100, 1))
    assert diagnostics.pareto_k(log_w)[0] == 0


def test_minus_infinity_is_legal():
    log_w = np.random.default_rng(0).normal(size=(1000, 1))
    log_w[::2] = -np.inf
    assert np.isfinite(diagnostics.pareto_k(log_w)[0])
    log_w[3:] = -np.inf
    assert diagnostics.pareto_k(log_w)[0] == np.inf


@pytest.mark.parametrize(
    ("log_w", "low", "high"),
    [
        (lambda z, u: 3000 * z, np.inf, np.inf),  # no five weights that a double holds
        (lambda z, u: 400 * z, 50, 150),
        (lambda z, u: np.where(u < 0.02, z, -np.inf), -1, 0.7),  # fewer than the tail has
        (lambda z, u: np.where(u < 0.02, 3.0, 0.0), 0, 0),  # two values
        (lambda z, u: np.where(u < 0.02, 3 + z, 0.0), -1, 0.7),
        (lambda z, u: np.select([u < 0.01, u < 0.05, u < 0.9], [5.0, 2.0, 1.0]), 0.7, 0.8),
    ],
)
def test_a_tail_of_ties_or_of_next_to_nothing_has_a_khat(log_w, low, high):
    rng = np.random.default_rng(0)
    log_w = log_w(rng.normal(size=2000), rng.random(2000))[:, None]
    [k], [of_psis] = diagnostics.pareto_k(log_w), diagnostics.psis(log_w)[1]
    assert low <= k <= high
    assert of_psis == pytest.approx(k, abs=0.01)


def test_nan_raises():
    with pytest.raises(ValueError, match="without NaN"):
        diagnostics.psis(np.array([[0.0, np.nan]]))


def test_threshold():
    assert diagnostics.khat_threshold(1000) == pytest.approx(2 / 3)
    assert diagnostics.khat_threshold(5000) == 0.7


def test_khats_are_shrunk_as_far_as_chance_scatters_them():
    rng = np.random.default_rng(0)
    tail = np.ceil(3 * np.sqrt(1000))
    chance = 1.6 / np.sqrt(tail)
    alike = 0.6 + chance * rng.normal(size=500)
    assert diagnostics.shrunk_khat(alike, 1000).std() < 0.3 * chance
    truth = rng.normal(0.3, 0.3, size=5000)
    noisy = truth + 1.3 / np.sqrt(tail) * rng.normal(size=5000)
    shrunk = diagnostics.shrunk_khat(noisy, 1000)
    assert np.square(shrunk - truth).mean() < 0.9 * np.square(noisy - truth).mean()
    low = noisy < 0  # among those that look best, the truth is worse, and shrinking knows
    assert abs((shrunk - truth)[low].mean()) < 0.02
    assert (noisy - truth)[low].mean() < -0.03
    bad = np.append(0.1 * rng.normal(size=980), np.full(20, 0.8))  # a few that are no chance
    assert (diagnostics.shrunk_khat(bad, 1000)[-20:] == 0.8).all()
    few = np.array([0.1, np.inf])
    assert np.array_equal(diagnostics.shrunk_khat(few, 1000), few)
    kept = diagnostics.shrunk_khat(np.array([0.1, 0.2, 0.3, np.inf]), [100, 200, 1000, 5])
    assert np.isinf(kept[3])
