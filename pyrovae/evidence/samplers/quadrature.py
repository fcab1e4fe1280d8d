"""log p(x) by quadrature: exact to tolerance where a datum has few latent dimensions."""

__all__ = ["quadrature"]

import warnings
from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor

from pyrovae.checks import check_positive, check_sizes
from pyrovae.evidence.samplers.cells import (
    ORDER,
    Frame,
    Peaks,
    beyond,
    doubted,
    halved,
    measure,
    rounding_of,
)
from pyrovae.evidence.samplers.search import Search
from pyrovae.program import GeometricPath, Program, inspect, reproducible
from pyrovae.threads import one_at_a_time

MOST = 3  # dimensions
TOLERANCE, MAX_POINTS = 1e-6, 2**21
FIRST = {1: 4096, 2: 24, 3: 4}  # cells of the first mesh along an axis
STRAY = 4.0  # standard errors that an estimate by sampling may be above
SAFETY = 4.0  # factor of the error estimated


class QuadratureOptions(TypedDict, total=False):
    """The options of `quadrature`, but for what decides the type of its result."""

    guide: Callable[..., object] | None
    tolerance: float
    max_points: int
    plate: str | None
    block_size: int


@overload
def quadrature(
    model: Callable[..., object],
    *data: Tensor,
    with_error: Literal[False] = ...,
    **options: Unpack[QuadratureOptions],
) -> Tensor: ...
@overload
def quadrature(
    model: Callable[..., object],
    *data: Tensor,
    with_error: Literal[True],
    **options: Unpack[QuadratureOptions],
) -> tuple[Tensor, Tensor]: ...
@one_at_a_time
def quadrature(
    model: Callable[..., object],
    *data: Tensor,
    guide: Callable[..., object] | None = None,
    tolerance: float = TOLERANCE,
    max_points: int = MAX_POINTS,
    plate: str | None = "data",
    block_size: int = 64,
    with_error: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Returns log p(x), `(N,)`, exact to a tolerance, for up to three latent dimensions a datum.

    .. math::
        p(x) = \int p(x, z(u)) \left|\frac{dz}{du}\right| du
             = \sum_{\text{cells}} \int f(m + L \varphi(t)) |L| \prod_i \varphi'(t_i) \, dt,
        \quad \varphi(t) = 4 t / (1 - t^2)

    Gauss's rule of 8 nodes an axis in each of the cells that the cube :math:`(-1, 1)^d`, and with
    it all of space, is cut into, in the coordinates of the posterior's own mean m and covariance
    L L^T, which tempered importance sampling finds for each datum. Some 2^15 nodes at first; then
    the cells with the largest errors are halved, so that each mode is resolved at its own scale.
    The error of a cell is what halving it changed, or more where a polynomial does not fit it or
    where the search met a higher density than its nodes do. The errors' sum is the error stated;
    it is at least what importance sampling of the same datum, from the prior and the guide, finds
    beyond the answer. A mode that none of 2^15 nodes, the prior's and the guide's draws come
    near remains unseen. Discrete latents are summed out.

    scipy.integrate.cubature would do it too, but splits one region at a time, for all data alike.

    Args:
        model: Any Pyro callable of `*data`.
        data: Tensors of equal length N, as the program takes them.
        guide: Another, whose draws show where to look; it changes no exact answer.
        tolerance: Estimated error allowed, nats. The rounding of the program's densities, about
            1e-5 of float32, is added to the error stated.
        max_points: Nodes per datum at most; a warning tells of data that needed more.
        plate: Name of the plate over the data; `None` integrates latents that all data share.
        block_size: Data per block.
        with_error: Return the estimated error, `(N,)`, nats, beside log p(x).

    Raises:
        TypeError, ValueError: As `pyrovae.check` explains; also for more than three dimensions, a
            latent that cannot be mapped from the reals, or NaN.

    References:
        An adaptive algorithm for numerical integration over an N-dimensional rectangular region
        (van Dooren and de Ridder, 1976), https://doi.org/10.1016/0771-050X(76)90005-X
    """
    check_sizes(max_points=max_points, block_size=block_size)
    check_positive(tolerance=tolerance)
    program = inspect(model, guide, *data, plate=plate, block_size=block_size)
    parts = [integrate(program, r, tolerance, max_points) for r in program.blocks(block_size)]
    value, error, rounding = (torch.cat(column) for column in zip(*parts, strict=True))
    missed, error = error > tolerance + rounding, error + rounding
    if missed.any():
        warnings.warn(
            f"quadrature stopped at max_points={max_points} for {int(missed.sum())} of "
            f"{len(value)} data, with an estimated error of up to {error.max():.2g} nats; raise "
            "max_points, pass a guide that knows every mode, or use ais",
            stacklevel=2,
        )
    if plate is None:
        value, error = value[0], error[0]
    return (value, error) if with_error else value


def integrate(
    program: Program, rows: range, tolerance: float, max_points: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns log p(x) of a block, its estimated error, and what rounding adds to that.

    `(n,)` each, nats; n = 1 if joint.

    Args:
        program: The pair and its data; the guide, if there is one, shows where to look.
        rows: The n rows of the block.
        tolerance: Estimated error allowed, nats.
        max_points: Nodes per datum at most.
    """
    with reproducible(0, rows.start):
        program.check_observed(rows)
        path = _path(program, rows)
        search = Search(path)
        mean, scale = search.locate()
        if program.guide is not None:
            search.propose(program)
        frame = Frame(mean, scale)
        peaks = _found(search, frame)
        value, error, rounding = _refine(path, frame, peaks, tolerance, max_points)
        error = error.clamp(min=tolerance / 2)  # below, estimates of it are not that good
        for sampled, s in search.sampled:
            least = sampled + (1 - STRAY * s).clamp(min=0).log()
            error = torch.where(least > value + error, sampled - value, error)
    return value, error, rounding


def check_dimensions(program: Program) -> None:
    """Raises ValueError unless the latents of a datum have one to three continuous dimensions.

    Args:
        program: The pair and its data, of which one block is looked at.
    """
    with reproducible(0):
        _path(program, program.blocks(1)[0])


def _path(program: Program, rows: range) -> GeometricPath:
    """Returns the path over the latents that are integrated.

    Args:
        program: Its guide is set aside, and latents of finitely many values are summed out.
        rows: Of a block.

    Raises:
        ValueError: If they have no continuous dimension, or more than three.
    """
    path = GeometricPath(replace(program, guide=None, enumerated=_summable(program)), rows)
    if not path.size:
        raise ValueError(
            "no latent of a datum is continuous: none is left to integrate, as all are summed "
            "out or given; importance_sampling is exact then"
        )
    if path.size > MOST:
        names = ", ".join(map(repr, path.names))
        raise ValueError(
            f"the latents of a datum ({names}) have {path.size} continuous dimensions; "
            f"quadrature takes 1 to {MOST}, so use ais or importance_sampling"
        )
    return path


def _summable(program: Program) -> tuple[str, ...]:
    """Returns the names of the latents that have finitely many values, in the model's order.

    Args:
        program: Inspected.
    """
    hidden = (s for s in program.sites.model if not s["is_observed"])
    return tuple(s["name"] for s in hidden if getattr(s["fn"], "has_enumerate_support", False))


def _refine(
    path: GeometricPath, frame: Frame, peaks: Peaks, tolerance: float, max_points: int
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns log of the integral, its error and rounding in nats, `(n,)`, halving cells.

    All data have equally many cells; those that are done leave, where the program can be cut. So
    do those whose error stays as it is with eight times the nodes: it is that of rounding.

    .. math::
        \log \hat p = \log \sum_c v_c, \quad
        \mathrm{error} = \log \Bigl(1 + 4 \frac{\sum_c e_c}{\sum_c v_c}\Bigr)

    of a cell's value v and its error e. In each turn as many cells are halved as the data have on
    average whose errors exceed an equal share of the tolerance.

    Args:
        path: The density of n data in unconstrained coordinates.
        frame: Each datum's own coordinates, in which cells are cubes.
        peaks: Where the search met high densities, and how high.
        tolerance: Estimated error allowed, nats.
        max_points: Nodes per datum at most.
    """
    n, d = frame.mean.shape
    value, error, rounding, before = torch.full((4, n), torch.inf, dtype=torch.float64)
    side = max(1, min(FIRST[d], int(max_points ** (1 / d)) // ORDER))
    line = (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1  # (side,): centres
    center = torch.cartesian_prod(*[line] * d).reshape(1, -1, d).expand(n, -1, -1)  # (n, C, d)
    cells = measure(path, frame, center, torch.full_like(center, 1 / side))
    cells = doubted(replace(cells, error=cells.error.maximum(cells.rest.amax(-1))), peaks)[0]
    points, active, checked = side**d * ORDER**d, torch.arange(n), 0
    while True:
        total = cells.value.logsumexp(1)  # (n,): log of the integral over all cells
        off = (SAFETY * (cells.error.logsumexp(1) - total).exp()).log1p()
        value[active], error[active], rounding[active] = total, off, rounding_of(frame, cells)
        todo = off > tolerance + rounding[active]
        if points >= 8 * checked:
            todo &= ~((0.8 * before[active] < off) & (off < 1.25 * before[active]))
            before[active], checked = off, points
        if not path.program.selects_rows:  # all of its data, or none
            todo = todo.any().expand_as(todo)
        active, cells, frame, total = active[todo], cells[todo], frame[todo], total[todo]
        if not len(active):
            return value, error, rounding
        if len(active) < len(todo):
            peaks = peaks[0][:, todo], peaks[1][:, todo]
            left = [path.rows[i] for i in torch.nonzero(todo)[:, 0].tolist()]
            path = GeometricPath(path.program.select(left), range(len(left)))
        share = log(tolerance / cells.error.shape[1])
        due = (cells.error > total[:, None] + share).sum(1).double().mean()
        k = min(int(due.ceil()), (max_points - points) // (2 * ORDER**d))
        if k < 1:
            return value, error, rounding
        points += 2 * k * ORDER**d
        order = cells.error.argsort(1, descending=True)
        halves = halved(path, frame, cells.only(order[:, :k]))
        cells = cells.only(order[:, k:]) | doubted(halves, peaks)[0]
        cells, missed = doubted(cells, beyond(path, frame, halves))
        peaks = torch.cat([peaks[0], missed[0]]), torch.cat([peaks[1], missed[1]])


def _found(search: Search, frame: Frame) -> Peaks:
    """Returns the t of the search's peaks in a frame, `(S, n, d)`, and log f |du/dt|, `(S, n)`.

    Args:
        search: That has located them.
        frame: Each datum's own coordinates.
    """
    u, log_f = (torch.cat(parts) for parts in zip(*search.peaks, strict=True))
    t = frame.inverse(u)
    return t, log_f + frame.forward(t)[1]
