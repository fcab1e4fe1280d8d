"""What an estimator's results are worth, in words: verdicts by datum, and how they came about.

The verdict is read in two steps. By a datum's own weights nothing is ever certain: they know only
the mass that the proposal visits. What they do not contradict is held against a second, different
way, `Confirmation`, which alone makes it "ok".
"""

__all__ = ["Exactness", "Looseness", "Reading", "Results"]

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor

from pyrovae.evidence.confirmed import Confirmation
from pyrovae.evidence.reductions import VERDICTS, thresholds, verdicts


class Results(Protocol):
    """What a reading is made of: an `Estimate`, N data."""

    @property
    def name(self) -> str:
        """What the results are called: "importance", or "importance_2"."""
        ...

    @property
    def value(self) -> Tensor:
        """The estimate of log p(x), `(N,)`, nats."""
        ...

    @property
    def std_error(self) -> Tensor:
        """Its Monte Carlo standard error, `(N,)`, nats."""
        ...

    @property
    def ess(self) -> Tensor:
        """Effective sample size, `(N,)`; NaN where nothing is weighed."""
        ...

    @property
    def pareto_k(self) -> Tensor:
        """Pareto k-hat of the weights, `(N,)`; NaN where there is none."""
        ...

    @property
    def num_draws(self) -> Tensor:
        """S, particles of each datum, `(N,)`."""
        ...

    @property
    def tolerance(self) -> float:
        """Standard error that a verdict asks for, nats."""
        ...

    @property
    def confirmation(self) -> Confirmation:
        """What a second way said."""
        ...

    @property
    def extras(self) -> Mapping[str, Tensor]:
        """What else the estimator says of each datum, by name, `(N,)`."""
        ...

    @property
    def monte_carlo_error(self) -> float:
        """Error of their mean from finitely many particles, nats."""
        ...

    @property
    def bias(self) -> float:
        """How much their mean is too low in expectation, nats."""
        ...

    @property
    def bad(self) -> float:
        """Share of data whose k-hat is bad."""
        ...


class Reading:
    """How results of weighted particles are read; other kinds of results have a subclass.

    Attributes:
        contradicted: The verdict where a second way contradicts what looks good.
        advice: What to do where the estimate is no more than a lower bound.
    """

    contradicted: ClassVar[str] = "use ais"
    advice: ClassVar[str] = "draw more samples, or add the estimator ais"

    def of_weights(self, e: Results) -> list[str]:
        """Returns what each datum's weights say alone: "not contradicted" at best.

        See `pyrovae.evidence.weights.verdicts`.
        """
        columns = e.pareto_k, e.ess, e.std_error, e.num_draws, e.tolerance
        return [VERDICTS[i] for i in verdicts(*columns).tolist()]

    def verdict(self, e: Results) -> list[str]:
        """Returns what each datum's estimate is worth, in words.

        What its weights do not contradict is "ok" where a second way agrees and was tried on such
        data, and `contradicted` where that disagrees, or another estimate shows that it falls
        short; else it stays as it is.
        """
        words = self.of_weights(e)
        if (short := e.extras.get("short")) is not None:
            words = [self.contradicted if s > 0 else w for s, w in zip(short, words, strict=True)]
        if e.confirmation.exact:
            return ["ok"] * len(words)
        if (agrees := e.confirmation.agrees) is None:
            return words
        known = e.confirmation.speaks_of(e.std_error).tolist()
        return [
            (("ok" if k else w) if agrees else self.contradicted) if w == VERDICTS[0] else w
            for w, k in zip(words, known, strict=True)
        ]

    def budget(self, e: Results, protocol: Mapping[str, object]) -> str:
        """Returns what was spent on each datum: "K = 5,000", "K = 128 to 40,000", or "".

        Args:
            e: The results.
            protocol: Of the evaluation: its options by name.
        """
        low, high = int(e.num_draws.min()), int(e.num_draws.max())
        return f"K = {high:,}" if low == high else f"K = {low:,} to {high:,}"

    def facts(self, e: Results) -> str:
        """Returns what speaks for the results or against them, with its numbers."""
        limit = thresholds(e.num_draws).max().item()
        return (
            f"k-hat is bad (above {limit:.2f}) for {e.bad:.1%} of the data, median ESS "
            f"{e.ess.median():.0f}, smallest {e.ess.min():.1f}"
        )

    def beside(self, e: Results) -> str:
        """Returns what is told of the results beside an estimate that is better, or ""."""
        return (
            f"its median ESS is {e.ess.median():.1f}, and its own Monte Carlo error says "
            f"{e.monte_carlo_error:.4f}"
        )

    def row(self, e: Results) -> dict[str, float | None]:
        """Returns what a row of the table, as JSON has it, says beside what all of them say.

        Args:
            e: The results.
        """
        return {}

    def second(self, e: Results) -> str:
        """Returns what a second way said, a sentence."""
        return f"{e.confirmation}"


class Looseness(Reading):
    """How a mean of logs is read: it is below log p(x) by more than its error tells."""

    def verdict(self, e: Results) -> list[str]:
        """Returns "a bound" for each datum, whatever its error."""
        return ["a bound"] * len(e.value)


class Exactness(Reading):
    """How log p(x) itself is read: its error is numerical, and no particle was drawn."""

    allowed: ClassVar[float] = 1e-3  # nats that it may be off

    def verdict(self, e: Results) -> list[str]:
        """Returns "ok" where the stated error is at most 1e-3 nats, else "use ais"."""
        return ["ok" if x <= self.allowed else self.contradicted for x in e.std_error.tolist()]

    def budget(self, e: Results, protocol: Mapping[str, object]) -> str:
        """Returns nothing: no particle was drawn.

        Args:
            e: The results.
            protocol: Of the evaluation.
        """
        return ""

    def beside(self, e: Results) -> str:
        """Returns nothing."""
        return ""
