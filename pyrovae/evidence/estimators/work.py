"""What an estimator is given to do a block with, and what it gives back."""

__all__ = ["Columns", "Guide", "Inspected", "Probe", "Target", "Work"]

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, Self

import torch
from torch import Tensor

from pyrovae.program import Program

Guide = Callable[..., object] | None


Inspected = Callable[[Guide], Program]


class Columns(NamedTuple):
    """What is read of a block of n data, nats; the path at G numbers of particles.

    Attributes:
        value: The estimate of log p(x), `(n,)`.
        std_error: Its standard error, `(n,)`.
        ess: Effective sample size, `(n,)`; NaN where nothing is weighed.
        pareto_k: Pareto k-hat, `(n,)`; NaN where there is none.
        num_draws: S, `(n,)`, whole numbers.
        path: Estimates of fewer particles, `(G, n)`; NaN where there are none.
        path_std_error: Their standard errors, `(G, n)`.
    """

    value: Tensor
    std_error: Tensor
    ess: Tensor
    pareto_k: Tensor
    num_draws: Tensor
    path: Tensor
    path_std_error: Tensor

    @classmethod
    def of(
        cls,
        value: Tensor,
        std_error: Tensor,
        num_draws: Tensor,
        grid: tuple[int, ...],
        ess: Tensor | None = None,
        pareto_k: Tensor | None = None,
    ) -> Self:
        """Returns columns without a path; what is not given is NaN.

        Args:
            value: The estimate, `(n,)`, nats.
            std_error: Its standard error, `(n,)`, nats.
            num_draws: S, `(n,)`.
            grid: The G numbers of particles of a path.
            ess: Effective sample size, `(n,)`.
            pareto_k: Pareto k-hat, `(n,)`.
        """
        none = torch.full_like(value, torch.nan)
        path = torch.full((len(grid), len(value)), torch.nan, dtype=torch.float64)
        ess, k = (none if x is None else x for x in (ess, pareto_k))
        return cls(value, std_error, ess, k, num_draws, path, path)


@dataclass(frozen=True)
class Work:
    """What a block is computed with: nothing else but the program and its rows decides it.

    Attributes:
        seed: Fixes the draws.
        start: When the evaluation began, by the clock, s.
        chunk_size: Particles x data decoded at once.
        grid: Numbers of particles at which the path of the estimate is taken down.
        group_sizes: Every k of which log-mean-exp is taken by groups of k particles.
        prepared: What `Estimator.prepared` returned.
    """

    seed: int
    start: float = 0.0
    chunk_size: int = 4096
    grid: tuple[int, ...] = ()
    group_sizes: tuple[int, ...] = ()
    prepared: object = None


class Target(NamedTuple):
    """What an estimator aims at with its particles.

    Attributes:
        num_particles: S, to which the path of its estimate leads; `None` without a path.
        tolerance: Standard error that it draws for, nats, where it finds S by itself.
        group_size: k, where it takes log-mean-exp by groups of k particles.
    """

    num_particles: int | None = None
    tolerance: float = inf
    group_size: int | None = None


class Probe(NamedTuple):
    """What a block was found to take.

    Attributes:
        seconds: Of all of it.
        first: How much longer its first run takes.
        slope: Seconds of one unit more of its work.
    """

    seconds: float
    first: float
    slope: float
