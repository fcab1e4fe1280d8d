"""Which data are odd: -log P(x), and a threshold with a promised rate of false alarms."""

__all__ = ["HEADER", "Anomalies", "anomalies"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite, sqrt
from typing import Unpack

import torch
from torch import Tensor

from pyrovae.checks import check_options, gaps_inform, is_at_least, may_be_missing, shown
from pyrovae.equality import ByContent
from pyrovae.evidence.estimators.base import Estimator
from pyrovae.posteriors.conformal import allowed, check_calibration, mixed, p_values
from pyrovae.posteriors.given_rest import GivenRest, given_rest
from pyrovae.posteriors.scores import (
    TRUSTED,
    ScoreOptions,
    check_rows,
    doubted,
    held,
    scored,
    scorer,
    trusted,
)
from pyrovae.rng import draw_seed, stream_seed
from pyrovae.storage import line_of_csv
from pyrovae.text import aligned
from pyrovae.threads import one_at_a_time

STREAM = 51  # of random numbers, and the one that follows
COLUMNS = "flagged", "all", "none"
NOT_ASKED = "not asked"
HEADER = "row,score,std_error,p_value,flagged,verdict"


@dataclass(frozen=True, repr=False, eq=False)
class Anomalies(ByContent):
    r"""How odd each of N data is, by its score, and by its rank among data that are not.

    .. math::
        s_n = -\log \hat P(x_n), \quad
        p_n = \frac{1 + \#\{i : s^{\text{cal}}_i \ge s_n\}}{n_{\text{cal}} + 1}

    A datum like the calibration data has :math:`\Pr(p_n \le \alpha) \le \alpha`, whatever the
    scores are worth: all were computed alike, so that each rank is as likely as any other.
    That is the rate over calibration sets; given this one it varies, see `rate`. What the score is
    worth as -log P(x) is another question, and `verdict` answers it.

    Attributes:
        score: -log P(x) as it was estimated, `(N,)`, nats, float64: in expectation too high by
            about half its squared standard error.
        std_error: Its standard error, `(N,)`, nats.
        verdict: What each score is worth as -log P(x): "ok", "not contradicted", or what would
            help. Where it is neither of the two, the score may be too high by far more than its
            error: what is odd may be odd to the guide alone.
        calibration: Scores of the calibration data, `(n,)`, nats.
        false_alarms: The rate alpha.
        given_rest: Of the data asked for, log p of each column given the others; `None` where
            nothing was asked, or the model takes no NaN.
        target: What the score is the negative of: "log P(X)", or "log P(X|Y)".
    """

    score: Tensor
    std_error: Tensor
    verdict: list[str]
    calibration: Tensor
    false_alarms: float
    given_rest: GivenRest | None = None
    target: str = "log P(X)"

    @property
    def p_value(self) -> Tensor:
        """Conformal p-value of each datum, `(N,)`: 1 / (n + 1) at least."""
        return p_values(self.calibration, self.score)

    @property
    def threshold(self) -> float:
        """Score above which a datum is flagged, nats: there p is at most `false_alarms`."""
        count = allowed(len(self.calibration), self.false_alarms)
        return self.calibration.sort(descending=True).values[count - 1].item()

    @property
    def flagged(self) -> Tensor:
        """Which data are odd, `(N,)`: those whose p-value is at most `false_alarms`."""
        return self.p_value <= self.false_alarms

    @property
    def rate(self) -> tuple[float, float]:
        r"""The rate of false alarms: its mean over calibration sets, and standard deviation.

        Given a calibration set of n scores without ties it is from Beta(l, n + 1 - l), l the
        number of scores at or above the threshold: more calibration data make it surer.
        """
        n = len(self.calibration)
        mean = allowed(n, self.false_alarms) / (n + 1)
        return mean, sqrt(mean * (1 - mean) / (n + 2))

    @property
    def trusted(self) -> Tensor:
        """Where nothing speaks against the score as -log P(x), `(N,)`."""
        return trusted(self.verdict)

    @property
    def columns(self) -> Tensor | None:
        """-log p of each column given the others, `(N, D)`, nats; NaN where nobody asked."""
        return None if self.given_rest is None else -self.given_rest.log_p

    def oddest(self) -> Tensor:
        """Returns the numbers of all data, `(N,)`, the one of the highest score first."""
        return self.score.argsort(descending=True, stable=True)

    def summary(self) -> dict[str, object]:
        """Returns the numbers by name, and the flagged data's rows, the oddest first."""
        rate, spread = self.rate
        p, flagged = self.p_value.tolist(), self.flagged.tolist()
        rows = [i for i in self.oddest().tolist() if flagged[i]]
        return {
            "num_data": len(flagged),
            "num_flagged": len(rows),
            "num_not_trusted": int((~self.trusted).sum()),
            "num_calibration": len(self.calibration),
            "false_alarms": self.false_alarms,
            "rate": rate,
            "rate_spread": spread,
            "threshold": self.threshold if isfinite(self.threshold) else None,
            "flagged": [
                {"row": i, "score": s if isfinite(s) else None, "p_value": p[i]}
                for i, s in zip(rows, self.score[rows].tolist(), strict=True)
            ],
        }

    def __repr__(self) -> str:
        return f"{self.reading()}\n\n{self.table()}"

    def reading(self) -> str:
        """Returns what was found, in sentences: how many are odd, the promise, its conditions."""
        (rate, spread), odd = self.rate, int(self.flagged.sum())
        lines = [
            f"{odd:,} of {len(self.score):,} data are odd: their score, -{self.target}, is "
            f"above {self.threshold:.3f} nats.",
            f"Of data like those of the calibration {rate:.1%} are flagged in the mean; the "
            f"{len(self.calibration):,} of this one make it {rate:.1%} +- {spread:.1%}.",
        ]
        count, which = doubted(self.verdict)
        if count:
            lines.append(
                f"Of {count:,} data, {int((self.flagged & ~self.trusted).sum()):,} of the "
                f"odd, the score may exceed -{self.target} by more than its error ({which}): the "
                "rate holds all the same, but what is odd may be how they were estimated."
            )
        return "\n".join(lines)

    def table(
        self,
        rows: int = 10,
        *,
        columns: Sequence[str] | None = None,
        index: Sequence[object] | None = None,
    ) -> str:
        """Returns the oddest data as text, with the columns of least log p given the rest.

        Args:
            rows: At most.
            columns: Names of the D columns; `None` for their numbers.
            index: Names of the N rows; `None` for their numbers.
        """
        flagged, p = self.flagged.tolist(), self.p_value.tolist()
        lines = [("row", "score", "+-", "p", "", "verdict", "columns, -log p given the rest")]
        for i in self.oddest()[:rows].tolist():
            odd = self.given_rest.oddest(i) if self.given_rest else []
            parts = [
                f"{columns[d] if columns else d}: {-log_p:.2f} +- {error:.2f}"
                f"{'' if word in TRUSTED else f' ({word})'}"
                for d, log_p, error, word in odd
            ]
            said = "odd" if flagged[i] else "", self.verdict[i], ", ".join(parts)
            numbers = f"{self.score[i]:.3f}", f"{self.std_error[i]:.3f}", f"{p[i]:.3g}"
            lines.append((f"{i if index is None else index[i]}", *numbers, *said))
        return "\n".join(aligned(lines, ">>>><<<"))

    def to_csv(self, index: Sequence[object] | None = None) -> list[str]:
        """Returns a row a datum as lines of CSV; the first line names the columns.

        They are "row", from 0; "score" and "std_error", nats; "p_value"; "flagged", 1 or 0; and
        "verdict".

        Args:
            index: Names of the N rows, which stand under "row" in place of numbers.
        """
        numbers = (t.tolist() for t in (self.score, self.std_error, self.p_value))
        flagged = self.flagged.int().tolist()
        names = range(len(flagged)) if index is None else index
        rows = zip(names, *numbers, flagged, self.verdict, strict=True)
        return [HEADER, *map(line_of_csv, rows)]


@one_at_a_time
def anomalies(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: Tensor,
    calibration: Tensor | Sequence[Tensor],
    false_alarms: float = 0.05,
    estimator: Estimator | str | None = None,
    columns: str | int = "flagged",
    seed: int | None = None,
    **options: Unpack[ScoreOptions],
) -> Anomalies:
    r"""Returns how odd each datum is, with a promised rate of false alarms: `(N,)` scores, nats.

    .. math::
        s_n = -\log \hat P(x_n), \quad
        p_n = \frac{1 + \#\{i : s^{\text{cal}}_i \ge s_n\}}{n_{\text{cal}} + 1}, \quad
        \text{flagged where } p_n \le \alpha

    Data that are like the calibration data, independent draws of one distribution, are flagged at
    the rate alpha at most, however bad model or estimates are. Calibration data have to be data
    that the model was not trained on, nor its training stopped by: on those it scores lower, and
    all that is new would look odd. All data are scored in one evaluation, in a random order, so
    that whatever an estimator finds out on its way serves all of them alike.

    A low score is no proof that a datum is like those of the training: what is simpler than they
    are may have a higher density.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; `None` where none is needed.
        data: Tensors of equal length N, as the program takes them: what is to be judged.
        calibration: The same of other data, n of them: a tensor, or as many as `data` are.
        false_alarms: Alpha, between 0 and 1; n has to be 1 / alpha - 1 or more.
        estimator: One, such as `pv.AIS()`, or its name; `None` for importance sampling from
            `pv.Laplace()`, where the model has a gradient: see `pyrovae.posteriors.scores`.
        columns: Of which data log p of each column given the others is estimated: "flagged", the
            so many oddest of those, "all" or "none"; as dear as D + 1 more data for each.
        seed: Fixes draws and order; `None` draws a seed.
        **options: `num_particles`, S (1,000), of the usual estimator or one that is named; and
            `plate`, `block_size`, `chunk_size`, `compile`, `workers`, `progress`, as of
            `evaluate`.

    Raises:
        ValueError: If calibration data are too few for the rate, or the very data to be judged; or
            the estimator is a bound by an unknown gap, as the ELBO is.
        TypeError, ValueError: As `evaluate`.

    References:
        Algorithmic learning in a random world (Vovk et al., 2005),
        https://doi.org/10.1007/b106715: conformal p-values.
        Testing for outliers with conformal p-values (Bates et al., 2023),
        https://arxiv.org/abs/2104.08279
        Do deep generative models know what they don't know? (Nalisnick et al., 2019),
        https://arxiv.org/abs/1810.09136: low scores of other data.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE(x_dim=4, z_dim=2)
        >>> x, others = vae.sample(5, seed=0), vae.sample(99, seed=1)
        >>> anomalies(vae.model, vae.guide, x, calibration=others, seed=0).p_value.shape
        torch.Size([5])
    """
    check_options(options, ScoreOptions, anomalies)
    if columns not in COLUMNS and (isinstance(columns, bool) or not is_at_least(columns, 1)):
        raise ValueError(f"columns is {shown(columns)}; give {', '.join(COLUMNS)} or a number")
    others = (calibration,) if isinstance(calibration, Tensor) else tuple(calibration)
    data, others = held(model, data), held(model, others, "calibration")
    check_calibration(data, others, false_alarms)
    for some in (data, others):  # errors then name rows of theirs, not of a random order
        check_rows(model, guide, *some, options=options)
    asked, seed = scorer(estimator, model, guide, *others, options=options), draw_seed(seed)
    n = len(others[0])
    place, both = mixed(others, data, stream_seed(seed, STREAM))
    e, target = scored(asked, (model, guide), both, seed, options)
    if e.value.isnan().any():
        raise ValueError(f"estimator {asked.name!r} gives NaN, which has no rank; draw more")
    score, error, words = -e.value[place], e.std_error[place], e.verdict()
    verdict = [words[i] for i in place[n:].tolist()]
    rate = float(false_alarms)
    found = Anomalies(score[n:], error[n:], verdict, score[:n], rate, target=target)
    by_column = 0 in may_be_missing(model) and not gaps_inform(model)
    if columns == "none" or (columns != "all" and not by_column):
        return found
    which = found.flagged | (columns == "all")
    if not isinstance(columns, str):
        which[found.oddest()[int(columns) :]] = False
    of = partial(given_rest, model, guide, estimator=asked, seed=stream_seed(seed, STREAM + 1))
    return replace(found, given_rest=_where(which, partial(of, **options), data))


def _where(which: Tensor, of: Callable[..., GivenRest], data: Sequence[Tensor]) -> GivenRest:
    """Returns what `given_rest` says of some data, in a table of all.

    Args:
        which: Of them, `(N,)`.
        of: Takes these alone.
        data: All, `(N, ...)` each.
    """
    n, width = len(which), data[0][0].numel()
    table = torch.full((n, width), torch.nan, dtype=torch.float64)
    words = [[NOT_ASKED] * width for _ in range(n)]
    if not which.any():
        return GivenRest(tuple(range(width)), table, table.clone(), words)
    found = of(*(d[which.to(d.device)] for d in data))
    log_p, error = table.clone(), table.clone()
    log_p[which], error[which] = found.log_p, found.std_error
    for i, known in zip(which.nonzero()[:, 0].tolist(), found.words, strict=True):
        words[i] = known
    return replace(found, log_p=log_p, std_error=error, words=words)
