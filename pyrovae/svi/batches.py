"""Where batches come from: tensors, rows on disk, or a DataLoader.

Of each, batches are tuples of tensors `(n, ...)`, one for each argument of the program, and go
with the numbers of their rows, `(n,)`, which an error names.
"""

__all__ = ["Batches", "Data", "batches", "with_constants", "without_constants"]

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyrovae.data.rows import Rows, as_tensors
from pyrovae.data.splits import check_seen
from pyrovae.program import bound, check_data, check_observed, is_table
from pyrovae.rng import seeded, stream_seed
from pyrovae.svi.distributed import Processes

CHECKED = 1024  # rows looked at, or validated, at a time
Batch = tuple[Tensor, ...]
Numbered = Iterator[tuple[Tensor, Batch]]  # with the numbers of their rows
Transform = Callable[..., object] | None
Device = str | torch.device | None
Data = Tensor | Rows | Sequence[Tensor | Rows] | DataLoader[object]


def batches(
    data: Data, size: int, transform: Transform, device: Device, missing: Sequence[int] = ()
) -> "Batches":
    """Returns the batches of data: `size` rows, or what a DataLoader gives at a time.

    Args:
        data: Tensors, `(N, ...)` each, or a DataLoader of batches of such.
        size: Rows of a batch of tensors.
        transform: Applied to each batch; `None` leaves it.
        device: Where batches go; `None` leaves them.
        missing: Numbers of the tensors in which NaN says that something is missing.
    """
    if isinstance(data, DataLoader):
        return _Loaded(data, transform, device, missing)
    check_data(arguments(data), missing=missing)
    return _Indexed(arguments(data), int(size), transform, device)


def arguments(data: object) -> tuple[object, ...]:
    """Returns data as what a program is called with: several as they are, one as a tuple of it."""
    return tuple(data) if isinstance(data, tuple | list) else (data,)


def with_constants(fn: Callable[..., object], data: object) -> Callable[..., object]:
    """Returns a program of the tables among the data; what is none (`None`, a flag) stays.

    Args:
        fn: A model or guide.
        data: What it is called with, tables `(N, ...)` among it.
    """
    if not isinstance(data, tuple | list) or all(map(is_table, data)):
        return fn
    return bound(fn, data, tuple((i, 0) for i, d in enumerate(data) if is_table(d))) or fn


def without_constants(data: Data) -> Data:
    """Returns the data without what is no table: what `with_constants` has in the program."""
    return tuple(filter(is_table, data)) if isinstance(data, tuple | list) else data


class Batches(ABC):
    """Data in batches; `check` first.

    Args:
        transform: Applied to each batch, `transform(*batch)`; `None` leaves it.
        device: Where batches go; `None` leaves them.

    Attributes:
        num_data: Number of rows, N.
        num_steps: Number of batches of an epoch, the short last one included.
    """

    num_data = num_steps = 0

    def __init__(self, transform: Transform, device: Device) -> None:
        self._transform, self._device = transform, device

    @property
    @abstractmethod
    def first(self) -> Batch:
        """A batch as the program gets it, `(n, ...)` each; the same one every time."""

    @abstractmethod
    def in_order(self) -> Numbered:
        """Yields all rows once, in order, by so many as suit a look at them: numbers and data."""

    @abstractmethod
    def epoch(self, processes: Processes, seed: int | None, number: int) -> Numbered:
        """Yields the rows of each batch of an epoch, and the data of this rank's share of them.

        Alone, the order is drawn from torch's stream; among several, from one that all have.

        Args:
            processes: Each of which has a share of a batch.
            seed: Fixes the order of rows among processes.
            number: Of the epoch, from 0.
        """

    def check(self, model: Callable[..., object], learned: Sequence[int] = ()) -> "Batches":
        """Returns itself, once all rows were run through the model.

        Args:
            model: A Pyro callable of the data.
            learned: Numbers of the tensors of which something is to be known in each column,
                where they have columns: labels may all be missing.

        Raises:
            DataError: If an observed value is outside its site's support, or not finite, or a
                column is missing in all rows, where others are not.
        """
        seen: dict[str, Tensor] = {}
        with seeded(0):
            for rows, batch in self.in_order():
                check_observed(model, *batch, start=int(rows[0]))
                for i in (i for i in learned if batch[i].ndim > 1):
                    name = f"data[{i}]" if len(batch) > 1 else "x"
                    there = ~batch[i].isnan().all(0)
                    seen[name] = seen[name] | there if name in seen else there
        for name, there in seen.items():
            if there.any():  # of nothing at all log P is 0, and nothing is learned
                check_seen(there, name)
        return self

    def _prepared(self, batch: Batch) -> Batch:
        """Returns a batch as the program gets it: on the device, transformed."""
        batch = tuple(d.to(self._device) for d in batch)
        return batch if self._transform is None else as_tensors(self._transform(*batch))


class _Indexed(Batches):
    """Batches of data that can be indexed by rows; shuffled unless one batch takes all.

    Args:
        data: Tables, `(N, ...)` each, checked.
        size: Rows of a batch.
        transform: As of `Batches`.
        device: Likewise.
    """

    def __init__(
        self, data: tuple[object, ...], size: int, transform: Transform, device: Device
    ) -> None:
        super().__init__(transform, device)
        self._data = cast(tuple[Tensor | Rows, ...], data)
        self._size, self.num_data = size, len(self._data[0])
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
        """Returns the rows of these numbers `(n,)`, prepared, `(n, ...)` each."""
        return self._prepared(tuple(d[rows.to(d.device)] for d in self._data))


class _Loaded(Batches):
    """Batches of a DataLoader, as they come; rows are numbered in that order.

    Args:
        loader: Gives tensors, or tuples of them.
        transform: As of `Batches`.
        device: Likewise.
        missing: Numbers of the tensors in which NaN says that something is missing.
    """

    def __init__(
        self,
        loader: DataLoader[object],
        transform: Transform,
        device: Device,
        missing: Sequence[int],
    ) -> None:
        super().__init__(transform, device)
        self._loader, self._first, self._missing = loader, Batch(), missing

    @property
    def first(self) -> Batch:
        return self._first

    def check(self, model: Callable[..., object], learned: Sequence[int] = ()) -> Batches:
        super().check(model, learned)
        if not self.num_data:
            raise ValueError("the DataLoader gives no rows; give at least one")
        return self

    def in_order(self) -> Numbered:
        self.num_data = self.num_steps = 0
        for batch in map(as_tensors, self._loader):
            check_data(batch, self.num_data, self._missing)
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
