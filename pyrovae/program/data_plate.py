"""The data plate of a program: which of its plates it is, and what it counts."""

__all__ = ["all_of", "check_unsized", "data_plate", "no_plate", "no_size", "places_of", "traced"]

from collections.abc import Sequence

from pyro import poutine
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor

from pyrovae.program.binding import Fn, Places, is_table
from pyrovae.program.sites import (
    Site,
    sample_sites,
)


def places_of(data: Sequence[object], size: int) -> Places:
    """Returns number and axis of each argument that counts the data along one of its axes.

    Args:
        data: All arguments.
        size: N; an axis of that length counts the data, the first axis before others.

    Raises:
        ValueError: If more than one axis but the first has that length.
    """
    places = []
    for i, d in enumerate(data):
        if not is_table(d):
            continue
        axes = [a for a, n in enumerate(d.shape) if n == size]
        if axes and axes[0] and len(axes) > 1:
            raise ValueError(
                f"data[{i}] has shape {tuple(d.shape)} and the data plate {size} elements: more "
                "than one axis could count them; put that one first"
            )
        places += [(i, axes[0])] if axes else []
    return tuple(places)


def check_unsized(sites: tuple[Site, ...], plate: str | None, size: int) -> None:
    """Raises ValueError where a latent in a data plate without a size is one for all rows.

    Such a plate (`pyro.plate("data")`) lets a single value pass for each datum's own.

    Args:
        sites: Of both, the guide's last: what it draws counts.
        plate: Name of the data plate.
        size: The rows that the run was given.
    """
    drawn = {s["name"]: s for s in sites if not s["is_observed"]}  # as the guide draws it
    for s in drawn.values():
        frame, shape = data_plate((s,), plate), s["fn"].batch_shape
        if frame is None or frame.dim is None or frame.size >= 0:
            continue
        if len(shape) < -frame.dim or shape[frame.dim] != size:
            raise no_size(plate, f"and site {s['name']!r} in it is one value for all {size} rows")


def no_size(plate: str | None, why: str) -> ValueError:
    """Returns the error for a data plate whose size is not known.

    Args:
        plate: Its name.
        why: Why that matters.
    """
    return ValueError(
        f"plate {plate!r} has no size, {why}; write `pyro.plate({plate!r}, len(x))`, with x the "
        "data"
    )


def data_plate(sites: tuple[Site, ...], plate: str | None) -> CondIndepStackFrame | None:
    """Returns the frame of the data plate, `None` without one.

    Args:
        sites: Of a run.
        plate: Its name; of `None` there is none.
    """
    frames = (f for s in sites for f in s["cond_indep_stack"] if f.name == plate)
    return next(frames, None)


def all_of(frame: CondIndepStackFrame) -> int:
    """Returns how many elements a plate stands for; -1 where it has no size."""
    return -1 if frame.full_size is None else frame.full_size


def no_plate(sites: tuple[Site, ...], plate: str) -> ValueError:
    """Returns the error for a program without a data plate, with those that it has.

    Args:
        sites: Of a run.
        plate: The name that no plate has.
    """
    names = sorted({repr(f.name) for s in sites for f in s["cond_indep_stack"]})
    return ValueError(
        f"the program has no plate {plate!r}, only {', '.join(names) or 'none at all'}; "
        "name the plate over the data with plate=..., or pass plate=None for latents that "
        "all data share"
    )


def traced(fn: Fn, *data: object) -> tuple[Site, ...]:
    """Returns a run's sample sites.

    Args:
        fn: A Pyro callable.
        data: Its arguments.

    Raises:
        TypeError: If a site's value is no tensor, as of a distribution of Python numbers.
    """
    sites = tuple(sample_sites(poutine.trace(fn).get_trace(*data)))
    for s in sites:
        if not isinstance(s["value"], Tensor):
            raise TypeError(
                f"site {s['name']!r} has a value of type {type(s['value']).__name__}; give tensors"
            )
    return sites
