"""Grey values in [0, 1] as draws in {0, 1}."""

__all__ = ["binarize", "binarized", "check_unit"]

from dataclasses import replace
from typing import overload

import torch
from torch import Tensor

from pyrovae.data.rows import Rows, in_chunks, spooled
from pyrovae.errors import DataError
from pyrovae.gaps import has_gaps


def binarize(x: Tensor, method: str = "static", *, seed: int | None = 0) -> Tensor:
    """Returns x in {0, 1}: drawn from Bernoulli(x) ("static"), or x > 0.5 ("threshold").

    NaN, what is missing, stays NaN.

    Args:
        x: Grey values in [0, 1], any shape.
        method: "static" or "threshold".
        seed: Fixes the draw; `None` takes torch's current stream, afresh in every call.

    Raises:
        DataError: If a value lies outside [0, 1].

    Example:
        >>> binarize(torch.tensor([0.0, 0.4, 1.0]), "threshold")
        tensor([0., 0., 1.])
    """
    if method not in ("static", "threshold"):
        raise ValueError(f"method is {method!r}; choose static or threshold")
    check_unit(torch.atleast_1d(x))
    return binarized(x, method, seed)


@overload
def binarized(x: Tensor, method: str, seed: int | None) -> Tensor: ...
@overload
def binarized(x: Rows, method: str, seed: int | None) -> Rows: ...
def binarized(x: Tensor | Rows, method: str, seed: int | None) -> Tensor | Rows:
    """Returns x in {0, 1}, on disk where x is: drawn bit by bit, as it would be in one go.

    As `binarize`, but x is not checked, and may be `Rows`.

    Args:
        x: In [0, 1], `(N, ...)`.
        method: "static" or "threshold".
        seed: Fixes the draw; `None` takes torch's current stream.
    """
    generator = None
    if seed is not None:
        generator = torch.Generator(x.device).manual_seed(seed)
    if isinstance(x, Tensor):
        return _drawn(x, method, generator)
    (drawn,) = spooled(_drawn(chunk, method, generator).byte() for _, chunk in in_chunks(x))
    return replace(drawn, dtype=x.dtype)


def _drawn(x: Tensor, method: str, generator: torch.Generator | None) -> Tensor:
    r"""Returns x in {0, 1}, in the type of x and its shape.

    .. math::
        b = 1[u < x], \quad u \sim \mathrm{Uniform}[0, 1)

    is Bernoulli(x). Numbers u are drawn in the order of x, so that parts of it, drawn one after
    the other from one generator, get those that all of it would.

    Args:
        x: In [0, 1].
        method: "threshold" for x > 0.5, else drawn.
        generator: Of u; `None` for torch's current stream.
    """
    if method == "threshold":
        drawn = (x > 0.5).to(x.dtype)
    else:
        uniform = torch.rand(x.shape, generator=generator, device=x.device)
        drawn = torch.lt(uniform, x, out=uniform).to(x.dtype)  # twice as fast as through booleans
    return torch.where(x.isnan(), torch.nan, drawn) if has_gaps(x) else drawn


def check_unit(x: Tensor | Rows) -> None:
    """Raises DataError that names the first value of x `(N, ...)` outside [0, 1].

    Args:
        x: Data, in memory or on disk; NaN is not looked for, see `check_finite`.
    """
    for start, chunk in in_chunks(x):
        outside = (chunk < 0) | (chunk > 1)
        if bool(outside.any()):
            row, *column = torch.nonzero(outside)[0].tolist()
            value = chunk[(row, *column)].item()
            raise DataError(
                f"x holds {value:g} at row {start + row}, column {column}, outside [0, 1], so it "
                "cannot be binarized; scale it, or keep it with binarize='none' and likelihood "
                "'normal'"
            )
