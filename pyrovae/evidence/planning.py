"""What an evaluation will do: estimators and programs, checked, and cut into blocks.

Estimators that read the same weights, such as ELBO and importance sampling with equal options,
have one source, which draws them once. Each source has a program and a word, which names its
blocks: "guide-64" is the block of the guide's draws that begins at row 64.
"""

__all__ = ["Options", "Plan", "plan"]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from time import time
from typing import Unpack

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyrovae.checks import check_sizes
from pyrovae.data.rows import Rows, spooled
from pyrovae.evidence.blocks import Job
from pyrovae.evidence.estimators.base import Estimator, check_guide, inspecting, path_grid
from pyrovae.evidence.estimators.names import named
from pyrovae.evidence.estimators.work import Guide, Work
from pyrovae.evidence.samplers.chunks import at_once
from pyrovae.evidence.samplers.options import Run, RunOptions, options_of
from pyrovae.program import Program
from pyrovae.rng import draw_seed, seeded
from pyrovae.threads import one_at_a_time

Data = Tensor | Rows | DataLoader[object]
DEFAULT = "elbo", "importance", "prior"  # estimators


class Options(RunOptions, total=False):
    """Options of an evaluation, beside estimators and seed: how it is done, and what names mean.

    Attributes:
        workers: Processes that share the blocks; `None` for none.
        num_particles: S of estimators that are named; or "auto".
        tolerance: Standard error that "auto" draws for, nats.
        max_particles: Particles per datum that "auto" draws at most.
        max_seconds: Time after which "auto" asks for no more.
        num_temperatures: T of "ais".
        num_chains: S of "ais".
        iwae_k: k of "iwae".
    """

    workers: int | None
    num_particles: int | str
    tolerance: float
    max_particles: int
    max_seconds: float | None
    num_temperatures: int
    num_chains: int
    iwae_k: int


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
        """Numbers of particles of the estimates' paths."""
        return next(iter(self.job.works.values())).grid

    @property
    def tolerance(self) -> float:
        """Standard error that verdicts ask for, nats: the least that an estimator draws for."""
        return min(e.target.tolerance for e in self.estimators.values())

    def source(self, name: str) -> str:
        """Returns the word for the source of an estimator's weights.

        Args:
            name: Of the estimator.
        """
        return next(word for word, read in self.job.readers.items() if name in read)

    def label(self, name: str) -> str:
        """Returns what an estimator is called in words: of several of one title by number.

        Args:
            name: Of the estimator, such as "importance_2".
        """
        e = self.estimators[name]
        first = next(n for n, other in self.estimators.items() if other.title == e.title)
        number = name.removeprefix(e.name).replace("_", " ")
        return e.title if name == first else f"{e.title}{number}"

    def prepared(self, source: str) -> "Plan":
        """Returns the plan with what the source prepares once, unless it has.

        Args:
            source: The word for it; of annealing that is a pilot, which finds temperatures and
                step sizes.
        """
        if self.job.works[source].prepared is not None:
            return self
        once = self.job.sources[source].prepared(self.programs[source], self.seed)
        return self.with_prepared(source, once)

    def with_prepared(self, source: str, once: object) -> "Plan":
        """Returns the plan with what the source has prepared.

        Args:
            source: The word for it.
            once: What `Estimator.prepared` returned.
        """
        work = replace(self.job.works[source], prepared=once)
        return replace(self, job=replace(self.job, works={**self.job.works, source: work}))


@one_at_a_time
def plan(
    model: Callable[..., object],
    guide: Guide,
    *data: Data,
    estimators: Iterable[Estimator | str] | Estimator = DEFAULT,
    seed: int | None = None,
    **options: Unpack[Options],
) -> Plan:
    """Returns the plan of what `evaluate` is asked for, having made all of its checks.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; or `None`.
        data: As `evaluate` takes them.
        estimators: Objects or names.
        seed: Fixes the draws; `None` draws a seed.
        **options: See `Options`.

    Raises:
        TypeError, ValueError: As `evaluate`.
    """
    run, workers = options_of(Run, options), options.get("workers")
    chosen = named(estimators, options, Options.__optional_keys__)
    check_sizes(workers=1 if workers is None else workers)
    seed, start = draw_seed(seed), time()
    held = _at_hand(data, seed)
    check_guide(chosen.values(), model, guide, held, run.plate)
    sources, readers = _sources(chosen)
    programs = {}
    for word, e in sources.items():
        size = e.block_size(run.block_size)
        programs[word] = e.program(guide, inspecting(model, held, run.plate, size))
    if run.compile:
        programs = {word: program.compiled() for word, program in programs.items()}
    blocks = {
        f"{word}-{rows.start}": (word, rows)
        for word, e in sources.items()
        for rows in programs[word].blocks(e.block_size(run.block_size))
    }
    threads, grid = 1 if workers else torch.get_num_threads(), _grid(sources.values())
    works = {
        word: Work(
            seed,
            start,
            run.chunk_size or at_once(programs[word], threads),
            grid,
            _group_sizes(readers[word].values()),
        )
        for word in sources
    }
    job = Job(sources, readers, works)
    return Plan(chosen, programs, blocks, job, seed, run.block_size, workers)


def _sources(
    chosen: dict[str, Estimator],
) -> tuple[dict[str, Estimator], dict[str, dict[str, Estimator]]]:
    """Returns what is drawn, by a word for it, and what is read of each.

    Args:
        chosen: Estimators by name.

    Returns:
        Sources by their words, "guide" and "guide_2", and for each word its readers by name.
    """
    words: dict[Estimator, str] = {}
    readers: dict[str, dict[str, Estimator]] = {}
    for name, e in chosen.items():
        if e.source not in words:
            count = sum(source.draws_from == e.source.draws_from for source in words)
            words[e.source] = e.source.draws_from + (f"_{count + 1}" if count else "")
        readers.setdefault(words[e.source], {})[name] = e
    return {word: source for source, word in words.items()}, readers


def _grid(sources: Iterable[Estimator]) -> tuple[int, ...]:
    """Returns the numbers of particles of all paths: none where a pilot finds how many are due.

    Args:
        sources: Of which the one of the most particles decides, so that all paths have the same G.
    """
    targets = [e.target for e in sources]
    sizes = [t.num_particles for t in targets if t.num_particles is not None]
    auto = any(t.tolerance < inf for t in targets)
    return path_grid(max(sizes)) if sizes and not auto else ()


def _group_sizes(readers: Iterable[Estimator]) -> tuple[int, ...]:
    """Returns every k of which log-mean-exp is read by groups, in order, each once.

    Args:
        readers: Estimators of one source of weights.
    """
    sizes = (e.target.group_size for e in readers)
    return tuple(sorted({k for k in sizes if k is not None}))


def _at_hand(data: Sequence[Data], seed: int) -> Sequence[object]:
    """Returns the data, those of a DataLoader on disk: all estimators have to see the same.

    Args:
        data: As `evaluate` takes them.
        seed: Of the loader, which may shuffle.

    Raises:
        TypeError: If a DataLoader is not the only one of the data.
    """
    loaders = [d for d in data if isinstance(d, DataLoader)]
    if not loaders:
        return data
    if len(data) > 1:
        raise TypeError("the data are a DataLoader and more; give one whose batches hold them all")
    with seeded(seed):
        return spooled(loaders[0])
