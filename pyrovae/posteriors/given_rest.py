"""Log p of each column of a datum given the others: it tells which of them is odd."""

__all__ = ["GivenRest", "given_rest"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from pyrovae.checks import check_gaps_tell_nothing, check_options, may_be_missing, shown
from pyrovae.equality import ByContent
from pyrovae.evidence.estimators.base import Estimator
from pyrovae.posteriors.scores import MISSING, ScoreOptions, badness, held, scored, scorer
from pyrovae.rng import draw_seed, stream_seed
from pyrovae.threads import one_at_a_time

NUMBERS = 2**24  # of copies of data with a gap each, held at a time
STREAM = 50


@dataclass(frozen=True, repr=False, eq=False)
class GivenRest(ByContent):
    r"""log p of C columns of each of N data given the datum's other columns.

    Attributes:
        columns: Their numbers, C of them.
        log_p: :math:`\log p(x_{nd} | x_{n, \text{rest}})`, `(N, C)`, nats, float64; NaN where
            :math:`x_{nd}` is itself missing: what is not there has no probability.
        std_error: Its standard error, both estimates' together, `(N, C)`, nats.
        words: Of each number, N lists of C: the worse of both estimates' verdicts; "missing".
    """

    columns: tuple[int, ...]
    log_p: Tensor
    std_error: Tensor
    words: list[list[str]]

    def __repr__(self) -> str:
        n, c = self.log_p.shape
        if self.log_p.isnan().all():
            return f"GivenRest({n} x {c}; none is known)"
        row, place = divmod(int(self.log_p.nan_to_num(torch.inf).argmin()), c)
        least = f"{self.log_p[row, place]:.3f} nats, column {self.columns[place]} of datum {row}"
        return f"GivenRest({n} x {c}; least {least})"

    @property
    def verdict(self) -> list[str]:
        """Of each datum the worst word of its columns; "missing" where all are."""
        return [max(words, key=badness) for words in self.words]

    def oddest(self, row: int, count: int = 3) -> list[tuple[int, float, float, str]]:
        """Returns the columns of least log p of a datum: number, log p, its error, and its word.

        Args:
            row: Number of the datum.
            count: Columns at most.
        """
        order = self.log_p[row].nan_to_num(torch.inf).argsort()[:count].tolist()
        log_p, error = self.log_p[row].tolist(), self.std_error[row].tolist()
        known = [i for i in order if log_p[i] == log_p[i]]
        return [(self.columns[i], log_p[i], error[i], self.words[row][i]) for i in known]


@one_at_a_time
def given_rest(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: Tensor,
    columns: Sequence[int] | None = None,
    estimator: Estimator | str | None = None,
    seed: int | None = None,
    **options: Unpack[ScoreOptions],
) -> GivenRest:
    r"""Returns log p of each column of each datum given its other columns, `(N, C)`, nats.

    .. math::
        \log p(x_{nd} | x_{n, \text{rest}}) = \log p(x_n) - \log p(x_{n, \text{rest}}), \quad
        \mathrm{se}^2 = \mathrm{se}(x_n)^2 + \mathrm{se}(x_{n, \text{rest}})^2

    of a model in which NaN is missing: the rest is x with NaN in the column. Both terms come from
    one estimator and draws of their own, C + 1 evaluations a datum. Where P(X) is a density, so is
    this, in the column's own unit: columns of other units or spreads are not compared by it alone.

    Args:
        model: A Pyro callable of `*data` that takes NaN for missing, as those of this package.
        guide: Another; `None` where none is needed.
        data: Tensors of equal length N, as the program takes them; the columns are those of the
            first, `(N, D)`, of images their numbers in a row.
        columns: Which, by number from 0; `None` for all D.
        estimator: One, such as `pv.AIS()`, or its name; `None` for importance sampling from
            `pv.Laplace()`, where the model has a gradient: see `pyrovae.posteriors.scores`.
        seed: Fixes the draws; `None` draws a seed.
        **options: `num_particles`, S (1,000), of the usual estimator or one that is named; and
            `plate`, `block_size`, `chunk_size`, `compile`, `workers`, `progress`, as of
            `evaluate`.

    Raises:
        ValueError: If the model takes no NaN for missing, there is no such column, or the
            estimator is a bound by an unknown gap, as the ELBO is.
        TypeError, ValueError: As `evaluate`.

    Example:
        >>> import pyrovae as pv
        >>> vae, x = pv.VAE(x_dim=4, z_dim=2), torch.ones(3, 4)
        >>> found = given_rest(vae.model, vae.guide, x, columns=[0, 3], seed=0)
        >>> found.log_p.shape
        torch.Size([3, 2])
    """
    check_options(options, ScoreOptions, given_rest)
    if 0 not in may_be_missing(model):
        raise ValueError(
            "the model does not say that NaN is missing in its data, so that nothing is known of "
            "a column given the rest; take a VAE of this package, or mark yours with "
            "pyrovae.checks.nan_is_missing and leave NaN out of its densities"
        )
    check_gaps_tell_nothing(model, "log p of a column given the rest")
    data = held(model, data)
    x, seed = data[0], draw_seed(seed)
    if not x.is_floating_point():
        raise TypeError(f"x is of {x.dtype}, which has no NaN; give floats")
    width = x[0].numel()
    chosen = _chosen(columns, width)
    asked = scorer(estimator, model, guide, *data, options=options)
    size = max(1, NUMBERS // ((len(chosen) + 1) * width))
    parts = []
    for first in range(0, len(x), size):
        some = tuple(d[first : first + size] for d in data)
        fixed = stream_seed(seed, STREAM, first)
        parts.append(_of_rows(asked, (model, guide), some, chosen, fixed, options))
    log_p, error, words = zip(*parts, strict=True)
    return GivenRest(chosen, torch.cat(log_p), torch.cat(error), sum(words, []))


def _chosen(columns: Sequence[int] | None, width: int) -> tuple[int, ...]:
    """Returns the numbers of the columns.

    Args:
        columns: As the user named them.
        width: D.

    Raises:
        ValueError: If there is no such column, or none is named.
    """
    if columns is None:
        return tuple(range(width))
    numbers = torch.as_tensor(columns)
    whole = numbers.ndim == 1 and numbers.numel() and not numbers.is_floating_point()
    if not whole or numbers.dtype == torch.bool or not 0 <= numbers.min() <= numbers.max() < width:
        raise ValueError(
            f"columns is {shown(columns)}; give a list of numbers from 0 to {width - 1}"
        )
    return tuple(numbers.tolist())


def _of_rows(
    asked: Estimator,
    pair: tuple[Callable[..., object], Callable[..., object] | None],
    data: tuple[Tensor, ...],
    columns: tuple[int, ...],
    seed: int,
    options: ScoreOptions,
) -> tuple[Tensor, Tensor, list[list[str]]]:
    """Returns log p, its errors, `(n, C)` each, and words of n data.

    Whole data, and a copy with a gap for each number that is not missing, are evaluated together.

    Args:
        asked: The estimator.
        pair: Model and guide.
        data: `(n, ...)` each.
        columns: Their C numbers.
        seed: Of the draws.
        options: Of `given_rest`.
    """
    x, n = data[0], len(data[0])
    flat, number = x.reshape(n, -1), torch.tensor(columns, device=x.device)
    row, place = (~flat[:, number].isnan()).nonzero(as_tuple=True)  # (K,) each
    index = torch.cat([torch.arange(n, device=x.device), row])
    table = flat[index]
    table[n + torch.arange(len(row), device=x.device), number[place]] = torch.nan
    table = table.reshape(-1, *x.shape[1:])
    e, _ = scored(asked, pair, (table, *(d[index] for d in data[1:])), seed, options)
    at, row = (row.cpu(), place.cpu()), row.cpu()
    log_p = torch.full((n, len(columns)), torch.nan, dtype=torch.float64)
    error, words = log_p.clone(), [[MISSING] * len(columns) for _ in range(n)]
    log_p[at] = e.value[:n][row] - e.value[n:]
    error[at] = torch.hypot(e.std_error[:n][row], e.std_error[n:])
    said = e.verdict()
    for i, j, word in zip(*(t.tolist() for t in at), said[n:], strict=True):
        words[i][j] = max(said[i], word, key=badness)
    return log_p, error, words
