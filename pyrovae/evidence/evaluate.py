"""Several estimators of log p(x) side by side, on the same data, in bounded memory."""

__all__ = ["ESTIMATORS", "evaluate"]

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from math import log10, sqrt
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pyrovae.evidence.importance import BLOCK_SIZE, CHUNK_SIZE, draw
from pyrovae.evidence.results import Estimate, Evidence
from pyrovae.evidence.weights import LogWeights, check_sizes
from pyrovae.program import Program, inspect
from pyrovae.rng import draw_seed

ESTIMATORS = {"elbo": "guide", "importance": "guide", "prior": "prior"}


def evaluate(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    *data: Tensor,
    estimators: Sequence[str] = ("elbo", "importance", "prior"),
    num_particles: int = 5_000,
    seed: int | None = None,
    plate: str = "data",
    block_size: int = BLOCK_SIZE,
    chunk_size: int = CHUNK_SIZE,
    progress: bool | None = None,
    protocol: Mapping[str, Any] | None = None,
) -> Evidence:
    """Returns estimates of log p(x) for each datum by several estimators, same data, same K.

    Works in blocks of data: memory grows with neither N nor K beyond the per-datum results and one
    block's table. "elbo" and "importance" reduce the same draws.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; `None` if only "prior" is asked for.
        data: Tensors of equal length N.
        estimators: Of "elbo", "importance" (guide as proposal), "prior" (naive sampling).
        num_particles: K, samples per datum and proposal.
        seed: Fixes the draws: a block's depend on seed, proposal and its first row alone.
        plate: Name of the plate over the data.
        block_size: Data per block.
        chunk_size: Particles x data decoded at once.
        progress: Show a bar; `None` does so on a terminal.
        protocol: What is to stand beside the numbers, such as data set and binarization.

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
    check_sizes(num_particles=num_particles, block_size=block_size, chunk_size=chunk_size)
    seed = draw_seed(seed)
    grid = _grid(num_particles)
    proposals = {
        "guide": [e for e in names if ESTIMATORS[e] == "guide"],
        "prior": [e for e in names if ESTIMATORS[e] == "prior"],
    }
    programs = {
        proposal: inspect(
            model,
            guide if proposal == "guide" else None,
            *data,
            plate=plate,
            block_size=block_size,
        )
        for proposal, wanted in proposals.items()
        if wanted
    }
    estimates: dict[str, Estimate] = {}
    bar = tqdm(
        total=sum(len(p) for p in programs.values()),
        unit="datum",
        desc="log p(x)",
        disable=None if progress is None else not progress,
    )
    with bar:
        for proposal, program in programs.items():
            reduce = _Reduction(proposals[proposal], grid)
            for rows in program.blocks(block_size):
                start = perf_counter()
                weights = draw(program, rows, num_particles, seed, chunk_size)
                reduce.add(weights, perf_counter() - start)
                bar.update(len(rows))
            estimates |= reduce.estimates()
    program = next(iter(programs.values()))
    record = {**_record(program, num_particles, seed, block_size), **(protocol or {})}
    return Evidence({name: estimates[name] for name in names}, grid, record)


class _Reduction:
    """The named estimators' results, block by block; a block's table is read and forgotten."""

    def __init__(self, names: list[str], grid: tuple[int, ...]) -> None:
        self.grid = grid
        self.parts: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in names}
        self.seconds = dict.fromkeys(names, 0.0)

    def add(self, weights: LogWeights, seconds: float) -> None:
        """Reads a block's table, which took so many seconds to draw."""
        for name, parts in self.parts.items():
            start = perf_counter()
            parts.append(_REDUCE[name](weights, self.grid))
            self.seconds[name] += seconds + perf_counter() - start

    def estimates(self) -> dict[str, Estimate]:
        """Returns the results of all blocks added."""
        columns = {name: zip(*parts, strict=True) for name, parts in self.parts.items()}
        return {
            name: Estimate(name, *[torch.cat(c, dim=-1) for c in cs], seconds=self.seconds[name])
            for name, cs in columns.items()
        }


def _elbo(weights: LogWeights, grid: tuple[int, ...]) -> tuple[Tensor, ...]:
    value, error = weights.elbo(), weights.elbo_std_error()
    none = torch.full_like(value, torch.nan)
    wider = torch.tensor([sqrt(weights.num_particles / k) for k in grid])
    return value, error, none, none, value.expand(len(grid), -1), wider[:, None] * error


def _evidence(weights: LogWeights, grid: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Returns value, standard error, ESS, k-hat, path (estimates from k samples) and its error.

    The error is the spread over disjoint subsets of k; where there is but one, the delta method's.
    """
    path, error = [], []
    for k in grid:
        subsets = weights.subsets(k)
        path.append(subsets.mean(0))
        error.append(
            subsets.std(0) if len(subsets) > 1 else LogWeights(weights.log_w[:k]).std_error()
        )
    value, own = weights.log_evidence(), weights.std_error()
    return value, own, weights.ess(), weights.pareto_k(), torch.stack(path), torch.stack(error)


_REDUCE = {"elbo": _elbo, "importance": _evidence, "prior": _evidence}


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


def _record(program: Program, num_particles: int, seed: int, block_size: int) -> dict[str, Any]:
    """Returns what the numbers depend on, as far as the program knows it."""
    digest = hashlib.sha256()
    for name, p in sorted(program.parameters.items()):
        digest.update(name.encode() + p.detach().cpu().contiguous().numpy().tobytes())
    return {
        "rows": len(program),
        "dims": program.event_size,
        "discrete": program.is_discrete,
        "num_particles": num_particles,
        "seed": seed,
        "block_size": block_size,
        "dtype": str(program.data[0].dtype),
        "device": str(program.data[0].device),
        "model_sha256": digest.hexdigest(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("pyrovae", "torch", "pyro-ppl")},
    }
