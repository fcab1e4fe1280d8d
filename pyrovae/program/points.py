"""Latents that are common to all data: which they are, and which of them are points."""

__all__ = ["check_common", "condition_on_points"]

from contextlib import suppress
from dataclasses import replace

import torch
from pyro import poutine
from pyro.distributions import Delta

from pyrovae.program.densities import FAILURES, Program
from pyrovae.program.sites import Values, base
from pyrovae.program.sums import close


def check_common(program: Program, rows: range) -> None:
    """Raises ValueError where a latent outside the data plate has a value for each row after all.

    Taken for common to all data, its density would be left out of the weights. Its shape tells: it
    changes with the number of rows, or has an axis of length N where they come together.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.
    """
    common = {s["name"]: s for s in program.sites.model if s["name"] in program.sites.latents}
    common = {name: s["value"].shape for name, s in common.items() if program.sites.common(s)}
    if not common or len(program) == 1:
        return
    shapes = None
    if program.selects_rows and len(rows) > 1:
        with suppress(*FAILURES):
            alone = program.select([rows[-1]])
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


def condition_on_points(program: Program, rows: range) -> Program:
    r"""Returns the program with latents that are common to all data and points in the guide fixed.

    Such a point (a Delta, as of AutoDelta) is a parameter: log p(x) is that of the model with it,
    :math:`\log p(x | \theta)` at the guide's :math:`\theta`, and no evidence of the model that has
    a prior over it.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.

    Returns:
        The program without the sites of those points; itself where there are none, or joint data.

    Raises:
        ValueError: If the point is made of the rows it is given, and so is not one for all data.
    """
    if program.guide is None or program.plate is None:
        return program
    points, again = (_points(program, rows) for _ in range(2))
    points = {n: v for n, v in points.items() if torch.equal(v, again[n])}
    if not points:
        return program
    if program.selects_rows and len(rows) > 1:
        try:
            alone = _points(program.select([rows[-1]]), range(1))
        except FAILURES:  # it takes no such number of rows
            alone = points
        for name in (n for n in points if not close(points[n], alone[n])):
            raise ValueError(
                f"the guide makes the point {name!r}, common to all data, of the rows that it is "
                "given; make it a parameter, or pass plate=None"
            )
    return replace(
        program,
        model=poutine.condition(program.model, data=points),
        guide=poutine.block(program.guide, hide=list(points)),
        sites=program.sites.without(set(points)),
    )


def _points(program: Program, rows: range) -> Values:
    """Returns what the guide says of latents common to all data that are points in it.

    Args:
        program: With a guide.
        rows: On which it is run.
    """
    assert program.guide is not None
    sites = (s for s in program.run(program.guide, rows) if not s["is_observed"])
    common = (s for s in sites if program.sites.common(s) and s["name"] in program.sites.latents)
    return {s["name"]: s["value"] for s in common if isinstance(base(s["fn"]), Delta)}
