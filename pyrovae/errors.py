"""Errors that users are told of in one sentence."""

__all__ = ["DataError", "Diverged", "GuideError", "NoDensity", "ProgramError", "StateError"]

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class DataError(ValueError):
    """Data that is missing, or that is not what it should be."""


class StateError(ValueError):
    """State that is missing, truncated, altered, or not that of the program at hand."""


class ProgramError(ValueError):
    """A user's program that cannot be had, or fails; the message says where."""


class GuideError(ValueError):
    """A guide that lacks a latent of the model which cannot be summed out."""


class NoDensity(ValueError):
    """A program that observes no data, but has factors: it has no log P(X).

    Attributes:
        factors: Their names.
    """

    def __init__(self, factors: tuple[str, ...]) -> None:
        names = ", ".join(map(repr, factors))
        super().__init__(
            "there is no log P(X): the model observes no data (no site has obs=x) and has "
            f"{'the factor' if len(factors) == 1 else 'factors'} {names} alone, which need not "
            "integrate to 1 over x; an autoencoder's log P(x | decoder(encoder(x))) does not, "
            "with x on both sides; let x be observed at a site, given latents, as pv.VAE does"
        )
        self.factors = factors


class Diverged(ArithmeticError):
    """Training met a loss, gradient or validation ELBO that is not finite.

    The parameters are as before the step that met it; as the last step left them where validation
    did.

    Attributes:
        step: The step, counted from 0 over all epochs; `None` in validation.
        epoch: The epoch, counted from 1; `None` of all of them.
        rows: The rows of the batch, `(n,)`, likewise.
        parameter: Name of the parameter with the worst gradient, likewise.
    """

    def __init__(
        self,
        what: str,
        step: int | None = None,
        epoch: int | None = None,
        rows: "Tensor | None" = None,
        parameter: str = "",
    ) -> None:
        advice = "lower lr, or set clip_norm"
        if rows is not None:
            what += (
                f" at step {step} (epoch {epoch}, batch of {len(rows)} rows starting "
                f"{rows[:5].tolist()}); worst gradient: {parameter}; "
                "the parameters stand as before that step"
            )
            advice = "lower lr, set clip_norm, or look at these rows"
        super().__init__(f"{what}; {advice}")
        self.step, self.epoch, self.rows, self.parameter = step, epoch, rows, parameter
