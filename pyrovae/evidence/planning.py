"""What an evaluation will do: checked, and cut into blocks."""

__all__ = ["Plan", "plan"]

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import log10
from time import time
from typing import Any

import torch
from torch.utils.data import DataLoader

from pyrovae.checks import check_sizes, shown
from pyrovae.evidence.annealing import CHAINS
from pyrovae.evidence.blocks import SOURCES, Job
from pyrovae.evidence.drawing import Draws, at_once, sharing
from pyrovae.evidence.quadrature import check_dimensions
from pyrovae.program import Program, inspect
from pyrovae.rng import draw_seed, seeded
from pyrovae.rows import spooled

NAIVE = 5_000  # draws of the prior where the number of the guide's is "auto"


@dataclass(frozen=True)
class Plan:
    """The blocks of an evaluation, and what is to be done with each.

    Attributes:
        names: The estimators.
        programs: The program of each source of weights.
        blocks: Source and rows of each block, by its name.
        job: What is done; the pilot of "ais" has yet to be run.
        num_temperatures: Of "ais".
        workers: Processes; `None` for none.
    """

    names: tuple[str, ...]
    programs: dict[str, Program]
    blocks: dict[str, tuple[str, range]]
    job: Job
    num_temperatures: int
    workers: int | None


def plan(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: Sequence[Any],
    *,
    estimators: Sequence[str],
    num_particles: int | str,
    tolerance: float,
    max_particles: int,
    max_seconds: float | None,
    num_temperatures: int,
    num_chains: int,
    seed: int | None,
    plate: str | None,
    block_size: int,
    chunk_size: int | None,
    compile: bool,
    workers: int | None,
) -> Plan:
    """Returns the plan of what `evaluate` is asked for; errors are its."""
    names = _known(estimators, guide)
    auto = num_particles == "auto"
    drawn = Draws(num_particles, None, False, tolerance, max_particles, max_seconds)
    check_sizes(block_size=block_size, num_temperatures=num_temperatures, num_chains=num_chains)
    given = {"chunk_size": chunk_size, "workers": workers}
    check_sizes(**{name: size for name, size in given.items() if size is not None})
    seed, start = draw_seed(seed), time()
    data = _at_hand(data, seed)

    sizes = dict.fromkeys(SOURCES.values(), block_size) | {"ais": max(1, CHAINS // num_chains)}
    programs = {
        source: _inspected(source, model, guide, data, plate, sizes[source])
        for source in dict.fromkeys(SOURCES[name] for name in names)
    }
    if "quadrature" in programs:
        check_dimensions(programs["quadrature"])
    if "prior" in programs:
        programs["prior"] = sharing(programs["prior"])
    if compile:
        programs = {source: program.compiled() for source, program in programs.items()}
    blocks = {
        f"{source}-{rows.start}": (source, rows)
        for source, program in programs.items()
        for rows in program.blocks(sizes[source])
    }
    draws = {"guide": drawn, "prior": Draws(NAIVE) if auto else drawn}
    threads = 1 if workers else torch.get_num_threads()
    chunks = {s: chunk_size or at_once(program, threads) for s, program in programs.items()}
    grid = () if auto else path_grid(int(num_particles))
    job = Job(tuple(names), draws, grid, seed, start, chunks, num_chains, None)
    return Plan(tuple(names), programs, blocks, job, num_temperatures, workers)


def _inspected(
    source: str,
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: Sequence[Any],
    plate: str | None,
    size: int,
) -> Program:
    """Returns the program of a source of weights.

    To quadrature the guide only shows where to look: one that cannot be used is left out.
    """
    options: dict[str, Any] = {"plate": plate, "block_size": size}
    if source in ("guide", "ais"):
        return inspect(model, guide, *data, **options)
    if source == "quadrature" and guide is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                return inspect(model, guide, *data, **options)
            except (TypeError, ValueError, UserWarning):
                pass
    return inspect(model, None, *data, **options)


def _at_hand(data: Sequence[Any], seed: int) -> Sequence[Any]:
    """Returns the data, those of a DataLoader on disk: all estimators have to see the same."""
    if not any(isinstance(d, DataLoader) for d in data):
        return data
    if len(data) > 1:
        raise TypeError("the data are a DataLoader and more; give one whose batches hold them all")
    with seeded(seed):
        return spooled(data[0])


def _known(estimators: Sequence[str], guide: Any) -> list[str]:
    listed = isinstance(estimators, Iterable) and not isinstance(estimators, str)
    names = list(dict.fromkeys(estimators)) if listed else []
    if not listed or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"estimators is {shown(estimators)}; give a list of names, such as ['elbo', 'ais']"
        )
    for name in names:
        if name not in SOURCES:
            near = get_close_matches(name, SOURCES, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(SOURCES)}"
            raise ValueError(f"there is no estimator {name!r}; {hint}")
        if SOURCES[name] == "guide" and guide is None:
            raise ValueError(
                f"estimator {name!r} needs a guide; pass one, or ask for 'prior' alone"
            )
    if not names:
        raise ValueError(f"no estimator was asked for; choose from {', '.join(SOURCES)}")
    return names


def path_grid(num_particles: int) -> tuple[int, ...]:
    """Returns about five numbers of samples a decade, from 1 to K."""
    points = max(2, round(5 * log10(num_particles)) + 1) if num_particles > 1 else 1
    return tuple(
        dict.fromkeys(round(num_particles ** (i / max(1, points - 1))) for i in range(points))
    )
