"""Importance sampling and naive sampling: tables of log-weights, drawn in blocks and chunks."""

__all__ = ["draw", "importance_sampling", "prior_sampling"]

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from torch import Tensor

from pyrovae.evidence.weights import LogWeights, check_sizes, check_weights
from pyrovae.program import Program, evaluation, inspect
from pyrovae.rng import draw_seed, seeded

BLOCK_SIZE = 64  # data per block
CHUNK_SIZE = 4096  # particles x data decoded at once: the logits are then still in cache
PROPOSED = 2**24  # numbers proposed at once, over particles, data and latent dimensions


def importance_sampling(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *data: Tensor,
    num_particles: int,
    seed: int | None = None,
    plate: str | None = "data",
    block_size: int = BLOCK_SIZE,
    chunk_size: int = CHUNK_SIZE,
) -> LogWeights:
    r"""Returns log-weights `(S, N)` with the guide as proposal.

    .. math::
        \log w_{sn} = \log p(x_n, z_{sn}) - \log q(z_{sn} | x_n), \quad z_{sn} \sim q(z | x_n)

    Densities are unscaled: `poutine.scale` and subsampling change nothing, masks remove exactly
    what they mask. Modules run in `eval()` mode without gradients and are restored. The guide
    encodes a block of data once; the model decodes in chunks.

    Args:
        model: Any Pyro callable of `*data`.
        guide: Another.
        data: Tensors of equal length N, as the program takes them.
        num_particles: S, draws per datum.
        seed: Fixes the draws; the caller's random streams stay untouched. `None` draws a seed.
        plate: Name of the plate over the data; `None` gives joint weights `(S,)` of all data.
        block_size: Data per block; with a seed, draws depend on it, the target never does.
        chunk_size: Particles x data that the model decodes at once; bounds memory.

    Raises:
        TypeError, ValueError: As `pyrovae.check` explains; also for NaN weights, datum named.

    References:
        Importance weighted autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519
    """
    return _table(model, guide, data, num_particles, seed, plate, block_size, chunk_size)


def prior_sampling(
    model: Callable[..., Any],
    *data: Tensor,
    num_particles: int,
    seed: int | None = None,
    plate: str | None = "data",
    block_size: int = BLOCK_SIZE,
    chunk_size: int = CHUNK_SIZE,
) -> LogWeights:
    r"""Returns log-weights `(S, N)` with the prior as proposal: naive Monte Carlo.

    .. math::
        \log w_{sn} = \log p(x_n | z_{sn}), \quad z_{sn} \sim p(z)

    For almost every z, p(x|z) is near 0: the estimate falls short by nats, and its standard error
    does not notice; ESS and k-hat do. Arguments and errors as `importance_sampling`.

    References:
        Tutorial on variational autoencoders (Doersch, 2016), section 2, https://arxiv.org/abs/1606.05908
    """
    return _table(model, None, data, num_particles, seed, plate, block_size, chunk_size)


def draw(
    program: Program, rows: range, num_particles: int, seed: int, chunk_size: int
) -> LogWeights:
    """Returns the log-weights `(S, n)` of one block of rows.

    They depend on the seed, the proposal (guide or prior) and the block's first row alone.
    """
    proposal = 0 if program.guide else 1
    with evaluation(), pyro.validation_enabled(False):
        with seeded(seed, 2, rows.start):
            program.check_observed(rows)
        with seeded(seed, proposal, rows.start):
            sample = _from_guide if program.guide else _from_prior
            log_w, start = torch.empty(0, dtype=torch.float64), 0
            for chunk in sample(program, rows, num_particles, chunk_size):
                if not start:  # one table from the start: small pieces would fragment the heap
                    log_w = log_w.new_empty(num_particles, *chunk.shape[1:])
                log_w[start : start + len(chunk)] = chunk
                start += len(chunk)
    check_weights(log_w, rows.start)
    return LogWeights(log_w)


def _from_prior(
    program: Program, rows: range, num_particles: int, chunk_size: int
) -> Iterator[Tensor]:
    for size in _sizes(num_particles, chunk_size // len(rows)):
        yield program.log_likelihood(rows, size)


def _from_guide(
    program: Program, rows: range, num_particles: int, chunk_size: int
) -> Iterator[Tensor]:
    """Encodes once, for as many draws as memory allows, and decodes them in chunks."""
    chunk = chunk_size // len(rows)
    most = PROPOSED // (len(rows) * max(1, round(program.latent_size)))
    for draws in _sizes(num_particles, max(chunk, most)):
        z, log_q = program.propose(rows, draws)
        start = 0
        for size in _sizes(draws, chunk):
            part = slice(start, start + size)
            z_part = {name: value[part] for name, value in z.items()}
            log_p = program.log_joint(z_part, rows, size)
            yield log_p - log_q[part]
            start += size


def _sizes(total: int, size: int) -> Iterator[int]:
    """Yields `size`, at least 1, as often as it fits into `total`, then the rest."""
    size = max(1, size)
    yield from [size] * (total // size)
    if total % size:
        yield total % size


def _table(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: tuple[Tensor, ...],
    num_particles: int,
    seed: int | None,
    plate: str | None,
    block_size: int,
    chunk_size: int,
) -> LogWeights:
    check_sizes(num_particles=num_particles, block_size=block_size, chunk_size=chunk_size)
    program = inspect(model, guide, *data, plate=plate, block_size=block_size)
    seed = draw_seed(seed)
    blocks = (
        draw(program, rows, num_particles, seed, chunk_size) for rows in program.blocks(block_size)
    )
    return LogWeights(torch.cat([block.log_w for block in blocks], dim=-1))
