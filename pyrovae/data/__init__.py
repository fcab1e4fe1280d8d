"""Data: named sets and files of arrays, their splits and binarization, and rows on disk."""

from pyrovae.data.base import DataSet
from pyrovae.data.binarization import binarize
from pyrovae.data.files import read_tensors
from pyrovae.data.images import quadrants
from pyrovae.data.labels import hide_labels
from pyrovae.data.sets import load, load_arrays, load_rows
from pyrovae.data.splits import Split, Splits, check_finite
from pyrovae.errors import DataError

__all__ = [
    "DataError",
    "DataSet",
    "Split",
    "Splits",
    "binarize",
    "check_finite",
    "hide_labels",
    "load",
    "load_arrays",
    "load_rows",
    "quadrants",
    "read_tensors",
]
