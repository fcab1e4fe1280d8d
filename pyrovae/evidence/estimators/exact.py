"""What needs no draw: log p(x) of a program whose latents are all summed out."""

__all__ = ["Exact"]

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pyrovae.evidence.estimators.base import (
    Columns,
    Estimator,
    Guide,
    Inspected,
    Results,
    Work,
    no_path,
    table,
)
from pyrovae.evidence.samplers.importance import ImportanceSampler
from pyrovae.evidence.samplers.proposals import Scheme
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import Program


@dataclass(frozen=True)
class Exact(Estimator):
    r"""The sum of p(x, k) over all values of the discrete latents k: log p(x) itself.

    .. math::
        \log p(x) = \log \sum_k p(x, k)

    It is for programs without continuous latents, mixtures and hidden Markov models among them.
    """

    name: ClassVar[str] = "exact"
    label: ClassVar[str] = "enumeration"
    rank: ClassVar[int | None] = 0
    exact: ClassVar[bool] = True
    confirmed: ClassVar[bool] = False
    weighed: ClassVar[bool] = False

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the model, of which nothing is guessed.

        Raises:
            ValueError: If a latent cannot be summed out.
        """
        try:
            return inspected(_nothing)
        except (TypeError, ValueError) as e:
            raise ValueError(
                f"'exact' sums out all latents, and here it cannot ({e}); ask for 'importance' or "
                "'quadrature'"
            ) from e

    def weights(self, program: Program, rows: range, work: Work) -> LogWeights:
        """Returns log p(x), `(1, n)`, the weight of no draw at all."""
        sampler = ImportanceSampler(program, Scheme(1), work.seed, work.chunk)
        return LogWeights(table(sampler.log_weights(rows).log_w))

    def columns(self, weights: LogWeights, grid: tuple[int, ...]) -> Columns:
        """Returns log p(x), without an error."""
        value = weights.log_evidence()
        none, zero = torch.full_like(value, torch.nan), torch.zeros_like(value)
        return value, zero, none, none, zero.long(), *no_path(value, grid)

    @classmethod
    def verdict(cls, e: Results) -> list[str]:
        """Returns "ok"."""
        return ["ok"] * len(e.value)

    @classmethod
    def how(cls, e: Results, protocol: Any) -> str:
        """Returns nothing: no draws were made."""
        return ""


def _nothing(*data: Any) -> None:
    """A guide that leaves all latents to be summed out."""
