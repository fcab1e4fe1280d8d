"""Importance sampling and naive sampling: tables of log-weights."""

__all__ = ["importance_sampling", "prior_sampling"]

from collections.abc import Callable
from time import time
from typing import Any

import torch
from torch import Tensor

from pyrovae.checks import check_sizes, shown
from pyrovae.evidence.samplers.drawing import Draws, at_once, draw, sharing
from pyrovae.evidence.samplers.proposals import Proposal
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import inspect
from pyrovae.rng import draw_seed
from pyrovae.threads import one_at_a_time

BLOCK_SIZE = 64  # data per block


@one_at_a_time
def importance_sampling(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *data: Tensor,
    num_particles: int | str,
    proposal: Proposal | Callable[..., Any] | None = None,
    qmc: bool = False,
    tolerance: float = 0.01,
    max_particles: int = 100_000,
    max_seconds: float | None = None,
    seed: int | None = None,
    plate: str | None = "data",
    block_size: int = BLOCK_SIZE,
    chunk_size: int | None = None,
    compile: bool = False,
) -> LogWeights:
    r"""Returns log-weights `(S, N)` with the guide, or a better proposal r, to draw from.

    .. math::
        \log w_{sn} = \log p(x_n, z_{sn}) - \log r(z_{sn} | x_n), \quad z_{sn} \sim r(z | x_n)

    Densities are unscaled: `poutine.scale` and subsampling change nothing, masks remove exactly
    what they mask. Modules run in `eval()` mode without gradients and are restored. The guide
    encodes a block of data once; the model decodes in chunks. Discrete latents that the guide
    leaves out are summed out.

    `num_particles="auto"` spends draws where they are needed. A pilot draws until it can tell how
    many each datum needs for a standard error within `tolerance` and a good k-hat; then as many
    are drawn afresh, and they alone make the estimate. Stopping by the estimate's own error would
    bias it: a run that happens to miss the large weights looks finished. Data that `max_particles`
    or `max_seconds` leave short keep what was drawn for them: `verdict` names them.

    Args:
        model: Any Pyro callable of `*data`.
        guide: Another.
        data: Tensors of equal length N, as the program takes them.
        num_particles: S, draws per datum; or "auto".
        proposal: `None` draws from the guide; better ones made of it are `pv.Widened()`,
            `pv.Defensive()` and `pv.Refined()`; or a Pyro guide to draw from instead.
        qmc: Draw scrambled Sobol points, in 16 independent randomizations, between which the
            standard error is taken; S is a multiple of 16, best 16 times a power of 2.
        tolerance: Standard error aimed at by "auto", nats.
        max_particles: Draws per datum that "auto" makes at most.
        max_seconds: Time after which the pilot of "auto" asks for no more; results then depend on
            the machine.
        seed: Fixes the draws; the caller's random streams stay untouched. `None` draws a seed.
        plate: Name of the plate over the data; `None` gives joint weights `(S,)` of all data.
        block_size: Data per block; with a seed, draws depend on it, the target never does.
        chunk_size: Particles x data that the model decodes at once; bounds memory. `None`: what
            the cores' caches hold.
        compile: Run guide and model as compiled graphs; see `pyrovae.program.Captured`.

    Raises:
        TypeError, ValueError: As `pyrovae.check` explains; also for NaN weights, datum named, or
            a proposal that does not fit the guide, site named.

    References:
        Importance weighted autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519
        Quasi-Monte Carlo variational inference (Buchholz et al., 2018),
        https://arxiv.org/abs/1807.01604
    """
    made = proposal is None or isinstance(proposal, Proposal)
    if isinstance(proposal, type) or not (made or callable(proposal)):
        raise TypeError(
            f"proposal is {shown(proposal)}; give a pv.Widened(), pv.Defensive() or pv.Refined(), "
            "or a Pyro guide"
        )
    if not (proposal is None or isinstance(proposal, Proposal)):
        guide, proposal = proposal, None
    how = Draws(num_particles, proposal, qmc, tolerance, max_particles, max_seconds)
    return _table(model, guide, data, how, seed, plate, block_size, chunk_size, compile)


@one_at_a_time
def prior_sampling(
    model: Callable[..., Any],
    *data: Tensor,
    num_particles: int,
    qmc: bool = False,
    seed: int | None = None,
    plate: str | None = "data",
    block_size: int = BLOCK_SIZE,
    chunk_size: int | None = None,
    compile: bool = False,
) -> LogWeights:
    r"""Returns log-weights `(S, N)` with the prior as proposal: naive Monte Carlo.

    .. math::
        \log w_{sn} = \log p(x_n | z_{sn}), \quad z_{sn} \sim p(z)

    For almost every z, p(x|z) is near 0: the estimate falls short by nats, and its standard error
    does not notice; ESS and k-hat do. Arguments and errors as `importance_sampling`.

    Where no latent depends on the data, which running the program tells, all data share the same
    draws, each decoded once: the estimates of different data are then not independent.

    References:
        Tutorial on variational autoencoders (Doersch, 2016), section 2, https://arxiv.org/abs/1606.05908
    """
    how = Draws(num_particles, qmc=qmc)
    return _table(model, None, data, how, seed, plate, block_size, chunk_size, compile)


def _table(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: tuple[Tensor, ...],
    how: Draws,
    seed: int | None,
    plate: str | None,
    block_size: int,
    chunk_size: int | None,
    compile: bool,
) -> LogWeights:
    check_sizes(block_size=block_size, chunk_size=1 if chunk_size is None else chunk_size)
    program = inspect(model, guide, *data, plate=plate, block_size=block_size)
    if guide is None and not how.qmc:
        program = sharing(program)
    if compile:
        program = program.compiled()
    chunk_size = chunk_size or at_once(program, torch.get_num_threads())
    seed, start = draw_seed(seed), time()
    blocks = [
        draw(program, rows, how, seed, chunk_size, start) for rows in program.blocks(block_size)
    ]
    return join(blocks)


def join(blocks: list[LogWeights]) -> LogWeights:
    """Returns the blocks' tables side by side, filled up where their draws differ in number."""
    if len(blocks) == 1:
        return blocks[0]
    most = max(block.num_particles for block in blocks)
    tables = [
        torch.nn.functional.pad(b.log_w, (0, 0, 0, most - b.num_particles), value=-torch.inf)
        for b in blocks
    ]
    counts = None if blocks[0].counts is None else torch.cat([b.num_draws for b in blocks])
    return LogWeights(torch.cat(tables, dim=-1), counts, blocks[0].randomizations)
