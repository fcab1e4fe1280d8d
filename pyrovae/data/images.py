"""Parts of images: which pixels are known, where the others are to be completed."""

__all__ = ["quadrants"]

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrovae.checks import check_sizes


def quadrants(image_shape: Sequence[int], num_given: int) -> Tensor:
    """Returns which pixels are given, `(H * W,)`, of images in rows: 1, 2 or 3 quadrants of four.

    In order these are the lower left, the upper left and the upper right. A row of middle pixels
    of an odd height belongs to the lower half, a column of an odd width to the right.

    Args:
        image_shape: H and W.
        num_given: How many quadrants.

    Raises:
        ValueError: If a size is no positive integer, or num_given not 1, 2 or 3.

    References:
        Learning structured output representation using deep conditional generative models (Sohn,
        Lee and Yan, 2015), section 5.1, https://papers.nips.cc/paper/5775

    Example:
        >>> given = quadrants((4, 4), 1)
        >>> given.reshape(4, 4)[2:, :2].all(), int(given.sum())
        (tensor(True), 4)
    """
    height, width = image_shape
    check_sizes(height=height, width=width, num_given=num_given)
    if num_given > 3:
        raise ValueError(f"num_given is {num_given}; give 1, 2 or 3 quadrants")
    given = torch.zeros(height, width, dtype=torch.bool)
    upper, lower, left, right = (
        slice(height // 2),
        slice(height // 2, None),
        slice(width // 2),
        slice(width // 2, None),
    )
    for rows, columns in ((lower, left), (upper, left), (upper, right))[:num_given]:
        given[rows, columns] = True
    return given.flatten()
