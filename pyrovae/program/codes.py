"""What a guide says of each datum's latents by site: means, variances, KL from the prior."""

__all__ = ["Code", "code_of", "given_to_others"]

from functools import partial
from typing import NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from pyrovae.program.densities import Program
from pyrovae.program.objective import divergence_of
from pyrovae.program.particles import Computed
from pyrovae.program.sites import Site, Values
from pyrovae.program.sums import log_prob

FIELDS = 5  # tables of a site


class Code(NamedTuple):
    r"""One latent site of n data, given S draws of what the guide draws before it.

    Attributes:
        mean: Of z given these, `(S, n, d)`; NaN where there is none, as of a category.
        variance: Likewise.
        divergence: KL(q(z|x) || p(z)), `(S, n, groups)`, nats: a group is a dimension where both
            densities are products over these. Of sites that Pyro knows no integral of it is
            log q - log p at the draw.
        prior_mean: Of z under the prior given the latents that it depends on, `(S, n, d)`.
        prior_variance: Likewise.
    """

    mean: Tensor
    variance: Tensor
    divergence: Tensor
    prior_mean: Tensor
    prior_variance: Tensor


def code_of(program: Program, rows: range, num_particles: int) -> dict[str, Code]:
    """Returns what the guide says of the latents of some data, by site, in its order.

    Latents that are common to all data, or summed out, are left out.

    Args:
        program: With a guide.
        rows: The n rows of a block, by number.
        num_particles: S.

    Raises:
        ValueError: If the data plate is a loop, or there is none, or the prior of a site depends
            on what is summed out.
    """
    assert program.guide is not None
    if program.plate is None:
        raise ValueError("plate is None, which leaves no data with codes of their own; name it")
    sites = {s["name"]: s for s in program.sites.model}
    names = [s["name"] for s in program.sites.guide if s["name"] in program.sites.latents]
    names = [n for n in names if not program.sites.common(sites[n])]
    for name in names:
        program.sites.axis(sites[name])
    tables = program.particles.run(partial(_coded, names), program, rows, num_particles).tables
    parts = (tables[i : i + FIELDS] for i in range(0, len(tables), FIELDS))
    return {n: Code(*(t.double().cpu() for t in p)) for n, p in zip(names, parts, strict=True)}


def _coded(
    names: list[str], program: Program, rows: range, size: int | None, _: Computed
) -> Computed:
    """Returns the fields of a code of each site, one after another, `(S, n, ...)` each.

    Args:
        names: Of the sites.
        program: Of whose rows.
        rows: The n rows.
        size: S, or `None` of one particle without its dimension.
        _: Nothing is given.
    """
    assert program.guide is not None
    drawn = program.proposed(program.run(program.guide, rows, size), rows, size)
    at = poutine.condition(program.summed, data={s["name"]: s["value"] for s in drawn})
    p = {s["name"]: s for s in program.run(at, rows, size)}
    order, met, tables = list(p), set[str](), []
    lead = 0 if size is None else 1
    by_name = {s["name"]: s for s in drawn}
    for name in names:
        q = by_name[name]
        before = {n for n in order[: order.index(name)] if n in program.sites.latents}
        kl = divergence_of(q, p[name]) if before <= met else None
        if kl is None:
            kl = (log_prob(q) - log_prob(p[name]))[..., None]
        if kl.ndim > 1 + lead + program.sites.num_plates:
            raise ValueError(
                f"the prior of site {name!r} depends on what is summed out, which leaves no KL of "
                "its own; let the guide draw that too"
            )
        met.add(name)
        axis, event = program.sites.axis(q), q["fn"].event_dim
        found = *_moments(q), kl, *_moments(p[name], redraw=True)
        places = axis, axis, axis + event - 1, axis, axis
        for value, at_axis in zip(found, places, strict=True):
            table = value.movedim(at_axis, lead)
            tables.append(table.reshape(*table.shape[: lead + 1], -1)[..., : len(rows), :])
    return Computed({}, tuple(tables))


def _moments(site: Site, *, redraw: bool = False) -> tuple[Tensor, Tensor]:
    """Returns mean and variance of a site, `(batch, event)`; of what has none known, a draw's.

    A draw's variance is that of the draws, which whoever averages them adds.

    Args:
        site: Of guide or model.
        redraw: Whether its value was not drawn from its own distribution.
    """
    fn, value = site["fn"], site["value"]
    try:
        mean, variance = fn.mean, fn.variance
    except (NotImplementedError, AttributeError):
        mean = fn.sample() if redraw else value
        variance = torch.zeros_like(mean)
    return mean.expand(value.shape), variance.expand(value.shape)


def given_to_others(program: Program, z: Values, which: range, rows: range) -> Values:
    """Returns draws for some data as particles of others, `(b, ..., n, ..., event)` by site.

    Args:
        program: In which no latent is common to all data.
        z: One draw of each of N data by site, `(1, ..., N, ..., event)`.
        which: The b data whose draws are taken, by place in z.
        rows: The n others, by number.
    """
    given, axes = {}, program.sites.axes
    for name, value in z.items():
        axis, shape = axes[name], list(value.shape)
        shape[0], shape[axis] = len(which), len(rows)
        own = value[0].movedim(axis, 0)[which.start : which.stop]  # (b, ..., event)
        given[name] = own.unsqueeze(axis).expand(shape)
    return given
