"""Bidirectional Monte Carlo: log p(x) of simulated data, bounded from both sides."""

__all__ = ["Bounds", "bdmc", "sandwich", "simulated"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from pyrovae.checks import check_options, check_sizes
from pyrovae.equality import ByContent
from pyrovae.evidence.samplers.annealing import AnnealedWeights, anneal, weighed
from pyrovae.evidence.samplers.options import (
    AnnealingOptions,
    AnnealingRun,
    options_of,
)
from pyrovae.evidence.samplers.tuning import Kernel, tune
from pyrovae.program import (
    Program,
    Values,
    inspect,
    reproducible,
    simulate,
)
from pyrovae.rng import draw_seed
from pyrovae.threads import one_at_a_time

SIMULATED = 14  # random stream


class MutualInformation(NamedTuple):
    """What x tells of z, between its bounds, nats.

    Attributes:
        lower: In expectation a lower bound.
        lower_error: Its standard error over data; NaN of one.
        upper: In expectation an upper bound.
        upper_error: Its standard error over data.
    """

    lower: float
    lower_error: float
    upper: float
    upper_error: float


@dataclass(frozen=True, repr=False, eq=False)
class Bounds(ByContent):
    r"""Two-sided bounds of log p(x) on data simulated from the model, in nats.

    .. math::
        \mathrm{E}[\log \tfrac1S \sum_s w_s] \le \log p(x) \le
        \mathrm{E}[-\log \tfrac1S \sum_s 1 / w'_s]

    with w of particles annealed from the proposal to the posterior, and w' of such annealed back
    from the z that made x. See `bdmc`.

    Attributes:
        lower: In expectation a lower bound of log p(x): forward annealing, `(N,)`.
        upper: In expectation an upper bound: reverse annealing from the exact z, `(N,)`.
        forward: The weights of the particles annealed forward, `(S, N)`.
        data: The simulated data, as the program takes them.
        log_likelihood: log p(x|z) of the z that made x, `(N,)`.
    """

    lower: Tensor
    upper: Tensor
    forward: AnnealedWeights
    data: tuple[Tensor, ...]
    log_likelihood: Tensor

    def mutual_information(self) -> "MutualInformation":
        r"""Returns bounds of what x tells of z, with their standard errors over data, nats.

        .. math::
            I(x; z) = \mathrm{E}_{p(x, z)} \log \frac{p(x | z)}{p(x)}

        of the model, from both sides by those of log p(x). z are the latents that are not summed
        out.

        References:
            Improving mutual information estimation with annealed and energy-based bounds
            (Brekelmans et al., 2022), https://arxiv.org/abs/2303.06992
        """
        low, high = self.log_likelihood - self.upper, self.log_likelihood - self.lower
        error = lambda x: x.std().item() / sqrt(x.numel())  # noqa: E731
        return MutualInformation(low.mean().item(), error(low), high.mean().item(), error(high))

    @property
    def gap(self) -> Tensor:
        """Returns upper - lower, `(N,)`: what annealing with these settings leaves open."""
        return self.upper - self.lower

    def __repr__(self) -> str:
        n = self.gap.numel()
        error = f" +- {self.gap.std().item() / sqrt(n):.4f}" if n > 1 else ""
        return (
            f"Bounds({n} data simulated from the model: lower {self.lower.mean():.4f}, upper "
            f"{self.upper.mean():.4f} nats; gap {self.gap.mean():.4f}{error})"
        )


@one_at_a_time
def bdmc(
    model: Callable[..., object],
    *data: Tensor,
    guide: Callable[..., object] | None = None,
    num_temperatures: int = 100,
    num_particles: int = 8,
    schedule: str | Sequence[float] = "tuned",
    seed: int | None = None,
    **options: Unpack[AnnealingOptions],
) -> Bounds:
    r"""Returns lower and upper bounds of log p(x) on data simulated from the model.

    `data` give sizes and covariates only: what the program observes is drawn from it, z ~ p(z) and
    x ~ p(x|z). Annealing forward bounds log p(x) from below; annealing in reverse, from the very z
    that made x (an exact draw from the posterior), bounds it from above:

    .. math::
        \mathrm{E}[\log \tfrac1S \sum_s w_s] \le \log p(x) \le
        \mathrm{E}[-\log \tfrac1S \sum_s 1 / w'_s]

    The gap tells how good `ais` with these settings is on this model, as far as real data are
    like the model's own.

    Args:
        model: Any Pyro callable of `*data`, differentiable in its latents.
        data: Tensors of equal length N, as the program takes them.
        guide: Where the path begins; `None` begins at the prior.
        num_temperatures: T, steps of the path.
        num_particles: S, particles annealed per datum, and as many in reverse.
        schedule: As of `ais`.
        seed: Fixes data and draws; `None` draws a seed.
        **options: How the run is done, as in `ais`: `num_leapfrog`, `plate`, `chunk_size`.

    Raises:
        TypeError, ValueError: As `ais`; also if what a site observes is no view of a data
            argument.

    References:
        Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse et al., 2015),
        https://arxiv.org/abs/1511.02543
        Measuring the reliability of MCMC inference with bidirectional Monte Carlo (Grosse et al.,
        2016), https://arxiv.org/abs/1606.02275
    """
    check_options(options, AnnealingOptions, bdmc)
    check_sizes(num_particles=num_particles)
    run = options_of(AnnealingRun, options)
    size = run.block_size(num_particles)
    program = inspect(model, guide, *data, plate=run.plate, block_size=size)
    seed = draw_seed(seed)
    program, latents = simulated(program, size, seed)
    kernel = tune(program, num_temperatures, schedule, run.num_leapfrog, seed)
    return sandwich(program, latents, num_particles, size, seed, kernel)


def sandwich(
    program: Program,
    latents: list[Values],
    num_particles: int,
    size: int,
    seed: int,
    kernel: Kernel,
) -> Bounds:
    """Returns the bounds on a program's simulated data.

    Args:
        program: The pair, and the N simulated data.
        latents: The z that made each block's data, by site, `(n, ..., event)`.
        num_particles: S, particles annealed per datum, forward and in reverse.
        size: Data per block.
        seed: Of the run.
        kernel: The frozen transitions.
    """
    blocks = program.blocks(size)
    forward = [anneal(program, rows, num_particles, seed, kernel) for rows in blocks]
    with reproducible(seed):
        pairs = list(zip(blocks, latents, strict=True))
        starts = [kernel.path(program, r).base.unconstrain(z) for r, z in pairs]
        likelihoods = [
            (program.log_joint(z, r, None) - program.log_prior(z, r, None)).reshape(-1)
            for r, z in pairs
        ]
    reverse = [
        anneal(program, rows, num_particles, seed, kernel, u)[0]
        for rows, u in zip(blocks, starts, strict=True)
    ]
    weights = weighed(forward, kernel)
    # (N,), nats: - log 1/S sum_s 1/w'_s
    upper = log(num_particles) - (-torch.cat(reverse, dim=-1)).logsumexp(0)
    likelihood = torch.cat(likelihoods).cpu().double().reshape(upper.shape)
    return Bounds(weights.log_evidence(), upper, weights, program.tensors, likelihood)


def simulated(program: Program, size: int, seed: int) -> tuple[Program, list[Values]]:
    """Returns the program on data drawn from it, and the latents that made each block's.

    Args:
        program: Whose data give sizes and covariates.
        size: Data per block.
        seed: Of the run.
    """
    made, latents = [], []
    for rows in program.blocks(size):
        with reproducible(seed, SIMULATED, rows.start):
            x, z = simulate(program, rows)
        made.append(x)
        latents.append(z)
    data = tuple(torch.cat(parts) for parts in zip(*made, strict=True))
    return program.on(data), latents
