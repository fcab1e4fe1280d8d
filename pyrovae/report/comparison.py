"""One HTML page of two models on the same data: the difference, its errors, whose data make it."""

__all__ = ["render_comparison"]

from math import hypot

from markupsafe import Markup

from pyrovae import plots
from pyrovae.evidence.comparison import Comparison
from pyrovae.plots.figures import signed
from pyrovae.report.panel import file_text, filled
from pyrovae.report.words import number

MOST = 10  # data on either side that are listed
MEANS = "", "by", "nats per datum", "error, samples", "error, data"
DATA = "datum", "a - b", "error, samples", "a", "b", "verdict of a", "verdict of b"


def render_comparison(found: Comparison, a: str, b: str) -> str:
    """Returns the page as text.

    Args:
        found: The comparison.
        a: What one model is called.
        b: The other.
    """
    figure = plots.differences(found)
    caption = f"{found.target} under a less that under b, datum by datum."
    picture = filled(
        "picture.html", caption=caption, url=plots.as_url(figure), words=figure.get_label()
    )
    order = found.difference.argsort(descending=True, stable=True)
    words = found.a.verdict(), found.b.verdict()
    sections = [
        ("means", "Both means and the difference", _table("Means", MEANS, _means(found)) + picture)
    ]
    for name, rows in (("a", order[:MOST]), ("b", order.flip(0)[:MOST])):
        heading = f"The data that speak most for {name}"
        table = _table(
            heading, DATA, [[*_datum(found, i), *(w[i] for w in words)] for i in rows.tolist()]
        )
        sections.append((f"for-{name}", heading, table))
    lines = signed(found.reading()).splitlines()[1:]  # the head says the first
    head = {"found": found, "a": a, "b": b, "lines": lines}
    return filled("comparison.html", **head, sections=sections, style=file_text("page.css"))


def _table(label: str, names: tuple[str, ...], rows: list[list[str]]) -> Markup:
    """Returns a table as HTML.

    Args:
        label: Read to the blind.
        names: Of its columns.
        rows: A cell a column each.
    """
    return filled("comparison_table.html", label=label, names=names, rows=rows)


def _means(found: Comparison) -> list[list[str]]:
    """Returns the rows of a, of b and of the difference: means with both errors, nats."""
    rows = []
    for name, e in (("a", found.a), ("b", found.b), ("a - b", None)):
        of = e or found
        mean = number(of.mean, ".3f" if e else "+.3f")
        errors = number(of.monte_carlo_error, ".4f"), number(of.data_error, ".3f")
        rows.append([name, e.label if e else "", mean, *errors])
    return rows


def _datum(found: Comparison, i: int) -> list[str]:
    """Returns what is known of a datum: its number, the difference, its error, both values.

    Args:
        found: The comparison.
        i: Its number.
    """
    sides = found.a, found.b
    error = hypot(*(e.std_error[i].item() for e in sides))
    values = [number(e.value[i].item(), ".3f") for e in sides]
    return [f"{i}", number(found.difference[i].item(), "+.3f"), number(error, ".4f"), *values]
