"""Tables as text."""

__all__ = ["aligned"]

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Returns rows of cells as lines, two spaces between columns.

    Args:
        rows: Of equally many cells.
        sides: Of each column "<", to the left, or ">", to the right.

    Example:
        >>> aligned([("", "nats"), ("elbo", "-9.5")], "<>")
        ['      nats', 'elbo  -9.5']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]
