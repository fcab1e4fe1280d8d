"""Pictures of models: images, the latent space, and what is generated over it."""

__all__ = ["images", "latent_space", "manifold", "principal_axes"]

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Distribution

from pyrovae.plots.figures import MUTED, canvas, signed, told

FEW = 1_000  # points that are drawn as their labels


def images(
    rows: Sequence[Tensor],
    labels: Sequence[str],
    shape: tuple[int, int],
    title: str,
    notes: Sequence[Sequence[object]] = (),
) -> Figure:
    """Returns rows of images, a label beside each row, and below each image a note.

    White is 0 and black 1, or the least and the largest number where those lie beyond.

    Args:
        rows: Images, `(n, D)` each, D = H W.
        labels: What each row shows.
        shape: Height and width of an image, H and W.
        title: The point that the figure makes.
        notes: What stands below the images, for each row one of each; none where it is empty.
    """
    white, black = _ends(torch.cat([r.reshape(-1) for r in rows]))
    n = max(len(r) for r in rows)
    high, wide = max(shape[0], shape[1] / 4), max(shape[1], shape[0] / 4)  # no strip too thin
    pitch = 1.5 if notes else 1.12  # of rows, in images
    figure = Figure(figsize=(0.55 * n + 1.2, 0.55 * pitch * len(rows) + 0.5), layout="constrained")
    axes = figure.add_subplot(frame_on=False)  # one for all: axes of their own take a second
    middles = [(i * pitch + 0.56) * high for i in range(len(rows))]
    for row, middle, noted in zip(rows, middles, notes or [()] * len(rows), strict=True):
        for j, image in enumerate(row):
            left, top = j * 1.12 * wide, middle - high / 2
            extent = left, left + wide, top + high, top
            grey = image.reshape(shape).cpu().numpy()
            axes.imshow(grey, "gray_r", vmin=white, vmax=black, extent=extent)
            axes.add_patch(Rectangle((left, top), wide, high, fill=False, linewidth=0.8))
            if noted:
                below = left + wide / 2, top + 1.05 * high
                axes.text(*below, signed(str(noted[j])), ha="center", va="top", size=9)
    axes.set(xlim=(-0.06 * wide, (n - 0.06) * 1.12 * wide), xticks=[])
    axes.set(ylim=(pitch * high * len(rows), 0))
    axes.set_yticks(middles, [signed(label) for label in labels])
    axes.tick_params(length=0)
    figure.suptitle(title)
    described = (
        f"{label or f'row {i}'}: {len(r)} images of mean {r.mean():.2f}"
        for i, (r, label) in enumerate(zip(rows, labels, strict=True), 1)
    )
    return told(figure, f"{title}. {'; '.join(described)}.".replace("\n", " "))


def _ends(values: Tensor) -> tuple[float, float]:
    """Returns the numbers that are white and black: 0 and 1, or what lies beyond.

    Rows of images, or tiles of a manifold, share them, so that greys can be compared.

    Args:
        values: Of all that is shown, any shape.
    """
    return min(0.0, values.min().item()), max(1.0, values.max().item())


def latent_space(z: Tensor, y: Tensor | None) -> Figure:
    """Returns the means of Q(z|X), z `(N, d)`, coloured by label y `(N,)`.

    Two dimensions are shown as they are; of more, the first two principal components, see
    `principal_axes`. Up to 1,000 points are drawn as their labels.

    Args:
        z: Means of Q(z|X), `(N, d)`.
        y: Labels, `(N,)`, or `None`.
    """
    figure, axes = canvas(6, 5)
    names = "z 1", "z 2"
    points = z.detach().cpu().double()
    if points.shape[1] == 1:
        points, names = torch.cat([points, torch.zeros_like(points)], 1), ("z 1", "")
    elif points.shape[1] > 2:
        main, share = principal_axes(points)
        points = (points - points.mean(0)) @ main.T
        names = tuple(
            f"principal component {i + 1} ({share[i]:.0%} of the variance)" for i in range(2)
        )
    classes = [None] if y is None else torch.unique(y).tolist()
    shades = [colormaps["viridis"](i / len(classes)) for i in range(len(classes))]
    colors = MUTED[: len(classes)] if len(classes) <= len(MUTED) else shades
    for color, c in zip(colors, classes, strict=True):
        chosen = points if y is None else points[y.cpu() == c]
        # few enough to be told apart by their label as well
        mark = {"marker": f"${c}$", "s": 30} if y is not None and len(z) <= FEW else {"s": 2}
        label = None if c is None else str(c)
        axes.scatter(*chosen.T.numpy(), color=color, label=label, linewidth=0.3, **mark)
    axes.set(xlabel=names[0], ylabel=names[1], title="Latent space: means of Q(z|X), test data")
    if y is not None and len(classes) <= 20:
        axes.legend(frameon=False, title="label", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def principal_axes(z: Tensor, number: int = 2) -> tuple[Tensor, Tensor]:
    r"""Returns the first k principal axes of z `(N, d)`, `(k, d)`, and their shares, `(k,)`.

    .. math::
        z - \bar z = U\, \mathrm{diag}(s)\, V^T, \quad
        \mathrm{share}_i = s_i^2 / \textstyle\sum_j s_j^2

    The axes are the first rows of V^T, along which the points vary most, and the shares those of
    their variance.

    Args:
        z: Points, N >= k and d >= k.
        number: k.

    References:
        On lines and planes of closest fit to systems of points in space (Pearson, 1901),
        https://doi.org/10.1080/14786440109462720
    """
    _, s, v = torch.linalg.svd(z - z.mean(0), full_matrices=False)
    return v[:number], (s.square() / s.square().sum())[:number]


def _parameter(decode: Callable[[Tensor], Distribution]) -> Tensor:
    """Returns a parameter of the module whose method it is; else a tensor of torch's defaults.

    From it a z is made that the module takes: of its type, on its device.

    Args:
        decode: A bound method, or a function.
    """
    owner = getattr(decode, "__self__", None)
    return next(owner.parameters()) if isinstance(owner, torch.nn.Module) else torch.empty(0)


def manifold(
    decode: Callable[[Tensor], Distribution],
    shape: tuple[int, int],
    size: int = 15,
    dtype: torch.dtype | None = None,
) -> Figure:
    r"""Returns E[X|z] for a 2-d latent on a `size` x `size` grid of normal quantiles 0.05 to 0.95.

    .. math::
        z_{ij} = (\Phi^{-1}(u_j), \Phi^{-1}(u_i)), \quad u \in [0.05, 0.95]

    Under the prior N(0, I) all cells between such points have the same probability. z 1 grows to
    the right, z 2 upwards.

    Args:
        decode: P(X|z) as a function of z `(n, 2)`, such as the method of a model.
        shape: Height and width of an image, H and W; X is `(n, H * W)`.
        size: Grid points a side.
        dtype: Of z; `None`: as the parameters of the model whose method `decode` is, else torch's
            default.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), figure 4,
        https://arxiv.org/abs/1312.6114
    """
    like = _parameter(decode)
    q = torch.tensor(norm.ppf(np.linspace(0.05, 0.95, size))).to(like.device, dtype or like.dtype)
    z = torch.cartesian_prod(q.flip(0), q).flip(1)  # (size^2, 2), by rows from the top
    with torch.no_grad():
        tiles = decode(z).mean.cpu().reshape(size, size, *shape)  # (size, size, H, W)
    high, wide = (side + max(1, side // 14) for side in shape)  # with a gap between tiles
    sheet = torch.full((size, high, size, wide), torch.nan)
    sheet[:, : shape[0], :, : shape[1]] = tiles.transpose(1, 2)
    sheet = sheet.reshape(size * high, size * wide)[: shape[0] - high, : shape[1] - wide]
    figure, axes = canvas(6, 6 * high / wide)
    axes.set_facecolor(MUTED[1])  # of the gaps
    white, black = _ends(tiles)
    axes.imshow(sheet.numpy(), cmap="gray_r", vmin=white, vmax=black)
    for side, step, length in (("x", wide, shape[1]), ("y", high, shape[0])):
        ticks = [i * step + (length - 1) / 2 for i in (0, size // 2, size - 1)]
        values = [q[i].item() for i in (0, size // 2, size - 1)]
        names = [
            signed(f"{round(v, 2) + 0.0:.2f}") for v in (values if side == "x" else values[::-1])
        ]
        axes.set(**{f"{side}ticks": ticks, f"{side}ticklabels": names})
    axes.set(
        xlabel="z 1 (normal quantiles 0.05 to 0.95)",
        ylabel="z 2",
        title="E[X|z] over the latent plane",
    )
    return figure
