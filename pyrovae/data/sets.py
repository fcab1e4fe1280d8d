"""Data sets by name or path: splits, binarization, and what was used, on record."""

__all__ = ["DataError", "load", "load_arrays", "load_rows", "read_tensors"]

import hashlib
import sys
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from itertools import chain
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.arrays import LARGE, read_amat, read_arrays, said, size_of
from pyrovae.data.binarization import binarized, check_unit
from pyrovae.data.rows import File, Rows, fits, in_chunks
from pyrovae.data.splits import Split, Splits, check_finite
from pyrovae.errors import DataError

PARTS = ("train", "valid", "test")
BINARIZATIONS = ("static", "dynamic", "threshold", "none")

# name: (torchvision class, where it looks below the root, keywords of its training and test part)
TORCHVISION = {
    "mnist": ("MNIST", ({"train": True}, {"train": False})),
    "fashion-mnist": ("FashionMNIST", ({"train": True}, {"train": False})),
    "kmnist": ("KMNIST", ({"train": True}, {"train": False})),
    "emnist": (
        "EMNIST",
        ({"split": "balanced", "train": True}, {"split": "balanced", "train": False}),
    ),
    "qmnist": ("QMNIST", ({"what": "train"}, {"what": "test"})),
}
NAMES = ("digits", *TORCHVISION, "binarized-mnist")


def load(
    name: str,
    *,
    root: str | Path = "data",
    binarize: str = "static",
    valid_size: int | None = None,
    seed: int = 0,
    download: bool = False,
) -> Splits:
    """Returns the data set of that name or path as `Splits`.

    Data are held in memory. Those of a .npy that would take more than a quarter of the machine's
    stay on disk and are read by rows; what is binarized for good is written to temporary files
    (`TMPDIR`). The numbers are the same.

    Args:
        name: "digits" (scikit-learn's, embedded); "mnist", "fashion-mnist", "kmnist", "emnist"
            (balanced) or "qmnist" in torchvision's layout below `root`; "binarized-mnist"
            (Larochelle and Murray, 2011), a folder with its three .amat or .mat files; or the path
            of a .npy, or .npz with `x` and optionally `y`. Images `(N, H, W)` of bytes are divided
            by 255, which the protocol says as "scaling"; all other numbers stay what they are.
        root: Folder that holds the named data sets.
        binarize: "static" draws X ~ Bernoulli(grey) once; "dynamic" does so afresh for each
            training batch, and once for validation and test; "threshold" is grey > 0.5; "none".
        valid_size: Training rows held out for validation; `None`: 10,000 of the MNIST family, a
            fifth of the rows elsewhere.
        seed: Fixes split and binarization.
        download: Let torchvision fetch what is missing.

    Raises:
        DataError: (a `ValueError`) If there is no such data set, it is empty, of the wrong shape
            or type, or holds NaN, infinities or, if to be binarized, values outside [0, 1].

    Example:
        >>> load("digits").test
        Split(x=(359, 64), y=(359,))
    """
    if binarize not in BINARIZATIONS:
        raise ValueError(f"binarize is {binarize!r}; choose one of {', '.join(BINARIZATIONS)}")
    if valid_size is not None and valid_size < 1:
        raise ValueError(f"valid_size is {valid_size}; hold out at least one row")
    parts, image_shape, how, scaling = _read(name, Path(root), download, valid_size, seed)
    _check_parts(parts, name)
    transform = None
    if binarize != "none":
        for part in parts:
            check_unit(part.x)
        method = "threshold" if binarize == "threshold" else "static"
        grey = parts[0]
        parts = [replace(p, x=binarized(p.x, method, seed + i)) for i, p in enumerate(parts)]
        if binarize == "dynamic":
            parts[0] = grey
            transform = partial(binarized, method="static", seed=None)
    protocol = _protocol(name, binarize, seed, how, scaling, parts)
    train, valid, test = parts
    return Splits(train, valid, test, image_shape, transform, protocol)


def load_arrays(
    name: str,
    *,
    root: str | Path = "data",
    binarize: str = "none",
    valid_size: int | None = None,
    seed: int = 0,
    download: bool = False,
) -> Splits:
    """Returns a program's data as `Splits`: the arrays of a .npy or .npz, in order, split alike.

    They are taken as they are, floats in torch's default type; of a named data set, a program gets
    x. Arguments and errors otherwise as `load`.

    Args:
        name: Path of a .npy or .npz, or a data set by name.
        root: Where named data sets lie.
        binarize: Of a named data set, as `load`; of a file, "none".
        valid_size: Training rows held out for validation; `None`: a fifth of them.
        seed: Fixes split and binarization.
        download: Let torchvision fetch what is missing.
    """
    if not _is_file(name):
        options = {"root": root, "binarize": binarize, "valid_size": valid_size, "seed": seed}
        return load(name, **options, download=download)
    if binarize != "none":
        raise ValueError(
            f"binarize is {binarize!r}, but a program gets the arrays of {name} as they are; "
            "binarize them beforehand, or in the program"
        )
    x, *more = read_tensors(Path(name))
    shapes = [tuple(a.shape) for a in (x, *more)]
    if not all(shapes) or len({shape[0] for shape in shapes}) > 1:
        raise DataError(
            f"{name} holds arrays of shapes {', '.join(map(str, shapes))}; give a program arrays "
            "of equally many rows"
        )
    parts, _, how = _shuffled(Split(x, None, tuple(more)), None, valid_size, seed)
    _check_parts(parts, name)
    train, valid, test = parts
    protocol = _protocol(name, binarize, seed, how, "none", parts)
    return Splits(train, valid, test, None, None, protocol)


def _check_parts(parts: list[Split], name: str) -> None:
    """Raises DataError where a part is empty or holds what is not finite."""
    for label, part in zip(PARTS, parts, strict=True):
        if not len(part):
            raise DataError(
                f"{name}: the {label} part is empty; give more rows or another valid_size"
            )
        for x in part.arrays:
            check_finite(x, name)


def _protocol(
    name: str, binarize: str, seed: int, how: str, scaling: str, parts: list[Split]
) -> dict[str, Any]:
    protocol = {
        "data": name,
        "scaling": scaling,
        "binarize": binarize,
        "data_seed": seed,
        "split": how,
    }
    for label, part in zip(PARTS, parts, strict=True):
        protocol |= {f"rows_{label}": len(part), f"sha256_{label}": _sha256(part)}
    return protocol


def _read(
    name: str, root: Path, download: bool, valid_size: int | None, seed: int
) -> tuple[list[Split], tuple[int, int] | None, str, str]:
    """Returns train, valid, test (x grey or binary), image shape, how they were split, scaling."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        rows = Split(_to_float(digits.data) / 16, torch.from_numpy(digits.target))
        return *_shuffled(rows, (8, 8), valid_size, seed), "grey levels / 16"
    if name in TORCHVISION:
        train, test = _torchvision(name, root, download)
        n = max(0, len(train) - (10_000 if valid_size is None else valid_size))
        parts = [_rows(train, slice(n)), _rows(train, slice(n, None)), test]
        return (
            parts,
            (28, 28),
            f"file order: training rows before {n}, validation rows after, test file",
            "bytes / 255",
        )
    if name == "binarized-mnist":
        parts, how = _larochelle(root)
        return parts, (28, 28), how, "none"
    if _is_file(name):
        rows, shape, scaling = _from_numpy(Path(name))
        return *_shuffled(rows, shape, valid_size, seed), scaling
    near = get_close_matches(name, NAMES, n=2, cutoff=0.5) or NAMES
    raise DataError(
        f"there is no data set {name!r}; did you mean {' or '.join(near)}, "
        "or the path of a .npy or .npz?"
    )


def _is_file(name: str) -> bool:
    return name.endswith((".npy", ".npz")) or (name not in NAMES and Path(name).exists())


def _shuffled(
    rows: Split, image_shape: tuple[int, int] | None, valid_size: int | None, seed: int
) -> tuple[list[Split], tuple[int, int] | None, str]:
    test = len(rows) // 5
    valid = test if valid_size is None else valid_size
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    index = order[test + valid :], order[test : test + valid], order[:test]
    return (
        [_rows(rows, i) for i in index],
        image_shape,
        f"random permutation of the rows, seed {seed}",
    )


def _rows(split: Split, index: Any) -> Split:
    x, *more = (a.take(index) if isinstance(a, Rows) else a[index] for a in split.arrays)
    return Split(x, None if split.y is None else split.y[index], tuple(more))


def read_tensors(path: Path) -> tuple[Tensor | Rows, ...]:
    """Returns the arrays of a .npz in order, or of a .npy; floats in torch's default type."""
    tensors = []
    for name, x in read_arrays(path).items():
        native = x.dtype.newbyteorder("=")
        try:
            dtype = torch.from_numpy(np.empty(0, native)).dtype
        except TypeError as e:
            raise DataError(f"{path}: {name} is {x.dtype}; give numbers") from e
        dtype = torch.get_default_dtype() if dtype.is_floating_point else dtype
        tensors.append(_mapped(x, dtype) or torch.from_numpy(np.array(x, native)).to(dtype))
    return tuple(tensors)


def load_rows(
    path: Path, binarize: str = "none", seed: int = 0
) -> tuple[Split, tuple[int, int] | None, dict[str, Any]]:
    """Returns all rows of a .npy or .npz as one part, its image shape, and its protocol.

    Arguments and errors as `load`; "dynamic" binarizes once, as it does for test data.

    Args:
        path: Of the file.
        binarize: As `load`.
        seed: Fixes the binarization.
    """
    part, image_shape, scaling = _from_numpy(path)
    check_finite(part.x, str(path))
    if binarize != "none":
        check_unit(part.x)
        method = "threshold" if binarize == "threshold" else "static"
        part = replace(part, x=binarized(part.x, method, seed))
    protocol = {"data": str(path), "scaling": scaling, "binarize": binarize, "data_seed": seed}
    return part, image_shape, {**protocol, "part": "all", "sha256_all": _sha256(part)}


def _from_numpy(path: Path) -> tuple[Split, tuple[int, int] | None, str]:
    """Returns rows, image shape and scaling: only images of bytes are scaled, to [0, 1].

    Bytes of shape `(N, D)` may be counts, and stay what they are.
    """
    arrays = read_arrays(path, ("x", "y"))
    if "x" not in arrays:
        raise DataError(f"{path} holds only 'y'; name the data array 'x' and labels 'y'")
    x, y = arrays["x"], arrays.get("y")
    _check_arrays(path, x, y)
    labels = None if y is None else torch.from_numpy(y.astype(np.int64))
    grey = _mapped(x, torch.float32)
    grey = _to_float(x) if grey is None else replace(grey, shape=(len(x), prod(x.shape[1:])))
    scaling = "none"
    if x.dtype == np.uint8 and x.ndim == 3 and any(c.max() > 1 for _, c in in_chunks(grey)):
        grey = grey / 255 if isinstance(grey, Tensor) else replace(grey, divisor=255)
        scaling = "bytes / 255"
    side = isqrt(grey.shape[1])
    square = (side, side) if side > 1 and side * side == grey.shape[1] else None
    shape = (x.shape[1], x.shape[2]) if x.ndim == 3 else square
    return Split(grey, labels), shape, scaling


def _check_arrays(path: Path, x: np.ndarray, y: np.ndarray | None) -> None:
    """Raises DataError unless x is numbers, `(N, D)` or `(N, H, W)`, and y labels, `(N,)`."""
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


def _mapped(x: np.ndarray, dtype: torch.dtype) -> Rows | None:
    """Returns a mapped array as rows on disk, where memory would not hold it as `dtype`."""
    if not isinstance(x, np.memmap) or not x.flags.c_contiguous or fits(x.size * dtype.itemsize):
        return None
    with Path(str(x.filename)).open("rb") as file:
        return Rows(File(file), x.dtype, x.shape, x.offset, dtype)


def _to_float(x: np.ndarray) -> Tensor:
    with np.errstate(over="ignore"):  # what float32 does not hold is told of later
        return torch.from_numpy(np.array(x.reshape(len(x), -1), dtype=np.float32, order="C"))


def _larochelle(root: Path) -> tuple[list[Split], str]:
    """Returns the three parts of the published binarized MNIST, and whether all of it is there."""
    folders = root, root / "binarized_mnist"
    parts = []
    for part in PARTS:
        stems = [folder / f"binarized_mnist_{part}" for folder in folders]
        files = [s.with_suffix(kind) for s in stems for kind in (".mat", ".amat")]
        file = next((f for f in files if f.exists()), None)
        if file is None:
            raise DataError(
                f"binarized-mnist is not there: searched "
                f"{' and '.join(str(f.resolve()) for f in folders)} for {stems[0].name}.amat or "
                ".mat; get the three files of Larochelle and Murray (2011) and name their folder "
                "with --root"
            )
        x = read_amat(file, 28 * 28)
        if not np.isin(x, (0, 1)).all():
            raise DataError(f"{file} holds other numbers than 0 and 1, which is not as published")
        parts.append(Split(_to_float(x)))
    whole = [len(p) for p in parts] == [50_000, 10_000, 10_000]
    return parts, "fixed, as published" if whole else "fixed, part of what was published"


def _torchvision(name: str, root: Path, download: bool) -> tuple[Split, Split]:
    cls, keywords = TORCHVISION[name]
    raw = (root / cls / "raw").resolve()
    try:
        for file in (root / cls).glob("*/*"):
            if size_of(file) > LARGE:
                raise ValueError(f"{file.name} is larger than {LARGE:,} bytes")
        parts = [getattr(_datasets(), cls)(root, download=download, **kw) for kw in keywords]
        train, test = (_images(name, part) for part in parts)
    except Exception as e:  # whatever torchvision makes of broken files
        there = "cannot be read" if any(raw.glob("*")) else "is not there"
        raise DataError(
            f"{name} {there}: searched {raw} for torchvision's files ({said(e)}); point --root at "
            "the folder that holds it, or fetch it with --download"
        ) from e
    return train, test


def _images(name: str, part: Any) -> Split:
    """Returns a data set of torchvision's; ValueError unless it is images of bytes, labelled."""
    x = part.data.transpose(1, 2) if name == "emnist" else part.data
    y = part.targets[:, 0] if name == "qmnist" else part.targets
    if x.dtype != torch.uint8 or x.shape[1:] != (28, 28) or y.shape != x.shape[:1]:
        raise ValueError(
            f"{x.dtype} images {tuple(x.shape)} with labels {tuple(y.shape)}, where bytes "
            "(N, 28, 28) with labels (N,) were expected"
        )
    return Split(_to_float(x.numpy()) / 255, y.long())


def _datasets() -> Any:
    """Returns torchvision.datasets, also where torchvision's CUDA build stands beside a CPU torch.

    Such a pair dies on import for want of two operator schemas; the data sets need no operator, so
    declaring them is enough.
    """
    try:
        import torchvision.datasets as datasets
    except RuntimeError as e:
        if "torchvision::" not in str(e):
            raise
        for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        _schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.datasets as datasets
    return datasets


_schemas = torch.library.Library("torchvision", "FRAGMENT")


def _sha256(split: Split) -> str:
    digest = hashlib.sha256()
    for _, x in chain.from_iterable(map(in_chunks, split.arrays)):
        digest.update(x.contiguous().numpy().data)
    return digest.hexdigest()
