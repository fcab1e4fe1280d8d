"""Blocks of data: what is computed of each, and by whom."""

__all__ = ["FIELDS", "SOURCES", "Job", "mapped", "settings"]

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from inspect import getclosurevars, isfunction
from io import BytesIO
from math import sqrt
from threading import Thread
from time import perf_counter, sleep
from typing import Any
from uuid import uuid4

import pyro
import torch
from cloudpickle import Pickler, loads
from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import BACKENDS, get_active_backend
from torch import Tensor

from pyrovae.evidence.annealing import Kernel, anneal
from pyrovae.evidence.drawing import Draws, draw, tally
from pyrovae.evidence.quadrature import MAX_POINTS, TOLERANCE, integrate
from pyrovae.evidence.tally import Tally
from pyrovae.evidence.weights import FEWEST, LogWeights
from pyrovae.program import Program

SOURCES = {
    "elbo": "guide",
    "importance": "guide",
    "jackknife": "guide",
    "prior": "prior",
    "ais": "ais",
    "quadrature": "quadrature",
}
HERE = uuid4().hex  # another in every process that imports this; a fork has another number
THREADS = (
    "{}, and those share torch's random numbers; take one of processes: loky, dask, ray or spark"
)
Columns = tuple[Tensor, ...]  # in the order of FIELDS
FIELDS = "value", "std_error", "ess", "pareto_k", "num_draws", "path", "path_std_error"


@dataclass(frozen=True)
class Job:
    """What is computed of a block: nothing else decides it but the program and the rows.

    Attributes:
        names: Estimators asked for.
        draws: How guide and prior are drawn from, by source.
        grid: Numbers of draws of the path.
        seed: Fixes the draws.
        start: When the evaluation began, by the clock.
        chunks: Particles x data decoded at once, by source.
        num_chains: Annealing runs per datum.
        kernel: Their frozen course; `None` without.
    """

    names: tuple[str, ...]
    draws: dict[str, Draws]
    grid: tuple[int, ...]
    seed: int
    start: float
    chunks: dict[str, int]
    num_chains: int
    kernel: Kernel | None

    def __call__(self, program: Program, source: str, rows: range) -> dict[str, Tensor]:
        """Returns a block's results under flat names, with the seconds that they took."""
        start = perf_counter()
        results, batches = self._results(program, source, rows)
        record = {
            f"{name}.{field}": column
            for name, columns in results.items()
            for field, column in zip(FIELDS, columns, strict=True)
        }
        if batches is not None:
            record["batches"] = batches
        return record | {"seconds": torch.tensor(perf_counter() - start, dtype=torch.float64)}

    def _results(
        self, program: Program, source: str, rows: range
    ) -> tuple[dict[str, Columns], Tensor | None]:
        """Returns each estimator's columns, and of draws that data share, their batches."""
        if source == "ais":
            assert self.kernel is not None
            runs = anneal(program, rows, self.num_chains, self.seed, self.kernel)
            return {"ais": _annealed(_columns(runs[0]), runs[1], self.grid)}, None
        if source == "quadrature":
            return {"quadrature": _exact(program, rows, self.grid)}, None
        how, chunk = self.draws[source], self.chunks[source]
        if how.num_particles == "auto":
            weights = draw(program, rows, how, self.seed, chunk, self.start)
            if not program.plate:
                weights = LogWeights(_columns(weights.log_w), weights.num_draws[None])
        else:
            weights = tally(program, rows, how, self.seed, chunk, self.grid)
        names = [n for n in self.names if SOURCES[n] == source]
        batches = None
        if isinstance(weights, Tally) and (program.shared or program.common_latents):
            batches = weights.batches()
        return {n: _REDUCE[n](weights, self.grid) for n in names}, batches


def _columns(log_w: Tensor) -> Tensor:
    """Returns a table `(S, n)`; joint weights `(S,)` are those of one datum."""
    return log_w if log_w.ndim > 1 else log_w[:, None]


def mapped(
    job: Job, programs: dict[str, Program], todo: Sequence[tuple[str, range]], workers: int | None
) -> Iterator[dict[str, Tensor]]:
    """Yields the results of blocks, `(source, rows)`, in order.

    joblib maps them: over processes, or over whatever `joblib.parallel_config` names. Asked for a
    number of workers, each computes with one thread, so that their number changes no bit.

    Raises:
        ValueError: If the program cannot be sent to another process, or workers are threads.
    """
    if effective_n_jobs(workers) == 1:  # pyright: ignore[reportArgumentType]
        for source, rows in todo:
            with settings(workers, torch.get_default_dtype()):
                record = job(programs[source].part(rows), source, rows)
            yield record
        return
    backend, _ = get_active_backend()
    if getattr(backend, "supports_sharedmem", False):  # as joblib asks it
        raise ValueError(THREADS.format(f"joblib's backend {type(backend).__name__} runs threads"))
    packed = {source: _packed(program) for source, program in programs.items()}
    parts = ((programs[source].part(rows), source, rows) for source, rows in todo)
    watched: Any = {}
    if isinstance(backend, BACKENDS["loky"]):
        watched = {"initializer": _end_with, "initargs": (os.getpid(),)}
    results: Any = Parallel(n_jobs=workers, return_as="generator", **watched)(
        delayed(_in_worker)(
            packed[source], (part.data, part.first, part.total), job, source, rows, _process()
        )
        for part, source, rows in parts
    )
    yield from results


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent, which was killed and could not end it."""

    def watch() -> None:
        while os.getppid() == parent:
            sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _process() -> tuple[str, int]:
    return HERE, os.getpid()


def _in_worker(
    packed: bytes, part: Any, job: Job, source: str, rows: range, parent: tuple[str, int]
) -> Any:
    if parent == _process():  # of a Dask cluster with processes=False
        raise ValueError(THREADS.format("the workers are threads of this very process"))
    data, first, total = part
    program, store, dtype = _unpacked(packed)
    pyro.get_param_store().set_state(store)  # another evaluation's may have been there since
    with settings(1, dtype):
        return job(replace(program, data=data, first=first, total=total), source, rows)


@lru_cache(maxsize=4)
def _unpacked(packed: bytes) -> tuple[Program, Any, torch.dtype]:
    """Returns what `_packed` sent, the same in every call: what is compiled stays compiled."""
    return loads(packed)


def _packed(program: Program) -> bytes:
    """Returns a program without its data, and what `pyro.param` holds for it, to be sent."""
    graphs = None if program.graphs is None else {}
    bare = replace(program, data=(), graphs=graphs)
    try:
        store = pyro.get_param_store().get_state()
        return _dumps((bare, store, torch.get_default_dtype()))
    except Exception as e:
        raise ValueError(
            f"{_culprit(program)} cannot be sent to a worker ({str(e).partition(chr(10))[0]}); "
            "make it inside model or guide, or go without workers"
        ) from e


class _Pickler(Pickler):
    """Leaves out what Pyro hangs on a parameter when it is registered: a weak reference."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.nn.Parameter):
            return torch.nn.Parameter, (obj.detach(), obj.requires_grad)
        return super().reducer_override(obj)


def _dumps(value: Any) -> bytes:
    with BytesIO() as file:
        _Pickler(file).dump(value)
        return file.getvalue()


def _culprit(program: Program) -> str:
    """Returns the name of what in model or guide cannot be pickled."""
    for who, fn in (("model", program.model), ("guide", program.guide)):
        holder = getattr(fn, "__self__", fn)
        held = dict(getattr(holder, "__dict__", {}))
        if isfunction(fn):
            known = getclosurevars(fn)
            held |= {**known.globals, **known.nonlocals}
        for name, value in held.items():
            try:
                _dumps(value)
            except Exception:
                return f"{name!r} of the {who}, a {type(value).__name__},"
    return "the program"


@contextmanager
def settings(threads: int | None, dtype: torch.dtype) -> Iterator[None]:
    """Runs its body with so many threads (`None`: as many as before) and a default dtype."""
    before = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(threads or before[0])
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])


def _elbo(weights: LogWeights | Tally, grid: tuple[int, ...]) -> Columns:
    value, error = weights.elbo(), weights.elbo_std_error()
    none = torch.full_like(value, torch.nan)
    wider = torch.tensor([sqrt(weights.num_particles / k) for k in grid], dtype=torch.float64)
    path = value.expand(len(grid), -1)
    return value, error, none, none, weights.num_draws, path, wider[:, None] * error


def _evidence(weights: LogWeights | Tally, grid: tuple[int, ...]) -> Columns:
    """Returns the columns of log-mean-exp, its path from few to all samples among them."""
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
    value, error, rounding = integrate(program, rows, TOLERANCE, MAX_POINTS)
    none = torch.full_like(value, torch.nan)
    draws = torch.zeros(len(value)).long()
    return value, error + rounding, none, none, draws, *_no_path(value, grid)


def _no_path(value: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    path = torch.full((len(grid), len(value)), torch.nan, dtype=torch.float64)
    return path, path


_REDUCE = {
    "elbo": _elbo,
    "importance": _evidence,
    "jackknife": _jackknife,
    "prior": _evidence,
}
