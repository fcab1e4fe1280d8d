"""Temperatures and step sizes of annealing: found on a pilot, then frozen."""

__all__ = ["Kernel", "scale_of", "tune"]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, exp, isfinite
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.equality import ByContent
from pyrovae.evidence.samplers import hmc
from pyrovae.program import GeometricPath, Program, reproducible

ACCEPTANCE = 0.8  # what the pilot tunes step sizes to
SIGMOID = 4.0  # steepness of the sigmoid schedule, as Wu et al. have it
PILOT_ROWS, PILOT_PARTICLES, PILOT_STAGES, WARM_UP, MOVES = 32, 128, 500, 20, 3
STAGE = 0.5  # standard deviations of log w that a pilot's stage moves
SCALE_DRAWS = 256  # for the mass matrix
PILOT = 10  # random stream


@dataclass(frozen=True, eq=False)
class Kernel(ByContent):
    """Annealing's transitions, frozen before the run: HMC at each temperature between the ends.

    Attributes:
        temperatures: b_0 = 0 to b_T = 1, `(T + 1,)`.
        step_size: At b_1 to b_{T-1}, in units of the proposal's scale, `(T - 1,)`.
        num_leapfrog: Leapfrog steps, each a gradient, of a transition.
    """

    temperatures: np.ndarray
    step_size: np.ndarray
    num_leapfrog: int


def tune(
    program: Program,
    num_temperatures: int,
    schedule: str | Sequence[float],
    num_leapfrog: int,
    seed: int,
) -> Kernel:
    """Returns temperatures and step sizes, tuned on a pilot with random streams of its own.

    128 particles of up to 32 data are annealed once, in stages that move log w by half a standard
    deviation each; three transitions a stage, 20 in the first, draw the step size towards an
    acceptance of 0.8. Between stages, and for other schedules, it is interpolated. What is tuned
    on other draws and then held fixed leaves each f_b invariant, and the weights unbiased.

    Args:
        program: The pair and its data.
        num_temperatures: T, where the schedule is named.
        schedule: "tuned", "linear", "sigmoid", or the T + 1 temperatures.
        num_leapfrog: Leapfrog steps of a transition.
        seed: Of the run.

    Raises:
        ValueError: If the temperatures do not rise from 0 to 1, or a latent has no gradient.
    """
    temperatures = _temperatures(num_temperatures, schedule)
    if len(temperatures) == 2:  # no transition in between, so nothing to tune
        return Kernel(temperatures, np.empty(0), num_leapfrog)
    if program.selects_rows:
        program = program.select(range(0, len(program), ceil(len(program) / PILOT_ROWS)))
    rows = program.blocks(PILOT_ROWS)[0]
    num_particles = ceil(PILOT_PARTICLES / (len(rows) if program.plate else 1))
    with reproducible(seed, PILOT):
        path = GeometricPath(program, rows)
        path.check_gradient()
        scale = scale_of(path)
        states = partial(hmc.at, path)
        state = states(path.start(num_particles))  # u of (S, n, d)
        grid, speed, steps, step = [0.0], [_speed(state)], [], 0.5
        while grid[-1] < 1 and len(steps) < PILOT_STAGES:
            grid.append(min(1.0, grid[-1] + STAGE / speed[-1]))
            for _ in range(MOVES if steps else WARM_UP):
                state, rate = hmc.transition(states, state, grid[-1], step * scale, num_leapfrog)
                step *= exp(rate.mean().item() - ACCEPTANCE)
            steps.append(step)
            speed.append(_speed(state))
    if isinstance(schedule, str) and schedule == "tuned":
        temperatures = _equal_steps(grid, speed, len(temperatures))
    return Kernel(temperatures, np.interp(temperatures[1:-1], grid[1:], steps), num_leapfrog)


def scale_of(path: GeometricPath) -> Tensor:
    """Returns the scale of the proposal's u, `(n, d)`: of a normal, its standard deviation.

    It is taken from the middle 80 % of 256 draws: of heavy tails, whose few outliers would rule a
    standard deviation, it is the scale of where the particles are. 1 in a direction without any.
    """
    draws = path.start(SCALE_DRAWS).sort(0).values  # (256, n, d)
    tail = SCALE_DRAWS // 10
    low, high = draws[tail], draws[-1 - tail]
    scale = (high - low) / (2 * NormalDist().inv_cdf(0.9))
    return torch.where(scale > 0, scale, 1.0)


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
