"""Ways in which a block of rows reaches a program: as a slice, told to its plate, or all rows."""

__all__ = ["AllRows", "Batching", "Data", "Slices", "Subsamples"]

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, Self, cast

import torch
from torch import Tensor

from pyrovae.data.rows import Rows
from pyrovae.program.handlers import Subsample

Data = tuple[Tensor | Rows, ...]


@dataclass(frozen=True)
class Batching:
    """The data of a program, and how a block of their rows is given to it.

    Attributes:
        data: Its arguments: tensors of equal length N, `(N, ...)`, or `Rows` on disk.
        block_size: Rows of a full block: those of the first run, or of a plate's subsample.
        selects: Whether the program takes any rows, in any number and order.
        captures: Whether a block's data reach it as arguments alone, as a graph needs them.
    """

    data: Data
    block_size: int
    selects: ClassVar[bool] = False
    captures: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.data[0])

    @property
    def num_data(self) -> int:
        """Number of all rows, N, also where only some of them are held."""
        return len(self)

    @property
    def held_rows(self) -> range:
        """Numbers of the rows that are held."""
        return range(len(self))

    def blocks(self, size: int) -> list[range]:
        """Returns the rows in blocks of `size`, or of what the program dictates."""
        size = self.rows_of_block(size)
        return [range(i, min(i + size, len(self))) for i in range(0, len(self), size)]

    def on(self, data: tuple[Tensor, ...]) -> Self:
        """Returns the same for other data of the same shapes."""
        return replace(self, data=data)

    def rows_of_block(self, size: int) -> int:
        """Returns how many rows a block has where `size` are wished for."""
        raise NotImplementedError

    def rows_of_run(self, rows: range) -> int:
        """Returns how many rows a run on a block sees: more than its n where it is filled up."""
        return len(rows)

    def arguments(self, rows: range) -> tuple[Tensor, ...]:
        """Returns what the program is called with for the rows of a block, `(n, ...)` each."""
        return cast(tuple[Tensor, ...], self.data)

    def handler(self, rows: range) -> AbstractContextManager[object]:
        """Returns the context in which it is told of a block's rows, where that takes one."""
        return nullcontext()

    def select(self, rows: Sequence[int]) -> "Batching":
        """Returns these rows alone, in any order, numbered anew; of `Slices` alone."""
        raise TypeError(f"{type(self).__name__} takes its rows together; ask `selects` first")

    def holding(self, rows: range) -> "Batching":
        """Returns no more data than a block needs; its rows keep their numbers."""
        return self

    def padded(self, rows: range) -> "Batching":
        """Returns a block's rows alone, filled up to `block_size` with the last one."""
        return self

    def parted(self, size: int) -> "Batching":
        """Returns the same, of which at most so many rows run together, where it takes parts."""
        return self

    def repeated(self, rows: range, times: int) -> "AllRows":
        """Returns copies of a block's n rows, one after another: `(times n, ...)`.

        Args:
            rows: The n rows, by number.
            times: Number of copies.
        """
        data = self.arguments(rows)
        copies = tuple(d.repeat(times, *[1] * (d.ndim - 1)) for d in data)
        return AllRows(copies, times * len(rows))


@dataclass(frozen=True)
class AllRows(Batching):
    """A program of fixed size: all rows are one block."""

    def rows_of_block(self, size: int) -> int:
        """Returns N."""
        return len(self)


@dataclass(frozen=True)
class Subsamples(Batching):
    """A program whose data plate draws rows of all data: the draw is replaced by a block's rows.

    Attributes:
        plate: Name of the data plate.
    """

    plate: str
    captures: ClassVar[bool] = False

    def rows_of_block(self, size: int) -> int:
        """Returns the size of the plate's subsample."""
        return self.block_size

    def rows_of_run(self, rows: range) -> int:
        """Returns the size of the plate's subsample, which the last block is filled up to."""
        return self.block_size

    def handler(self, rows: range) -> AbstractContextManager[object]:
        """Returns the handler that answers the plate's draw."""
        index = torch.arange(rows.start, rows.start + self.block_size, device=self.data[0].device)
        return Subsample(self.plate, index.clamp(max=len(self) - 1))


@dataclass(frozen=True)
class Slices(Batching):
    """A program of any number of rows, which is called with a slice of the data.

    Attributes:
        first: Number of the first row that is held.
        total: Number of all rows, where not all are held; else 0.
        part: Rows that run together, to which `padded` fills up; 0 for a full block.
    """

    first: int = 0
    total: int = 0
    part: int = 0
    selects: ClassVar[bool] = True

    @property
    def num_data(self) -> int:
        """Number of all rows, N, also where only some of them are held."""
        return self.total or len(self)

    @property
    def held_rows(self) -> range:
        """Numbers of the rows that are held."""
        return range(self.first, self.first + len(self))

    def rows_of_block(self, size: int) -> int:
        """Returns `size`."""
        return size

    def arguments(self, rows: range) -> tuple[Tensor, ...]:
        """Returns the slice, `(n, ...)` each."""
        start, stop = rows.start - self.first, rows.stop - self.first
        return tuple(d[start : stop : rows.step] for d in self.data)

    def select(self, rows: Sequence[int]) -> "Slices":
        """Returns these rows alone, in any order, numbered anew from 0."""
        index = [row - self.first for row in rows]
        return replace(self, data=tuple(d[index] for d in self.data), first=0)

    def holding(self, rows: range) -> "Slices":
        """Returns no more data than a block needs; its rows keep their numbers."""
        data = tuple(d[rows.start : rows.stop].clone() for d in self.data)
        return replace(self, data=data, first=rows.start, total=len(self))

    def padded(self, rows: range) -> AllRows:
        """Returns a block's rows alone, or a part's, filled up with the last one."""
        size = self.part or self.block_size
        index = torch.arange(rows.start, rows.start + size * rows.step, rows.step)
        index = index.clamp(max=rows[-1]).to(self.data[0].device) - self.first
        return AllRows(tuple(d[index] for d in self.data), size)

    def parted(self, size: int) -> "Slices":
        """Returns the same, of which at most so many rows run together."""
        return replace(self, part=min(size, self.block_size))
