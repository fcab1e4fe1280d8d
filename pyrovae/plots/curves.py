"""Pictures of plain numbers: curves, histograms and bars."""

__all__ = ["bars", "canvas", "histograms", "lines", "signed"]

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

# Okabe and Ito's palette: told apart by colour-blind readers
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, YELLOW, BLACK = "#CC79A7", "#E69F00", "#000000"
COLORS = BLUE, ORANGE, GREEN, PURPLE, YELLOW, BLACK


def signed(text: str) -> str:
    """Returns a text to be read with true minus signs before its numbers, and with ±."""
    return re.sub(r"(?<![\w)])-(?=\d)|(?<=\de)-(?=\d)", "\N{MINUS SIGN}", text.replace("+-", "±"))


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns a figure of that size in inches, and its axes.

    Args:
        width: Of the figure, inches.
        height: Likewise.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def lines(
    x: Sequence[float],
    values: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    errors: Mapping[str, ArrayLike] | None = None,
    log_x: bool = False,
) -> Figure:
    """Returns curves of `values` against x, one a name; bands are two standard errors.

    Args:
        x: G numbers.
        values: G numbers for each name.
        xlabel: What x is, with its unit.
        ylabel: What the values are, with theirs.
        title: The point that the figure makes.
        errors: Standard errors for some of the names, G numbers each.
        log_x: Whether x runs in powers of ten.
    """
    figure, axes = canvas(6, 4)
    at = np.asarray(x)
    for color, (name, y) in zip(COLORS, values.items(), strict=False):
        y = np.asarray(y)
        axes.plot(at, y, color=color, label=name, marker="." if len(x) < 30 else "")
        if errors and name in errors:
            band = 2 * np.asarray(errors[name])
            axes.fill_between(at, y - band, y + band, color=color, alpha=0.25, linewidth=0)
    if log_x:
        axes.set_xscale("log")
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.legend(frameon=False, title="band: 2 standard errors" if errors else None)
    return figure


def histograms(
    values: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    title: str,
    marks: Mapping[str, float] | None = None,
    bins: int = 80,
) -> Figure:
    """Returns histograms over each other on common bins, as shares of their own numbers.

    Args:
        values: Numbers for each name.
        xlabel: What they are, with its unit.
        title: The point that the figure makes.
        marks: Places on the axis, by name, drawn as vertical lines.
        bins: Between the smallest number and the largest.
    """
    figure, axes = canvas(6, 4)
    arrays = {name: np.asarray(v).ravel() for name, v in values.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(arrays.values())), bins)
    for color, (name, v) in zip(COLORS, arrays.items(), strict=False):
        share = np.full(len(v), 1 / len(v))
        axes.hist(v, edges.tolist(), weights=share, color=color, alpha=0.55, label=name)
    for style, (name, place) in zip(("-", "--", ":"), (marks or {}).items(), strict=False):
        axes.axvline(place, color=BLACK, linewidth=1, linestyle=style, label=name)
    axes.set(xlabel=xlabel, ylabel="share of the draws", title=title)
    axes.legend(frameon=False)
    return figure


def bars(values: Mapping[str, float], *, ylabel: str, title: str, xlabel: str = "") -> Figure:
    """Returns a bar for each name.

    Args:
        values: The bars' heights by name.
        ylabel: What they are, with their unit.
        title: The point that the figure makes.
        xlabel: What the names are.
    """
    figure, axes = canvas(6, 4)
    axes.bar(list(values), list(values.values()), color=BLUE)
    if len(values) > 15:
        axes.tick_params(axis="x", labelrotation=90, labelsize=7)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return figure
