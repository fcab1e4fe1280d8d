"""In which order data stand: by log P(x) or along a latent, with intervals of their ranks."""

__all__ = ["HEADER", "Ordered", "order"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Unpack, cast

import torch
from scipy.stats import kendalltau, spearmanr
from torch import Tensor

from pyrovae.checks import check_options, shown
from pyrovae.equality import ByContent
from pyrovae.evidence.confirmed import ROUNDING
from pyrovae.evidence.estimators.base import Estimator
from pyrovae.evidence.reductions import interval
from pyrovae.posteriors.draws import Function, posterior
from pyrovae.posteriors.scores import ScoreOptions, doubted, held, scored, scorer, trusted
from pyrovae.program import Values
from pyrovae.rng import draw_seed
from pyrovae.storage import line_of_csv
from pyrovae.text import aligned
from pyrovae.threads import one_at_a_time

HEADER = "row,value,std_error,spread,rank,low,high,verdict"
LOG_P = "log_p"
OF_DRAWS = "num_particles", "plate", "block_size"  # options along latents
COMPARED = 2**18  # pairs of data at a time
Fn = Callable[..., object]


@dataclass(frozen=True, repr=False, eq=False)
class Ordered(ByContent):
    r"""Where each of N data stands among them, by a value that is estimated; rank 1 is the lowest.

    .. math::
        \mathrm{low}_n = 1 + \#\{k : v_k < v_n - r_{kn}\}, \quad
        \mathrm{high}_n = N - \#\{k : v_k > v_n + r_{kn}\}, \quad
        r_{kn}^2 = (t_k \mathrm{se}_k)^2 + (t_n \mathrm{se}_n)^2

    t is Student's quantile of `1 - (1 - prob) / (N - 1)`. Of one datum all N - 1 comparisons with
    others hold at once with that probability or more, and so does the interval of its rank. It is
    marginal: of many data a share of 1 - prob may lie outside theirs. Two data whose values differ
    by less than r cannot be told apart, and are ties.

    Attributes:
        value: log P(x) in nats, or the posterior expectation of what the order is along, `(N,)`,
            float64.
        std_error: Its standard error, `(N,)`: of the estimate, so that more particles make it
            smaller. Ranks' intervals come from it alone.
        verdict: What each value is worth: "ok", "not contradicted", or what would help. Where it
            is neither of the two, the rank is not known, and no other rank counts on the datum.
        low: Lower end of each rank's interval, `(N,)`; 1 where the rank is not known.
        high: Its upper end, `(N,)`; N where the rank is not known.
        prob: Of each interval.
        target: What the value is, such as "log P(X)" or "E[z[0]|X]".
        spread: Posterior standard deviation of what the order is along, `(N,)`: how far x leaves
            it open, which no particles make smaller; `None` of log P(x).

    References:
        Inference for ranks with applications to mobility across neighbourhoods and academic
        achievement across countries (Mogstad et al., 2024), https://doi.org/10.1093/restud/rdad006:
        ranks by the signs of differences. Theirs are bootstrapped, for N^2 is many of them here.
        On confidence interval for two-means problem based on separate estimates of variances
        (Banerjee, 1961), Sankhya A 23: r of errors that have few degrees of freedom.
    """

    value: Tensor
    std_error: Tensor
    verdict: list[str]
    low: Tensor
    high: Tensor
    prob: float
    target: str = "log P(X)"
    spread: Tensor | None = None

    @property
    def order(self) -> Tensor:
        """The numbers of all data, `(N,)`, the one of the lowest value first."""
        return self.value.argsort(stable=True)

    @property
    def known(self) -> Tensor:
        """Whose rank is known as its interval says, `(N,)`: where the verdict is trusted."""
        return trusted(self.verdict)

    @property
    def rank(self) -> Tensor:
        """Rank of each datum, `(N,)`: 1 and those below it, and a half of each tie.

        That is the middle of its interval; NaN where the rank is not known. Without errors it is
        the rank of which ties have the mean.
        """
        return torch.where(self.known, (self.low + self.high) / 2, torch.nan).double()

    def spearman(self, hidden: Tensor | Sequence[float]) -> float:
        """Returns Spearman's correlation of the values' order with another order.

        It is of all values as they were estimated: their errors draw it towards 0. The direction
        of a latent is arbitrary: along one, only the absolute value says something, and whoever
        turns the order around by the sign has looked at `hidden`, a bit of it. log P has a sign.

        Args:
            hidden: A number of each datum, `(N,)`, such as the angle it was made by.

        Raises:
            ValueError: If they are not N finite numbers, or all the same, or the values are.
        """
        return float(cast("Any", spearmanr(*self._beside(hidden))).statistic)

    def kendall(self, hidden: Tensor | Sequence[float]) -> float:
        """Returns Kendall's tau-b with another order; of its sign see `spearman`.

        Args:
            hidden: A number of each datum, `(N,)`.

        Raises:
            ValueError: As `spearman`.
        """
        return float(cast("Any", kendalltau(*self._beside(hidden))).statistic)

    def _beside(self, hidden: Tensor | Sequence[float]) -> tuple[Any, Any]:
        """Returns values and another order as arrays, `(N,)` each; ValueError if there is none."""
        other, n = torch.as_tensor(hidden).cpu().double(), len(self.value)
        if other.shape != (n,):
            raise ValueError(
                f"hidden is of shape {tuple(other.shape)}; give a number of each of {n:,} data"
            )
        if not other.isfinite().all():
            raise ValueError("hidden holds what is no finite number; leave such data out")
        for name, some in (("hidden", other), ("the value", self.value)):
            if n < 2 or some.min() == some.max():
                raise ValueError(f"{name} is the same of all data, which is no order")
        return self.value.numpy(), other.numpy()

    def summary(self) -> dict[str, object]:
        """Returns the numbers by name, and the rows in order, the lowest first."""
        known = self.known
        width = (self.high - self.low)[known]
        return {
            "target": self.target,
            "num_data": len(self.value),
            "num_not_known": int((~known).sum()),
            "prob": self.prob,
            "median_width": width.double().median().item() if len(width) else None,
            "order": self.order.tolist(),
        }

    def __repr__(self) -> str:
        return f"{self.reading()}\n\n{self.table()}"

    def reading(self) -> str:
        """Returns what was found, in sentences: the order, what its intervals are, conditions."""
        n, known = len(self.value), self.known
        first, last = self.value.min(), self.value.max()
        width = (self.high - self.low)[known]
        lines = [
            f"{n:,} data by {self.target}, from {first:.3f} to {last:.3f}; rank 1 is the lowest."
        ]
        if len(width):
            lines.append(
                f"Each interval holds the rank of its datum with probability {self.prob:.0%} or "
                f"more, by itself, not all at once: {int((width == 0).sum()):,} are known to the "
                f"place; half of the data have {int(width.median()):,} or fewer that they "
                "cannot be told apart from."
            )
        if (spread := self.spread) is not None:
            lines.append(
                "Intervals are of expectations, whose error is that of the draws; the spread, "
                f"{spread.median():.3f} in the median, is how far a datum leaves it open. Which "
                "way it runs is arbitrary."
            )
        count, which = doubted(self.verdict)
        if count:
            lines.append(
                f"Of {count:,} data the value is not to be trusted ({which}): their rank "
                "is not known, and all other intervals leave room for them."
            )
        return "\n".join(lines)

    def table(self, rows: int = 10, *, index: Sequence[object] | None = None) -> str:
        """Returns data as text, evenly spaced along the order, with both ends.

        Args:
            rows: At most.
            index: Names of the N rows; `None` for their numbers.
        """
        places = torch.linspace(0, len(self.value) - 1, min(rows, len(self.value))).round().long()
        known, spread = self.known.tolist(), self.spread
        lines = [("rank", "between", "row", "value", "+-", "spread", "verdict")]
        for i in self.order[places].tolist():
            rank, between = f"{self.rank[i]:g}", f"{self.low[i]}-{self.high[i]}"
            name = f"{i if index is None else index[i]}"
            numbers = f"{self.value[i]:.3f}", f"{self.std_error[i]:.3f}"
            wide = "-" if spread is None else f"{spread[i]:.3f}"
            rank, between = (rank, between) if known[i] else ("?", "?")
            lines.append((rank, between, name, *numbers, wide, self.verdict[i]))
        return "\n".join(aligned(lines, ">>>>>><"))

    def to_csv(self, index: Sequence[object] | None = None) -> list[str]:
        """Returns a row a datum as lines of CSV in their order; the first line names the columns.

        They are "row", from 0; "value" and "std_error", of log P in nats; "spread", empty of
        log P; "rank", "low" and "high", empty where the rank is not known; and "verdict".

        Args:
            index: Names of the N rows, which stand under "row" in place of numbers.
        """
        columns = (self.value, self.std_error, self.rank, self.low, self.high)
        value, error, *ranks = (t.tolist() for t in columns)
        spread = [None] * len(value) if self.spread is None else self.spread.tolist()
        known = self.known.tolist()
        return [
            HEADER,
            *(
                line_of_csv(
                    [
                        i if index is None else index[i],
                        value[i],
                        error[i],
                        spread[i],
                        *(r[i] if known[i] else None for r in ranks),
                        self.verdict[i],
                    ]
                )
                for i in self.order.tolist()
            ),
        ]


@one_at_a_time
def order(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: Tensor,
    along: str | int | Function = LOG_P,
    prob: float = 0.95,
    estimator: Estimator | str | None = None,
    seed: int | None = None,
    **options: Unpack[ScoreOptions],
) -> Ordered:
    r"""Returns data in the order of log P(x), or along a latent, with intervals of their ranks.

    .. math::
        v_n = \log \hat P(x_n) \quad \text{or} \quad v_n = \sum_s \bar w_{sn} f(z_{sn})

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; `None` where none is needed.
        data: Tensors of equal length N, as the program takes them.
        along: "log_p"; or d, from 0, for the posterior expectation of a dimension of the latents,
            all of them side by side; or a function f of latents by site, `(S, n, ..., event)`
            each, to `(S, n)`, for its expectation.
        prob: Of each interval of a rank, between 0 and 1.
        estimator: Of log P(x), one, such as `pv.AIS()`, or its name; `None` for importance
            sampling from `pv.Laplace()`, where the model has a gradient. Along latents it is
            `pv.posterior`, and none is taken.
        seed: Fixes the draws; `None` draws a seed.
        **options: `num_particles`, S (1,000); `plate` and `block_size`; and of log P(x)
            `chunk_size`, `compile`, `workers`, `progress`, as of `evaluate`.

    Raises:
        ValueError: If there is no such latent, or the estimator is a bound by an unknown gap.
        TypeError, ValueError: As `evaluate`.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE(x_dim=4, z_dim=2)
        >>> found = order(vae.model, vae.guide, vae.sample(5, seed=0), seed=0)
        >>> found.order.shape
        torch.Size([5])
    """
    check_options(options, ScoreOptions, order)
    if not isinstance(prob, float | int) or not 0 < prob < 1:
        raise ValueError(f"prob is {shown(prob)}; give a probability between 0 and 1")
    data, seed = held(model, data), draw_seed(seed)
    each = 1 - (1 - prob) / max(1, len(data[0]) - 1)  # of N - 1 comparisons
    if isinstance(along, str):
        if along != LOG_P:
            raise ValueError(f"along is {along!r}; give {LOG_P!r}, or what it is along of latents")
        found = _by_log_p((model, guide), data, estimator, each, seed, options)
    elif estimator is None:
        found = _along_latents((model, guide), data, along, each, seed, options)
    else:
        raise ValueError("estimator is of log P(x), and along latents none is used; leave it out")
    value, error, verdict, reach, target, *_ = found
    if value.isnan().any():
        raise ValueError(f"{target} is NaN of some data, which has no rank; draw more")
    low, high = places(value, reach, trusted(verdict), shared=found.shared)
    return Ordered(value, error, verdict, low, high, float(prob), target, found.spread)


class _Found(NamedTuple):
    """Values of data, `(N,)` each.

    Attributes:
        value: Estimates.
        std_error: Their standard errors.
        verdict: What each is worth.
        reach: Half the width of an interval, at the level of a single comparison.
        target: What they are.
        spread: Posterior standard deviations, where there are some.
        shared: Whether errors may go together.
    """

    value: Tensor
    std_error: Tensor
    verdict: list[str]
    reach: Tensor
    target: str
    spread: Tensor | None = None
    shared: bool = False


def _by_log_p(
    pair: tuple[Fn, Fn | None],
    data: Sequence[Tensor],
    asked: Estimator | str | None,
    prob: float,
    seed: int,
    options: ScoreOptions,
) -> _Found:
    """Returns log P of data.

    Args:
        pair: Model and guide.
        data: As the program takes them.
        asked: The estimator, its name, or `None`.
        prob: Of a single comparison.
        seed: Fixes the draws.
        options: Of the evaluation.
    """
    way = scorer(asked, *pair, *data, options=options)
    e, target = scored(way, pair, data, seed, options)
    reach, shared = e.interval(prob)[1] - e.value, e.batches is not None
    return _Found(e.value, e.std_error, e.verdict(), reach, target, shared=shared)


def _along_latents(
    pair: tuple[Fn, Fn | None],
    data: Sequence[Tensor],
    along: int | Function,
    prob: float,
    seed: int,
    options: ScoreOptions,
) -> _Found:
    """Returns posterior expectations of data.

    Args:
        pair: Model and guide.
        data: As the program takes them.
        along: A function of latents, or the number of a dimension.
        prob: Of a single comparison.
        seed: Fixes the draws.
        options: Those of `posterior`.

    Raises:
        TypeError: If there are others.
    """
    if others := [name for name in options if name not in OF_DRAWS]:
        raise TypeError(
            f"along latents there is no option {others[0]!r}; take {', '.join(OF_DRAWS)}"
        )
    run: dict[str, Any] = {**options}
    two = posterior(*pair, *(d[:2] for d in data), num_temperatures=0, seed=0, **run)
    f, target = _along(along, two.resample(1))  # before all are drawn
    draws = posterior(*pair, *data, seed=seed, **run)
    both = draws.expectation(lambda z: torch.stack([f(z), f(z).double().square()], -1))
    value, error = both[:, 0], draws.std_error(f)
    spread = (both[:, 1] - value.square()).clamp(min=0).sqrt()
    reach = interval(value, error, draws.ess(), prob)[1] - value
    return _Found(value, error, draws.verdict(), reach, target, spread)


def places(
    value: Tensor, reach: Tensor, trusted: Tensor, *, shared: bool = False
) -> tuple[Tensor, Tensor]:
    """Returns between which ranks each datum lies, `(N,)` both; N^2 comparisons, some at a time.

    Args:
        value: Estimates, `(N,)`.
        reach: Half the width of an interval of each, at the level of a single comparison, `(N,)`.
        trusted: Which of them are told apart from others at all, `(N,)`.
        shared: Whether errors may go together, or against each other: reaches then add up.
    """
    n, size = len(value), max(1, COMPARED // len(value))
    rounding = ROUNDING * (1 + value.abs()) / 2
    below, above = [], []
    for first, last in pairwise([*range(0, n, size), n]):
        rows = slice(first, last)
        far = reach[rows, None], reach[None]
        r = (far[0] + far[1] if shared else torch.hypot(*far)) + rounding[rows, None] + rounding
        gap = value[rows, None] - value[None]
        sure = trusted[rows, None] & trusted[None]
        below.append((sure & (gap > r)).sum(1))
        above.append((sure & (-gap > r)).sum(1))
    return 1 + torch.cat(below), n - torch.cat(above)


def _along(along: object, first: Values) -> tuple[Function, str]:
    """Returns a function of latents by site, and what its expectation is called.

    Args:
        along: A function, or a number.
        first: Latents of some data, `(S, n, ..., event)`.

    Raises:
        ValueError: If there is no such dimension, or the function returns no number each.
    """
    if callable(along):
        given = cast("Function", along)
        shape = torch.as_tensor(given(first)).shape
        if shape != next(iter(first.values())).shape[:2]:
            raise ValueError(
                f"along returned shape {tuple(shape)}; return a number of each draw and datum"
            )
        return given, "E[f(z)|X]"
    sizes = {name: z[0, 0].numel() for name, z in first.items()}
    names = [f"{name}[{d}]" for name, width in sizes.items() for d in range(width)]
    if isinstance(along, bool) or along not in range(len(names)):
        raise ValueError(
            f"along is {shown(along)}; give {LOG_P!r}, a function of latents, or the number of "
            f"one of their {len(names)} dimensions, from 0"
        )
    number = int(cast("int", along))

    def dimension(z: Values) -> Tensor:
        return torch.cat([v.reshape(*v.shape[:2], -1) for v in z.values()], 2)[..., number]

    return dimension, f"E[{names[number]}|X]"
