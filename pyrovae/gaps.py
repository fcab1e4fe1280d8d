"""Whether data have gaps, NaN, also where a program is captured and no number can be looked at."""

__all__ = ["filled", "has_gaps", "or_prior", "with_gaps"]

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._python_dispatch import _disable_current_modes

_captured: ContextVar[bool] = ContextVar("captured with gaps", default=True)


def has_gaps(x: Tensor) -> bool:
    """Returns whether x has a NaN; while a graph is captured, whether it is one for such data.

    What watches a program for a look at its data's numbers does not see this one: on them it
    depends by leaving out what is missing alone.
    """
    if get_proxy_mode() is not None:
        return _captured.get()
    with _disable_current_modes():
        return bool(x.isnan().any())


@contextmanager
def with_gaps(has_any: bool) -> Iterator[None]:
    """Captures what stands in its body as a graph for data with gaps, or without.

    Args:
        has_any: Which.
    """
    token = _captured.set(has_any)
    try:
        yield
    finally:
        _captured.reset(token)


def filled(x: Tensor, value: float = 0.0) -> Tensor:
    """Returns x with a value in its gaps.

    Args:
        x: Any shape.
        value: What networks see of what is missing.
    """
    return torch.where(x.isnan(), value, x) if x.is_floating_point() else x


def or_prior(x: Tensor, q: Tensor, p: Tensor | float) -> Tensor:
    """Returns numbers of Q(z|X), and in rows of x of which nothing is seen those of P(z).

    It is the posterior there, so that all weights are 1, and log P(X) is 0.

    Args:
        x: `(N, D)`.
        q: What an encoder says, `(..., N, d)`.
        p: The same of P(z), of a shape that broadcasts with it.
    """
    return torch.where(x.isnan().all(-1, keepdim=True), p, q) if has_gaps(x) else q
