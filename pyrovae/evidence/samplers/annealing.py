"""Annealed importance sampling: its paths, increments and weights."""

__all__ = ["AnnealedWeights", "ais", "anneal", "annealed", "weighed"]


from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Unpack

import torch
from torch import Tensor

from pyrovae.checks import check_options, check_sizes
from pyrovae.evidence.reductions import annealed_verdicts
from pyrovae.evidence.samplers import hmc
from pyrovae.evidence.samplers.options import (
    AISOptions,
    AnnealingRun,
    options_of,
)
from pyrovae.evidence.samplers.paths import Path, PathProposal
from pyrovae.evidence.samplers.scheme import check_proposal
from pyrovae.evidence.samplers.tuning import Kernel, tune
from pyrovae.evidence.weights import LogWeights, check_weights
from pyrovae.program import Program, inspect, reproducible
from pyrovae.rng import draw_seed
from pyrovae.threads import one_at_a_time

SCALE, FORWARD, REVERSE = 11, 12, 13  # random streams


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class AnnealedWeights(LogWeights):
    """Log-weights of annealed particles, `(S, N)`, and how their runs went.

    All of `LogWeights` holds: `log_evidence` is in expectation a lower bound of log p(x).

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

        The first where a quarter of the particles count, by their ESS, and the standard error is
        within the tolerance. A few particles have no k-hat, and nothing in them says what mass
        none of them reached: `bdmc` tells, and `evaluate` looks.

        Args:
            tolerance: Standard error asked for, nats.
        """
        return annealed_verdicts(self.ess(), self.num_draws, self.std_error(), tolerance)


@one_at_a_time
def ais(
    model: Callable[..., object],
    *data: Tensor,
    guide: Callable[..., object] | None = None,
    num_temperatures: int = 100,
    num_particles: int = 8,
    schedule: str | Sequence[float] = "tuned",
    seed: int | None = None,
    **options: Unpack[AISOptions],
) -> AnnealedWeights:
    r"""Returns log-weights `(S, N)` of annealed importance sampling, per datum.

    .. math::
        \log w = \sum_{t=1}^T (b_t - b_{t-1}) \log \frac{p(x, z_{t-1})}{q(z_{t-1} | x)}, \quad
        z_0 \sim q(z|x), \quad z_t \sim \mathrm{HMC}(z_{t-1};\ q(z|x)^{1-b_t} p(x, z)^{b_t})

    from the guide, or from the prior (q = p(z)) without one. w is unbiased for p(x), so that
    `log_evidence` is in expectation a lower bound of log p(x) that rises to it with both the
    number of temperatures and of particles.

    Latents move in unconstrained space, each particle of each datum on its own. Step sizes and
    mass matrices, with correlations up to 64 dimensions, are tuned on a pilot with other seeds, on
    at most 32 of the data, as functions of temperature; then they are frozen: adapting them to the
    particles that make the estimate would bias it. Discrete latents that the guide leaves out are
    summed out.

    Args:
        model: Any Pyro callable of `*data`, differentiable in its latents.
        data: Tensors of equal length N, as the program takes them.
        guide: Where the path begins; `None` begins at the prior.
        num_temperatures: T, steps of the path; 1 is importance sampling.
        num_particles: S, particles annealed per datum.
        schedule: "tuned", in steps that the pilot finds equal; "linear"; "sigmoid", finer at both
            ends; or the T + 1 temperatures, rising from 0 to 1 (T is then theirs).
        seed: Fixes the draws; the caller's random streams stay untouched. `None` draws a seed.
        **options: How the run is done:

            - `num_leapfrog`: leapfrog steps, each a gradient, of a transition (2).
            - `plate`: name of the plate over the data ("data"); `None` gives joint weights `(S,)`
              of all data.
            - `chunk_size`: particles x data annealed at once (1,024); bounds memory.
            - `compile`: run densities and gradients as a compiled graph (`False`); see
              `pyrovae.program.Captured`.
            - `proposal`: where paths begin, as of `importance_sampling`: `pv.Laplace()`,
              `pv.Widened()`, `pv.Defensive()`, `pv.Refined()` or another Pyro guide (`None`: the
              guide, or the prior without one).

    Raises:
        TypeError, ValueError: As `pyrovae.check` explains; also for a latent without a gradient, a
            schedule that does not rise from 0 to 1, or NaN weights, datum named.

    References:
        Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008
        On the quantitative analysis of decoder-based generative models (Wu et al., 2017),
        https://arxiv.org/abs/1611.04273: sigmoid schedule, and the path from the encoder.
    """
    check_options(options, AISOptions, ais)
    check_sizes(num_particles=num_particles)
    run = options_of(AnnealingRun, options)
    size = run.block_size(num_particles)
    proposal = options.get("proposal")
    if proposal is not None and not isinstance(proposal, PathProposal):
        check_proposal(proposal)
        guide, proposal = proposal, None
    program = inspect(model, guide, *data, plate=run.plate, block_size=size)
    if run.compile:
        program = program.compiled()
    seed = draw_seed(seed)
    kernel = tune(program, num_temperatures, schedule, run.num_leapfrog, seed, proposal)
    blocks = [anneal(program, rows, num_particles, seed, kernel) for rows in program.blocks(size)]
    return weighed(blocks, kernel)


def anneal(
    program: Program,
    rows: range,
    num_particles: int,
    seed: int,
    kernel: Kernel,
    exact: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Returns a block's log-weights `(S, n)`, nats, and its acceptance rates, `(T - 1,)`.

    .. math::
        \log w = \sum_{t=1}^T (b_t - b_{t-1}) (\log f_1 - \log f_0)(v_{t-1}), \quad
        v_t \sim \mathrm{HMC}(v_{t-1};\ f_0^{1 - b_t} f_1^{b_t})

    Particles start at the proposal f_0 = q(z|x) |dz/dv|, or in reverse at a draw of the posterior,
    f_1 = p(x, z) |dz/dv|; the increments and transitions are then the same in reverse order. With
    a kernel, they depend on the seed, the direction and the block's first row alone.

    Args:
        program: The pair and its data.
        rows: The n rows of a block.
        num_particles: S.
        seed: Of the run.
        kernel: The frozen transitions between temperatures.
        exact: u of a draw of the posterior, `(n, d)`, to anneal in reverse from; `None` forward.

    References:
        Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008
    """
    with reproducible(seed, SCALE, rows.start):
        program.check_observed(rows)
        path = kernel.path(program, rows)
        path.prepare()
    with reproducible(seed, FORWARD if exact is None else REVERSE, rows.start):
        if exact is None:
            v = path.start(num_particles)  # (S, n, d)
        else:
            v = path.inward(exact).expand(num_particles, *path.scale.shape)
        log_w, rates, _ = annealed(path, v, kernel, backward=exact is not None)
    check_weights(log_w, rows)
    return log_w, rates


def annealed(
    path: Path,
    v: Tensor,
    kernel: Kernel,
    *,
    backward: bool = False,
    seen: Callable[[Tensor, hmc.State], None] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns log-weights `(S, n)`, nats, acceptance rates, `(T - 1,)`, and where particles end.

    Args:
        path: A block's.
        v: Where particles start, `(S, n, d)`: draws of f_0, or of f_1 backward.
        kernel: The frozen transitions between temperatures.
        backward: From b = 1 to 0; log-weights are those of the same way forward.
        seen: Told at each of b_0 to b_T, forward, of log-weights towards f_b, `(S, n)`, and the
            particles' state.
    """
    b, step, leapfrogs = kernel.temperatures, kernel.step_size, kernel.num_leapfrog
    if not len(step) and not seen:
        with torch.no_grad():
            log_f0, log_f1 = path.ends(v)
        return (log_f1 - log_f0).cpu().double(), torch.empty(0, dtype=torch.float64), v
    factor = None if kernel.factor is None else torch.tensor(kernel.factor).to(path.scale)
    rates, states, state = torch.empty(len(step), dtype=torch.float64), path.states, path.states(v)
    log_w = torch.zeros(state.log_f.shape[1:], dtype=torch.float64)
    for t in range(len(step), -1, -1) if backward else range(len(step) + 1):
        if seen:
            seen(log_w.clone(), state)
        log_w += (b[t + 1] - b[t]) * (state.log_f[1] - state.log_f[0]).cpu().double()
        i = t - 1 if backward else t  # the transition between this increment and the next
        if 0 <= i < len(step):
            width, mass = float(step[i]) * path.scale, None if factor is None else factor[i]
            state, rate = hmc.transition(states, state, b[i + 1], width, leapfrogs, mass)
            rates[i] = rate.mean().cpu()
    if seen:
        seen(log_w, state)
    return log_w, rates, state.u


def weighed(blocks: list[tuple[Tensor, Tensor]], kernel: Kernel) -> AnnealedWeights:
    """Returns the blocks' tables side by side; acceptance is averaged over their data.

    Args:
        blocks: Log-weights `(S, n)`, nats, and acceptance rates by temperature, of each.
        kernel: The transitions that all were annealed by.
    """
    tables, rates = zip(*blocks, strict=True)
    share = torch.tensor([t[0].numel() for t in tables], dtype=torch.float64)
    acceptance = torch.stack(rates, dim=-1) @ (share / share.sum())
    return AnnealedWeights(
        torch.cat(tables, dim=-1),
        temperatures=torch.from_numpy(kernel.temperatures),
        step_size=torch.from_numpy(kernel.step_size),
        acceptance=acceptance,
    )
