"""Quadrature over up to three latent dimensions."""

__all__ = ["Quadrature"]

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyrovae.evidence.estimators.base import (
    Columns,
    Estimator,
    Guide,
    Inspected,
    Results,
    Work,
    no_path,
)
from pyrovae.evidence.samplers.quadrature import (
    MAX_POINTS,
    TOLERANCE,
    check_dimensions,
    integrate,
    quadrature,
)
from pyrovae.program import Program

EXACT = 1e-3  # nats that it may be off


@dataclass(frozen=True)
class Quadrature(Estimator):
    """The integral of p(x, z) over z by an adaptive rule, exact to its stated error.

    See `pyrovae.quadrature`.

    Attributes:
        tolerance: Error that it refines to, nats.
        max_points: Points per datum at most.
    """

    tolerance: float = TOLERANCE
    max_points: int = MAX_POINTS

    name: ClassVar[str] = "quadrature"
    label: ClassVar[str] = "quadrature"
    rank: ClassVar[int | None] = 0
    exact: ClassVar[bool] = True
    confirmed: ClassVar[bool] = False
    weighed: ClassVar[bool] = False

    def alone(self, model: Callable[..., Any], guide: Guide, *data: Tensor, **how: Any) -> Tensor:
        """Returns log p(x), `(N,)`, as `quadrature`; nothing is drawn by a seed."""
        options: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return quadrature(model, *data, guide=guide, **options, plate=how["plate"])

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the model, with the guide if it can be used: it only shows where to look."""
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

    def weights(self, program: Program, rows: range, work: Work) -> Any:
        """Returns the integrals, `(n,)`, their errors and those of rounding."""
        return integrate(program, rows, self.tolerance, self.max_points)

    def columns(self, weights: Any, grid: tuple[int, ...]) -> Columns:
        """Returns the integral and its error; nothing is drawn."""
        value, error, rounding = weights
        none = torch.full_like(value, torch.nan)
        draws = torch.zeros(len(value)).long()
        return value, error + rounding, none, none, draws, *no_path(value, grid)

    @classmethod
    def verdict(cls, e: Results) -> list[str]:
        """Returns "ok" within 1e-3 nats."""
        return ["ok" if error <= EXACT else cls.worse for error in e.std_error.tolist()]

    @classmethod
    def how(cls, e: Results, protocol: Mapping[str, Any]) -> str:
        """Returns nothing: no draws were made."""
        return ""

    def amount(self, rows: range) -> int:
        """Returns the number of data."""
        return len(rows)

    def smaller(self, amount: int, rows: range, work: Work) -> tuple[Estimator, range, Work]:
        """Returns it for fewer data."""
        return self, rows[:amount], work
