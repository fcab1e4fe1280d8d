"""The latent space, to be explored: planes of it, and what they decode to."""

__all__ = ["Explorer"]

from collections.abc import Callable
from functools import partial
from math import isqrt, prod
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from pyrovae import plots
from pyrovae.data.tables import cells
from pyrovae.likelihoods import Column
from pyrovae.models.base import Decodes, Encodes, HasPrior
from pyrovae.plots.figures import signed
from pyrovae.program.sites import base
from pyrovae.report.panel import Json, Panel, Shown, filled
from pyrovae.report.sprites import sprite
from pyrovae.side_by_side import SideBySide

POINTS = 2_000  # drawn, at most
DECODED = 800_000  # numbers in the images of a plane, at most
TOLD = 50_000  # values of rows of a table, likewise
TILES = 41  # of them along a side, at most


class Explorer(Panel):
    """The test data at the means of Q(z|X) on planes of the latent space, and E[X|z] there."""

    name: ClassVar[str] = "explorer"
    title: ClassVar[str] = "The latent space"
    needs: ClassVar[tuple[type, ...]] = (Encodes, Decodes)
    rank: ClassVar[int] = 20
    key: ClassVar[str] = "explorer"
    anchor: ClassVar[str] = "explore"

    def html(self, shown: Shown) -> str:
        """Returns the canvases, which the script of the page draws on."""
        return filled("explorer.html", names=[c.name for c in shown.columns])

    def data(self, shown: Shown) -> Json:
        """Returns the planes."""
        assert shown.shape
        x, shape = shown.x, shown.shape
        size = max(2, min(TILES, isqrt((TOLD if shown.columns else DECODED) // prod(shape))))
        of_columns, of_images = partial(_values, shown.columns), partial(_sprite, shape, size, x)
        planes = _planes(shown.model, x, size, of_columns if shown.columns else of_images)
        return {"shape": shown.shape, "drawn": POINTS, "planes": planes}


def _planes(
    model: object,
    x: Tensor,
    size: int,
    seen: Callable[[TorchDistribution], dict[str, object]],
) -> list[dict[str, object]]:
    r"""Returns the planes of the explorer: the test data on each, and what it decodes to.

    A plane is an origin and two axes in latent space: the latent itself where it has one or two
    dimensions, else the principal components of the means, from their mean, and the two
    dimensions of largest KL, with the others at their mean, where each has a KL of its own.

    .. math::
        z = o + s\, a + t\, b, \quad (s, t)_n = (a^T (z_n - o),\; b^T (z_n - o))

    It is decoded at a square grid of (s, t) that reaches half a unit beyond the data, of as many
    points as 800,000 numbers of images allow, or 50,000 of tables, at most 41 a side.

    Args:
        model: That encodes and decodes.
        x: Test data, `(N, D)`.
        size: Points along a side.
        seen: What the script shows of P(X|z) at each of them, by rows from the top.

    Returns:
        Of each plane the JSON that the script of the page reads: "points" `(N, 2)`, "low" and
            "high"
        of s and t, "size" points a side, and "sprite", the tiles as one picture, by rows from the
        top; of a table "values", what its columns are at each.
    """
    assert isinstance(model, Encodes)
    assert isinstance(model, Decodes)
    q = model.encode(x)
    z, d = q.mean, q.event_shape[0]
    unit, mean = torch.eye(d).to(z), z.mean(0)
    if d <= 2:
        second = unit[1] if d == 2 else torch.zeros_like(unit[0])
        names = ("z 1", "z 2" if d == 2 else "")
        planes = [("the latent", 0 * mean, unit[0], second, names, "")]
    else:
        axes, share = plots.principal_axes(z)
        names = [f"principal component {i + 1} ({share[i]:.0%})" for i in range(2)]
        held = [f"z {k + 1} = {v:z.2f}" for k, v in enumerate(mean.tolist())]
        text = f"In all other directions z is held at the mean of the points: {', '.join(held)}."
        planes = [("principal components of the means", mean, axes[0], axes[1], names, text)]
        if (kl := _kl(model, q, x)) is not None:
            i, j = kl.topk(2).indices.tolist()
            dear = f"z {i + 1} ({kl[i]:.2f} nats)", f"z {j + 1} ({kl[j]:.2f} nats)"
            rest = ", ".join(h for k, h in enumerate(held) if k not in (i, j))
            text = f"The other latents are held at the mean of the points: {rest}."
            pair = mean - mean * (unit[i] + unit[j])
            planes += [("the two dimensions of largest KL", pair, unit[i], unit[j], dear, text)]
    found = []
    for title, origin, first, second, names, held in planes:
        points = torch.stack([(z - origin) @ first, (z - origin) @ second], 1)
        low, high = points.amin(0) - 0.5, points.amax(0) + 0.5
        steps = torch.linspace(0, 1, size).to(z)[:, None]
        across, up = (low + steps * (high - low)).T
        grid = origin + across[None, :, None] * first + up.flip(0)[:, None, None] * second
        found.append({
            "title": title,
            "names": names,
            "held": signed(held),
            "low": low.tolist(),
            "high": high.tolist(),
            "size": size,
            **seen(model.decode(grid.reshape(-1, d))),
            "points": [[round(v, 3) for v in p] for p in points.tolist()],
        })  # fmt: skip
    return found


def _sprite(
    shape: tuple[int, int], across: int, like: Tensor, p: TorchDistribution
) -> dict[str, object]:
    """Returns "sprite": the means of images as one picture.

    Args:
        shape: Height and width of each.
        across: Images side by side.
        like: Data, whose numbers fix what is white and what is black.
        p: P(X|z), of batch shape `(n,)`.
    """
    return {"sprite": sprite(p.mean, shape, across, like)}


def _values(columns: tuple[Column, ...], p: TorchDistribution) -> dict[str, object]:
    """Returns "values": what each column is expected to be, of classes the most probable.

    Args:
        columns: Of rows of a table.
        p: P(X|z), of batch shape `(n,)`.
    """
    given = base(p)
    assert isinstance(given, SideBySide)
    told = cells(given.told(given.summary).cpu(), columns)
    return {"values": [list(row) for row in zip(*told.values(), strict=True)]}


def _kl(model: object, q: TorchDistribution, x: Tensor) -> Tensor | None:
    r"""Returns the mean KL(Q(z|X) || P(z)) of each latent dimension, `(z_dim,)`, in nats.

    `None` where they are not normals that are independent in all dimensions.

    .. math::
        \tfrac1N \sum_n \mathrm{KL}(q(z_k | x_n) \,\|\, p(z_k))

    A dimension that the model does not use has about 0.

    Args:
        model: Which may have a prior.
        q: Q(z|X) of the data, of batch shape `(N,)`.
        x: Data, `(N, D)`.
    """
    both = (q, model.prior(x)) if isinstance(model, HasPrior) else ()
    normal = [isinstance(p, Independent) and isinstance(p.base_dist, Normal) for p in both]
    if not (both and all(normal)):
        return None
    return kl_divergence(*(p.base_dist for p in both)).mean(0)
