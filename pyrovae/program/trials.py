"""What a program would get wrong and only running it shows: it is tried on its first rows."""

__all__ = [
    "check_common",
    "check_masks",
    "check_rows",
    "check_steady",
    "check_summed_masks",
    "fitted",
]

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.program.densities import AUXILIARY, Program
from pyrovae.program.handlers import Site, Values, base
from pyrovae.program.sums import each

FAILURES = RuntimeError, ValueError, TypeError, IndexError


class _Last(Messenger):
    """Remembers the sample site that was run last."""

    site: Site | None = None

    def _pyro_post_sample(self, msg: Any) -> None:
        self.site = msg


def fitted(program: Program, rows: range) -> Program:
    """Returns the program with what it needs to run for many particles: `trouble`, `folds`.

    Of a program that does not broadcast over particles, particles are tried as further rows.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.
    """
    trouble = _trouble(program, rows)
    if not trouble:
        return program
    program = replace(program, trouble=trouble)
    common = any(program.common(s) for s in (*program.model_sites, *program.guide_sites))
    if program.feed != "slice" or program.dim is None or common:
        return program
    return replace(program, folds=not _trouble(replace(program, folds=True), rows))


def _trouble(program: Program, rows: range) -> str:
    """Returns how `program` fails to run for particles at once, or ""; compares the same draws."""
    num_particles = 2 if len(rows) == 3 else 3
    last = _Last()
    try:
        with last:
            if program.guide is None:
                z = program.propose_prior(rows, num_particles)
            else:
                z, _ = program.propose(rows, num_particles)
            fns = [fn for _, fn in _scored(program, rows, each(z, num_particles)[0])]
            together = [
                program.log_guide(z, rows, num_particles)
                if fn is program.guide
                else program.log_joint(z, rows, num_particles)
                for fn in fns
            ]
    except FAILURES as e:
        if last.site is None:
            raise
        name, shape = last.site["name"], tuple(last.site["value"].shape)
        return (
            f"does not broadcast over particles (failed after site {name!r} of shape {shape}: "
            f"{str(e).splitlines()[0]})"
        )
    for fn, ours in zip(fns, together, strict=True):
        singly = torch.stack(
            [program.log_density(fn, z_s, rows) for z_s in each(z, num_particles)]
        )
        if not _close(ours, singly):
            off = (ours - singly).abs().max().item()
            where = ", ".join(f"{name!r} of shape {tuple(v.shape)}" for name, v in z.items())
            who = "guide" if fn is program.guide else "model"
            return f"broadcasts wrongly: log p of the {who} at {where} is off by {off:.3g} nats"
    return ""


def check_common(program: Program, rows: range) -> None:
    """Raises ValueError where a latent outside the data plate has a value for each row after all.

    Taken for common to all data, its density would be left out of the weights.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.
    """
    common = {s["name"]: s for s in program.model_sites if s["name"] in program.latents}
    common = {name: s["value"].shape for name, s in common.items() if program.common(s)}
    if not common or len(program) == 1:
        return
    shapes = None
    if program.feed == "slice" and len(rows) > 1:
        with suppress(*FAILURES):
            alone = program.take([rows[-1]])
            sites = alone.run(program.model, range(1))
            shapes = {s["name"]: s["value"].shape for s in sites}
    for name, shape in common.items():
        each = len(program) in shape if shapes is None else shapes[name] != shape
        if each:
            raise ValueError(
                f"latent site {name!r} stands outside plate {program.plate!r} and seems to have a "
                f"value for each of its rows (shape {tuple(shape)}); put it into that plate, or "
                "pass plate=None for log p of all data at once"
            )


def settled(program: Program, rows: range) -> Program:
    """Returns the program with latents that are common to all data and points in the guide fixed.

    Such a point (a Delta, as of AutoDelta) is a parameter: log p(x) is that of the model with it.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.

    Raises:
        ValueError: If the point is made of the rows it is given, and so is not one for all data.
    """
    if program.guide is None or program.plate is None:
        return program
    points, again = (_points(program, rows) for _ in range(2))
    points = {n: v for n, v in points.items() if torch.equal(v, again[n])}
    if not points:
        return program
    if program.feed == "slice" and len(rows) > 1:
        try:
            alone = _points(program.take([rows[-1]]), range(1))
        except FAILURES:  # it takes no such number of rows
            alone = points
        for name in (n for n in points if not _close(points[n], alone[n])):
            raise ValueError(
                f"the guide makes the point {name!r}, common to all data, of the rows that it is "
                "given; make it a parameter, or pass plate=None"
            )
    return replace(
        program,
        model=poutine.condition(program.model, data=points),
        guide=poutine.block(program.guide, hide=list(points)),
        model_sites=tuple(s for s in program.model_sites if s["name"] not in points),
        guide_sites=tuple(s for s in program.guide_sites if s["name"] not in points),
    )


def _points(program: Program, rows: range) -> Values:
    """Returns what the guide says of latents common to all data that are points in it."""
    assert program.guide is not None
    sites = (s for s in program.run(program.guide, rows) if not s["is_observed"])
    common = (s for s in sites if program.common(s) and s["name"] in program.latents)
    return {s["name"]: s["value"] for s in common if isinstance(base(s["fn"]), Delta)}


def check_steady(program: Program, rows: range) -> None:
    """Raises ValueError where densities differ from run to run at the same latents.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.
    """
    z = _one(program, rows)
    for who, fn in _scored(program, rows, z):
        first, again = (program.log_density(fn, z, rows) for _ in range(2))
        if not _close(first, again):
            off = (first - again).abs().max().item()
            raise ValueError(
                f"log p of the {who} differs by {off:.3g} nats from run to run at the same "
                "latents: it draws random numbers outside pyro.sample, as functional dropout "
                "does; switch that off (training=self.training), or make it a site"
            )


def check_rows(program: Program, rows: range) -> bool:
    """Returns whether rows can be taken in other blocks; ValueError if they depend on each other.

    The last row is run alone, and every other row in reverse: where that changes a row's
    densities, or fails, the program may know rows by their place (a parameter for each). It then
    takes all rows at once, and the last row must not notice when the others become copies of it.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.
    """
    if program.plate is None or len(rows) < 2:
        return True
    z = _one(program, rows)
    scored = _scored(program, rows, z)
    together = [program.log_density(fn, z, rows) for _, fn in scored]
    last = len(rows) - 1
    if program.feed == "slice":
        parts = [last], list(range(last, -1, -2))
        return all(_alike(program, rows, z, scored, together, index) for index in parts)
    copies = torch.full((len(program),), rows[last])
    beside = replace(program, data=tuple(d[copies] for d in program.data))
    z = _taken(program, z, [last] * len(rows), len(rows))
    for (who, fn), log_p in zip(scored, together, strict=True):
        own, other = log_p[last], beside.log_density(fn, z, rows)[last]
        if not _close(own, other):
            square = any(len(program) in d.shape[1:] for d in program.data)
            raise ValueError(
                f"the rows depend on each other: log p of the {who} for the same row and latents "
                f"differs by {(own - other).abs().item():.3g} nats when other rows stand beside "
                "it (a mean over the batch, batch statistics, a walk over rows); make rows "
                "independent given their latents, or pass plate=None for log p of all data at once"
                + f"; if another axis of length {len(program)} counts the data, put it first"
                * square
            )
    return True


def _alike(
    program: Program,
    rows: range,
    z: Values,
    scored: list[tuple[str, Callable[..., object]]],
    together: list[Tensor],
    index: list[int],
) -> bool:
    """Returns whether these rows have the same densities without the others."""
    part = program.take([rows[i] for i in index])
    try:
        z = _taken(program, z, index, len(rows))
        apart = [part.log_density(fn, z, range(len(index))) for _, fn in scored]
    except FAILURES:
        return False
    return all(_close(a[index], b) for a, b in zip(together, apart, strict=True))


def check_masks(program: Program, rows: range) -> Program:
    """Returns the program with the latents whose masked entries can be left out of p and q alike.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.

    Raises:
        ValueError: If something that is not masked depends on what is.
    """
    sites = {s["name"]: s for s in program.run(program.summed, rows)}
    masked = {n for n in program.latents - set(program.enumerated) if sites[n]["mask"] is not None}
    if not masked:
        return program
    if program.guide is None:
        return program  # only what is observed is weighed
    check_summed_masks(program, rows)
    drawn = {s["name"] for s in program.guide_sites if not isinstance(base(s["fn"]), Delta)}
    masked = {n for n in masked if n in drawn or n + AUXILIARY in drawn}
    program = replace(program, masked=frozenset(masked))
    z, fresh = _one(program, rows), _one(program, rows)
    at = poutine.condition(program.summed, data=z)
    sites, other = {s["name"]: s for s in program.run(at, rows)}, dict(z)
    for name in masked:
        mask = torch.as_tensor(sites[name]["mask"])
        mask = mask.reshape(*mask.shape, *[1] * sites[name]["fn"].event_dim)
        other[name] = torch.where(mask, z[name], fresh[name])
    a, b = (program.log_density(program.model, at, rows) for at in (z, other))
    if not _close(a, b):
        raise ValueError(
            f"latent {sorted(masked)[0]!r} is masked where what is observed still depends on it; "
            "mask that as well, or leave the latent unmasked"
        )
    return program


def check_summed_masks(program: Program, rows: range) -> None:
    """Raises ValueError where a latent is masked by a site that is summed out.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.
    """
    for site in program.run(program.summed, rows):
        if site["name"] in program.latents - set(program.enumerated) and site["mask"] is not None:
            mask = site["mask"]
            one = mask[(slice(1),) * max(0, mask.ndim - 1 - program.nesting)]
            if (mask != one).any():
                raise ValueError(
                    f"latent {site['name']!r} is masked by what is summed out: where it is masked "
                    "it has no density to be summed; draw the discrete site in the guide and use "
                    "importance_sampling, or leave out the mask"
                )


def _scored(program: Program, rows: range, z: Values) -> list[tuple[str, Callable[..., object]]]:
    """Returns model and guide by name; no guide whose density is known at its own draws alone.

    A flow without an inverse remembers what it just made, and nothing else.
    """
    if program.guide is None:
        return [("model", program.model)]
    try:
        program.log_density(program.guide, z, rows)
    except (KeyError, NotImplementedError):
        return [("model", program.model)]
    return [("model", program.model), ("guide", program.guide)]


def _one(program: Program, rows: range) -> Values:
    """Returns one particle's latents by site, and what the guide draws beside them."""
    alone = replace(program, trouble="one by one", folds=False)
    z = alone.propose_prior(rows, 1) if program.guide is None else alone.propose(rows, 1)[0]
    return {name: value[0] for name, value in z.items()}


def _taken(program: Program, z: Values, index: list[int], num_data: int) -> Values:
    """Returns the latents of these data, as other rows of a block."""
    sites = {s["name"]: s for s in (*program.model_sites, *program.guide_sites)}
    own = {name: value for name, value in z.items() if not program.common(sites[name])}
    taken = {name: value for name, value in z.items() if name not in own}
    if program.dim is None:  # a loop: each datum has names of its own
        names: list[list[str]] = [[] for _ in range(num_data)]
        for name in own:
            names[program.number(sites[name])].append(name)
        for row, i in enumerate(index):
            taken |= {a: z[b] for a, b in zip(names[row], names[i], strict=True)}
        return taken
    for name, value in own.items():
        axis = value.ndim + program.axis(sites[name])
        taken[name] = value.index_select(axis, torch.tensor(index, device=value.device))
    return taken


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
