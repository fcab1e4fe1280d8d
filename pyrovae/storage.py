"""Atomic, checked reading and writing of state: the only module that writes it."""

__all__ = [
    "StateError",
    "digest",
    "load_state",
    "save_state",
    "write_atomic",
    "write_dataset",
    "write_lines",
]

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

FORMAT = "pyrovae-1"
STATE, PARTIAL = ".safetensors", ".partial"  # how names of state end, and of what is half-written


class StateError(ValueError):
    """State that is missing, truncated, altered, or not that of the program at hand."""


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a temporary file beside `path` and moves it there once it is on the disk.

    At every moment `path` holds the old content or the new one, whole.

    Raises:
        OSError: If it cannot be written: the disk is full, the folder read-only.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside: Any = {"dir": path.parent, "prefix": f".{path.name}.", "suffix": PARTIAL}
        with NamedTemporaryFile(**beside, delete=False) as file:
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
    """Writes text, one string a line, atomically."""
    text = "".join(f"{line}\n" for line in lines)
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_dataset(path: Path, dataset: Any) -> None:
    """Writes an xarray Dataset as netCDF, atomically.

    HDF5 itself writes to memory: on a full disk it takes the process with it.
    """
    data = dataset.to_netcdf(engine="h5netcdf")
    write_atomic(path, lambda p: p.write_bytes(data))


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes nested dicts and lists of tensors and JSON values as a safetensors file, atomically.

    The structure and a SHA-256 of the tensors stand in the file's header; no pickle.
    """
    tensors: dict[str, Tensor] = {}
    structure = _take_tensors(state, "", tensors)
    record = {"format": FORMAT, "sha256": _digest(structure, tensors), "state": structure}
    # one key: safetensors writes several in no fixed order, and equal states should be equal bytes
    data = safetensors.torch.save(tensors, {"pyrovae": json.dumps(record)})
    write_atomic(path, lambda p: p.write_bytes(data))


def digest(state: dict[str, Any]) -> str:
    """Returns the SHA-256 of what `save_state` would write."""
    tensors: dict[str, Tensor] = {}
    structure = _take_tensors(state, "", tensors)
    return _digest(json.loads(json.dumps(structure)), tensors)


def load_state(path: Path) -> dict[str, Any]:
    """Returns what `save_state` wrote; keys that are not strings come back as strings.

    Raises:
        StateError: (a `ValueError`) If the file is missing, truncated, altered or of another
            origin.
    """
    if not path.is_file():
        raise StateError(f"there is no {path.name} in {path.parent.resolve()}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get("pyrovae", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, json.JSONDecodeError) as e:
        raise StateError(f"{path} is truncated or no safetensors file: {e}") from e
    if record.get("format") != FORMAT:
        raise StateError(f"{path} was not written by this pyrovae ({record.get('format')!r})")
    if record["sha256"] != _digest(record["state"], tensors):
        raise StateError(f"{path} was altered after it was written: its checksum does not match")
    return _put_tensors(record["state"], tensors)


def _take_tensors(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Moves the tensors below `node` into `tensors` and returns it with names in their place."""
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


def _put_tensors(node: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    [(kind, content)] = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {k: _put_tensors(v, tensors) for k, v in content.items()}
    if kind == "list":
        return [_put_tensors(v, tensors) for v in content]
    return content


def _digest(structure: Any, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(structure).encode())
    for name in sorted(tensors):
        t = tensors[name]
        digest.update(f"{name}{t.dtype}{tuple(t.shape)}".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
