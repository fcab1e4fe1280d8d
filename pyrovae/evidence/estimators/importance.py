"""Importance sampling with the guide, and what else is read of the same weights."""

__all__ = ["ELBO", "Importance", "Jackknife", "Sampled"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from math import sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyrovae.evidence.confirmation import (
    DRAWS,
    FEWEST,
    SAMPLED,
    SHARE,
    Confirmation,
    confirm_sampling,
)
from pyrovae.evidence.estimators.base import (
    Columns,
    Estimator,
    Guide,
    Inspected,
    Probe,
    Results,
    Work,
    found,
    no_path,
    path_grid,
    table,
)
from pyrovae.evidence.samplers.importance import ImportanceSampler, importance_sampling
from pyrovae.evidence.samplers.proposals import Proposal, Scheme, check_proposal
from pyrovae.evidence.samplers.streaming import StreamedWeights
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import Program

FLAT = ("num_particles", "tolerance", "max_particles", "max_seconds")


@dataclass(frozen=True)
class Sampled(Estimator):
    """What draws independently of each other: from the guide, made better or not, or the prior.

    Attributes:
        num_particles: S, draws per datum; or "auto", see `importance_sampling`.
        tolerance: Standard error that "auto" aims at and its verdict then asks for, nats.
        max_particles: Draws per datum that "auto" makes at most.
        max_seconds: Time after which "auto" asks for no more.
        proposal: Made of the guide, as `pv.Widened(1.2)`; or a Pyro guide instead.
        qmc: Draw scrambled Sobol points; S is a multiple of 16.
    """

    num_particles: int | str = 5_000
    tolerance: float = 0.01
    max_particles: int = 100_000
    max_seconds: float | None = None
    proposal: Proposal | Callable[..., Any] | None = None
    qmc: bool = False

    few: ClassVar[int] = 128
    flat: ClassVar[Mapping[str, str]] = {name: name for name in FLAT}

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
        """Whether a pilot finds how many draws a datum needs."""
        return self.num_particles == "auto"

    @property
    def sizes(self) -> int | None:
        """S; `None` under "auto"."""
        return None if self.auto else int(self.num_particles)

    @property
    def tolerance_asked(self) -> float:
        """The tolerance under "auto", nats."""
        return self.tolerance if self.auto else torch.inf

    def options(self) -> dict[str, Any]:
        """Returns S, and what else differs from plain draws."""
        known: dict[str, Any] = {"num_particles": self.num_particles}
        if self.auto:
            known |= {"tolerance": self.tolerance, "max_particles": self.max_particles}
        if self.proposal:
            known["proposal"] = f"{self.proposal}"
        return known | ({"qmc": True} if self.qmc else {})

    def weights(self, program: Program, rows: range, work: Work) -> LogWeights | StreamedWeights:
        """Returns log w = log p(x, z) - log q(z), a table `(S, n)` or its sums."""
        sampler = ImportanceSampler(program, self.scheme, work.seed, work.chunk, work.start)
        if self.auto or self.qmc:
            weights = sampler.log_weights(rows)
            if not program.plate:
                counts = None if self.qmc else weights.num_draws[None]
                return LogWeights(table(weights.log_w), counts, weights.randomizations)
            return weights
        grid = tuple(k for k in work.grid if k <= int(self.num_particles))
        return sampler.streamed(rows, grid)

    def columns(self, weights: Any, grid: tuple[int, ...]) -> Columns:
        """Returns log-mean-exp, and its path from few to all draws."""
        own = () if self.qmc else tuple(k for k in grid if k <= weights.num_particles)
        path = weights.path(own) if own else no_path(weights.log_evidence(), own)
        return (*found(weights), *(_padded(p, grid) for p in path))

    def batches(self, program: Program, weights: Any) -> Tensor | None:
        """Returns estimates by batch of the draws that all data share."""
        shared = program.particles.shared or program.sites.common_latents
        if isinstance(weights, StreamedWeights) and shared:
            return weights.batches()
        return None

    def confirm(self, program: Program, e: Results, good: Tensor, work: Work) -> Confirmation:
        """Returns what data simulated from the model say, whose exact z is known."""
        if not program.latent_size:
            return Confirmation()
        size, ess = e.num_draws[good], e.ess[good]
        return confirm_sampling(program, self.scheme, size, ess, work.seed, work.chunk)

    def amount(self, rows: range) -> int:
        """Returns S, or the most that "auto" draws."""
        return self.max_particles if self.auto else int(self.num_particles)

    def smaller(self, amount: int, rows: range, work: Work) -> tuple[Estimator, range, Work]:
        """Returns the same with fewer draws."""
        few = replace(self, num_particles=amount, qmc=False)
        return few, rows, replace(work, grid=path_grid(amount))

    def counted(self, program: Program, num_blocks: int) -> tuple[str, float]:
        """Returns the number of decodes."""
        times = num_blocks if program.particles.shared else len(program)
        return "decodes", self.amount(range(0)) * times

    def second_seconds(
        self, program: Program, rows: range, probe: Probe, again: Callable[..., Probe]
    ) -> float:
        """Returns what drawing for simulated data takes."""
        num_data, amount = len(program), self.amount(rows)
        if program.particles.shared:  # there each datum has draws of its own
            program = program.unshared()
            rows = program.blocks(SAMPLED)[0]
            probe = again(program, rows)
        most = max(DRAWS, SHARE * num_data * amount, 2 * FEWEST * amount)
        fixed = probe.seconds - probe.slope * amount
        return (probe.slope * (most + SAMPLED) + fixed * SAMPLED) / len(rows)


@dataclass(frozen=True)
class Importance(Sampled):
    r"""Importance sampling with the guide as proposal: in expectation a lower bound of log p(x).

    .. math::
        \log \tfrac1S \sum_s \frac{p(x, z_s)}{q(z_s | x)}, \quad z_s \sim q(z | x)

    References:
        Importance weighted autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519

    Example:
        >>> Importance(1_000).label
        'importance sampling'
    """

    name: ClassVar[str] = "importance"
    label: ClassVar[str] = "importance sampling"
    needs_guide: ClassVar[bool] = True
    rank: ClassVar[int | None] = 1
    biased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_proposal(self.proposal)
        super().__post_init__()

    def alone(
        self, model: Callable[..., Any], guide: Guide, *data: Tensor, **how: Any
    ) -> LogWeights:
        """Returns log-weights `(S, N)`, as `importance_sampling`."""
        if guide is None:
            raise ValueError(f"estimator {self.name!r} needs a guide; pass one")
        options = {f.name: getattr(self, f.name) for f in fields(self)}
        return importance_sampling(model, guide, *data, **options, **how)

    @property
    def draws_from(self) -> str:
        """The guide."""
        return "guide"

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the pair, with the proposal for its guide where that is one."""
        if callable(self.proposal) and not isinstance(self.proposal, Proposal):
            guide = self.proposal
        return super().program(guide, inspected)


@dataclass(frozen=True)
class OfImportance(Sampled):
    """What is read of the weights that `Importance` of the same options makes."""

    needs_guide: ClassVar[bool] = True

    @property
    def source(self) -> "Importance":
        """Importance sampling of the same options."""
        return Importance(**{f.name: getattr(self, f.name) for f in fields(self)})

    def alone(
        self, model: Callable[..., Any], guide: Guide, *data: Tensor, **how: Any
    ) -> LogWeights:
        """Returns the log-weights that it reads, `(S, N)`."""
        return self.source.alone(model, guide, *data, **how)


@dataclass(frozen=True)
class ELBO(OfImportance):
    r"""The mean of log w, a lower bound of log p(x) by KL(q(z|x) || p(z|x)), nats.

    .. math::
        \tfrac1S \sum_s \log \frac{p(x, z_s)}{q(z_s | x)}, \quad z_s \sim q(z | x)

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114
    """

    name: ClassVar[str] = "elbo"
    label: ClassVar[str] = "ELBO"
    is_mean: ClassVar[bool] = True
    confirmed: ClassVar[bool] = False

    def columns(self, weights: Any, grid: tuple[int, ...]) -> Columns:
        """Returns the mean of log w; of fewer draws it is the same with a larger error."""
        value, error = weights.elbo(), weights.elbo_std_error()
        none = torch.full_like(value, torch.nan)
        wider = [sqrt(weights.num_particles / k) for k in grid]
        wider = [w if w >= 1 else torch.nan for w in wider]
        path_error = torch.tensor(wider, dtype=torch.float64)[:, None] * error
        path = value.expand(len(grid), -1)
        return value, error, none, none, weights.num_draws, path, path_error

    @classmethod
    def verdict(cls, e: Results) -> list[str]:
        """Returns that it is a bound, whatever its error."""
        return ["a bound"] * len(e.value)


@dataclass(frozen=True)
class Jackknife(OfImportance):
    """Importance sampling's estimate, its bias of order 1/S taken off: no bound any more.

    References:
        Debiasing evidence approximations: on importance-weighted autoencoders and jackknife
        variational inference (Nowozin, 2018), https://openreview.net/forum?id=HyZoi-WRb
    """

    name: ClassVar[str] = "jackknife"
    label: ClassVar[str] = "the same, jackknife"

    def columns(self, weights: Any, grid: tuple[int, ...]) -> Columns:
        """Returns the corrected estimate, without a path."""
        value = weights.jackknife()
        return value, *found(weights)[1:], *no_path(value, grid)


def _padded(path: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Returns a path `(g, n)` as `(G, n)`, with NaN where there are too few draws."""
    if len(path) == len(grid):
        return path
    return torch.nn.functional.pad(path, (0, 0, 0, len(grid) - len(path)), value=torch.nan)
