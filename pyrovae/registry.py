"""Kinds of a thing that are known by their names: entered when subclassed, found by name."""

__all__ = ["enter", "find", "import_all", "is_path"]

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar, Protocol, TypeVar


class Named(Protocol):
    """A class that has a name, as a user writes it."""

    name: ClassVar[str]


T = TypeVar("T", bound=Named)


def enter(known: dict[str, type[T]], cls: type[T]) -> None:
    """Makes a class known by the name that it has of its own; one that has none is not entered.

    A class that is defined again, as a notebook's cell does, takes the place of the former one.

    Args:
        known: The classes of this kind by name; gains one.
        cls: The new class.

    Raises:
        TypeError: If another class has that name.
    """
    if "name" not in vars(cls):
        return
    other = known.setdefault(cls.name, cls)
    if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TypeError(
            f"the name {cls.name!r} is that of {other.__module__}.{other.__qualname__}; give "
            f"{cls.__qualname__} another"
        )
    known[cls.name] = cls


def find(known: Mapping[str, type[T]], name: str, kind: str, hint: str) -> type[T]:
    """Returns the class of a name.

    Args:
        known: The classes of this kind by name.
        name: As a user wrote it.
        kind: Of the thing, in a word: "model".
        hint: Where one of the user's own becomes known.

    Raises:
        ValueError: If there is none; the names most like it are said.
    """
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=3) or sorted(known)
    raise ValueError(
        f"there is no {kind} named {name!r}; did you mean {' or '.join(near)}? ({hint})"
    )


@cache
def import_all(package: str) -> None:
    """Imports every module of a package, once: what they define is then known by its name.

    Args:
        package: Its name, "pyrovae.models".
    """
    for module in iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")


def is_path(name: object) -> bool:
    """Returns whether a name is an import path, `package.module.Name`, and not that of a file.

    Args:
        name: As a user wrote it.

    Example:
        >>> is_path("my_models.Mine"), is_path("vae"), is_path("mine.npy")
        (True, False, False)
    """
    if not isinstance(name, str) or name.endswith((".npy", ".npz")) or Path(name).exists():
        return False
    return "." in name and all(part.isidentifier() for part in name.split("."))
