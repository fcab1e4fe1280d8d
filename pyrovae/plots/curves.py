"""Pictures of plain numbers: curves, histograms, bars, and the course of training.

Each takes numbers by name, draws a name in one colour, and returns a figure of 6 x 4 inches.
"""

__all__ = ["bars", "histograms", "lines", "training"]

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from pyrovae.plots.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, YELLOW, canvas, told

COLORS = BLUE, ORANGE, GREEN, PURPLE, YELLOW, BLACK


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

    A band, y +- 2 se to both sides, holds the truth at about 95 % of its places where y is nearly
    normal around it.

    Args:
        x: G numbers.
        values: G numbers for each name.
        xlabel: What x is, with its unit.
        ylabel: What the values are, with theirs.
        title: The point that the figure makes, in a sentence.
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
    elif not (at % 1).any():
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
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

    So those of few numbers can be told beside those of many.

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


def bars(
    values: Mapping[str, float],
    *,
    ylabel: str,
    title: str,
    xlabel: str = "",
    bottoms: Mapping[str, float] | None = None,
) -> Figure:
    """Returns a bar for each name, in their order; of more than 15 the names are written upwards.

    Args:
        values: Where the bars end, by name.
        ylabel: What they are, with their unit.
        title: The point that the figure makes.
        xlabel: What the names are.
        bottoms: Where they begin, such as at a lower bound; at 0 without.
    """
    figure, axes = canvas(6, 4)
    below = np.array([(bottoms or {}).get(name, 0.0) for name in values])
    axes.bar(list(values), np.array(list(values.values())) - below, bottom=below, color=BLUE)
    axes.use_sticky_edges = not bottoms  # which end at the lowest bar
    if len(values) > 15:
        axes.tick_params(axis="x", labelrotation=90, labelsize=7)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return figure


def training(
    elbo: Sequence[float],
    valid_elbo: Sequence[float],
    best_epoch: int,
    objective: str = "elbo",
    judged: str = "elbo",
    criterion: Sequence[float] = (),
) -> Figure:
    """Returns the curve: ELBO against epoch, nats per datum, training and validation data.

    Of more than 20 epochs the lowest 2 % of numbers may lie below the picture: the first epochs
    of a long run would squeeze all that follows.

    Args:
        elbo: Of the training data by epoch, nats per datum; or what was maximised instead.
        valid_elbo: ELBO of the validation data, likewise; or empty.
        best_epoch: Whose parameters were kept, from 1.
        objective: Name of what was maximised.
        judged: Name of what `valid_elbo` is, where that is no ELBO.
        criterion: What chose that epoch in place of `valid_elbo`, likewise; or empty.
    """
    names = ["ELBO" if name == "elbo" else name for name in (objective, judged)]
    whose = ("", "") if objective == judged else (f"{names[0]}, ", f"{names[1]}, ")
    figure, axes = canvas(6, 4)
    epochs = np.arange(1, len(elbo) + 1)
    axes.plot(epochs, elbo, color=BLUE, label=f"{whose[0]}training data, mean over the epoch")
    if len(valid_elbo):
        axes.plot(
            epochs, valid_elbo, color=ORANGE, label=f"{whose[1]}validation data, after the epoch"
        )
    if len(criterion):
        axes.plot(epochs, criterion, color=GREEN, label="criterion, of validation data")
    for chosen, color in ((criterion, GREEN), (valid_elbo, ORANGE)):
        if len(chosen):
            label = f"kept: epoch {best_epoch}"
            axes.plot(best_epoch, chosen[best_epoch - 1], "o", color=color, label=label)
            break
    both = np.concatenate([elbo, valid_elbo, criterion])
    both = both[np.isfinite(both)]
    low, high = np.quantile(both, (0.02 if len(elbo) > 20 else 0, 1))
    if high > low:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    unit = f"{names[0]} (nats per datum)" if objective == judged else "nats per datum"
    axes.set(xlabel="epoch", ylabel=unit, title="Training by SVI")
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False)
    what = names[0] + (f", of validation data the {names[1]}," * (objective != judged))
    text = f"{what} in nats per datum, epochs 1 to {len(elbo)}: training data from "
    text += f"{elbo[0]:.2f} to {elbo[-1]:.2f}"
    if len(valid_elbo):
        text += f", validation data from {valid_elbo[0]:.2f} to {valid_elbo[-1]:.2f}, highest "
        text += f"{np.nanmax(valid_elbo):.3f}"
    if len(criterion):
        text += f", their criterion from {criterion[0]:.2f} to {criterion[-1]:.2f}, highest "
        text += f"{criterion[best_epoch - 1]:.3f}"
    return told(figure, f"{text}; kept: epoch {best_epoch}.")
