"""Ways through a latent space: along its axes, and from one datum to another."""

__all__ = ["spherical", "straight", "traversals"]

import torch
from torch import Tensor

from pyrovae.checks import check_sizes


def straight(a: Tensor, b: Tensor, steps: int) -> Tensor:
    r"""Returns points from a to b on the line between them, `(steps, d)`.

    .. math::
        z_t = (1 - t)\, a + t\, b, \quad t = 0, \dots, 1

    Args:
        a: Where it begins, `(d,)`.
        b: Where it ends, `(d,)`.
        steps: How many points, both ends among them.
    """
    t = _steps(a, steps)
    return (1 - t) * a + t * b


def spherical(a: Tensor, b: Tensor, steps: int) -> Tensor:
    r"""Returns points from a to b, `(steps, d)`, that turn evenly and keep between their lengths.

    .. math::
        z_t = \frac{\sin (1 - t)\omega}{\sin\omega}\, a + \frac{\sin t\omega}{\sin\omega}\, b,
        \quad \cos\omega = \frac{a^T b}{|a|\,|b|}

    Draws of N(0, I) in many dimensions have about the same length, and the middle of a straight
    way is shorter than nearly all of them. Where a and b point the same way, or opposite ways, or
    one is 0, there is no one arc, and the way is straight.

    Args:
        a: Where it begins, `(d,)`.
        b: Where it ends, `(d,)`.
        steps: How many points, both ends among them.

    References:
        Sampling generative networks (White, 2016), section 2.1, https://arxiv.org/abs/1609.04468
    """
    t = _steps(a, steps)
    cos = (a @ b / (a.norm() * b.norm())).clamp(-1, 1)
    sin = (1 - cos.square()).sqrt()
    if not sin > 1e-4:
        return straight(a, b, steps)
    omega = torch.atan2(sin, cos)
    return (((1 - t) * omega).sin() * a + (t * omega).sin() * b) / omega.sin()


def traversals(z: Tensor, dims: Tensor, low: Tensor, high: Tensor, steps: int) -> Tensor:
    """Returns z with one dimension after the other changed from low to high, `(k, steps, d)`.

    Args:
        z: Where all others stay, `(d,)`.
        dims: The k dimensions, `(k,)`.
        low: Where each dimension begins, `(d,)`.
        high: Where it ends, `(d,)`.
        steps: How many points of each.
    """
    t = _steps(z, steps)
    along = low + t * (high - low)  # (steps, d)
    found = z.repeat(len(dims), steps, 1)
    for row, k in zip(found, dims.tolist(), strict=True):
        row[:, k] = along[:, k]
    return found


def _steps(like: Tensor, steps: int) -> Tensor:
    """Returns numbers from 0 to 1, `(steps, 1)`.

    Args:
        like: Of whose type and device.
        steps: How many.

    Raises:
        ValueError: If that is no positive integer.
    """
    check_sizes(steps=steps)
    return torch.linspace(0, 1, steps, dtype=like.dtype, device=like.device)[:, None]
