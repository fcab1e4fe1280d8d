"""Gradient and curvature of log p(x, z) in unconstrained latents, datum by datum."""

__all__ = ["Curvature", "Curvatures"]

from collections.abc import Callable, Iterator
from math import sqrt
from typing import Any, NamedTuple

import torch
import torch.distributions as dist
from torch import Tensor
from torch.autograd import forward_ad

from pyrovae.program.densities import Program
from pyrovae.program.particles import Computed
from pyrovae.program.path import GeometricPath
from pyrovae.program.sites import Site, base

# two numbers of each element, the products of whose derivatives add up to Fisher's information
Pairs = list[tuple[Tensor, Tensor]]


class Curvature(NamedTuple):
    """What is known of log f_1 at places u, one of each datum.

    Attributes:
        log_f: log f_1, `(n,)`, nats.
        grad: Its gradient, `(n, d)`.
        precision: Its negative Hessian, or Gauss and Newton's, `(n, d, d)`.
    """

    log_f: Tensor
    grad: Tensor
    precision: Tensor


class Curvatures:
    r"""The curvature of log f_1(u) = log p(x, z(u)) + log |dz/du| at places u, `(n, d)`.

    Gauss and Newton's, positive semidefinite, where all families allow it: with parameters
    :math:`\eta` and means :math:`\mu` of a site, as functions of u,

    .. math::
        \Lambda_{ij} = \sum_k \frac{\partial \eta_k}{\partial u_i}
        \frac{\partial \mu_k}{\partial u_j}

    which is Fisher's information of the observed sites, by forward-mode derivatives of one run of
    the program with d particles; a normal latent's own term is exact in its mean. Else it is the
    exact negative Hessian, which need not be definite, by differentiating such a run twice.

    Args:
        path: The block's latents, unconstrained.

    References:
        Fast curvature matrix-vector products for second-order gradient descent (Schraudolph,
        2002), https://doi.org/10.1162/08997660260028683
    """

    def __init__(self, path: GeometricPath) -> None:
        self._path, self._known = path, not path.program.enumerated

    def __call__(self, u: Tensor) -> Curvature:
        """Returns value, gradient and curvature at u.

        Args:
            u: `(n, d)`; of joint latents `(d,)`.

        Raises:
            ValueError: If the program cannot be differentiated twice.
        """
        if self._known:
            try:
                return self._gauss_newton(u)
            except (KeyError, NotImplementedError, RuntimeError):
                self._known = False
        try:
            return self._exact(u)
        except (NotImplementedError, RuntimeError) as e:
            raise ValueError(
                "log p(x, z) has no second derivative in its latents "
                f"({str(e).splitlines()[0][:100]}); take pv.Refined() or pv.Widened() as the "
                "proposal instead of pv.Laplace()"
            ) from e

    def _gauss_newton(self, u: Tensor) -> Curvature:
        """Returns them by forward-mode derivatives, one direction a particle.

        Args:
            u: `(n, d)`.

        Raises:
            KeyError: For a family whose information is not known.
            NotImplementedError: For an operation without a forward-mode derivative.
        """

        def score(program: Program, rows: range, size: int | None, given: Computed) -> Computed:
            sites = self._path.run_model(program, rows, size, given)
            log_f = program.log_sum(sites, rows, size)
            pairs = [p for s in sites for p in _pairs(program, s, rows, size)]
            a, b = (torch.cat(side, -1) for side in zip(*pairs, strict=True))
            return Computed({}, (_primal(log_f), _tangent(log_f), a, b))

        many, directions = _each_direction(u)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(many, directions)
            log_f, grad, a, b = self._path.run(score, len(many), Computed({}, (dual,))).tables
        if self._path.program.plate:
            return Curvature(log_f[0], grad.T, torch.einsum("ink,jnk->nij", a, b))
        return Curvature(log_f[0], grad, a @ b.T)

    def _exact(self, u: Tensor) -> Curvature:
        """Returns them by differentiating the gradient, one of its elements a particle.

        Args:
            u: `(n, d)`.
        """
        many, directions = _each_direction(u)
        with torch.enable_grad():
            many = many.requires_grad_()
            log_f = self._path(many)[1]
            (grad,) = torch.autograd.grad(log_f.sum(), many, create_graph=True)
            (rows,) = torch.autograd.grad((grad * directions).sum(), many)
        precision = -rows.transpose(0, -2).detach()  # (n, d, d)
        return Curvature(log_f[0].detach(), grad[0].detach(), (precision + precision.mT) / 2)


def _each_direction(u: Tensor) -> tuple[Tensor, Tensor]:
    """Returns d copies of u `(n, d)`, and the d unit vectors, `(d, n, d)` each."""
    d = u.shape[-1]
    many = u.expand(d, *u.shape).clone()
    eye = torch.eye(d, dtype=u.dtype, device=u.device)
    return many, eye.reshape(d, *[1] * (u.ndim - 1), d).expand_as(many).clone()


def _pairs(
    program: Program, site: Site, rows: range, size: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields derivatives of a site's pairs, `(S, n, k)` each.

    Args:
        program: As it was run.
        site: Of the run, its distribution and value differentiated.
        rows: The n rows.
        size: S, or `None` of one particle.
    """
    fn = site["fn"]
    if program.sites.common(site):
        return
    lead = [] if size is None else [size]
    for pair in _information(base(fn), site["value"], latent=not site["is_observed"]):
        columns = []
        for t in map(_tangent, pair):
            t = t.expand(fn.shape())
            if site["mask"] is not None:
                mask = torch.as_tensor(site["mask"])
                t = torch.where(mask.reshape(*mask.shape, *[1] * fn.event_dim), t, 0.0)
            if program.plate:
                t = t.movedim(t.ndim + program.sites.axis(site), len(lead))
                t = t.narrow(len(lead), 0, len(rows))  # a padded block has more
            n = [len(rows)] if program.plate else []
            columns.append(t.reshape(*lead, *n, -1))
        yield columns[0], columns[1]


def _information(fn: Any, value: Tensor, latent: bool) -> Pairs:
    """Returns the pairs of a distribution, elementwise.

    Args:
        fn: Without wrappers.
        value: Its site's.
        latent: Whether the value moves, too.

    Raises:
        KeyError: If its information is not known: of latents that of normals alone is.
    """
    for kind, pairs in FAMILIES.items():
        if isinstance(fn, kind) and (kind is dist.Normal or not latent):
            return pairs(fn, value)
    raise KeyError(type(fn).__name__)


def _normal(fn: Any, value: Tensor) -> Pairs:
    r"""(value - loc) / scale twice, its scale held fixed, and :math:`\sqrt2 \log` scale twice."""
    off = (value - fn.loc) / _primal(fn.scale)
    spread = sqrt(2) * fn.scale.log()
    return [(off, off), (spread, spread)]


def _logits(fn: Any, value: Tensor) -> Pairs:
    """Logits and probabilities."""
    return [(fn.logits, fn.probs)]


def _binomial(fn: Any, value: Tensor) -> Pairs:
    """Logits and means."""
    return [(fn.logits, fn.total_count * fn.probs)]


def _poisson(fn: Any, value: Tensor) -> Pairs:
    """Log rate and rate."""
    return [(fn.rate.log(), fn.rate)]


def _gamma(fn: Any, value: Tensor) -> Pairs:
    """Shape and rate, with the means of log x and -x."""
    a, b = fn.concentration, fn.rate
    return [(a, a.digamma() - b.log()), (-b, a / b)]


def _beta(fn: Any, value: Tensor) -> Pairs:
    """Both shapes, with the means of log x and log(1 - x)."""
    a, b = fn.concentration1, fn.concentration0
    return [(a, a.digamma() - (a + b).digamma()), (b, b.digamma() - (a + b).digamma())]


def _student(fn: Any, value: Tensor) -> Pairs:
    """Location and scale, df held fixed."""
    df, scale = _primal(fn.df), _primal(fn.scale)
    off = ((df + 1) / (df + 3)).sqrt() * (value - fn.loc) / scale
    spread = (2 * df / (df + 3)).sqrt() * fn.scale.log()
    return [(off, off), (spread, spread)]


FAMILIES: dict[type, Callable[[Any, Tensor], Pairs]] = {
    dist.Normal: _normal,
    dist.Bernoulli: _logits,
    dist.Binomial: _binomial,
    dist.Categorical: _logits,
    dist.OneHotCategorical: _logits,
    dist.Poisson: _poisson,
    dist.Gamma: _gamma,
    dist.Beta: _beta,
    dist.StudentT: _student,
}


def _primal(x: Tensor) -> Tensor:
    """Returns a tensor without its forward-mode derivative."""
    return forward_ad.unpack_dual(x).primal


def _tangent(x: Tensor) -> Tensor:
    """Returns a tensor's forward-mode derivative, of its shape; 0 where it has none."""
    tangent = forward_ad.unpack_dual(x).tangent
    return torch.zeros_like(x) if tangent is None else tangent
