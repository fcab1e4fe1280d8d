"""Conformal p-values: ranks of scores among those of calibration data, at a promised rate."""

__all__ = ["allowed", "check_calibration", "mixed", "p_values"]

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrovae.checks import shown
from pyrovae.equality import same


def mixed(
    others: Sequence[Tensor], data: Sequence[Tensor], seed: int
) -> tuple[Tensor, list[Tensor]]:
    """Returns calibration and other data together in a random order, and where each is in it.

    Args:
        others: Of the calibration, `(n, ...)` each.
        data: To be judged, `(N, ...)` each.
        seed: Fixes the order.

    Returns:
        Places of the n and then of the N, `(n + N,)`; the tables, `(n + N, ...)` each.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(others[0]) + len(data[0]), generator=generator)
    both = [torch.cat(pair) for pair in zip(others, data, strict=True)]
    return order.argsort(), [d[order.to(d.device)] for d in both]


def check_calibration(
    data: Sequence[Tensor], others: Sequence[Tensor], false_alarms: float
) -> None:
    """Raises ValueError where calibration data are others, too few or the same, or no rate is one.

    Args:
        data: To be judged.
        others: Of the calibration.
        false_alarms: Alpha.
    """
    if not isinstance(false_alarms, float | int) or not 0 < false_alarms < 1:
        raise ValueError(
            f"false_alarms is {shown(false_alarms)}; give a rate between 0 and 1, such as 0.05"
        )
    ours, theirs = ([tuple(d.shape[1:]) for d in some] for some in (data, others))
    if ours != theirs:
        raise ValueError(
            f"calibration data are of shapes {theirs} a datum and the data of {ours}; give the "
            "same of other data"
        )
    n = len(others[0])
    if not allowed(n, false_alarms):
        raise ValueError(
            f"calibration is of {n:,} data, whose least p-value is 1/{n + 1:,}, above "
            f"false_alarms={false_alarms:g}; give {_needed(false_alarms):,} or more"
        )
    if same(list(data), list(others)):  # gaps among them
        raise ValueError("calibration holds the very data that are to be judged; give others")


def p_values(calibration: Tensor, score: Tensor) -> Tensor:
    """Returns (1 + number of calibration scores at or above each score) / (n + 1), `(N,)`.

    Args:
        calibration: Scores, `(n,)`.
        score: Others, `(N,)`.
    """
    n = len(calibration)
    below = torch.searchsorted(calibration.sort().values, score)
    return (1 + n - below).double() / (n + 1)


def allowed(n: int, false_alarms: float) -> int:
    """Returns l, how many of the p-values 1/(n + 1), 2/(n + 1), ... are at most alpha, up to n.

    Args:
        n: Calibration data.
        false_alarms: Alpha.
    """
    levels = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
    return int((levels <= false_alarms).sum())


def _needed(false_alarms: float) -> int:
    """Returns the least number of calibration data that the rate asks for, 1 / alpha - 1."""
    n = max(1, int(1 / false_alarms) - 2)
    while not allowed(n, false_alarms):
        n += 1
    return n
