"""What an evaluation will cost, predicted from a short probe of it.

Its work is linear in particles (of annealing in temperatures, of quadrature in data): with a the
units of a block, of which a probe has done m in t seconds, and b the seconds of one more,

    t + b (a - m)

is what the block takes, and n blocks as much in proportion to their rows.
"""

__all__ = ["Cost", "cost"]

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from heapq import heapify, heapreplace
from math import inf
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import perf_counter
from typing import TypeVar, Unpack

import torch
from torch.utils.flop_counter import FlopCounterMode

from pyrovae.evidence.blocks import Record, settings
from pyrovae.evidence.estimators.base import Effort, Estimator
from pyrovae.evidence.estimators.work import Guide, Probe
from pyrovae.evidence.planning import DEFAULT, Data, Options, Plan, plan
from pyrovae.program import Program
from pyrovae.progress import duration
from pyrovae.threads import one_at_a_time

PROBE = 0.5  # seconds
GROWTH = 4  # of a probe's runs
WORKERS = 1, 2, 4, 8, 16, 32, 64
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """What the blocks of one source of weights cost.

    Attributes:
        unit: What is counted: "decodes", or of annealing "gradients"; "" where nobody knows.
        count: How many of them, in all blocks.
        flops: Floating-point operations, those of matrix products and convolutions.
        blocks: Seconds of each block, on one thread.
        seconds: Seconds of all blocks without workers, on all threads.
        given: What that takes for granted, in words, or "".
    """

    unit: str
    count: float
    flops: float
    blocks: list[float]
    seconds: float
    given: str = ""


@dataclass(frozen=True, repr=False)
class Cost:
    """What an evaluation will cost; as a string, a table.

    Attributes:
        parts: By source of weights.
        start: Seconds until a worker with a core of its own is there.
        once: Seconds of what is done once: the plan, annealing's pilot, graphs to be compiled.
        memory: Bytes that a process takes at most, as far as this one has.
        bound: Whether some of it is only known to be no more: the draws of "auto".
        second: Seconds that the second way adds at most, see `pyrovae.evidence.confirmation`.
    """

    parts: dict[str, Part]
    start: float
    once: float
    memory: float
    bound: bool
    second: float = 0.0

    def seconds(self, workers: int | None = None, cores: int | None = None) -> float:
        """Returns seconds of wall time by so many workers of one thread, on so many cores.

        Each block goes to the worker that is free first.

        Args:
            workers: Processes; `None` is this process alone, with all its threads.
            cores: Shared by the workers, which import side by side; `None` gives each one its own.
        """
        if workers is None:
            return self.once + sum(part.seconds for part in self.parts.values())
        busy = min(workers, cores or workers)
        ends = [0.0] * busy
        heapify(ends)
        for part in self.parts.values():
            for block in part.blocks:
                heapreplace(ends, ends[0] + block)
        start = self.start * workers / busy if workers > 1 else 0.0  # they import side by side
        return self.once + start + max(ends)

    def rows(self) -> dict[str, object]:
        """Returns the table as JSON values.

        Counts by their unit, such as "decodes"; "flops" of matrix products and convolutions;
        "memory" in bytes; and "seconds": of this process, of the second way at most, and of 1 to
        64 workers on the cores here, or on one each.
        """
        cores = os.cpu_count() or 1
        return {
            **{p.unit: p.count for p in self.parts.values() if p.unit},
            "flops": sum(p.flops for p in self.parts.values()),
            "memory": self.memory,
            "seconds": self.seconds(),
            "seconds_of_second_way": self.second,
            "seconds_of_workers": {w: self.seconds(w, cores) for w in WORKERS},
            "seconds_of_workers_with_a_core_each": {w: self.seconds(w) for w in WORKERS},
        }

    def __str__(self) -> str:
        cores = os.cpu_count() or 1
        lines = []
        for source, p in self.parts.items():
            counted = f"{p.count:,.0f} {p.unit}, " if p.unit else ""
            given = f", {p.given}" if p.given else ""
            lines.append(f"{source:<12}{counted}{p.flops:.3g} FLOP, {p.seconds:.3g} s{given}")
        most = "at most " if self.bound else ""
        threads = torch.get_num_threads()
        lines += [
            f"memory      {self.memory / 2**30:.2f} GiB a process",
            f"time        {most}{duration(self.seconds())} in this process, "
            f"{threads} thread{'s' if threads > 1 else ''}",
            f"second way  up to {duration(self.second)} more, where the weights look good",
            "",
            f"{'workers':<24}" + "".join(f"{w:>9}" for w in WORKERS),
            f"{f'here, on {cores} cores':<24}"
            + "".join(f"{duration(self.seconds(w, cores)):>9}" for w in WORKERS),
            f"{'with a core each':<24}"
            + "".join(f"{duration(self.seconds(w)):>9}" for w in WORKERS),
        ]
        return "\n".join(lines)


@one_at_a_time
def cost(
    model: Callable[..., object],
    guide: Guide,
    *data: Data,
    estimators: Iterable[Estimator | str] | Estimator = DEFAULT,
    seed: int | None = None,
    **options: Unpack[Options],
) -> Cost:
    """Returns what `evaluate` with these arguments will cost, from half a second of it.

    A block of each source is run with few particles, then with more until half a second has gone
    and they are what takes the time, on one thread and on all; what is left grows with their
    number. Annealing's pilot is run as it will be: nobody knows beforehand how long it takes.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; or `None`.
        data: As `evaluate` takes them.
        estimators: Objects or names.
        seed: Fixes the draws; `None` draws a seed.
        **options: As of `evaluate`; of `workers` all numbers are told.

    Raises:
        TypeError, ValueError: As `evaluate`.
    """
    start = perf_counter()
    if not isinstance(estimators, str | Estimator):
        estimators = list(estimators)  # there are two plans
    planned = partial(plan, model, guide, estimators=estimators, seed=seed)
    alone = planned(*data, **{**options, "workers": None})
    once = perf_counter() - start
    held = next(iter(alone.programs.values())).data
    worker = planned(*held, **{**options, "workers": 1})
    parts, second = {}, 0.0
    for source, program in alone.programs.items():
        start = perf_counter()
        alone = alone.prepared(source)
        once += perf_counter() - start
        worker = worker.with_prepared(source, alone.job.works[source].prepared)
        blocks = [rows for name, rows in alone.blocks.values() if name == source]
        probe = _probed(alone, source, program, blocks[0])
        parts[source] = _part(alone, worker, source, blocks, probe)
        once += probe.first
        effort = _effort(alone, source, program, blocks[0])
        second += effort.confirmation(probe, partial(_probed, alone, source))
    bound = alone.tolerance < inf
    return Cost(parts, _start(), once, _memory(alone), bound, second)


def _effort(own: Plan, source: str, program: Program, rows: range) -> Effort:
    """Returns what there is to do for a block.

    Args:
        own: The plan.
        source: Whose block it is.
        program: Of these rows, or more.
        rows: Of the block.
    """
    return own.job.sources[source].effort(program, rows, own.job.works[source])


def _part(alone: Plan, worker: Plan, source: str, blocks: list[range], probe: Probe) -> Part:
    """Returns what the blocks of a source cost, by probes of the first, here and in a worker.

    Others are taken to cost as much in proportion to their rows.

    Args:
        alone: The plan without workers, whose blocks have all threads.
        worker: The same with one thread.
        source: Whose blocks they are.
        blocks: Rows of each.
        probe: Of the first, without workers.
    """
    program, first = alone.programs[source], blocks[0]
    efforts = [_effort(alone, source, program, rows) for rows in blocks]
    share = len(program) / len(first)
    own = _probed(worker, source, worker.programs[source], first)
    return Part(
        efforts[0].unit,
        sum(effort.count for effort in efforts),
        _flops(alone, source, first) * share,
        [own.seconds * len(rows) / len(first) for rows in blocks],
        probe.seconds * share,
        efforts[0].given,
    )


def _some(own: Plan, source: str, program: Program, rows: range, amount: int) -> Record:
    """Returns the results of so many units of a block's work.

    Args:
        own: The plan.
        source: Whose block it is.
        program: Of these rows, or more.
        rows: Of the block; of quadrature, whose units are data, some of them.
        amount: Of particles, temperatures or data.
    """
    job = own.job
    estimator, rows, work = _effort(own, source, program, rows).part(amount)
    sources, works = {**job.sources, source: estimator}, {**job.works, source: work}
    return replace(job, sources=sources, works=works)(program, source, rows)


def _probed(own: Plan, source: str, program: Program, rows: range) -> Probe:
    r"""Returns what a block takes, from runs of it that grow until draws are most of their time.

    What does not grow with them, such as k-hat, would be priced once a draw otherwise. Runs of m,
    4 m, 16 m, ... units are made; the last two, of m and M units in t and T seconds, say that all
    a take

    .. math::
        T + b (a - M), \quad b = (T - t) / (M - m)

    Args:
        own: The plan, whose threads it takes.
        source: Whose block it is.
        program: That of all data.
        rows: Of the block.

    Returns:
        Seconds of the block; seconds that its first run took beyond a second one, of what is
        compiled or read once; and b, seconds of a unit.
    """
    effort = _effort(own, source, program, rows)
    amount, part = effort.amount, program.holding(rows)
    with settings(own.workers, torch.get_default_dtype()):
        run = partial(_some, own, source, part, rows)
        made = min(amount, effort.least)
        first = _timed(run, made)
        spent = seconds = _timed(run, made)
        first, slope, fixed = max(0.0, first - seconds), seconds / made, True
        while made < amount and (spent < PROBE or fixed):
            more = min(amount, GROWTH * made)
            longer = _timed(run, more)
            fixed = longer < 1.5 * seconds
            slope = max(0.0, (longer - seconds) / (more - made))
            made, seconds, spent = more, longer, spent + longer
    return Probe(seconds + slope * (amount - made), first, slope)


def _flops(own: Plan, source: str, rows: range) -> float:
    """Returns the operations of a block, as torch counts them: linear in the work.

    Counted are those of two units and of three, which give the line.

    Args:
        own: The plan.
        source: Whose block it is.
        rows: Of the block.
    """
    program = own.programs[source].holding(rows).uncompiled()
    amount = _effort(own, source, program, rows).amount
    counts = []
    for some in (min(amount, 2), min(amount, 3)):
        with FlopCounterMode(display=False) as counter:
            _some(own, source, program, rows, some)
        counts.append(counter.get_total_flops())
    return counts[0] + (counts[1] - counts[0]) * (amount - 2)


def _memory(own: Plan) -> float:
    """Returns the bytes that this process has taken at most, and twice those of the results.

    Results are 5 + 2 G numbers of 8 bytes for each datum and estimator; they are held once in
    blocks and once put together.

    Args:
        own: The plan, of G steps a path.
    """
    status = Path("/proc/self/status")
    peak = getrusage(RUSAGE_SELF).ru_maxrss
    if status.exists():  # ru_maxrss begins with the peak of the process that started this one
        lines = status.read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    numbers = len(own.estimators) * (5 + 2 * len(own.grid))
    return 1024 * peak + 2 * 8 * numbers * len(next(iter(own.programs.values())))


def _start() -> float:
    """Returns the seconds until a new process has imported what a worker needs."""
    return _timed(
        lambda code: subprocess.run([sys.executable, "-c", code], check=True),
        "import numpy, pyrovae.evidence.evaluate, pyrovae as pv; pv.psis(numpy.eye(99))",
    )


def _timed(run: Callable[[T], object], argument: T) -> float:
    """Returns the seconds of wall time that a call takes.

    Args:
        run: Called once.
        argument: Of the call.
    """
    start = perf_counter()
    run(argument)
    return perf_counter() - start
