"""Annealed importance sampling, from the guide where there is one."""

__all__ = ["AIS"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.evidence.confirmation import (
    ANNEALED,
    LONGER,
    SCREENED,
    Annealing,
    confirm_annealing,
)
from pyrovae.evidence.confirmed import Confirmation
from pyrovae.evidence.estimators.base import Effort, Estimator
from pyrovae.evidence.estimators.reading import Reading, Results
from pyrovae.evidence.estimators.work import Columns, Guide, Inspected, Probe, Work
from pyrovae.evidence.reductions import KHAT_NEEDS, annealed_verdicts
from pyrovae.evidence.samplers.annealing import AnnealedWeights, ais, anneal
from pyrovae.evidence.samplers.options import NUM_LEAPFROG, AnnealingRun
from pyrovae.evidence.samplers.paths import PathProposal
from pyrovae.evidence.samplers.scheme import check_proposal
from pyrovae.evidence.samplers.tuning import Kernel, tune
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import Program


class Annealed(Reading):
    """How the weights of few annealing runs are read."""

    contradicted: ClassVar[str] = "more temperatures"
    advice: ClassVar[str] = "anneal with more temperatures"

    def of_weights(self, e: Results) -> list[str]:
        """Returns "more temperatures" where less than a quarter of the particles count."""
        return annealed_verdicts(e.ess, e.num_draws, e.std_error, e.tolerance)

    def budget(self, e: Results, protocol: Mapping[str, object]) -> str:
        """Returns temperatures x particles.

        Args:
            e: The results.
            protocol: Of the evaluation, which names the temperatures.
        """
        own = "num_temperatures" + ("" if e.name == AIS.name else f"_{e.name}")
        steps = f"{protocol[own]} temperatures x " if own in protocol else ""
        return f"{steps}{int(e.num_draws.max())} particles"

    def facts(self, e: Results) -> str:
        """Returns how many particles count."""
        return f"median ESS {e.ess.median():.1f} of {int(e.num_draws.max())} particles"

    def beside(self, e: Results) -> str:
        """Returns nothing."""
        return ""


@dataclass(frozen=True)
class AIS(Estimator[LogWeights]):
    r"""Annealed importance sampling: in expectation a lower bound of log p(x), nats.

    .. math::
        \log \tfrac1S \sum_s w_s, \quad \log w_s = \sum_{t=1}^T (b_t - b_{t-1})
        \log \frac{p(x, z_{s,t-1})}{q(z_{s,t-1} | x)}

    with z_{s,0} from the guide, or prior without one, and HMC towards each temperature between;
    the table is `(S, N)`. See `pyrovae.ais`.

    Attributes:
        num_temperatures: T, steps of the path.
        num_particles: S, annealing runs per datum.
        schedule: "tuned", "linear", "sigmoid", or the T + 1 temperatures.
        num_leapfrog: Leapfrog steps of a transition.
        proposal: Where the path begins, as `pv.Laplace()`, or another Pyro guide; `None` for the
            guide, or the prior without one.

    References:
        Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008
    """

    num_temperatures: int = 100
    num_particles: int = 8
    schedule: str | tuple[float, ...] = "tuned"
    num_leapfrog: int = NUM_LEAPFROG
    proposal: PathProposal | Callable[..., object] | None = None

    name: ClassVar[str] = "ais"
    label: ClassVar[str] = "annealing"
    rank: ClassVar[int] = 2
    reading: ClassVar[Reading] = Annealed()
    keywords: ClassVar[Mapping[str, str]] = {
        "num_temperatures": "num_temperatures",
        "num_chains": "num_particles",
    }

    def __post_init__(self) -> None:
        sizes = {word: getattr(self, own) for word, own in self.keywords.items()}
        check_sizes(**sizes, num_leapfrog=self.num_leapfrog)
        check_proposal(self.proposal)
        if not isinstance(self.schedule, str | tuple):
            object.__setattr__(self, "schedule", tuple(self.schedule))

    def __call__(
        self,
        model: Callable[..., object],
        guide: Guide,
        *data: Tensor,
        seed: int | None = None,
        plate: str | None = "data",
    ) -> AnnealedWeights:
        """Returns the weights of annealing runs, `(S, N)`, nats, as `ais`.

        Args:
            model: A Pyro callable of `*data`.
            guide: Where the path begins; `None` begins at the prior.
            data: Tensors of equal length N, as the program takes them.
            seed: Fixes the draws; `None` draws a seed.
            plate: Name of the plate over the data; `None` for all data as one, `(S,)`.
        """
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return ais(model, *data, guide=guide, **own, seed=seed, plate=plate)

    def block_size(self, asked: int) -> int:
        """Returns how many data's particles are annealed at once."""
        return AnnealingRun().block_size(self.num_particles)

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the pair, or the model alone, which begins at the prior.

        Args:
            guide: Where the path begins, or `None`.
            inspected: Makes the program.
        """
        if self.proposal is not None and not isinstance(self.proposal, PathProposal):
            guide = self.proposal
        return inspected(guide)

    def prepared(self, program: Program, seed: int) -> Kernel:
        """Returns temperatures and step sizes, frozen, as a pilot finds them.

        Particles that adapted their own steps would be biased; the pilot's are thrown away.

        Args:
            program: Of which the pilot anneals some data.
            seed: Of the evaluation; the pilot's random stream is another.
        """
        how = self.num_temperatures, self.schedule, self.num_leapfrog
        return tune(program, *how, seed, self._start)

    def weights(self, program: Program, rows: range, work: Work) -> LogWeights:
        """Returns the weights of annealing runs, `(S, n)`, nats.

        Args:
            program: The pair, or the model alone.
            rows: The n rows of a block.
            work: Seed, and the frozen temperatures and step sizes.
        """
        kernel = self._kernel(program, work)
        return LogWeights(anneal(program, rows, self.num_particles, work.seed, kernel)[0])

    def columns(self, weights: LogWeights, grid: tuple[int, ...]) -> Columns:
        """Returns log-mean-exp, `(n,)`; of fewer than 25 particles there is no k-hat.

        Args:
            weights: The table, `(S, n)`.
            grid: Numbers of particles of other estimators' paths; here it is NaN.
        """
        found = super().columns(weights, grid)
        if weights.num_particles >= KHAT_NEEDS:
            return found
        return found._replace(pareto_k=torch.full_like(found.ess, torch.nan))

    def confirm(self, program: Program, e: Results, good: Tensor, work: Work) -> Confirmation:
        """Returns what reverse runs on simulated data say, and twice the temperatures.

        Args:
            program: Whose model simulates.
            e: The results: the longer runs are held against their values and errors.
            good: Which of the N data look good, `(N,)`.
            work: Seed, temperatures and step sizes.
        """
        way = Annealing(self._kernel(program, work), self.num_particles)
        return confirm_annealing(program, way, e.value, e.std_error, good, work.seed)

    def effort(self, program: Program, rows: range, work: Work) -> Effort:
        r"""Returns the gradients, of L leapfrog steps at each temperature between the ends.

        .. math::
            n S \, ((T - 1) L + 1)

        A second way anneals 48 simulated data forward, as many in reverse by one particle each,
        and 8 of the real ones at twice the temperatures.

        Args:
            program: That of all N data.
            rows: The n rows of a block.
            work: What it is computed with; a probe takes fewer temperatures.
        """

        def part(few: int) -> tuple[Estimator, range, Work]:
            steps = np.full(few - 1, 0.1)
            b = np.linspace(0, 1, few + 1)
            kernel = Kernel(b, steps, self.num_leapfrog, self._start)
            return self, rows, replace(work, prepared=kernel)

        def confirmation(probe: Probe, again: object) -> float:
            runs = ANNEALED, ANNEALED / self.num_particles, LONGER, LONGER
            screened = SCREENED / self.num_temperatures  # densities alone, as many as of one step
            return probe.seconds * (sum(max(len(rows), n) for n in runs) + screened) / len(rows)

        gradients = (self.num_temperatures - 1) * self.num_leapfrog + 1
        count = len(rows) * self.num_particles * gradients
        return Effort(self.num_temperatures, part, 4, "gradients", count, confirmation)

    def options(self) -> dict[str, object]:
        """Returns its options, the proposal in words."""
        known = super().options()
        if self.proposal:
            known["ais_proposal"] = f"{self.proposal}"
        return known

    @property
    def _start(self) -> PathProposal | None:
        """The proposal, where it is no guide."""
        return self.proposal if isinstance(self.proposal, PathProposal) else None

    def _kernel(self, program: Program, work: Work) -> Kernel:
        """Returns what was prepared, or prepares it: of blocks that were all there already."""
        kernel = work.prepared
        return kernel if isinstance(kernel, Kernel) else self.prepared(program, work.seed)
