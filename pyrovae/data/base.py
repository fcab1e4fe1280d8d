"""What a data set is: a class known by its name, which reads rows, all of one kind or in parts."""

__all__ = ["DataSet", "FromFunction", "Parts", "sets"]

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pyrovae.data.splits import Split
from pyrovae.likelihoods.columns import Column
from pyrovae.registry import enter

if TYPE_CHECKING:  # which takes a second, and only tables need
    from pandas import Index, Series

Parts = Split | tuple[Split, ...]
sets: "dict[str, type[DataSet]]" = {}


class DataSet:
    """Data by a name: where they lie, how they are read, and what is on record of them.

    A new one is one subclass with a `name` and `read`, in a module of its own or of a user's; once
    that is imported it is known by its name to `pyrovae.data.load` and to `--data`. Without a name
    it is known by its place, `package.module.Class`.

    Attributes:
        name: The name a user writes.
        image_shape: `(height, width)` of a row, or `None`.
        scaling: What its numbers were divided by, in words.
        valid_size: Rows held out of the training rows for validation where nobody says how many;
            `None` for a fifth.
        columns: What each column of x is, of a table; else none.
        index: Names of all rows, of a table; else `None`.

    Example:
        >>> import torch
        >>> from pyrovae.data import DataSet, Split, load
        >>> class Coins(DataSet):
        ...     name = "coins"
        ...     def read(self, root, download):
        ...         return Split(torch.eye(10).repeat(5, 1))
        >>> load("coins").train
        Split(x=(30, 10), y=None)
    """

    name: ClassVar[str] = ""
    image_shape: tuple[int, int] | None = None
    scaling: str = "none"
    valid_size: int | None = None
    columns: tuple[Column, ...] = ()
    index: "Index | Series | None" = None

    def __init_subclass__(cls) -> None:
        """Makes the class known by its name, where it has one of its own.

        Raises:
            TypeError: If another class has that name.
        """
        enter(sets, cls)

    @property
    def label(self) -> str:
        """What the record calls it: its name, or the place of its class."""
        own = type(self)
        return vars(own).get("name") or f"{own.__module__}.{own.__qualname__}"

    def read(self, root: Path, download: bool) -> Parts:
        """Returns the rows: x `(N, D)` floats, and where there are labels y `(N,)` int64.

        One `Split` is divided at random into training, validation and test data; of two, training
        and test data, the last training rows are held out for validation; three are taken as they
        are.

        Args:
            root: Folder that holds the named data sets, `--root`.
            download: Whether what is missing may be fetched.

        Raises:
            DataError: If they are not there, or are not what they should be.
        """
        raise NotImplementedError(f"{self.label} reads no rows; define read(root, download)")

    def published(self, parts: tuple[Split, ...]) -> str:
        """Returns how the three parts that `read` gave came about, in words for the record.

        Args:
            parts: Training, validation and test data.
        """
        return "fixed, as published"


class FromFunction(DataSet):
    """A data set that a function of no arguments gives, as `DataSet.read` does.

    Args:
        function: Returns a `Split`, or a tuple of two or three.
    """

    def __init__(self, function: Callable[[], Parts]) -> None:
        self.function = function

    @property
    def label(self) -> str:
        """The place of the function, `package.module.name`."""
        name = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        return f"{self.function.__module__}.{name}"

    def read(self, root: Path, download: bool) -> Parts:
        """Returns what the function does; where data lie is its own affair.

        Args:
            root: Not used.
            download: Not used.
        """
        return self.function()
