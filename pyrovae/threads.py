"""One thread at a time: Pyro has one stack of handlers and one store of parameters for all."""

__all__ = ["one_at_a_time"]

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_LOCK = RLock()


def one_at_a_time(fn: Callable[P, R]) -> Callable[P, R]:
    """Has threads wait for each other in all functions that are decorated by it.

    Two that run programs at once would apply each other's handlers, and leave them behind. A
    function that calls another of them, or is called from a callback, does not wait for itself.

    Args:
        fn: A function that runs programs, or changes settings of the whole process.

    Returns:
        The function, with the same signature.
    """

    @wraps(fn)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _LOCK:
            return fn(*args, **kwargs)

    return alone
