"""Data sets by name, path or class: splits, binarization, and what was used, on record."""

__all__ = ["dataset", "load", "load_arrays", "load_rows"]

import hashlib
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from pyrovae.data.base import DataSet, FromFunction, Parts, sets
from pyrovae.data.binarization import binarized, check_unit
from pyrovae.data.files import ArraysFile, RowsFile
from pyrovae.data.rows import Rows, in_chunks
from pyrovae.data.splits import PARTS, Split, Splits, check_finite
from pyrovae.errors import DataError
from pyrovae.registry import FILES, import_all, names_table

if TYPE_CHECKING:
    from pandas import DataFrame

    from pyrovae.data.tables import Said

BINARIZATIONS = ("static", "dynamic", "threshold", "none")
Source: TypeAlias = "str | DataSet | type[DataSet] | Callable[[], Parts] | DataFrame"


def dataset(name: Source, columns: "Said | None" = None) -> DataSet:
    """Returns the data set of a name or path, class, or function, without importing what is named.

    Args:
        name: A name that is known, the path of a .npy, .npz, .csv or .parquet, a DataFrame, a
            subclass of `DataSet` or an instance of one, or a function that returns what
            `DataSet.read` does.
        columns: What is said of a table's columns, see `pyrovae.data.tables.TableFile`.

    Raises:
        DataError: If there is no data set of that name.
        TypeError: If it is none of these.
        ValueError: If columns are said of what is no table.
    """
    if names_table(name):
        from pyrovae.data.tables import TableFile

        return TableFile(name, columns)  # pyright: ignore[reportArgumentType]
    if columns:
        raise ValueError(f"columns are of a table, a .csv or .parquet, and the data are {name}")
    if isinstance(name, DataSet):
        return name
    if isinstance(name, type) and issubclass(name, DataSet):
        return name()
    if not isinstance(name, str):
        if not callable(name):
            raise TypeError(
                f"the data set is {name!r}; give a name, a path, a DataSet or a function"
            )
        return FromFunction(name)
    if name in _known():
        return sets[name]()
    if _is_file(name):
        return RowsFile(Path(name))
    near = get_close_matches(name, sets, n=2, cutoff=0.5) or sorted(sets)
    raise DataError(
        f"there is no data set {name!r}; did you mean {' or '.join(near)}, or the path of a .npy, "
        ".npz, .csv or .parquet? (one of your own is known once its module is imported; on a "
        "command line name it, --data package.module.Name)"
    )


def load(
    name: Source,
    *,
    root: str | Path = "data",
    binarize: str = "static",
    valid_size: int | None = None,
    seed: int = 0,
    download: bool = False,
    columns: "Said | None" = None,
) -> Splits:
    """Returns the data set of that name, path or class as `Splits`.

    Data are held in memory. Those of a .npy that would take more than a quarter of the machine's
    stay on disk and are read by rows; what is binarized for good is written to temporary files
    (`TMPDIR`). The numbers are the same.

    Args:
        name: "digits" (scikit-learn's, embedded); "mnist", "fashion-mnist", "kmnist", "emnist"
            (balanced) or "qmnist" in torchvision's layout below `root`; "binarized-mnist"
            (Larochelle and Murray, 2011), a folder with its three .amat or .mat files; the path
            of a .npy, or .npz with `x` and optionally `y`; a table, the path of a .csv or
            .parquet, or a DataFrame; or one of your own, a subclass of `DataSet` or a function
            that returns a `Split`. Images `(N, H, W)` of bytes are divided
            by 255, which the protocol says as "scaling"; all other numbers stay what they are.
        root: Folder that holds the named data sets.
        binarize: "static" draws X ~ Bernoulli(grey) once; "dynamic" does so afresh for each
            training batch, and once for validation and test; "threshold" is grey > 0.5; "none".
        valid_size: Training rows held out for validation; `None`: 10,000 of the MNIST family, a
            fifth of the rows elsewhere.
        seed: Fixes split and binarization.
        download: Let torchvision fetch what is missing.
        columns: What is said of a table's columns, see `pyrovae.data.tables.TableFile`.

    Raises:
        DataError: (a `ValueError`) If there is no such data set, it is empty, of the wrong shape
            or type, or holds infinities or, if to be binarized, values outside [0, 1]. NaN says
            that a number is missing.

    Example:
        >>> load("digits").test
        Split(x=(359, 64), y=(359,))
    """
    _check_binarize(binarize)
    found = dataset(name, columns)
    if found.columns and binarize != "none":
        if binarize != "static":  # the default
            raise ValueError(f"binarize is {binarize!r}, and a table's columns are what they are")
        binarize = "none"
    parts, split = _split(found, Path(root), valid_size, seed, download)
    _check_floats(parts, found.label)
    return _splits(found, parts, split, binarize, seed)


def load_arrays(
    name: Source,
    *,
    root: str | Path = "data",
    binarize: str = "none",
    valid_size: int | None = None,
    seed: int = 0,
    download: bool = False,
    columns: "Said | None" = None,
) -> Splits:
    """Returns a program's data as `Splits`: the arrays of a .npy or .npz, in order, split alike.

    They are taken as they are, floats in torch's default type; of a named data set, a program gets
    x. Arguments and errors otherwise as `load`.

    Args:
        name: Path of a .npy or .npz; or a data set by name, class or function.
        root: Where named data sets lie.
        binarize: Of a named data set, as `load`; of a file, "none".
        valid_size: Training rows held out for validation; `None`: a fifth of them.
        seed: Fixes split and binarization.
        download: Let torchvision fetch what is missing.
        columns: What is said of a table's columns, as of `load`.
    """
    _check_binarize(binarize)
    found = _given_to_programs(name, binarize, columns)
    parts, split = _split(found, Path(root), valid_size, seed, download)
    return _splits(found, parts, split, binarize, seed)


def load_rows(
    path: str | Path,
    binarize: str = "none",
    seed: int = 0,
    *,
    program: bool = False,
    columns: "Said | None" = None,
) -> tuple[Split, tuple[int, int] | None, dict[str, str | int]]:
    """Returns all rows of a file as one part, its image shape, and its protocol.

    Arguments and errors as `load`; "dynamic" binarizes once, as it does for test data.

    Args:
        path: Of the file.
        binarize: As `load`.
        seed: Fixes the binarization.
        program: Whether they are for a program, which gets the arrays as they are.
        columns: What is said of a table's columns, as of `load`.
    """
    if program:
        found = _given_to_programs(str(path), binarize, columns)
    else:
        found = dataset(str(path), columns) if names_table(path) else RowsFile(Path(path))
    part = found.read(Path(), False)
    assert isinstance(part, Split)
    for x in part.arrays:
        check_finite(x, str(path), missing=_may_miss(x, binarize))
    if binarize != "none":
        check_unit(part.x)
        method = "threshold" if binarize == "threshold" else "static"
        part = replace(part, x=binarized(part.x, method, seed))
    protocol: dict[str, str | int] = {
        "data": str(path),
        "scaling": found.scaling,
        "binarize": binarize,
    }
    protocol |= {"data_seed": seed, "part": "all", "sha256_all": _sha256(part)}
    return part, found.image_shape, protocol


def _known() -> dict[str, type[DataSet]]:
    """Returns the data sets by name, those of this package's modules among them.

    All modules of this folder are imported for that: a new data set is a new file in it.
    """
    import_all("pyrovae.data")
    return sets


def _is_file(name: object) -> bool:
    """Returns whether a name is that of a file: by its ending, there or not, or as it is there.

    Args:
        name: As a user wrote it. One that is a data set's is none, also where a file has that
            name.
    """
    if not isinstance(name, str):
        return False
    return name.endswith(FILES) or (name not in _known() and Path(name).exists())


def _given_to_programs(name: Source, binarize: str, columns: "Said | None") -> DataSet:
    """Returns a data set; of a file its arrays as they are, as programs take them.

    Args:
        name: As of `dataset`.
        binarize: What was asked for.
        columns: What is said of a table's columns.

    Raises:
        ValueError: If a file was to be binarized.
        DataError: If there is no such data set, or no such file.
    """
    if not (isinstance(name, str) and _is_file(name)) or names_table(name):
        return dataset(name, columns)
    if binarize != "none":
        raise ValueError(
            f"binarize is {binarize!r}, but a program gets the arrays of {name} as they are; "
            "binarize them beforehand, or in the program"
        )
    return ArraysFile(Path(name))


def _check_binarize(binarize: str) -> None:
    """Raises ValueError where there is no such binarization."""
    if binarize not in BINARIZATIONS:
        raise ValueError(f"binarize is {binarize!r}; choose one of {', '.join(BINARIZATIONS)}")


def _split(
    found: DataSet, root: Path, valid_size: int | None, seed: int, download: bool
) -> tuple[tuple[Split, ...], str]:
    """Returns train, valid and test, and how they came about in words.

    Three parts are taken as they are. Of two, the last training rows are held out. One is permuted
    at random: the first fifth is test, the next rows are validation and the rest training data.

    Args:
        found: The data set.
        root: Holds those that have a name.
        valid_size: Rows for validation; `None` for the data set's own number, else a fifth.
        seed: Of the permutation.
        download: Whether what is missing may be fetched.

    Raises:
        ValueError: If `valid_size` is less than 1.
        DataError: If it cannot be read.
    """
    if valid_size is not None and valid_size < 1:
        raise ValueError(f"valid_size is {valid_size}; hold out at least one row")
    parts = _read(found, root, download)
    if len(parts) == 3:
        return parts, found.published(parts)
    size = found.valid_size if valid_size is None else valid_size
    fifth = len(parts[0]) // 5
    valid = fifth if size is None else size
    if len(parts) == 2:
        train, test = parts
        n = max(0, len(train) - valid)
        split = f"file order: training rows before {n}, validation rows after, test file"
        return (_rows(train, slice(n)), _rows(train, slice(n, None)), test), split
    order = torch.randperm(len(parts[0]), generator=torch.Generator().manual_seed(seed))
    index = order[fifth + valid :], order[fifth : fifth + valid], order[:fifth]
    split = f"random permutation of the rows, seed {seed}"
    return tuple(_rows(parts[0], i) for i in index), split


def _read(found: DataSet, root: Path, download: bool) -> tuple[Split, ...]:
    """Returns the one to three parts that a data set gives.

    Args:
        found: The data set.
        root: Holds those that have a name.
        download: Whether what is missing may be fetched.

    Raises:
        DataError: If it cannot be read, or gives something else.
    """
    read = found.read(root, download)
    parts = read if isinstance(read, tuple) else (read,)
    if not all(isinstance(part, Split) for part in parts) or not 1 <= len(parts) <= 3:
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise DataError(f"{found.label} gives ({kinds}); give one to three pyrovae.data.Split")
    return tuple(_checked(part, found.label) for part in parts)


def _rows(split: Split, index: Tensor | slice) -> Split:
    """Returns some rows of a split, those on disk unread.

    Args:
        split: Of N rows.
        index: Numbers of rows, `(M,)`, or a slice.
    """
    x, *more = (
        a.take(index) if isinstance(a, Rows) and isinstance(index, Tensor) else a[index]
        for a in split.arrays
    )
    return Split(x, None if split.y is None else split.y[index], tuple(more))


def _checked(part: Split, label: str) -> Split:
    """Returns a part, x of float64 in torch's default type.

    Args:
        part: As a data set gave it.
        label: Of the data set, for messages.

    Raises:
        DataError: Unless all arrays, and labels, are tensors or `Rows` of equally many rows.
    """
    arrays = (*part.arrays, *(() if part.y is None else (part.y,)))
    shapes = [a.shape if isinstance(a, Tensor | Rows) else type(a).__name__ for a in arrays]
    if any(not isinstance(s, tuple) or not s or s[0] != len(part.x) for s in shapes):
        said = ", ".join(s if isinstance(s, str) else str(tuple(s)) for s in shapes)
        raise DataError(f"{label} gives {said}; give tensors of equally many rows")
    if isinstance(x := part.x, Tensor) and x.dtype == torch.float64:
        return replace(part, x=x.to(torch.get_default_dtype()))
    return part


def _check_floats(parts: tuple[Split, ...], label: str) -> None:
    """Raises DataError unless x is floats `(N, D)`, as models take.

    Args:
        parts: Of the data set; the first is looked at.
        label: Of the data set, for messages.
    """
    x = parts[0].x
    if x.ndim != 2 or not x.is_floating_point():
        raise DataError(f"{label} gives x {x.dtype} of shape {tuple(x.shape)}; give floats (N, D)")


def _splits(
    found: DataSet, parts: tuple[Split, ...], split: str, binarize: str, seed: int
) -> Splits:
    """Returns the parts checked and binarized, with their record.

    Part i, of 0 to 2, is drawn with the seed `seed + i`. Under "dynamic" the training part stays
    grey, and `transform` draws each batch afresh.

    Args:
        found: The data set.
        parts: Training, validation and test data, as they were read.
        split: How they came about, in words.
        binarize: One of `BINARIZATIONS`.
        seed: Of the draws.

    Raises:
        DataError: If a part is empty, or holds NaN, infinities or, if to be binarized, values
            outside [0, 1].
    """
    for part, rows in zip(PARTS, parts, strict=True):
        if not len(rows):
            raise DataError(
                f"{found.label}: the {part} part is empty; give more rows or another valid_size"
            )
        for x in rows.arrays:
            check_finite(x, found.label, missing=_may_miss(x, binarize))
    transform = None
    if binarize != "none":
        for part in parts:
            check_unit(part.x)
        method = "threshold" if binarize == "threshold" else "static"
        grey = parts[0]
        drawn = [replace(p, x=binarized(p.x, method, seed + i)) for i, p in enumerate(parts)]
        if binarize == "dynamic":
            drawn[0] = grey
            transform = partial(binarized, method="static", seed=None)
        parts = tuple(drawn)
    protocol: dict[str, str | int] = {"data": found.label, "scaling": found.scaling}
    protocol |= {"binarize": binarize, "data_seed": seed, "split": split}
    for part, rows in zip(PARTS, parts, strict=True):
        protocol |= {f"rows_{part}": len(rows), f"sha256_{part}": _sha256(rows)}
    train, valid, test = parts
    if found.columns:
        protocol["columns"] = ", ".join(f"{c.name} {c.kind}" for c in found.columns)
    return Splits(train, valid, test, found.image_shape, transform, protocol, found.columns)


def _may_miss(x: Tensor | Rows, binarize: str) -> bool:
    """Returns whether NaN can be kept in x: not where it is drawn into bytes on disk.

    Args:
        x: Data.
        binarize: One of `BINARIZATIONS`.
    """
    return binarize == "none" or isinstance(x, Tensor)


def _sha256(split: Split) -> str:
    """Returns the SHA-256 of a part's arrays as used, 64 hexadecimal digits; labels do not count.

    Args:
        split: Of any size: it is read a few rows at a time.
    """
    digest = hashlib.sha256()
    for _, x in chain.from_iterable(map(in_chunks, split.arrays)):
        digest.update(x.contiguous().numpy().data)
    return digest.hexdigest()
