"""Pictures of results."""

__all__ = [
    "against",
    "as_url",
    "calibration",
    "convergence",
    "histogram",
    "images",
    "khats",
    "latent_space",
    "manifold",
    "principal_axes",
    "save",
    "training",
]

from base64 import b64encode
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Distribution

from pyrovae.plots.curves import BLACK, BLUE, GREEN, ORANGE, PURPLE, YELLOW, canvas, signed
from pyrovae.storage import write_atomic

# Paul Tol's muted palette, for ten classes
MUTED = "#332288 #88CCEE #44AA99 #117733 #999933 #DDCC77 #CC6677 #882255 #AA4499 #777777".split()
FEW = 1_000  # points that are drawn as their labels
COLORS = {
    "importance": BLUE,
    "prior": ORANGE,
    "elbo": GREEN,
    "ais": PURPLE,
    "quadrature": BLACK,
}  # of estimators; those of others are MUTED
WORDS = {
    "ok": GREEN,
    "not contradicted": BLUE,
    "more samples": YELLOW,
    "use ais": ORANGE,
    "more temperatures": ORANGE,
    "a bound": BLUE,
}


def told(figure: Figure, text: str) -> Figure:
    """Returns a figure with its numbers in words as its label: for who does not see it.

    Args:
        figure: Which gets the label.
        text: Its numbers in words.
    """
    figure.set_label(signed(text))
    return figure


def training(elbo: Sequence[float], valid_elbo: Sequence[float], best_epoch: int) -> Figure:
    """Returns the curve: ELBO against epoch, nats per datum, training and validation data.

    Args:
        elbo: Of the training data by epoch, nats per datum.
        valid_elbo: Of the validation data, likewise; or empty.
        best_epoch: Whose parameters were kept, from 1.
    """
    figure, axes = canvas(6, 4)
    epochs = np.arange(1, len(elbo) + 1)
    axes.plot(epochs, elbo, color=BLUE, label="training data, mean over the epoch")
    if len(valid_elbo):
        axes.plot(epochs, valid_elbo, color=ORANGE, label="validation data, after the epoch")
        axes.plot(
            best_epoch,
            valid_elbo[best_epoch - 1],
            "o",
            color=ORANGE,
            label=f"kept: epoch {best_epoch}",
        )
    # the first epochs of a long run would squeeze all that follows
    both = np.concatenate([elbo, valid_elbo])
    low, high = np.quantile(both, 0.02 if len(elbo) > 20 else 0), both.max()
    if high > low:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set(xlabel="epoch", ylabel="ELBO (nats per datum)", title="Training by SVI")
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(integer=True)
    axes.legend(frameon=False)
    text = f"ELBO in nats per datum, epochs 1 to {len(elbo)}: training data from {elbo[0]:.2f} to "
    text += f"{elbo[-1]:.2f}"
    if len(valid_elbo):
        text += f", validation data from {valid_elbo[0]:.2f} to {valid_elbo[-1]:.2f}, highest "
        text += f"{max(valid_elbo):.3f}"
    return told(figure, f"{text}; kept: epoch {best_epoch}.")


def convergence(evidence: Any) -> Figure:
    """Returns the estimate of log P(X) against number of samples by estimator, with the ELBO.

    Bands are two standard errors of one estimate of that many samples, from the samples alone. The
    right panel is the left one's upper end, around the ELBO.
    """
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    whole, near = figure.subplots(1, 2)
    k = np.array(evidence.num_samples)
    shown = _shown(evidence)
    for axes in (whole, near):
        for e, color in shown:
            label = signed(f"{e.label}: {e.mean:.2f}")
            if _has_course(e):
                mean, error = e.path.mean(1).numpy(), 2 * e.path_error.numpy()
                axes.plot(k, mean, color=color, label=label)
                low, high = mean - error, mean + error
                axes.fill_between(k, low, high, color=color, alpha=0.25, linewidth=0)
            else:
                axes.axhline(e.mean, color=color, linestyle="--", label=label)
        axes.set_xscale("log")
        axes.set(xlabel="number of samples per datum", ylabel="log P(X) (nats per datum)")
        axes.spines[["top", "right"]].set_visible(False)
    means = [e.mean for e, _ in shown if not e.kind.lucky] or [e.mean for e, _ in shown]
    margin = max(max(means) - min(means), 0.01)
    near.set(
        ylim=(min(means) - margin / 2, max(means) + margin / 2), title="the same, near the ELBO"
    )
    whole.set_title(
        f"Held-out log P(X), mean of {len(evidence[next(iter(evidence.estimates))].value):,} data"
    )
    whole.legend(frameon=False, loc="lower right", title="band: 2 Monte Carlo standard errors")
    return told(figure, _courses(evidence))


def _courses(evidence: Any) -> str:
    """Returns where each estimator begins and ends, in words."""
    k, words = evidence.num_samples, []
    for e, _ in _shown(evidence):
        ends = e.path.mean(1)[[0, -1]].tolist() if _has_course(e) else [e.mean]
        words.append(f"{e.label} {' to '.join(f'{v:.2f}' for v in ends)}")
    drawn = f", of {k[0]:,} to {k[-1]:,} samples" if k else ""
    return f"Held-out log P(X) in nats per datum{drawn}: {', '.join(words)}."


def _shown(evidence: Any) -> list[tuple[Any, str]]:
    """Returns the mean and what answers the question, with colours, those of a course first."""
    others = iter(MUTED * len(evidence.estimates))
    able = [e for e in evidence.estimates.values() if e.kind.rank is not None or e.kind.is_mean]
    able.sort(key=lambda e: not _has_course(e))
    return [(e, COLORS.get(e.name) or next(others)) for e in able]


def _has_course(e: Any) -> bool:
    """Returns whether it has estimates of fewer draws, and those are not all the same."""
    return len(e.path) > 0 and not e.kind.is_mean and bool(e.path[0].isfinite().all())


def against(evidence: Any, one: str, other: str) -> Figure:
    """Returns two estimators' per-datum estimates against each other, coloured by verdict.

    The lower panel is their difference; bars are two of its Monte Carlo standard errors.

    Args:
        evidence: What `evaluate` returned.
        one: An estimator's name.
        other: Another's.
    """
    a, b = evidence[one], evidence[other]
    figure = Figure(figsize=(6, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    words = np.array(a.verdict())
    gap = (b.value - a.value).numpy()
    error = 2 * (a.std_error.square() + b.std_error.square()).sqrt().numpy()
    for word in dict.fromkeys(words):
        chosen = words == word
        x = a.value.numpy()[chosen]
        style = {"color": WORDS[word], "label": f"{word} ({chosen.sum():,})"}
        above.plot(x, b.value.numpy()[chosen], "o", markersize=3, **style)
        bars = {"fmt": "o", "markersize": 3, "elinewidth": 0.5, "color": WORDS[word]}
        below.errorbar(x, gap[chosen], error[chosen], **bars)
    ends = [a.value.min().item(), a.value.max().item()]
    above.plot(ends, ends, color=BLACK, linewidth=0.8, zorder=0)
    below.axhline(0, color=BLACK, linewidth=0.8, zorder=0)
    above.set(ylabel=f"{b.label} (nats)", title="log p(x) of each datum, two estimates")
    below.set(xlabel=f"{a.label} (nats)", ylabel="difference (nats)")
    above.legend(frameon=False, title=f"verdict on {a.label}")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def histogram(evidence: Any) -> Figure:
    """Returns the histogram of log p(x) over data, by the best estimate, with mean and errors."""
    best = evidence.best()
    figure, axes = canvas(6, 4)
    axes.hist(best.value.numpy(), bins="auto", color=BLUE, alpha=0.7)
    label = signed(f"mean {best.mean:.2f} +- {best.data_error:.2f} (data)")
    axes.axvline(best.mean, color=ORANGE, label=label)
    name = best.label
    axes.set(xlabel=f"log p(x) by {name} (nats)", ylabel="data", title="log p(x) of each datum")
    axes.legend(frameon=False)
    return figure


def khats(evidence: Any, name: str = "importance") -> Figure:
    """Returns each datum's k-hat against its effective sample size, coloured by verdict.

    Args:
        evidence: What `evaluate` returned.
        name: An estimator that has k-hats.
    """
    e = evidence[name]
    figure, axes = canvas(6, 4)
    words, k = np.array(e.verdict()), e.pareto_k.numpy()
    ceiling = max(1.0, k[np.isfinite(k)].max(initial=0.0)) + 0.1
    for word in dict.fromkeys(words):
        chosen = words == word
        height = np.minimum(k[chosen], ceiling)  # an infinite k-hat stands on the upper edge
        label = f"{word} ({chosen.sum():,})"
        axes.plot(e.ess.numpy()[chosen], height, "o", markersize=3, color=WORDS[word], label=label)
    for bound, word, style in ((0.7, "use ais", "--"), (0.5, "more samples", ":")):
        label = f"above {bound}: {word}"
        axes.axhline(bound, color=BLACK, linewidth=0.8, linestyle=style, label=label)
    axes.set(
        xscale="log",
        xlabel="effective sample size",
        ylabel="Pareto k-hat",
        title=f"{e.label.capitalize()}: can each datum's estimate be trusted?",
    )
    axes.legend(frameon=False, title="verdict")
    return figure


def calibration(result: Any) -> Figure:
    """Returns each latent dimension's ECDF of ranks minus the uniform one, with the 95 % band."""
    figure, axes = canvas(6, 4)
    uniform = np.arange(1, result.num_samples + 2) / (result.num_samples + 1)
    low, high = result.band - uniform
    axes.fill_between(uniform, low, high, color=BLACK, alpha=0.12, linewidth=0, label="95 % band")
    for ecdf, out, name in zip(result.ecdf.T, result.outside, result.names, strict=True):
        color, label = (ORANGE, name) if out else (BLUE, None)
        axes.plot(uniform, ecdf - uniform, color=color, label=label, linewidth=1)
    axes.set(
        xlabel="rank of z among the guide's draws, as a share",
        ylabel="ECDF minus uniform",
        title="Simulation-based calibration of the guide",
    )
    if result.outside.sum() <= 8:
        axes.legend(frameon=False)
    return figure


def images(
    rows: Sequence[Tensor], labels: Sequence[str], shape: tuple[int, int], title: str
) -> Figure:
    """Returns rows of images: `rows` are tensors `(n, D)`, `labels` one a row.

    White is 0 and black 1, or the least and the largest number where those lie beyond.

    Args:
        rows: Images, `(n, D)` each.
        labels: What each row shows.
        shape: Height and width of an image.
        title: The point that the figure makes.
    """
    white, black = _ends(torch.cat([r.reshape(-1) for r in rows]))
    n = max(len(r) for r in rows)
    high, wide = max(shape[0], shape[1] / 4), max(shape[1], shape[0] / 4)  # no strip too thin
    figure = Figure(figsize=(0.55 * n + 1.2, 0.62 * len(rows) + 0.5), layout="constrained")
    axes = figure.add_subplot(frame_on=False)  # one for all: axes of their own take a second
    middles = [(i + 0.5) * 1.12 * high for i in range(len(rows))]
    for row, middle in zip(rows, middles, strict=True):
        for j, image in enumerate(row):
            left, top = j * 1.12 * wide, middle - high / 2
            extent = left, left + wide, top + high, top
            grey = image.reshape(shape).cpu().numpy()
            axes.imshow(grey, "gray_r", vmin=white, vmax=black, extent=extent)
            axes.add_patch(Rectangle((left, top), wide, high, fill=False, linewidth=0.8))
    axes.set(xlim=(-0.06 * wide, (n - 0.06) * 1.12 * wide), xticks=[])
    axes.set(ylim=(1.12 * high * len(rows), 0))
    axes.set_yticks(middles, [signed(label) for label in labels])
    axes.tick_params(length=0)
    figure.suptitle(title)
    described = (
        f"{label or f'row {i}'}: {len(r)} images of mean {r.mean():.2f}"
        for i, (r, label) in enumerate(zip(rows, labels, strict=True), 1)
    )
    return told(figure, f"{title}. {'; '.join(described)}.".replace("\n", " "))


def _ends(values: Tensor) -> tuple[float, float]:
    """Returns what is white and what is black."""
    return min(0.0, values.min().item()), max(1.0, values.max().item())


def latent_space(z: Tensor, y: Tensor | None) -> Figure:
    """Returns the means of Q(z|X), z `(N, d)`, coloured by label y `(N,)`.

    Two dimensions are shown as they are; of more, the first two principal components.

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


def principal_axes(z: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the first two principal axes of z `(N, d)`, `(2, d)`, and their shares, `(2,)`."""
    _, s, v = torch.linalg.svd(z - z.mean(0), full_matrices=False)
    return v[:2], (s.square() / s.square().sum())[:2]


def manifold(
    decode: Callable[[Tensor], Distribution],
    shape: tuple[int, int],
    size: int = 15,
    dtype: torch.dtype = torch.float32,
) -> Figure:
    """Returns E[X|z] for a 2-d latent on a `size` x `size` grid of normal quantiles 0.05 to 0.95.

    Args:
        decode: P(X|z) as a function of z `(n, 2)`.
        shape: Height and width of an image.
        size: Grid points a side.
        dtype: Of z, as of the decoder's parameters.
    """
    q = torch.tensor(norm.ppf(np.linspace(0.05, 0.95, size)), dtype=dtype)  # (size,)
    # (size^2, 2), rows from top: z 2 falls, z 1 grows to the right
    z = torch.cartesian_prod(q.flip(0), q).flip(1)
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


def as_url(figure: Figure) -> str:
    """Returns a figure as a data URL of SVG, for a page that holds all it shows."""
    with BytesIO() as file, rc_context({"svg.hashsalt": "pyrovae"}):  # the same bytes every time
        figure.savefig(file, format="svg", metadata={"Date": None})
        return "data:image/svg+xml;base64," + b64encode(file.getvalue()).decode()


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically.

    Args:
        figure: To be written.
        path: Of the file.
    """
    write_atomic(path, lambda p: figure.savefig(p, format="png", dpi=150))
