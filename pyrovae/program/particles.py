"""Ways of running a program for S particles: in a plate, as further rows, or one at a time."""

__all__ = [
    "SHARED_ROWS",
    "AsRows",
    "Foldable",
    "OneByOne",
    "Particles",
    "SharedDraws",
    "Vectorized",
    "Computed",
    "each",
]

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor

from pyrovae.program.sites import Sites, Values

SHARED_ROWS = 4096  # rows of a block that shares its draws


class Computed(NamedTuple):
    """What is computed for S particles from, and to.

    Attributes:
        z: Latents by site, `(S, ..., event)`; of one particle, `(..., event)`.
        tables: Tables by particle and datum, `(S, n, ...)`; of one particle, `(n, ...)`.
    """

    z: Values
    tables: tuple[Tensor, ...]


NO_INPUT = Computed({}, ())


class Foldable(Protocol):
    """A program whose block can be repeated."""

    @property
    def sites(self) -> Sites:
        """Its sites, which know the axis of the data in their values."""
        ...

    def folded(self, rows: range, num_particles: int) -> Self:
        """Returns it on S copies of some rows, `(S n, ...)`, one after another.

        Args:
            rows: The n rows, by number.
            num_particles: S.
        """
        ...


P = TypeVar("P", bound=Foldable)
# of a program, the rows of a block, S (`None`: one particle, without its dimension), and inputs
Compute = Callable[[P, range, int | None, Computed], Computed]


@dataclass(frozen=True)
class Particles:
    """How a program runs for S particles.

    Attributes:
        reason: Why it does not broadcast over particles, in words; "" where it does.
        parallel: Whether a single run makes all particles.
        vectorized: Whether they are a dimension of their own, to the left of all plates.
        shared: Whether one row's draws of the prior serve all rows.
    """

    reason: str = ""
    parallel: ClassVar[bool] = True
    vectorized: ClassVar[bool] = False
    shared: ClassVar[bool] = False

    def rows_of_block(self, size: int) -> int:
        """Returns how many rows a block has at best where `size` are wished for.

        Args:
            size: As users or estimators ask for it.
        """
        return size

    def run(
        self,
        compute: Compute[P],
        program: P,
        rows: range,
        num_particles: int,
        inputs: Computed = NO_INPUT,
    ) -> Computed:
        """Returns what `compute` gives for S particles.

        Args:
            compute: Computes it for a program, rows, S or `None`, and what it starts from.
            program: Of whose rows.
            rows: The n rows of a block, by number.
            num_particles: S.
            inputs: What it starts from, of S particles.
        """
        return self._run(compute, program, rows, num_particles, inputs)

    def _run(
        self, compute: Compute[P], program: P, rows: range, size: int, inputs: Computed
    ) -> Computed:
        raise NotImplementedError


class Vectorized(Particles):
    """All in one run, in a plate of S to the left of the program's own."""

    vectorized = True

    def _run(
        self, compute: Compute[P], program: P, rows: range, size: int, inputs: Computed
    ) -> Computed:
        """Returns what `compute` gives for S."""
        return compute(program, rows, size, inputs)


class SharedDraws(Vectorized):
    """As `Vectorized`, of a program whose latents do not depend on the data: drawn for one row.

    See `sharing`. A block then costs little more than a row, and takes many.
    """

    shared = True

    def rows_of_block(self, size: int) -> int:
        """Returns `size`, or `SHARED_ROWS` where that is more."""
        return max(size, SHARED_ROWS)


class AsRows(Particles):
    """All in one run, of S copies of the rows: for programs that take no dimension to the left.

    Latents `(S, ..., n, ...)` become those of S n rows, `(..., S n, ...)`, particle by particle; a
    program for which rows are independent does not notice.
    """

    def _run(
        self, compute: Compute[P], program: P, rows: range, size: int, inputs: Computed
    ) -> Computed:
        """Returns what `compute` gives for S n rows, by particle."""
        axes, lead = program.sites.axes, (size, -1)
        z = {name: _folded(value, axes[name]) for name, value in inputs.z.items()}
        given = Computed(z, tuple(t.flatten(0, 1) for t in inputs.tables))
        many = program.folded(rows, size)
        made = compute(many, range(size * len(rows)), None, given)
        z = {name: _unfolded(v, axes[name], size) for name, v in made.z.items()}
        return Computed(z, tuple(t.unflatten(0, lead) for t in made.tables))


class OneByOne(Particles):
    """S runs, one after another: for programs that take neither. Python's time is paid S times."""

    parallel = False

    def _run(
        self, compute: Compute[P], program: P, rows: range, size: int, inputs: Computed
    ) -> Computed:
        """Returns what `compute` gives for each particle, side by side."""
        runs = []
        for s in range(size):
            z = {name: value[s] for name, value in inputs.z.items()}
            given = Computed(z, tuple(table[s] for table in inputs.tables))
            runs.append(compute(program, rows, None, given))
        z = {name: torch.stack([run.z[name] for run in runs]) for name in runs[0].z}
        tables = zip(*(run.tables for run in runs), strict=True)
        return Computed(z, tuple(torch.stack(column) for column in tables))


def each(z: Values, num_particles: int) -> list[Values]:
    """Returns latents z by site, each `(S, ...)`, as S dictionaries of one particle.

    Args:
        z: Latents by site, `(S, ..., event)`.
        num_particles: S.
    """
    return [{name: value[s] for name, value in z.items()} for s in range(num_particles)]


def _folded(value: Tensor, axis: int) -> Tensor:
    """Returns a site's value `(S, ..., n, ...)` as of S n rows, `(..., S n, ...)`."""
    axis += value.ndim - 1
    return value.movedim(0, axis).flatten(axis, axis + 1)


def _unfolded(value: Tensor, axis: int, num_particles: int) -> Tensor:
    """Returns a site's value on S n rows, `(..., S n, ...)`, by particle, `(S, ..., n, ...)`."""
    axis += value.ndim
    return value.unflatten(axis, (num_particles, -1)).movedim(axis, 0)
