"""The geometric path from a proposal to the posterior, over unconstrained latents."""

__all__ = ["GeometricPath"]

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import cast

import torch
from pyro import poutine
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import constraints

from pyrovae.program.binding import Fn
from pyrovae.program.densities import Program
from pyrovae.program.handlers import Unconstrained
from pyrovae.program.masks import check_summed_masks
from pyrovae.program.particles import NO_INPUT, Compute, Computed
from pyrovae.program.sites import Site, Values, base, bijection, support
from pyrovae.program.sums import log_det


@dataclass(frozen=True)
class GeometricPath:
    r"""Log-densities of a block along the path from q(z|x), or p(z) without a guide, to p(x, z).

    .. math::
        f_b(u) = q(z | x)^{1-b} \, p(x, z)^b \, |dz/du|, \quad z = T(u)

        \log f_b = (1 - b) \log f_0 + b \log f_1

    u is `(S, n, d)`: all latents of a datum side by side, each mapped from the reals onto its
    support by T (`torch.distributions.biject_to`); joint latents of all data are `(S, d)`. Where
    the guide draws auxiliary values and maps them to latents (Pyro's autoguides), u are those.
    Both ends have the Jacobian |dz/du|, so that the integral of f_0 over u is 1, and that of f_1
    p(x).

    Args:
        program: The pair; discrete latents that its guide draws are summed out here, too.
        rows: The n rows of the block, by number.

    Raises:
        ValueError: If a latent is discrete and not summed out, or has a support that no map from
            the reals reaches; the site is named.

    References:
        Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008
        Simulating normalizing constants: from importance sampling to bridge sampling to path
        sampling (Gelman and Meng, 1998), https://doi.org/10.1214/ss/1028905934
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
        """Raises ValueError unless log p(x, z) has a gradient in u, and log q a value there.

        A program that leaves torch (`.item()`, numpy) has none, and a flow without an inverse
        knows log q at its own draws alone.
        """
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
        """The d dimensions of u: site, with an index where it has several."""
        labels = []
        for site in self._sites:
            shape = _shape(site)
            size = prod(shape) // (shape[_axis(self.program, site)] if self.program.plate else 1)
            name = site["name"]
            labels += [f"{name}[{i}]" for i in range(size)] if size > 1 else [name]
        return labels

    @property
    def names(self) -> list[str]:
        """Names of the sites whose values are u."""
        return [s["name"] for s in self._sites]

    def start(self, num_particles: int) -> Tensor:
        """Returns u of draws from the guide, or the prior without one: `(S, n, d)`.

        Args:
            num_particles: S.
        """

        def draw(program: Program, rows: range, size: int | None, _: Computed) -> Computed:
            sites = program.run(_proposal(program), rows, size)
            return Computed({}, (self._pack(program, rows, size, sites),))

        return self.run(draw, num_particles).tables[0]

    def latents(self, u: Tensor) -> tuple[Values, Tensor, Tensor]:
        r"""Returns the guide's z by site, `(S, ..., event)`, log f_0(u), log |dz/du|, `(S, n)`.

        Both in nats; :math:`\log f_0(u) = \log q(z | x) + \log |dz/du|`, of the guide.

        Args:
            u: `(S, n, d)`.
        """

        def place(program: Program, rows: range, size: int | None, given: Computed) -> Computed:
            z, *terms = _guided(program, rows, size, self._unpack(program, rows, size, given))
            return Computed(z, tuple(terms))

        z, (log_f0, log_dz) = self.run(place, len(u), Computed({}, (u,)))
        return z, log_f0, log_dz

    def values(self, u: Tensor) -> tuple[Values, Tensor]:
        """Returns the model's z by site, `(S, ..., event)`, and log |dz/du|, `(S, n)`, nats.

        Of a program without a guide. Latents that are all of the reals are u themselves, for which
        nothing is run.

        Args:
            u: `(S, n, d)`.
        """
        real = all(support(s["fn"]) is constraints.real for s in self._sites)

        def place(program: Program, rows: range, size: int | None, given: Computed) -> Computed:
            if real:
                values = self._unpack(program, rows, size, given)
                return Computed(values, (torch.zeros_like(given.tables[0][..., 0]),))
            sites = self.run_model(program, rows, size, given)
            moved = [s for s in sites if s["name"] in self.names]
            log_dz = program.log_sum(moved, rows, size, log_det)
            return Computed({s["name"]: s["value"] for s in moved}, (log_dz,))

        z, (log_dz,) = self.run(place, len(u), Computed({}, (u,)))
        return z, log_dz

    def unconstrain(self, z: Values, num_particles: int | None = None) -> Tensor:
        """Returns u of latents z by site, `(S, n, d)`; `(n, d)` of one particle's.

        It is the inverse of T: log-densities at it are those of z, with the Jacobian.

        Args:
            z: Latents by site, `(S, ..., event)`, as the guide draws them.
            num_particles: S; `None` without that dimension, of one particle.

        Raises:
            ValueError: If the guide draws auxiliary values, which z does not tell.
        """
        if missing := sorted(set(self.names) - set(z)):
            raise ValueError(
                f"the guide draws {missing[0]!r} and maps it to the latents; the map cannot be "
                "inverted, so leave the guide out, or write one that samples the latents"
            )

        def place(program: Program, rows: range, size: int | None, given: Computed) -> Computed:
            fn = poutine.condition(_proposal(program), data=given.z)
            return Computed({}, (self._pack(program, rows, size, program.run(fn, rows, size)),))

        given = Computed({name: z[name] for name in self.names}, ())
        if num_particles is None:
            return place(self.program, self.rows, None, given).tables[0]
        return self.run(place, num_particles, given).tables[0]

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns log f_0(u) and log f_1(u), `(S, n)` each, in nats, differentiable in u.

        .. math::
            \log f_0 = \log q(z | x) + \log |dz/du|, \quad \log f_1 = \log p(x, z) + \log |dz/du|

        Not one tensor of both: a gradient of either would go back through the other as well.

        Args:
            u: `(S, n, d)`; of joint latents `(S, d)`, and the results `(S,)`.
        """

        def score(program: Program, rows: range, size: int | None, given: Computed) -> Computed:
            values = self._unpack(program, rows, size, given)
            return Computed({}, _ends(program, rows, size, values))

        log_f0, log_f1 = self.run(score, len(u), Computed({}, (u,))).tables
        return log_f0, log_f1

    def run_model(
        self, program: Program, rows: range, size: int | None, given: Computed
    ) -> list[Site]:
        """Returns the model's sites at given u, in a function that `run` calls.

        Args:
            program: As it is run; without a guide, so that u are the model's own latents.
            rows: The n rows.
            size: S, or `None` of one particle.
            given: The table of u, `(S, n, d)`, or `(n, d)` of one particle.
        """
        values = self._unpack(program, rows, size, given)
        return program.run(program.summed, rows, size, Unconstrained(values))

    def on(self, data: tuple[Tensor, ...]) -> "GeometricPath":
        """Returns the path of other data of the same shapes.

        Args:
            data: A block's, `(n, ...)` each.
        """
        path = copy(self)  # its sites too: to find them, the program would be run again
        object.__setattr__(path, "program", self.program.on(data))
        return path

    def select(self, index: Sequence[int]) -> "GeometricPath":
        """Returns the path of some rows of the block, of a program that `selects_rows`.

        Args:
            index: Their places in the block.
        """
        rows = [self.rows[i] for i in index]
        return GeometricPath(self.program.select(rows), range(len(rows)))

    def run(self, compute: Compute[Program], size: int, inputs: Computed = NO_INPUT) -> Computed:
        """Returns what `compute` gives for S particles of the block, in the program's way.

        Args:
            compute: Of a program, rows, S or `None`, and inputs.
            size: S.
            inputs: Latents by site and tables, of S particles.
        """
        return self.program.particles.run(compute, self.program, self.rows, size, inputs)

    @cached_property
    def _sites(self) -> list[Site]:
        """The sites whose values are annealed: neither observed, points, nor enumerated."""
        out = self.program.enumerated
        sites = self.program.run(_proposal(self.program), self.rows)
        drawn = (s for s in sites if not s["is_observed"] and s["name"] not in out)
        return [s for s in drawn if not isinstance(base(s["fn"]), Delta)]

    def _pack(
        self, program: Program, rows: range, size: int | None, sites: Iterable[Site]
    ) -> Tensor:
        """Returns u of a run's sites, side by side: `(S, n, d)`; `(n, d)` of one particle.

        Args:
            program: As it was run.
            rows: On these n; of a run that was filled up, the first n are returned.
            size: S, or `None` of one particle.
            sites: Of the run, their values z.
        """
        run, columns = {s["name"]: s for s in sites}, []
        lead = (0 if size is None else 1) + bool(program.plate)
        for site in self._sites:
            u = cast(Tensor, bijection(run[site["name"]]["fn"]).inv(run[site["name"]]["value"]))
            if program.plate:
                u = u.movedim(_axis(program, site) + u.ndim, lead - 1)
            columns.append(u.reshape(*u.shape[:lead], -1))
        u = torch.cat(columns, dim=-1)  # (S, n, d); of a padded block, more than n
        return u[..., : len(rows), :] if program.plate else u

    def _unpack(self, program: Program, rows: range, size: int | None, given: Computed) -> Values:
        """Returns u, the one table given, by site and shaped as the site's values are.

        Args:
            program: As it is to be run.
            rows: On these n; a run that is filled up gets the last one's u again.
            size: S, or `None` of one particle.
            given: The table, `(S, n, d)`, or `(n, d)` of one particle.
        """
        (u,), plate = given.tables, bool(program.plate)
        u = u if size is not None else u[None]  # (S, n, d); S = 1 of one particle
        if plate and (more := program.batching.rows_of_run(rows)) != len(rows):
            index = torch.arange(more, device=u.device)
            u = u[:, index.clamp(max=len(rows) - 1)]
        values, start = {}, 0
        for site in self._sites:
            axis, shape = _axis(program, site), list(_shape(site))
            if size is not None:
                event_dim = bijection(site["fn"]).domain.event_dim
                shape = [1] * (program.sites.num_plates + event_dim - len(shape)) + shape
            n = [u.shape[1]] if plate else []
            if plate:
                shape.pop(axis)
            stop = start + prod(shape)
            value = u[..., start:stop].reshape(len(u), *n, *shape)
            value = value.movedim(1, axis) if plate else value
            values[site["name"]] = value if size is not None else value[0]
            start = stop
        return values


def _proposal(program: Program) -> Fn:
    """Returns what draws u: the guide, or the model without one."""
    return program.guide or program.model


def _ends(
    program: Program, rows: range, size: int | None, values: Values
) -> tuple[Tensor, Tensor]:
    """Returns log f_0 and log f_1 of u by site, `(S, n)`; `(n,)` of one particle.

    Without a guide, model sites alone are summed: latents for f_0, all for f_1.

    Args:
        program: As it is run.
        rows: The n rows.
        size: S, or `None` of one particle.
        values: u by site.
    """
    if program.guide is None:
        sites = program.run(program.summed, rows, size, Unconstrained(values))
        hidden = [s for s in sites if s["name"] in program.sites.latents]
        log_f0, log_f1 = (program.log_sum(s, rows, size) for s in (hidden, sites))
        return log_f0, log_f1
    z, log_f0, log_dz = _guided(program, rows, size, values)
    return log_f0, program.log_density(program.model, z, rows, size) + log_dz


def _guided(
    program: Program, rows: range, size: int | None, values: Values
) -> tuple[Values, Tensor, Tensor]:
    """Returns z by site, log f_0 and log |dz/du|, `(S, n)`, of the guide's u by site.

    Args:
        program: As it is run, with a guide.
        rows: The n rows.
        size: S, or `None` of one particle.
        values: u by site.
    """
    sites = program.run(program.summed_guide, rows, size, Unconstrained(values))
    sites = program.proposed(sites, rows, size)
    moved = [s for s in sites if s["name"] in values]
    points = [s for s in sites if isinstance(base(s["fn"]), Delta)]
    summed = [s for s in sites if s["name"] in program.enumerated]
    log_f0 = program.log_sum(moved + summed, rows, size)
    # a point's own density is what its map from auxiliary values does to the volume: |du/dz|
    log_dz = program.log_sum(moved, rows, size, log_det)
    log_dz = log_dz - program.log_sum(points, rows, size)
    z = {s["name"]: s["value"] for s in sites if s["name"] not in program.enumerated}
    return z, log_f0, log_dz


def _shape(site: Site) -> torch.Size:
    """Returns the shape of a site's u without particles, `(..., n, ..., event of u)`."""
    return bijection(site["fn"]).inverse_shape(site["value"].shape)


def _axis(program: Program, site: Site) -> int:
    """Returns the axis of the data in a site's u, counted from the right.

    It differs from that in z where T changes the event's dimensions: a Cholesky factor of
    correlations is a matrix made of a vector.

    Args:
        program: Which knows the data plate.
        site: One of the sites.
    """
    moved = site["fn"].event_dim - bijection(site["fn"]).domain.event_dim
    return program.sites.axis(site) + moved


def _check(site: Site, program: Program) -> None:
    """Raises ValueError unless a bijection from the reals reaches the site's support.

    Args:
        site: A latent, or an auxiliary draw of the guide.
        program: Which knows what is common to all data.
    """
    region, name = support(site["fn"]), site["name"]
    kind = type(base(site["fn"])).__name__
    if program.sites.common(site):
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
        bijection(site["fn"])
    except NotImplementedError as e:
        raise ValueError(
            f"latent site {name!r} is {kind} with support {region}: no map from the reals reaches "
            "it; use importance_sampling"
        ) from e
