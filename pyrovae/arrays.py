"""Arrays from files of others: sizes are checked before memory is taken, and no code is run."""

__all__ = ["read_amat", "read_arrays", "room_of", "said", "size_of"]

from pathlib import Path
from zipfile import ZipInfo

import numpy as np

from pyrovae.errors import DataError

MAGIC = {".npy": b"\x93NUMPY", ".npz": b"PK"}
LARGE, DENSE = 2**30, 100  # bytes from which on contents may take 100 times their room on the disk
PLAIN = 0, 8  # ways to pack an archive's members: not at all, deflated
SAID = 200  # characters
TEXT = 2**28  # bytes of a text of numbers, at most


def size_of(path: Path) -> int:
    """Returns the size of a file in bytes.

    A file of holes takes no room on the disk, however large it says that it is; to read one would
    fill the memory with zeros.

    Args:
        path: Of the file.

    Raises:
        OSError: If it is no ordinary file, or one of holes, such as a broken download leaves.
    """
    if not path.is_file():
        raise OSError("it is no ordinary file, and only those are read")
    size, room = path.stat().st_size, room_of(path)
    if size > max(LARGE, DENSE * room):
        raise OSError(f"of its {size:,} bytes all but {room:,} are holes")
    return size


def room_of(path: Path) -> int:
    """Returns the bytes that a file takes on the disk, or its size where that is not told.

    Disks are told of in blocks of 512 bytes, whatever the size of the file system's own.

    Args:
        path: Of a file.
    """
    s = path.stat()
    return 512 * s.st_blocks if "st_blocks" in dir(s) else s.st_size


def read_arrays(path: Path, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """Returns the arrays of a .npz by name, of these names or all, or of a .npy, mapped, as "x".

    Args:
        path: Of the file.
        names: Arrays of a .npz to read; `None` reads all.

    Raises:
        DataError: If the file is missing or broken, holds anything but arrays or none at all, or
            a .npz says that it unpacks to 100 times its size and more than 1 GiB.
    """
    if not path.exists():
        raise DataError(f"there is no file {path} (looked in {path.parent.resolve()})")
    if path.suffix not in MAGIC:
        raise DataError(
            f"{path} is no .npy or .npz; write the data with numpy.save or numpy.savez"
        )
    try:
        size_of(path)
        with path.open("rb") as file:
            if not (first := file.read(6)).startswith(MAGIC[path.suffix]):
                raise ValueError(f"a {path.suffix} does not begin with {first!r}")
        if path.suffix == ".npy":
            return {"x": np.load(path, mmap_mode="r", allow_pickle=False)}
        return _unpacked(path, names)
    except DataError:
        raise
    except Exception as e:  # whatever the libraries make of broken files
        why = "it holds Python objects, and is read without pickles"
        why = why if "allow_pickle" in f"{e}" or "Python objects" in f"{e}" else said(e)
        writer = "numpy.save" if path.suffix == ".npy" else "numpy.savez"
        raise DataError(
            f"{path} cannot be read as arrays of numbers: {why}; write them with {writer}"
        ) from e


def said(error: Exception) -> str:
    r"""Returns what an error of a library says, cut short where it repeats what it has read.

    It is its first line, of which 200 characters are the most.

    Args:
        error: Of NumPy, h5py or another, about a file.

    Example:
        >>> said(ValueError("no header\nin 3 lines"))
        'no header'
    """
    first = f"{error}".strip().partition("\n")[0]
    return first if len(first) <= SAID else f"{first[:SAID]} ..."


def _unpacked(path: Path, names: tuple[str, ...] | None) -> dict[str, np.ndarray]:
    """Returns the arrays of a .npz by name, in its order.

    The archive's own list tells how much its members unpack to, and is looked at first.

    Args:
        path: Of the file.
        names: Of the members wanted, without ".npy"; `None` for all.

    Raises:
        DataError: If it holds none of them.
        ValueError: If a member is no array, or unpacks to far too much.
    """
    with np.load(path, allow_pickle=False) as archive:
        members = {i.filename.removesuffix(".npy"): i for i in archive.zip.infolist()}
        wanted = {k: i for k, i in members.items() if names is None or k in names}
        if not wanted:
            held = ", ".join(members) or "nothing"
            raise DataError(f"{path} holds {held}; name the data array 'x' and labels 'y'")
        _check_members(wanted)
        arrays = {name: archive[name] for name in wanted}
    if other := [name for name, a in arrays.items() if not isinstance(a, np.ndarray)]:
        raise ValueError(f"its member {other[0]} is no array")
    return arrays


def _check_members(wanted: dict[str, ZipInfo]) -> None:
    """Raises ValueError where members of a .npz are no plain arrays, or unpack to far too much.

    A member may be packed as `numpy.savez` or `numpy.savez_compressed` does it, not at all or
    deflated. All together may unpack to 1 GiB, or to 100 times what they take in the file.

    Args:
        wanted: What the archive's list says of each member, by name.
    """
    for name, member in wanted.items():
        if not member.filename.endswith(".npy") or member.compress_type not in PLAIN:
            raise ValueError(f"its member {member.filename} is not as numpy.savez writes it")
        if member.flag_bits & 1:
            raise ValueError(f"its member {name} is encrypted")
    size = sum(i.file_size for i in wanted.values())
    if size > LARGE and size > DENSE * sum(i.compress_size for i in wanted.values()):
        raise ValueError(f"it unpacks to {size:,} bytes, over {DENSE} times its own")


def read_amat(path: Path, columns: int) -> np.ndarray:
    """Returns the table `(N, columns)` of a .amat, which is text, or of a .mat; DataError if none.

    Of a .mat it is the first array. These are the formats in which binarized MNIST and its
    relatives were published.

    Args:
        path: Of the file.
        columns: Numbers of a row, D.

    Raises:
        DataError: If it is missing, broken, larger than 256 MiB of text, or of another shape.
    """
    try:
        if size_of(path) > TEXT:
            raise ValueError(f"it is larger than {TEXT:,} bytes")
        table = _read_mat(path, columns) if path.suffix == ".mat" else _read_text(path)
        if table.ndim != 2 or table.shape[1] != columns or table.dtype.kind not in "buif":
            raise ValueError(f"it is {table.dtype} of shape {table.shape}")
        return table
    except Exception as e:  # whatever the libraries make of broken files
        raise DataError(
            f"{path} cannot be read as numbers of shape (N, {columns}): {said(e)}"
        ) from e


def _read_text(path: Path) -> np.ndarray:
    """Returns a table of small integers from text, `(N, D)` uint8, one row a line, blanks between.

    Args:
        path: Of the file.

    Raises:
        ValueError: If a number is none, or does not lie in 0 to 255, or lines differ in length.
    """
    return np.loadtxt(path, dtype=np.uint8, ndmin=2)


def _read_mat(path: Path, columns: int) -> np.ndarray:
    """Returns the first array of a .mat, `(N, columns)`; its shape is read before its numbers.

    Args:
        path: Of the file, MATLAB's before version 7.3.
        columns: Numbers of a row, D.

    Raises:
        ValueError: If it has another shape, or would take more than 1 GiB as 64-bit floats.
    """
    from scipy.io import loadmat, whosmat

    name, shape, kind = whosmat(path)[0]
    if len(shape) != 2 or shape[1] != columns or shape[0] * columns * 8 > LARGE:
        raise ValueError(f"its first array {name} is {kind} of shape {shape}")
    return np.asarray(loadmat(path, variable_names=[name])[name])
