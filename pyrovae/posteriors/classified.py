"""What is said of data of which the classes are asked: probabilities, and what they are worth."""

__all__ = ["HEADER", "Classified", "labels_of"]

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, log
from typing import Any

import torch
from torch import Tensor

from pyrovae.checks import shown
from pyrovae.equality import ByContent
from pyrovae.evidence.reductions import VERDICTS
from pyrovae.posteriors.anomalies import Anomalies
from pyrovae.posteriors.scores import TRUSTED, doubted, trusted
from pyrovae.posteriors.tempering import tempered
from pyrovae.storage import line_of_csv
from pyrovae.text import aligned

UNTOLD = "cannot be told"
SURE = 4  # standard errors by which a class has to be ahead
FEW, SHORT = VERDICTS[1], 10.0  # such an estimate may be too low by so many nats
LITTLE = log(1_000)  # what a class is behind whose probability is of no account
HEADER = "row,class,probability,std_error,log_p_x,p_value,none,verdict"


@dataclass(frozen=True, repr=False, eq=False)
class Classified(ByContent):
    r"""Of which of C classes each of N data is, by Bayes' rule, and whether it is of any.

    .. math::
        p(c \mid x_n) \propto \pi_c \, \hat P(x_n \mid c)^{1/T}, \quad
        \log \hat P(x_n) = \log \sum_c \pi_c \hat P(x_n \mid c)

    With T = 1 that is Bayes' rule, right where the model is. T, fitted on labels, makes up for
    a model whose log P(x|c) is worth less than it says; the prior needs no such thing, and where
    x tells nothing it stands. log P(x), by which a datum may be none of these, knows no T.

    Attributes:
        log_p: log P(x|c) as it was estimated, `(N, C)`, nats, float64; of a model that has the
            prior inside log P(x, c).
        std_error: Its standard error, `(N, C)`, nats.
        words: What each is worth, N lists of C: "ok", "not contradicted", or what would help.
        log_prior: log pi_c, `(C,)`; 0 where the model has it inside.
        temperature: T; 1 where no labels were given, or all were told right.
        calibration: -log P(x) of the calibration data, `(n,)`, nats; `None` without any.
        false_alarms: The rate at which data like those are said to be none of these, at most.
    """

    log_p: Tensor
    std_error: Tensor
    words: list[list[str]]
    log_prior: Tensor
    temperature: float = 1.0
    calibration: Tensor | None = None
    false_alarms: float = 0.05

    @property
    def probability(self) -> Tensor:
        """Probability of each class given the datum, `(N, C)`, of sum 1."""
        return tempered(self.log_p, self.log_prior, self.temperature).exp()

    @property
    def probability_error(self) -> Tensor:
        r"""Its Monte Carlo standard error, `(N, C)`, by the delta method.

        .. math::
            \mathrm{se}(p_c)^2 = \frac{p_c^2}{T^2} \sum_k (\delta_{ck} - p_k)^2 \, \mathrm{se}_k^2

        The errors of log P(x|k) are independent; that of T is not among them.
        """
        p, variance = self.probability, (self._error / self.temperature).square()
        total = (p.square() * variance).sum(1, keepdim=True)
        return p * (total + (1 - 2 * p) * variance).clamp(min=0).sqrt()

    @property
    def predicted(self) -> Tensor:
        """The most probable class of each datum, `(N,)`, integers from 0."""
        return self.probability.argmax(1)

    @property
    def log_p_x(self) -> Tensor:
        """Log P(x), the classes summed out, `(N,)`, nats."""
        return (self.log_prior + self.log_p).logsumexp(1)

    @property
    def log_p_x_error(self) -> Tensor:
        """Its standard error by the delta method, `(N,)`, nats."""
        share = tempered(self.log_p, self.log_prior, 1.0).exp()
        return (share * self._error).square().sum(1).sqrt()

    @property
    def told(self) -> Tensor:
        """Where the most probable class is ahead of all others by 4 of their errors, `(N,)`."""
        log_p, variance = self.log_prior + self.log_p / self.temperature, self._error.square()
        best = self.predicted[:, None]
        ahead = log_p.gather(1, best) - log_p
        error = (variance.gather(1, best) + variance).sqrt() / self.temperature
        return (ahead > SURE * error).scatter(1, best, True).all(1)

    @property
    def verdict(self) -> list[str]:
        """What each datum's probabilities are worth, N words.

        "ok" where the estimates of all its classes are. Else the word of one that is not trusted,
        however unlikely that class seems: how much it falls short is not known. But for one that
        needs "more samples" and would have a probability below 0.001 even if it were 10 nats
        short, four times what such have been found to be. Where no such class is left, but the
        most probable one is ahead by less than 4 standard errors, "cannot be told": the
        probabilities hold, and which of them is the highest is open.
        """
        told = self.told.tolist()
        return [
            word if word not in TRUSTED or sure else UNTOLD
            for word, sure in zip(self._worth, told, strict=True)
        ]

    @property
    def trusted(self) -> Tensor:
        """Where nothing speaks against the probabilities, `(N,)`."""
        return trusted(self._worth)

    @property
    def _worth(self) -> list[str]:
        """The verdicts, but for what cannot be told."""
        best = (self.log_prior + self.log_p / self.temperature).max(1, keepdim=True).values
        most = self.log_prior + (self.log_p + SHORT) / self.temperature
        unlikely = most < best - LITTLE
        found = []
        for words, aside in zip(self.words, unlikely.tolist(), strict=True):
            pairs = zip(words, aside, strict=True)
            bad = [w for w, a in pairs if w not in TRUSTED and not (a and w == FEW)]
            good = TRUSTED[0] if set(words) == {TRUSTED[0]} else TRUSTED[1]
            found.append(max(bad, key=bad.count) if bad else good)
        return found

    @property
    def anomalies(self) -> Anomalies | None:
        """How odd each datum is by -log P(x), for any class; `None` without calibration data."""
        if self.calibration is None:
            return None
        score, error = -self.log_p_x, self.log_p_x_error
        return Anomalies(score, error, self._worth, self.calibration, self.false_alarms)

    @property
    def p_value(self) -> Tensor | None:
        """Conformal p-value of log P(x), `(N,)`, see `Anomalies`; `None` without calibration."""
        return None if self.anomalies is None else self.anomalies.p_value

    @property
    def none(self) -> Tensor | None:
        """Which data are none of these, `(N,)`: their p-value is at most `false_alarms`."""
        return None if self.anomalies is None else self.anomalies.flagged

    def accuracy(self, y: Tensor) -> float:
        """Returns the share of data whose most probable class is theirs.

        Args:
            y: Classes, `(N,)`, integers from 0.
        """
        return (self.predicted == self._labels(y)).double().mean().item()

    def log_loss(self, y: Tensor) -> float:
        """Returns the mean of -log p(y|x), nats per datum; lower is better.

        Args:
            y: Classes, `(N,)`, integers from 0.
        """
        log_p = tempered(self.log_p, self.log_prior, self.temperature)
        return -log_p.gather(1, self._labels(y)[:, None]).mean().item()

    def calibration_error(self, y: Tensor, bins: int = 15) -> float:
        r"""Returns the expected calibration error of the most probable class; 0 is none.

        .. math::
            \sum_b \frac{n_b}{N} \, |\mathrm{accuracy}_b - \mathrm{probability}_b|

        Over bins of equal width of that probability. Of few data it is above 0 by chance alone.

        Args:
            y: Classes, `(N,)`, integers from 0.
            bins: How many.
        """
        top, which = self.probability.max(1)
        surplus = (which == self._labels(y)).double() - top
        bin_of = (top * bins).long().clamp(max=bins - 1)
        sums = torch.zeros(bins, dtype=torch.float64).index_add(0, bin_of, surplus)
        return sums.abs().sum().item() / len(top)

    def summary(self, y: Tensor | None = None) -> dict[str, object]:
        """Returns the numbers by name.

        Args:
            y: Classes, `(N,)`, where they are known: then with what they say.
        """
        count, none = self.log_p.shape[1], self.none
        found: dict[str, object] = {
            "num_data": len(self.log_p),
            "num_classes": count,
            "num_predicted": self.predicted.bincount(minlength=count).tolist(),
            "num_not_trusted": int((~self.trusted).sum()),
            "num_not_told": self.verdict.count(UNTOLD),
            "temperature": self.temperature,
        }
        if none is not None and self.calibration is not None:
            found["num_calibration"] = len(self.calibration)
            found["false_alarms"] = self.false_alarms
            found["num_none"] = int(none.sum())
        if y is not None:
            found["accuracy"] = self.accuracy(y)
            found["log_loss"] = self.log_loss(y) if isfinite(self.log_loss(y)) else None
            found["log_loss_untempered"] = replace(self, temperature=1.0).log_loss(y)
            found["calibration_error"] = self.calibration_error(y)
        return found

    def __repr__(self) -> str:
        return f"{self.reading()}\n\n{self.table()}"

    def reading(self, y: Tensor | None = None) -> str:
        """Returns what was found, in sentences: how sure the classes are, and on what terms.

        Args:
            y: Classes, `(N,)`, where they are known: then with what they say.
        """
        top = self.probability.max(1).values
        lines = [
            f"{len(top):,} data of {self.log_p.shape[1]} classes: the most probable one has "
            f"{top.mean():.1%} in the mean, and less than 90% of {int((top < 0.9).sum()):,}."
        ]
        if y is not None:
            raw = replace(self, temperature=1.0)
            lines.append(
                f"It is the right one of {self.accuracy(y):.1%}; log loss {self.log_loss(y):.3f} "
                f"nats ({raw.log_loss(y):.3f} at T = 1), calibration error "
                f"{self.calibration_error(y):.3f} ({raw.calibration_error(y):.3f})."
            )
        if self.anomalies is None:
            lines.append(
                "Without calibration data these are Bayes' own probabilities, which are too sure "
                "where the model is not right, and nothing is said to be none of these."
            )
        else:
            lines += self._calibrated(self.anomalies)
        count, which = doubted(self.verdict)
        if count:
            lines.append(f"Of {count:,} data the class is open to doubt ({which}).")
        return "\n".join(lines)

    def _calibrated(self, odd: Anomalies) -> list[str]:
        """Returns what calibration data say, in sentences.

        Args:
            odd: By log P(x), how.
        """
        n, (rate, spread) = len(odd.calibration), odd.rate
        of = f"Temperature T = {self.temperature:.3g}, fitted on {n:,} labels."
        if self.temperature == 1:
            of = (
                f"All {n:,} labels of the calibration have the highest log P(x|c), which sets no "
                "temperature: these are Bayes' own probabilities, T = 1."
            )
        return [
            of,
            f"{int(odd.flagged.sum()):,} data are none of these: log P(x) is below "
            f"{-odd.threshold:.3f} nats, as of {rate:.1%} +- {spread:.1%} of data like the "
            "calibration.",
        ]

    def table(
        self,
        rows: int = 10,
        *,
        index: Sequence[object] | None = None,
        names: Sequence[object] | None = None,
    ) -> str:
        """Returns the data whose class is least sure, as text.

        Args:
            rows: At most.
            index: Names of the N rows; `None` for their numbers.
            names: Names of the C classes; likewise.
        """
        lines = [("row", "class", "p(class|x)", "+-", "then", "log P(x)", "p", "", "verdict")]
        cells, second = self._cells(index, names), self.probability.topk(2).indices[:, 1].tolist()
        for i in self.probability.max(1).values.argsort(stable=True)[:rows].tolist():
            row, name, probability, error, log_p_x, p, none, verdict = cells[i]
            then = f"{second[i] if names is None else names[second[i]]}"
            numbers = f"{probability:.3f}", f"{error:.3f}", then, f"{log_p_x:.3f}"
            said = "" if p is None else f"{p:.3g}", "none of these" if none else "", verdict
            lines.append((f"{row}", f"{name}", *numbers, *said))
        return "\n".join(aligned(lines, ">>>>>>><<"))

    def to_csv(
        self, index: Sequence[object] | None = None, names: Sequence[object] | None = None
    ) -> list[str]:
        """Returns a row a datum as lines of CSV; the first line names the columns.

        They are "row", from 0; "class", the most probable one, its "probability" and
        "std_error"; "log_p_x", nats; "p_value" and "none", 1 or 0, both empty without
        calibration data; "verdict"; and the probability of each class, "p(0)" and so on.

        Args:
            index: Names of the N rows, which stand under "row" in place of numbers.
            names: Names of the C classes, in place of theirs.
        """
        known = range(self.log_p.shape[1]) if names is None else names
        header = f"{HEADER},{line_of_csv(f'p({name})' for name in known)}"
        rows = zip(self._cells(index, names), self.probability.tolist(), strict=True)
        return [header, *(line_of_csv([*cells, *p]) for cells, p in rows)]

    def _cells(
        self, index: Sequence[object] | None, names: Sequence[object] | None
    ) -> list[tuple[Any, ...]]:
        """Returns what stands under `HEADER`, a tuple a datum.

        Args:
            index: Names of the N rows; `None` for their numbers.
            names: Names of the C classes; likewise.
        """
        best, count = self.predicted[:, None], len(self.log_p)
        p, error = (t.gather(1, best)[:, 0] for t in (self.probability, self.probability_error))
        which, odd = best[:, 0].tolist(), self.anomalies
        columns = (
            range(count) if index is None else index,
            which if names is None else [names[c] for c in which],
            p.tolist(),
            error.tolist(),
            self.log_p_x.tolist(),
            [None] * count if odd is None else odd.p_value.tolist(),
            [None] * count if odd is None else odd.flagged.int().tolist(),
            self.verdict,
        )
        return list(zip(*columns, strict=True))

    @property
    def _error(self) -> Tensor:
        """Standard errors of log P(x|c), `(N, C)`, 0 where that is known to be 0."""
        return torch.where(self.log_p.isneginf(), 0.0, self.std_error)

    def _labels(self, y: Tensor) -> Tensor:
        """Returns classes of the data, checked, `(N,)`."""
        return labels_of(y, len(self.log_p), self.log_p.shape[1], "y")


def labels_of(y: object, length: int, count: int, name: str) -> Tensor:
    """Returns classes, `(N,)` of int64 on the CPU.

    Args:
        y: As the user gave them.
        length: N.
        count: C.
        name: Theirs in errors.

    Raises:
        TypeError: If they are no integers.
        ValueError: If they are not N, or one is no class.
    """
    if not isinstance(y, Tensor) or y.dtype.is_floating_point or y.dtype.is_complex:
        got = f"of {y.dtype}" if isinstance(y, Tensor) else shown(y)
        raise TypeError(f"{name} is {got}; give a tensor of integers, 0 to {count - 1}")
    if y.shape != (length,):
        raise ValueError(f"{name} has shape {tuple(y.shape)}; give a class a datum, ({length},)")
    y = y.long().cpu()
    if (bad := (y < 0) | (y >= count)).any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"{name} is {y[row]} at row {row}, and the classes are 0 to {count - 1}; leave out "
            "what is of another class, or has no label"
        )
    return y
