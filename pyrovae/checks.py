"""Checks of numbers that users give."""

__all__ = [
    "check_options",
    "check_positive",
    "check_seed",
    "check_sizes",
    "is_at_least",
    "shown",
]

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from inspect import signature
from math import inf
from numbers import Integral, Real

SHOWN = 60  # characters of a value in a message


def check_sizes(**sizes: object) -> None:
    """Raises ValueError unless every size is a positive integer, of Python or NumPy."""
    for name, size in sizes.items():
        if isinstance(size, Integral) and size >= 2**63:
            raise ValueError(f"{name} is {size}; give a positive integer below 2^63")
        if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
            raise ValueError(f"{name} is {size!r}; give a positive integer")


def check_positive(**numbers: object) -> None:
    """Raises ValueError unless every number is real, finite and above 0, of Python or NumPy."""
    for name, x in numbers.items():
        if isinstance(x, bool) or not isinstance(x, Real) or not 0 < float(x) < inf:
            raise ValueError(f"{name} is {x!r}; give a positive number")


def shown(value: object) -> str:
    """Returns a value as a message can hold it: its beginning, on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def is_at_least(x: object, least: float) -> bool:
    """Returns whether x is a real number, of Python or NumPy, that is at least so large.

    Args:
        x: As the user gave it.
        least: What it has to reach.
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
