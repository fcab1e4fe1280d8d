"""What all pictures are made with: a canvas, colours, their numbers in words, and files."""

__all__ = ["as_url", "canvas", "save", "signed", "told"]

import re
from base64 import b64encode
from io import BytesIO
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrovae.storage import write_atomic

# Okabe and Ito's palette: told apart by colour-blind readers
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, YELLOW, BLACK = "#CC79A7", "#E69F00", "#000000"
# Paul Tol's muted palette, for ten classes
MUTED = "#332288 #88CCEE #44AA99 #117733 #999933 #DDCC77 #CC6677 #882255 #AA4499 #777777".split()


def signed(text: str) -> str:
    """Returns a text to be read with true minus signs before its numbers, and with ±.

    Args:
        text: With hyphens for minus signs, and "+-".

    Example:
        >>> signed("mean -1.5 +- 0.2, a t-test")
        'mean −1.5 ± 0.2, a t-test'
    """
    return re.sub(r"(?<![\w)])-(?=\d)|(?<=\de)-(?=\d)", "\N{MINUS SIGN}", text.replace("+-", "±"))


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns a figure of that size in inches, and its axes without an upper and a right edge.

    It is no figure of pyplot's, which would keep it: it is gone where nobody has it any more.

    Args:
        width: Of the figure, inches.
        height: Likewise.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def told(figure: Figure, text: str) -> Figure:
    """Returns a figure with its numbers in words as its label: for who does not see it.

    Args:
        figure: Which gets the label.
        text: Its numbers in words.
    """
    figure.set_label(signed(text))
    return figure


def as_url(figure: Figure) -> str:
    """Returns a figure as a data URL of SVG, for a page that holds all it shows.

    Equal figures give equal URLs: neither the time nor random names stand in it.
    """
    with BytesIO() as file, rc_context({"svg.hashsalt": "pyrovae"}):  # the same bytes every time
        figure.savefig(file, format="svg", metadata={"Date": None})
        return "data:image/svg+xml;base64," + b64encode(file.getvalue()).decode()


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically, 150 dots an inch.

    Args:
        figure: To be written.
        path: Of the file.

    Raises:
        OSError: If it cannot be written.
    """
    write_atomic(path, lambda p: figure.savefig(p, format="png", dpi=150))
