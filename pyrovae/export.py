"""Results for other tools: labelled arrays of xarray."""

__all__ = ["to_xarray"]

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr


def to_xarray(
    variables: Mapping[str, tuple[tuple[str, ...], Any, str]],
    coords: Mapping[str, Any],
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Returns a Dataset of variables given as name: (dimensions, array, what it is and unit)."""
    data = {
        name: xr.Variable(dims, np.asarray(values), {"long_name": what})
        for name, (dims, values, what) in variables.items()
    }
    return xr.Dataset(data, dict(coords), dict(attrs))
