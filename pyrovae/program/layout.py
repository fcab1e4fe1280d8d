"""Values of a site in the order that users and tools take: draws, data, plates, event."""

__all__ = ["by_datum", "taken"]

from torch import Tensor

from pyrovae.program.densities import Program
from pyrovae.program.sites import Site


def by_datum(
    program: Program, site: Site, value: Tensor, rows: range
) -> tuple[tuple[str, ...], Tensor]:
    """Returns a site's values with the data second, then plates by name, then the event.

    Axes that no plate has, which Pyro leaves at length 1 between those that it uses, are dropped.

    Args:
        program: Which knows the axis of the data.
        site: Of the model, with its plates.
        value: Draws, `(L, ..., event)`.
        rows: Of the data, n of them.

    Returns:
        Names of the plates from left to right, and the values, `(L, n, plates, event)`.
    """
    event_dim = site["fn"].event_dim
    plates = {(f.dim or 0) - event_dim: f.name for f in site["cond_indep_stack"] if f.vectorized}
    data = program.sites.axis(site)
    others = [axis for axis in sorted(plates) if axis != data]
    event = list(range(-event_dim, 0))
    pads = [a for a in range(1 - value.ndim, -event_dim) if a not in plates]
    value = value.permute(0, data, *others, *event, *pads)
    value = value.reshape(value.shape[: 2 + len(others) + event_dim])[:, : len(rows)]
    return tuple(plates[axis] for axis in others), value


def taken(program: Program, site: Site, value: Tensor, chosen: Tensor) -> Tensor:
    """Returns the draws of a site's value that were chosen for each datum, `(L, ..., event)`.

    Args:
        program: Which knows the axis of the data.
        site: Of the model.
        value: Its S draws, `(S, ..., event)`.
        chosen: Numbers of particles for each datum, `(L, n)`.
    """
    index = program.align(chosen.to(value.device), site, value)
    return value.gather(0, index.expand(-1, *value.shape[1:]))
