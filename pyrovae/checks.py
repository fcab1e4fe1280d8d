"""Checks of numbers that users give: each error names the argument, what came, and what may."""

__all__ = [
    "check_gaps_tell_nothing",
    "check_not_negative",
    "check_options",
    "check_positive",
    "check_seconds",
    "check_seed",
    "check_sizes",
    "check_widths",
    "gaps_inform",
    "is_at_least",
    "may_be_missing",
    "nan_is_missing",
    "shown",
]

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from inspect import signature
from math import inf
from numbers import Integral, Real
from typing import TypeVar

SHOWN = 60  # characters of a value in a message
F = TypeVar("F", bound=Callable[..., object])


def check_sizes(**sizes: object) -> None:
    """Raises ValueError unless every size is a positive integer below 2^63, of Python or NumPy.

    Args:
        sizes: What users gave, by the name of the argument; `True` is no integer here.
    """
    for name, size in sizes.items():
        if isinstance(size, Integral) and size >= 2**63:
            raise ValueError(f"{name} is {size}; give a positive integer below 2^63")
        if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
            raise ValueError(f"{name} is {size!r}; give a positive integer")


def check_widths(**given: object) -> tuple[int, ...]:
    """Returns a list of sizes as a tuple of integers.

    Args:
        given: What a user gave, by the name of the argument; one of them.

    Raises:
        TypeError: If it is no list.
        ValueError: If a size is no positive integer.
    """
    ((name, widths),) = given.items()
    if isinstance(widths, str) or not isinstance(widths, Iterable):
        raise TypeError(f"{name} is {widths!r}; give a list of widths, such as [256]")
    for width in (widths := tuple(widths)):
        check_sizes(**{name: width})
    return tuple(map(int, widths))  # not of a parser's types


def check_positive(**numbers: object) -> None:
    """Raises ValueError unless every number is real, finite and above 0, of Python or NumPy.

    Args:
        numbers: What users gave, by the name of the argument.
    """
    for name, x in numbers.items():
        if isinstance(x, bool) or not isinstance(x, Real) or not 0 < float(x) < inf:
            raise ValueError(f"{name} is {x!r}; give a positive number")


def check_not_negative(**numbers: object) -> None:
    """Raises ValueError unless every number is real, finite and 0 or above, of Python or NumPy.

    Args:
        numbers: What users gave, by the name of the argument.
    """
    for name, x in numbers.items():
        if not is_at_least(x, 0) or x == inf:
            raise ValueError(f"{name} is {x!r}; give a number, 0 or more")


def check_seconds(max_seconds: object) -> None:
    """Raises ValueError unless it is `None` or a number, 0 or more.

    Example:
        >>> check_seconds(-1)
        Traceback (most recent call last):
        ValueError: max_seconds is -1; give a number, 0 or more
    """
    if not (max_seconds is None or is_at_least(max_seconds, 0)):
        raise ValueError(f"max_seconds is {max_seconds!r}; give a number, 0 or more")


def shown(value: object) -> str:
    """Returns a value as messages hold it: its beginning, one line of 63 characters at most.

    Example:
        >>> shown(list(range(100)))
        '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1...'
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def is_at_least(x: object, least: float) -> bool:
    """Returns whether x is a real number, of Python or NumPy, and at least so large; NaN is not.

    Args:
        x: What a user gave.
        least: The least that is accepted.
    """
    return isinstance(x, Real) and not isinstance(x, bool) and float(x) >= least


def check_seed(seed: object) -> None:
    """Raises ValueError unless a seed is an integer from 0 to 2^63 - 1, or `None`."""
    if seed is None:
        return
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**63:
        raise ValueError(f"seed is {seed!r}; give an integer from 0 to 2^63 - 1, or None")


def check_options(given: Iterable[str], known: type, fn: Callable[..., object]) -> None:
    """Raises TypeError for a name that is no option of a function, and suggests the nearest.

    Args:
        given: Names of the keyword arguments that it got beside those of its signature.
        known: The TypedDict of those that it takes.
        fn: The function.
    """
    named = [p.name for p in signature(fn).parameters.values() if p.kind is p.KEYWORD_ONLY]
    names = [*named, *sorted(getattr(known, "__optional_keys__", ()))]
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names)}"
            what = getattr(fn, "__name__", "it")
            raise TypeError(f"{what} has no option {name!r}; {hint}")


def nan_is_missing(*names: str, informs: str = "") -> Callable[[F], F]:
    """Returns a decorator for a model in whose arguments of these names NaN says: missing.

    It is then not refused there, as it is in other data; what the model makes of it is its affair.

    Args:
        names: Of arguments.
        informs: The site of what is missing, in a model whose gaps tell of it: one of values that
            are missing not at random.

    Raises:
        TypeError: If a name is none, as where the parentheses are left out.
        ValueError: If the model has no argument of that name.
    """
    if wrong := [n for n in names if not isinstance(n, str)]:
        raise TypeError(
            f"nan_is_missing takes names of arguments, not {wrong[0]!r}; give them, as in "
            '@nan_is_missing("x")'
        )

    def marked(fn: F) -> F:
        known = list(signature(fn).parameters)
        if absent := [n for n in names if n not in known]:
            raise ValueError(
                f"the model has no argument {absent[0]!r}; name one of {', '.join(known)}"
            )
        vars(fn).update(nan_is_missing=names, gaps_inform=informs)
        return fn

    return marked


def may_be_missing(fn: Callable[..., object]) -> list[int]:
    """Returns the numbers of a model's arguments in which NaN says: missing.

    Example:
        >>> @nan_is_missing("y")
        ... def model(x, y): ...
        >>> may_be_missing(model)
        [1]
    """
    names = getattr(fn, "nan_is_missing", ())
    return [list(signature(fn).parameters).index(name) for name in names]


def gaps_inform(fn: Callable[..., object]) -> str:
    """Returns the site of what is missing in a model whose gaps tell of it, "" in others."""
    return getattr(fn, "gaps_inform", "")


def check_gaps_tell_nothing(fn: Callable[..., object], what: str) -> None:
    """Raises ValueError where a gap that is made in data would tell of what stood there.

    Args:
        fn: The model.
        what: What a gap is made for.
    """
    if gaps_inform(fn):
        raise ValueError(
            f"in this model gaps tell of what is missing, so that {what} cannot be had by making "
            "one; take a model of values missing at random, such as pv.TableVAE"
        )
