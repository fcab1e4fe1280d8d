"""A normal at the posterior's mode, with its full covariance there: Laplace's approximation."""

__all__ = ["Laplace"]

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from pyrovae.checks import check_positive, check_sizes
from pyrovae.evidence.samplers.factors import Factor, of_precision, of_products
from pyrovae.evidence.samplers.paths import GuidePath, NormalPath
from pyrovae.evidence.samplers.scheme import Sampler
from pyrovae.program import Curvatures, GeometricPath, Program, Values

STARTS = 32  # draws, of which the one with the highest density is where Newton begins
LENGTHS = 1.0, 0.5, 0.25, 0.1, 0.03, 0.01  # of a Newton step, tried at once
ENOUGH = 0.1  # nats, of which a datum at its mode gains less by another step
FULL, RANK = 256, 64  # dimensions up to which all is known of a curvature; directions beyond


@dataclass(frozen=True)
class Laplace:
    r"""A normal, or Student t, at each datum's posterior mode, with the covariance it has there.

    .. math::
        r(u | x) = \mathrm{N}(m, c^2 \Lambda^{-1}), \quad
        m = \mathrm{arg\,max}_u \; \log p(x, z(u)) \left|\frac{dz}{du}\right|

    in unconstrained latents u. Newton's steps lead to m from the guide's mean, or the best of some
    draws; of six lengths of a step the best is taken. The curvature Lambda is Gauss and Newton's
    where the program's families allow it, else the exact Hessian, what is not positive of it made
    so; see `pyrovae.program.Curvatures`. Above 256 dimensions it is the prior's precision and what
    64 directions add to that, those of the largest curvature.

    A guide with a diagonal covariance misses the correlations of a posterior, which cost nats;
    this one has them. It sees one mode, and no funnel: k-hat tells, and annealing may begin here,
    as `ais(proposal=pv.Laplace())` does.

    Attributes:
        scale: c, factor of the normal's scales; a little above 1, lest weights have heavy tails.
        df: Degrees of freedom of a Student t; `None` for a normal.
        num_steps: Newton's steps at most.

    References:
        Accurate approximations for posterior moments and marginal densities (Tierney and Kadane,
        1986), https://doi.org/10.1080/01621459.1986.10478240
    """

    sums_discrete: ClassVar[bool] = True
    scale: float = 1.1
    df: float | None = None
    num_steps: int = 8

    def __post_init__(self) -> None:
        check_positive(scale=self.scale, df=1.0 if self.df is None else self.df)
        check_sizes(num_steps=self.num_steps)

    def path(self, program: Program, rows: range) -> NormalPath:
        """Returns the path from this normal to the posterior, in coordinates that it whitens.

        Args:
            program: The pair and its data.
            rows: The n rows of a block.

        Raises:
            ValueError: If log p(x, z) has no first or second derivative in the latents.
        """
        # of a latent that is masked, the normal is one as well: its prior counts
        base = GeometricPath(replace(program, guide=None, masked=frozenset()), rows)
        base.check_gradient()
        u = _begin(program, base)
        scale = Curvatures(base).prior_scale(u)
        scale = GuidePath(base).scale if scale is None else scale
        found = _found(base, u, scale, self.num_steps)
        return NormalPath(base, found.u, found.factor.scaled(self.scale), self.df)

    def sampler(self, program: Program, rows: range) -> Sampler:
        """Returns what draws from it, fitted to these rows.

        Args:
            program: The pair and its data.
            rows: The n rows of a block.

        Raises:
            ValueError: As `path`.
        """
        path = self.path(program, rows)
        model = replace(path.base.program, masked=program.masked)

        def draw(num_particles: int) -> tuple[Values, Tensor]:
            v = path.start(num_particles)  # (S, n, d)
            z, log_dz = path.base.values(path.outward(v))
            log_r = path.log_start(v) - path.log_volume - log_dz
            if program.masked:  # densities that the weights leave out
                at = z, rows, num_particles
                log_r = log_r - path.base.program.log_prior(*at) + model.log_prior(*at)
            return z, log_r

        return draw


def _begin(program: Program, base: GeometricPath) -> Tensor:
    """Returns where Newton begins, `(n, d)`: of draws and their mean the one of highest density.

    Args:
        program: The pair, whose guide draws, or the prior without one.
        base: The model's path.
    """
    if program.guide is None:
        u = base.start(STARTS)
    else:
        z, _ = program.propose(base.rows, STARTS)
        u = base.unconstrain({name: z[name] for name in base.names}, STARTS)  # (S, n, d)
    u = torch.cat([u.mean(0, keepdim=True), u])
    log_f = base(u)[1].nan_to_num(-torch.inf, posinf=-torch.inf)
    return _chosen(u, log_f.argmax(0))


class _Place(NamedTuple):
    """Where each datum is on its way to the mode; all of it `(n, ...)`.

    Attributes:
        u: `(n, d)`.
        log_f: log f_1 there, `(n,)`, nats.
        grad: Its gradient, `(n, d)`.
        factor: Of the inverse of its curvature.
        next: Directions in which to look at the next place, `(n, d, k)`; k = 0 for all.
    """

    u: Tensor
    log_f: Tensor
    grad: Tensor
    factor: Factor
    next: Tensor


def _found(base: GeometricPath, u: Tensor, scale: Tensor, num_steps: int) -> _Place:
    """Returns the modes, and the curvature there, of all data of a block.

    Newton's steps go on for those alone that gain by them, where the program takes any rows.

    Args:
        base: The model's path.
        u: Where they begin, `(n, d)`.
        scale: The prior's, `(n, d)`.
        num_steps: Newton's, at most.
    """
    path, some = base, torch.arange(len(u), device=u.device)
    if u.shape[-1] > FULL:
        first = torch.randn(*u.shape, RANK, dtype=u.dtype, device=u.device)
        at = _seen(path, u, scale, torch.linalg.qr(first).Q)
        at = _seen(path, u, scale, at.next)
    else:
        at = _seen(path, u, scale, u.new_empty(*u.shape, 0))
    apart = bool(base.program.plate) and base.program.selects_rows
    found = tree_map(torch.clone, at)
    for _ in range(num_steps):
        u, gain = _step(path, at)
        found.u[some if apart else ...] = u
        go = gain > ENOUGH
        if not go.any():
            break
        if apart and not go.all():
            some, scale, u, at = tree_map(lambda t, go=go: t[go], (some, scale, u, at))
            path = base.select(some.tolist())
        at = _seen(path, u, scale, at.next)
        for whole, part in zip(tree_leaves(found), tree_leaves(at), strict=True):
            whole[some if apart else ...] = part
    return found


def _seen(path: GeometricPath, u: Tensor, scale: Tensor, directions: Tensor) -> _Place:
    """Returns what is to be seen at u.

    Args:
        path: The model's, of these data.
        u: `(n, d)`.
        scale: The prior's, `(n, d)`.
        directions: Orthonormal, in its units, `(n, d, k)`; k = 0 for all.
    """
    if not directions.shape[-1]:
        at = Curvatures(path)(u)
        return _Place(u, at.log_f, at.grad, of_precision(at.products, scale), directions)
    at = Curvatures(path)(u, scale[..., None] * directions)
    return _Place(u, at.log_f, at.grad, *of_products(at.products, directions, scale))


def _step(path: GeometricPath, at: _Place) -> tuple[Tensor, Tensor]:
    """Returns the best u along Newton's direction, `(n, d)`, and what it gains, `(n,)`, nats.

    Args:
        path: The model's, of these data.
        at: Where they are.
    """
    step = at.factor.times(at.factor.transposed(at.grad[None]))[0]
    lengths = torch.tensor([0.0, *LENGTHS], dtype=step.dtype, device=step.device)
    tried = at.u + lengths.reshape(-1, *[1] * step.ndim) * step  # (7, n, d)
    log_f = torch.cat([at.log_f[None], path(tried[1:])[1]]).nan_to_num(
        -torch.inf, posinf=-torch.inf
    )
    best = log_f.argmax(0)
    return _chosen(tried, best), log_f.amax(0) - log_f[0]


def _chosen(u: Tensor, index: Tensor) -> Tensor:
    """Returns one of S places of each datum, `(n, d)`.

    Args:
        u: `(S, n, d)`.
        index: Which, `(n,)`.
    """
    return u.gather(0, index[None, ..., None].expand(1, *u.shape[1:]))[0]
