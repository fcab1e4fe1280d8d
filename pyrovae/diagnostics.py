"""Pareto-smoothed importance sampling on arrays, through ArviZ of either generation."""

__all__ = [
    "ecdf_band",
    "khat_threshold",
    "pareto_k",
    "psis",
    "shrunk_khat",
    "tail_khat",
    "tail_length",
]

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from math import log, log10

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from scipy.stats import binom

LEAST = log(np.finfo(np.float64).tiny)  # of the logs of weights, the largest being 1
FLAT = 1e-3  # nats that log-weights differ by in float32 where they are equal
OUTLYING = 3  # standard errors above the mean from which on a k-hat is no chance
TAIL = 1000  # largest weights that a k-hat is fitted to, at most


def psis(log_w: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    r"""Returns Pareto-smoothed, normalised log-weights `(S, N)` and their k-hat `(N,)`.

    The largest weights are replaced by quantiles of a generalised Pareto distribution fitted to
    them; its shape k-hat tells how heavy the tail of the weights is. Smoothing lowers variance; it
    brings back no mass that the proposal never visits.

    .. math::
        \Pr(w > u + y \mid w > u) \approx (1 + k y / \sigma)^{-1/k}

    for the T = min(S/5, 3 sqrt(S)) largest weights, above the next one u. Weights have finite
    moments up to 1/k: a variance for k < 1/2, a mean for k < 1.

    k-hat is 0 where the largest weights are all equal but for rounding, 1e-3 nats (a perfect
    proposal), and infinite where fewer than five positive weights make up the tail.

    Args:
        log_w: Log-weights, `(S, N)`: a `LogWeights`, tensor or array; -inf is legal, NaN is not.

    Raises:
        ValueError: If the shape is not `(S, N)` or a weight is NaN.

    References:
        Pareto smoothed importance sampling (Vehtari et al., 2024), https://jmlr.org/papers/v25/19-556.html
    """
    log_w = np.asarray(log_w, dtype=np.float64)
    if log_w.ndim != 2 or np.isnan(log_w).any():
        raise ValueError(f"log_w has shape {log_w.shape}; give (particles, data) without NaN")
    rows = np.ascontiguousarray(log_w.T)  # (N, S)
    largest = rows.max(axis=1, keepdims=True)  # (N, 1)
    rows = rows - np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        smoothed = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    size = rows.shape[1]
    tail = min(size - 1, int(_tail_length(size)))
    k = np.full(len(rows), np.inf)
    for n, row in enumerate(rows):
        order = np.argsort(row)[size - 1 - tail :]  # (T + 1,), ascending
        above, k[n] = _fitted(row[order])
        row[order[1:]] = above
        if np.isfinite(k[n]):
            smoothed[n] = row - logsumexp(row)
    return smoothed.T, k


def pareto_k(log_w: ArrayLike) -> np.ndarray:
    """Returns the Pareto k-hat `(N,)` of log-weights; see `psis`, of which it smooths nothing.

    Args:
        log_w: Log-weights, `(S, N)`: a tensor or array; -inf is legal.
    """
    rows = np.ascontiguousarray(np.asarray(log_w, dtype=np.float64).T)  # (N, S)
    size = min(rows.shape[1], tail_length(rows.shape[1]) + 1)
    return tail_khat(np.partition(rows, -size, axis=1)[:, -size:], rows.shape[1])


def tail_khat(largest: ArrayLike, num_draws: int) -> np.ndarray:
    """Returns the k-hat `(N,)` of S weights each, from the logs of their largest `(N, L)`.

    The tail that k-hat is fitted to are the `tail_length` largest; L is greater. See `psis`.
    Nothing else of the S weights enters, so that a table of them need not be kept.

    Args:
        largest: The logs of each datum's L largest weights, `(N, L)`, in any order.
        num_draws: S.
    """
    tail = min(num_draws - 1, tail_length(num_draws))
    # (N, tail + 1): the first of a row is what the tail lies above
    rows = np.sort(np.asarray(largest, dtype=np.float64), axis=1)[:, -tail - 1 :]
    top = rows[:, -1:]
    rows = rows - np.where(np.isfinite(top), top, 0.0)
    return np.array([_fitted(row)[1] for row in rows])


def tail_length(num_draws: int) -> int:
    """Returns T, how many of S weights the tail is fitted to: min(S/5, 3 sqrt(S)), at most 1000.

    ArviZ has no such limit, which S > 111,000 reach: what lies deeper in the tail than its 1000
    largest weights need not be kept to know its shape.
    """
    return min(TAIL, int(_tail_length(num_draws)))


def khat_threshold(num_particles: int) -> float:
    """Returns min(1 - 1/log10(S), 0.7), not below 0: a larger k-hat of S weights is bad.

    From there on so many weights are too few for the central limit theorem to hold of their mean,
    and with more than 0.7 hardly any number would do.

    References:
        Pareto smoothed importance sampling (Vehtari et al., 2024), https://jmlr.org/papers/v25/19-556.html

    Example:
        >>> khat_threshold(100)
        0.5
    """
    return max(0.0, min(1 - 1 / log10(num_particles), 0.7)) if num_particles > 1 else 0.0


def shrunk_khat(k: ArrayLike, num_draws: ArrayLike) -> np.ndarray:
    r"""Returns k-hats `(N,)` drawn towards their mean, as far as chance alone would scatter them.

    .. math::
        \bar k + \frac{\tau^2}{\tau^2 + s_n^2} (k_n - \bar k), \quad s_n^2 = (1 + \bar k)^2 / M_n

    with M the number of tail draws that each was fitted to, and tau^2 the variance between data
    beyond the mean s^2. Of data whose weights are equally heavy-tailed, the k-hat is lowest where
    the large weights happened to be missed, and there the estimate is furthest off: a verdict by
    each datum's own k-hat would pick those. One that lies more than 3 s_n above the mean is no
    chance and stays: a few data that the guide fits badly would be drawn down to the many that it
    fits well. Infinite k-hats stay.

    Args:
        k: A k-hat for each datum, `(N,)`.
        num_draws: S, the number of draws that each is of, one for all or `(N,)`.

    References:
        Data analysis using Stein's estimator and its generalizations (Efron and Morris, 1975),
        https://doi.org/10.1080/01621459.1975.10479864
    """
    k, num_draws = np.array(k, dtype=np.float64), np.asarray(num_draws, dtype=np.float64)
    finite = np.isfinite(k)
    if finite.sum() < 3:
        return k
    tail = np.minimum(TAIL, _tail_length(num_draws))  # M, (N,)
    mean = k[finite].mean()
    chance = (1 + max(mean, 0)) ** 2 / np.broadcast_to(tail, k.shape)[finite]
    between = max(0.0, k[finite].var(ddof=1) - chance.mean())
    drawn = mean + between / (between + chance) * (k[finite] - mean)
    outlying = k[finite] - mean > OUTLYING * np.sqrt(chance)
    k[finite] = np.where(outlying, k[finite], drawn)
    return k


def ecdf_band(num_ranks: int, most: int, prob: float = 0.95, trials: int = 4000) -> np.ndarray:
    """Returns the band `(2, most + 1)` that the ECDF of uniform ranks 0 to `most` stays in.

    With probability `prob` all of the ECDF does, which is found by simulation (seed 0): of
    binomial intervals at each point, those with just that joint coverage. ArviZ has it too, in
    places that differ between its generations and are not public in either.

    Args:
        num_ranks: Number of ranks, N.
        most: The highest rank, the number of draws that each was compared with.
        prob: That the whole ECDF of uniform ranks stays inside.
        trials: ECDFs simulated to find it.

    References:
        Graphical test for discrete uniformity and its applications in goodness-of-fit evaluation
        and multiple sample comparison (Säilynoja et al., 2022), https://arxiv.org/abs/2103.10522
    """
    rng = np.random.default_rng(0)
    share = np.arange(1, most + 2) / (most + 1)  # (most + 1,)
    counts = rng.multinomial(num_ranks, np.full(most + 1, 1 / (most + 1)), size=trials).cumsum(1)
    inner = binom(num_ranks, share[:-1])
    # (trials, most), where counts `(trials, most + 1)` end in N for all
    tail = np.minimum(inner.cdf(counts[:, :-1]), inner.sf(counts[:, :-1] - 1))
    level = np.quantile(tail.min(1), 1 - prob)  # the least of both tails over all points
    low, high = inner.ppf(level), inner.isf(level)
    ends = np.array([[1.0], [1.0]])
    return np.concatenate([np.stack([low, high]) / num_ranks, ends], axis=1)


def _tail_length(num_draws: np.ndarray | int) -> np.ndarray:
    """Returns how many of S weights the tail is fitted to: ceil(min(S/5, 3 sqrt(S)))."""
    return np.ceil(np.minimum(num_draws / 5, 3 * np.sqrt(num_draws)))


def _fitted(row: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the smoothed log-weights of a tail `(T,)` and their k-hat.

    The tail is what follows the first of the row `(T + 1,)`, in order, the last one 0. ArviZ fits
    only what is above both that first one and the least weight that a double holds: of others 0.23
    makes nothing, and 1.x NaN. Where that is flat, there is nothing to fit: k-hat is 0.
    """
    cut = max(row[0], LEAST)
    above = row[1:] > cut
    tail = row[1:][above]
    least = tail[0] if len(tail) > 4 else row[0]
    if -np.inf < row[-1] - FLAT <= least:
        return row[1:], 0.0
    if len(tail) <= 4:
        return row[1:], np.inf
    smoothed, k = _psislw(tail, cut)
    if np.isnan(k):  # of 1.x, where a quarter of the tail is equal to its least
        smoothed, k = _psislw(tail + np.linspace(0, FLAT, len(tail)), cut)
    whole = row[1:].copy()
    whole[above] = smoothed
    return whole, k


def _psislw(tail: np.ndarray, cut: float) -> tuple[np.ndarray, float]:
    """Returns ArviZ's smoothed log-weights of a tail `(T,)` above `cut`, and its k-hat."""
    psislw, sign = _arviz()
    size = len(tail)
    # of so many weights, ArviZ takes just this tail; what lies below it is not looked at
    row = np.concatenate([np.full(4 * size, cut), tail])
    with np.errstate(all="ignore"):
        smoothed, k = psislw(sign * row, 44 * size / (size + 1) ** 2)
    smoothed = np.asarray(smoothed)
    return smoothed[4 * size :] - smoothed[0] + cut, float(k)


@cache
def _arviz() -> tuple[Callable[[np.ndarray, float], tuple[np.ndarray, float]], int]:
    """Returns ArviZ's `psislw`, and the sign in which it takes log-weights: 1.x negates them."""
    with warnings.catch_warnings():
        # once a day, ArviZ 0.23 announces its refactoring when it is imported
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return import_module("arviz_stats.base").array_stats.psislw, -1
        except ModuleNotFoundError:
            return import_module("arviz").psislw, 1
