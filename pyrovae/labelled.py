"""Labelled arrays of xarray: made of results, and read back from files."""

__all__ = ["read_dataset", "to_xarray"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pyrovae.arrays import DENSE, room_of, size_of
from pyrovae.storage import dataset_digest


def to_xarray(
    variables: Mapping[str, tuple[tuple[str, ...], Any, str]],
    coords: Mapping[str, Any],
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Returns a Dataset of variables given as name: (dimensions, array, what it is and unit).

    Args:
        variables: `(dimensions, array, what it is and unit)` by name.
        coords: Coordinates by dimension.
        attrs: Of the Dataset.
    """
    data = {
        name: xr.Variable(dims, np.asarray(values), {"long_name": what})
        for name, (dims, values, what) in variables.items()
    }
    return xr.Dataset(data, dict(coords), dict(attrs))


def read_dataset(path: Path) -> xr.Dataset:
    """Returns the Dataset of a netCDF file, in memory.

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
