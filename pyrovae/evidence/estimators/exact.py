"""What needs no draw: log p(x) of a program whose latents are all summed out."""

__all__ = ["Exact"]

from dataclasses import dataclass
from typing import ClassVar

import torch

from pyrovae.errors import GuideError
from pyrovae.evidence.estimators.base import Bound, Estimator
from pyrovae.evidence.estimators.work import Columns, Guide, Inspected, Work
from pyrovae.evidence.samplers.sampler import ImportanceSampler
from pyrovae.evidence.samplers.scheme import Scheme
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import Program


@dataclass(frozen=True)
class Exact(Estimator[LogWeights]):
    r"""The sum of p(x, k) over all values of the discrete latents k: log p(x) itself, nats.

    .. math::
        \log p(x) = \log \sum_k p(x, k)

    It is for programs without continuous latents, mixtures and hidden Markov models among them;
    `(N,)`, from the weights `(1, N)` of no draw at all.

    References:
        Tensor variable elimination for plated factor graphs (Obermeyer et al., 2019),
        https://arxiv.org/abs/1902.03210, by which Pyro sums.
    """

    name: ClassVar[str] = "exact"
    label: ClassVar[str] = "enumeration"
    bound: ClassVar[Bound] = "exact"
    rank: ClassVar[int] = 0

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the model, of which nothing is guessed.

        Args:
            guide: Not looked at.
            inspected: Makes the program.

        Raises:
            GuideError: If a latent cannot be summed out.
            TypeError, ValueError: As `inspect`, for a program that no estimator can use.
        """
        try:
            return inspected(_nothing)
        except GuideError as e:
            raise GuideError(
                f"'exact' sums out all latents, and here it cannot ({e}); ask for 'best', "
                "'importance' or 'quadrature'"
            ) from e

    def weights(self, program: Program, rows: range, work: Work) -> LogWeights:
        """Returns log p(x), `(1, n)`, nats, the weight of no draw at all.

        Args:
            program: The model, whose latents are summed out.
            rows: The n rows of a block.
            work: Chunk size; nothing is drawn by its seed.
        """
        sampler = ImportanceSampler(program, Scheme(1), work.seed, work.chunk_size)
        return sampler.log_weights(rows)

    def columns(self, weights: LogWeights, grid: tuple[int, ...]) -> Columns:
        """Returns log p(x), `(n,)`, nats, with an error of 0.

        Args:
            weights: log p(x), `(1, n)`.
            grid: Numbers of particles of other estimators' paths; here it is NaN.
        """
        value = self._by_datum(weights).log_evidence()
        zero = torch.zeros_like(value)
        return Columns.of(value, zero, zero.long(), grid)


def _nothing(*data: object) -> None:
    """A guide that leaves all latents to be summed out."""
