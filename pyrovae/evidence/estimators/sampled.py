"""What draws particles independently of each other, from the guide or the prior."""

__all__ = ["Sampled"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pyrovae.evidence.confirmation import DRAWS, SAMPLED, SHARE, confirm_sampling
from pyrovae.evidence.confirmed import GOOD_NEEDED, Confirmation
from pyrovae.evidence.estimators.base import Effort, Estimator, path_grid
from pyrovae.evidence.estimators.reading import Results
from pyrovae.evidence.estimators.work import Columns, Probe, Target, Work
from pyrovae.evidence.samplers.sampler import ImportanceSampler
from pyrovae.evidence.samplers.scheme import Proposal, Scheme
from pyrovae.evidence.samplers.streaming import StreamedWeights
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import Program

OWN = "num_particles", "tolerance", "max_particles", "max_seconds"


@dataclass(frozen=True)
class Sampled(Estimator[LogWeights | StreamedWeights]):
    r"""Independent particles: from the guide, made better or not, or from the prior.

    .. math::
        \log w_{sn} = \log p(x_n, z_{sn}) - \log r(z_{sn} | x_n), \quad z_{sn} \sim r(z | x_n)

    Attributes:
        num_particles: S, particles per datum; or "auto", see `importance_sampling`.
        tolerance: Standard error that "auto" aims at and its verdict then asks for, nats.
        max_particles: Particles per datum that "auto" draws at most.
        max_seconds: Time after which "auto" asks for no more.
        proposal: Made of the guide, as `pv.Widened(1.2)`; or a Pyro guide instead.
        qmc: Draw scrambled Sobol points; S is a multiple of 16.
    """

    num_particles: int | str = 5_000
    tolerance: float = 0.01
    max_particles: int = 100_000
    max_seconds: float | None = None
    proposal: Proposal | Callable[..., object] | None = None
    qmc: bool = False

    keywords: ClassVar[Mapping[str, str]] = {name: name for name in OWN}

    def __post_init__(self) -> None:
        _ = self.scheme  # which checks them

    @property
    def scheme(self) -> Scheme:
        """How particles are drawn."""
        return Scheme(
            self.num_particles,
            self.proposal if isinstance(self.proposal, Proposal) else None,
            self.qmc,
            self.tolerance,
            self.max_particles,
            self.max_seconds,
        )

    @property
    def auto(self) -> bool:
        """Whether a pilot finds how many particles a datum needs."""
        return self.num_particles == "auto"

    @property
    def target(self) -> Target:
        """S; of "auto" the tolerance."""
        if self.auto:
            return Target(tolerance=self.tolerance)
        return Target(int(self.num_particles))

    def options(self) -> dict[str, object]:
        """Returns S, and what else differs from plain draws."""
        known: dict[str, object] = {"num_particles": self.num_particles}
        if self.auto:
            known |= {"tolerance": self.tolerance, "max_particles": self.max_particles}
        if self.proposal:
            known["proposal"] = f"{self.proposal}"
        return known | ({"qmc": True} if self.qmc else {})

    def weights(self, program: Program, rows: range, work: Work) -> LogWeights | StreamedWeights:
        """Returns log w, nats: a table `(S, n)`, or its sums where S may be large.

        A table is made under "auto", where data differ in S, and of Sobol points, whose error is
        taken between randomizations. Of all data as one it is a column, `(S, 1)`.

        Args:
            program: The pair, or the model alone, whose prior then proposes.
            rows: The n rows of a block.
            work: Seed, numbers of particles of the path, and sizes of groups.
        """
        sampler = ImportanceSampler(program, self.scheme, work.seed, work.chunk_size, work.start)
        if self.auto or self.qmc:
            weights = sampler.log_weights(rows)
            if not program.plate:
                counts = None if self.qmc else weights.num_draws[None]
                return LogWeights(weights.log_w[:, None], counts, weights.randomizations)
            return weights
        grid = tuple(k for k in work.grid if k <= int(self.num_particles))
        return sampler.streamed(rows, grid, work.group_sizes)

    def columns(self, weights: LogWeights | StreamedWeights, grid: tuple[int, ...]) -> Columns:
        """Returns log-mean-exp `(n,)`, and its path from few to all particles `(G, n)`.

        Args:
            weights: A table `(S, n)`, or its sums.
            grid: The G numbers of particles; beyond S the path is NaN.
        """
        found = super().columns(weights, grid)
        own = () if self.qmc else tuple(k for k in grid if k <= weights.num_particles)
        if not own:
            return found
        path, error = (_padded(p, len(grid)) for p in weights.path(own))
        return found._replace(path=path, path_std_error=error)

    def confirm(self, program: Program, e: Results, good: Tensor, work: Work) -> Confirmation:
        """Returns what data simulated from the model say, whose exact z is known.

        Args:
            program: Whose model simulates.
            e: The results, of whose S and ESS those are drawn as hard.
            good: Which of the N data look good, `(N,)`.
            work: Seed and chunk size; its random streams are others.
        """
        if not program.latent_size:
            return Confirmation()
        size, ess = e.num_draws[good], e.ess[good]
        return confirm_sampling(program, self.scheme, size, ess, work.seed, work.chunk_size)

    def effort(self, program: Program, rows: range, work: Work) -> Effort:
        r"""Returns the decodes: S of each datum, or of all where they share them.

        A second way takes, of m = 256 simulated data, a block's fixed time and

        .. math::
            \max(2^{16}, \; 0.05 \, N S, \; 32 \, S) + m

        decodes at most, at the seconds of one that the probe found.

        Args:
            program: That of all N data.
            rows: The n rows of a block.
            work: What it is computed with.
        """
        amount = self.max_particles if self.auto else int(self.num_particles)

        def part(few: int) -> tuple[Estimator, range, Work]:
            less = replace(self, num_particles=few, qmc=False)
            return less, rows, replace(work, grid=path_grid(few))

        def confirmation(probe: Probe, again: Callable[[Program, range], Probe]) -> float:
            own, block = program, rows
            if program.particles.shared:  # there each datum has draws of its own
                own = program.unshared()
                block = own.blocks(SAMPLED)[0]
                probe = again(own, block)
            most = max(DRAWS, SHARE * len(program) * amount, 2 * GOOD_NEEDED * amount)
            fixed = probe.seconds - probe.slope * amount
            return (probe.slope * (most + SAMPLED) + fixed * SAMPLED) / len(block)

        count = amount * (1 if program.particles.shared else len(rows))
        return Effort(amount, part, 128, "decodes", count, confirmation)


def _padded(path: Tensor, size: int) -> Tensor:
    """Returns a path `(g, n)` as `(G, n)`, with NaN where there are too few particles."""
    return torch.nn.functional.pad(path, (0, 0, 0, size - len(path)), value=torch.nan)
