"""Data sets that are tables: columns of mixed kinds, guessed or said, as numbers and back."""

__all__ = [
    "TableFile",
    "cells",
    "coded",
    "columns_of",
    "decoded",
    "filled_in",
    "read_table",
    "stacked",
    "with_classes",
]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from pandas.api import types
from torch import Tensor

from pyrovae.checks import shown
from pyrovae.data.base import DataSet
from pyrovae.data.splits import Split
from pyrovae.errors import DataError
from pyrovae.likelihoods.columns import CLASSES, KINDS, Column

ASIDE = "index", "label", "ignore"  # columns that are no part of X
OTHERS = "*"  # stands for all columns that are not named
LEVELS = 20  # whole numbers of so many values at most are ordinal
TEXTS = 50  # different texts of a categorical column, at most
DATES = 0.9  # share of texts that are dates where a column is one of dates
FINE = 1e-3  # of a standard deviation, to which the numbers of X are kept
Said: TypeAlias = Mapping[str, Any]  # kinds by column, or {"kind": ..., "classes": [...]}


class TableFile(DataSet):
    """A table: a .csv or .parquet, or a DataFrame, whose columns are of mixed kinds.

    What a column is, is guessed from its type and values:

    - of two values: binary; of texts: categorical; an ordered Categorical of pandas: ordinal;
    - of whole numbers: ordinal where there are at most 20, else count, or real where some are
      below 0;
    - of other numbers: positive where all are above 0 and a log-normal has a higher likelihood
      than a normal, else real.

    `columns` says otherwise, for some columns or all: a kind by name, or `{"kind": "ordinal",
    "classes": [...]}` with the classes in order; "index" for the names of rows, "label" for Y,
    "ignore" to leave it out. Under the name "*" stands what all others are; columns that are set
    aside need then not be there, and X has those that are named in their order, wherever they
    stand, and then the others.

    Args:
        source: The path, or the DataFrame.
        columns: What is said of columns, by name.

    Attributes:
        columns: A `Column` for each of X.
        index: The names of rows.
        labels: The classes of Y, in the order of their numbers; none without a label column.

    Raises:
        DataError: If it cannot be read, a column is of no kind that a model has, holds one value
            alone or none, or what is said of it does not fit.
    """

    def __init__(self, source: "str | Path | pd.DataFrame", columns: Said | None = None) -> None:
        frame = source if isinstance(source, pd.DataFrame) else read_table(source)
        self._label = "DataFrame" if isinstance(source, pd.DataFrame) else str(source)
        frame = frame.rename(columns=str)
        if not frame.columns.is_unique:
            twice = frame.columns[frame.columns.duplicated()][0]
            raise DataError(f"{self._label} has two columns {twice!r}; give each its own name")
        said = _said(frame, columns or {}, self._label)
        aside = _aside(said)
        self.index = _values(frame, aside["index"][0]) if aside["index"] else frame.index
        self.labels, y = _labelled(frame, aside["label"], said)
        out = {n for names in aside.values() for n in names}
        frame = frame.reindex(columns=[n for n in said if n not in out])
        self.columns = columns_of(frame, said)
        self.rows = Split(coded(frame, self.columns, self._label), y)

    @property
    def label(self) -> str:
        """The path."""
        return self._label

    def read(self, root: Path, download: bool) -> Split:
        """Returns all rows.

        Args:
            root: Not used: the path says where they are.
            download: Not used.
        """
        return self.rows


def with_classes(source: "str | Path | pd.DataFrame", said: Said) -> dict[str, Any]:
    """Returns what is said of columns, and the classes of the label column, in their order.

    With them another table numbers its labels alike, whichever of the classes it holds.

    Args:
        source: Path of a .csv or .parquet, or a DataFrame: where the classes are looked up.
        said: What is said, see `TableFile`.

    Raises:
        DataError: As `TableFile`.
    """
    label = [name for name, kind in said.items() if _kind(kind) == "label"]
    told = dict(said)
    if label and not isinstance(said[label[0]], Mapping):
        told[label[0]] = {"kind": "label", "classes": list(TableFile(source, said).labels)}
    return told


def read_table(path: str | Path, *, as_text: bool = False) -> pd.DataFrame:
    """Returns a table, its first line the names of columns.

    Args:
        path: Of a .csv or .parquet.
        as_text: Whether the cells of a .csv are the characters that stand there, "007" no number
            and an empty one no gap.

    Raises:
        DataError: If there is no such file, or it is no table.
    """
    text: dict[str, Any] = {"dtype": str, "keep_default_na": False} if as_text else {}
    try:
        if str(path).endswith(".parquet"):
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, **text)
    except ImportError as e:
        raise DataError(f"{path} needs pyarrow to be read; install it, or give a .csv") from e
    except (OSError, ValueError) as e:  # of pandas' parsers and pyarrow, too
        raise DataError(f"{path} cannot be read as a table: {str(e).splitlines()[0]}") from e
    if frame.empty:
        raise DataError(f"{path} holds no rows, or no columns; give a table with a line of names")
    return frame


def _said(frame: pd.DataFrame, columns: Said, whose: str) -> dict[str, Any]:
    """Returns what is said of each column, `None` of nothing, in the order in which X has them.

    That is the table's; under "*" what is named comes first, in its own order.

    Args:
        frame: With the columns.
        columns: What a user said.
        whose: What the table is called, for messages.

    Raises:
        DataError: If a column is not there.
    """
    named = {n: v for n, v in columns.items() if n != OTHERS}
    absent = [n for n in named if n not in frame.columns]
    if absent := [n for n in absent if OTHERS not in columns or _kind(named[n]) not in ASIDE]:
        raise DataError(f"{whose} has no column {absent[0]!r}; it has {_names(frame)}")
    others = dict.fromkeys(frame.columns, columns.get(OTHERS))
    ordered = named | others if OTHERS in columns else others
    return {n: v for n, v in (ordered | named).items() if n in frame.columns}


def _aside(said: Said) -> dict[str, list[str]]:
    """Returns which columns are no part of X, by what they are instead.

    Args:
        said: Of each column.

    Raises:
        DataError: If several are the index, or the label.
    """
    kinds = {n: _kind(v) for n, v in said.items() if v is not None}
    aside = {k: [n for n, kind in kinds.items() if kind == k] for k in ASIDE}
    for kind in ("index", "label"):
        if len(names := aside[kind]) > 1:
            raise DataError(f"{kind} is said of {', '.join(names)}; take one of them")
    return aside


def columns_of(frame: pd.DataFrame, said: Said) -> tuple[Column, ...]:
    """Returns what the columns of a table are, as said, or guessed as `TableFile` tells.

    Args:
        frame: Of N rows.
        said: By name, kinds or mappings with kind and classes.

    Raises:
        DataError: If some cannot be modelled: all of them are named.
    """
    found: list[Column] = []
    wrong: list[str] = []
    for name in frame.columns:
        try:
            found.append(_column(name, _values(frame, name), said.get(name)))
        except ValueError as e:
            wrong.append(str(e))
    if wrong:
        raise DataError("; ".join(wrong))
    if not found:
        raise DataError("the table has no column to model; leave some to X")
    return tuple(found)


def _column(name: str, values: pd.Series, said: Any) -> Column:
    """Returns what one column is.

    Args:
        name: Its name.
        values: Of N rows.
        said: A kind, a mapping with kind and classes, or `None` to guess.

    Raises:
        ValueError: If it cannot be modelled.
    """
    there = values.dropna()
    leave = f"say {name}: ignore in the columns"
    if isinstance(said, Mapping) and "classes" in said:  # known without a look at values
        return Column(name, _kind(said), tuple(said["classes"]))
    if there.empty:
        raise ValueError(f"column {name!r} has no value at all; {leave}")
    if there.nunique() == 1:
        raise ValueError(f"column {name!r} is {shown(_plain(there.iloc[0]))} in all rows; {leave}")
    kind = _guessed(name, there) if said is None else _kind(said)
    if kind not in CLASSES:
        return Column(name, _fitting(name, there, kind))
    if isinstance(values.dtype, pd.CategoricalDtype):
        classes = values.cat.categories[values.cat.categories.isin(there)]
    else:
        classes = sorted(there.unique())
    return Column(name, kind, tuple(map(_plain, classes)))


def _guessed(name: str, there: pd.Series) -> str:
    """Returns the kind that values look like.

    Args:
        name: Of the column.
        there: Those that are not missing.

    Raises:
        ValueError: If they are dates, or texts of no classes.
    """
    if types.is_datetime64_any_dtype(there) or types.is_timedelta64_dtype(there):
        raise ValueError(f"column {name!r} holds dates; {_in_place(name)}")
    count, numbers = there.nunique(), types.is_numeric_dtype(there)
    if not numbers:
        _check_texts(name, pd.Series(there.astype(str)))
    if count == 2:
        return "binary"
    if not numbers:
        return "ordinal" if getattr(there.dtype, "ordered", False) else "categorical"
    x = there.to_numpy(float)
    if not np.isfinite(x).all():
        return "real"  # which refuses it
    if (x == np.round(x)).all():
        return "ordinal" if count <= LEVELS else "count" if x.min() >= 0 else "real"
    if x.min() <= 0:
        return "real"
    u = np.log(x)
    return "positive" if np.log(x.std()) > np.log(u.std()) + u.mean() else "real"


def _check_texts(name: str, texts: pd.Series) -> None:
    """Raises ValueError where texts are dates, or no classes.

    Args:
        name: Of their column.
        texts: Those that are not missing.
    """
    such = f"such as {shown(texts.iloc[0])}"
    digits = texts[texts.str.contains(r"\d")]
    if len(digits) > DATES * len(texts):
        dates = pd.to_datetime(pd.Series(digits).head(100), errors="coerce", format="mixed")
        if dates.notna().mean() > DATES:
            raise ValueError(f"column {name!r} holds dates, {such}; {_in_place(name)}")
    if (count := texts.nunique()) > TEXTS:
        raise ValueError(
            f"column {name!r} holds {count} different texts, {such}, which are no classes; "
            f"say {name}: index or {name}: ignore in the columns"
        )


def _in_place(name: str) -> str:
    """Returns what to do about a column of dates."""
    return f"give a number in their place, or say {name}: index or {name}: ignore in the columns"


def _fitting(name: str, there: pd.Series, kind: str) -> str:
    """Returns the kind of a column of numbers that may be of it.

    Args:
        name: Of the column.
        there: Values that are not missing.
        kind: That was guessed or said.

    Raises:
        ValueError: If they may not.
    """
    if not types.is_numeric_dtype(there):
        raise ValueError(
            f"column {name!r} is said to be {kind} and holds {shown(_plain(there.iloc[0]))}"
        )
    x = there.to_numpy(float)
    wrong = {
        "real": ~np.isfinite(x),
        "positive": ~((x > 0) & np.isfinite(x)),
        "count": ~((x >= 0) & (x == np.round(x)) & np.isfinite(x)),
    }
    if wrong[kind].any():
        raise ValueError(f"column {name!r} is {kind} and holds {x[wrong[kind]][0]:g}")
    return kind


def coded(frame: pd.DataFrame, columns: Sequence[Column], whose: str) -> Tensor:
    """Returns the numbers X of a table, `(N, D)`, NaN where a value is missing.

    Args:
        frame: With these columns at least, of N rows.
        columns: Of X; a class k is the number of `classes[k]`.
        whose: What the table is called, for messages.

    Raises:
        DataError: If a column is not there, or holds what is none of its classes, or numbers that
            the type of X would round by 1/1000 of their standard deviation.
    """
    x = np.full((len(frame), len(columns)), np.nan)
    for d, column in enumerate(columns):
        if column.name not in frame.columns:
            raise DataError(f"{whose} has no column {column.name!r}; it has {_names(frame)}")
        values = _values(frame, column.name)
        missing = values.isna().to_numpy()
        if column.kind in CLASSES:
            code = {c: k for k, c in enumerate(column.classes)}
            found = [code.get(_plain(v), -1) for v in values[~missing]]
            if -1 in found:
                row = int(np.flatnonzero(~missing)[found.index(-1)])
                classes = ", ".join(map(str, column.classes))
                raise DataError(
                    f"column {column.name!r} is {shown(_plain(values.iloc[row]))} in row {row} of "
                    f"{whose}, and is known to be of {classes}; leave it empty, which is missing"
                )
            x[~missing, d] = found
            continue
        there = pd.Series(values[~missing])
        try:
            _ = there.empty or _fitting(column.name, there, column.kind)
        except ValueError as e:
            raise DataError(f"{e}, in {whose}") from e
        x[~missing, d] = there.to_numpy(float)
    dtype = torch.float32
    with np.errstate(invalid="ignore"):
        rounded = np.nanmax(np.abs(x - torch.tensor(x).to(dtype).double().numpy()), 0, initial=0)
        spread = np.array([np.nanstd(c) if np.isfinite(c).any() else 0 for c in x.T])
    if (coarse := np.flatnonzero((rounded > FINE * spread) & (spread > 0))).size:
        name = columns[coarse[0]].name
        raise DataError(
            f"column {name!r} of {whose} varies by {spread[coarse[0]]:g} about "
            f"{np.nanmean(x[:, coarse[0]]):g}, which {dtype} does not tell apart; subtract what "
            "is common, such as the first value"
        )
    return torch.tensor(x).to(dtype)


def decoded(x: Tensor, columns: Sequence[Column], index: Any = None) -> pd.DataFrame:
    """Returns the table of numbers X: classes by their values, whole numbers whole.

    Args:
        x: `(N, D)`, NaN where a value is missing.
        columns: Of X.
        index: The names of rows.
    """
    table = {c.name: _decoded(u, c) for u, c in zip(x.T.numpy(), columns, strict=True)}
    return pd.DataFrame(table, index=index)


def _decoded(u: np.ndarray, column: Column) -> object:
    """Returns the values that numbers of a column stand for, `(N,)`.

    Args:
        u: Numbers, `(N,)`, NaN where a value is missing.
        column: Theirs.
    """
    missing = np.isnan(u)
    if column.kind in CLASSES:
        values = np.array([*column.classes, None], dtype=object)
        return values[np.where(missing, len(values) - 1, u).round().astype(int)]
    if column.kind == "count":
        return pd.array(np.round(u.astype(float)), dtype="Int64")
    return u.astype(str).astype(float)  # by the digits that its type has, and no more


def cells(x: Tensor, columns: Sequence[Column]) -> dict[str, list[Any]]:
    """Returns the table of numbers X by column, `None` where a value is missing, as JSON has it.

    Numbers have five digits, classes that are no numbers are text.

    Args:
        x: `(N, D)`, NaN where a value is missing.
        columns: Of X.
    """
    frame = decoded(x, columns)
    return {name: [_cell(v) for v in frame[name].astype(object)] for name in frame}


def _cell(value: Any) -> Any:
    """Returns one value of `cells`."""
    if value is None or value is pd.NA or value != value:
        return None
    value = _plain(value)
    if isinstance(value, float):
        return _plain(float(f"{value:.5g}"))
    return value if isinstance(value, int) and not isinstance(value, bool) else str(value)


def filled_in(
    frame: pd.DataFrame, gaps: Tensor, x: Tensor, columns: Sequence[Column]
) -> pd.DataFrame:
    """Returns a table with values in its gaps; all else stands as it was.

    Args:
        frame: With these columns, and any others; of a .csv as text.
        gaps: Where something is missing, `(N, D)`.
        x: What stands there, `(N, D)`; elsewhere it is not read.
        columns: Of X.
    """
    whole, found = frame.copy(), decoded(x, columns, frame.index)
    for gap, column in zip(gaps.T.numpy(), columns, strict=True):
        if gap.any():
            values = _values(frame, column.name)
            filled = values.astype(object).mask(gap, found[column.name].astype(object))
            # text stays text, also where all that is left of it are numbers
            whole[column.name] = filled if values.dtype == "str" else filled.infer_objects()
    return whole


def stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns tables of the same columns one below another, "draw", their number, in front.

    Args:
        frames: The tables.
    """
    numbered = [f.copy() for f in frames]
    for i, frame in enumerate(numbered):
        frame.insert(0, "draw", i)
    return pd.concat(numbered)


def _labelled(
    frame: pd.DataFrame, names: Sequence[str], said: Said
) -> tuple[tuple[object, ...], Tensor | None]:
    """Returns the classes of Y, and Y `(N,)` int64, -1 where it is missing.

    Args:
        frame: Of N rows.
        names: Of the label column, or none.
        said: What is said of columns; `{"kind": "label", "classes": [...]}` orders the classes.
    """
    if not names:
        return (), None
    (name,) = names
    given = said[name]
    classes = given.get("classes") if isinstance(given, Mapping) else None
    column = Column(name, "categorical", tuple(classes or ())) if classes else None
    column = column or _column(name, _values(frame, name), "categorical")
    y = coded(frame, [column], "the table")[:, 0]
    return column.classes, y.nan_to_num(-1).long()


def _kind(said: Any) -> str:
    """Returns the kind that is said of a column; DataError where there is no such kind."""
    kind = said.get("kind") if isinstance(said, Mapping) else said
    if kind not in (*KINDS, *ASIDE):
        choices = ", ".join((*KINDS, *ASIDE))
        raise DataError(f"a column is said to be {kind!r}; choose of {choices}")
    return kind


def _plain(value: Any) -> Any:
    """Returns a number of NumPy's as Python's, a whole one as an integer."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value == int(value) else value


def _values(frame: pd.DataFrame, name: str) -> pd.Series:
    """Returns a column of a table by its name, of which there is one."""
    return pd.Series(frame[name])


def _names(frame: pd.DataFrame) -> str:
    """Returns the names of columns, for messages."""
    return shown(list(map(str, frame.columns)))
