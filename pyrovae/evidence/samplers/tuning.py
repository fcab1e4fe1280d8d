"""Temperatures and step sizes of annealing: found on a pilot, then frozen."""

__all__ = ["Kernel", "Pilot", "path_of", "pilot", "tune"]

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, exp, inf, isfinite, pi

import numpy as np
import torch

from pyrovae.checks import check_sizes
from pyrovae.equality import ByContent
from pyrovae.evidence.samplers import hmc
from pyrovae.evidence.samplers.mass import Mass
from pyrovae.evidence.samplers.paths import GuidePath, Path, PathProposal
from pyrovae.program import GeometricPath, Program, reproducible

ACCEPTANCE = 0.8  # what the pilot tunes step sizes to
SIGMOID = 4.0  # steepness of the sigmoid schedule, as Wu et al. have it
PILOT_ROWS, PILOT_PARTICLES, PILOT_STAGES, WARM_UP, MOVES = 32, 128, 500, 20, 3
STAGE = 0.5  # standard deviations of log w that a pilot's stage moves
PILOT = 10  # random stream


@dataclass(frozen=True, eq=False)
class Kernel(ByContent):
    """Annealing's transitions, frozen before the run: HMC at each temperature between the ends.

    Attributes:
        temperatures: b_0 = 0 to b_T = 1, `(T + 1,)`.
        step_size: At b_1 to b_{T-1}, in units of the start's scale, `(T - 1,)`.
        num_leapfrog: Leapfrog steps, each a gradient, of a transition.
        proposal: Where paths begin; `None` for the guide, or the prior without one.
        factor: A of the mass matrix (A A^T)^-1 there, in the same units, `(T - 1, d, d)`, lower
            triangular; `None` for the identity.
    """

    temperatures: np.ndarray
    step_size: np.ndarray
    num_leapfrog: int
    proposal: PathProposal | None = None
    factor: np.ndarray | None = None

    def path(self, program: Program, rows: range) -> Path:
        """Returns the path of a block.

        Args:
            program: The pair and its data.
            rows: The n rows.
        """
        return path_of(program, rows, self.proposal)

    def refined(self, num_temperatures: int) -> "Kernel":
        """Returns transitions with so many steps for each one of these: T of them, about.

        Temperatures, step sizes and mass matrices are interpolated, or the latter taken from the
        nearest; step sizes are 0.1 where there was no transition.

        Args:
            num_temperatures: T of what is returned.
        """
        b = self.temperatures
        finer = np.interp(np.linspace(0, len(b) - 1, num_temperatures + 1), np.arange(len(b)), b)
        if not len(self.step_size):
            return replace(self, temperatures=finer, step_size=np.full(len(finer) - 2, 0.1))
        steps = np.interp(finer[1:-1], b[1:-1], self.step_size)
        factor = None if self.factor is None else self.factor[_nearest(b[1:-1], finer[1:-1])]
        return replace(self, temperatures=finer, step_size=steps, factor=factor)


def path_of(program: Program, rows: range, proposal: PathProposal | None) -> Path:
    """Returns the path of a block from a proposal, from the guide, or the prior without one.

    Args:
        program: The pair and its data.
        rows: The n rows of the block.
        proposal: Where it begins.
    """
    if proposal is not None:
        return proposal.path(program, rows)
    return GuidePath(GeometricPath(program, rows))


@dataclass(frozen=True)
class Pilot:
    """What a pilot run found on its way from b = 0 to 1, of G temperatures.

    Attributes:
        grid: The temperatures, from 0 on, `(G + 1,)`.
        speed: Standard deviation of log f_1 - log f_0 at each, nats, `(G + 1,)`.
        steps: Step sizes, `(G,)`, from the second one on.
        factors: Of the mass matrices, likewise, `(G, d, d)`.
        num_leapfrog: Leapfrog steps of a transition.
        proposal: Where paths begin.
    """

    grid: list[float]
    speed: list[float]
    steps: list[float]
    factors: list[np.ndarray]
    num_leapfrog: int
    proposal: PathProposal | None

    def kernel(self, num_temperatures: int, schedule: str | Sequence[float] = "tuned") -> Kernel:
        """Returns transitions at the temperatures of a schedule.

        Args:
            num_temperatures: T, where the schedule is named.
            schedule: "tuned", "linear", "sigmoid", or the T + 1 temperatures.

        Raises:
            ValueError: If the temperatures do not rise from 0 to 1.
        """
        b = _temperatures(num_temperatures, schedule)
        if isinstance(schedule, str) and schedule == "tuned":
            b = _equal_steps(self.grid, self.speed, len(b))
        if len(b) == 2:  # no transition in between
            return Kernel(b, np.empty(0), self.num_leapfrog, self.proposal)
        steps = np.interp(b[1:-1], self.grid[1:], self.steps)
        factor = np.stack(self.factors)[_nearest(np.array(self.grid[1:]), b[1:-1])]
        return Kernel(b, steps, self.num_leapfrog, self.proposal, factor)


def tune(
    program: Program,
    num_temperatures: int,
    schedule: str | Sequence[float],
    num_leapfrog: int,
    seed: int,
    proposal: PathProposal | None = None,
) -> Kernel:
    """Returns temperatures, step sizes and mass matrices, as a pilot finds them.

    Args:
        program: The pair and its data.
        num_temperatures: T, where the schedule is named; of 1 there is nothing to find.
        schedule: "tuned", "linear", "sigmoid", or the T + 1 temperatures.
        num_leapfrog: Leapfrog steps of a transition.
        seed: Of the run.
        proposal: Where paths begin; `None` for the guide, or the prior without one.

    Raises:
        ValueError: If the temperatures do not rise from 0 to 1, or a latent has no gradient.
    """
    temperatures = _temperatures(num_temperatures, schedule)
    if len(temperatures) == 2:
        return Kernel(temperatures, np.empty(0), num_leapfrog, proposal)
    return pilot(program, num_leapfrog, seed, proposal).kernel(num_temperatures, schedule)


def pilot(
    program: Program, num_leapfrog: int, seed: int, proposal: PathProposal | None = None
) -> Pilot:
    r"""Anneals a pilot with random streams of its own, and returns what it found.

    128 particles of up to 32 data are annealed once, in stages that move log w by half a standard
    deviation each; three transitions a stage, 20 in the first, draw the step size towards an
    acceptance of 0.8: at most so far that a trajectory is a quarter of a turn, or as far as it
    goes, whichever leaves log w less variance. The mass matrix is the inverse of the particles'
    covariance,

    .. math::
        A A^T = (1 - \rho) C + \rho \, \mathrm{diag}(C), \quad
        C = \tfrac{1}{n (S - 1)} \sum_{sn} (u_{sn} - \bar u_n) (u_{sn} - \bar u_n)^T

    in units of the start's scale, averaged over the last stages, and shrunk by as much as its
    degrees of freedom leave it uncertain; above 64 dimensions its diagonal alone. What is tuned on
    other draws and then held fixed leaves each f_b invariant, and the weights unbiased.

    Args:
        program: The pair and its data.
        num_leapfrog: Leapfrog steps of a transition.
        seed: Of the run.
        proposal: Where paths begin; `None` for the guide, or the prior without one.

    Raises:
        ValueError: If a latent has no gradient.
    """
    if program.selects_rows:
        program = program.select(range(0, len(program), ceil(len(program) / PILOT_ROWS)))
    rows = program.blocks(PILOT_ROWS)[0]
    num_particles = ceil(PILOT_PARTICLES / (len(rows) if program.plate else 1))
    quarter = pi / 2 / num_leapfrog
    tried = [
        _annealed(program, rows, num_particles, seed, (num_leapfrog, most, proposal))
        for most in (quarter, inf)
    ]
    return min(tried, key=lambda pair: pair[1])[0]


def _annealed(
    program: Program,
    rows: range,
    num_particles: int,
    seed: int,
    how: tuple[int, float, PathProposal | None],
) -> tuple[Pilot, float]:
    """Returns what a pilot finds, and the variance of its log w, the mean over data, nats^2.

    Args:
        program: The pair and the pilot's data.
        rows: Of them.
        num_particles: S.
        seed: Of the run.
        how: Leapfrog steps, the largest step size, and where the path begins.
    """
    num_leapfrog, most, proposal = how
    with reproducible(seed, PILOT):
        path = path_of(program, rows, proposal)
        path.base.check_gradient()
        scale, mass, states = path.scale, Mass(), partial(hmc.at, path.ends)
        state = states(path.start(num_particles))  # v of (S, n, d)
        grid, speed, steps, factors, step = [0.0], [_speed(state)], [], [], 0.5
        factor, log_w = mass.factor(state.u / scale), torch.zeros_like(state.log_f[0])
        while grid[-1] < 1 and len(steps) < PILOT_STAGES:
            grid.append(min(1.0, grid[-1] + STAGE / speed[-1]))
            log_w = log_w + (grid[-1] - grid[-2]) * (state.log_f[1] - state.log_f[0])
            for _ in range(MOVES if steps else WARM_UP):
                state, rate = hmc.transition(
                    states, state, grid[-1], step * scale, num_leapfrog, factor
                )
                step = min(most, step * exp(rate.mean().item() - ACCEPTANCE))
            factor = mass.factor(state.u / scale)
            factors.append(factor.cpu().numpy())
            steps.append(step)
            speed.append(_speed(state))
    found = Pilot(grid, speed, steps, factors, num_leapfrog, proposal)
    return found, log_w.double().var(0).nan_to_num(inf).mean().item()


def _nearest(grid: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the place in a rising grid that each temperature is nearest to."""
    return np.abs(grid[:, None] - b).argmin(0)


def _temperatures(num_temperatures: int, schedule: str | Sequence[float]) -> np.ndarray:
    r"""Returns b_0 = 0 to b_T = 1, `(T + 1,)`; ValueError where they do not rise so.

    "sigmoid" is that of Wu et al. (2017), https://arxiv.org/abs/1611.04273:

    .. math::
        b_t = \frac{\sigma_t - \sigma_0}{\sigma_T - \sigma_0}, \quad
        \sigma_t = 1 / (1 + e^{-4 (2 t / T - 1)})
    """
    if isinstance(schedule, str):
        check_sizes(num_temperatures=num_temperatures)
        b = np.linspace(0, 1, num_temperatures + 1)
        if schedule not in ("linear", "sigmoid", "tuned"):
            raise ValueError(
                f"there is no schedule {schedule!r}; take 'linear', 'sigmoid' or 'tuned', or give "
                "the temperatures"
            )
        if schedule == "sigmoid":
            s = 1 / (1 + np.exp(-SIGMOID * (2 * b - 1)))
            b = (s - s[0]) / (s[-1] - s[0])
        return b
    b = np.asarray(schedule, dtype=np.float64)
    if b.ndim != 1 or len(b) < 2 or b[0] != 0 or b[-1] != 1 or not (np.diff(b) > 0).all():
        raise ValueError(
            f"the schedule {np.array2string(b, threshold=6)} does not rise from 0 to 1; give "
            "temperatures 0 = b_0 < b_1 < ... < b_T = 1"
        )
    return b


def _speed(state: hmc.State) -> float:
    """Returns the standard deviation of log f_1 - log f_0 over particles, rms over data.

    It is how fast log w moves there, in nats per unit of temperature; at least 0.5, also where it
    is not finite.
    """
    speed = (state.log_f[1] - state.log_f[0]).double().var(0).mean().sqrt().item()
    return speed if isfinite(speed) and speed > STAGE else STAGE


def _equal_steps(grid: list[float], speed: list[float], size: int) -> np.ndarray:
    r"""Returns `size` temperatures between which the standard deviation of log w moves equally.

    .. math::
        \int_0^{b_t} v(b) \, db = \frac tT \int_0^1 v(b) \, db

    with the speed v by the trapezoidal rule on the pilot's grid: of all schedules of T steps, the
    one with the least variance of log w, as far as transitions mix well.

    References:
        Simulating normalizing constants: from importance sampling to bridge sampling to path
        sampling (Gelman and Meng, 1998), https://doi.org/10.1214/ss/1028905934, section 4.3
    """
    b, v = np.array([*grid, 1.0]), np.array([*speed, speed[-1]])
    # (G,): how far it is to each temperature of the grid
    length = np.concatenate([[0], np.cumsum(np.diff(b) * (v[1:] + v[:-1]) / 2)])
    temperatures = np.interp(np.linspace(0, length[-1], size), length, b)
    temperatures[-1] = 1
    return temperatures
