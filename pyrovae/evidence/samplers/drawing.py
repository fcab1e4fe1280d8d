"""How log-weights are drawn: a block of data at a time, and in chunks that the caches hold."""

__all__ = ["Draws", "at_once", "draw", "sharing", "tally"]

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from time import time
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from pyrovae.checks import check_positive, check_sizes, is_at_least
from pyrovae.evidence.samplers.proposals import Proposal, Sampler, Widened
from pyrovae.evidence.samplers.tally import Tally
from pyrovae.evidence.weights import LogWeights, check_weights
from pyrovae.program import (
    SHARED_ROWS,
    Program,
    Quantiles,
    Values,
    draw_latents,
    evaluation,
    log_likelihood_of_all,
    reproducible,
    scored_by_products,
    shares_latents,
)

CHUNK_SIZE = 4096  # particles x data decoded at once where their draws are made with them, and
NUMBERS = 2**24  # how many numbers those may be
CACHE = 2**20  # bytes of a core's second-level cache, where the system names none
PROPOSED = 2**18  # numbers proposed at once, over particles, data and latent dimensions,
DECODED = 4096  # or, where they are many, particles x data
RANDOMIZATIONS = 16  # of quasi-random draws
FIRST, GROWTH = 128, 4  # the pilot's draws under "auto", and by how much they grow
AHEAD, MARGIN = 8, 1.2  # how many times its draws the pilot foresees, and what is added
GUIDE, PRIOR, CHECK, PILOT, SHARED = range(5)  # random streams
SCORES = 2**20  # weights that matrix products make at once


@dataclass(frozen=True)
class Draws:
    """How to draw: the options of `importance_sampling`, checked."""

    num_particles: int | str
    proposal: Proposal | None = None
    qmc: bool = False
    tolerance: float = 0.01
    max_particles: int = 100_000
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.num_particles != "auto":
            check_sizes(num_particles=self.num_particles)  # pyright: ignore[reportArgumentType]
        check_sizes(max_particles=self.max_particles)
        check_positive(tolerance=self.tolerance)
        if not (self.max_seconds is None or is_at_least(self.max_seconds, 0)):
            raise ValueError(f"max_seconds is {self.max_seconds!r}; give a number, 0 or more")
        if not self.qmc:
            return
        if self.num_particles == "auto" or int(self.num_particles) % RANDOMIZATIONS:
            raise ValueError(
                f"num_particles is {self.num_particles!r}; quasi-random draws come in "
                f"{RANDOMIZATIONS} randomizations, so give a multiple of it"
            )
        if not isinstance(self.proposal, Widened | None):
            raise ValueError(
                f"{type(self.proposal).__name__} has no quasi-random draws; take qmc=False"
            )


def draw(
    program: Program, rows: range, how: Draws, seed: int, chunk_size: int, start: float = 0.0
) -> LogWeights:
    """Returns the log-weights `(S, n)` of one block of rows.

    They depend on the seed, the proposal (guide or prior) and the block's first row alone; under
    `max_seconds`, which count from `start`, on the clock as well.
    """
    _check(program, rows, seed)
    if how.num_particles == "auto":
        return _draw_auto(program, rows, how, seed, chunk_size, start)
    size, stream = int(how.num_particles), _stream(program, rows)
    table = _draw(program, rows, rows, size, how, chunk_size, seed, stream)
    return LogWeights(table, randomizations=RANDOMIZATIONS if how.qmc else 1)


def tally(
    program: Program, rows: range, how: Draws, seed: int, chunk_size: int, grid: Sequence[int]
) -> Tally:
    """Returns the sums of what `draw` makes, for a number of draws that no table would hold.

    Joint weights of all data are those of one datum.
    """
    _check(program, rows, seed)
    size = int(how.num_particles)
    total = Tally(size, grid, rows if program.plate else range(1))
    with reproducible(seed, *_stream(program, rows)):
        for chunk in _chunks(program, rows, size, how, chunk_size):
            total.add(chunk if program.plate else chunk[:, None])
    return total


def at_once(program: Program, num_threads: int) -> int:
    """Returns how many particles x data to decode at once: so many stay in the cores' caches.

    Draws of the prior depend on it where data do not share them: it then is the same everywhere.
    """
    size = max(program.event_size, program.latent_size, 1)
    if program.guide is None:
        return max(1, min(CHUNK_SIZE, int(NUMBERS / size)))
    try:
        cache = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        cache = 0
    kept = 1 if program.graphs is None else 0.5  # arrays of theirs in use at a time
    return max(1, int(num_threads * (cache or CACHE) / (4 * size * kept)))


def _check(program: Program, rows: range, seed: int) -> None:
    """Raises DataError where these rows lie outside their sites' support."""
    with reproducible(seed, CHECK, rows.start):
        program.check_observed(rows)


def sharing(program: Program) -> Program:
    """Returns the program with its draws from the prior shared by all data, if they can be."""
    with evaluation(), pyro.validation_enabled(False), torch.random.fork_rng():
        return replace(program, shared=shares_latents(program))


def _stream(program: Program, rows: range) -> tuple[int, ...]:
    if program.shared or program.common_latents:
        return (SHARED,)
    return (PRIOR if program.guide is None else GUIDE, rows.start)


def _draw(
    program: Program,
    rows: range,
    names: Sequence[int],
    num_particles: int,
    how: Draws,
    chunk_size: int,
    seed: int,
    stream: tuple[int, ...],
) -> Tensor:
    """Returns a table of `num_particles` draws from a random stream; `names` number its data."""
    with reproducible(seed, *stream):
        log_w, start = torch.empty(0, dtype=torch.float64), 0
        for chunk in _chunks(program, rows, num_particles, how, chunk_size):
            if not start:  # one table from the start: small pieces would fragment the heap
                log_w = log_w.new_empty(num_particles, *chunk.shape[1:])
            log_w[start : start + len(chunk)] = chunk
            start += len(chunk)
    check_weights(log_w, names)
    return log_w


def _chunks(
    program: Program, rows: range, num_particles: int, how: Draws, chunk_size: int
) -> Iterator[Tensor]:
    """Yields tables `(s, n)` of a block's log-weights, as they are decoded."""
    if program.shared:
        return _from_shared(program, rows, num_particles, chunk_size)
    sample = _from_prior if program.guide is None else _from_guide
    return sample(program, rows, num_particles, how, chunk_size)


def _draw_auto(
    program: Program, rows: range, how: Draws, seed: int, chunk_size: int, start: float
) -> LogWeights:
    """Returns a block's weights, as many for each datum as a pilot with other draws found due."""
    counts = torch.zeros(len(rows) if program.plate else 1, dtype=torch.long)
    todo, pilot, stage = torch.arange(len(counts)), torch.empty(0, len(counts)), 0

    def table(members: Tensor, num_particles: int, *stream: int) -> Tensor:
        part, block, names = program, rows, rows
        if program.feed == "slice":
            names = [rows[i] for i in members]
            part, block = program.take(names), range(len(names))
        drawn = _draw(part, block, names, num_particles, how, chunk_size, seed, stream)
        return drawn.reshape(num_particles, -1)

    while len(todo):
        more = FIRST * GROWTH**stage - len(pilot)
        pilot = torch.cat([pilot, table(todo, more, PILOT, rows.start, stage)])
        weights, made = LogWeights(pilot), len(pilot)
        variance = (made / weights.ess() - 1).nan_to_num(torch.inf, posinf=torch.inf)
        due = (MARGIN * variance / how.tolerance**2).clamp(FIRST, how.max_particles).long()
        known = ~weights.bad() & (due <= AHEAD * made)
        late = how.max_seconds is not None and time() - start > how.max_seconds
        if late or made * GROWTH > how.max_particles:
            due = torch.where(known, due, made if late else how.max_particles)
            known[:] = True
        if program.feed != "slice":  # its data are drawn together or not at all
            due, known = due.max().expand_as(due), known.all().expand_as(known)
        counts[todo] = due
        todo, pilot, stage = todo[~known], pilot[:, ~known], stage + 1
    counts = (FIRST * 2 ** (2 * (counts / FIRST).log2()).ceil().div(2)).ceil().long()
    counts = counts.clamp(max=how.max_particles)
    log_w = torch.full((int(counts.max()), len(counts)), -torch.inf, dtype=torch.float64)
    for k in counts.unique().tolist():
        members = torch.nonzero(counts == k)[:, 0]
        log_w[:k, members] = table(members, k, GUIDE, rows.start, k)
    if not program.plate:
        log_w, counts = log_w[:, 0], counts[0]
    return LogWeights(log_w, counts=counts)


def _from_shared(
    program: Program, rows: range, num_particles: int, chunk_size: int
) -> Iterator[Tensor]:
    """Decodes draws of the prior once for all data."""
    num_data = min(program.total or len(program), SHARED_ROWS)
    most = SCORES if scored_by_products(program) else chunk_size
    for size in _sizes(num_particles, most // num_data):
        yield log_likelihood_of_all(program, draw_latents(program, size), rows)


def _from_prior(
    program: Program, rows: range, num_particles: int, how: Draws, chunk_size: int
) -> Iterator[Tensor]:
    """Decodes draws of the prior in chunks."""
    most = max(1, min(num_particles, chunk_size // len(rows)))
    block = program.block(rows) if _takes_graphs(program, rows, how) else None

    def log_likelihood(data: tuple[Tensor, ...]) -> Tensor:
        return replace(block or program, data=data).log_likelihood(range(len(rows)), most)

    for size, quasi in _passes(program, rows, num_particles, most, how.qmc):
        with quasi:
            if block and size == most:
                yield block.captured(f"log p(x|z) of {most} draws", log_likelihood)
            else:
                yield program.log_likelihood(rows, size)


def _from_guide(
    program: Program, rows: range, num_particles: int, how: Draws, chunk_size: int
) -> Iterator[Tensor]:
    """Encodes once for many draws, a fixed number, and decodes them in chunks of one size."""
    most, chunk = _at_a_time(program, len(rows), chunk_size)
    if how.proposal and program.common_latents:
        raise ValueError(
            f"latent {program.common_latents[0]!r} is common to all data, and its draws are not "
            "weighed for each datum: a wider proposal would change the answer; leave it out"
        )
    propose: Sampler = partial(program.propose, rows)
    if how.proposal:
        propose = how.proposal.sampler(program, rows)
    elif _takes_graphs(program, rows, how):
        propose = partial(_propose, program, rows, most)
    log_joint = partial(program.log_joint, rows=rows)
    if program.graphs is not None and 2 * len(rows) > program.step:  # else hardly worth it
        _, chunk = _at_a_time(program, program.step, chunk_size)
        log_joint = partial(_log_joint, program, rows, chunk)
    for draws, quasi in _passes(program, rows, num_particles, most, how.qmc):
        with quasi:
            z, log_q = propose(draws)
        for start in range(0, draws, chunk):
            size = min(chunk, draws - start)
            z_part = {name: value[start : start + size] for name, value in z.items()}
            yield log_joint(z_part, num_particles=size) - log_q[start : start + size]


def _at_a_time(program: Program, num_data: int, chunk_size: int) -> tuple[int, int]:
    """Returns how many draws to propose for so many data at once, and how many to decode."""
    numbers = num_data * max(1, program.latent_size)
    most = max(PROPOSED // numbers, DECODED // num_data, 1)
    return most, ceil(most / ceil(most * num_data / chunk_size))


def _takes_graphs(program: Program, rows: range, how: Draws) -> bool:
    """Returns whether a graph may make a block's draws: of no other shape are they the same."""
    return program.graphs is not None and len(rows) == program.step and not how.qmc


def _propose(program: Program, rows: range, most: int, num_particles: int) -> Any:
    """Returns draws of the guide and log q, from a graph where they are as many as it makes."""
    if num_particles != most:
        return program.propose(rows, num_particles)
    block = program.block(rows)

    def propose(data: tuple[Tensor, ...]) -> Any:
        return replace(block, data=data).propose(range(len(rows)), most)

    return block.captured(f"{most} draws of q(z|x)", propose)


def _log_joint(program: Program, rows: range, chunk: int, z: Values, num_particles: int) -> Tensor:
    """Returns log p(x, z) from a graph of full blocks and chunks, which z fills up."""
    block = program.block(rows)

    def log_joint(data: tuple[Tensor, ...], z: Values) -> Tensor:
        return replace(block, data=data).log_joint(z, range(program.step), chunk)

    filled = {name: _filled(value, 0, chunk) for name, value in z.items()}
    for s in program.guide_sites if program.plate else ():
        if s["name"] in filled and not program.common(s):
            value = filled[s["name"]]
            axis = value.ndim + program.axis(s)
            filled[s["name"]] = _filled(value, axis, program.step)
    log_p = block.captured(f"log p(x, z) of {chunk} draws", log_joint, filled)[:num_particles]
    return log_p[:, : len(rows)] if program.plate else log_p


def _filled(x: Tensor, axis: int, size: int) -> Tensor:
    """Returns x with the last of an axis repeated until there are `size`."""
    length = x.shape[axis]
    if length == size:
        return x
    return x.index_select(axis, torch.arange(size, device=x.device).clamp(max=length - 1))


def _passes(
    program: Program, rows: range, num_particles: int, most: int, qmc: bool
) -> Iterator[tuple[int, AbstractContextManager[Any]]]:
    """Yields numbers of draws, and the context that makes them quasi-random where asked for.

    A randomization is a scrambled Sobol sequence, to which each datum has a digital shift of its
    own: the errors of different data are then independent.
    """
    if not qmc:
        yield from ((size, nullcontext()) for size in _sizes(num_particles, most))
        return
    if program.trouble or program.common_latents or program.dim is None or not program.latent_size:
        raise ValueError(
            "quasi-random draws need latents of each datum, in a data plate that is no loop, and "
            "a program that broadcasts over particles; this one has not: draw with qmc=False"
        )
    joint = program.plate is None
    num_data = program.step if program.feed == "subsample" else len(rows)
    dims, digits = program.latent_size, 2**SobolEngine.MAXBIT
    for _ in range(RANDOMIZATIONS):
        sobol = SobolEngine(dims, scramble=True, seed=int(torch.randint(2**31, ())))
        shift = torch.randint(digits, (dims,) if joint else (num_data, dims))
        for size in _sizes(num_particles // RANDOMIZATIONS, most):
            points = (sobol.draw(size, dtype=torch.float64) * digits).long()
            points = points.clamp(max=digits - 1)  # the first is made in float32, and may be 1
            mixed = (points if joint else points[:, None]) ^ shift  # (S, n, d)
            uniform = ((mixed.double() + 0.5) / digits).to(program.data[0].device)
            yield size, Quantiles(uniform, None if joint else program.dim)


def _sizes(total: int, size: int) -> Iterator[int]:
    """Yields `size`, at least 1, as often as it fits into `total`, then the rest."""
    size = max(1, size)
    yield from [size] * (total // size)
    if total % size:
        yield total % size
