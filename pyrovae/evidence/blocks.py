"""Blocks of data: what is computed of each, and by whom.

A block's numbers are decided by its job, its program and its rows, whoever computes them: here, in
other processes by joblib, or on a cluster. So the bytes are the same for any number of workers,
and a block that is kept need not be computed again.
"""

__all__ = ["Job", "mapped", "settings"]

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
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

from pyrovae.evidence.estimators.base import Estimator
from pyrovae.evidence.estimators.work import Work
from pyrovae.evidence.samplers.streaming import StreamedWeights
from pyrovae.program import Program
from pyrovae.program.batching import Batching

Record = dict[str, Tensor]  # of a block
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

    def __call__(self, program: Program, source: str, rows: range) -> Record:
        """Returns a block's results.

        Args:
            program: Of these rows, or more.
            source: The word for whose weights are computed.
            rows: Of the block, n of them.

        Returns:
            The columns of each reader, `(..., n)`, as "importance.value"; where data share draws,
            estimates by batch of these, `(B, n)`, as "batches"; and the "seconds" it took.
        """
        start = perf_counter()
        work = self.works[source]
        weights = self.sources[source].weights(program, rows, work)
        record = {
            f"{name}.{field}": column
            for name, estimator in self.readers[source].items()
            for field, column in (
                *estimator.columns(weights, work.grid)._asdict().items(),
                *((f"extra.{k}", column) for k, column in estimator.extras(weights).items()),
            )
        }
        shared = program.particles.shared or bool(program.sites.common_latents)
        if isinstance(weights, StreamedWeights) and shared:
            record["batches"] = weights.batches()
        return record | {"seconds": torch.tensor(perf_counter() - start, dtype=torch.float64)}


def mapped(
    job: Job, programs: dict[str, Program], todo: Sequence[tuple[str, range]], workers: int | None
) -> Iterator[Record]:
    """Yields the results of blocks in order.

    joblib maps them: over processes, or over whatever `joblib.parallel_config` names. Asked for a
    number of workers, each computes with one thread, so that their number changes no bit.

    Args:
        job: What is computed of each.
        programs: Of all data, by source.
        todo: Source and rows of each block.
        workers: Processes; `None` computes here, or wherever joblib is configured to.

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
    parallel = partial(Parallel, n_jobs=workers, return_as="generator")
    if isinstance(backend, BACKENDS["loky"]):
        parallel = partial(parallel, initializer=_end_with, initargs=(os.getpid(),))
    records: Any = parallel()(
        delayed(_in_worker)(packed[source], part.batching, job, source, rows, _process())
        for part, source, rows in parts
    )
    yield from records


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent, which was killed and could not end it.

    A thread looks every second whether the parent is still there; a process whose parent has ended
    is given another.

    Args:
        parent: Number of its process.
    """

    def watch() -> None:
        while os.getppid() == parent:
            sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _process() -> tuple[str, int]:
    """Returns what tells this process from all others: a random word, and its number.

    A number alone may be that of a process on another machine, and a fork shares the word.
    """
    return HERE, os.getpid()


def _in_worker(
    packed: bytes,
    batching: Batching,
    job: Job,
    source: str,
    rows: range,
    parent: tuple[str, int],
) -> Record:
    """Returns a block's results, in a worker.

    Args:
        packed: Of `_packed`: the program without its data, parameters, default dtype.
        batching: The data of the block.
        job: What is computed.
        source: Whose weights.
        rows: Of the block.
        parent: What `_process` says where the blocks were sent off.

    Raises:
        ValueError: If this is the same process, in a thread.
    """
    if parent == _process():  # of a Dask cluster with processes=False
        raise ValueError(THREADS.format("the workers are threads of this very process"))
    program, store, dtype = _unpacked(packed)
    pyro.get_param_store().set_state(store)  # another evaluation's may have been there since
    with settings(1, dtype):
        return job(replace(program, batching=batching), source, rows)


@lru_cache(maxsize=4)
def _unpacked(packed: bytes) -> tuple[Program, Any, torch.dtype]:
    """Returns what `_packed` sent, the same in every call: what is compiled stays compiled.

    Args:
        packed: Bytes, by which up to four are kept.

    Returns:
        The program without its data, the state of Pyro's store, and torch's default dtype.
    """
    return loads(packed)


def _packed(program: Program) -> bytes:
    """Returns a program without its data, and what `pyro.param` holds for it, to be sent.

    Args:
        program: To be computed with elsewhere.

    Raises:
        ValueError: If something in it cannot be pickled, such as an open file; it is named.
    """
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

    def reducer_override(self, obj: object) -> Any:
        """Returns how a parameter is made again; of all else what cloudpickle does."""
        if isinstance(obj, torch.nn.Parameter):
            return torch.nn.Parameter, (obj.detach(), obj.requires_grad)
        return super().reducer_override(obj)


def _dumps(value: object) -> bytes:
    """Returns a value as bytes."""
    with BytesIO() as file:
        _Pickler(file).dump(value)
        return file.getvalue()


def _culprit(program: Program) -> str:
    """Returns the name of what in model or guide cannot be pickled, else "the program".

    Looked at are attributes of the object that holds it, and globals and closure of a function.

    Args:
        program: That could not be sent.
    """
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
    """Runs its body with so many threads and a default dtype.

    Args:
        threads: Of torch; `None`: as many as before.
        dtype: Of new tensors.
    """
    before = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(threads or before[0])
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])
