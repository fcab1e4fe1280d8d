"""A data set in three parts, and whether its numbers are finite."""

__all__ = ["PARTS", "Split", "Splits", "check_finite", "check_seen"]

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isnan

import torch
from torch import Tensor

from pyrovae.data.rows import Rows, in_chunks
from pyrovae.errors import DataError
from pyrovae.gaps import filled
from pyrovae.likelihoods.columns import Column

PARTS = "train", "valid", "test"


@dataclass(frozen=True, repr=False)
class Split:
    """Rows of a data set: x `(N, D)` float32 and, where there are labels, y `(N,)` int64.

    Of a .npy that memory does not hold, x stays on disk and is read by rows, `x[rows]`.

    Attributes:
        x: Data; of a program, of any shape `(N, ...)`.
        y: Labels, which colour pictures; only a model that names them among its `inputs` is given
            them. -1 where one is hidden, see `hide_labels`; `None` without any.
        more: What else a program takes, beside x, see `load_arrays`.
    """

    x: Tensor | Rows
    y: Tensor | None = None
    more: tuple[Tensor | Rows, ...] = ()

    @property
    def arrays(self) -> tuple[Tensor | Rows, ...]:
        """A program's arguments: x and what is more."""
        return (self.x, *self.more)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return (
            f"Split(x={tuple(self.x.shape)}, y={None if self.y is None else tuple(self.y.shape)})"
        )


@dataclass(frozen=True)
class Splits:
    """A data set in three parts, with the record of how it was made.

    Attributes:
        train, valid, test: The parts. Only the training part may be grey where X is binary: with
            dynamic binarization `transform` draws it afresh.
        image_shape: `(height, width)` of a row, or `None`.
        transform: What training applies to each batch of x, or `None`.
        protocol: What stands beside every number: data set, scaling, binarization, its seed, how
            the split was made, sizes, and the SHA-256 of each part as used.
        columns: What each column of x is, of a table; else none.
    """

    train: Split
    valid: Split
    test: Split
    image_shape: tuple[int, int] | None
    transform: Callable[[Tensor], Tensor] | None = field(repr=False)
    protocol: dict[str, str | int] = field(repr=False)
    columns: tuple[Column, ...] = field(default=(), repr=False)


def check_finite(
    x: Tensor | Rows, name: str = "x", start: int = 0, *, missing: bool = False
) -> None:
    """Raises DataError that names row and column of the first NaN or infinity of x `(N, ...)`.

    Rows are counted from `start`. Integers are finite, and not read for that.

    Args:
        x: Data, `(N, ...)`, in memory or on disk.
        name: Theirs in the words of an error.
        start: Number of the first row.
        missing: Whether NaN says that a number is missing, and passes.
    """
    if not x.is_floating_point():
        return
    for first, chunk in in_chunks(x):
        chunk = filled(chunk) if missing else chunk
        if bool(torch.isfinite(chunk).all()):
            continue
        row, *column = torch.nonzero(~torch.isfinite(chunk))[0].tolist()
        where = f"row {start + first + row}"
        where += f", column {', '.join(map(str, column))}" * bool(column)
        value = chunk[(row, *column)].item()
        advice = "; remove or impute such values first"
        if not isnan(value):
            advice = f", or a number that {x.dtype} does not hold; remove, impute or rescale it"
        raise DataError(f"{name} holds {value} at {where}{advice}")


def check_seen(seen: Tensor, name: str) -> None:
    """Raises DataError that names the first column of which no row says anything.

    Args:
        seen: Whether something is there, of each column of the data, `(...)`.
        name: Theirs in the words of an error.
    """
    if not seen.all():
        column = ", ".join(map(str, (~seen).nonzero()[0].tolist()))
        raise DataError(
            f"column {column} of {name} is missing, NaN, in every row, so that nothing is to be "
            "learned of it; leave it out"
        )
