"""Finished blocks of an evaluation, kept until it has come to its end."""

__all__ = ["BLOCKS", "Blocks"]

from collections.abc import Iterator, MutableMapping
from pathlib import Path

from pyrovae import storage
from pyrovae.runs.folder import Folder
from pyrovae.storage import State

BLOCKS = "blocks"  # the folder in which they lie


class Blocks(MutableMapping[str, dict[str, State]]):
    """Finished blocks of an evaluation in a folder: whole or not there, each a file of its own.

    An evaluation that is stopped finds here what it had done. One that is broken, or was altered,
    counts as not there, and is computed again.

    A block "guide-64" holds by name the columns `(..., n)` that estimators read of the guide's
    draws for the n rows from 64 on, such as "importance.value", the "seconds" it took, and, where
    data share their draws, "batches", `(B, n)`; see `pyrovae.evidence.blocks`. One named
    "guide-second" is what a second way said of all of them.

    Args:
        folder: Where they lie, in a folder of their own.
        key: What the blocks depend on: those of another key are not seen.

    Raises:
        ValueError: If something that is not ours lies in their place.
    """

    def __init__(self, folder: Folder, key: str) -> None:
        self._owner, self._name = folder, f"{BLOCKS}/{key}/"
        self._folder = folder.path / self._name
        folder.claim([self._name])

    def __getitem__(self, name: str) -> dict[str, State]:
        if name not in self:
            raise KeyError(name)
        return storage.load_state(self._path(name))

    def __setitem__(self, name: str, block: dict[str, State]) -> None:
        storage.save_state(self._path(name), block)

    def __delitem__(self, name: str) -> None:
        self._path(name).unlink()

    def __contains__(self, name: object) -> bool:
        try:
            storage.load_state(self._path(str(name)))
        except storage.StateError:  # not there, or not as it was written: to be computed again
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in sorted(self._folder.glob(f"*{storage.STATE}")))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def discard(self) -> None:
        """Removes these blocks."""
        self._owner.remove([self._name])

    def _path(self, name: str) -> Path:
        """Returns the file of a block, `blocks/<key>/<name>.safetensors` in the run's folder."""
        return self._folder / f"{name}{storage.STATE}"
