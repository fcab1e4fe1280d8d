"""Which training row lies nearest to a datum, and how near they lie to each other."""

__all__ = ["among", "nearest"]

import torch
from torch import Tensor

COMPARED = 2_000  # training rows whose nearest others are looked for, at most
PAIRS = 2**22  # at a time


def nearest(x: Tensor, train: Tensor, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns the number of the nearest training row of each row, and its distance, `(n,)` each.

    Euclidean; where numbers are missing, of those that both have, times sqrt(D / their number).

    Args:
        x: `(n, D)` float64, NaN where it is missing.
        train: `(N, D)`.
        own: Number of the training row that each row is, which is left out, `(n,)`.
    """
    rows, distances = [], []
    for part in torch.arange(len(x)).split(max(1, PAIRS // len(train))):
        far = _squares(x[part], train)
        if own is not None:
            far[torch.arange(len(part)), own[part]] = torch.inf
        rows.append(far.nan_to_num(torch.inf).argmin(1))
        # of the one anew: a difference of large squares is not 0 for equal rows
        distances.append(_distance(x[part], train[rows[-1]]))
    return torch.cat(rows), torch.cat(distances)


def among(train: Tensor, seed: int) -> Tensor:
    """Returns the distance of training rows to the nearest other one, of 2,000 at most, `(M,)`.

    Args:
        train: `(N, D)` float64.
        seed: Fixes which.
    """
    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(len(train), generator=generator)[:COMPARED]
    return nearest(train[some], train, some)[1]


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Returns squared distances, `(n, N)`.

    Args:
        x: `(n, D)`.
        y: `(N, D)`.
    """
    seen = [(~t.isnan()).to(t) for t in (x, y)]
    x, y = x.nan_to_num(), y.nan_to_num()
    both = seen[0] @ seen[1].T
    square = x.square() @ seen[1].T + seen[0] @ y.square().T - 2 * x @ y.T
    return square.clamp(min=0) * x.shape[1] / both


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """Returns the distance of each row of two tables, `(n,)`.

    Args:
        x: `(n, D)`.
        y: `(n, D)`.
    """
    return ((x - y).square().nanmean(1) * x.shape[1]).sqrt()
