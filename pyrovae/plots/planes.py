"""Pictures of densities over a plane: a 2-d latent's prior, its posterior, and a guide's."""

__all__ = ["planes"]

from collections.abc import Callable, Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyrovae.plots.figures import BLUE, ORANGE, told

LogDensity = Callable[[Tensor], Tensor]
MASSES = 0.95, 0.8, 0.5, 0.2  # that the contours hold, the outermost first
GRID = 120  # points a side


def planes(
    lines: Mapping[str, LogDensity],
    *,
    box: tuple[float, float, float, float],
    title: str,
    shades: Mapping[str, LogDensity] | None = None,
    points: Mapping[str, Tensor] | None = None,
) -> Figure:
    r"""Returns contours of log-densities over one part of the plane, a panel for each name.

    .. math::
        \{z : p(z) \ge t_m\}, \quad \int_{p(z) \ge t_m} p(z)\, dz = m, \quad
        m = 0.2, 0.5, 0.8, 0.95

    of the density as it is in the box, where a grid of 120 x 120 points normalises it: so that of
    a posterior log p(x, z) will do.

    Args:
        lines: Log-densities of z `(n, 2)`, `(n,)`, nats, but for a constant; drawn as lines.
        box: Its edges: left, right, bottom, top.
        title: The point that the figure makes.
        shades: Others for some of the panels, drawn as shades below the lines.
        points: For some of the panels, `(N, 2)`.

    Raises:
        ValueError: If a name of `shades` or `points` is no panel's.
    """
    shades, points = shades or {}, points or {}
    if other := {*shades, *points} - {*lines}:
        raise ValueError(f"there is no panel {sorted(other)[0]!r}; there are {', '.join(lines)}")
    left, right, bottom, top = box
    high = 3 * (top - bottom) / (right - left)
    figure = Figure(figsize=(3 * len(lines), high + 0.7), layout="constrained")
    x, y = torch.linspace(left, right, GRID), torch.linspace(bottom, top, GRID)
    z = torch.cartesian_prod(x, y).to(torch.get_default_dtype())
    every = figure.subplots(1, len(lines), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, log_p) in zip(every, lines.items(), strict=True):
        if name in shades:
            p, levels = _density(shades[name], z)
            axes.contourf(x, y, p, [*levels, p.max()], cmap="Greys", extend="neither")
        if name in points:
            axes.scatter(*points[name].detach().cpu().T.numpy(), s=2, color=ORANGE, linewidth=0)
        p, levels = _density(log_p, z)
        axes.contour(x, y, p, levels, colors=BLUE, linewidths=1)
        axes.set(title=name, xlabel="z 1", xlim=(left, right), ylim=(bottom, top))
    every[0].set_ylabel("z 2")
    figure.suptitle(title)
    return told(figure, f"{title}: {', '.join(lines)}, z 1 and z 2 over the plane.")


def _density(log_p: LogDensity, z: Tensor) -> tuple[Tensor, list[float]]:
    """Returns a density on the grid, `(120, 120)`, rows upwards, and the levels of its contours.

    Args:
        log_p: As of `planes`.
        z: Points of the grid, `(14400, 2)`.
    """
    with torch.no_grad():
        p = log_p(z).double().cpu().softmax(0)
    falling = p.sort(descending=True).values
    held = falling.cumsum(0)
    levels = [falling[int((held < m).sum().clamp(max=len(p) - 1))].item() for m in MASSES]
    return p.reshape(GRID, GRID).T, sorted(set(levels))
