"""Annealed importance sampling, from the guide where there is one."""

__all__ = ["AIS"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.evidence.confirmation import (
    ANNEALED,
    LONGER,
    SCREENED,
    Confirmation,
    confirm_annealing,
)
from pyrovae.evidence.estimators.base import (
    Columns,
    Estimator,
    Guide,
    Inspected,
    Probe,
    Results,
    Work,
    no_path,
    table,
)
from pyrovae.evidence.samplers.annealing import AnnealedWeights, ais, anneal
from pyrovae.evidence.samplers.options import NUM_LEAPFROG, AnnealingRun
from pyrovae.evidence.samplers.tuning import Kernel, tune
from pyrovae.evidence.weights import FEWEST, LogWeights, annealed_verdicts
from pyrovae.program import Program


@dataclass(frozen=True)
class AIS(Estimator):
    """Annealed importance sampling: in expectation a lower bound of log p(x), see `pyrovae.ais`.

    Attributes:
        num_temperatures: T, steps of the path.
        num_particles: S, annealing runs per datum.
        schedule: "tuned", "linear", "sigmoid", or the T + 1 temperatures.
        num_leapfrog: Leapfrog steps of a transition.

    References:
        Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008
    """

    num_temperatures: int = 100
    num_particles: int = 8
    schedule: str | tuple[float, ...] = "tuned"
    num_leapfrog: int = NUM_LEAPFROG

    name: ClassVar[str] = "ais"
    label: ClassVar[str] = "annealing"
    rank: ClassVar[int | None] = 2
    biased: ClassVar[bool] = True
    weighed: ClassVar[bool] = False
    worse: ClassVar[str] = "more temperatures"
    advice: ClassVar[str] = "anneal with more temperatures"
    flat: ClassVar[Mapping[str, str]] = {
        "num_temperatures": "num_temperatures",
        "num_chains": "num_particles",
    }

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, own) for name, own in self.flat.items()}
        check_sizes(**sizes, num_leapfrog=self.num_leapfrog)
        if not isinstance(self.schedule, str | tuple):
            object.__setattr__(self, "schedule", tuple(self.schedule))

    def alone(
        self, model: Callable[..., Any], guide: Guide, *data: Tensor, **how: Any
    ) -> AnnealedWeights:
        """Returns the weights of annealing runs, `(S, N)`, as `ais`."""
        options: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return ais(model, *data, guide=guide, **options, **how)

    def block_size(self, asked: int) -> int:
        """Returns how many data's runs are annealed at once."""
        return AnnealingRun().block_size(self.num_particles)

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the pair, or the model alone, which begins at the prior."""
        return inspected(guide)

    def prepared(self, program: Program, seed: int) -> Kernel:
        """Returns the course that a pilot finds, frozen."""
        return tune(program, self.num_temperatures, self.schedule, self.num_leapfrog, seed)

    def weights(self, program: Program, rows: range, work: Work) -> LogWeights:
        """Returns the weights of annealing runs, `(S, n)`."""
        return LogWeights(
            table(anneal(program, rows, self.num_particles, work.seed, work.once)[0])
        )

    def columns(self, weights: LogWeights, grid: tuple[int, ...]) -> Columns:
        """Returns log-mean-exp; of fewer than 25 runs there is no k-hat."""
        value, error, ess = weights.log_evidence(), weights.std_error(), weights.ess()
        many = weights.num_particles >= FEWEST
        k = weights.pareto_k() if many else torch.full_like(ess, torch.nan)
        return value, error, ess, k, weights.num_draws, *no_path(value, grid)

    def confirm(self, program: Program, e: Results, good: Tensor, work: Work) -> Confirmation:
        """Returns what reverse runs on simulated data say, and twice the temperatures."""
        kernel = work.once or self.prepared(program, work.seed)
        return confirm_annealing(
            program, kernel, self.num_particles, e.value, e.std_error, good, work.seed
        )

    @classmethod
    def own_verdict(cls, e: Results) -> list[str]:
        """Returns "more temperatures" where less than a quarter of the runs count."""
        return annealed_verdicts(e.ess, e.num_draws, e.std_error, e.tolerance)

    @classmethod
    def how(cls, e: Results, protocol: Mapping[str, Any]) -> str:
        """Returns temperatures x runs."""
        own = "num_temperatures" + ("" if e.name == cls.name else f"_{e.name}")
        steps = f"{protocol[own]} temperatures x " if own in protocol else ""
        return f"{steps}{int(e.num_draws.max())} chains"

    @classmethod
    def facts(cls, e: Results) -> str:
        """Returns how many runs count."""
        return f"median ESS {e.ess.median():.1f} of {int(e.num_draws.max())} chains"

    def amount(self, rows: range) -> int:
        """Returns T."""
        return self.num_temperatures

    def smaller(self, amount: int, rows: range, work: Work) -> tuple[Estimator, range, Work]:
        """Returns the same at fewer temperatures."""
        steps = np.full(amount - 1, 0.1)
        kernel = Kernel(np.linspace(0, 1, amount + 1), steps, self.num_leapfrog)
        return self, rows, replace(work, once=kernel)

    def counted(self, program: Program, num_blocks: int) -> tuple[str, float]:
        """Returns the number of gradients."""
        gradients = (self.num_temperatures - 1) * self.num_leapfrog + 1
        return "gradients", len(program) * self.num_particles * gradients

    def second_seconds(
        self, program: Program, rows: range, probe: Probe, again: Callable[..., Probe]
    ) -> float:
        """Returns what annealing takes: a step of few runs as long as one of a block's."""
        runs = ANNEALED, ANNEALED / self.num_particles, LONGER, LONGER
        screened = SCREENED / self.num_temperatures  # densities alone, as many as of one step
        return probe.seconds * (sum(max(len(rows), n) for n in runs) + screened) / len(rows)
