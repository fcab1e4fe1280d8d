"""The cheapest way to a tolerance, datum by datum."""

__all__ = ["Best", "Fitted"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pyrovae.checks import check_positive, check_sizes
from pyrovae.evidence.cheapest import TEMPERATURES, Cheapest, Chosen, chosen, looks_good
from pyrovae.evidence.confirmation import confirm_annealing
from pyrovae.evidence.confirmed import Confirmation
from pyrovae.evidence.estimators.ais import Annealed
from pyrovae.evidence.estimators.base import Effort, Estimator
from pyrovae.evidence.estimators.reading import Reading, Results
from pyrovae.evidence.estimators.sampled import Sampled
from pyrovae.evidence.estimators.work import Columns, Guide, Inspected, Work
from pyrovae.evidence.reductions import KHAT_NEEDS, VERDICTS
from pyrovae.evidence.samplers.sampler import joined
from pyrovae.evidence.samplers.streaming import StreamedWeights
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import Program

BLOCK = 512  # data


class Fitted(Annealed):
    """How weights are read that are each datum's own: its temperatures, or none."""

    def of_weights(self, e: Results) -> list[str]:
        """Returns "not contradicted", or what to do: "more temperatures", or as of `Reading`."""
        plain = Reading().of_weights(e)
        good = looks_good(e.ess, e.pareto_k, e.std_error, e.num_draws).tolist()
        steps, missed = e.extras["temperatures"].tolist(), _missed(e).tolist()
        return [
            self.contradicted if m or t and not g else VERDICTS[0] if t else word
            for word, t, g, m in zip(plain, steps, good, missed, strict=True)
        ]

    def budget(self, e: Results, protocol: Mapping[str, object]) -> str:
        """Returns what was spent, and on how many data where they differ.

        Args:
            e: The results.
            protocol: Of the evaluation.
        """
        steps, draws = e.extras["temperatures"].long(), e.num_draws
        ways = torch.stack([steps, torch.where(steps > 0, draws, 0)]).unique(dim=1)
        found = {}
        for t, size in ways.T.tolist():
            most = f"K up to {int(draws[steps == 0].max()):,}" if not t else f"K = {size:,}"
            way = most if t <= 1 else f"{t} temperatures x {size} particles"
            found[way] = int((steps == t).sum())
        if len(found) == 1:
            return next(iter(found))
        return ", ".join(f"{way} for {count:,}" for way, count in found.items())

    def facts(self, e: Results) -> str:
        """Returns half the squared errors: how much too low the mean is, in expectation.

        And of how many data another start finds mass elsewhere.
        """
        low = f"in expectation it is too low by about {e.bias:.4f} nats, half the squared errors"
        if count := int(_missed(e).sum()):
            low += (
                f"; annealing from the prior finds mass of {count:,} data where theirs leads not"
            )
        return low

    def beside(self, e: Results) -> str:
        """Returns nothing."""
        return ""


def _missed(e: Results) -> Tensor:
    """Returns 1 where another start found mass elsewhere, `(N,)`."""
    return e.extras.get("missed", torch.zeros_like(e.value))


@dataclass(frozen=True)
class Best(Estimator[LogWeights | StreamedWeights]):
    r"""The cheapest way to log p(x) within a tolerance, which each datum takes by itself; nats.

    From a normal at the posterior's mode, `pv.Laplace()`, or the guide, whichever leaves less of a
    gap on simulated data: importance sampling where that is near the posterior, else annealing,

    .. math::
        \log \tfrac1S \sum_s w_s, \quad \mathrm{sd}(\log \tfrac1S \sum_s w_s) \approx
        \text{tolerance}

    with as many temperatures as a pilot finds needed for log-weights that spread so much; the
    table is `(S, N)`. A few particles are annealed from the prior as well: where these end in mass
    that a datum's way does not lead to, it is not "ok", whatever simulated data say.

    Where log p(x, z) has no gradient it is importance sampling with the guide, of as many draws as
    `num_particles="auto"` makes, or naive sampling without one.

    Attributes:
        tolerance: Standard error of a datum that is aimed at, nats. The mean of log p(x) over data
            is, in expectation, too low by half its square.
        max_temperatures: Of annealing, at most.

    References:
        Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008

    Example:
        >>> Best(0.1).label
        'the cheapest way'
    """

    name: ClassVar[str] = "best"
    label: ClassVar[str] = "the cheapest way"
    rank: ClassVar[int] = 2
    reading: ClassVar[Reading] = Fitted()

    tolerance: float = 0.15
    max_temperatures: int = 512

    def __post_init__(self) -> None:
        check_positive(tolerance=self.tolerance)
        check_sizes(max_temperatures=self.max_temperatures)
        if self.max_temperatures < TEMPERATURES[0]:
            raise ValueError(
                f"max_temperatures is {self.max_temperatures}; give {TEMPERATURES[0]} or more"
            )

    def joined(self, blocks: Sequence[LogWeights | StreamedWeights]) -> LogWeights | Tensor:
        """Returns the table of all blocks, `(S, N)`, filled up with -inf where S differs.

        Args:
            blocks: What `weights` returned, in order.

        Raises:
            TypeError: If they are sums alone.
        """
        tables = [block for block in blocks if isinstance(block, LogWeights)]
        return super().joined(blocks) if len(tables) < len(blocks) else joined(tables)

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the pair, or the model alone.

        Args:
            guide: Where Laplace's steps begin, or `None`.
            inspected: Makes the program.
        """
        return inspected(guide)

    def block_size(self, asked: int) -> int:
        """Returns 512: of so many data, those of one number of temperatures run together."""
        return BLOCK

    def prepared(self, program: Program, seed: int) -> Cheapest | Sampled:
        """Returns how far to anneal, as pilots find it, or what to do where nothing can be.

        Args:
            program: The pair and its data.
            seed: Of the evaluation.
        """
        try:
            return chosen(program, self.tolerance, self.max_temperatures, seed)
        except ValueError:  # no gradient; data and densities that are wrong are met again below
            return Sampled() if program.guide is None else Sampled("auto", self.tolerance)

    def weights(self, program: Program, rows: range, work: Work) -> LogWeights | StreamedWeights:
        """Returns log-weights, `(S, n)`, nats, and the temperatures of each datum.

        Args:
            program: The pair, or the model alone.
            rows: The n rows of a block.
            work: Seed, and what was prepared.
        """
        way = self._way(program, work)
        if isinstance(way, Sampled):
            return way.weights(program, rows, work)
        return way.checked(program, rows, work.seed)

    def columns(self, weights: LogWeights | StreamedWeights, grid: tuple[int, ...]) -> Columns:
        """Returns log-mean-exp, `(n,)`; of fewer than 25 particles there is no k-hat.

        Args:
            weights: The table, `(S, n)`.
            grid: Numbers of particles of other estimators' paths; here it is NaN.
        """
        found = super().columns(weights, grid)
        few = found.num_draws < KHAT_NEEDS
        return found._replace(pareto_k=torch.where(few, torch.nan, found.pareto_k))

    def extras(self, weights: LogWeights | StreamedWeights) -> dict[str, Tensor]:
        """Returns temperatures and what was missed, `(n,)`.

        Temperatures are 1 of importance sampling from the start, 0 of other; "missed" is 1 where
        another start found mass that the datum's way does not lead to.

        Args:
            weights: What `weights` returned.
        """
        if isinstance(weights, Chosen):
            return {
                "temperatures": weights.temperatures.double(),
                "missed": weights.missed.double(),
            }
        none = torch.zeros_like(weights.log_sum(1)).reshape(-1)
        return {"temperatures": none, "missed": none}

    def confirm(self, program: Program, e: Results, good: Tensor, work: Work) -> Confirmation:
        """Returns what runs back on simulated data say, and twice the temperatures.

        Args:
            program: The pair.
            e: The results.
            good: Which of the N data look good, `(N,)`.
            work: Seed, and what was prepared.
        """
        way = self._way(program, work)
        if isinstance(way, Sampled):
            return way.confirm(program, e, good, work)
        return confirm_annealing(program, way, e.value, e.std_error, good, work.seed)

    def effort(self, program: Program, rows: range, work: Work) -> Effort:
        """Returns a block's work, by its first data.

        A second way anneals 128 simulated data, chosen of 512 by where the path begins, and 8 of
        the real ones twice as long: the work of 300 data, about.

        Args:
            program: That of all data.
            rows: Of the block.
            work: What it is computed with.
        """
        part = lambda few: (self, rows[:few], work)  # noqa: E731
        second = lambda probe, again: 300 * probe.seconds / len(rows)  # noqa: E731
        given = "if all data are as hard as the first of them"
        return Effort(len(rows), part, confirmation=second, given=given)

    def options(self) -> dict[str, object]:
        """Returns both options: defaults, too, decide how far is annealed."""
        return {
            "best_tolerance": self.tolerance,
            "best_max_temperatures": self.max_temperatures,
        }

    def _way(self, program: Program, work: Work) -> Cheapest | Sampled:
        """Returns what was prepared, or prepares it: of blocks that were all there already."""
        way = work.prepared
        if isinstance(way, Cheapest | Sampled):
            return way
        return self.prepared(program, work.seed)
