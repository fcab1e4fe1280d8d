"""A second, different way to log p(x): on data simulated from the model the exact z is known."""

__all__ = [
    "Annealing",
    "Confirmation",
    "Way",
    "confirm_annealing",
    "confirm_sampling",
    "gap_of",
    "screened",
    "simulations",
]

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from pyro.distributions import Delta
from torch import Tensor

from pyrovae.evidence.confirmed import GOOD_NEEDED, Confirmation
from pyrovae.evidence.reductions import annealed_well, verdicts
from pyrovae.evidence.samplers.annealing import anneal
from pyrovae.evidence.samplers.paths import PathProposal
from pyrovae.evidence.samplers.sampler import ImportanceSampler
from pyrovae.evidence.samplers.scheme import Proposal, Scheme
from pyrovae.evidence.samplers.tuning import Kernel
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import (
    Program,
    Values,
    base,
    reproducible,
    simulate,
)
from pyrovae.rng import stream_seed

SAMPLED, SCREENED, LONGER = 256, 512, 8  # data that sampling and annealing are confirmed on
LOST, OTHERS = 16, 32  # of those screened, that are annealed: of the worst start, and of the rest
ANNEALED = LOST + OTHERS
DRAWS, SHARE = 2**16, 0.05  # draws that it may cost, or what share of the evaluation's own
WORTH = 20  # effective draws of a simulated datum
UNKNOWN = "the {}'s density is known at its own draws alone"
DATA, OWN, TWICE, SCREEN = 30, 31, 32, 33  # random streams


def confirm_sampling(
    program: Program, scheme: Scheme, num_draws: Tensor, ess: Tensor, seed: int, chunk_size: int
) -> Confirmation:
    r"""Returns the confirmation of importance sampling, or of naive sampling without a guide.

    .. math::
        w^* = \frac{p(x, z^*)}{q(z^* | x)}, \quad z^* \sim p(z), \quad x \sim p(x | z^*)

    is the weight of an exact draw of the posterior; see `Confirmation`. On up to 256 simulated
    data, with so many particles that about 20 of them count, but no more than the evaluation has
    for a datum; in all with 2^16, or 5 % of the evaluation's. Gap and error are those at its S. A
    proposal is confirmed by draws of its own: it may have lost what the guide finds.

    Args:
        program: The pair; its data give sizes and covariates.
        scheme: How the evaluation drew its particles.
        num_draws: Its S of each datum, `(n,)`, of data whose weights look good.
        ess: Their effective sample sizes, `(n,)`.
        seed: Of the evaluation; the random streams are others.
        chunk_size: Particles x data decoded at once.
    """
    total = num_draws.double().median()
    most = int(num_draws.max())
    size = int((WORTH * total / ess.median()).clamp(min(256, most), most))
    budget = max(DRAWS, SHARE * len(program) * total.item())
    count = int(min(SAMPLED, max(2 * GOOD_NEEDED, budget // size)))
    program = program.unshared().uncompiled()
    if program.guide is None and scheme.proposal is None:
        program = replace(program, enumerated=())  # naive sampling draws them, too
    own = scheme.proposal
    weigh = partial(_of_proposal, own) if own else _of_guide
    tables, exact = [], []
    try:
        for part, rows, z, stream in simulations(program, count, seed, exact_guide=own is None):
            table, exact_w = weigh(part, rows, z, stream, size, chunk_size)
            tables.append(_table(table))
            exact.append(exact_w.cpu().double().reshape(-1))
    except ValueError as e:
        return Confirmation(reason=str(e))
    weights = LogWeights(torch.cat(tables, dim=1))  # (S, m), of m simulated data
    variance = (size / weights.ess() - 1).clamp(min=0)  # of w over its squared mean
    if scheme.num_particles == "auto":
        s = (variance / scheme.tolerance**2).nan_to_num(torch.inf).clamp(128, scheme.max_particles)
    else:
        s = torch.full_like(variance, total.item())
    error = (variance / (s - 1).clamp(min=1)).sqrt()
    good = verdicts(weights.pareto_k(), weights.ess() * s / size, error, weights.num_draws) == 0
    gap = gap_of(torch.cat(exact) - weights.log_evidence(), s)
    return _summary(gap, error, good, torch.ones(len(gap)))


def _of_guide(
    program: Program, rows: range, z: Values, seed: int, size: int, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Returns log w of S draws of the guide, or the prior, `(S, n)`, and of the exact z, `(n,)`.

    Args:
        program: On simulated data.
        rows: Of a block, n of them.
        z: That made the data, by site.
        seed: Of the draws.
        size: S.
        chunk_size: Particles x data decoded at once.
    """
    log_w = ImportanceSampler(program, Scheme(size), seed, chunk_size).log_weights(rows).log_w
    with reproducible(seed):
        log_q = program.log_guide if program.guide else program.log_prior
        try:
            return log_w, program.log_joint(z, rows, None) - log_q(z, rows, None)
        except (KeyError, NotImplementedError) as e:  # a flow without an inverse
            raise ValueError(UNKNOWN.format("guide")) from e


def _of_proposal(
    proposal: Proposal,
    program: Program,
    rows: range,
    z: Values,
    seed: int,
    size: int,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """Returns the same of a proposal made of the guide, which is fitted to these rows once.

    Args:
        proposal: That draws.
        program: On simulated data.
        rows: Of a block, n of them.
        z: That made the data, by site.
        seed: Of the draws.
        size: S.
        chunk_size: Particles x data decoded at once.
    """
    if not isinstance(proposal, PathProposal):
        raise ValueError(UNKNOWN.format("proposal"))
    most = max(1, chunk_size // len(rows))
    with reproducible(seed, 0, rows.start):
        try:
            path = proposal.path(program, rows)
            exact = path.inward(path.base.unconstrain(z))[None]
            parts = [path.start(min(most, size - i)) for i in range(0, size, most)]
            table = [f1 - f0 for f0, f1 in map(path.ends, (exact, *parts))]
        except (KeyError, NotImplementedError) as e:
            raise ValueError(UNKNOWN.format("proposal")) from e
    log_w = torch.cat([t.cpu().double() for t in table])
    return log_w[1:], log_w[0]


class Way(Protocol):
    """How annealing is done, forward and back."""

    @property
    def kernel(self) -> Kernel:
        """Transitions, which say where paths begin."""
        ...

    @property
    def num_particles(self) -> int:
        """S, annealed per datum."""
        ...

    @property
    def num_others(self) -> int:
        """Simulated data to anneal beside those that the start fits worst."""
        ...

    def run(self, program: Program, rows: range, seed: int) -> LogWeights:
        """Returns a block's weights, `(S, n)`, nats.

        Args:
            program: The pair and its data.
            rows: The n rows.
            seed: Of the run.
        """
        ...

    def back(self, program: Program, rows: range, seed: int, u: Tensor) -> Tensor:
        """Returns log w of a run back from a draw of the posterior, `(n,)`, nats.

        Args:
            program: The pair and its data.
            rows: The n rows.
            seed: That of the runs forward.
            u: The draws, `(n, d)`, unconstrained.
        """
        ...

    def good(self, weights: LogWeights) -> Tensor:
        """Returns which data's weights look good, `(n,)`."""
        ...

    def longer(self) -> "Way":
        """Returns the same at twice the temperatures."""
        ...


@dataclass(frozen=True)
class Annealing:
    """The same transitions, and so many particles, for all data.

    Attributes:
        kernel: The frozen transitions.
        num_particles: S.
    """

    kernel: Kernel
    num_particles: int

    @property
    def num_others(self) -> int:
        """Simulated data to anneal beside those that the start fits worst: 32."""
        return OTHERS

    def run(self, program: Program, rows: range, seed: int) -> LogWeights:
        """Returns a block's weights, `(S, n)`, nats; see `Way`.

        Args:
            program: The pair and its data.
            rows: The n rows.
            seed: Of the run.
        """
        return LogWeights(_table(anneal(program, rows, self.num_particles, seed, self.kernel)[0]))

    def back(self, program: Program, rows: range, seed: int, u: Tensor) -> Tensor:
        """Returns log w of a run back, `(n,)`, nats; see `Way`.

        Args:
            program: The pair and its data.
            rows: The n rows.
            seed: That of the runs forward.
            u: The draws, `(n, d)`, unconstrained.
        """
        return anneal(program, rows, 1, seed, self.kernel, u)[0][0].reshape(-1)

    def good(self, weights: LogWeights) -> Tensor:
        """Returns which data's weights look good, `(n,)`."""
        return annealed_well(weights.ess(), weights.num_draws, weights.std_error())

    def longer(self) -> "Annealing":
        """Returns the same at twice the temperatures."""
        return replace(self, kernel=self.kernel.refined(2 * (len(self.kernel.temperatures) - 1)))


def confirm_annealing(
    program: Program, way: Way, value: Tensor, std_error: Tensor, good: Tensor, seed: int
) -> Confirmation:
    r"""Returns the confirmation of annealing: reverse runs, and twice the temperatures.

    w* is the weight of a particle annealed in reverse from the exact z* that made x; see
    `Confirmation`. On 48 of 512 simulated data or more, of which 16 are those that the start fits
    worst; each of the others stands for as many as it was chosen of. Then up to 8 of the real
    data that look good are annealed at twice the temperatures, on other random streams: what that
    adds to the estimate, in the mean, says how far the path was from long enough.

    Args:
        program: The pair and the data.
        way: How the evaluation anneals.
        value: Its estimates, `(N,)`.
        std_error: Their standard errors, `(N,)`.
        good: Which of them look good, `(N,)`.
        seed: Of the evaluation; the random streams are others.
    """
    program = program.uncompiled()
    some = program.selects_rows
    tables, exact, shares = [], [], []
    try:
        count, own_guide = SCREENED if some else ANNEALED, way.kernel.proposal is None
        for part, rows, z, own in simulations(program, count, seed, exact_guide=own_guide):
            few = way.num_particles, LOST, way.num_others
            part, rows, u, share = screened(part, rows, z, own, way.kernel, few)
            tables.append(way.run(part, rows, own))
            exact.append(way.back(part, rows, own, u))
            shares.append(share)
    except ValueError as e:
        return Confirmation(reason=str(e))
    lower, error, size, fine = (
        torch.cat(columns)
        for columns in zip(
            *((w.log_evidence(), w.std_error(), w.num_draws, way.good(w)) for w in tables),
            strict=True,
        )
    )
    gap = gap_of(torch.cat(exact) - lower, size)
    found = _summary(gap, error, fine, torch.cat(shares))
    chosen = (good & found.speaks_of(std_error)).nonzero()[:, 0]
    if found.agrees is False or not len(chosen):
        return found
    chosen = chosen[torch.linspace(0, len(chosen) - 1, min(LONGER, len(chosen))).long()]
    rows = range(len(chosen))
    if program.selects_rows:
        program = program.select(chosen.tolist())
    else:
        rows = program.blocks(LONGER)[0]
        chosen = torch.tensor(rows if program.plate else [0])
    again = way.longer().run(program, rows, stream_seed(seed, TWICE))
    longer = again.log_evidence() - value[chosen]
    squares = again.std_error().square() + std_error[chosen].square()
    return replace(
        found,
        num_longer=len(chosen),
        longer=longer.mean().item(),
        longer_error=squares.sum().sqrt().item() / len(chosen),
    )


def _table(log_w: Tensor) -> Tensor:
    """Returns log-weights `(S, n)`; joint ones `(S,)` are those of one datum, `(S, 1)`.

    Args:
        log_w: Nats.
    """
    return log_w if log_w.ndim > 1 else log_w[:, None]


def gap_of(log_ratio: Tensor, num_draws: Tensor) -> Tensor:
    r"""Returns how far the upper bound lies above the lower one, `(m,)`, nats.

    .. math::
        \log \frac{w^* + \sum_s w_s}{S + 1} - \log \frac{\sum_s w_s}{S} =
        \log \Bigl(1 + \frac{w^*}{S \bar w}\Bigr) - \log \Bigl(1 + \frac1S\Bigr)

    Where the particles find all of the mass, w* is one of their like, and the gap near 0.

    Args:
        log_ratio: log w* - log mean(w), `(m,)`, of m simulated data.
        num_draws: S of each, `(m,)`.
    """
    s = num_draws.double()
    return torch.logaddexp(log_ratio - s.log(), torch.zeros_like(s)) - (1 / s).log1p()


def _summary(gap: Tensor, error: Tensor, good: Tensor, share: Tensor) -> Confirmation:
    r"""Returns what is kept of simulated data's gaps and errors, of the good ones among them.

    .. math::
        \bar g = \sum_i \pi_i g_i, \quad
        \mathrm{se} = \Bigl(\sum_i \pi_i^2 (g_i - \bar g)^2\Bigr)^{1/2}, \quad
        \pi_i = \mathrm{share}_i / \textstyle\sum_j \mathrm{share}_j

    Args:
        gap: Of m data, `(m,)`, nats.
        error: Standard errors of their estimates, `(m,)`, nats.
        good: Which of them look good, `(m,)`; the others say nothing of an estimate that does.
        share: How many of those simulated each stands for, `(m,)`.
    """
    simulated, tried = round(share.sum().item()), len(gap)
    gap, error, share = gap[good], error[good], share[good] / share[good].sum()
    if not len(gap):
        return Confirmation(simulated, tried)
    mean = (share * gap).sum()
    gap_error = (share * (gap - mean)).square().sum().sqrt()
    return Confirmation(
        simulated,
        tried,
        len(gap),
        mean.item(),
        gap_error.item(),
        (share * error).sum().item(),
        error.max().item(),
    )


def screened(
    program: Program,
    rows: range,
    z: Values,
    seed: int,
    kernel: Kernel,
    few: tuple[int, int, int],
) -> tuple[Program, range, Tensor, Tensor]:
    r"""Returns those of a simulated block to anneal, their u, and how many each stands for.

    Those whose exact z the start misses most, and twice as many others or more: a mode of 1 % of
    the mass that a guide has lost is hardly in so few data, but in those that they are chosen of.
    The start misses a z of a large

    .. math::
        \log w(z^*) - \log \sum_s w(z_s), \quad w = f_1 / f_0

    Args:
        program: On simulated data.
        rows: Of the block, n of them.
        z: That made the data, by site.
        seed: Of the draws of the path's start to compare with.
        kernel: Which says where paths start.
        few: How many draws to compare with; and how many data to return, of those that the start
            misses most, and of others.

    Returns:
        The program of those data; its rows; u of their exact z, `(m, d)`; the shares, `(m,)`.
        Where rows of the program cannot be chosen, all of them.
    """
    with reproducible(seed, SCREEN, rows.start):
        path = kernel.path(program, rows)
        u = path.base.unconstrain(z)
        if not program.selects_rows:
            return program, rows, u, torch.ones(len(rows) if program.plate else 1)
        # log w of the exact z, (1, n), and of particles from the start, (S, n)
        num_particles, worst, others = few
        at = path.inward(u)[None], path.start(num_particles)
        exact, drawn = (f1 - f0 for f0, f1 in map(path.ends, at))
    order = (drawn.logsumexp(0) - exact[0]).argsort()
    rest = order[worst:]
    chosen = torch.cat([order[:worst], rest[torch.linspace(0, len(rest) - 1, others).long()]])
    share = torch.cat([torch.ones(worst), torch.full((others,), len(rest) / others)])
    program = program.select([rows.start + i for i in chosen.tolist()])
    return program, range(len(chosen)), u[chosen], share


def simulations(
    program: Program, count: int, seed: int, *, exact_guide: bool = True
) -> Iterator[tuple[Program, range, Values, int]]:
    """Yields the program on simulated blocks, their rows, the z that made them, and a seed.

    Sizes and covariates are those of the data, spread evenly, as often as it takes.

    Args:
        program: The pair and the data.
        count: Data to simulate, at least; blocks are whole.
        seed: Of the evaluation; blocks have random streams of their own.
        exact_guide: Whether the guide's density at z is asked for.

    Raises:
        ValueError: If the data cannot be simulated, or the guide has no density at that z.
    """
    if not program.particles.parallel:
        raise ValueError("the program runs one particle at a time, too slowly for a second way")
    if common := program.sites.common_latents:
        raise ValueError(
            f"{common[0]!r} is common to all data, and drawn from what the guide learned of others"
        )
    if program.selects_rows:
        held = program.batching.held_rows  # of a block's program, its own
        program = program.select([held[i * len(held) // count] for i in range(count)])
    guided = {
        s["name"]
        for s in program.sites.guide
        if not s["is_observed"] and not isinstance(base(s["fn"]), Delta)
    }
    made, turn = 0, 0
    while made < count:
        for rows in program.blocks(count):
            with reproducible(seed, DATA, turn, rows.start):
                data, z = simulate(program, rows)
            if exact_guide and (missing := sorted(guided - set(z))):
                raise ValueError(
                    f"the guide draws {missing[0]!r} and maps it to the latents, so that its "
                    "density at the exact z is unknown"
                )
            yield program.holding(rows).on(data), rows, z, stream_seed(seed, OWN, turn)
            made += len(rows) if program.plate else 1
            if made >= count:
                return
        turn += 1
