"""Annealed importance sampling, and the two-sided bounds that tell how good it is."""

__all__ = ["AnnealedWeights", "Bounds", "ais", "anneal", "bdmc", "sandwich", "simulated", "tune"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, exp, inf, isfinite, log, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.evidence.samplers import hmc
from pyrovae.evidence.weights import (
    LogWeights,
    annealed_verdicts,
    check_weights,
)
from pyrovae.program import Path, Program, Values, evaluation, inspect, reproducible, simulate
from pyrovae.rng import draw_seed, seeded
from pyrovae.threads import one_at_a_time

CHAINS = 1024  # particles x data annealed at once
ACCEPTANCE = 0.8  # what the pilot tunes step sizes to
SIGMOID = 4.0  # steepness of the sigmoid schedule, as Wu et al. have it
PILOT_ROWS, PILOT_CHAINS, PILOT_STAGES, WARM_UP, MOVES = 32, 128, 500, 20, 3
NUM_LEAPFROG = 2  # best at equal numbers of gradients
STAGE = 0.5  # standard deviations of log w that a pilot's stage moves
SCALE_DRAWS = 256  # for the mass matrix
PILOT, SCALE, FORWARD, REVERSE, SIMULATED = 10, 11, 12, 13, 14  # random streams


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class AnnealedWeights(LogWeights):
    """Log-weights of annealing runs, `(S, N)`, and how the runs went.

    Attributes:
        temperatures: b_0 = 0 to b_T = 1, `(T + 1,)`.
        step_size: HMC's, at b_1 to b_{T-1}, in units of the proposal's scale, `(T - 1,)`.
        acceptance: Mean acceptance rate there, `(T - 1,)`.
    """

    temperatures: Tensor
    step_size: Tensor
    acceptance: Tensor

    def verdict(self, tolerance: float = inf) -> list[str]:
        """Returns for each datum "not contradicted" or "more temperatures".

        The first where a quarter of the runs count and the standard error is within the tolerance.
        A few runs have no k-hat, and nothing in them says what mass none of them reached: `bdmc`
        tells, and `evaluate` looks.
        """
        return annealed_verdicts(self.ess(), self.num_draws, self.std_error(), tolerance)


@dataclass(frozen=True, repr=False)
class Bounds:
    """Two-sided bounds of log p(x) on data simulated from the model, in nats.

    Attributes:
        lower: In expectation a lower bound of log p(x): forward annealing, `(N,)`.
        upper: In expectation an upper bound: reverse annealing from the exact z, `(N,)`.
        forward: The forward runs' weights, `(S, N)`.
        data: The simulated data, as the program takes them.
    """

    lower: Tensor
    upper: Tensor
    forward: AnnealedWeights
    data: tuple[Tensor, ...]

    @property
    def gap(self) -> Tensor:
        """Returns upper - lower, `(N,)`: what annealing with these settings leaves open."""
        return self.upper - self.lower

    def __repr__(self) -> str:
        n = self.gap.numel()
        error = f" +- {self.gap.std().item() / sqrt(n):.4f}" if n > 1 else ""
        return (
            f"Bounds({n} data simulated from the model: lower {self.lower.mean():.4f}, upper "
            f"{self.upper.mean():.4f} nats; gap {self.gap.mean():.4f}{error})"
        )


@dataclass(frozen=True)
class Kernel:
    """The frozen course of annealing: temperatures (T + 1,), step sizes (T - 1,), leapfrogs."""

    temperatures: np.ndarray
    step_size: np.ndarray
    num_leapfrog: int


@one_at_a_time
def ais(
    model: Callable[..., Any],
    *data: Tensor,
    guide: Callable[..., Any] | None = None,
    num_temperatures: int = 100,
    num_particles: int = 8,
    schedule: str | Sequence[float] = "tuned",
    num_leapfrog: int = NUM_LEAPFROG,
    seed: int | None = None,
    plate: str | None = "data",
    chunk_size: int = CHAINS,
    compile: bool = False,
) -> AnnealedWeights:
    r"""Returns log-weights `(S, N)` of annealed importance sampling, per datum.

    .. math::
        \log w = \sum_{t=1}^T (b_t - b_{t-1}) \log \frac{p(x, z_{t-1})}{q(z_{t-1} | x)}, \quad
        z_0 \sim q(z|x), \quad z_t \sim \mathrm{HMC}(z_{t-1};\ q(z|x)^{1-b_t} p(x, z)^{b_t})

    from the guide, or from the prior (q = p(z)) without one. w is unbiased for p(x), so that
    `log_evidence` is in expectation a lower bound of log p(x) that rises to it with both the
    number of temperatures and of particles.

    Latents move in unconstrained space, each datum's and particle's chain on its own, with the
    proposal's scale as mass matrix. Step sizes are tuned on a pilot with other seeds, on at most
    32 of the data, as a function of temperature; then they are frozen: adapting them to the
    chains that make the estimate would bias it. Discrete latents that the guide leaves out are
    summed out.

    Args:
        model: Any Pyro callable of `*data`, differentiable in its latents.
        data: Tensors of equal length N, as the program takes them.
        guide: Where the path begins; `None` begins at the prior.
        num_temperatures: T, steps of the path; 1 is importance sampling.
        num_particles: S, annealing runs per datum.
        schedule: "tuned", in steps that the pilot finds equal; "linear"; "sigmoid", finer at both
            ends; or the T + 1 temperatures, rising from 0 to 1 (T is then theirs).
        num_leapfrog: Leapfrog steps, each a gradient, of a transition.
        seed: Fixes the draws; the caller's random streams stay untouched. `None` draws a seed.
        plate: Name of the plate over the data; `None` gives joint weights `(S,)` of all data.
        chunk_size: Particles x data annealed at once; bounds memory.
        compile: Run densities and gradients as a compiled graph; see `pyrovae.program.Captured`.

    Raises:
        TypeError, ValueError: As `pyrovae.check` explains; also for a latent without a gradient, a
            schedule that does not rise from 0 to 1, or NaN weights, datum named.

    References:
        Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008
        On the quantitative analysis of decoder-based generative models (Wu et al., 2017),
        https://arxiv.org/abs/1611.04273: sigmoid schedule, and the path from the encoder.
    """
    check_sizes(num_particles=num_particles, num_leapfrog=num_leapfrog, chunk_size=chunk_size)
    size = max(1, chunk_size // num_particles)
    program = inspect(model, guide, *data, plate=plate, block_size=size)
    if compile:
        program = program.compiled()
    seed = draw_seed(seed)
    kernel = tune(program, num_temperatures, schedule, num_leapfrog, seed)
    blocks = [anneal(program, rows, num_particles, seed, kernel) for rows in program.blocks(size)]
    return _weights(blocks, kernel)


@one_at_a_time
def bdmc(
    model: Callable[..., Any],
    *data: Tensor,
    guide: Callable[..., Any] | None = None,
    num_temperatures: int = 100,
    num_particles: int = 8,
    schedule: str | Sequence[float] = "tuned",
    num_leapfrog: int = NUM_LEAPFROG,
    seed: int | None = None,
    plate: str | None = "data",
    chunk_size: int = CHAINS,
) -> Bounds:
    r"""Returns lower and upper bounds of log p(x) on data simulated from the model.

    `data` give sizes and covariates only: what the program observes is drawn from it, z ~ p(z) and
    x ~ p(x|z). Annealing forward bounds log p(x) from below; annealing in reverse, from the very z
    that made x (an exact draw from the posterior), bounds it from above:

    .. math::
        \mathrm{E}[\log \tfrac1S \sum_s w_s] \le \log p(x) \le
        \mathrm{E}[-\log \tfrac1S \sum_s 1 / w'_s]

    The gap tells how good `ais` with these settings is on this model, as far as real data are
    like the model's own. Arguments and errors as `ais`.

    Raises:
        ValueError: Also if what a site observes is no view of a data argument.

    References:
        Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse et al., 2015),
        https://arxiv.org/abs/1511.02543
        Measuring the reliability of MCMC inference with bidirectional Monte Carlo (Grosse et al.,
        2016), https://arxiv.org/abs/1606.02275
    """
    check_sizes(num_particles=num_particles, num_leapfrog=num_leapfrog, chunk_size=chunk_size)
    size = max(1, chunk_size // num_particles)
    program = inspect(model, guide, *data, plate=plate, block_size=size)
    seed = draw_seed(seed)
    program, latents = simulated(program, size, seed)
    kernel = tune(program, num_temperatures, schedule, num_leapfrog, seed)
    return sandwich(program, latents, num_particles, size, seed, kernel)


def sandwich(
    program: Program,
    latents: list[Values],
    num_particles: int,
    size: int,
    seed: int,
    kernel: Kernel,
) -> Bounds:
    """Returns the bounds on a program's simulated data, of which `latents` made each block's."""
    blocks = program.blocks(size)
    forward = [anneal(program, rows, num_particles, seed, kernel) for rows in blocks]
    with evaluation(), pyro.validation_enabled(False), torch.random.fork_rng():
        starts = [Path(program, r).unconstrain(z) for r, z in zip(blocks, latents, strict=True)]
    reverse = [
        anneal(program, rows, num_particles, seed, kernel, u)[0]
        for rows, u in zip(blocks, starts, strict=True)
    ]
    weights = _weights(forward, kernel)
    upper = log(num_particles) - (-torch.cat(reverse, dim=-1)).logsumexp(0)
    return Bounds(weights.log_evidence(), upper, weights, program.data)


def tune(
    program: Program,
    num_temperatures: int,
    schedule: str | Sequence[float],
    num_leapfrog: int,
    seed: int,
) -> Kernel:
    """Returns temperatures and step sizes, tuned on a pilot with random streams of its own."""
    temperatures = _temperatures(num_temperatures, schedule)
    if len(temperatures) == 2:  # no transition in between, so nothing to tune
        return Kernel(temperatures, np.empty(0), num_leapfrog)
    if program.feed == "slice":
        program = program.take(range(0, len(program), ceil(len(program) / PILOT_ROWS)))
    rows = program.blocks(PILOT_ROWS)[0]
    num_particles = ceil(PILOT_CHAINS / (len(rows) if program.plate else 1))
    with reproducible(seed, PILOT):
        path = Path(program, rows)
        path.check_gradient()
        scale = _scale(path)
        states = partial(hmc.at, path)
        state = states(path.start(num_particles))
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


def anneal(
    program: Program,
    rows: range,
    num_particles: int,
    seed: int,
    kernel: Kernel,
    exact: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns a block's log-weights `(S, n)` and its acceptance rates, `(T - 1,)`.

    Runs forward from the proposal, or in reverse from a draw of the posterior, its u `(n, d)`.
    With a kernel, they depend on the seed, the direction and the block's first row alone.
    """
    b, step, leapfrogs = kernel.temperatures, kernel.step_size, kernel.num_leapfrog
    rates, forward = torch.empty(len(step), dtype=torch.float64), exact is None
    with evaluation(), pyro.validation_enabled(False):
        with seeded(seed, SCALE, rows.start):
            program.check_observed(rows)
            path = Path(program, rows)
            scale, states = _scale(path), partial(hmc.at, path)
            if program.graphs is not None:  # after the draws, as the program is run once more
                states = partial(_compiled, Path(program.block(rows), range(program.step)))

        with seeded(seed, FORWARD if forward else REVERSE, rows.start):
            if exact is None:
                u = path.start(num_particles)
            else:
                u = exact.expand(num_particles, *scale.shape)
            state = states(u)
            log_w = torch.zeros(state.log_f.shape[1:], dtype=torch.float64)
            for t in range(len(step) + 1) if forward else range(len(step), -1, -1):
                log_w += (b[t + 1] - b[t]) * (state.log_f[1] - state.log_f[0]).cpu().double()
                i = t if forward else t - 1  # the transition between this increment and the next
                if 0 <= i < len(step):
                    width = float(step[i]) * scale
                    state, rate = hmc.transition(states, state, b[i + 1], width, leapfrogs)
                    rates[i] = rate.mean().cpu()
    check_weights(log_w, rows)
    return log_w, rates


def _compiled(block: Path, u: Tensor) -> hmc.State:
    """Returns the state at u `(S, n, d)` from the graph of a full block, which u fills up."""
    n, program = u.shape[1], block.program
    full = u
    if program.plate and n < len(block.rows):
        full = torch.cat([u, u[:, -1:].expand(-1, len(block.rows) - n, -1)], dim=1)
    what = "the gradient of log p(x, z)"
    state = program.captured(what, lambda data, u: hmc.at(block.on(data), u), full)
    if full is u:
        return state
    return hmc.State(u, state.log_f[..., :n], state.grad[..., :n, :])


def _scale(path: Path) -> Tensor:
    """Returns the scale of the proposal's u, `(n, d)`: of a normal, its standard deviation.

    It is taken from the middle 80 % of the draws: of heavy tails, whose few outliers would rule a
    standard deviation, it is the scale of where the chains are.
    """
    draws = path.start(SCALE_DRAWS).sort(0).values
    tail = SCALE_DRAWS // 10
    low, high = draws[tail], draws[-1 - tail]
    scale = (high - low) / (2 * NormalDist().inv_cdf(0.9))
    return torch.where(scale > 0, scale, 1.0)


def _temperatures(num_temperatures: int, schedule: str | Sequence[float]) -> np.ndarray:
    """Returns b_0 = 0 to b_T = 1, `(T + 1,)`; ValueError where they do not rise so."""
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
    """Returns the standard deviation of log f_1 - log f_0 over particles, rms over data."""
    speed = (state.log_f[1] - state.log_f[0]).double().var(0).mean().sqrt().item()
    return speed if isfinite(speed) and speed > STAGE else STAGE


def _equal_steps(grid: list[float], speed: list[float], size: int) -> np.ndarray:
    """Returns `size` temperatures between which the standard deviation of log w moves equally.

    References:
        Simulating normalizing constants: from importance sampling to bridge sampling to path
        sampling (Gelman and Meng, 1998), https://doi.org/10.1214/ss/1028905934, section 4.3
    """
    b, v = np.array([*grid, 1.0]), np.array([*speed, speed[-1]])
    length = np.concatenate([[0], np.cumsum(np.diff(b) * (v[1:] + v[:-1]) / 2)])
    temperatures = np.interp(np.linspace(0, length[-1], size), length, b)
    temperatures[-1] = 1
    return temperatures


def simulated(program: Program, size: int, seed: int) -> tuple[Program, list[Values]]:
    """Returns the program on data drawn from it, and the latents that made each block's."""
    made, latents = [], []
    for rows in program.blocks(size):
        with reproducible(seed, SIMULATED, rows.start):
            x, z = simulate(program, rows)
        made.append(x)
        latents.append(z)
    data = tuple(torch.cat(parts) for parts in zip(*made, strict=True))
    return replace(program, data=data), latents


def _weights(blocks: list[tuple[Tensor, Tensor]], kernel: Kernel) -> AnnealedWeights:
    """Returns the blocks' tables side by side; acceptance is averaged over their data."""
    tables, rates = zip(*blocks, strict=True)
    share = torch.tensor([t[0].numel() for t in tables], dtype=torch.float64)
    acceptance = torch.stack(rates, dim=-1) @ (share / share.sum())
    return AnnealedWeights(
        torch.cat(tables, dim=-1),
        temperatures=torch.from_numpy(kernel.temperatures),
        step_size=torch.from_numpy(kernel.step_size),
        acceptance=acceptance,
    )
