"""Both sides of log p(x), datum by datum, and what is certified of them."""

__all__ = ["intervals"]

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pyrovae.plots.figures import BLACK, BLUE, ORANGE, told

if TYPE_CHECKING:
    from pyrovae.certificate import Certificate

LEAST = 1e-3  # of the tolerance: smaller gaps stand there
MANY = 500  # data; of more, marks are pixels in the file, and not shapes each
ERRORS = 2.0  # standard errors by which bounds are let out
LIGHT = 0.35  # of a colour, the rest is white


class Group(NamedTuple):
    """Data that are drawn alike.

    Attributes:
        word: What they are called.
        chosen: Which they are, `(N,)`.
        color: Of their marks.
        marker: Their shape.
    """

    word: str
    chosen: np.ndarray
    color: str
    marker: str


def intervals(certificate: "Certificate") -> Figure:
    r"""Returns both sides of log p(x) of each datum, and which are certified.

    On the left data in the order of their estimates, from lower to upper bound in nats, and
    lighter, let out by two standard errors of each. On the right in the order of their gaps,

    .. math::
        \text{upper} - \text{lower}

    in nats on a log scale, and lighter, with these errors. Certified is what has a gap of at most
    the tolerance, with its errors of at most twice that, the lines, and passes the other tests of
    `pv.certify`. Gaps below a thousandth of the tolerance stand there. Intervals that reach far
    beyond all estimates leave the left panel; bounds that are not finite are not drawn.

    Args:
        certificate: What `pv.certify` returned, or `pv.Certificate.of` an estimate.
    """
    c = certificate
    value, fine = c.value.numpy(), c.certified.numpy()
    low, high = c.lower.numpy(), c.upper.numpy()
    outer, least = c.interval(ERRORS), LEAST * c.tolerance
    lowest, highest = (side.numpy() for side in outer)
    gap, whole = (g.clamp(min=least).numpy() for g in (c.gap, outer[1] - outer[0]))
    places = _ranks(value), _ranks(gap)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for group in (
        Group("certified", fine, BLUE, "o"),
        Group("not certified", ~fine, ORANGE, "^"),
    ):
        _draw(left, group, places[0], value, [(lowest, highest, LIGHT), (low, high, 1.0)])
        _draw(right, group, places[1], gap, [(gap, whole, LIGHT)])
    what = f"log p(x) of {len(value):,} data, between both bounds"
    left.set(xlabel="data, in order of log p(x)", ylabel="log p(x) (nats)", title=what)
    left.set_ylim(_limits(value, lowest, highest, c.tolerance))
    errors = "lighter: 2 standard errors more"
    left.legend(frameon=False, loc="upper left", title=errors, alignment="left")
    drawn = len(right.get_lines())
    for height, style, word in ((1, "--", "tolerance"), (2, ":", "the same with errors")):
        text = f"{word}: {height * c.tolerance:g}"
        right.axhline(
            height * c.tolerance, color=BLACK, linewidth=0.8, linestyle=style, label=text
        )
    right.set(xlabel="data, in order of their gaps", ylabel="upper minus lower bound (nats)")
    right.set(yscale="log", title="How far apart the bounds are")
    right.set_ylim(bottom=np.nanmin([*gap, c.tolerance]) / 10)  # where the legend stands
    right.legend(handles=right.get_lines()[drawn:], frameon=False, loc="lower right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return told(figure, _words(c))


def _limits(
    value: np.ndarray, low: np.ndarray, high: np.ndarray, tolerance: float
) -> tuple[float, float]:
    """Returns where the axis begins and ends: at most as far beyond all values as they reach.

    Args:
        value: Estimates, `(N,)`, nats.
        low: Ends of their intervals, `(N,)`.
        high: Likewise.
        tolerance: Least reach, nats.
    """
    known = value[np.isfinite(value)]
    least, most = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    reach = max(most - least, tolerance)
    start = max(low[np.isfinite(low)].min(initial=least), least - reach)
    end = min(high[np.isfinite(high)].max(initial=most), most + reach)
    margin = max(end - start, tolerance) / 20
    return start - margin, end + margin


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns the places of numbers in their order, from 1, `(N,)`."""
    return values.argsort(kind="stable").argsort() + 1


def _draw(
    axes: Axes,
    group: Group,
    places: np.ndarray,
    middle: np.ndarray,
    spans: list[tuple[np.ndarray, np.ndarray, float]],
) -> None:
    """Draws marks, and lines from below to above each, behind them.

    Args:
        axes: Where.
        group: Which data, and how they look; what is certified lies above, in smaller marks.
        places: Of all data, from left to right, `(N,)`.
        middle: Heights of the marks, `(N,)`.
        spans: Heights where lines begin and end, `(N,)` each, and how much colour they have.
    """
    chosen, n = group.chosen, len(places)
    few, first = n <= MANY, group.marker == "o"
    width, size = np.clip(300 / n, 0.8, 4), np.clip(200 / n, 1.5 if first else 4, 5)
    order = 2.5 if first else 1.5
    for low, high, share in spans:
        color = 1 - share * (1 - np.array(to_rgb(group.color)))
        axes.vlines(
            places[chosen], low[chosen], high[chosen], color=color,
            linewidth=width, zorder=order, rasterized=not few,
        )  # fmt: skip
    axes.plot(
        places[chosen], middle[chosen], group.marker, color=group.color, markersize=size,
        zorder=order + 0.4, rasterized=not few, label=f"{group.word} ({chosen.sum():,})",
    )  # fmt: skip


def _words(c: "Certificate") -> str:
    """Returns the numbers of the picture in words."""
    fine, n = int(c.certified.sum()), len(c.value)
    text = f"log p(x) of {n:,} data from both sides: {fine:,} certified to {c.tolerance:g} nats"
    if fine:
        mean, gap = c.mean(), c.gap[c.certified]
        text += (
            f", their mean between {mean.lower:.2f} and {mean.upper:.2f}, their gaps "
            f"{gap.median():.2g} nats in the median and {gap.max():.2g} at most"
        )
    counts = [f"{c.reasons.count(w):,} {w}" for w in dict.fromkeys(c.reasons) if w != "certified"]
    return f"{text}; {n - fine:,} not certified ({', '.join(counts)})." if counts else f"{text}."
