"""Rows of data on disk, read when they are asked for, for data that memory does not hold."""

__all__ = ["File", "Rows", "as_tensors", "chosen", "fits_memory", "in_chunks", "spooled"]

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from tempfile import TemporaryFile
from typing import IO, Self

import numpy as np
import torch
from torch import Tensor

SHARE = 0.25  # of the machine's memory that a data set may take
CHUNK = 2**22  # numbers read at a time
BATCH_ERROR = "give batches that are a tensor, or a tuple of tensors with equal rows"


class File:
    """A file to read from, closed when nobody does any more; a temporary one is then gone.

    Many `Rows` may share one: every read says where it begins, so none moves another's place.

    Args:
        file: Open; it may be closed from now on.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._number = os.dup(file.fileno())

    def __del__(self) -> None:
        os.close(self._number)

    def read(self, part: memoryview, start: int) -> None:
        """Fills a part of memory with the bytes from `start` on.

        Args:
            part: To be filled.
            start: Number of the first byte.

        Raises:
            OSError: If the file ends before.
        """
        while len(part):
            count = os.preadv(self._number, [part], start)
            if not count:
                raise OSError("the file of the data is shorter than it was; start anew")
            part, start = part[count:], start + count


@dataclass(frozen=True, eq=False)
class Rows:
    """Data `(N, ...)` that stay in a file: indexed by rows, as a tensor is, they give a tensor.

    They are read rather than mapped: of random rows, a mapping takes as much memory as the file
    has, if only for as long as others need none. Row i of the file begins at byte

        offset + i * itemsize * prod(shape[1:])

    and a slice without steps is read at once, where no `index` chooses rows; others row by row.

    Attributes:
        file: The file.
        stored: NumPy's type of its numbers.
        shape: Of the rows that `take` left, `(N, ...)`.
        offset: Bytes before the first number.
        dtype: Of the tensors.
        divisor: What numbers are divided by as they are read.
        device: Where the tensors go.
        index: Which rows of the file these are, `(N,)`; `None`: all.
    """

    file: File
    stored: np.dtype[np.generic]
    shape: tuple[int, ...]
    offset: int = 0
    dtype: torch.dtype = torch.float32
    divisor: float = 1.0
    device: torch.device = torch.device("cpu")
    index: Tensor | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Tensor:
        if self.index is None and isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(len(self))
            places, count = [start], max(0, stop - start)
        else:
            index = torch.arange(len(self)) if self.index is None else self.index
            at = rows if isinstance(rows, slice) else torch.as_tensor(rows).cpu()
            places, count = index[at].tolist(), 1
        width = prod(self.shape[1:]) * self.stored.itemsize
        read = np.empty(len(places) * count * width, np.uint8)
        for part, row in zip(read.reshape(len(places), -1), places, strict=True):
            self.file.read(part.data, self.offset + row * width)
        table = read.view(self.stored).reshape(-1, *self.shape[1:])
        native = torch.empty(0, dtype=self.dtype).numpy().dtype
        x = torch.from_numpy(table.astype(native, copy=False)).to(self.device)
        return x if self.divisor == 1 else x / self.divisor

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def is_floating_point(self) -> bool:
        """Returns whether the tensors are."""
        return self.dtype.is_floating_point

    def to(self, device: str | torch.device) -> Self:
        """Returns the same rows, read onto another device.

        Args:
            device: Where tensors go from now on; nothing is read yet.
        """
        return replace(self, device=torch.device(device))

    def take(self, index: Tensor) -> Self:
        """Returns some of the rows, in any order, without reading them.

        Args:
            index: Numbers of rows, `(M,)` int64, of these rows rather than the file's.
        """
        index = index if self.index is None else self.index[index]
        return replace(self, index=index, shape=(len(index), *self.shape[1:]))

    def mean(self, dim: int) -> Tensor:
        """Returns the mean over rows of what is not NaN, `shape[1:]`; 0 where all is.

        It is added up in float64, a few rows at a time.

        Args:
            dim: 0; there is no other mean of them.
        """
        assert dim == 0
        total = count = torch.zeros(self.shape[1:], dtype=torch.float64)
        for _, chunk in in_chunks(self):
            total = total + chunk.double().nansum(0).cpu()
            count = count + (~chunk.isnan()).sum(0).cpu()
        return (total / count.clamp(min=1)).to(self.dtype)


def fits_memory(num_bytes: float) -> bool:
    """Returns whether data of that size may be held in memory: a quarter of the machine's.

    Where the system does not tell how much it has, all may.

    Args:
        num_bytes: What they would take.
    """
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return True
    return num_bytes <= SHARE * memory


def in_chunks(x: Tensor | Rows) -> Iterator[tuple[int, Tensor]]:
    """Yields x `(N, ...)` a few rows at a time, with the number of the first.

    A chunk has about four million numbers, at least a row.

    Args:
        x: Data, in memory or on disk.
    """
    size = max(1, CHUNK // max(1, prod(x.shape[1:])))
    for start in range(0, len(x), size):
        yield start, x[start : start + size]


def spooled(batches: Iterable[Tensor | Sequence[Tensor]]) -> tuple[Rows, ...]:
    """Writes batches to temporary files, and returns their rows, a `Rows` for each tensor.

    The files have no names, or lose them at once, and are gone with the last of their rows.

    Args:
        batches: Tensors `(n, ...)`, or tuples of them with equal n, which may change from batch to
            batch.

    Returns:
        For each tensor of a batch `(N, ...)` on disk, of its type, N the sum of all n.

    Raises:
        TypeError: If a batch is neither a tensor nor a tuple or list of tensors.
        ValueError: If there is no batch, or tensors change their shapes or types.
    """
    like: list[Tensor] = []
    count = 0
    with ExitStack() as stack:
        files: list[IO[bytes]] = []
        for batch in map(as_tensors, batches):
            if not files:
                files = [stack.enter_context(TemporaryFile(prefix="pyrovae-")) for _ in batch]
                like = [d[:0].cpu() for d in batch]
            if _kinds(batch) != _kinds(like) or len({len(d) for d in batch}) > 1:
                shapes = ", ".join(f"{d.dtype} {tuple(d.shape)}" for d in batch)
                raise ValueError(f"a batch after {count} rows is {shapes}, unlike the first")
            for file, d in zip(files, batch, strict=True):
                file.write(d.detach().cpu().contiguous().numpy().data)
            count += len(batch[0])
        if not count:
            raise ValueError("the DataLoader gives no rows; give at least one")
        for file in files:
            file.flush()
        return tuple(
            Rows(File(f), d.numpy().dtype, (count, *d.shape[1:]), dtype=d.dtype)
            for f, d in zip(files, like, strict=True)
        )


def _kinds(tensors: Iterable[Tensor]) -> list[tuple[torch.dtype, torch.Size]]:
    """Returns type and shape of a row of each tensor `(n, ...)`, the same in all batches."""
    return [(d.dtype, d.shape[1:]) for d in tensors]


def as_tensors(batch: object) -> tuple[Tensor, ...]:
    """Returns a DataLoader's batch as a tuple.

    Args:
        batch: A tensor `(n, ...)`, or a tuple or list of them.

    Raises:
        TypeError: If it is made of anything else, or of tensors without dimensions.
    """
    parts = (batch,) if isinstance(batch, Tensor) else batch
    if not (isinstance(parts, tuple | list) and parts):
        raise TypeError(f"the DataLoader gives {type(batch).__name__}; {BATCH_ERROR}")
    if other := [type(d).__name__ for d in parts if not (isinstance(d, Tensor) and d.ndim)]:
        raise TypeError(f"the DataLoader's batches hold {other[0]}; {BATCH_ERROR}")
    return tuple(parts)


def chosen(x: Tensor | Rows, rows: str | None) -> Tensor | Rows:
    """Returns the rows of x that `--rows` asks for: "100", so many evenly spaced, or a slice.

    Of N rows the m evenly spaced ones are floor(i N / m), i = 0, ..., m - 1.

    Args:
        x: Data, `(N, ...)`.
        rows: "100", "start:stop" or "start:stop:step"; `None` takes all.

    Raises:
        ValueError: If it is none of these, leaves no row, or asks for more than there are.

    Example:
        >>> chosen(torch.arange(10), "3"), chosen(torch.arange(10), "1:8:3")
        (tensor([0, 3, 6]), tensor([1, 4, 7]))
    """
    if rows is None:
        return x
    try:
        if ":" in rows:
            part = range(len(x))[slice(*(int(n) if n else None for n in rows.split(":")))]
            index = torch.tensor(list(part), dtype=torch.long)
        else:
            count = max(0, int(rows))
            index = torch.arange(count) * len(x) // max(1, count)
    except (ValueError, TypeError) as e:  # of int and of slice
        raise ValueError(f"--rows is {rows!r}; give 100, or start:stop[:step]") from e
    if len(index) > len(x):
        raise ValueError(f"--rows is {rows}, but there are {len(x)}; give at most that")
    if not len(index):
        raise ValueError(f"--rows {rows} leaves none of the {len(x)} rows; give others")
    return x[index] if isinstance(x, Tensor) else x.take(index)
