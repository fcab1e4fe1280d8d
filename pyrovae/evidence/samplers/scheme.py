"""How particles are drawn: how many, from which proposal, at random or quasi-random."""

__all__ = ["RANDOMIZATIONS", "Proposal", "Sampler", "Scheme", "check_proposal"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from pyrovae.checks import check_positive, check_seconds, check_sizes, shown
from pyrovae.program import Program, Values

Sampler = Callable[[int], tuple[Values, Tensor]]
RANDOMIZATIONS = 16  # of quasi-random draws


@runtime_checkable
class Proposal(Protocol):
    """What `importance_sampling(proposal=...)` takes, beside any Pyro guide."""

    def sampler(self, program: Program, rows: range) -> Sampler:
        """Returns a function of S that draws z ~ r(z|x) for a block of rows.

        Called once for a block, under a random stream of the block's own; what it learns there may
        shape r, as later draws do not depend on it.

        Args:
            program: The pair and its data.
            rows: The n rows of the block.

        Returns:
            Takes S to z by site, `(S, ..., event)`, and log r(z|x), `(S, n)`, nats.
        """
        ...


@dataclass(frozen=True)
class Scheme:
    """How particles are drawn: how many, from which proposal, at random or quasi-random.

    Attributes:
        num_particles: S, particles per datum; or "auto", see `importance_sampling`.
        proposal: Made of the guide; `None` draws from the guide itself, or the prior without one.
        qmc: Draw scrambled Sobol points.
        tolerance, max_particles, max_seconds: What "auto" aims at, see `AdaptiveOptions`.

    Raises:
        ValueError: If a number is none, or quasi-random draws do not go with the rest.
    """

    num_particles: int | str
    proposal: Proposal | None = None
    qmc: bool = False
    tolerance: float = 0.01
    max_particles: int = 100_000
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.num_particles != "auto":
            check_sizes(num_particles=self.num_particles)
        check_sizes(max_particles=self.max_particles)
        check_positive(tolerance=self.tolerance)
        check_seconds(self.max_seconds)
        if not self.qmc:
            return
        if self.num_particles == "auto" or int(self.num_particles) % RANDOMIZATIONS:
            raise ValueError(
                f"num_particles is {self.num_particles!r}; quasi-random draws come in "
                f"{RANDOMIZATIONS} randomizations, so give a multiple of it"
            )
        if self.proposal is not None and not getattr(self.proposal, "takes_quasi_random", False):
            raise ValueError(
                f"{type(self.proposal).__name__} has no quasi-random draws; take qmc=False"
            )


def check_proposal(proposal: object) -> None:
    """Raises TypeError unless it is `None`, a `Proposal` or a Pyro callable to draw from."""
    fits = proposal is None or callable(proposal) or isinstance(proposal, Proposal)
    if isinstance(proposal, type) or not fits:
        raise TypeError(
            f"proposal is {shown(proposal)}; give a pv.Laplace(), pv.Widened(), pv.Refined() or "
            "pv.Defensive(), or a Pyro guide"
        )
