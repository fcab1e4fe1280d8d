"""What a program would get wrong and only running it shows: it is tried on its first rows."""

__all__ = ["check_own_values", "check_rows", "check_steady", "choose_particles"]

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta, MaskedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.program.binding import Fn
from pyrovae.program.densities import FAILURES, Program
from pyrovae.program.particles import AsRows, OneByOne, each
from pyrovae.program.sites import Site, Values, base, observes_data
from pyrovae.program.sums import TOLERANCE, close

COLUMNS = 8  # of an array of data, which are replaced one by one


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


def check_own_values(program: Program, rows: range) -> None:
    r"""Raises ValueError where a site's distribution is made of the very values that it scores.

    An autoencoder's :math:`\prod_j p(x_j | f_j(x))` is no density of x. It is one where columns
    have an order in which each depends on those before it alone. So a column of the data is
    replaced by other rows' values: the observed numbers that move with it have to keep the
    log-density that they had, at the same latents; what it does to others is free. Numbers made of
    several columns, as steps from one to the next are, need one such column.

    Tried are all of an array, and where that is not enough up to 8 of its columns. Distributions
    of whole vectors are not, and columns that read each other in a circle are not found.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.
    """
    if not any(_of_numbers(s) for s in program.sites.model):
        return
    tried = list(_with_other_rows(program, rows))
    kept: Values = {}
    for name, move in (item for moves in tried for item in moves.items()):
        kept[name] = kept.get(name, move.kept) | move.kept
    for moves in filter(_are_bad, tried):
        for name, move in moves.items():
            off = move.off.where(~kept[name], 0.0).max().item()
            if off > 0:
                raise ValueError(
                    f"the distribution of site {name!r} is made of the very values that it "
                    f"scores, as an autoencoder's is, and is no density of them (their log p "
                    f"differs by {off:.3g} nats at the same latents where other rows' values "
                    "are given to the program); make it of latents, covariates and earlier "
                    "columns alone"
                )


class _Move(NamedTuple):
    """What became of an observed value's numbers as data were replaced, in all rows together.

    Attributes:
        moved: Which of them are other numbers now.
        off: How far their former log-density is from what it was there, nats; else 0.
    """

    moved: Tensor
    off: Tensor

    @property
    def kept(self) -> Tensor:
        """Which of them moved, and nowhere their log-density."""
        return self.moved & (self.off == 0)

    def but(self, other: "_Move") -> "_Move":
        """Returns the same without what is off of those that another keeps."""
        return _Move(self.moved, self.off.where(~other.kept, 0.0))


def _are_bad(moves: dict[str, _Move]) -> bool:
    """Returns whether numbers moved, and with their log-density all: none is the column's own."""
    some = any(move.off.any() for move in moves.values())
    return some and not any(move.kept.any() for move in moves.values())


def _with_other_rows(program: Program, rows: range) -> Iterator[dict[str, _Move]]:
    """Yields what moves, by site: as an array has other rows' values, or else a column of it.

    Nothing moves where the program does not take such values.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.
    """
    held = program.holding(rows)
    own = {s["name"] for s in program.sites.model if not isinstance(base(s["fn"]), Delta)}
    z = {name: v for name, v in program.propose_one(rows).items() if name in own}
    former = _observed(held, z, rows)

    def moves(i: int, array: Tensor) -> dict[str, _Move]:
        data = *held.tensors[:i], array, *held.tensors[i + 1 :]
        try:
            return _moves(held.on(data), z, rows, former)
        except Exception:  # the program's own: such data need not make sense to it
            return {}

    singly = program.plate is None or program.sites.dim is None
    for i, old in enumerate(held.tensors):
        new, first = old.clone(), old[: len(rows)]
        others = program.data[i][_others(len(rows), len(program)).to(old.device)]
        gaps = first.isnan() | others.isnan()  # which stay, and may have a site of their own
        new[: len(rows)] = first.where(gaps, others)
        found = moves(i, new)
        if not any(move.off.any() for move in found.values()):
            yield found
            continue
        for column, *parts in _with_a_column_of_other_rows(old, new, singly):
            found = moves(i, column)
            if _are_bad(found):
                for excuses in (moves(i, part) for part in parts):
                    found |= {n: m.but(excuses[n]) for n, m in found.items() if n in excuses}
            yield found


def _moves(program: Program, z: Values, rows: range, former: dict[str, Site]) -> dict[str, _Move]:
    """Returns what moves, by site.

    Args:
        program: On other data.
        z: One particle's latents by site.
        rows: Those of the block.
        former: Its sites on the data as they are, of `_observed`.
    """
    sites = _observed(program, z, rows)
    return {
        name: _over_rows(program, site, _move(site, sites[name]))
        for name, site in former.items()
        if name in sites and site["value"].shape == sites[name]["value"].shape
    }


def _over_rows(program: Program, site: Site, move: _Move) -> _Move:
    """Returns a move of all rows together; each row's alone where the data plate is a loop.

    Args:
        program: Whose sites know the axis of the data.
        site: Of that move.
        move: In the shape of the site's value.
    """
    if program.plate is None or program.sites.dim is None:
        return move
    axis = program.sites.axis(site)
    if move.moved.ndim < -axis:
        return move
    return _Move(move.moved.any(axis), move.off.amax(axis))


def _move(a: Site, b: Site) -> _Move:
    """Returns what became of a value's numbers, in its shape.

    Args:
        a: An observed site.
        b: The same, of other data.
    """
    value = a["value"]
    with pyro.validation_enabled(False):
        log_p, log_q = (base(s["fn"]).log_prob(value) for s in (a, b))
    moved = (value != b["value"]) & _counts(a) & _counts(b)
    same = torch.isclose(log_q, log_p, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    off = (log_q - log_p).abs().nan_to_num(torch.inf).where(moved & ~same, 0.0)
    moved = moved.expand_as(off)
    if off.ndim == value.ndim:
        return _Move(moved, off)
    lead = off.ndim - value.ndim - 1  # dimensions of what is summed out
    return _Move(moved.flatten(0, lead).any(0), off.flatten(0, lead).amax(0))


def _observed(program: Program, z: Values, rows: range) -> dict[str, Site]:
    """Returns the sites by name that observe data, of distributions of single numbers.

    Args:
        program: On some data.
        z: One particle's latents by site.
        rows: Those of the block.
    """
    with pyro.validation_enabled(False):  # other rows' values need not fit together
        sites = program.run(poutine.condition(program.summed, data=z), rows)
    return {s["name"]: s for s in sites if _of_numbers(s)}


def _of_numbers(site: Site) -> bool:
    """Returns whether a site observes data, each number with a distribution of its own."""
    return observes_data(site) and not base(site["fn"]).event_shape


def _counts(site: Site) -> Tensor:
    """Returns which of a value's numbers no mask leaves out, in a shape that broadcasts."""
    fn, mask, counts = site["fn"], site["mask"], torch.tensor(True)
    while True:
        if mask is not None:
            mask = torch.as_tensor(mask)
            counts = counts.to(mask.device) & mask.reshape(*mask.shape, *[1] * len(fn.event_shape))
        if fn is base(fn):
            return counts
        mask = fn._mask if isinstance(fn, MaskedDistribution) else None
        fn = getattr(fn, "base_dist")  # noqa: B009


def _others(num_rows: int, num_data: int) -> Tensor:
    """Returns the number of another row for each of the first rows, one of them if there are more.

    Args:
        num_rows: How many they are.
        num_data: How many there are in all.
    """
    among = num_rows if num_rows > 1 else min(num_data, 1024)
    order = torch.randperm(among, generator=torch.Generator().manual_seed(0))
    return order.roll(1)[order.argsort()][:num_rows]


def _with_a_column_of_other_rows(
    old: Tensor, new: Tensor, singly: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields an array with one of its columns from another, and with all before it, and after it.

    That is done of up to 8 columns, far from each other.

    Args:
        old: `(n, ...)`.
        new: Likewise; columns in which it differs are taken.
        singly: Whether a single row is replaced: others may depend on it.
    """
    differ = (old != new)[..., None].flatten(1)  # (n, D)
    columns = differ.any(0).nonzero()[:, 0].tolist()
    some = torch.linspace(0, len(columns) - 1, min(COLUMNS, len(columns))).round().int().tolist()
    places = torch.arange(differ.shape[1], device=old.device)
    for column in (columns[k] for k in some):
        rows = torch.zeros_like(differ)
        rows[differ[:, column].nonzero()[-1 if singly else 0 :, 0]] = True
        taken = [rows & at for at in (places == column, places < column, places > column)]
        one, before, after = (t.reshape(old.shape) for t in taken)
        yield new.where(one, old), new.where(before, old), new.where(after, old)


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
