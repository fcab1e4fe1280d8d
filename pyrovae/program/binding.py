"""Programs of any arguments as programs of rows: what is no table of data stays as it is."""

__all__ = ["Bound", "Pair", "bound", "is_table"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard, overload

from torch import Tensor

from pyrovae.data.rows import Rows

Fn = Callable[..., object]  # a model or guide: what it returns is nobody's
Pair = tuple[Fn, Fn | None]
Places = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Bound:
    """A program as a callable of tables whose first axis counts the data.

    Everything else (flags, sizes, modules, `None`) it is given as it was.

    Attributes:
        fn: The program.
        arguments: What it is called with; in the place of a table, anything.
        places: Number of the argument that each table is, and its axis that counts the data.
    """

    fn: Fn
    arguments: tuple[object, ...]
    places: Places

    def __call__(self, *tables: Tensor) -> object:
        """Runs the program on these rows, and returns what it returns.

        Args:
            tables: In the order of `places`, `(n, ...)` each; one that is no argument is left out.
        """
        arguments = list(self.arguments)
        for (number, axis), table in zip(self.places, tables, strict=False):
            arguments[number] = table.movedim(0, axis)
        return self.fn(*arguments)


@overload
def bound(fn: Fn, arguments: Sequence[object], places: Places) -> Fn: ...
@overload
def bound(fn: None, arguments: Sequence[object], places: Places) -> None: ...
@overload
def bound(fn: Fn | None, arguments: Sequence[object], places: Places) -> Fn | None: ...
def bound(fn: Fn | None, arguments: Sequence[object], places: Places) -> Fn | None:
    """Returns the program with all arguments bound that are no tables; itself if all are.

    Args:
        fn: A model or guide, or `None`.
        arguments: All that it is called with.
        places: Number of each table among them, and its axis that counts the data.
    """
    if fn is None or (arguments and places == tuple((i, 0) for i in range(len(arguments)))):
        return fn
    tables = dict(places)
    kept = tuple(None if i in tables else a for i, a in enumerate(arguments))
    return Bound(fn, kept, places)


def is_table(argument: object) -> TypeGuard[Tensor | Rows]:
    """Returns whether an argument is a tensor with an axis, or rows on disk."""
    return isinstance(argument, Tensor | Rows) and argument.ndim > 0
