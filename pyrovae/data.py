"""Data sets by name or path: splits, binarization, and what was used, on record."""

__all__ = ["DataError", "Split", "Splits", "binarize", "check_finite", "load"]

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.rows import File, Rows, fits, in_chunks, spooled

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


class DataError(ValueError):
    """Data that is missing, or that is not what it should be."""


@dataclass(frozen=True, repr=False)
class Split:
    """Rows of a data set: x `(N, D)` float32 and, where there are labels, y `(N,)` int64.

    Of a .npy that memory does not hold, x stays on disk and is read by rows, `x[rows]`.
    """

    x: Tensor | Rows
    y: Tensor | None = None

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
        protocol: What stands beside every number: data set, binarization, its seed, how the split
            was made, sizes, and the SHA-256 of each part as used.
    """

    train: Split
    valid: Split
    test: Split
    image_shape: tuple[int, int] | None
    transform: Callable[[Tensor], Tensor] | None = field(repr=False)
    protocol: dict[str, Any] = field(repr=False)


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
            of a .npy, or .npz with `x` and optionally `y`.
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
    parts, image_shape, how = _read(name, Path(root), download, valid_size, seed)
    for label, part in zip(PARTS, parts, strict=True):
        if not len(part):
            raise DataError(
                f"{name}: the {label} part is empty; give more rows or another valid_size"
            )
        check_finite(part.x, name)
    transform = None
    if binarize != "none":
        for part in parts:
            _check_unit(part.x)
        method = "threshold" if binarize == "threshold" else "static"
        grey = parts[0]
        parts = [replace(p, x=_binarize(p.x, method, seed + i)) for i, p in enumerate(parts)]
        if binarize == "dynamic":
            parts[0] = grey
            transform = partial(_binarize, method="static", seed=None)
    protocol = {
        "data": name,
        "binarize": binarize,
        "data_seed": seed,
        "split": how,
    }
    for label, part in zip(PARTS, parts, strict=True):
        protocol |= {f"rows_{label}": len(part), f"sha256_{label}": _sha256(part)}
    train, valid, test = parts
    return Splits(train, valid, test, image_shape, transform, protocol)


def binarize(x: Tensor, method: str = "static", *, seed: int | None = 0) -> Tensor:
    """Returns x in {0, 1}: drawn from Bernoulli(x) ("static"), or x > 0.5 ("threshold").

    Args:
        x: Grey values in [0, 1], any shape.
        method: "static" or "threshold".
        seed: Fixes the draw; `None` takes torch's current stream, afresh in every call.

    Raises:
        DataError: If a value lies outside [0, 1].

    Example:
        >>> binarize(torch.tensor([0.0, 0.4, 1.0]), "threshold")
        tensor([0., 0., 1.])
    """
    if method not in ("static", "threshold"):
        raise ValueError(f"method is {method!r}; choose static or threshold")
    _check_unit(torch.atleast_1d(x))
    return _binarize(x, method, seed)


def check_finite(x: Tensor | Rows, name: str = "x", start: int = 0) -> None:
    """Raises DataError that names row and column of the first NaN or infinity of x `(N, ...)`.

    Rows are counted from `start`.
    """
    if not x.is_floating_point():
        return
    for first, chunk in in_chunks(x):
        if bool(torch.isfinite(chunk).all()):
            continue
        row, *column = torch.nonzero(~torch.isfinite(chunk))[0].tolist()
        where = f"row {start + first + row}"
        where += f", column {', '.join(map(str, column))}" * bool(column)
        value = chunk[(row, *column)].item()
        raise DataError(f"{name} holds {value} at {where}; remove or impute such values first")


def _binarize(x: Any, method: str, seed: int | None) -> Any:
    """Returns x in {0, 1}, on disk where x is: drawn bit by bit, as it would be in one go."""
    generator = None
    if seed is not None:
        generator = torch.Generator(x.device).manual_seed(seed)
    if isinstance(x, Tensor):
        return _drawn(x, method, generator)
    (drawn,) = spooled(_drawn(chunk, method, generator).byte() for _, chunk in in_chunks(x))
    return replace(drawn, dtype=x.dtype)


def _drawn(x: Tensor, method: str, generator: torch.Generator | None) -> Tensor:
    if method == "threshold":
        return (x > 0.5).to(x.dtype)
    uniform = torch.rand(x.shape, generator=generator, device=x.device)
    return torch.lt(uniform, x, out=uniform).to(x.dtype)  # twice as fast as through booleans


def _check_unit(x: Tensor | Rows) -> None:
    for start, chunk in in_chunks(x):
        outside = (chunk < 0) | (chunk > 1)
        if bool(outside.any()):
            row, *column = torch.nonzero(outside)[0].tolist()
            value = chunk[(row, *column)].item()
            raise DataError(
                f"x holds {value:g} at row {start + row}, column {column}, outside [0, 1], so it "
                "cannot be binarized; scale it, or keep it with binarize='none' and likelihood "
                "'normal'"
            )


def _read(
    name: str, root: Path, download: bool, valid_size: int | None, seed: int
) -> tuple[list[Split], tuple[int, int] | None, str]:
    """Returns train, valid and test (x grey or binary), image shape, and how they were split."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        rows = Split(_to_float(digits.data) / 16, torch.from_numpy(digits.target))
        return _shuffled(rows, (8, 8), valid_size, seed)
    if name in TORCHVISION:
        train, test = _torchvision(name, root, download)
        n = max(0, len(train) - (10_000 if valid_size is None else valid_size))
        parts = [_rows(train, slice(n)), _rows(train, slice(n, None)), test]
        return (
            parts,
            (28, 28),
            f"file order: training rows before {n}, validation rows after, test file",
        )
    if name == "binarized-mnist":
        return (
            [_larochelle(root, part) for part in PARTS],
            (28, 28),
            "fixed, as published",
        )
    if name.endswith((".npy", ".npz")) or Path(name).exists():
        return _shuffled(*_from_numpy(Path(name)), valid_size, seed)
    near = get_close_matches(name, NAMES, n=2, cutoff=0.5) or NAMES
    raise DataError(
        f"there is no data set {name!r}; did you mean {' or '.join(near)}, "
        "or the path of a .npy or .npz?"
    )


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
    x = split.x.take(index) if isinstance(split.x, Rows) else split.x[index]
    return Split(x, None if split.y is None else split.y[index])


def read_tensors(path: Path) -> tuple[Tensor | Rows, ...]:
    """Returns the arrays of a .npz in order, or of a .npy; floats in torch's default type."""
    tensors = []
    for x in _read_arrays(path).values():
        native = x.dtype.newbyteorder("=")
        dtype = torch.from_numpy(np.empty(0, native)).dtype
        dtype = torch.get_default_dtype() if dtype.is_floating_point else dtype
        tensors.append(_mapped(x, dtype) or torch.from_numpy(np.array(x, native)).to(dtype))
    return tuple(tensors)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a .npz by name, or of a .npy, mapped, as "x"; DataError if none."""
    if not path.exists():
        raise DataError(f"there is no file {path} (looked in {path.parent.resolve()})")
    try:
        arrays = np.load(path, mmap_mode="r", allow_pickle=False)
        return dict(arrays) if path.suffix == ".npz" else {"x": arrays}
    except (ValueError, OSError, EOFError) as e:
        raise DataError(f"{path} cannot be read as NumPy arrays without pickles: {e}") from e


def load_rows(
    path: Path, binarize: str = "none", seed: int = 0
) -> tuple[Split, tuple[int, int] | None, dict[str, Any]]:
    """Returns all rows of a .npy or .npz as one part, its image shape, and its protocol.

    Arguments and errors as `load`; "dynamic" binarizes once, as it does for test data.
    """
    part, image_shape = _from_numpy(path)
    check_finite(part.x, str(path))
    if binarize != "none":
        _check_unit(part.x)
        method = "threshold" if binarize == "threshold" else "static"
        part = replace(part, x=_binarize(part.x, method, seed))
    protocol = {"data": str(path), "binarize": binarize, "data_seed": seed, "part": "all"}
    return part, image_shape, {**protocol, "sha256_all": _sha256(part)}


def _from_numpy(path: Path) -> tuple[Split, tuple[int, int] | None]:
    arrays = _read_arrays(path)
    if "x" not in arrays:
        raise DataError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; "
            "name the data array 'x' and labels 'y'"
        )
    x, y = arrays["x"], arrays.get("y")
    if x.dtype.kind not in "buif" or x.ndim < 2 or not x.size:
        raise DataError(
            f"{path}: x is {x.dtype} of shape {x.shape}; give numbers of shape (N, D) or (N, H, W)"
        )
    if y is not None and (y.shape != x.shape[:1] or y.dtype.kind not in "bui"):
        raise DataError(
            f"{path}: y is {y.dtype} of shape {y.shape}; give integer labels of shape ({len(x)},)"
        )
    labels = None if y is None else torch.from_numpy(y.astype(np.int64))
    grey = _mapped(x, torch.float32)
    if grey is None:
        grey = _to_float(x) / (255 if x.dtype == np.uint8 and x.max() > 1 else 1)
    else:
        grey = replace(grey, shape=(len(x), prod(x.shape[1:])))
        if x.dtype == np.uint8 and any(chunk.max() > 1 for _, chunk in in_chunks(grey)):
            grey = replace(grey, divisor=255)
    side = isqrt(grey.shape[1])
    square = (side, side) if side > 1 and side * side == grey.shape[1] else None
    shape = (x.shape[1], x.shape[2]) if x.ndim == 3 else square
    return Split(grey, labels), shape


def _mapped(x: np.ndarray, dtype: torch.dtype) -> Rows | None:
    """Returns a mapped array as rows on disk, where memory would not hold it as `dtype`."""
    if not isinstance(x, np.memmap) or not x.flags.c_contiguous or fits(x.size * dtype.itemsize):
        return None
    with Path(str(x.filename)).open("rb") as file:
        return Rows(File(file), x.dtype, x.shape, x.offset, dtype)


def _to_float(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(x.reshape(len(x), -1), dtype=np.float32, order="C"))


def _larochelle(root: Path, part: str) -> Split:
    stems = [folder / f"binarized_mnist_{part}" for folder in (root, root / "binarized_mnist")]
    for stem in stems:
        if (mat := stem.with_suffix(".mat")).exists():
            from scipy.io import loadmat

            arrays = [v for k, v in loadmat(mat).items() if not k.startswith("_")]
            return Split(_to_float(np.asarray(arrays[0])))
        if (amat := stem.with_suffix(".amat")).exists():
            return Split(_to_float(np.loadtxt(amat, dtype=np.uint8, ndmin=2)))
    folders = " and ".join(str(s.parent.resolve()) for s in stems)
    raise DataError(
        f"binarized-mnist is not there: searched {folders} for {stems[0].name}.amat or .mat; "
        "get the three files of Larochelle and Murray (2011) and name their folder with --root"
    )


def _torchvision(name: str, root: Path, download: bool) -> tuple[Split, Split]:
    cls, keywords = TORCHVISION[name]
    try:
        parts = [getattr(_datasets(), cls)(root, download=download, **kw) for kw in keywords]
    except (RuntimeError, OSError, ValueError) as e:
        raise DataError(
            f"{name} is not there: searched {(root / cls / 'raw').resolve()} for "
            f"torchvision's files ({e}); point --root at the folder that holds it, "
            "or fetch it with --download"
        ) from e
    images = [p.data.transpose(1, 2) if name == "emnist" else p.data for p in parts]
    labels = [p.targets[:, 0] if name == "qmnist" else p.targets for p in parts]
    train, test = (
        Split(_to_float(x.numpy()) / 255, y.long()) for x, y in zip(images, labels, strict=True)
    )
    return train, test


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
    for _, x in in_chunks(split.x):
        digest.update(x.contiguous().numpy().data)
    return digest.hexdigest()
