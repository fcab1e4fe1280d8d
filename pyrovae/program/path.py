"""The geometric path from a proposal to the posterior, over unconstrained latents."""

__all__ = ["Path"]

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
from pyro import poutine
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import biject_to

from pyrovae.program.densities import Program
from pyrovae.program.handlers import Site, Unconstrained, Values, base
from pyrovae.program.sums import each, log_det
from pyrovae.program.supports import support
from pyrovae.program.trials import check_summed_masks


@dataclass(frozen=True)
class Path:
    r"""Log-densities of a block along the path from q(z|x), or p(z) without a guide, to p(x, z).

    .. math::
        f_b(u) = q(z | x)^{1-b} \, p(x, z)^b \, |dz/du|, \quad z = T(u)

    u is `(S, n, d)`: all latents of a datum side by side, each mapped from the reals onto its
    support by T (`torch.distributions.biject_to`); joint latents of all data are `(S, d)`. Where
    the guide draws auxiliary values and maps them to latents (Pyro's autoguides), u are those.

    Args:
        program: The pair.
        rows: The block.

    Raises:
        ValueError: If a latent is discrete and not summed out, or has a support that no map from
            the reals reaches; the site is named.
    """

    program: Program
    rows: range

    def __post_init__(self) -> None:
        object.__setattr__(self, "program", self.program.summing())
        for site in self._sites:
            _check(site, self.program)
        if self.program.enumerated:
            check_summed_masks(self.program, self.rows)

    def check_gradient(self) -> None:
        """Raises ValueError unless log p(x, z) has a gradient in u, and log q a value there."""
        if not self._sites:
            raise ValueError(
                "log p(x, z) has no gradient with respect to any continuous latent: none is left "
                "to anneal, as all are summed out or given; importance_sampling is exact then"
            )
        try:
            with torch.enable_grad():
                if self(self.start(1).requires_grad_())[1].requires_grad:
                    return
        except (KeyError, NotImplementedError) as e:
            raise ValueError(
                "the guide's density is known at its own draws alone (a flow without an inverse); "
                "leave the guide out and anneal from the prior, or use importance_sampling"
            ) from e
        names = ", ".join(repr(s["name"]) for s in self._sites)
        raise ValueError(
            f"log p(x, z) has no gradient with respect to {names}; annealing needs one: write "
            "the program without .item(), .detach() and numpy, or use importance_sampling"
        )

    @cached_property
    def size(self) -> int:
        """Dimensions of u, d: of a datum, or of all data's joint latents."""
        return self.start(1).shape[-1] if self._sites else 0

    @property
    def labels(self) -> list[str]:
        """The dimensions of u: site, with an index where it has several."""
        labels = []
        for site in self._sites:
            shape = self._shape(site)
            size = prod(shape) // (shape[self._axis(site)] if self.program.plate else 1)
            name = site["name"]
            labels += [f"{name}[{i}]" for i in range(size)] if size > 1 else [name]
        return labels

    @property
    def names(self) -> list[str]:
        """The sites whose values are u."""
        return [s["name"] for s in self._sites]

    def start(self, num_particles: int) -> Tensor:
        """Returns u of draws from the guide, or the prior without one: `(S, n, d)`."""
        if not self.program.trouble:
            return self._pack(self._run(num_particles))
        if self.program.folds:
            path = self._folded(num_particles)
            u = path._pack(path._run(), single=True)
            return u.unflatten(0, (num_particles, -1))
        runs = [self._pack(self._run(), single=True) for _ in range(num_particles)]
        return torch.stack(runs)

    def latents(self, u: Tensor) -> tuple[Values, Tensor, Tensor]:
        """Returns the guide's z by site, `(S, ..., event)`, log f_0(u), log |dz/du|, `(S, n)`."""
        if not self.program.trouble:
            return self._guided(self._unpack(u), len(u))
        if self.program.folds:
            z, *terms = self._folded(len(u))._guided(self._rows_of(u), None)
            log_q, log_dz = (t.unflatten(0, u.shape[:2]) for t in terms)
            return self.program.unfolded(z, len(u)), log_q, log_dz
        singly = [self._guided(v, None) for v in each(self._unpack(u), len(u))]
        z, log_q, log_dz = zip(*singly, strict=True)
        values = {name: torch.stack([z_s[name] for z_s in z]) for name in z[0]}
        return values, torch.stack(log_q), torch.stack(log_dz)

    def unconstrain(self, z: Values, num_particles: int | None = None) -> Tensor:
        """Returns u of latents z by site, `(S, n, d)`; `(n, d)` of one particle's.

        Args:
            z: Latents by site, `(S, ..., event)`, as the guide draws them.
            num_particles: S; `None` without that dimension, of one particle.
        """
        names = {s["name"] for s in self._sites}
        if missing := sorted(names - set(z)):
            raise ValueError(
                f"the guide draws {missing[0]!r} and maps it to the latents; the map cannot be "
                "inverted, so leave the guide out, or write one that samples the latents"
            )
        z = {name: z[name] for name in names}
        if num_particles is None or not self.program.trouble:
            return self._pack(self._run(num_particles, z), single=num_particles is None)
        return torch.stack(
            [self._pack(self._run(None, v), single=True) for v in each(z, num_particles)]
        )

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log f_0(u) and log f_1(u), `(S, n)` each, in nats, differentiable in u.

        Not one tensor of both: a gradient of either would go back through the other as well.
        """
        if not self.program.trouble:
            return self._ends(self._unpack(u), len(u))
        if self.program.folds:
            ends = self._folded(len(u))._ends(self._rows_of(u), None)
            log_f0, log_f1 = (end.unflatten(0, u.shape[:2]) for end in ends)
            return log_f0, log_f1
        values = each(self._unpack(u), len(u))
        ends = zip(*(self._ends(v, None) for v in values), strict=True)
        log_f0, log_f1 = map(torch.stack, map(list, ends))
        return log_f0, log_f1

    def on(self, data: tuple[Tensor, ...]) -> "Path":
        """Returns the path of other data of the same shapes."""
        path = copy(self)  # its sites too: to find them, the program would be run again
        object.__setattr__(path, "program", replace(self.program, data=data))
        return path

    def _folded(self, num_particles: int) -> "Path":
        """Returns the path of S copies of the block."""
        path = copy(self)
        program = self.program.folded(self.rows, num_particles)
        object.__setattr__(path, "program", program)
        object.__setattr__(path, "rows", range(len(program)))
        return path

    def _rows_of(self, u: Tensor) -> Values:
        """Returns u `(S, n, d)` by site, as of one particle of S n rows."""
        [values] = each(self._unpack(u.reshape(1, -1, u.shape[-1])), 1)
        return values

    @property
    def _fn(self) -> Callable[..., object]:
        return self.program.guide or self.program.model

    @cached_property
    def _sites(self) -> list[Site]:
        """The sites whose values are annealed: neither observed, points, nor enumerated."""
        out = self.program.enumerated
        sites = self.program.run(self._fn, self.rows)
        drawn = (s for s in sites if not s["is_observed"] and s["name"] not in out)
        return [s for s in drawn if not isinstance(base(s["fn"]), Delta)]

    def _run(self, num_particles: int | None = None, z: Values | None = None) -> dict[str, Site]:
        fn = self._fn if z is None else poutine.condition(self._fn, data=z)
        return {s["name"]: s for s in self.program.run(fn, self.rows, num_particles)}

    def _ends(self, values: Values, num_particles: int | None) -> tuple[Tensor, Tensor]:
        program, size = self.program, num_particles
        if program.guide is None:
            sites = program.run(program.summed, self.rows, size, Unconstrained(values))
            hidden = [s for s in sites if s["name"] in program.latents]
            log_f0, log_f1 = (program.log_sum(s, self.rows, size) for s in (hidden, sites))
            return log_f0, log_f1
        z, log_q, log_dz = self._guided(values, size)
        log_p = program.log_density(program.model, z, self.rows, size)
        return log_q, log_p + log_dz

    def _guided(self, values: Values, size: int | None) -> tuple[Values, Tensor, Tensor]:
        """Returns z by site, log f_0 and log |dz/du| of the guide's u by site."""
        program, handler = self.program, Unconstrained(values)
        sites = program.run(program.summed_guide, self.rows, size, handler)
        sites = program.drawn(sites, self.rows, size)
        moved = [s for s in sites if s["name"] in values]
        points = [s for s in sites if isinstance(base(s["fn"]), Delta)]
        summed = [s for s in sites if s["name"] in program.enumerated]
        log_q = program.log_sum(moved + summed, self.rows, size)
        # a point's own density is what its map from auxiliary values does to the volume: |du/dz|
        log_dz = program.log_sum(moved, self.rows, size, log_det)
        log_dz = log_dz - program.log_sum(points, self.rows, size)
        z = {s["name"]: s["value"] for s in sites if s["name"] not in program.enumerated}
        return z, log_q, log_dz

    def _pack(self, sites: dict[str, Site], single: bool = False) -> Tensor:
        """Returns all sites' u side by side, `(S, n, d)`; `(n, d)` of a single particle."""
        columns = []
        for site in self._sites:
            u = biject_to(sites[site["name"]]["fn"].support).inv(sites[site["name"]]["value"])
            if self.program.plate:
                u = u.movedim(self._axis(site) + u.ndim, 0 if single else 1)
            columns.append(u.reshape(*u.shape[: (not single) + bool(self.program.plate)], -1))
        u = torch.cat(columns, dim=-1)
        return u[..., : len(self.rows), :] if self.program.plate else u

    def _unpack(self, u: Tensor) -> Values:
        """Returns u `(S, n, d)` by site, shaped as the site's values are."""
        if self.program.plate and self.program.feed == "subsample":
            index = torch.arange(self.program.step, device=u.device)
            u = u[:, index.clamp(max=len(self.rows) - 1)]
        values, start = {}, 0
        for site in self._sites:
            axis, shape = self._axis(site), list(self._shape(site))
            if not self.program.trouble:
                event_dim = biject_to(site["fn"].support).domain.event_dim
                shape = [1] * (self.program.nesting + event_dim - len(shape)) + shape
            n = [u.shape[1]] if self.program.plate else []
            if self.program.plate:
                shape.pop(axis)
            size = prod(shape)
            value = u[..., start : start + size].reshape(len(u), *n, *shape)
            if self.program.plate:
                value = value.movedim(1, axis)
            values[site["name"]] = value
            start += size
        return values

    def _shape(self, site: Site) -> torch.Size:
        """Returns the shape of a site's u without particles."""
        return biject_to(site["fn"].support).inverse_shape(site["value"].shape)

    def _axis(self, site: Site) -> int:
        """Returns the axis of the data in a site's u, counted from the right."""
        moved = site["fn"].event_dim - biject_to(site["fn"].support).domain.event_dim
        return self.program.axis(site) + moved


def _check(site: Site, program: Program) -> None:
    """Raises ValueError unless a bijection from the reals reaches the site's support."""
    region, name = support(site), site["name"]
    kind = type(base(site["fn"])).__name__
    if program.common(site):
        raise ValueError(
            f"latent site {name!r} is common to all data, and stands outside plate "
            f"{program.plate!r}: a datum alone has no posterior of it to go to; use "
            "importance_sampling, make it a point in the guide (Delta), or pass plate=None"
        )
    if region is not None and region.is_discrete:
        raise ValueError(
            f"latent site {name!r} is {kind}: it is discrete and has no gradient; its values "
            "are too many to sum out, so use importance_sampling"
        )
    try:
        biject_to(site["fn"].support)
    except NotImplementedError as e:
        raise ValueError(
            f"latent site {name!r} is {kind} with support {region}: no map from the reals reaches "
            "it; use importance_sampling"
        ) from e
