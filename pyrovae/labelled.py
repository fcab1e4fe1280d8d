"""Labelled arrays of xarray: made of results, and read back from files."""

__all__ = ["Dataset", "Variable", "read_dataset", "to_xarray"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from pyrovae.arrays import DENSE, room_of, size_of
from pyrovae.storage import dataset_digest

Dataset: TypeAlias = xr.Dataset
Variable: TypeAlias = tuple[tuple[str, ...], ArrayLike | Tensor, str]  # dimensions, values, what


def to_xarray(
    variables: Mapping[str, Variable],
    coords: Mapping[str, Sequence[object]],
    attrs: Mapping[str, object],
) -> Dataset:
    """Returns a Dataset of variables, each with what it is as its `long_name`.

    Tensors become arrays of NumPy; they have to be on the CPU and without gradients.

    Args:
        variables: `(dimensions, array, what it is and its unit)` by name; as many dimensions as
            the array has axes, and the same name has the same length in all of them.
        coords: Coordinates by dimension, such as the names of the data; a dimension may have none.
        attrs: Of the Dataset: what holds for all, such as the seed.

    Returns:
        The Dataset; `write_dataset` writes it, and `read_dataset` reads that.

    Raises:
        ValueError: If dimensions and shapes do not go together.

    Example:
        >>> table = to_xarray({"x": (("datum",), [1.0, 2.0], "data, m")}, {"datum": [0, 1]}, {})
        >>> table["x"].attrs
        {'long_name': 'data, m'}
    """
    data = {
        name: xr.Variable(dims, np.asarray(values), {"long_name": what})
        for name, (dims, values, what) in variables.items()
    }
    return Dataset(data, dict(coords), dict(attrs))


def read_dataset(path: Path) -> Dataset:
    """Returns the Dataset of a netCDF file, in memory.

    Its checksum, the attribute `sha256`, is compared and taken off; a file without one, as another
    tool has written, is read all the same.

    Args:
        path: Of the file.

    Raises:
        OSError, ValueError: If it is none, says that it holds more than 100 times what it has
            room for, or was altered after `write_dataset` wrote it.
    """
    size_of(path)
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        room = max(2**20, room_of(path))
        if dataset.nbytes > DENSE * room:
            raise ValueError(f"it says that it holds {dataset.nbytes:,} bytes, in {room:,}")
        dataset.load()
    if dataset.attrs.pop("sha256", None) not in (None, dataset_digest(dataset)):
        raise ValueError("it was altered after it was written: its checksum does not match")
    return dataset
