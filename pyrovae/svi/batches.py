"""Where batches come from: tensors, rows on disk, or a DataLoader."""

__all__ = ["Batches", "Data", "batches", "with_constants", "without_constants"]

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyrovae.data.rows import Rows, as_tensors
from pyrovae.program import bound, check_data, check_observed, is_table
from pyrovae.rng import seeded, stream_seed
from pyrovae.svi.distributed import Processes

CHECKED = 1024  # rows looked at, or validated, at a time
Batch = tuple[Tensor, ...]
Numbered = Iterator[tuple[Tensor, Batch]]  # with the numbers of their rows
Data = Tensor | Rows | Sequence[Tensor | Rows] | DataLoader[object]


def batches(
    data: Data,
    size: int,
    transform: Callable[..., object] | None,
    device: str | torch.device | None,
) -> "Batches":
    """Returns the batches of data: `size` rows, or what a DataLoader gives at a time.

    Args:
        data: Tensors, `(N, ...)` each, or a DataLoader of batches of such.
        size: Rows of a batch of tensors.
        transform: Applied to each batch; `None` leaves it.
        device: Where batches go; `None` leaves them.
    """
    if isinstance(data, DataLoader):
        return _Loaded(data, transform, device)
    return _Indexed(arguments(data), int(size), transform, device)


def arguments(data: object) -> tuple[Any, ...]:
    """Returns data as what a program is called with."""
    return tuple(data) if isinstance(data, tuple | list) else (data,)


def with_constants(fn: Callable[..., object], data: object) -> Callable[..., object]:
    """Returns a program of the tables among the data; what is none (`None`, a flag) stays.

    Args:
        fn: A model or guide.
        data: What it is called with.
    """
    if not isinstance(data, tuple | list) or all(map(is_table, data)):
        return fn
    return bound(fn, data, tuple((i, 0) for i, d in enumerate(data) if is_table(d))) or fn


def without_constants(data: Any) -> Any:
    """Returns the data without what is no table."""
    return tuple(filter(is_table, data)) if isinstance(data, tuple | list) else data


class Batches(ABC):
    """Data in batches; `check` first.

    Attributes:
        num_data: Number of rows.
        num_steps: Number of batches of an epoch.
    """

    num_data = num_steps = 0

    def __init__(
        self, transform: Callable[..., object] | None, device: str | torch.device | None
    ) -> None:
        self._transform, self._device = transform, device

    @property
    @abstractmethod
    def first(self) -> Batch:
        """A batch as the program gets it."""

    @abstractmethod
    def in_order(self) -> Numbered:
        """Yields all rows once, for other uses than training."""

    @abstractmethod
    def epoch(self, processes: Processes, seed: int | None, number: int) -> Numbered:
        """Yields the rows of each batch of an epoch, and the data of this rank's share of them.

        Args:
            processes: Each of which has a share of a batch.
            seed: Fixes the order of rows among processes.
            number: Of the epoch, from 0.
        """

    def check(self, model: Callable[..., object]) -> "Batches":
        """Returns itself; raises where an observed value is outside its site's support."""
        with seeded(0):
            for rows, batch in self.in_order():
                check_observed(model, *batch, start=int(rows[0]))
        return self

    def _prepared(self, batch: Batch) -> Batch:
        batch = tuple(d.to(self._device) for d in batch)
        return batch if self._transform is None else as_tensors(self._transform(*batch))


class _Indexed(Batches):
    """Batches of data that can be indexed by rows; shuffled unless one batch takes all."""

    def __init__(self, data: tuple[Any, ...], size: int, *options: Any) -> None:
        super().__init__(*options)
        check_data(data)
        self._data, self._size, self.num_data = data, size, len(data[0])
        self.num_steps = -(-self.num_data // size)

    @property
    def first(self) -> Batch:
        return self._at(torch.arange(min(self._size, self.num_data)))

    def in_order(self) -> Numbered:
        rows = torch.arange(self.num_data).split(max(CHECKED, self._size))
        return ((r, self._at(r)) for r in rows)

    def epoch(self, processes: Processes, seed: int | None, number: int) -> Numbered:
        if processes.size > 1:
            order = processes.order(self.num_data, seed or 0, number)
        # a guide with parameters of its own for each datum (AutoNormal) knows them by their place
        elif self._size < self.num_data:
            order = torch.randperm(self.num_data)
        else:
            order = torch.arange(self.num_data)
        return ((rows, self._at(processes.share(rows))) for rows in order.split(self._size))

    def _at(self, rows: Tensor) -> Batch:
        return self._prepared(tuple(d[rows.to(d.device)] for d in self._data))


class _Loaded(Batches):
    """Batches of a DataLoader, as they come; rows are numbered in that order."""

    def __init__(self, loader: DataLoader[object], *options: Any) -> None:
        super().__init__(*options)
        self._loader, self._first = loader, Batch()

    @property
    def first(self) -> Batch:
        return self._first

    def check(self, model: Callable[..., object]) -> Batches:
        super().check(model)
        if not self.num_data:
            raise ValueError("the DataLoader gives no rows; give at least one")
        return self

    def in_order(self) -> Numbered:
        self.num_data = self.num_steps = 0
        for batch in map(as_tensors, self._loader):
            check_data(batch, self.num_data)
            rows = torch.arange(self.num_data, self.num_data + len(batch[0]))
            self.num_data, self.num_steps = self.num_data + len(rows), self.num_steps + 1
            prepared = self._prepared(batch)
            self._first = self._first or prepared
            yield rows, prepared

    def epoch(self, processes: Processes, seed: int | None, number: int) -> Numbered:
        if processes.size > 1:  # it decides on its order when it gives the first batch
            torch.manual_seed(stream_seed(seed or 0, number))
        start = 0
        for i, batch in enumerate(map(as_tensors, self._loader)):
            if processes.size > 1 and i == 0:
                torch.manual_seed(stream_seed(seed or 0, number, processes.rank))
            rows = torch.arange(start, start + len(batch[0]))
            start += len(rows)
            yield rows, self._prepared(tuple(d[processes.share(rows) - rows[0]] for d in batch))
