"""Blocks of data: what is computed of each, and by whom."""

__all__ = ["Job", "mapped", "settings"]

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from inspect import getclosurevars, isfunction
from io import BytesIO
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

from pyrovae.evidence.estimators.base import FIELDS, Estimator, Work
from pyrovae.program import Program

HERE = uuid4().hex  # another in every process that imports this; a fork has another number
THREADS = (
    "{}, and those share torch's random numbers; take one of processes: loky, dask, ray or spark"
)


@dataclass(frozen=True)
class Job:
    """What is computed of a block: nothing else decides it but the program and the rows.

    Attributes:
        sources: Whose weights are computed, by a word for them.
        readers: What is read of each, by the same words: estimators by name.
        works: What each is computed with.
    """

    sources: dict[str, Estimator]
    readers: dict[str, dict[str, Estimator]]
    works: dict[str, Work]

    def __call__(self, program: Program, source: str, rows: range) -> dict[str, Tensor]:
        """Returns a block's results under flat names, with the seconds that they took."""
        start = perf_counter()
        work = self.works[source]
        weights = self.sources[source].weights(program, rows, work)
        record = {
            f"{name}.{field}": column
            for name, estimator in self.readers[source].items()
            for field, column in zip(FIELDS, estimator.columns(weights, work.grid), strict=True)
        }
        if (batches := self.sources[source].batches(program, weights)) is not None:
            record["batches"] = batches
        return record | {"seconds": torch.tensor(perf_counter() - start, dtype=torch.float64)}


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
                record = job(programs[source].holding(rows), source, rows)
            yield record
        return
    backend, _ = get_active_backend()
    if getattr(backend, "supports_sharedmem", False):  # as joblib asks it
        raise ValueError(THREADS.format(f"joblib's backend {type(backend).__name__} runs threads"))
    packed = {source: _packed(program) for source, program in programs.items()}
    parts = ((programs[source].holding(rows), source, rows) for source, rows in todo)
    watched: Any = {}
    if isinstance(backend, BACKENDS["loky"]):
        watched = {"initializer": _end_with, "initargs": (os.getpid(),)}
    results: Any = Parallel(n_jobs=workers, return_as="generator", **watched)(
        delayed(_in_worker)(packed[source], part.batching, job, source, rows, _process())
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
    program, store, dtype = _unpacked(packed)
    pyro.get_param_store().set_state(store)  # another evaluation's may have been there since
    with settings(1, dtype):
        return job(replace(program, batching=part), source, rows)


@lru_cache(maxsize=4)
def _unpacked(packed: bytes) -> tuple[Program, Any, torch.dtype]:
    """Returns what `_packed` sent, the same in every call: what is compiled stays compiled."""
    return loads(packed)


def _packed(program: Program) -> bytes:
    """Returns a program without its data, and what `pyro.param` holds for it, to be sent."""
    bare = program.without_data()
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
