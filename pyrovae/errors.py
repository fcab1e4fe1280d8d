"""Errors that users are told of in one sentence."""

__all__ = ["DataError", "Diverged", "ProgramError", "StateError"]

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class DataError(ValueError):
    """Data that is missing, or that is not what it should be."""


class StateError(ValueError):
    """State that is missing, truncated, altered, or not that of the program at hand."""


class ProgramError(ValueError):
    """A user's program that cannot be had, or fails; the message says where."""


class Diverged(ArithmeticError):
    """Training met a loss or gradient that is not finite; the parameters are as before that step.

    Attributes:
        step: The step, counted from 0 over all epochs.
        epoch: The epoch, counted from 1.
        rows: The rows of the batch, `(n,)`.
        parameter: Name of the parameter with the worst gradient.
    """

    def __init__(self, what: str, step: int, epoch: int, rows: "Tensor", parameter: str) -> None:
        super().__init__(
            f"{what} at step {step} (epoch {epoch}, batch of {len(rows)} rows starting "
            f"{rows[:5].tolist()}); worst gradient: {parameter}; "
            "the parameters stand as before that step; lower lr, set clip_norm, or look at "
            "these rows"
        )
        self.step, self.epoch, self.rows, self.parameter = step, epoch, rows, parameter
