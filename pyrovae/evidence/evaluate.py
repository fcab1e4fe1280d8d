"""Several estimators of log p(x) side by side, on the same data, in bounded memory."""

__all__ = ["evaluate"]

import platform
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from math import inf, log10
from time import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from pyrovae.evidence.annealing import CHAINS, NUM_LEAPFROG, tune
from pyrovae.evidence.blocks import FIELDS, SOURCES, Job, mapped
from pyrovae.evidence.drawing import Draws, at_once, sharing
from pyrovae.evidence.importance import BLOCK_SIZE
from pyrovae.evidence.results import Estimate, Evidence
from pyrovae.evidence.weights import check_sizes
from pyrovae.program import Program, inspect
from pyrovae.rng import draw_seed, seeded
from pyrovae.rows import Rows, spooled

NAIVE = 5_000  # draws of the prior where the number of the guide's is "auto"


def evaluate(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    *data: Tensor | Rows | DataLoader[Any],
    estimators: Sequence[str] = ("elbo", "importance", "prior"),
    num_particles: int | str = 5_000,
    tolerance: float = 0.01,
    max_particles: int = 100_000,
    max_seconds: float | None = None,
    num_temperatures: int = 100,
    num_chains: int = 8,
    seed: int | None = None,
    plate: str = "data",
    block_size: int = BLOCK_SIZE,
    chunk_size: int | None = None,
    compile: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
    protocol: Mapping[str, Any] | None = None,
    blocks: MutableMapping[str, dict[str, Tensor]] | None = None,
) -> Evidence:
    """Returns estimates of log p(x) for each datum by several estimators, same data, same K.

    Works in blocks of data: memory grows with neither N nor K beyond the per-datum results and one
    block's table. "elbo", "importance" and "jackknife" reduce the same draws.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; `None` if nothing is asked for that needs one.
        data: Tensors of equal length N; or one `torch.utils.data.DataLoader` of such, best one
            that does not shuffle: it is gone through once, onto the disk (`TMPDIR`), and results
            are in its order.
        estimators: Of "elbo", "importance" (guide as proposal), "jackknife" (the same, its bias
            corrected), "prior" (naive sampling), "ais" (annealing, from the guide if there is
            one), "quadrature" (up to three latent dimensions).
        num_particles: K, samples per datum and proposal; or "auto", see `importance_sampling`
            (naive sampling then draws 5,000).
        tolerance: Standard error that "auto" aims at and its verdicts ask for, nats.
        max_particles: Draws per datum that "auto" makes at most.
        max_seconds: Time after which "auto" asks for no more.
        num_temperatures: Of "ais".
        num_chains: Annealing runs per datum of "ais".
        seed: Fixes the draws: a block's depend on seed, proposal and its first row alone, those of
            "ais" also on its pilot.
        plate: Name of the plate over the data.
        block_size: Data per block.
        chunk_size: Particles x data decoded at once; `None`: what the cores' caches hold.
        compile: Run log-weights, and the gradients of "ais", as compiled graphs, once some ten
            seconds have gone into making them; see `pyrovae.program.Captured`.
        workers: Processes that share the blocks, of one thread each: results are the same bytes
            for any number. `None` computes here with all threads, or wherever
            `joblib.parallel_config` says: Dask, Ray or Spark.
        progress: Show a bar; `None` does so on a terminal.
        protocol: What is to stand beside the numbers, such as data set and binarization.
        blocks: Results of finished blocks of the same call, by name: what is there is not computed
            again, and what is computed is put there.

    Raises:
        ValueError: For an unknown estimator, a program that gives no per-datum weights (see
            `pyrovae.check`), data outside their support, or NaN weights.
    """
    if plate is None:
        raise ValueError(
            "evaluate works per datum and plate is None; for latents that all data share, use "
            "importance_sampling(..., plate=None)"
        )
    names = _known(estimators, guide)
    auto = num_particles == "auto"
    drawn = Draws(num_particles, None, False, tolerance, max_particles, max_seconds)
    check_sizes(block_size=block_size, num_temperatures=num_temperatures, num_chains=num_chains)
    given = {"chunk_size": chunk_size, "workers": workers}
    check_sizes(**{name: size for name, size in given.items() if size is not None})
    seed, start = draw_seed(seed), time()
    held = _at_hand(data, seed)
    grid = () if auto else _grid(int(num_particles))

    sizes = dict.fromkeys(SOURCES.values(), block_size) | {"ais": max(1, CHAINS // num_chains)}
    programs = {
        source: inspect(
            model,
            guide if source in ("guide", "ais") else None,
            *held,
            plate=plate,
            block_size=sizes[source],
        )
        for source in dict.fromkeys(SOURCES[name] for name in names)
    }
    if "prior" in programs:
        programs["prior"] = sharing(programs["prior"])
    if compile:
        programs = {source: program.compiled() for source, program in programs.items()}
    done = {} if blocks is None else blocks
    keys = {
        source: {f"{source}-{rows.start}": rows for rows in program.blocks(sizes[source])}
        for source, program in programs.items()
    }
    todo = {k: (source, rows) for source in keys for k, rows in keys[source].items()}
    bar = tqdm(
        total=sum(len(rows) for _, rows in todo.values()),
        unit="datum",
        desc="log p(x)",
        disable=None if progress is None else not progress,
    )
    left = {k: task for k, task in todo.items() if k not in done}
    kernel = None
    if "ais" in {source for source, _ in left.values()}:
        kernel = tune(programs["ais"], num_temperatures, "tuned", NUM_LEAPFROG, seed)
    draws = {"guide": drawn, "prior": Draws(NAIVE) if auto else drawn}
    threads = 1 if workers else torch.get_num_threads()
    chunks = {s: chunk_size or at_once(program, threads) for s, program in programs.items()}
    job = Job(tuple(names), draws, grid, seed, start, chunks, num_chains, kernel)
    with bar:
        bar.update(sum(len(todo[k][1]) for k in todo if k not in left))
        records = mapped(job, programs, list(left.values()), workers)
        for (k, (_, rows)), record in zip(left.items(), records, strict=True):
            done[k] = record
            bar.update(len(rows))
    estimates = {
        name: _estimate(
            name,
            [done[key] for key in keys[SOURCES[name]]],
            tolerance if auto else inf,
        )
        for name in names
    }
    options = {"num_particles": num_particles}
    if auto:
        options |= {"tolerance": tolerance, "max_particles": max_particles}
    if "ais" in names:
        options |= {"num_temperatures": num_temperatures, "num_chains": num_chains}
    facts = _facts(
        next(iter(programs.values())), {**options, "seed": seed, "block_size": block_size}
    )
    return Evidence(estimates, grid, {**facts, **(protocol or {})})


def _at_hand(data: Sequence[Any], seed: int) -> Sequence[Tensor | Rows]:
    """Returns the data, those of a DataLoader on disk: all estimators have to see the same."""
    if not any(isinstance(d, DataLoader) for d in data):
        return data
    if len(data) > 1:
        raise TypeError("the data are a DataLoader and more; give one whose batches hold them all")
    with seeded(seed):
        return spooled(data[0])


def _estimate(name: str, parts: list[dict[str, Tensor]], tolerance: float) -> Estimate:
    """Returns one estimator's results of all blocks."""
    columns = {f: torch.cat([part[f"{name}.{f}"] for part in parts], dim=-1) for f in FIELDS}
    seconds = sum(part["seconds"].item() for part in parts)
    batches = None
    if "batches" in parts[0]:
        batches = torch.cat([part["batches"] for part in parts], dim=-1)
    return Estimate(name, **columns, seconds=seconds, tolerance=tolerance, batches=batches)


def _known(estimators: Sequence[str], guide: Any) -> list[str]:
    names = list(dict.fromkeys(estimators))
    for name in names:
        if name not in SOURCES:
            near = get_close_matches(name, SOURCES, n=1, cutoff=0.3) or SOURCES
            raise ValueError(f"there is no estimator {name!r}; did you mean {' or '.join(near)}?")
        if SOURCES[name] == "guide" and guide is None:
            raise ValueError(
                f"estimator {name!r} needs a guide; pass one, or ask for 'prior' alone"
            )
    if not names:
        raise ValueError(f"no estimator was asked for; choose from {', '.join(SOURCES)}")
    return names


def _grid(num_particles: int) -> tuple[int, ...]:
    """Returns about five numbers of samples a decade, from 1 to K."""
    points = max(2, round(5 * log10(num_particles)) + 1) if num_particles > 1 else 1
    return tuple(
        dict.fromkeys(round(num_particles ** (i / max(1, points - 1))) for i in range(points))
    )


def _facts(program: Program, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the numbers depend on, as far as the program and the call know it."""
    return {
        "rows": len(program),
        "dims": program.event_size,
        "discrete": program.is_discrete,
        **options,
        "dtype": str(program.data[0].dtype),
        "device": str(program.data[0].device),
        "model_sha256": program.sha256,
        "python": platform.python_version(),
        **{name: version(name) for name in ("pyrovae", "torch", "pyro-ppl")},
    }
