"""What a program would get wrong and only running it shows: it is tried on its first rows."""

__all__ = ["check_rows", "check_steady", "choose_particles"]

from dataclasses import replace

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.program.binding import Fn
from pyrovae.program.densities import FAILURES, Program
from pyrovae.program.particles import AsRows, OneByOne, each
from pyrovae.program.sites import Site, Values
from pyrovae.program.sums import close


class _Last(Messenger):
    """Remembers the sample site that was run last: where a program failed, the one before it.

    Attributes:
        site: The site; `None` where the program has none, or failed before it.
    """

    site: Site | None = None

    def _pyro_post_sample(self, msg: Site) -> None:
        self.site = msg


def choose_particles(program: Program, rows: range) -> Program:
    """Returns the program with its way of running many particles, found by running a few.

    They are tried side by side, then as further rows of data; each is compared with the same draws
    one by one, and selected where log-densities agree to 1e-4. Else particles run one by one.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.

    Returns:
        The program, whose `particles` know why they are not side by side.
    """
    reason = _failure(program, rows)
    if not reason:
        return program
    common = any(program.sites.common(s) for s in program.sites.all)
    if program.selects_rows and program.sites.dim is not None and not common:
        folded = replace(program, particles=AsRows(reason))
        if not _failure(folded, rows):
            return folded
    return replace(program, particles=OneByOne(reason))


def _failure(program: Program, rows: range) -> str:
    """Returns how `program` fails to run for particles at once, or ""; compares the same draws.

    There are 3 particles, or 2 where 3 rows could be selected for them.

    Args:
        program: With the way of running particles that is tried.
        rows: Those that it is tried on.

    Raises:
        RuntimeError, ValueError, TypeError, IndexError: If it fails before its first site.
    """
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
        if not close(ours, singly):
            off = (ours - singly).abs().max().item()
            where = ", ".join(f"{name!r} of shape {tuple(v.shape)}" for name, v in z.items())
            who = "guide" if fn is program.guide else "model"
            return f"broadcasts wrongly: log p of the {who} at {where} is off by {off:.3g} nats"
    return ""


def check_steady(program: Program, rows: range) -> None:
    """Raises ValueError where densities differ from run to run at the same latents.

    A program that draws random numbers outside `pyro.sample` has no density: functional dropout, a
    random mask. In evaluation mode modules do not.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.
    """
    z = program.propose_one(rows)
    for who, fn in _scored(program, rows, z):
        first, again = (program.log_density(fn, z, rows) for _ in range(2))
        if not close(first, again):
            off = (first - again).abs().max().item()
            raise ValueError(
                f"log p of the {who} differs by {off:.3g} nats from run to run at the same "
                "latents: it draws random numbers outside pyro.sample, as functional dropout "
                "does; switch that off (training=self.training), or make it a site"
            )


def check_rows(program: Program, rows: range) -> bool:
    """Returns whether rows can come in other blocks; ValueError if they depend on each other.

    The last row is run alone, and every other row in reverse: where that changes a row's
    densities, or fails, the program may know rows by their place (a parameter for each). It then
    takes all rows at once, and the last row must not notice when the others become copies of it.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.
    """
    if program.plate is None or len(rows) < 2:
        return True
    z = program.propose_one(rows)
    scored = _scored(program, rows, z)
    together = [program.log_density(fn, z, rows) for _, fn in scored]
    last = len(rows) - 1
    if program.selects_rows:
        parts = [last], list(range(last, -1, -2))
        return all(_alike(program, rows, z, scored, together, index) for index in parts)
    copies = torch.full((len(program),), rows[last])
    beside = program.on(tuple(d[copies] for d in program.data))
    z = _selected(program, z, [last] * len(rows), len(rows))
    for (who, fn), log_p in zip(scored, together, strict=True):
        own, other = log_p[last], beside.log_density(fn, z, rows)[last]
        if not close(own, other):
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
    scored: list[tuple[str, Fn]],
    together: list[Tensor],
    index: list[int],
) -> bool:
    """Returns whether these rows have the same densities without the others.

    Args:
        program: Which selects rows.
        rows: Those of the block.
        z: One particle's latents by site, of the whole block.
        scored: Model and guide by name.
        together: Their log-densities `(n,)` of the whole block, nats.
        index: Which of its rows, in an order of their own.
    """
    part = program.select([rows[i] for i in index])
    try:
        z = _selected(program, z, index, len(rows))
        apart = [part.log_density(fn, z, range(len(index))) for _, fn in scored]
    except FAILURES:
        return False
    return all(close(a[index], b) for a, b in zip(together, apart, strict=True))


def _scored(program: Program, rows: range, z: Values) -> list[tuple[str, Fn]]:
    """Returns model and guide by name; no guide whose density is known at its own draws alone.

    A flow without an inverse remembers what it just made, and nothing else.

    Args:
        program: With both.
        rows: Those that it is tried on.
        z: One particle's latents by site.
    """
    if program.guide is None:
        return [("model", program.model)]
    try:
        program.log_density(program.guide, z, rows)
    except (KeyError, NotImplementedError):
        return [("model", program.model)]
    return [("model", program.model), ("guide", program.guide)]


def _selected(program: Program, z: Values, index: list[int], num_data: int) -> Values:
    """Returns the latents of these data, as other rows of a block.

    Args:
        program: Whose sites know the axis of the data, or the names that a loop gives each datum.
        z: One particle's latents by site, `(..., event)`.
        index: Numbers of rows, which may be repeated; the new rows in order.
        num_data: n, rows of the block.

    Returns:
        What is common to all data as it is, the others with `len(index)` rows.
    """
    sites = {s["name"]: s for s in program.sites.all}
    own = {name: value for name, value in z.items() if not program.sites.common(sites[name])}
    selected = {name: value for name, value in z.items() if name not in own}
    if program.sites.dim is None:  # a loop: each datum has names of its own
        names: list[list[str]] = [[] for _ in range(num_data)]
        for name in own:
            names[program.sites.number(sites[name])].append(name)
        for row, i in enumerate(index):
            selected |= {a: z[b] for a, b in zip(names[row], names[i], strict=True)}
        return selected
    for name, value in own.items():
        axis = value.ndim + program.sites.axis(sites[name])
        selected[name] = value.index_select(axis, torch.tensor(index, device=value.device))
    return selected
