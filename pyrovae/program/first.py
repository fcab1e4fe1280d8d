"""A program's first run: which arguments are data, what it is made of, how it takes its rows."""

__all__ = ["first_run", "on_all_rows"]

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pyro
import torch
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor

from pyrovae.checks import may_be_missing
from pyrovae.data.rows import Rows, fits_memory
from pyrovae.program.arguments import check_data
from pyrovae.program.batching import AllRows, Batching, Data, Slices, Subsamples
from pyrovae.program.binding import Fn, Pair, Places, bound, is_table
from pyrovae.program.data_plate import (
    all_of,
    check_unsized,
    data_plate,
    no_plate,
    no_size,
    places_of,
    traced,
)
from pyrovae.program.densities import Program
from pyrovae.program.parameters import Parameters, unconstrained
from pyrovae.program.particles import Vectorized
from pyrovae.program.sites import (
    Site,
    Sites,
    Values,
    observes_data,
    summable,
    vectorized,
)


def first_run(
    model: Fn,
    guide: Fn | None,
    data: Sequence[object],
    plate: str | None,
    block_size: int = 64,
) -> Program:
    """Returns the program as its first run shows it: on a block if it takes one, else all rows.

    The first `block_size` rows are tried, then all N. Whether rows can be given as a slice is read
    off the data plate: it has as many elements as rows were given, or draws a subsample of all, or
    stands for others, and then an axis of the arguments is looked for that is as long.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another, or `None`.
        data: Its arguments, of which tables with an axis of length N are data.
        plate: Name of the plate over the data; `None` for the joint density of all data.
        block_size: Rows of the first run, at most.

    Returns:
        The program, with particles as if it broadcast over them; `inspect` finds out.

    Raises:
        TypeError: If a site's value is no tensor.
        DataError: If the data are not finite, or of different lengths.
        ValueError: If there is no such plate, it has another size than any axis of the data, or
            more than one axis could count them.
    """
    lengths = {len(d) for d in data if is_table(d)}
    places = tuple((i, 0) for i in range(len(data)))
    if not all(map(is_table, data)) or len(lengths) != 1:
        places = places_of(data, _size(model, data, plate))
    found = _on_rows(model, guide, data, places, plate, block_size)
    if not isinstance(found, Program):
        other = places_of(data, found)
        if any(axis for _, axis in other):
            found = _on_rows(model, guide, data, other, plate, block_size)
    if isinstance(found, Program):
        return found
    raise ValueError(
        f"plate {plate!r} has {found} elements but the data have {max(lengths)} rows; "
        f"write `pyro.plate({plate!r}, len(x))`, with x the program's data argument"
    )


def _of_all(
    sites: tuple[Site, ...], frame: CondIndepStackFrame, theirs: CondIndepStackFrame | None
) -> bool:
    """Returns whether a run was of other rows than it was given.

    That is, a site observes others, or the guide's parameters are of others: plates differ.

    Args:
        sites: The model's.
        frame: The data plate in the model.
        theirs: The data plate in the guide, `None` without one.
    """
    others = any(observes_data(s) and s["value"].shape != s["fn"].shape() for s in sites)
    return others or (theirs is not None and frame.size != theirs.size)


def on_all_rows(program: Program) -> Program:
    """Returns the program as one that is given all its rows, and may subsample them itself.

    That is for programs which take other blocks than the first, and give other numbers: they know
    rows by their place.

    Args:
        program: As its first run has shown it; what of its latents is `masked` stays.
    """
    places = tuple((i, 0) for i in range(len(program.data)))
    fns = program.model, program.guide
    found = _on_rows(*fns, program.data, places, program.plate, len(program))
    assert isinstance(found, Program)
    batching = found.batching
    if not isinstance(batching, Subsamples):
        batching = AllRows(tuple(d[:] for d in program.data), found.block_size)
    return replace(found, batching=batching, masked=program.masked)


def _on_rows(
    model: Fn,
    guide: Fn | None,
    data: Sequence[object],
    places: Places,
    plate: str | None,
    block_size: int,
) -> Program | int:
    """Returns the program of these tables; the data plate's size where it is none of theirs.

    Args:
        model: A Pyro callable.
        guide: Another, or `None`.
        data: All arguments.
        places: Number of each argument that counts the data, and its axis that does; none where
            the program holds its data itself: it is then given the numbers of its rows.
        plate: Name of the data plate; `None` for the joint density.
        block_size: Rows of the first run, at most.

    Raises:
        Exception: What the program raises on all rows; on some, if all need not be tried.
    """
    tables = tuple(_table(data[i], axis) for i, axis in places)
    if not tables:  # the program holds its data itself
        tables = (torch.arange(_size(model, data, plate)),)
    missing = may_be_missing(model)
    check_data(tables, missing=[n for n, (i, _) in enumerate(places) if i in missing])
    fns = bound(model, data, places), bound(guide, data, places)
    num_data = len(tables[0])
    first = min(num_data, block_size) if plate and places else num_data
    _set_up(fns[1], tables)
    found: Program | int = num_data
    for size in sorted({first, num_data}):
        try:
            with Parameters() as parameters:
                sites = _traces(fns, tables, size, parameters)
        except Exception as e:
            if size < num_data and _may_take_all(e, tables):
                continue
            raise
        sliced = size == first and bool(places)
        found = _as_run(fns, tables, plate, sites, parameters.named(), size, sliced)
        if isinstance(found, Program):
            break
    return found


def _table(argument: object, axis: int) -> Tensor | Rows:
    """Returns an argument whose given axis counts the data as a table, `(N, ...)`."""
    if axis == 0:
        return cast(Tensor | Rows, argument)
    return cast(Tensor, argument).movedim(axis, 0)


def _may_take_all(error: Exception, tables: Data) -> bool:
    """Returns whether a program that fails on some rows, perhaps of fixed size, is tried on all.

    It is not where it is mistyped, or memory does not hold them.

    Args:
        error: What it raised.
        tables: All data, `(N, ...)` each.
    """
    held = (isinstance(d, Tensor) or fits_memory(len(d) * d[:1].nbytes) for d in tables)
    return not isinstance(error, NameError | AttributeError | ImportError) and all(held)


def _as_run(
    fns: Pair,
    tables: Data,
    plate: str | None,
    sites: tuple[tuple[Site, ...], tuple[Site, ...]],
    parameters: Values,
    size: int,
    sliced: bool,
) -> Program | int:
    """Returns the program that has run on its first rows; its data plate's size if not of them.

    Args:
        fns: Model and guide.
        tables: All data, `(N, ...)` each.
        plate: Name of the data plate.
        sites: The sample sites of both in that run.
        parameters: What it met, by name.
        size: The number of its rows.
        sliced: Whether other rows can be given to it in their place.
    """
    model_sites, guide_sites = sites
    both = (*model_sites, *guide_sites)
    frame, theirs = data_plate(both, plate), data_plate(guide_sites, plate)
    if plate and frame is None:
        raise no_plate(both, plate)
    if frame and size < len(tables[0]) and _of_all(model_sites, frame, theirs):
        return all_of(frame)
    if frame and _subsamples(frame, size) and all_of(frame) != size:
        return all_of(frame)
    check_unsized(both, plate, size)
    batching = _batching(tables, frame, size, sliced)
    found = Sites(*sites, plate, frame.dim if frame else -1, _num_plates(both))
    return Program(*fns, batching, Vectorized(), found, parameters, _enumerated(*sites))


def _batching(
    tables: Data, frame: CondIndepStackFrame | None, size: int, sliced: bool
) -> Batching:
    """Returns how blocks of these tables reach a program that has run on their first rows.

    Args:
        tables: All data, `(N, ...)` each.
        frame: The data plate in that run, `None` without one.
        size: The number of its rows.
        sliced: Whether other rows can be given to the program in their place.
    """
    if frame and sliced and not _subsamples(frame, size):
        return Slices(tables, size)
    held = tuple(d[:] for d in tables)  # not on disk
    if frame and _subsamples(frame, size):
        return Subsamples(held, frame.size, frame.name)
    return AllRows(held, size)


def _subsamples(frame: CondIndepStackFrame, size: int) -> bool:
    """Returns whether a plate took other rows than the `size` that its program was given."""
    return frame.size not in (size, -1)


def _num_plates(sites: tuple[Site, ...]) -> int:
    """Returns the number of plate dimensions: how far left the leftmost of them stands."""
    return -min((f.dim or 0 for s in sites for f in vectorized(s)), default=0)


def _enumerated(model_sites: tuple[Site, ...], guide_sites: tuple[Site, ...]) -> tuple[str, ...]:
    """Returns the discrete latents that the guide leaves out, to be summed out.

    Args:
        model_sites: The model's sites.
        guide_sites: The guide's.
    """
    given = {s["name"] for s in guide_sites}
    return tuple(s["name"] for s in model_sites if summable(s) and s["name"] not in given)


def _traces(
    fns: Pair, tables: Data, size: int, parameters: Parameters
) -> tuple[tuple[Site, ...], tuple[Site, ...]]:
    """Returns the sample sites of model and guide on the first rows.

    What `pyro.param` makes in a run of some rows could be of their number: it is made of all.

    Args:
        fns: Model and guide.
        tables: All data, `(N, ...)` each.
        size: How many of their rows are given.
        parameters: Under which both run; forgets what is made anew.
    """
    store = pyro.get_param_store()
    before = set(store.keys())
    sites = tuple(traced(fn, *(d[:size] for d in tables)) if fn else () for fn in fns)
    made = [
        k
        for k in store.keys() - before
        if not isinstance(unconstrained(store[k]), torch.nn.Parameter)
    ]
    if made and size < len(tables[0]):
        for name in made:
            del store[name]
        parameters.forget(made)
        for fn in filter(None, fns):
            traced(fn, *(d[:] for d in tables))
        sites = tuple(traced(fn, *(d[:size] for d in tables)) if fn else () for fn in fns)
    return sites[0], sites[1]


def _set_up(guide: Fn | None, tables: Data) -> None:
    """Shows all rows to a guide of Pyro's that makes its parameters at its first call.

    On a block, those of each datum would be made for the block alone.

    Args:
        guide: A callable, a method of one, or one `bound` to arguments.
        tables: All data, `(N, ...)` each.
    """
    fn = getattr(guide, "fn", guide)
    fn = getattr(fn, "__self__", fn)
    if guide is not None and getattr(fn, "prototype_trace", fn) is None:
        guide(*(d[:] for d in tables))


def _size(model: Fn, data: Sequence[object], plate: str | None) -> int:
    """Returns the number of data, N, as the data plate has it in a run on all that is given.

    Args:
        model: A Pyro callable.
        data: All arguments.
        plate: Name of the data plate; with `None`, N is the length of the first table.

    Raises:
        DataError: If the run fails, and lengths differ.
        ValueError: If there is no such plate, or nothing tells its size.
    """
    tables = [d for d in data if is_table(d)]
    try:
        sites = traced(model, *(d[:] if is_table(d) else d for d in data))
    except Exception:
        if len({len(d) for d in tables}) > 1:
            check_data(tables)
        if not tables:
            check_data(data)
        raise
    if plate is None:
        return len(tables[0]) if tables else 1
    frame = data_plate(sites, plate)
    if frame is None:
        raise no_plate(sites, plate)
    if all_of(frame) < 0 and not tables:
        raise no_size(plate, "and the program is given no data that tell it")
    return all_of(frame) if all_of(frame) >= 0 else len(tables[0])
