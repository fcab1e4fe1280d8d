"""Naive sampling: importance sampling with the prior."""

__all__ = ["Naive"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from pyrovae.evidence.estimators.sampled import Sampled
from pyrovae.evidence.estimators.work import Guide, Inspected
from pyrovae.evidence.samplers.importance import prior_sampling
from pyrovae.evidence.samplers.sampler import sharing
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import Program


@dataclass(frozen=True)
class Naive(Sampled):
    r"""The mean of p(x|z) over draws of the prior: in expectation a lower bound of log p(x).

    .. math::
        \log \tfrac1S \sum_s p(x | z_s), \quad z_s \sim p(z)

    For almost every z, p(x|z) is near 0, so that it falls short by nats, and its standard error
    does not notice. Where no latent depends on the data, these share their particles: the table
    `(S, N)` then has one draw a row.

    References:
        Tutorial on variational autoencoders (Doersch, 2016), section 2,
        https://arxiv.org/abs/1606.05908
    """

    name: ClassVar[str] = "prior"
    label: ClassVar[str] = "naive sampling"
    rank: ClassVar[int] = 3
    blind: ClassVar[bool] = True

    def __call__(
        self,
        model: Callable[..., object],
        guide: Guide,
        *data: Tensor,
        seed: int | None = None,
        plate: str | None = "data",
    ) -> LogWeights:
        """Returns log-weights `(S, N)`, nats, as `prior_sampling`.

        Args:
            model: A Pyro callable of `*data`.
            guide: Not looked at.
            data: Tensors of equal length N, as the program takes them.
            seed: Fixes the draws; `None` draws a seed.
            plate: Name of the plate over the data; `None` for all data as one, `(S,)`.
        """
        size = int(self.num_particles)
        options = {"num_particles": size, "qmc": self.qmc, "seed": seed}
        return prior_sampling(model, *data, **options, plate=plate)

    @classmethod
    def of(cls, shared: Mapping[str, object], own: Mapping[str, object] | None = None) -> Self:
        """Returns it with shared options that are its own; of "auto" it draws its own 5,000.

        Args:
            shared: By the names in `keywords`; others are left out.
            own: By the names of its fields; they go before.
        """
        auto = shared.get("num_particles") == "auto"
        kept = {word: x for word, x in shared.items() if not (auto and word == "num_particles")}
        return super().of(kept, own)

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the model alone, its draws shared by all data where they can be.

        Args:
            guide: Not looked at.
            inspected: Makes the program.
        """
        program = super().program(guide, inspected)
        return program if self.qmc else sharing(program)
