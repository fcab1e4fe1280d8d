"""How a program is told: what it is like, what comes of it, and by which answer that is known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MADE: list["Case"] = []


@dataclass(frozen=True)
class Case:
    """A program in a pattern of Pyro's own.

    Attributes:
        name: Its function's.
        what: A line on it, the function's docstring.
        pattern: Where Pyro or its tutorials write such a program.
        make: Returns model, guide, arguments and, of one that is accepted, a function that gives
            log p(x): `(N,)`, or a scalar of all data.
        answer: How that function knows.
        estimators: What is compared with it.
        without: Estimators that refuse it in a sentence.
        draws: Particles of importance sampling.
        singly: Whether particles run one by one, with a warning.
        plate: Name of the data plate; `None` for joint evidence.
        refused: Why there can be no number; "" where there is one.
        message: What the one sentence says then, a regular expression.
    """

    name: str
    what: str
    pattern: str
    make: Callable[[], tuple[Any, ...]]
    answer: str
    estimators: tuple[str, ...]
    without: tuple[str, ...]
    draws: int
    singly: bool
    plate: str | None
    refused: str
    message: str


def case(
    pattern: str,
    answer: str = "",
    estimators: str = "importance",
    without: str = "",
    draws: int = 2_000,
    singly: bool = False,
    plate: str | None = "data",
    refused: str = "",
    message: str = "",
) -> Callable[[Callable[[], tuple[Any, ...]]], Callable[[], tuple[Any, ...]]]:
    """Adds the program that a function makes to the cases; arguments as the fields of `Case`."""

    def add(make: Callable[[], tuple[Any, ...]]) -> Callable[[], tuple[Any, ...]]:
        name, what = make.__name__, (make.__doc__ or "").strip()
        names = () if refused else tuple(estimators.split())
        outcome = names, tuple(without.split()), draws, singly, plate, refused, message
        MADE.append(Case(name, what, pattern, make, answer, *outcome))
        return make

    return add
