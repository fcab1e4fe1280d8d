"""Gradient and curvature of log p(x, z) in unconstrained latents, datum by datum."""

__all__ = ["Curvature", "Curvatures"]

import warnings
from collections.abc import Callable, Iterator
from math import sqrt
from typing import Any, NamedTuple

import torch
import torch.distributions as dist
from torch import Tensor

from pyrovae.program.densities import Program
from pyrovae.program.particles import Computed
from pyrovae.program.path import GeometricPath
from pyrovae.program.sites import Site, base, masks_within


class Curvature(NamedTuple):
    """What is known of log f_1 at places u, one of each datum.

    Attributes:
        log_f: log f_1, `(n,)`, nats.
        grad: Its gradient, `(n, d)`.
        products: Its negative Hessian, or Gauss and Newton's, times k directions, `(n, d, k)`.
    """

    log_f: Tensor
    grad: Tensor
    products: Tensor


class Curvatures:
    r"""The curvature of log f_1(u) = log p(x, z(u)) + log |dz/du| at places u, `(n, d)`.

    Gauss and Newton's, positive semidefinite, where all families allow it,

    .. math::
        \Lambda_{ij} = \sum_k \frac{\partial a_k}{\partial u_i}
        \frac{\partial a_k}{\partial u_j}

    with roots a of Fisher's information of the observed sites, as functions of u, by forward-mode
    derivatives of one run of the program in many directions; of a latent a is (z - loc) / scale.
    Else it is the exact negative Hessian, which need not be definite, by differentiating a run
    with a particle for each direction twice.

    Args:
        path: The block's latents, unconstrained.

    References:
        Fast curvature matrix-vector products for second-order gradient descent (Schraudolph,
        2002), https://doi.org/10.1162/08997660260028683
    """

    def __init__(self, path: GeometricPath) -> None:
        self._path, self._known = path, not path.program.enumerated

    def __call__(self, u: Tensor, directions: Tensor | None = None) -> Curvature:
        """Returns value, gradient, and the curvature times some directions, or all of it, at u.

        Args:
            u: `(n, d)`; of joint latents `(d,)`.
            directions: `(n, d, k)`; `None` for the d unit vectors.

        Raises:
            ValueError: If the program cannot be differentiated twice.
        """
        whole = directions is None
        along = _unit_vectors(u) if directions is None else directions.movedim(-1, 0)
        if self._known:
            try:
                return self._gauss_newton(u, along, whole)
            except (KeyError, NotImplementedError, RuntimeError):
                self._known = False
        try:
            return self._exact(u, along)
        except (NotImplementedError, RuntimeError) as e:
            raise ValueError(
                "log p(x, z) has no second derivative in its latents "
                f"({str(e).splitlines()[0][:100]}); take pv.Refined() or pv.Widened() as the "
                "proposal instead of pv.Laplace()"
            ) from e

    def prior_scale(self, u: Tensor) -> Tensor | None:
        """Returns the scales of latents that are normal, `(n, d)`; `None` where one is not.

        Args:
            u: `(n, d)`, for scales that depend on other latents.
        """

        def scales(program: Program, rows: range, size: int | None, given: Computed) -> Computed:
            sites = self._path.run_model(program, rows, size, given)
            own = (s for s in sites if s["name"] in self._path.names)
            found = [_by_datum(program, s, base(s["fn"]).scale, rows, size) for s in own]
            return Computed({}, (torch.cat(found, -1),))

        program = self._path.program
        own = {s["name"]: base(s["fn"]) for s in program.sites.model}
        normal = all(isinstance(own[name], dist.Normal) for name in self._path.names)
        if program.enumerated or not normal:
            return None
        return self._path.run(scales, 1, Computed({}, (u[None],))).tables[0][0]

    def _gauss_newton(self, u: Tensor, directions: Tensor, whole: bool) -> Curvature:
        """Returns them by forward-mode derivatives of one run, in all directions at once.

        Args:
            u: `(n, d)`.
            directions: `(k, n, d)`.
            whole: Whether these are the unit vectors.

        Raises:
            KeyError: For a family whose information is not known.
            NotImplementedError: For an operation without a forward-mode derivative.
        """

        def score(program: Program, rows: range, size: int | None, given: Computed) -> Computed:
            sites = self._path.run_model(program, rows, size, given)
            return Computed({}, tuple(r for s in sites for r in _roots(program, s, rows, size)))

        def at(u: Tensor) -> tuple[Tensor, ...]:
            tables = self._path.run(score, 1, Computed({}, (u[None],))).tables
            return tuple(t[0] for t in tables)  # (n, m) each

        def along(direction: Tensor) -> tuple[Tensor, ...]:
            return torch.func.jvp(at, (u,), (direction,))[1]

        with warnings.catch_warnings():  # torch's own, of its own
            warnings.simplefilter("ignore", DeprecationWarning)
            # with another out_dim torch 2.13 fails where a root does not move at all
            slopes = torch.func.vmap(along, randomness="same")(directions)  # (k, n, m) each
        with torch.enable_grad():
            one = u[None].detach().requires_grad_()
            log_f = self._path(one)[1]
            (grad,) = torch.autograd.grad(log_f.sum(), one)
            if whole:
                slopes = [a.movedim(0, -2) for a in slopes]
                products = torch.stack([a @ a.mT for a in slopes]).sum(0)
            else:
                many = u.expand_as(directions).clone().requires_grad_()
                roots = self._path.run(score, len(many), Computed({}, (many,))).tables
                pairs = zip(roots, slopes, strict=True)
                total = torch.stack([(r * a).sum() for r, a in pairs]).sum()
                (products,) = torch.autograd.grad(total, many)
                products = products.movedim(0, -1)
        return Curvature(log_f[0].detach(), grad[0], products)

    def _exact(self, u: Tensor, directions: Tensor) -> Curvature:
        """Returns them by differentiating the gradient, along a direction of each particle.

        Args:
            u: `(n, d)`.
            directions: `(k, n, d)`.
        """
        with torch.enable_grad():
            many = u.expand_as(directions).clone().requires_grad_()
            log_f = self._path(many)[1]
            (grad,) = torch.autograd.grad(log_f.sum(), many, create_graph=True)
            products = torch.zeros_like(many)  # of a log f that is linear
            if grad.requires_grad:
                (products,) = torch.autograd.grad((grad * directions).sum(), many)
        products = -products.movedim(0, -1).detach()  # (n, d, k)
        return Curvature(log_f[0].detach(), grad[0].detach(), products)


def _unit_vectors(u: Tensor) -> Tensor:
    """Returns the d unit vectors of u, `(d, n, d)`; of joint latents `(d, d)`."""
    d = u.shape[-1]
    eye = torch.eye(d, dtype=u.dtype, device=u.device)
    return eye.reshape(d, *[1] * (u.ndim - 1), d).expand(d, *u.shape).clone()


def _roots(program: Program, site: Site, rows: range, size: int | None) -> Iterator[Tensor]:
    """Yields the roots of a site's information, `(S, n, k)` each.

    Args:
        program: As it was run.
        site: Of the run.
        rows: The n rows.
        size: S, or `None` of one particle.
    """
    fn, whole = site["fn"], program.unmasked(site)["mask"]
    if program.sites.common(site):
        return
    for root in _information(base(fn), site["value"], latent=not site["is_observed"]):
        more = root.shape[-1:] if isinstance(base(fn), dist.Categorical) else ()
        root = root.expand(*fn.shape(), *more)
        parts = [(m, base(fn).event_dim) for m in masks_within(fn)]
        for mask, event_dim in [(whole, fn.event_dim), *parts]:
            if mask is not None:
                mask = torch.as_tensor(mask)
                mask = mask.reshape(*mask.shape, *[1] * (event_dim + len(more)))
                root = torch.where(mask, root, 0.0)
        yield _by_datum(program, site, root, rows, size)


def _by_datum(
    program: Program, site: Site, value: Tensor, rows: range, size: int | None
) -> Tensor:
    """Returns what a site has for each of its numbers, `(S, n, m)`.

    Args:
        program: As it was run.
        site: Of the run.
        value: To be broadcast to the site's shape; it may have dimensions behind.
        rows: The n rows.
        size: S, or `None` of one particle.
    """
    shape, lead = site["fn"].shape(), [] if size is None else [size]
    if value.ndim <= len(shape):
        value = value.expand(shape)
    if not program.plate:
        return value.reshape(*lead, -1)
    value = value.movedim(len(shape) + program.sites.axis(site), len(lead))
    value = value.narrow(len(lead), 0, len(rows))  # a padded block has more
    return value.reshape(*lead, len(rows), -1)


def _information(fn: Any, value: Tensor, latent: bool) -> list[Tensor]:
    """Returns the roots of a distribution's information, elementwise.

    Args:
        fn: Without wrappers.
        value: Its site's.
        latent: Whether the value moves, too.

    Raises:
        KeyError: If its information is not known: of latents that of normals alone is.
    """
    if latent and isinstance(fn, dist.Normal):
        return [(value - fn.loc) / fn.scale]  # log scale itself moves log f without a curvature
    for kind, roots in FAMILIES.items():
        if isinstance(fn, kind) and not latent:
            return roots(fn, value)
    raise KeyError(type(fn).__name__)


def _normal(fn: Any, value: Tensor) -> list[Tensor]:
    """Of location and scale."""
    return [fn.loc / fn.scale.detach(), sqrt(2) * fn.scale.log()]


def _bernoulli(fn: Any, value: Tensor) -> list[Tensor]:
    """Of the logits."""
    return [(fn.probs * (1 - fn.probs)).detach().sqrt() * fn.logits]


def _binomial(fn: Any, value: Tensor) -> list[Tensor]:
    """Of the logits."""
    return [(fn.total_count * fn.probs * (1 - fn.probs)).detach().sqrt() * fn.logits]


def _categorical(fn: Any, value: Tensor) -> list[Tensor]:
    """Of the log-probabilities."""
    return [fn.probs.detach().sqrt() * fn.logits]


def _poisson(fn: Any, value: Tensor) -> list[Tensor]:
    """Of the rate."""
    return [fn.rate / fn.rate.detach().sqrt()]


def _gamma(fn: Any, value: Tensor) -> list[Tensor]:
    """Of shape a and rate b: a (d log b - d log a)^2 + (trigamma(a) - 1 / a) da^2."""
    a, b = fn.concentration, fn.rate
    own = a.detach()
    return [own.sqrt() * (b.log() - a.log()), (_trigamma(own) - 1 / own).sqrt() * a]


def _beta(fn: Any, value: Tensor) -> list[Tensor]:
    """Of both shapes: trigamma(a) da^2 + trigamma(b) db^2 - trigamma(a + b) (da + db)^2."""
    a, b = fn.concentration1, fn.concentration0
    both = _trigamma((a + b).detach())
    of_a, of_b = _trigamma(a.detach()) - both, _trigamma(b.detach()) - both
    return [of_a.sqrt() * (a - both / of_a * b), (of_b - both.square() / of_a).sqrt() * b]


def _student(fn: Any, value: Tensor) -> list[Tensor]:
    """Of location and scale, df held fixed."""
    df, scale = fn.df.detach(), fn.scale.detach()
    of_loc, of_scale = (df + 1) / (df + 3), 2 * df / (df + 3)
    return [of_loc.sqrt() * fn.loc / scale, of_scale.sqrt() * fn.scale.log()]


def _trigamma(x: Tensor) -> Tensor:
    """Returns the second derivative of log Gamma."""
    return torch.polygamma(1, x)


FAMILIES: dict[type, Callable[[Any, Tensor], list[Tensor]]] = {
    dist.Normal: _normal,
    dist.Bernoulli: _bernoulli,
    dist.Binomial: _binomial,
    dist.Categorical: _categorical,
    dist.OneHotCategorical: _categorical,
    dist.Poisson: _poisson,
    dist.Gamma: _gamma,
    dist.Beta: _beta,
    dist.StudentT: _student,
}
