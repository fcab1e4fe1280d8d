"""log p(x) by quadrature: exact to tolerance where a datum has few latent dimensions."""

__all__ = ["quadrature"]

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.checks import check_positive, check_sizes
from pyrovae.evidence.samplers.search import Search, log_joint
from pyrovae.program import Path, Program, inspect, reproducible
from pyrovae.threads import one_at_a_time

MOST = 3  # dimensions
TOLERANCE, MAX_POINTS = 1e-6, 2**21
CHUNK_SIZE = 2**15  # nodes x data evaluated at once
FACES = 256  # densities known besides, across faces
ORDER, FIRST = 8, {1: 4096, 2: 24, 3: 4}  # nodes of a cell, and cells of the first mesh, an axis
WIDTH = 4.0  # of the cube's middle, in standard deviations
FAR = 25.0  # standard deviations; a tail of exp(-FAR) is none
STRAY = 4.0  # standard errors that an estimate by sampling may be above
SAFETY = 4.0  # factor of the error estimated


@one_at_a_time
def quadrature(
    model: Callable[..., Any],
    *data: Tensor,
    guide: Callable[..., Any] | None = None,
    tolerance: float = TOLERANCE,
    max_points: int = MAX_POINTS,
    plate: str | None = "data",
    block_size: int = 64,
    with_error: bool = False,
) -> Any:
    r"""Returns log p(x), `(N,)`, exact to a tolerance, for up to three latent dimensions a datum.

    .. math::
        p(x) = \int p(x, z(u)) \left|\frac{dz}{du}\right| du
             = \sum_{\text{cells}} \int f(m + L \varphi(t)) |L| \prod_i \varphi'(t_i) \, dt,
        \quad \varphi(t) = 2 t / (1 - t^2)

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
    """
    with reproducible(0, rows.start):
        program.check_observed(rows)
        path = _path(program, rows)
        search = Search(path)
        mean, scale = search.locate()
        if program.guide is not None:
            search.propose(program)
        frame = _Frame(mean, scale)
        seeds = _found(search, frame)
        value, error, rounding = _refine(path, frame, seeds, tolerance, max_points)
        error = error.clamp(min=tolerance / 2)  # below, estimates of it are not that good
        for sampled, s in search.sampled:
            least = sampled + (1 - STRAY * s).clamp(min=0).log()
            error = torch.where(least > value + error, sampled - value, error)
    return value, error, rounding


def check_dimensions(program: Program) -> None:
    """Raises ValueError where the latents of a datum have none or too many continuous ones."""
    with reproducible(0):
        _path(program, program.blocks(1)[0])


def _path(program: Program, rows: range) -> Path:
    """Returns the path over the latents that are integrated; errors as `check_dimensions`."""
    path = Path(replace(program, guide=None, enumerated=_summable(program)), rows)
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
    """Returns the names of the latents that have finitely many values."""
    hidden = (s for s in program.model_sites if not s["is_observed"])
    return tuple(s["name"] for s in hidden if getattr(s["fn"], "has_enumerate_support", False))


_Seeds = tuple[Tensor, Tensor]  # t `(S, n, d)` and log f |du/dt|, `(S, n)`


@dataclass(frozen=True)
class _Frame:
    """Coordinates t in the cube for u in space: u = m + L phi(t), m `(n, d)`, L `(n, d, d)`."""

    mean: Tensor
    scale: Tensor

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns u and log |du/dt| of t `(S, n, d)`."""
        v = WIDTH * t / ((1 - t) * (1 + t))
        u = self.mean + (v.to(self.mean)[..., None, :] * self.scale).sum(-1)
        slope = (WIDTH * (1 + t.square())).log() - 2 * ((1 - t) * (1 + t)).log()
        return u, slope.sum(-1) + self.log_scale

    def inverse(self, u: Tensor) -> Tensor:
        """Returns t of u `(S, n, d)`."""
        off = (u - self.mean).double()[..., None]
        v = torch.linalg.solve_triangular(self.scale.double(), off, upper=False)[..., 0].cpu()
        v = v / WIDTH  # = t / (1 - t^2)
        return 2 * v / (1 + (1 + 4 * v.square()).sqrt())

    @cached_property
    def log_scale(self) -> Tensor:
        return self.scale.diagonal(dim1=-2, dim2=-1).cpu().double().log().sum(-1)

    def __getitem__(self, index: Tensor) -> "_Frame":
        return _Frame(self.mean[index], self.scale[index])


@dataclass(frozen=True)
class _Cells:
    """Cells of each datum: centres and half widths `(n, C, d)`, and what each holds.

    Attributes:
        value: log of the integral, `(n, C)`.
        error: log of its estimated error, `(n, C)`.
        rest: log of what polynomials leave along each axis, `(n, C, d)`.
        most: log of the volume times the highest density at a node, `(n, C)`.
        beyond: Places across each face, next to the face's highest node, `(n, C, 2 d, d)`.
    """

    center: Tensor
    half: Tensor
    value: Tensor
    error: Tensor
    rest: Tensor
    most: Tensor
    beyond: Tensor

    def __getitem__(self, index: Any) -> "_Cells":
        return _Cells(*(getattr(self, f)[index] for f in self.__dataclass_fields__))

    def only(self, order: Tensor) -> "_Cells":
        """Returns cells by their numbers `(n, k)`."""
        return self[torch.arange(len(order))[:, None], order]

    def __or__(self, other: "_Cells") -> "_Cells":
        fields = self.__dataclass_fields__
        return _Cells(*(torch.cat([getattr(c, f) for c in (self, other)], 1) for f in fields))


def _refine(
    path: Path, frame: _Frame, seeds: _Seeds, tolerance: float, max_points: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns log of the integral, its error and rounding in nats, `(n,)`, halving cells.

    All data have equally many cells; those that are done leave, where the program can be cut. So
    do those whose error stays as it is with eight times the nodes: it is that of rounding.
    """
    n, d = frame.mean.shape
    value, error, rounding, before = torch.full((4, n), torch.inf, dtype=torch.float64)
    side = max(1, min(FIRST[d], int(max_points ** (1 / d)) // ORDER))
    line = (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1
    center = torch.cartesian_prod(*[line] * d).reshape(1, -1, d).expand(n, -1, -1)
    cells = _measure(path, frame, center, torch.full_like(center, 1 / side))
    cells = _doubted(replace(cells, error=cells.error.maximum(cells.rest.amax(-1))), seeds)[0]
    points, active, checked = side**d * ORDER**d, torch.arange(n), 0
    while True:
        total = cells.value.logsumexp(1)
        off = (SAFETY * (cells.error.logsumexp(1) - total).exp()).log1p()
        value[active], error[active], rounding[active] = total, off, _rounding(frame, cells)
        todo = off > tolerance + rounding[active]
        if points >= 8 * checked:
            todo &= ~((0.8 * before[active] < off) & (off < 1.25 * before[active]))
            before[active], checked = off, points
        if path.program.feed != "slice":  # all of its data, or none
            todo = todo.any().expand_as(todo)
        active, cells, frame, total = active[todo], cells[todo], frame[todo], total[todo]
        if not len(active):
            return value, error, rounding
        if len(active) < len(todo):
            seeds = seeds[0][:, todo], seeds[1][:, todo]
            left = [path.rows[i] for i in torch.nonzero(todo)[:, 0].tolist()]
            path = Path(path.program.take(left), range(len(left)))
        share = log(tolerance / cells.error.shape[1])
        due = (cells.error > total[:, None] + share).sum(1).double().mean()
        k = min(int(due.ceil()), (max_points - points) // (2 * ORDER**d))
        if k < 1:
            return value, error, rounding
        points += 2 * k * ORDER**d
        order = cells.error.argsort(1, descending=True)
        halves = _halved(path, frame, cells.only(order[:, :k]))
        cells = cells.only(order[:, k:]) | _doubted(halves, seeds)[0]
        cells, missed = _doubted(cells, _beyond(path, frame, halves))
        seeds = torch.cat([seeds[0], missed[0]]), torch.cat([seeds[1], missed[1]])


def _rounding(frame: _Frame, cells: _Cells) -> Tensor:
    """Returns what rounding of log-densities and of places in cells may do, `(n,)`, nats."""
    u, _ = frame.forward(cells.center.transpose(0, 1))
    ends, _ = frame.forward((cells.center + cells.half / 2).transpose(0, 1))
    steep = (u.abs() / (ends - u).abs().clamp(min=torch.finfo(u.dtype).tiny)).amax(-1)
    total = cells.value.logsumexp(1)
    share = (cells.value - total[:, None]).exp()
    moved = torch.where(share > 0, share * steep.T.cpu(), 0.0)  # where there is no mass, any way
    return torch.finfo(u.dtype).eps * (1 + total.abs() + moved.sum(1))


def _halved(path: Path, frame: _Frame, cells: _Cells) -> _Cells:
    """Returns both halves of each cell, cut where it is resolved worst.

    Their error is half of what that changed, times how much less polynomials now leave there; or
    what they leave, times its share: a rule of twice a polynomial's degree errs by its square.
    """
    n, k, d = cells.center.shape
    before, axis = cells.rest.max(-1)
    along = torch.nn.functional.one_hot(axis, d)
    half = cells.half * (1 - along / 2)
    center = torch.cat([cells.center - half * along, cells.center + half * along], 1)
    halves = _measure(path, frame, center, half.repeat(1, 2, 1))
    both = torch.logaddexp(halves.value[:, :k], halves.value[:, k:])
    high, low = torch.maximum(both, cells.value), torch.minimum(both, cells.value)
    change = (high + (-(low - high).exp()).log1p()).nan_to_num(-torch.inf) - log(2)
    after = halves.rest.gather(2, axis.repeat(1, 2)[..., None]).reshape(n, 2, k).amax(1)
    change = change + (after - before).nan_to_num(0.0).clamp(max=0)
    rest = halves.rest.amax(-1)
    squared = rest + (rest - halves.value).nan_to_num(0.0).clamp(max=0)
    return replace(halves, error=halves.error.maximum(squared).maximum(change.repeat(1, 2)))


def _doubted(cells: _Cells, seeds: _Seeds) -> tuple[_Cells, _Seeds]:
    """Returns cells whose error knows seeds of twice the density of any node, and those seeds."""
    (t, log_f), error, missed = seeds, cells.error, []
    log_volume = (2 * cells.half).log().sum(-1)
    for s in range(len(t)):
        inside = ((t[s][:, None] - cells.center).abs() <= cells.half).all(-1)
        potential = log_f[s][:, None] + log_volume
        above = inside & (potential > cells.most + log(2))
        error = torch.where(above, torch.maximum(error, potential), error)
        missed.append(above.any(1))
    log_f = torch.where(torch.stack(missed), log_f, -torch.inf)
    some = log_f.isfinite().any(1)
    return replace(cells, error=error), (t[some], log_f[some])


def _beyond(path: Path, frame: _Frame, cells: _Cells) -> _Seeds:
    """Returns seeds across the faces of cells: a mode at a face is in the next cell as well."""
    n, k, faces, d = cells.beyond.shape
    t = cells.beyond.reshape(n, -1, d).transpose(0, 1)
    outside = (t.abs() >= 1).any(-1)
    log_f = _density(path, frame, torch.where(outside[..., None], 0.0, t))
    log_f = torch.where(outside | log_f.isnan(), -torch.inf, log_f)
    log_f, top = log_f.topk(min(FACES, len(t)), dim=0)
    return t[top, torch.arange(n)], log_f


def _measure(path: Path, frame: _Frame, center: Tensor, half: Tensor) -> _Cells:
    """Returns cells with their integrals, by Gauss's rule, and what is known of their errors."""
    n, _, d = center.shape
    nodes = _rule(d)[0]
    size = max(1, CHUNK_SIZE // (n * len(nodes)))
    columns = []
    for c, h in zip(center.split(size, 1), half.split(size, 1), strict=True):
        t = c + nodes[:, None, None] * h  # (P, n, C, d)
        log_f = _density(path, frame, t.transpose(1, 2).reshape(-1, n, d))
        log_f = log_f.reshape(len(nodes), -1, n).transpose(1, 2) + h.log().sum(-1)
        columns.append(_read(log_f, h.log().sum(-1), d))
    value, error, rest, most, beyond = (torch.cat(c, 1) for c in zip(*columns, strict=True))
    beyond = center[:, :, None] + half[:, :, None] * beyond
    return _Cells(center, half, value, error, rest, most, beyond)


def _read(log_f: Tensor, log_half: Tensor, d: int) -> tuple[Tensor, ...]:
    """Returns what values at nodes `(P, n, C)` say: value, error, rest, most, beyond of `_Cells`.

    The rest is the size of the two highest Legendre coefficients along an axis, added up over the
    others. There is an error yet only where a value is no number: what the others would be in all
    of the cube, as there may be none from here on.
    """
    nodes, weights, top = _rule(d)
    broken = log_f.isnan()
    log_f = torch.where(broken, -torch.inf, log_f)
    highest = log_f.amax(0)
    f = (log_f - highest.nan_to_num(0.0, neginf=0.0)).exp()
    f = f.reshape(*[ORDER] * d, *f.shape[1:])
    places = nodes.reshape(*[ORDER] * d, d)
    integral, rests, beyond = f, [], []
    for a in range(d):
        rest = torch.tensordot(top, f.movedim(a, 0), 1).abs().amax(0)
        for _ in range(d - 1):
            rest = torch.tensordot(weights, rest, 1)
        rests.append(rest)
        integral = torch.tensordot(weights, integral, 1)
        for face, end in ((0, -2.0), (ORDER - 1, 2.0)):
            best = f.select(a, face).reshape(-1, *highest.shape).argmax(0)
            place = places.select(a, face).reshape(-1, d)[best]
            place[..., a] = end - place[..., a]
            beyond.append(place)
    most = highest + d * log(2)
    error = torch.where(broken.any(0), most - log_half, -torch.inf)
    rest = highest[..., None] + torch.stack(rests, -1).log()
    return highest + integral.log(), error, rest, most, torch.stack(beyond, -2)


@cache
def _rule(d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns Gauss's nodes in a cube `(P, d)`, and for each axis its weights `(m,)` and `(2, m)`.

    The last take values at an axis's nodes to twice their two highest Legendre coefficients.
    """
    x, weights = np.polynomial.legendre.leggauss(ORDER)
    degrees = np.array([ORDER - 1, ORDER - 2])
    legendre = np.polynomial.legendre.legvander(x, ORDER - 1).T[degrees]
    top = torch.from_numpy(legendre * weights * (2 * degrees[:, None] + 1))
    nodes = torch.cartesian_prod(*[torch.from_numpy(x)] * d).reshape(-1, d)
    return nodes, torch.from_numpy(weights), top


def _density(path: Path, frame: _Frame, t: Tensor) -> Tensor:
    """Returns log f |du/dt| of t `(S, n, d)`, `(S, n)`; n = 1 of joint latents.

    NaN also where z rounds to an end of its support at which the prior's density is infinite;
    ValueError if that is not so far out that no mass is left.
    """
    u, log_slope = frame.forward(t)
    log_f = log_joint(path, u)
    lost = log_f == torch.inf
    near = (t.abs() < FAR * (1 - t.square()) / WIDTH).all(-1)
    if (lost & near).any():
        raise ValueError(
            "log p(x, z) is inf where z rounds to an end of its support, with mass beyond; "
            "use float64, or importance_sampling"
        )
    return torch.where(lost, torch.nan, log_f) + log_slope


def _found(search: Search, frame: _Frame) -> _Seeds:
    """Returns the t of the search's seeds in a frame, and log f |du/dt|."""
    u, log_f = (torch.cat(parts) for parts in zip(*search.seeds, strict=True))
    t = frame.inverse(u)
    return t, log_f + frame.forward(t)[1]
