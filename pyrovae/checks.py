"""Checks of numbers that users give."""

__all__ = ["check_seed", "check_sizes"]

from numbers import Integral
from typing import Any


def check_sizes(**sizes: Any) -> None:
    """Raises ValueError unless every size is a positive integer, of Python or NumPy."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
            raise ValueError(f"{name} is {size!r}; give a positive integer")


def check_seed(seed: Any) -> None:
    """Raises ValueError unless a seed is an integer that is not negative, or `None`."""
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0):
        raise ValueError(f"seed is {seed!r}; give an integer, 0 or more, or None")
