"""The plate diagram of a program, drawn from what running it shows.

What depends on what is found by running the program (`pyrovae.program.relations`), where it
stands is decided in `layout`; here it is drawn, or written for Mermaid.
"""

__all__ = ["mermaid", "plates"]

from collections.abc import Callable, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from pyrovae.plots.layout import NAME, SMALL, Diagram, arrange, text_width, within
from pyrovae.program import Node, Relations, relations

INK, SHADE, PALE = "#222222", "#d0d0d0", "#666666"
EDGE, BETWEEN, LINE = 14, 40, 13  # points: around the picture, between panels, a line of text
LISTED = 6  # groups of parameters named under a panel, at most


def plates(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: Tensor,
    plate: str | None = "data",
) -> Figure:
    r"""Returns the plate diagram of a model and guide, side by side, found by running them.

    Latent variables are open circles, observed ones and given data shaded; a plate is a rectangle
    with its number of elements; dots are the parameters: theta those that shape the model, phi
    those that shape the guide alone. In the model parents stand above, in the guide below. Over
    each stands its density as a product, one factor P(child|parents) a node:

    .. math::
        P(z, x) = \prod_{n=1}^N P(z_n)\, P(x_n \mid z_n)

    The same in words is the figure's label, for who does not see it.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another, or `None`.
        data: Tensors of equal length N.
        plate: Name of the plate over the data, whose number is written as N; `None` for a program
            with global latents.

    Raises:
        TypeError, ValueError: For a program that `pyrovae.check` does not accept.

    References:
        Operations for learning with graphical models (Buntine, 1994), on plates,
        https://arxiv.org/abs/cs/9412102
        Tutorial on variational autoencoders (Doersch, 2016), figure 1, arXiv:1606.05908
    """
    found = relations(model, guide, *data, plate=plate)
    labels = _labels(found, plate)
    panels = [
        (title, _formula(title, nodes), arrange(nodes, labels, upwards=title == "guide"), caption)
        for title, nodes, caption in _parts(found)
    ]
    widths = [max(d.width, *(text_width(t, SMALL) for t in (f, *c))) for _, f, d, c in panels]
    lines = max(len(caption) for *_, caption in panels)
    below = EDGE + LINE * lines + (8 if lines else 0)
    high = max(d.height for *_, d, _ in panels)
    width = sum(widths) + BETWEEN * (len(panels) - 1) + 2 * EDGE
    height = below + high + 2 * LINE + 16 + EDGE
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    left = EDGE
    for (title, formula, diagram, caption), wide in zip(panels, widths, strict=True):
        axes.text(left, height - EDGE, title, fontsize=NAME, weight="bold", va="top", color=INK)
        line = height - EDGE - LINE - 4
        axes.text(left, line, formula, fontsize=SMALL + 1, va="top", color=INK)
        _draw(axes, diagram, left + (wide - diagram.width) / 2, below + high - diagram.height)
        for i, text in enumerate(caption):
            y = below - 8 - LINE * i
            axes.text(left, y, text, fontsize=SMALL, va="top", color=PALE)
        left += wide + BETWEEN
    described = (
        f"{title} {f}".strip() + "".join(f"; {line}" for line in c) for title, f, _, c in panels
    )
    figure.set_label(". ".join([*described, *labels.values()]) + ".")
    return figure


def mermaid(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: Tensor,
    plate: str | None = "data",
) -> str:
    """Returns the diagram of `plates` as text, a Mermaid flowchart that Markdown pages draw.

    Arguments and errors are those of `plates`.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another, or `None`.
        data: Tensors of equal length N.
        plate: Name of the plate over the data.

    Returns:
        A flowchart with a subgraph for the model, one for the guide and one for each plate.

    Raises:
        TypeError, ValueError: For a program that `pyrovae.check` does not accept.
    """
    found = relations(model, guide, *data, plate=plate)
    labels, lines = _labels(found, plate), ["flowchart LR"]
    for title, nodes, _ in _parts(found):
        ids = {n.name: f"{title[0]}{i}" for i, n in enumerate(nodes)}
        lines += [f'  subgraph {title}["{title}: {_quoted(_formula(title, nodes))}"]']
        lines += ["    direction " + ("TB" if title == "model" else "BT")]
        lines += _nested(nodes, ids, (), labels, f"{title[0]}_", "    ")
        lines += [f"    {ids[p]} --> {ids[n.name]}" for n in nodes for p in n.parents]
        lines += ["  end"]
    lines += [f"  classDef shaded fill:{SHADE},stroke:{INK},color:{INK}"]
    lines += [f"  classDef open fill:#ffffff,stroke:{INK},color:{INK}"]
    return "\n".join(lines) + "\n"


def _parts(found: Relations) -> list[tuple[str, list[Node], list[str]]]:
    """Returns title, nodes with theta and phi among them, and caption, of model and guide.

    A parameter that shapes a site of the model is theta, also where the guide has it too; one that
    shapes the guide alone is phi. All thetas of a program are one dot, and all phis another, with
    arrows to every site they shape.

    Args:
        found: What running the program has shown.

    Returns:
        `("model", nodes, caption)` and `("guide", nodes, caption)`, without one that has no nodes.
        Nodes are in the order in which the program runs, the dots before them.
    """
    theta = {name for n in found.model for name in n.parameters}
    parts = []
    for title, nodes in (("model", found.model), ("guide", found.guide)):
        taken = {n.name for n in nodes}
        names = dict.fromkeys(name for n in nodes for name in n.parameters)
        letter = {name: _free("θ" if name in theta else "φ", taken) for name in names}
        dots = [Node(name, "parameter", "", ()) for name in sorted(set(letter.values()))]
        linked = [
            replace(n, parents=(*n.parents, *sorted({letter[p] for p in n.parameters})))
            for n in nodes
        ]
        if nodes:
            parts.append((title, [*dots, *linked], _caption(nodes, letter, found.numbers)))
    return parts


def _free(letter: str, taken: set[str]) -> str:
    """Returns a letter, with primes where a site has that name.

    Args:
        letter: θ or φ.
        taken: Names of the sites of the model or guide.
    """
    return _free(f"{letter}'", taken) if letter in taken else letter


def _caption(nodes: Sequence[Node], letter: dict[str, str], numbers: dict[str, int]) -> list[str]:
    """Returns a line for each module or `pyro.param`: its letter, its numbers, what it shapes.

    Parameters of one module have names that begin alike, `module$$$parameter`, as Pyro's store has
    them; so a network of many layers is one line. Where there are more than 6 lines, the last says
    how many were left out.

    Args:
        nodes: Of the model or the guide, without parameters among them.
        letter: θ or φ by the parameter's name in the store.
        numbers: How many numbers each parameter holds, by the same name.
    """
    groups: dict[tuple[str, str], tuple[set[str], dict[str, None]]] = {}
    for n in nodes:
        for name in n.parameters:
            key = letter[name], name.partition("$$$")[0]
            members, sites = groups.setdefault(key, (set(), {}))
            members.add(name)
            sites[n.name] = None
    lines = [
        f"{mark}: {group}, {_count(sum(numbers[p] for p in members))}, shapes {', '.join(sites)}"
        for (mark, group), (members, sites) in sorted(groups.items(), key=lambda g: g[0][0])
    ]
    if len(lines) > LISTED:
        lines[LISTED - 1 :] = [f"and {len(lines) - LISTED + 1} more"]
    return lines


def _count(numbers: int) -> str:
    """Returns a number of numbers in words."""
    return "1 number" if numbers == 1 else f"{numbers:,} numbers"


def _labels(found: Relations, plate: str | None) -> dict[str, str]:
    """Returns what is written into each plate, by its name: `data: N = 1,000`, `words: 20`.

    Args:
        found: What running the program has shown, sizes of plates among it.
        plate: Name of the plate over the data, whose size is called N; `None` for a program of
            global latents.
    """
    sizes = found.sizes.items()
    return {name: f"{name}: {'N = ' if name == plate else ''}{size:,}" for name, size in sizes}


def _formula(title: str, nodes: Sequence[Node]) -> str:
    """Returns the product of the conditional densities, as P(z) P(x|z).

    What stands behind the bar are the random variables that the density was seen to depend on.
    Factors without a distribution, such as data given as a condition, do not appear; those of
    `pyro.factor` are no densities, and stand as exp f(x).

    Args:
        title: "model", whose densities are P; or "guide", whose are Q.
        nodes: In the order of the factors.
    """
    letter = "P" if title == "model" else "Q"
    known = {n.name for n in nodes if n.kind != "parameter"}
    factors = []
    for n in nodes:
        if n.fn:
            given = ", ".join(p for p in n.parents if p in known)
            if n.fn == "factor":
                factors.append(f"exp {n.name}({given})")
                continue
            factors.append(f"{letter}({n.name}|{given})" if given else f"{letter}({n.name})")
    return " ".join(factors)


def _draw(axes: Axes, diagram: Diagram, left: float, bottom: float) -> None:
    """Draws a diagram with its lower left corner at (left, bottom).

    Plates lie at the bottom, arrows above them, nodes over both, names on top. Each arrow ends at
    the edge of an ellipse, which matplotlib finds.

    Args:
        axes: Whose unit is a point, x to the right and y upwards.
        diagram: Of `arrange`.
        left: Of its corner, points.
        bottom: Likewise.
    """
    for box in diagram.plates:
        corner = left + box.left, bottom + box.bottom
        frame = FancyBboxPatch(
            corner,
            box.right - box.left,
            box.top - box.bottom,
            boxstyle="round,pad=0,rounding_size=6",
            facecolor="none",
            edgecolor=INK,
        )
        axes.add_patch(frame)
        place = left + box.right - 6, bottom + box.bottom + 6
        words = axes.text(*place, box.text, fontsize=SMALL, ha="right", va="bottom", color=INK)
        words.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})  # over arrows
    patches = {}
    for name, spot in diagram.spots.items():
        fill = {"parameter": INK, "latent": "white"}.get(spot.node.kind, SHADE)
        place = left + spot.x, bottom + spot.y
        size = 2 * spot.width, 2 * spot.height
        patches[name] = Ellipse(place, *size, facecolor=fill, edgecolor=INK, zorder=3)
        axes.add_patch(patches[name])
        middle = {"va": "center", "zorder": 4, "color": INK}
        if spot.node.kind != "parameter":
            axes.text(*place, name, fontsize=NAME, ha="center", **middle)
        if label := spot.label:
            size = NAME if spot.node.kind == "parameter" else SMALL
            side = ("right", label.right) if size == NAME else ("left", label.left)
            axes.text(left + side[1], place[1], label.text, fontsize=size, ha=side[0], **middle)
    for arrow in diagram.arrows:
        start, end = patches[arrow.start], patches[arrow.end]
        line = FancyArrowPatch(
            start.center,
            end.center,
            patchA=start,
            patchB=end,
            arrowstyle="-|>",
            mutation_scale=12,
            shrinkA=0,
            shrinkB=1,
            color=INK,
            connectionstyle=f"arc3,rad={arrow.bend}",
        )
        axes.add_patch(line)


def _nested(
    nodes: Sequence[Node],
    ids: dict[str, str],
    path: tuple[str, ...],
    labels: dict[str, str],
    prefix: str,
    indent: str,
) -> list[str]:
    """Returns the lines of the nodes in a plate, and of the plates in it.

    A random variable is a circle, `id(("z<br/>Normal"))`, and a parameter a box, `id["θ"]`; a
    plate is a subgraph, and what stands in it is two spaces further to the right.

    Args:
        nodes: All of the model, or of the guide.
        ids: What Mermaid calls each node, by name: `m0`, `m1`, as names may hold what it does not
            take.
        path: Names of the plates around, the outermost first; empty for what stands in none.
        labels: What is written into each plate, by its name.
        prefix: Of the ids of plates, to which their number is added.
        indent: Blanks at the beginning of each line.
    """
    lines = []
    for n in nodes:
        if n.plates == path:
            text = "<br/>".join(_quoted(t) for t in (n.name, n.fn) if t)
            shape = f'["{text}"]' if n.kind == "parameter" else f'(("{text}"))'
            style = {"parameter": "", "latent": ":::open"}.get(n.kind, ":::shaded")
            lines.append(f"{indent}{ids[n.name]}{shape}{style}")
    for i, plate in enumerate(within(nodes, path)):
        lines.append(f'{indent}subgraph {prefix}{i}["{_quoted(labels[plate[-1]])}"]')
        lines += _nested(nodes, ids, plate, labels, f"{prefix}{i}_", indent + "  ")
        lines.append(f"{indent}end")
    return lines


def _quoted(text: str) -> str:
    """Returns a text as it stands in a Mermaid label: what has a meaning there, by its number."""
    return "".join(c if c.isalnum() or c in " .,:=()-_" else f"#{ord(c)};" for c in text)
