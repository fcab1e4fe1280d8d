"""Labels that are kept from a model: of some data it is told the class, of others not."""

__all__ = ["hide_labels"]

from dataclasses import replace

import torch

from pyrovae.checks import is_at_least
from pyrovae.data.rows import Rows
from pyrovae.data.splits import Split
from pyrovae.errors import DataError


def hide_labels(split: Split, num_labels: int, seed: int = 0, *, share: float = 0.0) -> Split:
    """Returns the data with so many labels left, as many of each class; the others are -1.

    Of 100 labels and 50,000 rows a batch would hold a fifth of a label. So the rows with labels
    can be repeated, at the end, until they are a share of all rows.

    Args:
        split: Data with labels y `(N,)`, integers from 0 to K - 1.
        num_labels: How many stay, a multiple of K; 0 hides all.
        seed: Which rows they are.
        share: Of the rows with labels among all rows that come back; 0 repeats none.

    Raises:
        DataError: If there are no labels, or too few of a class.
        ValueError: If num_labels is no multiple of K, or the share not from 0 to below 1.

    References:
        Semi-supervised learning with deep generative models (Kingma, Mohamed, Rezende and
        Welling, 2014), section 4.1, https://arxiv.org/abs/1406.5298

    Example:
        >>> import pyrovae as pv
        >>> train = pv.data.hide_labels(pv.data.load("digits").train, 100)
        >>> train.y[train.y >= 0].bincount()
        tensor([10, 10, 10, 10, 10, 10, 10, 10, 10, 10])
    """
    x, y = split.x, split.y
    if y is None:
        raise DataError("these data have no labels, of which some could be hidden")
    if not (is_at_least(share, 0) and share < 1):
        raise ValueError(f"share is {share!r}; give a number from 0 to below 1")
    count = y[y >= 0].bincount()
    each, rest = divmod(int(num_labels), len(count))
    if rest or num_labels < 0:
        raise ValueError(
            f"num_labels is {num_labels}; give a multiple of the {len(count)} classes, or 0"
        )
    if each > count.min():
        raise DataError(
            f"num_labels is {num_labels}, {each} of each class, and of class "
            f"{int(count.argmin())} there are {int(count.min())}"
        )
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    kept = torch.cat([order[y[order] == k][:each] for k in range(len(count))])
    hidden = torch.full_like(y, -1)
    hidden[kept] = y[kept]
    copies = round(share * (len(y) - len(kept)) / ((1 - share) * max(1, len(kept))))
    rows = torch.cat([torch.arange(len(y)), kept.repeat(max(0, copies - 1))])
    return replace(
        split,
        x=x.take(rows) if isinstance(x, Rows) else x[rows],
        y=hidden[rows],
        more=tuple(a.take(rows) if isinstance(a, Rows) else a[rows] for a in split.more),
    )
