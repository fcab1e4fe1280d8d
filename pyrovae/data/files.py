"""Data sets that are files of arrays, .npy or .npz."""

__all__ = ["ArraysFile", "RowsFile", "read_tensors"]

from dataclasses import replace
from math import isqrt, prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyrovae.arrays import read_arrays
from pyrovae.data.base import DataSet
from pyrovae.data.rows import File, Rows, fits_memory, in_chunks
from pyrovae.data.splits import Split
from pyrovae.errors import DataError


class _ArrayFile(DataSet):
    """A file of arrays, which is read when it is named.

    Attributes:
        path: Where it is.
        rows: All that it holds.
    """

    path: Path
    rows: Split

    @property
    def label(self) -> str:
        """The path."""
        return str(self.path)

    def read(self, root: Path, download: bool) -> Split:
        """Returns all rows.

        Args:
            root: Not used: the path says where they are.
            download: Not used.
        """
        return self.rows


class ArraysFile(_ArrayFile):
    """The arrays of a file in order, as they are: what a program takes, x first and then more.

    Args:
        path: Of a .npy or .npz, with arrays `(N, ...)`.

    Raises:
        DataError: If there is no such file, or it holds no numbers of equally many rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        x, *more = read_tensors(path)
        shapes = [tuple(a.shape) for a in (x, *more)]
        if not all(shapes) or len({shape[0] for shape in shapes}) > 1:
            raise DataError(
                f"{path} holds arrays of shapes {', '.join(map(str, shapes))}; give a program "
                "arrays of equally many rows"
            )
        self.rows = Split(x, None, tuple(more))


class RowsFile(_ArrayFile):
    """Rows x `(N, D)` and labels y `(N,)` of a file, images `(N, H, W)` of bytes scaled to [0, 1].

    Bytes of shape `(N, D)` may be counts, and stay what they are. What memory does not hold stays
    on disk, see `Rows`.

    Args:
        path: Of a .npy, or .npz with `x` and optionally `y`.

    Raises:
        DataError: If there is no such file, or its arrays are of the wrong shape or type.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        arrays = read_arrays(path, ("x", "y"))
        if "x" not in arrays:
            raise DataError(f"{path} holds only 'y'; name the data array 'x' and labels 'y'")
        x, y = arrays["x"], arrays.get("y")
        _check_arrays(path, x, y)
        labels = None if y is None else torch.from_numpy(y.astype(np.int64))
        grey = _on_disk(x, torch.float32)
        grey = _to_float(x) if grey is None else replace(grey, shape=(len(x), prod(x.shape[1:])))
        bytes_ = x.dtype == np.uint8 and x.ndim == 3
        if bytes_ and any(c.max() > 1 for _, c in in_chunks(grey)):
            grey = grey / 255 if isinstance(grey, Tensor) else replace(grey, divisor=255)
            self.scaling = "bytes / 255"
        side = isqrt(grey.shape[1])
        square = (side, side) if side > 1 and side * side == grey.shape[1] else None
        self.image_shape = (x.shape[1], x.shape[2]) if x.ndim == 3 else square
        self.rows = Split(grey, labels)


def read_tensors(path: Path) -> tuple[Tensor | Rows, ...]:
    """Returns the arrays of a .npz in order, or of a .npy, as tensors or `Rows`.

    Floats are in torch's default type, other numbers in their own. A .npy that memory would not
    hold stays on disk.

    Args:
        path: Of the file.

    Raises:
        DataError: If it is missing or broken, or an array is of no numbers that torch has.
    """
    tensors = []
    for name, x in read_arrays(path).items():
        native = x.dtype.newbyteorder("=")
        try:
            dtype = torch.from_numpy(np.empty(0, native)).dtype
        except TypeError as e:
            raise DataError(f"{path}: {name} is {x.dtype}; give numbers") from e
        dtype = torch.get_default_dtype() if dtype.is_floating_point else dtype
        tensors.append(_on_disk(x, dtype) or torch.from_numpy(np.array(x, native)).to(dtype))
    return tuple(tensors)


def _check_arrays(path: Path, x: np.ndarray, y: np.ndarray | None) -> None:
    """Raises DataError unless x is numbers, `(N, D)` or `(N, H, W)`, and y labels, `(N,)`.

    Args:
        path: Of the file, for messages.
        x: Data.
        y: Labels, integers that int64 holds; `None` where there are none.
    """
    if x.dtype.kind not in "buif" or x.ndim < 2 or not x.size:
        raise DataError(
            f"{path}: x is {x.dtype} of shape {x.shape}; give numbers of shape (N, D) or (N, H, W)"
        )
    if y is None:
        return
    if y.shape != x.shape[:1] or y.dtype.kind not in "bui":
        raise DataError(
            f"{path}: y is {y.dtype} of shape {y.shape}; give integer labels of shape ({len(x)},)"
        )
    if y.max() > np.iinfo(np.int64).max:
        raise DataError(f"{path}: y holds {y.max()}, and labels have to be below 2^63")


def _on_disk(x: np.ndarray, dtype: torch.dtype) -> Rows | None:
    """Returns a mapped array as rows on disk, where memory would not hold it as `dtype`.

    Args:
        x: Of `read_arrays`, mapped where the file is a .npy.
        dtype: Of the tensors to be.

    Returns:
        The rows; `None` where it is not mapped, does not lie row by row, or fits into memory.
    """
    if (
        not isinstance(x, np.memmap)
        or not x.flags.c_contiguous
        or fits_memory(x.size * dtype.itemsize)
    ):
        return None
    with Path(str(x.filename)).open("rb") as file:
        return Rows(File(file), x.dtype, x.shape, x.offset, dtype)


def _to_float(x: np.ndarray) -> Tensor:
    """Returns an array `(N, ...)` as rows `(N, D)` of float32, D the product of the other lengths.

    Args:
        x: Numbers; those that float32 does not hold become infinite, and `check_finite` names
            them.
    """
    with np.errstate(over="ignore"):  # what float32 does not hold is told of later
        return torch.from_numpy(np.array(x.reshape(len(x), -1), dtype=np.float32, order="C"))
