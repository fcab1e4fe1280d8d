"""Quadrature over up to three latent dimensions."""

__all__ = ["Quadrature"]

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pyrovae.checks import check_positive, check_sizes
from pyrovae.evidence.estimators.base import Bound, Effort, Estimator
from pyrovae.evidence.estimators.work import Columns, Guide, Inspected, Work
from pyrovae.evidence.samplers.quadrature import (
    MAX_POINTS,
    TOLERANCE,
    check_dimensions,
    integrate,
    quadrature,
)
from pyrovae.program import Program


@dataclass(frozen=True)
class Quadrature(Estimator[tuple[Tensor, Tensor, Tensor]]):
    r"""The integral of p(x, z) over z by an adaptive rule, exact to its stated error, nats.

    .. math::
        \log p(x) = \log \int p(x, z) \, dz

    `(N,)`, with as many errors; see `pyrovae.quadrature`.

    Attributes:
        tolerance: Error that it refines to, nats.
        max_points: Points per datum at most.

    References:
        An adaptive algorithm for numerical integration over an N-dimensional cube (van Dooren and
        de Ridder, 1976), https://doi.org/10.1016/0771-050X(76)90005-X
    """

    tolerance: float = TOLERANCE
    max_points: int = MAX_POINTS

    name: ClassVar[str] = "quadrature"
    label: ClassVar[str] = "quadrature"
    bound: ClassVar[Bound] = "exact"
    rank: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_positive(tolerance=self.tolerance)
        check_sizes(max_points=self.max_points)

    def __call__(
        self,
        model: Callable[..., object],
        guide: Guide,
        *data: Tensor,
        seed: int | None = None,
        plate: str | None = "data",
    ) -> Tensor:
        """Returns log p(x), `(N,)`, nats, as `quadrature`.

        Args:
            model: A Pyro callable of `*data`.
            guide: It only shows where to look; or `None`.
            data: Tensors of equal length N, as the program takes them.
            seed: Not looked at: nothing is drawn by it.
            plate: Name of the plate over the data; `None` for all data as one.
        """
        own = {"tolerance": self.tolerance, "max_points": self.max_points}
        return quadrature(model, *data, guide=guide, **own, plate=plate)

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the model, with the guide if it can be used: it only shows where to look.

        Args:
            guide: That of the evaluation; one that is refused, or warned of, is left out.
            inspected: Makes the program.

        Raises:
            ValueError: If the model has more than three latent dimensions.
        """
        program = None
        if guide is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    program = inspected(guide)
                except (TypeError, ValueError, UserWarning):
                    pass
        program = program or inspected(None)
        check_dimensions(program)
        return program

    def weights(self, program: Program, rows: range, work: Work) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the integrals, `(n,)`, their errors and those of rounding, nats.

        Args:
            program: The model, with or without the guide.
            rows: The n rows of a block.
            work: Not looked at: nothing is drawn.
        """
        return integrate(program, rows, self.tolerance, self.max_points)

    def columns(self, weights: tuple[Tensor, Tensor, Tensor], grid: tuple[int, ...]) -> Columns:
        """Returns the integral and its error, `(n,)`, nats; S is 0.

        Args:
            weights: Integrals, errors and those of rounding.
            grid: Numbers of particles of other estimators' paths; here it is NaN.
        """
        value, error, rounding = weights
        return Columns.of(value, error + rounding, torch.zeros(len(value)).long(), grid)

    def effort(self, program: Program, rows: range, work: Work) -> Effort:
        """Returns the data as units: nobody knows how many points each takes.

        Args:
            program: That of all data.
            rows: Of the block; a probe takes the first few.
            work: What it is computed with.
        """
        return Effort(len(rows), lambda few: (self, rows[:few], work))
