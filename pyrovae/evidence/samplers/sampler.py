"""Draws particles from a guide, a proposal made of it or the prior, and weighs them."""

__all__ = [
    "CHECK",
    "GUIDE",
    "ImportanceSampler",
    "PILOT",
    "PRIOR",
    "SCORES",
    "SHARED",
    "joined",
    "sharing",
]

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from time import time

import torch
from torch import Tensor

from pyrovae.evidence.samplers.adaptive import draws_due
from pyrovae.evidence.samplers.chunks import at_once, drawn_at_once, pieces
from pyrovae.evidence.samplers.graphs import (
    guide_graph,
    joint_graph,
    likelihood_graph,
    makes_draws,
)
from pyrovae.evidence.samplers.options import Run
from pyrovae.evidence.samplers.scheme import (
    RANDOMIZATIONS,
    Sampler,
    Scheme,
)
from pyrovae.evidence.samplers.sobol import quasi_random
from pyrovae.evidence.samplers.streaming import StreamedWeights
from pyrovae.evidence.weights import LogWeights, check_weights
from pyrovae.program import (
    SHARED_ROWS,
    Program,
    draw_latents,
    inspect,
    log_likelihood_of_all,
    reproducible,
    scored_by_products,
    shares_latents,
)
from pyrovae.rng import draw_seed

GUIDE, PRIOR, CHECK, PILOT, SHARED = range(5)  # random streams


SCORES = 2**20  # weights that matrix products make at once


@dataclass(frozen=True)
class ImportanceSampler:
    r"""Draws particles from a guide, a proposal made of it or the prior, and weighs them.

    .. math::
        \log w_{sn} = \log p(x_n, z_{sn}) - \log r(z_{sn} | x_n), \quad z_{sn} \sim r(z | x_n)

    A block's draws depend on the seed, the proposal and the block's first row alone; under
    `max_seconds`, on the clock as well.

    Attributes:
        program: The pair and its data; without a guide, the prior proposes.
        scheme: How particles are drawn.
        seed: Fixes the draws.
        chunk_size: Particles x data decoded at once.
        start: When the run began, by the clock: what `max_seconds` counts from.
    """

    program: Program
    scheme: Scheme
    seed: int
    chunk_size: int
    start: float = 0.0

    @classmethod
    def of(
        cls,
        model: Callable[..., object],
        guide: Callable[..., object] | None,
        data: tuple[Tensor, ...],
        scheme: Scheme,
        seed: int | None,
        run: Run,
    ) -> "ImportanceSampler":
        """Returns the sampler of a pair of callables, which are run once to be checked.

        Args:
            model: Any Pyro callable of `*data`.
            guide: Another; `None` draws from the prior.
            data: Tensors of equal length N, as the program takes them.
            scheme: How particles are drawn.
            seed: Fixes the draws; `None` draws a seed.
            run: How the run is done.
        """
        program = inspect(model, guide, *data, plate=run.plate, block_size=run.block_size)
        if guide is None and not scheme.qmc:
            program = sharing(program)
        if run.compile:
            program = program.compiled()
        chunk_size = run.chunk_size or at_once(program, torch.get_num_threads())
        return cls(program, scheme, draw_seed(seed), chunk_size, time())

    def log_weights(self, rows: range) -> LogWeights:
        """Returns the log-weights `(S, n)` of a block of rows; `(S,)` of all data as one.

        Under "auto", S is that of the datum with most particles, and -inf fills up the others.

        Args:
            rows: The n rows of the block.

        Raises:
            ValueError: For data outside their support, or NaN weights, datum named.
        """
        self._check(rows)
        if self.scheme.num_particles == "auto":
            return self._adaptive(rows)
        size, stream = int(self.scheme.num_particles), self._stream(rows)
        table = self._table(rows, rows, size, stream)
        return LogWeights(table, randomizations=RANDOMIZATIONS if self.scheme.qmc else 1)

    def streamed(
        self, rows: range, grid: Sequence[int], group_sizes: Sequence[int] = ()
    ) -> StreamedWeights:
        """Returns the reductions of what `log_weights` makes, of draws that no table would hold.

        Args:
            rows: The n rows of a block; joint weights of all data are those of one datum.
            grid: Numbers of draws at which the estimate is taken down.
            group_sizes: Every k of which the IWAE bound will be asked.
        """
        self._check(rows)
        size = int(self.scheme.num_particles)
        total = StreamedWeights(size, grid, rows if self.program.plate else range(1), group_sizes)
        with reproducible(self.seed, *self._stream(rows)):
            for log_w in self._chunks(rows, size):
                total.add(log_w if self.program.plate else log_w[:, None])
        return total

    def _check(self, rows: range) -> None:
        """Raises DataError where these rows lie outside their sites' support.

        Args:
            rows: Of a block; the look at them has a random stream of its own, and moves no draw.
        """
        with reproducible(self.seed, CHECK, rows.start):
            self.program.check_observed(rows)

    def _stream(self, rows: range) -> tuple[int, ...]:
        """Returns the numbers of a block's random stream.

        Draws that all data share are those of one stream in every block, or they would not be the
        same.

        Args:
            rows: Of the block, of which the first counts.
        """
        if self.program.particles.shared or self.program.sites.common_latents:
            return (SHARED,)
        return (PRIOR if self.program.guide is None else GUIDE, rows.start)

    def _table(
        self, rows: range, numbers: Sequence[int], num_particles: int, stream: tuple[int, ...]
    ) -> Tensor:
        """Returns log-weights `(S, n)` of draws from a random stream, nats, float64 on the CPU.

        Args:
            rows: The n rows of a block.
            numbers: Theirs in the words of an error, where a program holds a selection of the
                data.
            num_particles: S.
            stream: What fixes the draws, beside the seed.

        Raises:
            ValueError: If a weight is NaN or +inf; the datum is named.
        """
        with reproducible(self.seed, *stream):
            table, start = torch.empty(0, dtype=torch.float64), 0
            for log_w in self._chunks(rows, num_particles):  # (s, n)
                if not start:  # one table from the start: small pieces would fragment the heap
                    table = table.new_empty(num_particles, *log_w.shape[1:])
                table[start : start + len(log_w)] = log_w
                start += len(log_w)
        check_weights(table, numbers)
        return table

    def _chunks(self, rows: range, num_particles: int) -> Iterator[Tensor]:
        """Returns the tables `(s, n)` of a block's log-weights, as they are decoded.

        Args:
            rows: The n rows of a block.
            num_particles: S, what all s add up to.
        """
        if self.program.particles.shared:
            return self._from_shared(rows, num_particles)
        if self.program.guide is None:
            return self._from_prior(rows, num_particles)
        return self._from_guide(rows, num_particles)

    def _from_guide(self, rows: range, num_particles: int) -> Iterator[Tensor]:
        r"""Yields log w `(s, n)` of draws from the guide or proposal, encoded once for many.

        One run of the proposal gives up to `most` particles, which the model decodes in chunks.

        .. math::
            \log w_{sn} = \log p(x_n, z_{sn}) - \log q(z_{sn} | x_n)

        Args:
            rows: The n rows of a block.
            num_particles: S.
        """
        most, chunk = drawn_at_once(self.program, len(rows), self.chunk_size)
        propose, program = self._proposal(rows, most), self.program
        if getattr(self.scheme.proposal, "sums_discrete", False):
            program = program.summing()
        log_joint = program.log_joint
        if program.is_compiled and 2 * len(rows) > program.block_size:  # else not worth
            _, chunk = drawn_at_once(program, program.block_size, self.chunk_size)
            log_joint = joint_graph(program, rows, chunk)
        for draws, quasi in self._passes(rows, num_particles, most):
            with quasi:
                z, log_r = propose(draws)  # {site: (S, ..., event)}, (S, n)
            for start in range(0, draws, chunk):
                part = slice(start, min(start + chunk, draws))
                z_part = {name: value[part] for name, value in z.items()}
                log_p, log_q = log_joint(z_part, rows, part.stop - start), log_r[part]
                log_w = log_p - log_q  # (s, n), nats: log p(x, z) - log q(z|x)
                yield log_w

    def _proposal(self, rows: range, most: int) -> Sampler:
        """Returns what draws z and gives log q(z|x): the proposal, the guide, or its graph.

        Args:
            rows: The n rows of a block.
            most: Particles of one run, at most, for which a graph is captured.

        Returns:
            Of a number of particles S it gives latents by site, `(S, ..., event)`, and log q, `(S,
            n)`.

        Raises:
            ValueError: If a proposal was asked for, and a latent is common to all data.
        """
        program, proposal = self.program, self.scheme.proposal
        if proposal and (common := program.sites.common_latents):
            raise ValueError(
                f"latent {common[0]!r} is common to all data, and its draws are not "
                "weighed for each datum: a wider proposal would change the answer, so leave "
                "it out"
            )
        if proposal:
            return proposal.sampler(program, rows)
        if makes_draws(program, rows) and not self.scheme.qmc:
            return guide_graph(program, rows, most)
        return partial(program.propose, rows)

    def _from_prior(self, rows: range, num_particles: int) -> Iterator[Tensor]:
        """Yields log w `(s, n)` of draws from the prior, each datum's own: log p(x|z), nats.

        The density of z stands in numerator and denominator, and is not computed.

        Args:
            rows: The n rows of a block.
            num_particles: S.
        """
        most = max(1, min(num_particles, self.chunk_size // len(rows)))
        log_likelihood = partial(self.program.log_likelihood, rows)
        if makes_draws(self.program, rows) and not self.scheme.qmc:
            log_likelihood = likelihood_graph(self.program, rows, most)
        for draws, quasi in self._passes(rows, num_particles, most):
            with quasi:
                log_w = log_likelihood(draws)  # (s, n), nats: log p(x|z), as log q is log p(z)
            yield log_w

    def _from_shared(self, rows: range, num_particles: int) -> Iterator[Tensor]:
        """Yields log w = log p(x|z), `(s, n)`, of draws from the prior, decoded once for all.

        A block takes S decodes rather than S n. Where `scored_by_products` says so, all pairs of
        draws and data are products of matrices, of many more draws at once.

        Args:
            rows: The n rows of a block.
            num_particles: S.
        """
        program = self.program
        num_data = min(program.batching.num_data, SHARED_ROWS)
        most = SCORES if scored_by_products(program) else self.chunk_size
        for size in pieces(num_particles, most // num_data):
            log_w = log_likelihood_of_all(program, draw_latents(program, size), rows)
            yield log_w  # (s, n), nats

    def _passes(
        self, rows: range, num_particles: int, most: int
    ) -> Iterator[tuple[int, AbstractContextManager[object]]]:
        """Returns numbers of draws, each with the context that makes them quasi-random or not.

        Args:
            rows: The n rows of a block.
            num_particles: S, what the numbers add up to.
            most: Draws of one pass, at most.
        """
        if self.scheme.qmc:
            return quasi_random(self.program, rows, num_particles, most)
        return ((size, nullcontext()) for size in pieces(num_particles, most))

    def _adaptive(self, rows: range) -> LogWeights:
        """Returns a block's weights, as many for each datum as a pilot with other draws found.

        The pilot's own draws are thrown away: a number that was chosen by the very weights that it
        then averages would bias them. Data that are due the same number are drawn together.

        Args:
            rows: The n rows of a block.

        Returns:
            Log-weights `(S, n)`, S the largest of the numbers, each datum's own as `counts`,
            `(n,)`.
        """
        program, apart = self.program, self.program.selects_rows

        def table(members: Tensor, num_particles: int, *stream: int) -> Tensor:
            """Returns log-weights `(S, m)` of some data, by their places in the block `(m,)`."""
            if not apart:  # its data are drawn together or not at all
                return self._table(rows, rows, num_particles, stream).reshape(num_particles, -1)
            numbers = [rows[i] for i in members.tolist()]
            some = replace(self, program=program.select(numbers))
            return some._table(range(len(numbers)), numbers, num_particles, stream)

        counts = draws_due(
            lambda members, size, stage: table(members, size, PILOT, rows.start, stage),
            self.scheme,
            len(rows) if program.plate else 1,
            together=not apart,
            start=self.start,
        )
        log_w = torch.full((int(counts.max()), len(counts)), -torch.inf, dtype=torch.float64)
        for k in counts.unique().tolist():
            members = torch.nonzero(counts == k)[:, 0]
            log_w[:k, members] = table(members, k, GUIDE, rows.start, k)
        if not program.plate:
            log_w, counts = log_w[:, 0], counts[0]
        return LogWeights(log_w, counts=counts)


def sharing(program: Program) -> Program:
    """Returns the program with its draws from the prior shared by all data, if they can be.

    Args:
        program: That is run once, to see whether its latents depend on the data.
    """
    with reproducible(0):
        return program.sharing() if shares_latents(program) else program


def joined(blocks: Sequence[LogWeights]) -> LogWeights:
    """Returns the blocks' tables side by side, filled up where their draws differ in number.

    Args:
        blocks: Tables `(S, n)`, of all rows in order; S may differ under "auto".

    Returns:
        One of `(S, N)`, S the largest, with -inf for draws that were not made.
    """
    if len(blocks) == 1:
        return blocks[0]
    most = max(block.num_particles for block in blocks)
    tables = [
        torch.nn.functional.pad(b.log_w, (0, 0, 0, most - b.num_particles), value=-torch.inf)
        for b in blocks
    ]
    counts = None if blocks[0].counts is None else torch.cat([b.num_draws for b in blocks])
    return LogWeights(torch.cat(tables, dim=-1), counts, blocks[0].randomizations)
