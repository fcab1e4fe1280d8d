"""The data one by one: what was found for each, and its verdict."""

__all__ = ["Table"]

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from pyrovae.certificate import Certificate
from pyrovae.data.tables import cells
from pyrovae.evidence.results import Evidence
from pyrovae.report import panel
from pyrovae.report.panel import Json, Panel, Shown, filled
from pyrovae.report.sprites import sprite

THUMBNAILS = 2_000_000  # characters of their pictures, at most
CELLS = 400_000  # values of rows of a table, at most
DIGITS = {"s.e.": 4, "lower": 3, "upper": 3, "ELBO": 3, "ESS": 1, "k-hat": 2}


class Table(Panel):
    """A row for each datum: log p(x) in nats, its error, ESS, k-hat, verdict, and its image.

    Bounds from both sides are let out by two of their standard errors.
    """

    name: ClassVar[str] = "table"
    title: ClassVar[str] = "Each datum"
    rank: ClassVar[int] = 40
    key: ClassVar[str] = "table"
    anchor: ClassVar[str] = "data-heading"

    def has_what_it_needs(self, shown: Shown) -> bool:
        """Returns whether there are estimates."""
        return bool(shown.evidence.estimates)

    def html(self, shown: Shown) -> str:
        """Returns the table without its rows, which the script of the page fills in."""
        columns = (_listed(shown), len(shown.columns))
        many = len(shown.best.value) > panel.ROWS
        return filled("table.html", many=many, most=panel.ROWS, columns=columns)

    def data(self, shown: Shown) -> Json:
        """Returns its columns, and one picture of all thumbnails."""
        found = _table(shown.x, shown.y, None if shown.columns else shown.shape, shown.evidence)
        if not (some := _listed(shown)):
            return found
        return _with_rows(found, cells(shown.x[:, :some].cpu(), shown.columns[:some]))


def _table(
    x: Tensor, y: Tensor | None, shape: tuple[int, int] | None, evidence: Evidence
) -> dict[str, object]:
    """Returns the columns of the table of data, its words, and one picture of all thumbnails.

    ESS and k-hat are those of importance sampling, where it is there, and bounds those of the
    first estimator that has them from both sides. Where the picture would take
    more than two million characters, the first half of the data has thumbnails, or a quarter, and
    so on.

    Args:
        x: Data, `(n, D)`, of which there may be fewer than the evidence has.
        y: Labels, `(n,)`, or `None`.
        shape: Height and width of an image; `None` where data are none.
        evidence: Its first n data are these.
    """
    best, value = evidence.best(), evidence.target.lower()
    weighed = evidence.estimates.get("importance", best)
    n = len(x)
    columns = {
        "datum": list(range(n)),
        value: best.value[:n].tolist(),
        "s.e.": best.std_error[:n].tolist(),
        "ESS": weighed.ess[:n].tolist(),
        "k-hat": weighed.pareto_k[:n].tolist(),
        "verdict": best.verdict()[:n],
    }
    for certificate in list(Certificate.all_in(evidence).values())[:1]:
        low, high = certificate.interval()
        columns |= {"lower": low[:n].tolist(), "upper": high[:n].tolist()}
    if "elbo" in evidence.estimates:
        columns["ELBO"] = evidence["elbo"].value[:n].tolist()
    if y is not None:
        columns["label"] = y.tolist()
    order = ("datum", "label", value, "s.e.", "lower", "upper")
    order += ("ELBO", "ESS", "k-hat", "verdict")
    digits = {value: 3, **DIGITS}
    shown, across = x if shape else x[:0], min(100, n)
    picture = sprite(shown, shape, across, x) if shape else ""
    while shape and len(picture) > THUMBNAILS and len(shown) > 1:
        shown = shown[: len(shown) // 2]
        picture = sprite(shown, shape, across, x)
    return {
        "names": [name for name in order if name in columns],
        "columns": {
            name: [_rounded(v, digits[name]) for v in column] if name in digits else column
            for name, column in columns.items()
        },
        "value": value,
        "digits": digits,
        "shape": shape or (1, 1),
        "across": across,
        "thumbnails": len(shown),
        "sprite": picture,
    }


def _listed(shown: Shown) -> int:
    """Returns how many columns of X have a place in the table: all, unless there are too many."""
    return min(len(shown.columns), CELLS // max(1, len(shown.x)))


def _with_rows(table: dict[str, Any], rows: Mapping[str, list[Any]]) -> dict[str, object]:
    """Returns the columns of the table, and those of the data.

    Args:
        table: As `_table` returns it.
        rows: The data; a column of a name that is taken gets another.
    """
    taken = table["columns"]
    more = {f"{n} (X)" if n in taken else n: v for n, v in rows.items()}
    names = [*table["names"], *more]
    return {**table, "names": names, "columns": {**taken, **more}}


def _rounded(value: float, digits: int) -> float | None:
    """Returns a number as it is shown, `None` where JSON has none for it.

    Args:
        value: Such as k-hat, which may be infinite.
        digits: After the point.
    """
    return round(value, digits) if np.isfinite(value) else None
