"""Importance sampling with the guide, and the bounds that are read of the same particles."""

__all__ = ["ELBO", "IWAE", "Importance", "Jackknife"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from math import sqrt
from typing import ClassVar, Self

import torch
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.evidence.estimators.base import Bound, check_guide
from pyrovae.evidence.estimators.sampled import Sampled
from pyrovae.evidence.estimators.work import Columns, Guide, Inspected, Target
from pyrovae.evidence.samplers.adaptive import FIRST
from pyrovae.evidence.samplers.importance import importance_sampling
from pyrovae.evidence.samplers.scheme import Proposal, check_proposal
from pyrovae.evidence.samplers.streaming import StreamedWeights
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import Program


@dataclass(frozen=True)
class Importance(Sampled):
    r"""Importance sampling with the guide as proposal: in expectation a lower bound of log p(x).

    .. math::
        \log \tfrac1S \sum_s \frac{p(x, z_s)}{q(z_s | x)}, \quad z_s \sim q(z | x)

    Too low by about half its squared standard error, nats; of the weights' table `(S, N)` the
    log-mean-exp, `(N,)`. It rises to log p(x) with S, as fast as the proposal reaches the mass of
    p(z|x): k-hat and ESS tell.

    References:
        Importance weighted autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519

    Example:
        >>> Importance(1_000).label
        'importance sampling'
    """

    name: ClassVar[str] = "importance"
    label: ClassVar[str] = "importance sampling"
    needs_guide: ClassVar[bool] = True
    rank: ClassVar[int] = 1
    draws_from: ClassVar[str] = "guide"

    def __post_init__(self) -> None:
        check_proposal(self.proposal)
        super().__post_init__()

    def __call__(
        self,
        model: Callable[..., object],
        guide: Guide,
        *data: Tensor,
        seed: int | None = None,
        plate: str | None = "data",
    ) -> LogWeights:
        """Returns log-weights `(S, N)`, nats, as `importance_sampling`.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another.
            data: Tensors of equal length N, as the program takes them.
            seed: Fixes the draws; `None` draws a seed.
            plate: Name of the plate over the data; `None` for all data as one, `(S,)`.

        Raises:
            TypeError, ValueError: As `importance_sampling`.
        """
        check_guide([self], model, guide, data, plate)
        assert guide is not None
        own = {f.name: getattr(self, f.name) for f in fields(Sampled)}
        return importance_sampling(model, guide, *data, **own, seed=seed, plate=plate)

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the pair, with the proposal for its guide where that is one.

        Args:
            guide: That of the evaluation.
            inspected: Makes the program.
        """
        if callable(self.proposal) and not isinstance(self.proposal, Proposal):
            guide = self.proposal
        return super().program(guide, inspected)


@dataclass(frozen=True)
class _OfImportance(Sampled):
    """What is read of the weights that `Importance` of the same options makes."""

    needs_guide: ClassVar[bool] = True

    @property
    def source(self) -> Importance:
        """Importance sampling of the same options."""
        return Importance(**{f.name: getattr(self, f.name) for f in fields(Sampled)})

    def __call__(
        self,
        model: Callable[..., object],
        guide: Guide,
        *data: Tensor,
        seed: int | None = None,
        plate: str | None = "data",
    ) -> LogWeights:
        """Returns the log-weights that it reads, `(S, N)`, nats; see `Importance`.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another.
            data: Tensors of equal length N, as the program takes them.
            seed: Fixes the draws; `None` draws a seed.
            plate: Name of the plate over the data; `None` for all data as one, `(S,)`.
        """
        check_guide([self], model, guide, data, plate)
        return self.source(model, guide, *data, seed=seed, plate=plate)


@dataclass(frozen=True)
class ELBO(_OfImportance):
    r"""The mean of log w, a lower bound of log p(x) by KL(q(z|x) || p(z|x)), nats.

    .. math::
        \tfrac1S \sum_s \log \frac{p(x, z_s)}{q(z_s | x)}, \quad z_s \sim q(z | x)

    Of the weights' table `(S, N)` the mean of the logs, `(N,)`: what training maximises. More
    particles lower its error, not the gap.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114
    """

    name: ClassVar[str] = "elbo"
    label: ClassVar[str] = "ELBO"
    bound: ClassVar[Bound] = "mean"

    def columns(self, weights: LogWeights | StreamedWeights, grid: tuple[int, ...]) -> Columns:
        """Returns the mean of log w, `(n,)`; of fewer particles the same with a larger error.

        Args:
            weights: A table `(S, n)`, or its sums.
            grid: The G numbers of particles; the error of k of them is sqrt(S / k) times as large.
        """
        value, error = weights.elbo(), weights.elbo_std_error()
        wider = [sqrt(weights.num_particles / k) for k in grid]
        wider = [w if w >= 1 else torch.nan for w in wider]
        path_error = torch.tensor(wider, dtype=torch.float64)[:, None] * error  # (G, n)
        path = value.expand(len(grid), -1)
        return Columns.of(value, error, weights.num_draws, grid)._replace(
            path=path, path_std_error=path_error
        )


@dataclass(frozen=True)
class _GroupSize:
    """The option k, before those of `Sampled`."""

    k: int = 50


@dataclass(frozen=True)
class IWAE(_OfImportance, _GroupSize):
    r"""The bound that an importance weighted autoencoder of k particles is trained on.

    The mean of log-mean-exp over the S // k groups of k particles that S make:

    .. math::
        \frac kS \sum_g \log \tfrac1k \sum_{s \in g} \frac{p(x, z_s)}{q(z_s | x)}, \quad
        z_s \sim q(z | x)

    In expectation it lies between the ELBO, which it is for k = 1, and log p(x), and rises with k.
    `Importance` of the same particles is the bound of all S of them: the tighter, with the larger
    error. Of the weights' table `(S, N)` it is `(N,)`, nats.

    Attributes:
        k: Particles of a group, at most S; of "auto" at most 128, which each datum has.
        num_particles, ...: As of `Importance`; groups of quasi-random particles are refused.

    References:
        Importance weighted autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519

    Example:
        >>> IWAE(10, num_particles=1_000).title
        'IWAE, k = 10'
    """

    name: ClassVar[str] = "iwae"
    label: ClassVar[str] = "IWAE"
    bound: ClassVar[Bound] = "mean"
    keywords: ClassVar[Mapping[str, str]] = {**Sampled.keywords, "iwae_k": "k"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(k=self.k)
        most = _least_drawn(self)
        if self.k > most:
            raise ValueError(
                f"k is {self.k}, more than the {most} particles that each datum has; give 1 to "
                f"{most}"
            )
        if self.qmc:
            raise ValueError(
                "quasi-random particles depend on each other, so that groups of k are no IWAE "
                "bound; take qmc=False"
            )

    @classmethod
    def of(cls, shared: Mapping[str, object], own: Mapping[str, object] | None = None) -> Self:
        """Returns it with shared options that are its own; k is at most S unless it is given.

        Args:
            shared: By the names in `keywords`; others are left out.
            own: By the names of its fields; they go before.
        """
        drawn = Importance.of(shared, {f: x for f, x in (own or {}).items() if f != "k"})
        return super().of({"iwae_k": min(cls.k, _least_drawn(drawn)), **shared}, own)

    def options(self) -> dict[str, object]:
        """Returns k, beside what the protocol names of its particles."""
        return {**super().options(), "iwae_k": self.k}

    @property
    def title(self) -> str:
        """IWAE and k."""
        return f"{self.label}, k = {self.k:,}"

    @property
    def target(self) -> Target:
        """That of its particles, in groups of k."""
        return super().target._replace(group_size=self.k)

    def columns(self, weights: LogWeights | StreamedWeights, grid: tuple[int, ...]) -> Columns:
        """Returns the mean of log-mean-exp over groups `(n,)`, its error between them, no path.

        Args:
            weights: A table `(S, n)`, or its sums by groups of k.
            grid: Numbers of particles of other estimators' paths; here it is NaN.
        """
        value, error = weights.iwae(self.k), weights.iwae_std_error(self.k)
        return Columns.of(value, error, weights.num_draws, grid)


def _least_drawn(e: Sampled) -> int:
    """Returns the particles that each datum has at least."""
    return min(FIRST, e.max_particles) if e.auto else int(e.num_particles)


@dataclass(frozen=True)
class Jackknife(_OfImportance):
    r"""Importance sampling's estimate, its bias of order 1/S taken off: no bound any more.

    .. math::
        S L - (S - 1) \tfrac1S \sum_s L_{-s}

    with L the log-mean-exp of all S weights and :math:`L_{-s}` of all but one; of the weights'
    table `(S, N)` it is `(N,)`, nats.

    References:
        Debiasing evidence approximations: on importance-weighted autoencoders and jackknife
        variational inference (Nowozin, 2018), https://openreview.net/forum?id=HyZoi-WRb
    """

    name: ClassVar[str] = "jackknife"
    label: ClassVar[str] = "the same, jackknife"
    bound: ClassVar[Bound] = "none"

    def columns(self, weights: LogWeights | StreamedWeights, grid: tuple[int, ...]) -> Columns:
        """Returns the corrected estimate `(n,)`, with the uncorrected one's error and k-hat.

        Args:
            weights: A table `(S, n)`, or its sums and largest weights.
            grid: Numbers of particles of other estimators' paths; here it is NaN.
        """
        value = weights.jackknife()
        w = weights.std_error(), weights.num_draws, grid, weights.ess(), weights.pareto_k()
        return Columns.of(value, *w)
