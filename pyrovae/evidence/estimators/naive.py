"""Naive sampling: importance sampling with the prior."""

__all__ = ["Naive"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from pyrovae.evidence.estimators.base import Guide, Inspected
from pyrovae.evidence.estimators.importance import Sampled
from pyrovae.evidence.samplers.importance import prior_sampling, sharing
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import Program


@dataclass(frozen=True)
class Naive(Sampled):
    r"""The mean of p(x|z) over draws of the prior: in expectation a lower bound of log p(x).

    .. math::
        \log \tfrac1S \sum_s p(x | z_s), \quad z_s \sim p(z)

    For almost every z, p(x|z) is near 0, so that it falls short by nats, and its standard error
    does not notice. Where no latent depends on the data, these share their draws.

    References:
        Tutorial on variational autoencoders (Doersch, 2016), section 2,
        https://arxiv.org/abs/1606.05908
    """

    name: ClassVar[str] = "prior"
    label: ClassVar[str] = "naive sampling"
    rank: ClassVar[int | None] = 3
    biased: ClassVar[bool] = True
    lucky: ClassVar[bool] = True

    def alone(
        self, model: Callable[..., Any], guide: Guide, *data: Tensor, **how: Any
    ) -> LogWeights:
        """Returns log-weights `(S, N)`, as `prior_sampling`."""
        size = int(self.num_particles)
        return prior_sampling(model, *data, num_particles=size, qmc=self.qmc, **how)

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> Self:
        """Returns it with the shared options; of "auto" it makes its own 5,000 draws."""
        if options.get("num_particles") == "auto":
            options = {k: v for k, v in options.items() if k != "num_particles"}
        return super().of_options(options)

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the model alone, its draws shared by all data where they can be."""
        program = super().program(guide, inspected)
        return program if self.qmc else sharing(program)
