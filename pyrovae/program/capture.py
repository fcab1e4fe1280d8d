"""Functions of tensors, each captured once as a graph and compiled."""

__all__ = ["Captured"]

import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar, cast

import numpy as np
import pyro
import torch
from numpy.polynomial import Chebyshev, Polynomial
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten

from pyrovae.gaps import with_gaps

R = TypeVar("R")
Shape = tuple[torch.Size, torch.dtype, torch.device]
# coefficients of log(1 + u) / u for u in [0, 1], interpolated at Chebyshev's points
LOG1P = [
    float(c)
    for c in Chebyshev.interpolate(lambda u: np.log1p(u) / u, 8, domain=[0, 1])
    .convert(kind=Polynomial)
    .coef
]
TOLERANCE = 1e-4  # of a graph's results, relative to the largest
# files whose lines are no program's
MACHINERY = (
    *(str(Path(m.__file__ or "").parent) for m in (torch, pyro)),
    str(Path(__file__).parents[1]),
)


class Captured(Generic[R]):
    """A function of tensors; after its first call, for inputs of those shapes, a compiled graph.

    `make_fx` runs the function and takes down what happens to the tensors, gradients included;
    of Pyro's handlers nothing is left. `torch.compile` makes machine code of that, and CUDA graphs
    where the tensors are on a GPU. Inputs of other shapes go to the function itself. Parameters
    that the function holds are read at each call; random numbers are drawn by torch as the
    function would draw them for inputs of those shapes, so that a seed means the same draws;
    results are the function's to rounding.

    What Python decides is decided at the first call. A function that reads values to decide
    (`.item()`, `if x > 0`), or whose graph gives other results than itself, is given up with one
    warning that names the line and the reason, and so it is without a compiler: all calls then go
    to the function.

    Args:
        fn: Takes tensors, or dictionaries of them, and returns such.
        what: What it computes, in the warning's words.
        record: What the graph is taken from, where the function itself, equal to it, reads values.
        rounding: By how much compiled results may be off, relative to the largest, where those
            of the graph as it was taken down are not.
    """

    def __init__(
        self,
        fn: Callable[..., R],
        what: str,
        record: Callable[..., R] | None = None,
        rounding: float = TOLERANCE,
    ) -> None:
        self._fn, self._what, self._record = fn, what, record or fn
        self._graph: Callable[..., R] | None = None
        self._uncompiled: Callable[..., R] = fn
        self._rounding = rounding
        self._shapes: list[Shape] | None = None
        self._gaps = False

    def __call__(self, *args: object) -> R:
        """Returns what the function does, from its graph if there is one for these shapes."""
        shapes = _shapes(args)
        if self._shapes is None:
            self._shapes, self._gaps = shapes, _gaps(args)
            self._capture(args)
        if self._graph is None or shapes != self._shapes or (not self._gaps and _gaps(args)):
            return self._fn(*args)
        with torch.no_grad():
            return self._graph(*tree_flatten(args)[0])

    def check(self, *args: object) -> None:
        """Gives the graph up where it and the function differ on these inputs, same draws.

        By more than 1e-4 of the largest result, or of 1 where that is less; or compiled by
        `rounding`, where the same graph does not differ before that.

        Args:
            args: Inputs of the function; of other shapes than the first ones, nothing is compared.
        """
        if self._graph is None or _shapes(args) != self._shapes:
            return
        with torch.random.fork_rng():
            expected = self._fn(*args)
        with torch.random.fork_rng():
            off, relative = _difference(self(*args), expected)
        if TOLERANCE < relative < self._rounding:
            with torch.random.fork_rng(), torch.no_grad():
                off, relative = _difference(self._uncompiled(*tree_flatten(args)[0]), expected)
        if relative > TOLERANCE:
            self._give_up(
                f"its graph is off by {off:.3g}: the program depends on something that is no "
                "tensor and changes between calls"
            )

    def _capture(self, args: tuple[object, ...]) -> None:
        """Makes the graph for inputs of these shapes, and compares it with the function.

        Args:
            args: The inputs of the first call.
        """
        flat, spec = tree_flatten(args)
        cuda = any(a.is_cuda for a in flat)
        options: dict[str, str | int | bool | Callable[..., object]] = {
            "fallback_random": True,
            "triton.cudagraphs": cuda,
        }
        try:
            with (
                torch.random.fork_rng(),
                torch.no_grad(),
                with_gaps(self._gaps),
                pyro.validation_enabled(False),  # it reads values
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                graph = make_fx(lambda *x: self._record(*spec.unflatten(x)), FASTER)(*flat)
                compiled = torch.compile(graph.forward, options=options, dynamic=False)
                compiled(*flat)
        except Exception as e:
            self._give_up(_reason(e))
            return
        self._graph, self._uncompiled = cast(Callable[..., R], compiled), graph
        # other numbers in the same places, so that none can have been taken for a constant
        self.check(*spec.unflatten([a.flip(0) if a.ndim else a for a in flat]))

    def _give_up(self, why: str) -> None:
        """Drops the graph, with a warning.

        Args:
            why: The reason, in the warning's words.
        """
        self._graph = None
        warnings.warn(f"{self._what} runs uncompiled, slower: {why}", stacklevel=2)


def _difference(got: object, expected: object) -> tuple[float, float]:
    """Returns by how much results differ at most, and that relative to the result's largest.

    Args:
        got: Tensors, nested.
        expected: The same; `None` in the place of one that does not matter.
    """
    pairs = zip(tree_flatten(got)[0], tree_flatten(expected)[0], strict=True)
    worst = 0.0, 0.0
    for a, b in ((a, b) for a, b in pairs if b is not None and b.numel()):
        a, b = (t.detach().double().nan_to_num() for t in (a, b))
        off = (a - b).abs().max().item()
        worst = max(worst, (off, off / max(1.0, b.abs().max().item())), key=lambda w: w[1])
    return worst


def _bce_with_logits(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = 1,
) -> Tensor:
    """Returns softplus(logits) - target logits, in a way that vector units are fast at.

    It is -log p(target) of a Bernoulli, nats, elementwise. torch's own has log1p(exp(-|logits|)),
    which takes ten times as long where the exponential is tiny, as it is for most pixels of a
    trained model: the squares in log1p underflow.
    """
    if weight is not None or pos_weight is not None or reduction:
        return NotImplemented
    return logits.clamp(min=0) - target * logits + _log1p_exp_minus(logits.abs())


def _addmm(bias: Tensor, a: Tensor, b: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    """Returns a b + bias, so that the bias is added where the product is used next.

    The library's own copies the bias into the result first. Subtracted, lest the compiler sees
    through it.
    """
    if beta != 1 or alpha != 1 or bias.ndim != 1:
        return NotImplemented
    return torch.mm(a, b) - (-bias)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """Returns log(1 + exp(x)), elementwise, as above; with other options torch's own is left."""
    if beta != 1:
        return NotImplemented
    return x.clamp(min=0) + _log1p_exp_minus(x.abs())


def _log1p_exp_minus(x: Tensor) -> Tensor:
    """Returns log(1 + exp(-x)) for x >= 0, which is cut off lest its exponential underflows.

    In float32, log(1 + u) is u times a polynomial with an error of 2e-8, in half log's time: of
    degree 8, through Chebyshev's points of [0, 1].
    """
    u = (-x).clamp(min=-80.0).exp()
    if u.dtype != torch.float32:
        return (1 + u).log()
    q: float | Tensor = LOG1P[-1]
    for c in LOG1P[-2::-1]:
        q = q * u + c
    return u * q


FASTER = {
    torch.ops.aten.softplus.default: _softplus,
    torch.ops.aten.binary_cross_entropy_with_logits.default: _bce_with_logits,
    torch.ops.aten.addmm.default: _addmm,
}


def _shapes(args: tuple[object, ...]) -> list[Shape]:
    """Returns shape, type and device of all tensors in a tree."""
    return [(a.shape, a.dtype, a.device) for a in tree_flatten(args)[0]]


def _gaps(args: object) -> bool:
    """Returns whether a number of the tensors in a tree is NaN."""
    return any(a.is_floating_point() and bool(a.sum().isnan()) for a in tree_flatten(args)[0])


def _reason(error: Exception) -> str:
    """Returns what went wrong, and the line of the user's program where it did.

    Args:
        error: Whose traceback is searched for the last line outside torch, Pyro and this package.
    """
    lines = traceback.extract_tb(error.__traceback__)
    own = [f for f in lines if not f.filename.startswith((*MACHINERY, "<"))]
    where = f" at {own[-1].filename}:{own[-1].lineno} ({own[-1].line})" if own else ""
    if "_local_scalar_dense" in str(error):
        return f"the program reads a tensor's value{where}"
    return f"{type(error).__name__}{where}: {str(error).strip().partition(chr(10))[0][:200]}"
