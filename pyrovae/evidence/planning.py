"""What an evaluation will do: checked, and cut into blocks."""

__all__ = ["BLOCK_SIZE", "BUILT_IN", "Plan", "plan"]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from time import time
from typing import Any

import torch
from torch.utils.data import DataLoader

from pyrovae.checks import check_sizes
from pyrovae.data.rows import spooled
from pyrovae.evidence.blocks import Job
from pyrovae.evidence.estimators.ais import AIS
from pyrovae.evidence.estimators.base import Estimator, Guide, Work, made, path_grid
from pyrovae.evidence.estimators.exact import Exact
from pyrovae.evidence.estimators.importance import ELBO, Importance, Jackknife
from pyrovae.evidence.estimators.naive import Naive
from pyrovae.evidence.estimators.quadrature import Quadrature
from pyrovae.program import Program, inspect
from pyrovae.rng import draw_seed, seeded

BUILT_IN = (
    ELBO,
    Importance,
    Jackknife,
    Naive,
    AIS,
    Quadrature,
    Exact,
)  # known by name, once imported
BLOCK_SIZE = 64  # data per block


@dataclass(frozen=True)
class Plan:
    """The blocks of an evaluation, and what is to be done with each.

    Attributes:
        estimators: By name.
        programs: The program of each source of weights.
        blocks: Source and rows of each block, by its name.
        job: What is done; what is to be prepared once has yet to be.
        seed: Fixes the draws.
        block_size: Data per block that were asked for.
        workers: Processes; `None` for none.
    """

    estimators: dict[str, Estimator]
    programs: dict[str, Program]
    blocks: dict[str, tuple[str, range]]
    job: Job
    seed: int
    block_size: int
    workers: int | None

    @property
    def grid(self) -> tuple[int, ...]:
        """Numbers of draws of the estimates' paths."""
        return next(iter(self.job.works.values())).grid

    @property
    def tolerance(self) -> float:
        """Standard error that verdicts ask for, nats: the least that an estimator does."""
        return min(e.tolerance_asked for e in self.estimators.values())

    def source(self, name: str) -> str:
        """Returns the word for the source of an estimator's weights."""
        return next(word for word, read in self.job.readers.items() if name in read)

    def prepared(self, source: str) -> "Plan":
        """Returns the plan with what the source prepares once, unless it has."""
        work = self.job.works[source]
        if work.once is None:
            once = self.job.sources[source].prepared(self.programs[source], self.seed)
            works = {**self.job.works, source: replace(work, once=once)}
            return replace(self, job=replace(self.job, works=works))
        return self


def plan(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: Sequence[Any],
    *,
    estimators: Iterable[Estimator | str] = ("elbo", "importance", "prior"),
    seed: int | None = None,
    plate: str | None = "data",
    block_size: int = BLOCK_SIZE,
    chunk_size: int | None = None,
    compile: bool = False,
    workers: int | None = None,
    **options: Any,
) -> Plan:
    """Returns the plan of what `evaluate` is asked for; arguments and errors are its."""
    given = {"chunk_size": chunk_size, "workers": workers}
    named = made(estimators, options)
    if guide is None and (needy := [name for name, e in named.items() if e.needs_guide]):
        raise ValueError(
            f"estimator {needy[0]!r} needs a guide; pass one, or ask for 'prior' alone"
        )
    check_sizes(block_size=block_size)
    check_sizes(**{name: size for name, size in given.items() if size is not None})
    seed, start = draw_seed(seed), time()
    data = _at_hand(data, seed)

    sources, readers = _sources(named)
    programs = {}
    for word, e in sources.items():
        size = e.block_size(block_size)
        inspected = partial(_inspected, model, data, plate, size)
        programs[word] = e.program(guide, inspected)
    if compile:
        programs = {word: program.compiled() for word, program in programs.items()}
    blocks = {
        f"{word}-{rows.start}": (word, rows)
        for word, e in sources.items()
        for rows in programs[word].blocks(e.block_size(block_size))
    }
    threads, grid = 1 if workers else torch.get_num_threads(), _grid(sources.values())
    works = {
        word: Work(seed, start, chunk_size or e.chunk(programs[word], threads), grid)
        for word, e in sources.items()
    }
    return Plan(named, programs, blocks, Job(sources, readers, works), seed, block_size, workers)


def _inspected(
    model: Callable[..., Any], data: Sequence[Any], plate: str | None, size: int, guide: Guide
) -> Program:
    return inspect(model, guide, *data, plate=plate, block_size=size)


def _sources(
    named: dict[str, Estimator],
) -> tuple[dict[str, Estimator], dict[str, dict[str, Estimator]]]:
    """Returns what is drawn, by a word for it, and what is read of each."""
    words: dict[Estimator, str] = {}
    readers: dict[str, dict[str, Estimator]] = {}
    for name, e in named.items():
        if e.source not in words:
            count = sum(source.draws_from == e.source.draws_from for source in words)
            words[e.source] = e.source.draws_from + (f"_{count + 1}" if count else "")
        readers.setdefault(words[e.source], {})[name] = e
    return {word: source for source, word in words.items()}, readers


def _grid(sources: Iterable[Estimator]) -> tuple[int, ...]:
    """Returns the numbers of draws of all paths: none where a pilot finds how many are due."""
    auto = any(e.tolerance_asked < inf for e in sources)
    sizes = [] if auto else [e.sizes for e in sources if e.sizes is not None]
    return path_grid(max(sizes)) if sizes else ()


def _at_hand(data: Sequence[Any], seed: int) -> Sequence[Any]:
    """Returns the data, those of a DataLoader on disk: all estimators have to see the same."""
    if not any(isinstance(d, DataLoader) for d in data):
        return data
    if len(data) > 1:
        raise TypeError("the data are a DataLoader and more; give one whose batches hold them all")
    with seeded(seed):
        return spooled(data[0])
