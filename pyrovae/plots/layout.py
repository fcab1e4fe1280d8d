"""Where nodes, plates and arrows of a plate diagram go: geometry in points, nothing drawn.

Nodes stand in rows 88 points high, parents above their children (below, in a guide). From left to
right every plate has columns of its own, and in it first its parameters, then its variables, then
the plates inside: so no two of them can overlap. Arrows bend around what would be in their way. x
grows to the right and y upwards.
"""

__all__ = ["NAME", "SMALL", "Arrow", "Box", "Diagram", "Spot", "arrange", "text_width", "within"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot

from pyrovae.program import Node

NAME, SMALL = 12, 9  # font sizes: of what stands in a node, and beside it
RADIUS, DOT = 20, 4  # of a node, at least, and of a parameter
ROW, GAP = 88, 16  # between rows, and around what stands in a plate
BENDS = (0, 0.2, -0.2, 0.35, -0.35, 0.5, -0.5, 0.7, -0.7)


@dataclass(frozen=True)
class Spot:
    """A node at (x, y), y upwards: an ellipse of half axes `width` and `height`.

    Attributes:
        node: What stands there.
        x: Of its centre, points.
        y: Likewise.
        width: Half of what it takes from left to right, points.
        height: Half of what it takes from bottom to top, points.
    """

    node: Node
    x: float
    y: float
    width: float
    height: float

    @property
    def label(self) -> "Box | None":
        """What stands on the right of a random variable, on the left of a parameter."""
        text = self.node.name if self.node.kind == "parameter" else self.node.fn
        if not text:
            return None
        size = text_width(text, NAME if self.node.kind == "parameter" else SMALL)
        left = self.x + self.width + 4
        if self.node.kind == "parameter":
            left = self.x - self.width - 4 - size
        return Box(text, left, self.y - 7, left + size, self.y + 7)


@dataclass(frozen=True)
class Box:
    """A rectangle with a text: a plate, or the room that a label takes.

    Attributes:
        text: What is written in it.
        left: Of its edges, points.
        bottom: Likewise.
        right: Likewise.
        top: Likewise.
    """

    text: str
    left: float
    bottom: float
    right: float
    top: float

    @property
    def words(self) -> "Box":
        """The room that a plate's text takes, in its lower right corner."""
        right, bottom = self.right - 6, self.bottom + 6
        return Box(self.text, right - text_width(self.text, SMALL), bottom, right, bottom + SMALL)

    def holds(self, x: float, y: float) -> bool:
        """Returns whether a point lies in it.

        Args:
            x: Of the point, points.
            y: Likewise.
        """
        return self.left < x < self.right and self.bottom < y < self.top


@dataclass(frozen=True)
class Arrow:
    """From one spot to another, bent to pass by the others: an arc of matplotlib's `arc3`.

    Attributes:
        start: Name of the parent.
        end: Name of the child.
        bend: How far the arc's control point lies beside the straight line, as a share of its
            length; to the right of one who goes along it where it is positive.
    """

    start: str
    end: str
    bend: float


@dataclass(frozen=True)
class Diagram:
    """All of it, from (0, 0) to (width, height).

    Attributes:
        spots: The nodes by name.
        plates: Their rectangles, inner ones before those around them.
        arrows: From each parent to each child.
        width: Of the whole, points.
        height: Likewise.
    """

    spots: dict[str, Spot]
    plates: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    width: float
    height: float


def text_width(text: str, size: float) -> float:
    """Returns how many points a text of that font size takes, at most, for most texts.

    Nothing is drawn to find it: 0.62 of the size for each character.

    Args:
        text: In mathtext.
        size: Of the font, points.
    """
    return 0.62 * size * len(text)


def arrange(nodes: Sequence[Node], labels: Mapping[str, str], *, upwards: bool = False) -> Diagram:
    """Returns the diagram of some nodes: parents above their children, or below them.

    What stands in a plate has columns of its own, beside those of what does not; so nothing can
    overlap, whatever the program.

    Args:
        nodes: Parents before children; parameters are of kind "parameter".
        labels: What is written into each plate, by its name.
        upwards: Whether children stand above their parents, as in a guide.

    Returns:
        Spots, plates and arrows, moved so that all lies just within (0, 0) and (width, height).
    """
    rows = _rows(nodes, -1 if upwards else 1)
    spots: dict[str, Spot] = {}
    plates: list[Box] = []

    def place(path: tuple[str, ...], left: float) -> tuple[float, int]:
        """Places what stands in a plate from `left` on; returns its right, and plates inside."""
        here = [n for n in nodes if n.plates == path]
        for parameter in (n for n in here if n.kind == "parameter"):
            left += text_width(parameter.name, NAME) + 2 * DOT
            y = -ROW * rows[parameter.name]
            spots[parameter.name] = Spot(parameter, left, y, DOT, DOT)
            left += DOT + GAP
        left = _lane([n for n in here if n.kind != "parameter"], rows, left, spots)
        depth = 0
        for plate in within(nodes, path):
            start = left
            left, under = place(plate, start + GAP)
            depth = max(depth, under + 1)
            members = [s for s in spots.values() if s.node.plates[: len(plate)] == plate]
            left = max(left, start + text_width(labels[plate[-1]], SMALL) + GAP)
            top = max(s.y for s in members) + RADIUS + 12 + 8 * under
            bottom = min(s.y for s in members) - RADIUS - 24 - 22 * under
            plates.append(Box(labels[plate[-1]], start, bottom, left, top))
            left += GAP
        return left, depth

    place((), 0)
    spots, boxes, width, height = _shifted(spots, plates)
    arrows = [
        Arrow(parent, n.name, _bend(spots[parent], spots[n.name], spots, boxes))
        for n in nodes
        for parent in n.parents
    ]
    return Diagram(spots, boxes, tuple(arrows), width, height)


def within(nodes: Sequence[Node], path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Returns the plates directly inside a plate, by their names and those around them.

    Args:
        nodes: Of a diagram.
        path: Names of plates, from the outermost.
    """
    inner = [n.plates[: len(path) + 1] for n in nodes if n.plates[: len(path)] == path]
    return [p for p in dict.fromkeys(inner) if len(p) > len(path)]


def _rows(nodes: Sequence[Node], sign: int) -> dict[str, float]:
    r"""Returns each node's row, counted downwards; a parameter's is its children's mean.

    .. math::
        r(n) = 0 \text{ without parents, else } s \max_{p \to n} (1 + s\, r(p))

    With s = 1 a node stands one row below the lowest of its parents; with s = -1 one above the
    highest.

    Args:
        nodes: Parents before children, as a program meets them.
        sign: s, 1 where children stand below, -1 where above.
    """
    depth: dict[str, float] = {}
    for n in nodes:
        if n.kind != "parameter":
            depth[n.name] = sign * max(
                (1 + sign * depth[p] for p in n.parents if p in depth), default=0
            )
    for n in nodes:
        if n.kind == "parameter":
            shaped = [depth[c.name] for c in nodes if n.name in c.parents]
            depth[n.name] = sum(shaped) / len(shaped)
    return depth


def _lane(
    nodes: Sequence[Node], rows: Mapping[str, float], left: float, spots: dict[str, Spot]
) -> float:
    """Places nodes that share their plates in columns, row by row; returns the right end, points.

    All slots are as wide as the widest node with its label needs, and a row of few nodes is spread
    over the width of the fullest one: with m of them, number i stands at left + width (i + 1/2) /
    m.

    Args:
        nodes: Random variables of one plate, not of those inside it.
        rows: Of every node, by name; row r stands at y = -88 r.
        left: Where the lane begins, points.
        spots: Gains one for each node.
    """
    if not nodes:
        return left
    half = max(_half(n) for n in nodes)
    label = max(text_width(n.fn, SMALL) + 4 for n in nodes)
    slot = 2 * half + label + GAP
    by_row = {r: [n for n in nodes if rows[n.name] == r] for r in {rows[n.name] for n in nodes}}
    width = slot * max(map(len, by_row.values()))
    for row, members in by_row.items():
        for i, n in enumerate(members):
            middle = left + width * (i + 0.5) / len(members)
            spots[n.name] = Spot(n, middle - label / 2, -ROW * row, _half(n), RADIUS)
    return left + width


def _half(node: Node) -> float:
    """Returns half the width of a node, points: what its name needs, at least a circle's."""
    return max(RADIUS, text_width(node.name, NAME) / 2 + 6)


def _shifted(
    spots: Mapping[str, Spot], plates: Sequence[Box]
) -> tuple[dict[str, Spot], tuple[Box, ...], float, float]:
    """Returns spots and plates moved so that all lies just within (0, 0) and (width, height).

    What counts are plates, ellipses and the labels beside them, with 2 points around all; arrows
    do not.

    Args:
        spots: Of the nodes by name, as they were placed.
        plates: Their rectangles.

    Returns:
        Spots by name, plates, width and height, points.
    """
    labels = [s.label for s in spots.values()]
    boxes = [*plates, *(b for b in labels if b)]
    boxes += [
        Box("", s.x - s.width, s.y - s.height, s.x + s.width, s.y + s.height)
        for s in spots.values()
    ]
    left, bottom = min(b.left for b in boxes) - 2, min(b.bottom for b in boxes) - 2
    width, height = max(b.right for b in boxes) + 2 - left, max(b.top for b in boxes) + 2 - bottom
    moved = {
        k: Spot(s.node, s.x - left, s.y - bottom, s.width, s.height) for k, s in spots.items()
    }
    shifted = (
        Box(b.text, b.left - left, b.bottom - bottom, b.right - left, b.top - bottom)
        for b in plates
    )
    return moved, tuple(shifted), width, height


def _bend(start: Spot, end: Spot, spots: Mapping[str, Spot], plates: Sequence[Box]) -> float:
    r"""Returns the smallest bend with which an arrow meets the fewest other nodes and texts.

    .. math::
        B(t) = (1 - t)^2 P_0 + 2 t (1 - t) C + t^2 P_1, \quad
        C = \tfrac12 (P_0 + P_1) + b\, (y_1 - y_0,\; x_0 - x_1)

    Of the bends b between -0.7 and 0.7 in `BENDS` the one that meets least is taken; of equals the
    straightest.

    Args:
        start: The parent, at P_0.
        end: The child, at P_1.
        spots: All nodes by name, with what may be in the way.
        plates: Whose texts may be.
    """
    texts = [*(s.label for s in spots.values() if s.label), *(p.words for p in plates)]

    def meets(bend: float) -> int:
        """Returns how many it meets, at 59 points along the arc."""
        # the arc is a quadratic Bezier curve, see matplotlib.patches.ConnectionStyle.Arc3
        x = (start.x + end.x) / 2 + bend * (end.y - start.y)
        y = (start.y + end.y) / 2 - bend * (end.x - start.x)
        met: set[str | int] = set()
        for i in range(1, 60):
            t = i / 60
            px = (1 - t) ** 2 * start.x + 2 * t * (1 - t) * x + t**2 * end.x
            py = (1 - t) ** 2 * start.y + 2 * t * (1 - t) * y + t**2 * end.y
            for name, s in spots.items():
                near = hypot((px - s.x) / (s.width + 5), (py - s.y) / (s.height + 5)) < 1
                if near and s not in (start, end):
                    met.add(name)
            met.update(k for k, text in enumerate(texts) if text.holds(px, py))
        return len(met)

    return min(BENDS, key=lambda bend: (meets(bend), abs(bend)))
