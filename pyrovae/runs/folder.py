"""A folder of results: one process at a time works in it, and only what is ours is touched.

Three files keep account of that:

    manifest.json        {"written by": "pyrovae", "files": [names]}: names of files, relative to
                         the folder, and of folders, which end in "/"
    .pyrovae.lock        locked by the operating system for as long as a process works here
    .pyrovae.lock.json   who that is, in a sentence: for the message to others
"""

__all__ = ["Folder", "worked_in"]

import json
import os
import shlex
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pyrovae import storage
from pyrovae.errors import StateError

MANIFEST, LOCK, OWNER = "manifest.json", ".pyrovae.lock", ".pyrovae.lock.json"


class Folder:
    """What of a folder is ours, by its `manifest.json`: names of files, and of folders with a `/`.

    A name stands there before anything is written under it, so that after a kill too all that is
    ours is listed; what is not listed is never replaced or removed, nor is a symbolic link
    followed. See `worked_in`, which makes one.

    Args:
        path: The folder.

    Attributes:
        names: The list.

    Raises:
        StateError: If there is a `manifest.json` that is not ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = _listed_in(path / MANIFEST)

    def __contains__(self, name: str) -> bool:
        """Whether a file is there and ours.

        Args:
            name: Relative to the folder.
        """
        return self._listed(name) and (self.path / name).exists()

    def check(self, names: Iterable[str]) -> None:
        """Returns if all of these names may be written.

        Args:
            names: Relative to the folder; of folders with a "/" at the end.

        Raises:
            ValueError: If one of them is there and not ours, or is reached through a link.
        """
        for name in names:
            if link := self._link(name):
                raise ValueError(f"{link} is a symbolic link, and none is followed; remove it")
            if not self._listed(name) and (self.path / name).exists():
                raise ValueError(
                    f"{self.path / name} is there, and {MANIFEST} does not list it as written by "
                    "pyrovae; move it away, or name another folder"
                )

    def claim(self, names: Iterable[str]) -> None:
        """Lists names of what will be written, before it is.

        Args:
            names: As of `check`.

        Raises:
            ValueError: As `check`; then nothing is listed.
            OSError: If `manifest.json` cannot be written.
        """
        names = list(names)
        self.check(names)
        self._write([*self.names, *names])

    def remove(self, names: Iterable[str]) -> None:
        """Removes those of these files that are ours, and of our folders what we write there.

        In a folder that is ours that is its files of state; it goes as well, with the one around
        it, where nothing else is left in them.

        Args:
            names: As of `check`; those that are not listed, or reached through a link, are left
                alone.
        """
        names = [n for n in names if n in self.names and not self._link(n)]
        for name in names:
            place = self.path / name
            if not name.endswith("/"):
                place.unlink(missing_ok=True)
                continue
            for file in place.glob(f"*{storage.STATE}"):
                file.unlink()
            for emptied in (place, place.parent):
                with suppress(OSError):  # something else lies there
                    emptied.rmdir()
        self._write(n for n in self.names if n not in names)

    def settle(self) -> None:
        """Strikes off the list what is not there."""
        self._write(n for n in self.names if (self.path / n).exists())

    def sweep(self) -> None:
        """Removes what killed processes left half-written of files that are ours."""
        for name in (*self.names, MANIFEST, OWNER):
            place = self.path / name
            parent, of = (place, "*") if name.endswith("/") else (place.parent, place.name)
            if not self._link(name):
                for left in parent.glob(f".{of}.*{storage.PARTIAL}"):
                    left.unlink(missing_ok=True)

    def _write(self, names: Iterable[str]) -> None:
        """Replaces the list, in `manifest.json` too where it has changed.

        Args:
            names: In order; what stands there twice is kept once.
        """
        names = list(dict.fromkeys(names))
        if names != self.names:
            self.names = names
            record = {"written by": "pyrovae", "files": names}
            storage.write_lines(self.path / MANIFEST, [json.dumps(record, indent=1)])

    def _listed(self, name: str) -> bool:
        """Returns whether a name is on the list, or lies in a folder that is."""
        return any(
            name == own or (own.endswith("/") and name.startswith(own)) for own in self.names
        )

    def _link(self, name: str) -> Path | None:
        """Returns the first symbolic link on the way from the folder to a name in it, or `None`.

        The folder itself may be one: whoever named it meant it.
        """
        parts = Path(name).parts
        steps = (self.path.joinpath(*parts[: i + 1]) for i in range(len(parts)))
        return next((step for step in steps if step.is_symlink()), None)


@contextmanager
def worked_in(path: str | Path) -> Iterator[Folder]:
    """Gives the folder to this process alone, made if it is not there; its lock dies with it.

    A folder that was made and in which nothing came to be is removed again. What killed processes
    left half-written is removed at the start, and names of what was never written are struck off
    at the end.

    Args:
        path: Of the folder.

    Yields:
        What of it is ours.

    Raises:
        StateError: If another process, or thread, works in it; it is named.
        ValueError: If the folder cannot be written.
    """
    path = Path(path)
    missing = [p for p in (path, *path.parents) if not p.exists()]
    lock, owner, folder = FileLock(path / LOCK, timeout=0), path / OWNER, None
    try:
        path.mkdir(parents=True, exist_ok=True)
        if link := next((f for f in (path / LOCK, owner) if f.is_symlink()), None):
            raise ValueError(f"{link} is a symbolic link, and none is followed; remove it")
        lock.acquire()
    except Timeout as e:
        who = "another process"
        with suppress(OSError, ValueError):
            who = storage.read_text(owner).strip()
        raise StateError(
            f"{path} is in use by {who}; wait until that has ended, or name another folder"
        ) from e
    except OSError as e:
        raise ValueError(f"{path} cannot be written: {e.strerror}; name another folder") from e
    try:
        storage.write_lines(owner, [_this_process()])
        folder = Folder(path)
        folder.sweep()
        try:
            yield folder
        finally:
            folder.settle()
    finally:
        owner.unlink(missing_ok=True)
        if not (folder and folder.names):
            (path / LOCK).unlink(missing_ok=True)
            if folder:
                (path / MANIFEST).unlink(missing_ok=True)
            for made in missing:
                with suppress(OSError):  # something else came to be there
                    made.rmdir()
        lock.release()


def _this_process() -> str:
    """Returns who works here, for others to read: process, machine, since when, command line."""
    begun = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    command = shlex.join(sys.orig_argv)
    return f"process {os.getpid()} on {socket.gethostname()}, there since {begun}: {command}"


def _listed_in(path: Path) -> list[str]:
    """Returns the names in a manifest; none where there is none.

    A manifest decides what may be removed, so it is not read through a link, and no name in it may
    lead out of the folder.

    Args:
        path: Of `manifest.json`.

    Raises:
        StateError: If it is not ours, or not as it was written.
    """
    if not path.exists() and not path.is_symlink():
        return []
    try:
        record = {} if path.is_symlink() else json.loads(storage.read_text(path))
        names = record["files"]
        ours = record["written by"] == "pyrovae" and isinstance(names, list)
        if ours and all(map(_inside, names)):
            return names
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise StateError(f"{path} is no manifest of pyrovae's; move it away")


def _inside(name: object) -> bool:
    """Returns whether a name stays in the folder that it is in: relative, without "..", not empty.

    Args:
        name: As a manifest has it, where anything may stand.
    """
    return (
        isinstance(name, str)
        and not Path(name).is_absolute()
        and ".." not in Path(name).parts
        and bool(Path(name).parts)
    )
