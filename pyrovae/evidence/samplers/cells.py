r"""Cells that all of space is cut into, and what Gauss's rule says of a density in them.

Of n data at once: each has C cells in a cube of d dimensions, of P = 8^d nodes each, and a frame
of its own, in which the cube is space. f is p(x, z(u)) |dz/du|, in u.
"""

__all__ = [
    "ORDER",
    "Cells",
    "Frame",
    "Peaks",
    "beyond",
    "doubted",
    "halved",
    "log_joint",
    "measure",
    "rounding_of",
]

from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import log

import numpy as np
import torch
from torch import Tensor

from pyrovae.program import GeometricPath

CHUNK_SIZE = 2**15  # nodes x data evaluated at once
FACES = 256  # densities known besides, across faces
ORDER = 8  # nodes of a cell along an axis
WIDTH = 4.0  # of the cube's middle, in standard deviations
FAR = 25.0  # standard deviations; a tail of exp(-FAR) is none
Peaks = tuple[Tensor, Tensor]  # t `(S, n, d)` and log f |du/dt|, `(S, n)`


def log_joint(path: GeometricPath, u: Tensor) -> Tensor:
    """Returns log p(x, z(u)) |dz/du|, `(S, n)`, nats; n = 1 of joint latents.

    Args:
        path: The block's latents, unconstrained.
        u: `(S, n, d)`.
    """
    if path.program.plate:
        return path(u)[1].cpu().double()
    return path(u[:, 0])[1].cpu().double()[:, None]


@dataclass(frozen=True)
class Frame:
    r"""Coordinates t in the cube :math:`(-1, 1)^d` for u in space, of each datum.

    .. math::
        u = m + L \varphi(t), \quad \varphi(t) = 4 t / (1 - t^2), \quad
        \log \left|\frac{du}{dt}\right| =
        \sum_i \log \frac{4 (1 + t_i^2)}{(1 - t_i^2)^2} + \log |L|

    Attributes:
        mean: m, the posterior's own, `(n, d)`.
        scale: L, the Cholesky factor of its covariance, `(n, d, d)`.
    """

    mean: Tensor
    scale: Tensor

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns u `(S, n, d)` and log |du/dt| `(S, n)` of t `(S, n, d)`."""
        v = WIDTH * t / ((1 - t) * (1 + t))  # (S, n, d); 1 - t^2 would cancel at the cube's end
        u = self.mean + (v.to(self.mean)[..., None, :] * self.scale).sum(-1)
        slope = (WIDTH * (1 + t.square())).log() - 2 * ((1 - t) * (1 + t)).log()
        return u, slope.sum(-1) + self.log_scale

    def inverse(self, u: Tensor) -> Tensor:
        """Returns t of u, `(S, n, d)` both."""
        off = (u - self.mean).double()[..., None]  # (S, n, d, 1)
        v = torch.linalg.solve_triangular(self.scale.double(), off, upper=False)[..., 0].cpu()
        v = v / WIDTH  # = t / (1 - t^2)
        return 2 * v / (1 + (1 + 4 * v.square()).sqrt())

    @cached_property
    def log_scale(self) -> Tensor:
        """Log |L|, `(n,)`."""
        return self.scale.diagonal(dim1=-2, dim2=-1).cpu().double().log().sum(-1)

    def __getitem__(self, index: Tensor) -> "Frame":
        return Frame(self.mean[index], self.scale[index])


@dataclass(frozen=True)
class Cells:
    """Cells of each datum, and what each holds of the integral of f |du/dt| over t.

    Attributes:
        center: Of the cells, `(n, C, d)`.
        half: Half of their widths, `(n, C, d)`.
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

    def __getitem__(self, index: Tensor | tuple[Tensor, Tensor]) -> "Cells":
        return Cells(*(getattr(self, f)[index] for f in self.__dataclass_fields__))

    def only(self, order: Tensor) -> "Cells":
        """Returns cells by their numbers `(n, k)`."""
        return self[torch.arange(len(order))[:, None], order]

    def __or__(self, other: "Cells") -> "Cells":
        fields = self.__dataclass_fields__
        return Cells(*(torch.cat([getattr(c, f) for c in (self, other)], 1) for f in fields))


def measure(path: GeometricPath, frame: Frame, center: Tensor, half: Tensor) -> Cells:
    r"""Returns cells with their integrals, by Gauss's rule, and what is known of their errors.

    .. math::
        \log \int_{\text{cell}} f \left|\frac{du}{dt}\right| dt \approx \log \sum_p \omega_p
        f(u(t_p)) \left|\frac{du}{dt}\right| + \sum_i \log h_i, \quad t_p = c + h \odot x_p

    Args:
        path: The block's latents, unconstrained.
        frame: Its coordinates.
        center: c, `(n, C, d)`.
        half: h, `(n, C, d)`.
    """
    n, _, d = center.shape
    nodes = _rule(d)[0]
    size = max(1, CHUNK_SIZE // (n * len(nodes)))
    columns = []
    for c, h in zip(center.split(size, 1), half.split(size, 1), strict=True):
        t = c + nodes[:, None, None] * h  # (P, n, C, d)
        log_f = _density(path, frame, t.transpose(1, 2).reshape(-1, n, d))  # (P C, n)
        # (P, n, C)
        log_f = log_f.reshape(len(nodes), -1, n).transpose(1, 2) + h.log().sum(-1)
        columns.append(_read(log_f, h.log().sum(-1), d))
    value, error, rest, most, beyond = (torch.cat(c, 1) for c in zip(*columns, strict=True))
    beyond = center[:, :, None] + half[:, :, None] * beyond
    return Cells(center, half, value, error, rest, most, beyond)


def halved(path: GeometricPath, frame: Frame, cells: Cells) -> Cells:
    """Returns both halves of each cell, cut where it is resolved worst.

    Their error is half of what that changed, times how much less polynomials now leave there; or
    what they leave, times its share: a rule of twice a polynomial's degree errs by its square.

    Args:
        path: The block's latents, unconstrained.
        frame: Its coordinates.
        cells: k of each datum, `(n, k)`.

    Returns:
        Cells `(n, 2 k)`: all left halves, then all right ones.
    """
    n, k, d = cells.center.shape
    before, axis = cells.rest.max(-1)  # (n, k)
    along = torch.nn.functional.one_hot(axis, d)  # (n, k, d)
    half = cells.half * (1 - along / 2)
    center = torch.cat([cells.center - half * along, cells.center + half * along], 1)
    halves = measure(path, frame, center, half.repeat(1, 2, 1))
    both = torch.logaddexp(halves.value[:, :k], halves.value[:, k:])  # (n, k)
    high, low = torch.maximum(both, cells.value), torch.minimum(both, cells.value)
    # (n, k): log of half of |both - value|
    change = (high + (-(low - high).exp()).log1p()).nan_to_num(-torch.inf) - log(2)
    after = halves.rest.gather(2, axis.repeat(1, 2)[..., None]).reshape(n, 2, k).amax(1)
    change = change + (after - before).nan_to_num(0.0).clamp(max=0)
    rest = halves.rest.amax(-1)
    squared = rest + (rest - halves.value).nan_to_num(0.0).clamp(max=0)
    return replace(halves, error=halves.error.maximum(squared).maximum(change.repeat(1, 2)))


def doubted(cells: Cells, peaks: Peaks) -> tuple[Cells, Peaks]:
    """Returns cells whose error knows peaks of twice the density of any node, and those peaks.

    Args:
        cells: `(n, C)`.
        peaks: Places in the cube, and the densities there, `(S, n)`.
    """
    (t, log_f), error, missed = peaks, cells.error, []
    log_volume = (2 * cells.half).log().sum(-1)  # (n, C)
    for s in range(len(t)):
        inside = ((t[s][:, None] - cells.center).abs() <= cells.half).all(-1)  # (n, C)
        potential = log_f[s][:, None] + log_volume
        above = inside & (potential > cells.most + log(2))
        error = torch.where(above, torch.maximum(error, potential), error)
        missed.append(above.any(1))
    log_f = torch.where(torch.stack(missed), log_f, -torch.inf)
    some = log_f.isfinite().any(1)
    return replace(cells, error=error), (t[some], log_f[some])


def beyond(path: GeometricPath, frame: Frame, cells: Cells) -> Peaks:
    """Returns peaks across the faces of cells: a mode at a face is in the next cell as well.

    Args:
        path: The block's latents, unconstrained.
        frame: Its coordinates.
        cells: `(n, k)`.

    Returns:
        At most the 256 of highest density, `(S, n)`.
    """
    n, _, _, d = cells.beyond.shape
    t = cells.beyond.reshape(n, -1, d).transpose(0, 1)  # (2 d k, n, d)
    outside = (t.abs() >= 1).any(-1)
    log_f = _density(path, frame, torch.where(outside[..., None], 0.0, t))
    log_f = torch.where(outside | log_f.isnan(), -torch.inf, log_f)
    log_f, top = log_f.topk(min(FACES, len(t)), dim=0)
    return t[top, torch.arange(n)], log_f


def rounding_of(frame: Frame, cells: Cells) -> Tensor:
    r"""Returns what rounding of log-densities and of places in cells may do, `(n,)`, nats.

    .. math::
        \epsilon \Bigl(1 + |\log p(x)| + \sum_c \pi_c \max_i |u_i| / |\Delta u_i|\Bigr)

    with epsilon of the program's dtype, a cell's share pi of the mass, and the quarter of its
    width Delta u: a place that is rounded by epsilon |u| moves by so much of the cell.

    Args:
        frame: The coordinates, `(n, d)`.
        cells: `(n, C)`.
    """
    u, _ = frame.forward(cells.center.transpose(0, 1))  # (C, n, d)
    ends, _ = frame.forward((cells.center + cells.half / 2).transpose(0, 1))
    steep = (u.abs() / (ends - u).abs().clamp(min=torch.finfo(u.dtype).tiny)).amax(-1)
    total = cells.value.logsumexp(1)
    share = (cells.value - total[:, None]).exp()
    moved = torch.where(share > 0, share * steep.T.cpu(), 0.0)  # where there is no mass, any way
    return torch.finfo(u.dtype).eps * (1 + total.abs() + moved.sum(1))


def _density(path: GeometricPath, frame: Frame, t: Tensor) -> Tensor:
    """Returns log f |du/dt| of t `(S, n, d)`, `(S, n)`; n = 1 of joint latents.

    NaN also where z rounds to an end of its support at which the prior's density is infinite;
    ValueError if that is not so far out that no mass is left.
    """
    u, log_slope = frame.forward(t)  # (S, n, d), (S, n)
    log_f = log_joint(path, u)
    lost = log_f == torch.inf
    near = (t.abs() < FAR * (1 - t.square()) / WIDTH).all(-1)
    if (lost & near).any():
        raise ValueError(
            "log p(x, z) is inf where z rounds to an end of its support, with mass beyond; "
            "use float64, or importance_sampling"
        )
    return torch.where(lost, torch.nan, log_f) + log_slope


def _read(log_f: Tensor, log_half: Tensor, d: int) -> tuple[Tensor, ...]:
    """Returns what values at nodes `(P, n, C)` say: value, error, rest, most, beyond of `Cells`.

    The rest is the size of the two highest Legendre coefficients along an axis, added up over the
    others. There is an error yet only where a value is no number: what the others would be in all
    of the cube, as there may be none from here on. Here m = 8 are the nodes of an axis.
    """
    nodes, weights, top = _rule(d)  # (P, d), (m,), (2, m)
    broken = log_f.isnan()
    log_f = torch.where(broken, -torch.inf, log_f)
    highest = log_f.amax(0)  # (n, C)
    f = (log_f - highest.nan_to_num(0.0, neginf=0.0)).exp()
    f = f.reshape(*[ORDER] * d, *f.shape[1:])  # (m, ..., m, n, C)
    places = nodes.reshape(*[ORDER] * d, d)  # (m, ..., m, d)
    integral, rests, beyond = f, [], []
    for a in range(d):
        rest = torch.tensordot(top, f.movedim(a, 0), 1).abs().amax(0)  # d - 1 axes of m, (n, C)
        for _ in range(d - 1):
            rest = torch.tensordot(weights, rest, 1)
        rests.append(rest)
        integral = torch.tensordot(weights, integral, 1)  # one axis of m less
        for face, end in ((0, -2.0), (ORDER - 1, 2.0)):
            best = f.select(a, face).reshape(-1, *highest.shape).argmax(0)
            place = places.select(a, face).reshape(-1, d)[best]  # (n, C, d)
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
