"""What a module is known by: a library's version, or the source of a user's own."""

__all__ = ["VERSIONED", "library", "own_source", "source"]

import sys
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

VERSIONED = "torch", "pyro", "numpy"


@cache
def library(name: str | None) -> str | None:
    """Returns what a library's module is known by, `None` for a module of the user's own.

    That is a name for the standard library, whose version is Python's; name and version for torch,
    Pyro and NumPy; for other installed packages a digest of their files' names, sizes and times,
    which an editable install changes and a version does not.

    Args:
        name: Of the module, with its package; `None` as of an object without one.
    """
    top = str(name).partition(".")[0]
    if top in sys.stdlib_module_names or top == "pyrovae":
        return top
    if top in VERSIONED:
        return f"{top} {import_module(top).__version__}"
    root = _file(top)
    if root is None or not {"site-packages", "dist-packages"} & set(root.parts):
        return None
    folder = root.parent
    files = sorted(folder.rglob("*.py")) if root.stem == "__init__" else [root]
    stats = [(str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return f"{top} {sha256(repr(stats).encode()).hexdigest()}"


def _file(top: str) -> Path | None:
    """Returns where a module lies, imported or not; `None` where it has no file.

    Args:
        top: Name of a module without dots: a package lies where its `__init__.py` does.
    """
    if top in sys.modules:
        file = getattr(sys.modules[top], "__file__", None)
    else:
        try:
            file = getattr(find_spec(top), "origin", None)
        except (ImportError, ValueError):
            file = None
    return Path(file) if file else None


@cache
def source(name: str | None) -> str:
    """Returns a digest of a module's file, "" where it has none (a notebook, a shell).

    Args:
        name: Of an imported module, or `None`.
    """
    path = getattr(sys.modules.get(str(name)), "__file__", None)
    return sha256(Path(path).read_bytes()).hexdigest() if path and Path(path).is_file() else ""


@cache
def own_source() -> str:
    """Returns a digest of this package's code: the version stays while it is worked on."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
