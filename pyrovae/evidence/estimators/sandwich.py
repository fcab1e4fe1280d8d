"""Log p(x) from both sides, on the data themselves, by the cheapest way that certifies it."""

__all__ = ["Certified", "Sandwich"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from pyrovae.checks import check_positive, check_seconds, check_sizes
from pyrovae.evidence.certification import Ladder, certify_block, ladder
from pyrovae.evidence.confirmed import Confirmation
from pyrovae.evidence.estimators.base import Effort, Estimator
from pyrovae.evidence.estimators.reading import Reading, Results
from pyrovae.evidence.estimators.work import Columns, Guide, Inspected, Work
from pyrovae.evidence.reductions import VERDICTS
from pyrovae.evidence.samplers.laplace import Laplace
from pyrovae.evidence.samplers.paths import PathProposal
from pyrovae.evidence.samplers.sides import CERTIFIED, ERRORS, WORDS, Sides
from pyrovae.program import Program

BLOCK = 128  # data


class Certified(Reading):
    """How both sides are read: what is certified is ok, and nothing else is."""

    contradicted: ClassVar[str] = WORDS[1]
    advice: ClassVar[str] = "allow more temperatures, or a larger tolerance"

    def of_weights(self, e: Results) -> list[str]:
        """Returns "not contradicted" where a datum is certified, else why it is not."""
        return [VERDICTS[0] if c == CERTIFIED else WORDS[c] for c in _codes(e)]

    def verdict(self, e: Results) -> list[str]:
        """Returns "ok" where a datum is certified, else why it is not."""
        return ["ok" if c == CERTIFIED else WORDS[c] for c in _codes(e)]

    def budget(self, e: Results, protocol: Mapping[str, object]) -> str:
        """Returns the tolerance.

        Args:
            e: The results.
            protocol: Of the evaluation, which names it.
        """
        return f"to {self.tolerance(e, protocol):g} nats"

    def tolerance(self, e: Results, protocol: Mapping[str, object]) -> float:
        """Returns the tolerance of a certificate, nats.

        Args:
            e: The results.
            protocol: Of the evaluation, which names it.
        """
        return float(str(protocol.get(f"{e.name}_tolerance", Sandwich.tolerance)))

    def row(self, e: Results) -> dict[str, float | None]:
        """Returns how many data are certified, and both bounds of their mean with errors, nats.

        Args:
            e: The results.
        """
        fine = torch.tensor([c == CERTIFIED for c in _codes(e)])
        found: dict[str, float | None] = {"certified": int(fine.sum())}
        for side in ("lower", "upper"):
            bound, error = (e.extras[name][fine] for name in (side, f"{side}_error"))
            found[side] = bound.mean().item() if fine.any() else None
            found[f"{side}_error"] = error.norm().item() / int(fine.sum()) if fine.any() else None
        return found

    def facts(self, e: Results) -> str:
        """Returns how many are certified, and between what bounds their mean lies."""
        n, *bounds = self.row(e).values()
        if not n:
            return "none of the data is certified"
        low, low_error, high, high_error = (x or 0.0 for x in bounds)
        ends = low - ERRORS * low_error, high + ERRORS * high_error
        return (
            f"{n:,} of {len(e.value):,} data are certified, their mean between {ends[0]:.4f} and "
            f"{ends[1]:.4f} nats, 2 standard errors included"
        )

    def beside(self, e: Results) -> str:
        """Returns the same."""
        return self.facts(e)

    def second(self, e: Results) -> str:
        """Returns where a second way is: before all else."""
        return "Each way was first tried on data simulated from the model, whose exact z is known."


def _codes(e: Results) -> list[int]:
    """Returns the codes of results, one a datum."""
    return [int(c) for c in e.extras["code"].tolist()]


@dataclass(frozen=True)
class Sandwich(Estimator[Sides]):
    r"""Bounds of log p(x) from both sides on the data themselves, as `pv.certify` has them.

    .. math::
        \mathrm{E}[\log \hat w] \le \log p(x) \le
        \frac{\mathrm{E}[\hat w \log \hat w]}{\mathrm{E}[\hat w]}

    with independent runs of importance sampling or annealing, each of which gives an unbiased
    estimate :math:`\hat w` of p(x). The value is the log of their mean, `(N,)`, nats.

    Attributes:
        tolerance: Nats, within which log p(x) of a datum is to be known.
        max_temperatures: Of annealing; 1 leaves importance sampling alone.
        proposal: Where the first ways begin; `None` for `pv.Laplace()`.
        max_seconds: Time after which no block takes another way; what is certified then depends on
            the machine. `None`: no limit.

    References:
        Unbiased smoothing using particle independent Metropolis-Hastings (Middleton et al., 2019),
        https://arxiv.org/abs/1902.01781

    Example:
        >>> Sandwich(0.05).label
        'both sides'
    """

    name: ClassVar[str] = "sandwich"
    label: ClassVar[str] = "both sides"
    rank: ClassVar[int] = 0
    reading: ClassVar[Reading] = Certified()

    tolerance: float = 0.1
    max_temperatures: int = 512
    proposal: PathProposal | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        check_positive(tolerance=self.tolerance)
        check_sizes(max_temperatures=self.max_temperatures)
        check_seconds(self.max_seconds)

    def joined(self, blocks: Sequence[Sides]) -> Tensor:
        """Returns the log of the mean over all runs, `(N,)`, nats; bounds are `pv.certify`'s.

        Args:
            blocks: Both sides of each, in order.
        """
        return torch.cat([sides.value for sides in blocks])

    def options(self) -> dict[str, object]:
        """Returns its options, the proposal in words; defaults, too, decide what is certified."""
        own = {"sandwich_tolerance": self.tolerance}
        own |= {"sandwich_max_temperatures": self.max_temperatures}
        known = {**own, **super().options()}
        if "sandwich_proposal" in known:
            known["sandwich_proposal"] = f"{self.proposal}"
        return known

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the pair, or the model alone.

        Args:
            guide: Where some ways begin, or `None`.
            inspected: Makes the program.
        """
        return inspected(guide)

    def block_size(self, asked: int) -> int:
        """Returns 128: of a block, those that a way does not certify take the next together."""
        return BLOCK

    def prepared(self, program: Program, seed: int) -> Ladder:
        """Returns the ways, tuned on pilots, and tried on data simulated from the model.

        Args:
            program: The pair and its data.
            seed: Of the evaluation.
        """
        program = program.uncompiled()
        proposal = self.proposal or Laplace()
        seconds = inf if self.max_seconds is None else self.max_seconds
        return ladder(program, proposal, self.tolerance, self.max_temperatures, seed, seconds)

    def weights(self, program: Program, rows: range, work: Work) -> Sides:
        """Returns both sides, `(n,)`, nats.

        Args:
            program: The pair, or the model alone.
            rows: The n rows of a block.
            work: Seed and ways.
        """
        ways = work.prepared
        ways = ways if isinstance(ways, Ladder) else self.prepared(program, work.seed)
        return certify_block(program, rows, ways, work.seed)

    def columns(self, weights: Sides, grid: tuple[int, ...]) -> Columns:
        """Returns the log of the mean over all runs, `(n,)`, with its error and k-hat.

        Args:
            weights: Both sides.
            grid: Numbers of particles of other estimators' paths; here it is NaN.
        """
        w = weights
        return Columns.of(w.value, w.std_error, w.num_draws, grid, pareto_k=w.pareto_k)

    def extras(self, weights: Sides) -> dict[str, Tensor]:
        """Returns the bounds with their errors, the temperatures, and why not, `(n,)` each."""
        names = "lower", "lower_error", "upper", "upper_error", "temperatures", "rung", "code"
        return {name: getattr(weights, name).double() for name in names}

    def confirm(self, program: Program, e: Results, good: Tensor, work: Work) -> Confirmation:
        """Returns that simulated data were tried before: without them, nothing is certified.

        Args:
            program: The pair.
            e: The results.
            good: Which of them are certified, `(N,)`.
            work: What blocks were computed with.
        """
        return Confirmation(reason="both sides are tried on simulated data before")

    def effort(self, program: Program, rows: range, work: Work) -> Effort:
        """Returns a block's work, by its first data: nobody knows before how far up others go.

        Args:
            program: That of all data.
            rows: Of the block.
            work: What it is computed with.
        """
        part = lambda few: (self, rows[:few], work)  # noqa: E731
        return Effort(len(rows), part, given="if all data are as hard as the first of them")
