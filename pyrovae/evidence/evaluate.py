"""Several estimators of log p(x) side by side, on the same data, in bounded memory."""

__all__ = ["ESTIMATORS", "evaluate"]

import platform
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from difflib import get_close_matches
from functools import cache, partial
from importlib.metadata import version
from math import inf, log10, sqrt
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pyrovae.evidence.annealing import CHAINS, NUM_LEAPFROG, anneal, tune
from pyrovae.evidence.importance import BLOCK_SIZE, CHUNK_SIZE, Draws, draw, sharing, tally
from pyrovae.evidence.quadrature import MAX_POINTS, TOLERANCE, integrate
from pyrovae.evidence.results import Estimate, Evidence
from pyrovae.evidence.tally import Tally
from pyrovae.evidence.weights import FEWEST, LogWeights, check_sizes
from pyrovae.program import Program, inspect
from pyrovae.rng import draw_seed

ESTIMATORS = {
    "elbo": "guide",
    "importance": "guide",
    "jackknife": "guide",
    "prior": "prior",
    "ais": "ais",
    "quadrature": "quadrature",
}
NAIVE = 5_000  # draws of the prior where the number of the guide's is "auto"
Columns = tuple[Tensor, ...]  # in the order of FIELDS
FIELDS = "value", "std_error", "ess", "pareto_k", "num_draws", "path", "path_std_error"


def evaluate(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    *data: Tensor,
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
    chunk_size: int = CHUNK_SIZE,
    compile: bool = False,
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
        data: Tensors of equal length N.
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
        chunk_size: Particles x data decoded at once.
        compile: Run log-weights, and the gradients of "ais", as compiled graphs, once some ten
            seconds have gone into making them; see `pyrovae.program.Captured`. The draws of "auto"
            run as ever.
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
    check_sizes(block_size=block_size, chunk_size=chunk_size, num_temperatures=num_temperatures)
    check_sizes(num_chains=num_chains)
    seed, start = draw_seed(seed), perf_counter()
    grid = () if auto else _grid(int(num_particles))

    def sample(program: Program, rows: range, how: Draws) -> dict[str, Columns]:
        if how.num_particles == "auto":
            weights = draw(program, rows, how, seed, chunk_size, start)
        else:
            weights = tally(program, rows, how, seed, chunk_size, grid)
        source = "guide" if program.guide else "prior"
        return {n: _REDUCE[n](weights, grid) for n in names if ESTIMATORS[n] == source}

    kernel = cache(lambda: tune(programs["ais"], num_temperatures, "tuned", NUM_LEAPFROG, seed))
    work: dict[str, Callable[[Program, range], dict[str, Columns]]] = {
        "guide": lambda program, rows: sample(program, rows, drawn),
        "prior": lambda program, rows: sample(program, rows, Draws(NAIVE) if auto else drawn),
        "ais": lambda program, rows: {
            "ais": _annealed(*anneal(program, rows, num_chains, seed, kernel()), grid)
        },
        "quadrature": lambda program, rows: {"quadrature": _exact(program, rows, grid)},
    }
    sizes = dict.fromkeys(work, block_size) | {"ais": max(1, CHAINS // num_chains)}
    programs = {
        source: inspect(
            model,
            guide if source in ("guide", "ais") else None,
            *data,
            plate=plate,
            block_size=sizes[source],
        )
        for source in work
        if source in {ESTIMATORS[name] for name in names}
    }
    if "prior" in programs:
        programs["prior"] = sharing(programs["prior"])
    if compile:
        programs = {source: program.compiled() for source, program in programs.items()}
    bar = tqdm(
        total=sum(len(p) for p in programs.values()),
        unit="datum",
        desc="log p(x)",
        disable=None if progress is None else not progress,
    )
    done = {} if blocks is None else blocks
    keys: dict[str, list[str]] = {source: [] for source in programs}
    with bar:
        for source, program in programs.items():
            for rows in program.blocks(sizes[source]):
                keys[source].append(f"{source}-{rows.start}")
                if keys[source][-1] not in done:
                    done[keys[source][-1]] = _record(partial(work[source], program, rows))
                bar.update(len(rows))
    estimates = {
        name: _estimate(
            name,
            [done[key] for key in keys[ESTIMATORS[name]]],
            tolerance if auto else inf,
            programs[ESTIMATORS[name]].shared,
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


def _record(work: Callable[[], dict[str, Columns]]) -> dict[str, Tensor]:
    """Returns a block's results under flat names, with the seconds that they took."""
    start = perf_counter()
    results = work()
    record = {
        f"{name}.{field}": column
        for name, columns in results.items()
        for field, column in zip(FIELDS, columns, strict=True)
    }
    return record | {"seconds": torch.tensor(perf_counter() - start, dtype=torch.float64)}


def _estimate(
    name: str, parts: list[dict[str, Tensor]], tolerance: float, shared: bool
) -> Estimate:
    """Returns one estimator's results of all blocks."""
    columns = {f: torch.cat([part[f"{name}.{f}"] for part in parts], dim=-1) for f in FIELDS}
    seconds = sum(part["seconds"].item() for part in parts)
    return Estimate(name, **columns, seconds=seconds, tolerance=tolerance, shared=shared)


def _elbo(weights: LogWeights | Tally, grid: tuple[int, ...]) -> Columns:
    value, error = weights.elbo(), weights.elbo_std_error()
    none = torch.full_like(value, torch.nan)
    wider = torch.tensor([sqrt(weights.num_particles / k) for k in grid], dtype=torch.float64)
    path = value.expand(len(grid), -1)
    return value, error, none, none, weights.num_draws, path, wider[:, None] * error


def _evidence(weights: LogWeights | Tally, grid: tuple[int, ...]) -> Columns:
    """Returns the columns of log-mean-exp, its path from few to all samples among them.

    The path's error is the spread over disjoint subsets of k; where there is but one, the delta
    method's.
    """
    value, own = weights.log_evidence(), weights.std_error()
    return value, own, weights.ess(), weights.pareto_k(), weights.num_draws, *weights.path(grid)


def _jackknife(weights: LogWeights | Tally, grid: tuple[int, ...]) -> Columns:
    return weights.jackknife(), *_evidence(weights, ())[1:5], *_no_path(weights.elbo(), grid)


def _annealed(log_w: Tensor, rates: Tensor, grid: tuple[int, ...]) -> Columns:
    """Returns the columns of annealing; of fewer than 25 chains there is no k-hat."""
    weights = LogWeights(log_w)
    value, error, ess = weights.log_evidence(), weights.std_error(), weights.ess()
    k = weights.pareto_k() if weights.num_particles >= FEWEST else torch.full_like(ess, torch.nan)
    return value, error, ess, k, weights.num_draws, *_no_path(value, grid)


def _exact(program: Program, rows: range, grid: tuple[int, ...]) -> Columns:
    value, error = integrate(program, rows, TOLERANCE, MAX_POINTS)
    none = torch.full_like(value, torch.nan)
    return value, error, none, none, torch.zeros(len(value)).long(), *_no_path(value, grid)


def _no_path(value: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    path = torch.full((len(grid), len(value)), torch.nan, dtype=torch.float64)
    return path, path


_REDUCE = {
    "elbo": _elbo,
    "importance": _evidence,
    "jackknife": _jackknife,
    "prior": _evidence,
}


def _known(estimators: Sequence[str], guide: Any) -> list[str]:
    names = list(dict.fromkeys(estimators))
    for name in names:
        if name not in ESTIMATORS:
            near = get_close_matches(name, ESTIMATORS, n=1, cutoff=0.3) or ESTIMATORS
            raise ValueError(f"there is no estimator {name!r}; did you mean {' or '.join(near)}?")
        if ESTIMATORS[name] == "guide" and guide is None:
            raise ValueError(
                f"estimator {name!r} needs a guide; pass one, or ask for 'prior' alone"
            )
    if not names:
        raise ValueError(f"no estimator was asked for; choose from {', '.join(ESTIMATORS)}")
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
