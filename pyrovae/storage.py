"""Atomic, checked reading and writing of state: the only module that writes it.

State is nested dictionaries and lists of tensors and JSON values. It becomes one safetensors file,
whose header holds the structure and a SHA-256 of it and of the tensors. Nothing is pickled, so a
file can be broken or false, but runs no code.

The header has one entry besides those of safetensors, `pyrovae`, which is JSON:

    {"format": "pyrovae-1", "sha256": "<64 digits>", "state": <node>}

A node is `{"tensor": "/path/to/it"}`, `{"dict": {name: node}}`, `{"list": [node]}` or
`{"value": JSON}`; the tensor of that name is one of the file's own. The kind is said each time, so
that a dictionary of the user's that looks like one of these is none.
"""

__all__ = [
    "StateError",
    "dataset_digest",
    "digest",
    "load_state",
    "read_text",
    "read_yaml",
    "save_state",
    "write_atomic",
    "write_dataset",
    "write_lines",
]

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import safetensors.torch
import torch
import yaml
from torch import Tensor

from pyrovae.arrays import said, size_of
from pyrovae.errors import StateError

if TYPE_CHECKING:
    from xarray import Dataset

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
State: TypeAlias = "Tensor | None | bool | int | float | str | list[State] | dict[str, State]"
FORMAT = "pyrovae-1"
ENTRIES = 8_000_000  # of lists and dictionaries in a file of state, at most
OPTIONS, DEPTH = 2**16, 20  # bytes of a configuration, and levels of its nesting, at most
STATE, PARTIAL = ".safetensors", ".partial"  # how names of state end, and of what is half-written


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path` and moves it there once it is on the disk.

    At every moment `path` holds the old content or the new one, whole: a process that is killed
    leaves at most the temporary file, whose name ends in ".partial".

    Args:
        path: Of the file; its folder is made if it does not exist.
        write: Called with the path of the temporary file.

    Raises:
        OSError: If it cannot be written: the disk is full, the folder read-only.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL, delete=False
        ) as file:
            temporary = Path(file.name)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as e:
        why = e.strerror or e
        raise OSError(f"{path} cannot be written: {why}; what was there is as it was") from e
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes text, one string a line, atomically, in UTF-8.

    Args:
        path: Of the file.
        lines: Without their ends.

    Raises:
        OSError: If it cannot be written.
    """
    text = "".join(f"{line}\n" for line in lines)
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))


def line_of_csv(values: Iterable[object]) -> str:
    """Returns a line of CSV, in quotes what needs them.

    Example:
        >>> line_of_csv([3, 0.5, "a, b", None])
        '3,0.5,"a, b",'
    """
    line = StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a .npy whole or not at all.

    Args:
        path: Where to.
        array: Of numbers.

    Raises:
        OSError: If it cannot be written.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # to a name without .npy numpy would add it
            np.save(file, array)

    write_atomic(path, write)


def write_dataset(path: Path, dataset: "Dataset") -> None:
    """Writes an xarray Dataset as netCDF, atomically, with a `sha256` of its variables.

    HDF5 itself writes to memory: on a full disk it takes the process with it.

    Args:
        path: Of the file.
        dataset: To be written.

    Raises:
        OSError: If it cannot be written.
    """
    data = dataset.assign_attrs(sha256=dataset_digest(dataset)).to_netcdf(engine="h5netcdf")
    write_atomic(path, lambda p: p.write_bytes(data))


def dataset_digest(dataset: "Dataset") -> str:
    """Returns the SHA-256 of a Dataset's variables, the same before it is written and after.

    Of each variable, in the order of names, count its name, dimensions, shape and values: integers
    and booleans as 64 bits, floats as 64 bits, all little-endian, other kinds as text. So it does
    not matter in which width a file holds them. Attributes do not count.

    Args:
        dataset: Its coordinates are variables, too.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, variable in sorted(dataset.variables.items()):
        digest.update(f"{name}{variable.dims}{variable.shape}".encode())
        values = variable.values
        if values.dtype.kind in "biuf":
            wide = "f8" if values.dtype.kind == "f" else "i8"
            digest.update(np.ascontiguousarray(values.astype(f"<{wide}")).data)
        else:
            digest.update("\0".join(map(str, values.ravel())).encode())
    return digest.hexdigest()


def save_state(path: Path, state: Mapping[str, object]) -> None:
    """Writes nested dicts and lists of tensors and JSON values as a safetensors file, atomically.

    The structure and a SHA-256 of it and the tensors stand in the file's header; no pickle. Equal
    states are equal bytes. Tuples come back as lists, tensors on the CPU.

    Args:
        path: Of the file.
        state: Tensors of any shapes, and JSON values, by names.

    Raises:
        OSError: If it cannot be written.
        TypeError: If a value is neither a tensor nor one that JSON holds.
    """
    tensors: dict[str, Tensor] = {}
    structure = _take_tensors(state, "", tensors)
    record = {"format": FORMAT, "sha256": _digest(structure, tensors), "state": structure}
    # one key: safetensors writes several in no fixed order, and equal states should be equal bytes
    data = safetensors.torch.save(tensors, {"pyrovae": json.dumps(record)})
    write_atomic(path, lambda p: p.write_bytes(data))


def digest(state: Mapping[str, object]) -> str:
    """Returns the SHA-256 of what `save_state` would write, 64 hexadecimal digits.

    It goes by way of JSON, as a file does: a tuple counts as the list that it comes back as.

    Args:
        state: As of `save_state`.
    """
    tensors: dict[str, Tensor] = {}
    structure = _take_tensors(state, "", tensors)
    return _digest(json.loads(json.dumps(structure)), tensors)


def load_state(path: Path) -> dict[str, State]:
    """Returns what `save_state` wrote; keys that are not strings come back as strings.

    Tensors are on the CPU, at addresses like those of tensors that torch makes: what is computed
    with them is the same to the last bit.

    Args:
        path: Of the file. One that is replaced meanwhile is read again.

    Raises:
        StateError: (a `ValueError`) If the file is missing, truncated, altered or of another
            origin.
    """
    while True:
        before = _which(path)
        try:
            return _loaded(path)
        except StateError:
            if _which(path) in (before, None):
                raise  # else replaced while it was read, and safetensors opens a file twice


def _which(path: Path) -> tuple[int, int] | None:
    """Returns what tells a file from one that is put in its place; `None` where there is none.

    A file that replaces another has another number (inode), or a later time.

    Args:
        path: Of the file.

    Returns:
        Its inode, and when it was last written, nanoseconds.
    """
    with suppress(OSError):
        stat = path.stat()
        return stat.st_ino, stat.st_mtime_ns
    return None


def _loaded(path: Path) -> dict[str, State]:
    """Returns the state of a file, read once.

    Before anything is made of the header, its brackets and commas are counted: lists of many
    million entries would take far more memory than the file has bytes.

    Args:
        path: Of the file.

    Raises:
        StateError: Where there is none, it is broken or of another format, its SHA-256 is not that
            of what it holds, or what it holds has no names.
    """
    if not path.exists():
        raise StateError(f"there is no {path.name} in {path.parent.resolve()}")
    try:
        size_of(path)
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("pyrovae", "{}")
            if sum(map(text.count, ",[{")) > ENTRIES:
                raise ValueError(f"it lists more than {ENTRIES:,} entries")
            record = json.loads(text)
            # copied to addresses that vector instructions take: the last bits depend on that
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        known, theirs = record.get("format") == FORMAT, record.get("sha256")
        same = known and theirs == _digest(record["state"], tensors)
        state = _put_tensors(record["state"], tensors) if same else {}
    except Exception as e:  # whatever the libraries make of broken files
        raise StateError(
            f"{path} is truncated or no safetensors file of pyrovae's: {said(e)}"
        ) from e
    if not known:
        raise StateError(f"{path} was not written by this pyrovae ({record.get('format')!r})")
    if not same:
        raise StateError(f"{path} was altered after it was written: its checksum does not match")
    if not isinstance(state, dict):
        raise StateError(f"{path} holds a {type(state).__name__}, where names were expected")
    return state


def read_text(path: Path, limit: int = 2**28) -> str:
    """Returns the text of a file, read as UTF-8.

    Args:
        path: Of the file.
        limit: Bytes that it may have; 256 MiB where nobody says.

    Raises:
        OSError: If it is no ordinary file, or cannot be read.
        ValueError: If it has more bytes, or is no UTF-8.
    """
    if (size := size_of(path)) > limit:
        raise ValueError(f"it has {size:,} bytes, where {limit:,} are the most")
    return path.read_text(encoding="utf-8")


def read_yaml(path: Path) -> Json:
    """Returns what a file of plain YAML says.

    It is read as events first and as values only then: an anchor that is referred to ten times, by
    one that is referred to ten times, and so on, is a small file that unfolds into billions of
    values.

    Args:
        path: Of the file: 64 KiB and 20 levels of nesting are the most.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is none, has anchors or tags, or is too large or deep.
    """
    text, depth = read_text(path, OPTIONS), 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise ValueError(f"it is nested deeper than {DEPTH} levels")
            if getattr(event, "anchor", None):
                raise ValueError(f"it has an anchor, {event.anchor}; write the value where it is")
        return yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ValueError(f"it is no plain YAML: {' '.join(str(e).split())[:300]}") from e


def _take_tensors(node: object, path: str, tensors: dict[str, Tensor]) -> dict[str, object]:
    """Moves the tensors below `node` into `tensors`; returns {kind: content}, names for them.

    A tensor's name is its way from the root, such as "/optimizer/state/0"; it is copied to the
    CPU, dense, and without its gradient's history.

    Args:
        node: A tensor, a dictionary, a list or tuple of nodes, or a value that JSON has to hold.
        path: Of the node, "" of the root.
        tensors: Gains those found, by name.

    Returns:
        The node as the file's header has it.
    """
    if isinstance(node, Tensor):
        tensors[path] = node.detach().to("cpu", copy=True).contiguous()
        return {"tensor": path}
    if isinstance(node, dict):
        return {
            "dict": {str(k): _take_tensors(v, f"{path}/{k}", tensors) for k, v in node.items()}
        }
    if isinstance(node, list | tuple):
        return {"list": [_take_tensors(v, f"{path}/{i}", tensors) for i, v in enumerate(node)]}
    return {"value": node}


def _put_tensors(node: Json, tensors: dict[str, Tensor]) -> State:
    """Returns what `_take_tensors` made of a node, with the tensors in their places again.

    Args:
        node: As the header has it.
        tensors: Those of the file by name.

    Raises:
        ValueError: If it is of no known kind.
        KeyError: If a tensor that it names is not there.
    """
    match node:
        case {"tensor": str(name)}:
            return tensors[name]
        case {"dict": dict(content)}:
            return {k: _put_tensors(v, tensors) for k, v in content.items()}
        case {"list": list(content)}:
            return [_put_tensors(v, tensors) for v in content]
        case {"value": value}:
            return cast("State", value)
    raise ValueError("it holds neither a tensor, a dictionary, a list nor a value")


def _digest(structure: object, tensors: dict[str, Tensor]) -> str:
    """Returns the SHA-256 of a structure, and of the tensors by name, with types and shapes.

    Args:
        structure: Of `_take_tensors`, written as JSON.
        tensors: On the CPU, dense, by name; their bytes count, so that -0 and 0 differ.
    """
    digest = hashlib.sha256(json.dumps(structure).encode())
    for name in sorted(tensors):
        t = tensors[name]
        digest.update(f"{name}{t.dtype}{tuple(t.shape)}".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _umask() -> int:
    """Returns the process's mask of permissions, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
