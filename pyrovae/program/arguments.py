"""What a program is called with: its callables and its data, checked before it runs."""

__all__ = ["check_callables", "check_data", "check_observed", "explained"]

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor

from pyrovae.checks import shown
from pyrovae.data.rows import Rows
from pyrovae.data.splits import check_finite
from pyrovae.errors import DataError
from pyrovae.program.contexts import evaluation
from pyrovae.program.sites import sample_sites
from pyrovae.program.supports import check_support

OF_TYPES = r"dtype|data ?type|scalar type|not implemented for '|not supported for"  # torch's words


def check_callables(model: object, guide: object) -> None:
    """Raises TypeError unless model, and guide where there is one, can be called.

    A module without `forward` can be called, and then fails; it is named, with what it has
    instead.

    Args:
        model: To be one that can be called.
        guide: Likewise, or `None`.
    """
    for who, fn in (("model", model), ("guide", guide)):
        if who == "guide" and fn is None:
            continue
        if not callable(fn):
            raise TypeError(f"the {who} is {shown(fn)}; give a Pyro callable of the data")
        plain = type(fn).__call__ in (torch.nn.Module.__call__, PyroModule.__call__)
        if plain and getattr(type(fn), "forward", None) is torch.nn.Module.forward:
            own = f"its .{who}" if hasattr(fn, who) else "a Pyro callable of the data"
            raise TypeError(
                f"the {who} is a {type(fn).__name__}, which has no forward to call; give {own}"
            )


def check_data(data: Sequence[object], start: int = 0, missing: Sequence[int] = ()) -> None:
    """Raises TypeError or DataError unless data are finite tensors of one length, not empty.

    NaN and inf would go through networks into every number unseen: the first is named by its row.

    Args:
        data: Tables, `(N, ...)` each, in memory or on disk.
        start: Number of the first row.
        missing: Numbers of the tensors in which NaN says that something is missing.
    """
    if not data or not all(isinstance(d, Tensor | Rows) and d.ndim for d in data):
        got = ", ".join(dict.fromkeys(type(d).__name__ for d in data)) or "nothing"
        raise TypeError(f"the data are {got}; give tensors whose first dimension counts the data")
    tables = [d for d in data if isinstance(d, Tensor | Rows)]
    lengths = [len(d) for d in tables]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise DataError(f"the data tensors have lengths {lengths}; give equal lengths, at least 1")
    for i, d in enumerate(tables):
        name = f"data[{i}]" if len(tables) > 1 else "x"
        check_finite(d, name, start, missing=i in missing)


def check_observed(model: Callable[..., object], *data: Tensor, start: int = 0) -> None:
    """Raises DataError for an observed value outside its support; rows count from `start`.

    Args:
        model: A Pyro callable of `*data`.
        data: A batch, `(n, ...)` each.
        start: Number of its first row.
    """
    with evaluation(), torch.random.fork_rng():
        for site in sample_sites(poutine.trace(model).get_trace(*data)):
            check_support(site, None, start)


@contextmanager
def explained(*data: object) -> Iterator[None]:
    """Runs a program on data; where torch refuses their types, says so.

    Args:
        data: What it is called with.

    Raises:
        TypeError: In place of torch's error about types.
    """
    try:
        yield
    except RuntimeError as e:
        what, types = (
            str(e).partition("\n")[0],
            [d.dtype for d in data if isinstance(d, Tensor | Rows)],
        )
        if not (types and re.search(OF_TYPES, what)):
            raise
        named = ", ".join(f"{t}" for t in types)
        raise TypeError(
            f"the program does not run on data of type {named} ({what}); give float32 or float64, "
            "the type of its parameters, such as x.float()"
        ) from e
