"""Two evidences of the same data, datum by datum: which model is better, and by how much."""

__all__ = ["Comparison", "compare"]

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot, isfinite, sqrt

import torch
from scipy.special import stdtrit
from torch import Tensor

from pyrovae.checks import shown
from pyrovae.data.rows import chosen
from pyrovae.equality import ByContent
from pyrovae.evidence.confirmed import GOOD_NEEDED, SPREAD
from pyrovae.evidence.estimate import Estimate
from pyrovae.evidence.results import FEW, Evidence
from pyrovae.text import aligned

REAL, UNTOLD = "the difference is real", "cannot be told"
ROUNDING = 1e-4  # nats, by which float32 may shift all data alike
CAME = ("data", "scaling", "split", "binarize", "data_seed", "part")  # how data came about


@dataclass(frozen=True, repr=False, eq=False)
class Comparison(ByContent):
    r"""The difference of two models' log P(X), a - b, on the same N data, in nats per datum.

    .. math::
        d_n = \log \hat p_a(x_n) - \log \hat p_b(x_n), \quad \bar d = \tfrac1N \sum_n d_n, \quad
        \mathrm{error}^2 = \mathrm{mc}_a^2 + \mathrm{mc}_b^2 + \mathrm{std}(d)^2 / N

    What is hard about a datum is mostly so for both models and cancels, so that the error over
    data is far below those of the two means. Both estimates count as independent. The spread of
    the differences holds their Monte Carlo errors already, unless all data share their particles:
    the sum is at most a factor of :math:`\sqrt 2` too wide.

    Attributes:
        a: One model's estimates, `(N,)`.
        b: The other's.
        target: What both are of, "log P(X)" or "log P(X|Y)".
        factors: Sites of either program beside which log P(X) is known but for a constant, or "".
    """

    a: Estimate
    b: Estimate
    target: str = "log P(X)"
    factors: str = ""

    @property
    def difference(self) -> Tensor:
        """The difference a - b of each datum, `(N,)`, nats: above 0 where a is better."""
        return self.a.value - self.b.value

    @property
    def mean(self) -> float:
        """Mean of the difference over data, nats per datum."""
        return self.difference.mean().item()

    @property
    def monte_carlo_error(self) -> float:
        """Error of `mean` from finitely many particles, both estimates' together, nats."""
        return hypot(self.a.monte_carlo_error, self.b.monte_carlo_error)

    @property
    def data_error(self) -> float:
        """Error of `mean` from finitely many data: std(difference) / sqrt(N), nats."""
        return self.difference.std().item() / sqrt(len(self.difference))

    @property
    def error(self) -> float:
        """Both errors of `mean` combined, nats."""
        return hypot(self.monte_carlo_error, self.data_error)

    @property
    def share(self) -> float:
        """Share of the data of which a is better."""
        return (self.difference > 0).double().mean().item()

    @property
    def not_ok(self) -> Tensor:
        """Which data have a verdict other than "ok" in a or in b, `(N,)`."""
        words = zip(self.a.verdict(), self.b.verdict(), strict=True)
        return torch.tensor([set(pair) != {"ok"} for pair in words])

    @property
    def verdict(self) -> str:
        """Returns "the difference is real" or "cannot be told", for the reasons `doubts` names."""
        return UNTOLD if self.doubts() else REAL

    def doubts(self) -> list[str]:
        """Returns why the sign of the difference cannot be told, in words; none where it can.

        The difference has to exceed 2 errors (of few data Student's 97.5 % quantile) and 1e-4
        nats, the rounding of float32. Of the higher estimate a lower bound is enough. The lower
        one has to be known for 95 % of the data, and the difference has to be as clear on these
        alone. Known is what is ok; or has weights that show nothing wrong, of data like those
        simulated from its model, on which bounds from both sides say how far short it falls: the
        difference then has to exceed that as well. So an ELBO that lies below tells nothing: the
        difference is one of bounds, not of models.
        """
        if self.factors:
            return [
                f"with factors beside what is observed ({self.factors}), {self.target} is known "
                "but for a constant"
            ]
        if not isfinite(self.mean):
            count = int((~self.difference.isfinite()).sum())
            return [f"the difference is not finite for {count:,} data"]
        found = []
        if not self._exceeds(torch.ones_like(self.not_ok), 0.0):
            found.append(f"the mean lies within {self._reach:.3g} combined errors of 0")
        above, high = self._sides()[0]
        if high.kind.bound in ("exact", "none") and high.share("ok") < 1 - FEW:
            found.append(f"{above}, {_not_ok(high)}, may be too high")
        if why := self._lower(sure=not found):
            found.append(why)
        return found

    def _lower(self, sure: bool) -> str:
        """Returns what the lower estimate leaves open, in words, or "".

        Args:
            sure: Whether the difference exceeds its errors.
        """
        (_, high), (below, low) = self._sides()
        if low.kind.bound == "mean":
            both = high.kind.bound == "mean"
            which = "both are lower bounds, each" if both else f"{below} is a lower bound"
            return f"{which} by an unknown gap: the difference is one of bounds, not of models"
        known, short = _known(low)
        if known.double().mean() < 1 - FEW:
            return f"{below}, {_not_ok(low)}, may be too low by more than its error"
        if sure and not self._exceeds(known, short):
            least = f", and may be {short:.3f} nats too low on all" if short else ""
            return f"{below} is {_not_ok(low)}{least}: without that it is not clear"
        return ""

    def _exceeds(self, rows: Tensor, short: float) -> bool:
        """Returns whether the higher one is clearly so on some data, by more than `short`.

        Args:
            rows: Which, `(N,)`, two at least.
            short: Nats that the lower one may be too low, beyond its error.
        """
        (above, _), _ = self._sides()
        d = self.difference[rows] * (1 if above == "a" else -1)
        error = hypot(self.monte_carlo_error, d.std().item() / sqrt(len(d)))
        return d.mean().item() > self._reach * error + ROUNDING + short

    @property
    def _reach(self) -> float:
        """How many errors a difference has to exceed: 2, and of few data Student's quantile."""
        return max(2.0, float(stdtrit(len(self.difference) - 1, 0.975)))

    def _sides(self) -> list[tuple[str, Estimate]]:
        """Returns both, by name, the one of the higher mean first."""
        sides = [("a", self.a), ("b", self.b)]
        return sides if self.mean > 0 else sides[::-1]

    def summary(self) -> dict[str, float | int | str | None]:
        """Returns the numbers by name, `None` where one is undefined."""
        numbers = {
            "mean_a": self.a.mean,
            "mean_b": self.b.mean,
            "difference": self.mean,
            "monte_carlo_error": self.monte_carlo_error,
            "data_error": self.data_error,
            "error": self.error,
        }
        return {
            "estimator_a": self.a.name,
            "estimator_b": self.b.name,
            **{k: v if isfinite(v) else None for k, v in numbers.items()},
            "share_better": self.share,
            "num_data": len(self.difference),
            "num_not_ok": int(self.not_ok.sum()),
            "verdict": self.verdict,
        }

    def __repr__(self) -> str:
        return f"{self.table()}\n\n{self.reading()}"

    def table(self) -> str:
        """Returns both means and that of the difference, with their errors, as text."""
        rows = [("", "by", "nats/datum", "MC s.e.", "data s.e.", "not ok")]
        for name, e in (("a", self.a), ("b", self.b), ("a - b", None)):
            of = e or self
            bad = self.not_ok.sum() if e is None else len(e.value) - e.verdict().count("ok")
            errors = f"{of.monte_carlo_error:.4f}", f"{of.data_error:.3f}"
            rows.append((name, e.label if e else "", f"{of.mean:.3f}", *errors, f"{bad:,}"))
        return "\n".join(aligned(rows, "<<>>>>"))

    def reading(self) -> str:
        """Returns what the table says, in sentences: difference, errors, and the verdict."""
        lines = [
            f"{self.target} of these {len(self.difference):,} data under a less that under b: "
            f"{self.mean:+.3f} nats per datum, +- {self.monte_carlo_error:.4f} (samples) +- "
            f"{self.data_error:.3f} (data); a is better for {self.share:.0%} of them."
        ]
        better, high = self._sides()[0]
        if doubts := self.doubts():
            lines.append(f"Which model is better cannot be told: {'; '.join(doubts)}.")
        else:
            lines.append(f"The difference is real: {better} is better.")
            if high.kind.bound == "mean":
                lines.append(f"By how much is unknown: that of {better} is a lower bound.")
            elif high.share("ok") < 1 - FEW:
                lines.append(f"It may be larger: {better} is {_not_ok(high)}.")
        return "\n".join(lines)

    def to_csv(self) -> list[str]:
        """Returns the comparison as lines of CSV, a datum a row, the first line names columns.

        They are "datum", the number of the row from 0; "difference" and its Monte Carlo
        "std_error", nats; and of each side its value, std_error and verdict.
        """
        error = torch.hypot(self.a.std_error, self.b.std_error)
        columns = {"datum": list(range(len(error))), "difference": self.difference.tolist()}
        columns["std_error"] = error.tolist()
        for name, e in (("a", self.a), ("b", self.b)):
            own = {"value": e.value.tolist(), "std_error": e.std_error.tolist()}
            own["verdict"] = e.verdict()
            columns |= {f"{name}_{key}": column for key, column in own.items()}
        return [",".join(map(str, row)) for row in (columns, *zip(*columns.values(), strict=True))]


def compare(
    a: Evidence, b: Evidence, *, estimator_a: str | None = None, estimator_b: str | None = None
) -> Comparison:
    """Returns how much higher log P(X) of the same data is under one model than under another.

    The difference is taken datum by datum, a - b, nats: what is hard about a datum cancels. See
    `Comparison` for its errors, and for when it counts as real.

    Args:
        a: Evidence of one model, as `evaluate` returns it or `pv.Evidence.from_xarray` reads it.
        b: That of another, of the same data in the same order.
        estimator_a: Whose estimates count, by name; `None` for those to go by,
            `pv.Evidence.best`.
        estimator_b: The same of b.

    Raises:
        TypeError: If either is no Evidence.
        ValueError: If one has no such estimates; or both are of different data, as far as their
            protocols know, of another number of data or of one alone, or of different quantities.
    """
    for name, e in (("a", a), ("b", b)):
        if not isinstance(e, Evidence):
            raise TypeError(f"{name} is {shown(e)}; give what pv.evaluate returns")
        if not e.estimates:
            raise ValueError(f"{name} has no estimates to compare: {e.reading()}")
    one, other = _chosen("a", a, estimator_a), _chosen("b", b, estimator_b)
    _check_sizes(len(one.value), len(other.value))
    _check_quantities(a, b)
    _check_data(a.protocol, b.protocol, len(one.value))
    factors = {str(e.protocol["factors"]) for e in (a, b) if "factors" in e.protocol}
    return Comparison(one, other, a.target, ", ".join(sorted(factors)))


def _chosen(side: str, evidence: Evidence, estimator: str | None) -> Estimate:
    """Returns an estimator's results, or those to go by; raises ValueError if there are none.

    Args:
        side: "a" or "b".
        evidence: Of that side.
        estimator: Its name, or `None`.
    """
    if estimator is None:
        return evidence.best()
    if estimator not in evidence.estimates:
        known = ", ".join(evidence.estimates)
        raise ValueError(f"estimator_{side} is {estimator!r}; {side} has {known}")
    return evidence[estimator]


def _check_sizes(one: int, other: int) -> None:
    """Raises ValueError where there are no pairs, or one alone: that of a joint log p, too.

    Args:
        one: N of a.
        other: N of b.
    """
    if one != other:
        raise ValueError(f"a is of {one:,} data and b of {other:,}; evaluate both on the same")
    if one < 2:
        raise ValueError(
            "a and b are of one datum, or of all data as one (plate=None), and one difference has "
            "no spread over data; evaluate both on two data or more, with a plate over them"
        )


def _check_quantities(a: Evidence, b: Evidence) -> None:
    """Raises ValueError where the numbers are not of one kind.

    Args:
        a: Evidence of one model.
        b: Of another.
    """
    if a.target != b.target:
        raise ValueError(f"a is {a.target} and b {b.target}, which are different quantities")
    kinds = [
        {
            "dims": f"data of {e.protocol.get('dims', 0):g} dimensions",
            "discrete": "probabilities" if e.protocol.get("discrete") else "densities",
        }
        for e in (a, b)
    ]
    for key, one in kinds[0].items():
        known = key in a.protocol and key in b.protocol
        if known and a.protocol[key] != b.protocol[key]:
            raise ValueError(
                f"a is of {one} and b of {kinds[1][key]}; evaluate both on the same data"
            )


def _check_data(a: Mapping[str, object], b: Mapping[str, object], count: int) -> None:
    """Raises ValueError where both are known to be of different data, or of other rows of them.

    By the SHA-256 of the data, where both protocols have one; else by name and binarization.

    Args:
        a: Protocol of one.
        b: Of the other.
        count: N.
    """
    one, other = (p.get(f"sha256_{p.get('part', 'test')}") for p in (a, b))
    both = one is not None and other is not None
    keys = CAME if both else ("data", "binarize")
    differ = [k for k in keys if k in a and k in b and a[k] != b[k]]
    if one != other if both else differ:
        why = ", ".join(f"{k} {a[k]} and {b[k]}" for k in differ) or "their SHA-256 differ"
        raise ValueError(f"a and b are of different data ({why}); evaluate both on the same")
    if both or ("rows_chosen" in a and "rows_chosen" in b):
        _check_rows(a, b, count)


def _check_rows(a: Mapping[str, object], b: Mapping[str, object], count: int) -> None:
    """Raises ValueError where both are of other rows of the same data.

    Args:
        a: Protocol of one.
        b: Of the other.
        count: N.
    """
    if not torch.equal(_rows(a, count), _rows(b, count)):
        first, second = (p.get("rows_chosen", "all") for p in (a, b))
        raise ValueError(
            f"a is of the rows {first} and b of {second}; evaluate both on the same rows"
        )


def _rows(protocol: Mapping[str, object], count: int) -> Tensor:
    """Returns which rows of the data evidence is of, `(N,)`.

    Args:
        protocol: Of the evidence.
        count: N, where all rows are there.
    """
    rows = str(protocol.get("rows_chosen", "all"))
    there = int(str(protocol.get("rows_available", count)))
    return chosen(torch.arange(there), None if rows == "all" else rows)[:]


def _known(e: Estimate) -> tuple[Tensor, float]:
    """Returns of which data it is known how low an estimate may be, `(N,)`, and that, nats.

    0 of what is ok; of other weights that show nothing wrong what bounds on data simulated from
    the model say.

    Args:
        e: The lower one of two.
    """
    ok = torch.tensor([word == "ok" for word in e.verdict()])
    second = e.confirmation
    told = not second.reason and second.num_good >= GOOD_NEEDED
    if ok.double().mean() >= 1 - FEW or e.kind.bound != "lower" or not told:
        return ok, 0.0
    gap = second.gap + SPREAD * second.gap_error
    longer = second.longer + SPREAD * second.longer_error
    return e.good & second.speaks_of(e.std_error), max(0.0, gap, longer)


def _not_ok(e: Estimate) -> str:
    """Returns of how many data the verdict is not "ok", in words.

    Args:
        e: Estimates, `(N,)`.
    """
    count = len(e.value) - e.verdict().count("ok")
    return f"not ok for {count:,} of {len(e.value):,} data"
