"""A normal at the posterior's mode, with its full covariance there: Laplace's approximation."""

__all__ = ["Laplace"]

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pyrovae.checks import check_positive, check_sizes
from pyrovae.evidence.samplers.paths import GuidePath, NormalPath
from pyrovae.evidence.samplers.scheme import Sampler
from pyrovae.program import Curvature, Curvatures, GeometricPath, Program, Values

STARTS = (
    64  # draws, of which the one with the highest density is where Newton begins, or their mean
)
LENGTHS = 1.0, 0.5, 0.25, 0.1, 0.03, 0.01  # of a Newton step, tried at once
FLOOR = 0.1  # least curvature where log p(x, z) is not concave, in units of the prior's scale
ENOUGH = 1e-4  # nats, of which no datum gains more by another step


@dataclass(frozen=True)
class Laplace:
    r"""A normal, or Student t, at each datum's posterior mode, with the covariance it has there.

    .. math::
        r(u | x) = \mathrm{N}(m, c^2 \Lambda^{-1}), \quad
        m = \arg\max_u \log p(x, z(u)) \left|\frac{dz}{du}\right|

    in unconstrained latents u. Newton's steps lead to m from the guide's mean, or the best of some
    draws; of six lengths of a step the best is taken. The curvature Lambda is Gauss and Newton's
    where the program's families allow it, else the exact Hessian, what is not positive of it made
    so; see `pyrovae.program.Curvatures`.

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
        prior = GuidePath(base)
        curvatures, scale = Curvatures(base), prior.scale
        u = _begin(program, base)
        at = curvatures(u)
        for _ in range(self.num_steps):
            u, gain = _step(base, u, at, scale)
            at = curvatures(u)
            if gain.max() < ENOUGH:
                break
        lower = _cholesky(at.precision, scale)  # L of Lambda = L L^T
        eye = torch.eye(u.shape[-1], dtype=lower.dtype, device=lower.device)
        factor = torch.linalg.solve_triangular(lower, eye, upper=False).mT  # (n, d, d): L^{-T}
        return NormalPath(base, u, self.scale * factor.to(u), self.df)

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


def _step(base: GeometricPath, u: Tensor, at: Curvature, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the best u along Newton's direction, `(n, d)`, and what it gains, `(n,)`, nats.

    Args:
        base: The model's path.
        u: Where it is, `(n, d)`.
        at: The curvature there.
        scale: The prior's, `(n, d)`.
    """
    grad = at.grad.double()[..., None]
    step = torch.cholesky_solve(grad, _cholesky(at.precision, scale))[..., 0].to(u)
    lengths = torch.tensor([0.0, *LENGTHS], dtype=u.dtype, device=u.device)
    tried = u + lengths.reshape(-1, *[1] * u.ndim) * step  # (7, n, d)
    log_f = base(tried)[1].nan_to_num(-torch.inf, posinf=-torch.inf)
    best = log_f.argmax(0)
    return _chosen(tried, best), log_f.amax(0) - log_f[0]


def _chosen(u: Tensor, index: Tensor) -> Tensor:
    """Returns one of S places of each datum, `(n, d)`.

    Args:
        u: `(S, n, d)`.
        index: Which, `(n,)`.
    """
    return u.gather(0, index[None, ..., None].expand(1, *u.shape[1:]))[0]


def _cholesky(precision: Tensor, scale: Tensor) -> Tensor:
    """Returns Cholesky's lower factor of curvatures, `(n, d, d)`, float64, made definite.

    In units of the prior's scale, eigenvalues are replaced by their absolute values, at least a
    tenth, where one of a datum's is less.

    Args:
        precision: Of log p(x, z), `(n, d, d)`.
        scale: The prior's, `(n, d)`.

    References:
        Identifying and attacking the saddle point problem (Dauphin et al., 2014),
        https://arxiv.org/abs/1406.2572
    """
    scale = scale.double()
    unit = (scale[..., None] * precision.double() * scale[..., None, :]).nan_to_num()
    eye = torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
    low = torch.linalg.cholesky_ex(unit - FLOOR * eye).info > 0  # (n,); of joint latents ()
    if low.any():
        values, vectors = torch.linalg.eigh(unit)
        lifted = values.abs().clamp(min=FLOOR)[..., None, :]
        unit = torch.where(low[..., None, None], (vectors * lifted) @ vectors.mT, unit)
    return torch.linalg.cholesky(unit) / scale[..., None]
