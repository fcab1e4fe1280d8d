"""Options that samplers share: how a run is done, and what "auto" aims at."""

__all__ = [
    "ANNEALED_AT_ONCE",
    "NUM_LEAPFROG",
    "AISOptions",
    "AdaptiveOptions",
    "AnnealingOptions",
    "AnnealingRun",
    "Run",
    "RunOptions",
    "SamplingOptions",
    "options_of",
]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TypedDict, TypeVar

from pyrovae.checks import check_sizes
from pyrovae.evidence.samplers.paths import PathProposal

BLOCK_SIZE = 64  # data per block
ANNEALED_AT_ONCE = 1024  # particles x data
NUM_LEAPFROG = 2  # best at equal numbers of gradients
T = TypeVar("T")


class RunOptions(TypedDict, total=False):
    """How a run is done; no estimate's expectation depends on it.

    Attributes:
        plate: Name of the plate over the data; `None` gives joint weights `(S,)` of all data.
        block_size: Data per block.
        chunk_size: Particles x data decoded at once; `None`: what the cores' caches hold.
        compile: Run guide and model as compiled graphs; see `pyrovae.program.Captured`.
    """

    plate: str | None
    block_size: int
    chunk_size: int | None
    compile: bool


class AdaptiveOptions(TypedDict, total=False):
    """What `num_particles="auto"` aims at.

    Attributes:
        tolerance: Standard error aimed at, nats.
        max_particles: Draws per datum at most.
        max_seconds: Time after which the pilot asks for no more draws; `None` for no limit.
    """

    tolerance: float
    max_particles: int
    max_seconds: float | None


class SamplingOptions(AdaptiveOptions, RunOptions):
    """The options of `importance_sampling` that it shares with others."""


@dataclass(frozen=True)
class Run:
    """`RunOptions` with their defaults, checked."""

    plate: str | None = "data"
    block_size: int = BLOCK_SIZE
    chunk_size: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        check_sizes(block_size=self.block_size)
        check_sizes(chunk_size=1 if self.chunk_size is None else self.chunk_size)


class AnnealingOptions(TypedDict, total=False):
    """How annealing is done.

    Attributes:
        num_leapfrog: Leapfrog steps, each a gradient, of a transition.
        plate: Name of the plate over the data; `None` gives joint weights `(S,)` of all data.
        chunk_size: Particles x data annealed at once.
    """

    num_leapfrog: int
    plate: str | None
    chunk_size: int


class AISOptions(AnnealingOptions, total=False):
    """The same, where it may be compiled, and begin elsewhere.

    Attributes:
        compile: Run densities and gradients as a compiled graph.
        proposal: Where paths begin; `None` for the guide, or the prior without one.
    """

    compile: bool
    proposal: PathProposal | Callable[..., object] | None


@dataclass(frozen=True)
class AnnealingRun:
    """`AISOptions` with their defaults, checked."""

    num_leapfrog: int = NUM_LEAPFROG
    plate: str | None = "data"
    chunk_size: int = ANNEALED_AT_ONCE
    compile: bool = False

    def __post_init__(self) -> None:
        check_sizes(num_leapfrog=self.num_leapfrog, chunk_size=self.chunk_size)

    def block_size(self, num_particles: int) -> int:
        """Returns how many data are annealed at once, of so many particles each."""
        return max(1, self.chunk_size // num_particles)


def options_of(cls: type[T], options: Mapping[str, object]) -> T:
    """Returns a dataclass made of those options that are its fields."""
    names = {f.name for f in fields(cls)}  # pyright: ignore[reportArgumentType]
    return cls(**{name: value for name, value in options.items() if name in names})
