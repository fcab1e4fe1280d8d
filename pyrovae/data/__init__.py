"""Data: named sets and files of arrays, their splits and binarization, and rows on disk."""

from pyrovae.data.binarization import binarize
from pyrovae.data.sets import DataError, load, load_arrays, load_rows, read_tensors
from pyrovae.data.splits import Split, Splits, check_finite

__all__ = [
    "DataError",
    "Split",
    "Splits",
    "binarize",
    "check_finite",
    "load",
    "load_arrays",
    "load_rows",
    "read_tensors",
]
