"""Kinds of a thing that are known by their names: entered when subclassed, found by name."""

__all__ = [
    "FILES",
    "asked_for",
    "called",
    "enter",
    "find",
    "import_all",
    "is_path",
    "made",
    "names_table",
    "written",
]

from ast import Call, literal_eval, parse
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar, NamedTuple, Protocol, TypeVar

TABLES = ".csv", ".parquet"
FILES = ".npy", ".npz", *TABLES  # of data, by their endings


class Named(Protocol):
    """A class that has a name, as a user writes it."""

    name: ClassVar[str]


T = TypeVar("T", bound=Named)
R = TypeVar("R")


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


def names_table(data: object) -> bool:
    """Returns whether data are a table: the path of one, or a DataFrame of pandas.

    Example:
        >>> names_table("people.csv"), names_table("digits")
        (True, False)
    """
    if isinstance(data, str | Path):
        return str(data).endswith(TABLES)
    return type(data).__name__ == "DataFrame"


def is_path(name: object) -> bool:
    """Returns whether a name is an import path, `package.module.Name`, and not that of a file.

    Args:
        name: As a user wrote it.

    Example:
        >>> is_path("my_models.Mine"), is_path("my_models.Mine(3)"), is_path("mine.npy")
        (True, True, False)
    """
    if not isinstance(name, str) or name.endswith(FILES) or Path(name).exists():
        return False
    name = name.partition("(")[0]  # options may follow
    return "." in name and all(part.isidentifier() for part in name.split("."))


class Called(NamedTuple):
    """A name with options, as a text has them.

    Attributes:
        name: Before the parenthesis.
        args: Numbers, words and lists of them, in order.
        kwargs: Likewise, by name.
    """

    name: str
    args: tuple[object, ...]
    kwargs: dict[str, object]


def called(text: str, kind: str) -> Called:
    """Returns what a text names, with its options as Python writes them; nothing is run.

    Args:
        text: As a user wrote it.
        kind: Of the thing, in a word.

    Raises:
        ValueError: If the options are no numbers, words or lists of them.

    Example:
        >>> called("student-t(2.5, floor=0.1)", "likelihood")
        Called(name='student-t', args=(2.5,), kwargs={'floor': 0.1})
    """
    name, bracket, rest = text.strip().partition("(")
    try:
        call = parse(f"made({rest}" if bracket else "made()", mode="eval").body
        if not isinstance(call, Call) or isinstance(call.func, Call):
            raise ValueError("it is no call")
        args = tuple(literal_eval(x) for x in call.args)
        kwargs = {k.arg: literal_eval(k.value) for k in call.keywords if k.arg}
        if len(kwargs) < len(call.keywords):
            raise ValueError("a keyword has no name")
    except (SyntaxError, ValueError) as e:
        raise ValueError(
            f"the {kind} {text!r} cannot be read; write options as in 'name(3, option=0.5)'"
        ) from e
    return Called(name.strip(), args, kwargs)


def written(name: str, options: Mapping[str, object]) -> str:
    """Returns the text that `called` reads: a name with its options.

    Args:
        name: As a user writes it.
        options: Numbers, words and lists of them, by name.

    Example:
        >>> written("flow", {"context": 32, "hidden_dims": [64]}), written("normal", {})
        ('flow(context=32, hidden_dims=[64])', 'normal')
    """
    given = ", ".join(f"{option}={value!r}" for option, value in options.items())
    return f"{name}({given})" if given else name


def asked_for(known: Mapping[str, type[T]], text: str, kind: str, hint: str, *sizes: int) -> T:
    """Returns what a text asks for: an object of the class of its name, with its options.

    Args:
        known: The classes of this kind by name.
        text: A name, with options as in "vamp(500)".
        kind: Of the thing, in a word.
        hint: Where one of the user's own becomes known.
        sizes: What the class takes before its options.

    Raises:
        ValueError: If there is no such class, or it does not take the options.
    """
    asked = called(text, kind)
    cls = find(known, asked.name, kind, hint)
    return made(cls, asked._replace(args=(*sizes, *asked.args)), kind)


def made(fn: Callable[..., R], asked: Called, kind: str) -> R:
    """Returns what a class or function makes of the options that a text has.

    Args:
        fn: The class that the name stands for.
        asked: The text, read.
        kind: Of the thing, in a word.

    Raises:
        ValueError: If it does not take them.
    """
    takes = signature(fn)
    try:
        takes.bind(*asked.args, **asked.kwargs)
    except TypeError as e:
        raise ValueError(
            f"the {kind} {asked.name} cannot be had with these options ({e}); it takes "
            f"{', '.join(takes.parameters) or 'none'}"
        ) from e
    return fn(*asked.args, **asked.kwargs)
