"""Certifies log p(x) of a block: by the cheapest way that passes all gates, datum by datum.

The ways are rungs of a ladder: importance sampling from Laplace's normal, annealing from it with
more and more temperatures, annealing from the guide. n are the rows of a block.
"""

__all__ = ["Agreement", "Ladder", "certify_block", "ladder"]

from dataclasses import dataclass, replace
from math import ceil, inf, log
from time import time

import numpy as np
import torch
from torch import Tensor

from pyrovae.evidence.confirmation import screened, simulations
from pyrovae.evidence.samplers.paths import PathProposal
from pyrovae.evidence.samplers.rungs import BEYOND, Climb, Elsewhere, Rung
from pyrovae.evidence.samplers.sides import (
    CERTIFIED,
    FEW,
    LATE,
    NONE,
    SIMULATED,
    STARTS,
    TAIL,
    Sides,
)
from pyrovae.evidence.samplers.tuning import Kernel, pilot
from pyrovae.program import Program
from pyrovae.rng import stream_seed

CHAINS, PILOT = 32, 35  # random streams
FEWEST, FACTOR = 96, 4  # temperatures of annealing, and how many more the next way has
FROM_GUIDE = 384  # of annealing from the guide, at least
NUM_LEAPFROG = 3  # of a transition: for 50 latents of images 3 are better than 2, or 4
SAMPLED = 16, 256  # runs, and particles of each, of importance sampling
RUNS_, PARTICLES = 8, 8  # the same of annealing
MOST_RUNS = 8  # times as many, where that would do
TOGETHER = 16  # data
OTHER_START, OTHER_TEMPERATURES = 32, 64  # particles, annealed from the prior
RUN_BACK, FARTHEST = 16, 4  # of them, by annealing, of simulated data, and of real ones
PROBED = 32  # real data, by which it is seen how far up they need to go
SCREENED = 256  # simulated data, of which those are tried that
SAMPLED_DATA = 256, 16, 48  # a start of so many draws misses most, and others: of sampling,
ANNEALED_DATA = 64, 8, 24  # and of annealing
MOST_LOST = 1 / 64  # share of simulated data whose exact z may be out of reach
GOOD_NEEDED = 12  # of them, that a way certifies
LIGHT_NEEDED = 2  # of them, for each that has a heavy tail


@dataclass(frozen=True)
class Agreement:
    """How coupled upper bounds compare with exact ones, on data simulated from the model.

    Those tried are such as the start misses, and others; shares and means are of all.

    Attributes:
        num_data: Simulated data whose own runs certify them.
        good: Share of such. Of these:
        difference: Mean of coupled less exact upper bound, nats.
        error: Its standard error.
        away: Share of those whose exact z lies out of reach.
        lost: Share of what annealing from the prior finds for them that does.
        width: Half the mean width of their intervals, nats.
        heavy: Share of data whose weights have a heavy tail.
        reason: Why it could not be compared; else "".
    """

    num_data: int = 0
    good: float = 0.0
    difference: float = 0.0
    error: float = 0.0
    away: float = 0.0
    lost: float = 0.0
    width: float = 0.0
    heavy: float = 0.0
    reason: str = ""

    def code(self, tolerance: float) -> int:
        """Returns why a way is not confirmed, as `WORDS` has it, or 0 where it is.

        It is where both bounds agree within their errors, and a tenth of a tolerance; and where
        no mass is out of reach that matters: of 256 draws 4 may be, those of the data that the
        start misses most, and none of others; mass that annealing from the prior finds there may
        be half as much as the intervals let out. Where many data have a heavy tail, the others are
        those in whose runs it does not show.

        Args:
            tolerance: Nats, within which log p(x) is to be known.
        """
        if self.reason:
            return NONE
        if self.num_data < GOOD_NEEDED or self.good < LIGHT_NEEDED * self.heavy:
            return FEW
        near = abs(self.difference) <= 3 * self.error + 0.1 * tolerance
        reached = self.away <= MOST_LOST and self.lost <= self.width / 2
        return CERTIFIED if near and reached else SIMULATED


@dataclass(frozen=True)
class Ladder:
    """The ways, from the cheapest to the dearest, and what simulated data say of each.

    Attributes:
        rungs: The ways.
        agreements: What was found of each of them; of the first ones, where time ran out.
        second: Annealing from the prior, whose ends are where runs have to reach.
        tolerance: Nats, within which log p(x) is to be known.
        until: When no block goes further up, by the clock.
    """

    rungs: tuple[Rung, ...]
    agreements: tuple[Agreement, ...]
    second: Kernel
    tolerance: float
    until: float = inf

    def refused(self, i: int) -> bool:
        """Returns whether the i-th way is known to certify nothing, and another follows.

        Args:
            i: The number of the way.
        """
        follows = i + 1 < len(self.rungs)
        return follows and self.agreements[i].code(self.tolerance) != CERTIFIED


def ladder(
    program: Program,
    proposal: PathProposal,
    tolerance: float,
    most: int,
    seed: int,
    seconds: float = inf,
) -> Ladder:
    """Returns the ways to certify these data, tuned on pilots and tried on simulated data.

    Args:
        program: The pair and its data.
        proposal: Where the first ways begin.
        tolerance: Nats, within which log p(x) is to be known.
        most: Temperatures at most.
        seed: Of the evaluation.
        seconds: From now on, after which no block goes further up.

    Raises:
        ValueError: If log p(x, z) has no gradient in the latents.
    """
    until = time() + seconds
    one = np.array([0.0, 1.0])
    rungs = [Rung(Kernel(one, np.empty(0), NUM_LEAPFROG, proposal), *SAMPLED)]
    near = pilot(program, NUM_LEAPFROG, stream_seed(seed, PILOT, 0), proposal)
    steps = FEWEST
    while steps <= most:
        rungs.append(Rung(near.kernel(steps), RUNS_, PARTICLES))
        steps *= FACTOR
    if (steps := steps // FACTOR) >= FROM_GUIDE:
        far = pilot(program, NUM_LEAPFROG, stream_seed(seed, PILOT, 1))
        rungs.append(Rung(far.kernel(steps), RUNS_, PARTICLES))
    prior = pilot(replace(program, guide=None), NUM_LEAPFROG, stream_seed(seed, PILOT, 2))
    made = Ladder(tuple(rungs), (), prior.kernel(OTHER_TEMPERATURES), tolerance, until)
    return _tried(program, made, seed)


def _tried(program: Program, ways: Ladder, seed: int) -> Ladder:
    """Returns as many of the ways as some of the data need, with what simulated data say of each.

    From the guide runs only begin if more than one of the data need it.

    Args:
        program: The pair and its data.
        ways: The rungs.
        seed: Of the evaluation.
    """
    some = program
    if program.selects_rows:
        some = program.select(range(0, len(program), ceil(len(program) / PROBED)))
    climb = _Climb(some, some.blocks(PROBED)[0], ways, stream_seed(seed, PILOT, 4))
    todo, all_seen = torch.arange(climb.size), len(some) == len(program)
    for i, rung in enumerate(ways.rungs):
        if i and time() > ways.until:
            return replace(ways, until=-inf)  # the clock may be set back
        spared = i and rung.kernel.proposal is None and not all_seen
        if program.selects_rows and len(todo) <= spared:
            break
        ways = replace(ways, agreements=(*ways.agreements, _agreement(program, ways, i, seed)))
        climb.ways = ways
        if len(todo) and i + 1 < len(ways.rungs) and not ways.refused(i):
            todo = todo[~climb.at(i, todo).certified]
    return replace(ways, rungs=ways.rungs[: len(ways.agreements)])


def certify_block(program: Program, rows: range, ways: Ladder, seed: int) -> Sides:
    """Returns both sides of a block's data, each by the first way that certifies it, or the last.

    Args:
        program: The pair and its data.
        rows: The n rows of the block.
        ways: From the cheapest on.
        seed: Of the evaluation.
    """
    climb = _Climb(program, rows, ways, seed)
    todo, found = torch.arange(climb.size), None
    for i in range(len(ways.rungs)):
        late = time() > ways.until
        if late and found is not None:
            found.code[todo] = LATE
            break
        if ways.refused(i) and not late:
            continue
        sides = climb.at(i, todo)
        found = sides if found is None else found.put(todo, sides)
        todo = todo[~sides.certified]
        if not len(todo):
            break
    assert found is not None
    return found


class _Climb(Climb):
    """One block's way up.

    Args:
        program: The pair and its data.
        rows: The n rows.
        ways: The rungs.
        seed: Of the evaluation.
    """

    def __init__(self, program: Program, rows: range, ways: Ladder, seed: int) -> None:
        super().__init__(program, rows, ways.rungs, seed, TOGETHER)
        self.ways = ways
        self._elsewhere = Elsewhere(self, ways.second, OTHER_START)

    def at(self, i: int, todo: Tensor) -> Sides:
        """Returns both sides of some data by the i-th way.

        Args:
            i: The number of the way.
            todo: Places of the data in the block, `(m,)`.
        """
        ways = self.ways
        sides = self.sides(i, todo)
        if not sides.certified.any():
            return sides
        if why := ways.agreements[i].code(ways.tolerance):
            return sides._replace(code=torch.where(sides.certified, why, sides.code))
        code, fine = sides.code.clone(), sides.certified
        few = OTHER_START if self.rungs[i].temperatures == 1 else FARTHEST
        reached = self._elsewhere.reaches(i, todo[fine], sides.highest[fine], few)
        code[fine] = torch.where(reached, CERTIFIED, STARTS)
        return sides._replace(code=code)

    def sides(self, i: int, todo: Tensor) -> Sides:
        """Returns what runs say of some data; of more runs where those would be enough.

        The number of runs is chosen by others than those that are then used.

        Args:
            i: The number of the way.
            todo: Places of the data in the block, `(m,)`.
        """
        num_runs = self.rungs[i].num_runs
        sides = self._sides(i, self.log_w(i, todo, num_runs))
        factor, least = sides.more_runs(self.ways.tolerance), 0
        few = self.rungs[i].temperatures == FEWEST and i + 1 < len(self.rungs)
        for times in (2,) if few else (2, 4, MOST_RUNS):  # of few, the next way is no dearer
            members = torch.nonzero((factor > least) & (factor <= times))[:, 0]
            if len(members):
                log_w = self.log_w(i, todo[members], times * num_runs)
                sides = sides.put(members, self._sides(i, log_w))
            least = times
        return sides

    def against(self, i: int, u: Tensor) -> tuple[Sides, Tensor]:
        r"""Returns both sides of simulated data, coupled less exact upper bound, and what is lost.

        Args:
            i: The number of the way.
            u: Of the z that made the data, `(n, d)`, unconstrained.

        Returns:
            Both sides; and of each datum, `(3, n)`: the difference, nats; whether z is out of the
            runs' reach; and the share of where annealing from the prior ends that does.
        """
        rung, every = self.rungs[i], torch.arange(self.size)
        log_w = self.log_w(i, every, rung.num_runs)  # (M, S, n)
        back = self.log_w_back(i, every, u.expand(rung.num_runs, *u.shape))  # (M, n)
        sides = self._sides(i, log_w)
        with_exact = torch.cat([back[:, None], log_w[:, 1:]], 1).logsumexp(1) - log(log_w.shape[1])
        away = (back.median(0).values > sides.highest + BEYOND).double()
        few = OTHER_START if rung.temperatures == 1 else RUN_BACK
        others = self._elsewhere.back(i, every, few)
        lost = (others > sides.highest + BEYOND).double().mean(0)
        return sides, torch.stack([sides.upper - with_exact.mean(0), away, lost])

    def _sides(self, i: int, log_w: Tensor) -> Sides:
        """Returns what runs say, their weights `(M, S, m)`."""
        ways, seed = self.ways, stream_seed(self.seed, CHAINS, self.rows.start, i, len(log_w))
        return Sides.of(log_w, seed, ways.tolerance, (i, ways.rungs[i].temperatures))


def _agreement(program: Program, ways: Ladder, i: int, seed: int) -> Agreement:
    r"""Returns how a way does on data simulated from the model, whose exact z are known.

    An exact draw of the posterior, run back, and S - 1 particles run forward are a run under the
    law in which w-hat is weighted by itself. So the mean of

    .. math::
        \log \tfrac1S \bigl(w^* + \sum_{s=2}^S w_s\bigr)

    is the upper bound that coupled chains estimate on real data.

    Args:
        program: The pair and its data.
        ways: The rungs.
        i: The number of the way.
        seed: Of the evaluation.
    """
    found, rung = [], ways.rungs[i]
    few = SAMPLED_DATA if rung.temperatures == 1 else ANNEALED_DATA
    count = SCREENED if program.selects_rows else sum(ANNEALED_DATA[1:])
    own_guide = rung.kernel.proposal is None and program.guide is not None
    try:
        for part, rows, z, own in simulations(
            program, count, stream_seed(seed, PILOT, 3), exact_guide=own_guide
        ):
            part, rows, u, share = screened(part, rows, z, own, rung.kernel, few)
            sides, columns = _Climb(part, rows, ways, own).against(i, u)
            good = sides.certified | (sides.more_runs(ways.tolerance) <= MOST_RUNS)
            codes = torch.stack([share, good, sides.code == TAIL])
            found.append(torch.cat([codes, columns, sides.half_width[None]]))
    except ValueError as e:
        return Agreement(reason=str(e))
    share, good, heavy, *columns = torch.cat(found, 1)
    some, total = good > 0, share.sum()
    if some.sum() < 2:
        return Agreement(int(some.sum()), heavy=((share * heavy).sum() / total).item())
    own = share[some] / share[some].sum()
    gap, away, others, width = (column[some] for column in columns)
    mean = (own * gap).sum()
    return Agreement(
        num_data=int(some.sum()),
        good=(share[some].sum() / total).item(),
        difference=mean.item(),
        error=(own * (gap - mean)).norm().item(),
        away=(own * away).sum().item(),
        lost=(own * others).sum().item(),
        width=(own * width).sum().item(),
        heavy=((share * heavy).sum() / total).item(),
    )
