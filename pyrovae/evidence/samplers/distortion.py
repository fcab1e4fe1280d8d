"""What a model's code costs, and what it leaves out: the rate-distortion curve, by annealing."""

__all__ = ["RateDistortion", "rate_distortion"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Unpack

import torch
from torch import Tensor

from pyrovae.checks import check_options, check_sizes
from pyrovae.equality import ByContent
from pyrovae.evidence.samplers.annealing import annealed
from pyrovae.evidence.samplers.hmc import State
from pyrovae.evidence.samplers.options import AnnealingOptions, AnnealingRun, options_of
from pyrovae.evidence.samplers.tuning import tune
from pyrovae.evidence.weights import check_weights
from pyrovae.program import inspect, reproducible
from pyrovae.rng import draw_seed
from pyrovae.threads import one_at_a_time

STREAM = 15  # of random numbers


@dataclass(frozen=True, repr=False, eq=False)
class RateDistortion(ByContent):
    """Rate and distortion of each of N data at each of T + 1 temperatures, nats.

    Attributes:
        temperatures: b, from 0 to 1, `(T + 1,)`.
        rate: KL(q_b || p(z)), in expectation an upper bound where the distortion is right,
            `(T + 1, N)`.
        distortion: Mean of -log p(x|z) under q_b, `(T + 1, N)`.
    """

    temperatures: Tensor
    rate: Tensor
    distortion: Tensor

    def errors(self) -> tuple[Tensor, Tensor]:
        """Returns standard errors over data of mean rate and mean distortion, `(T + 1,)` each."""
        size = sqrt(self.rate.shape[1])
        return self.rate.std(1) / size, self.distortion.std(1) / size

    def __repr__(self) -> str:
        r, d = self.rate.mean(1), self.distortion.mean(1)
        return (
            f"RateDistortion({len(r)} temperatures, {self.rate.shape[1]} data: distortion "
            f"{d[0]:.2f} at rate {r[0]:.2f}, {d[-1]:.2f} at rate {r[-1]:.2f} nats per datum)"
        )


@one_at_a_time
def rate_distortion(
    model: Callable[..., object],
    *data: Tensor,
    num_temperatures: int = 100,
    num_particles: int = 8,
    schedule: str | Sequence[float] = "tuned",
    seed: int | None = None,
    **options: Unpack[AnnealingOptions],
) -> RateDistortion:
    r"""Returns rate and distortion of each datum along the path from the prior to the posterior.

    .. math::
        q_b(z|x) = \frac{p(z) \, p(x|z)^b}{Z_b}, \quad
        D_b = -\mathrm{E}_{q_b} \log p(x|z), \quad
        R_b = \mathrm{KL}(q_b \,\|\, p(z)) = -\log Z_b - b \, D_b

    Of all codes z with this decoder, q_b has the least rate at its distortion, so that the curve
    belongs to the model and not to a guide; at b = 1, R + D = -log p(x). log Z_b is what the same
    annealing run has weighed on its way, in expectation too low, and D_b the weighted mean of its
    particles.

    Args:
        model: Any Pyro callable of `*data`, differentiable in its latents.
        data: Tensors of equal length N, as the program takes them.
        num_temperatures: T, steps of the path.
        num_particles: S, particles annealed per datum.
        schedule: As of `ais`.
        seed: Fixes the draws; `None` draws a seed.
        **options: How the run is done, as in `ais`: `num_leapfrog`, `plate`, `chunk_size`.

    Raises:
        TypeError, ValueError: As `ais`.

    References:
        Evaluating lossy compression rates of deep generative models (Huang et al., 2020),
        https://arxiv.org/abs/2008.06653
    """
    check_options(options, AnnealingOptions, rate_distortion)
    check_sizes(num_particles=num_particles)
    run = options_of(AnnealingRun, options)
    size = run.block_size(num_particles)
    program = inspect(model, None, *data, plate=run.plate, block_size=size)
    seed = draw_seed(seed)
    kernel = tune(program, num_temperatures, schedule, run.num_leapfrog, seed)
    b = torch.from_numpy(kernel.temperatures)
    rates, distortions = [], []
    for rows in program.blocks(size):
        tables: list[tuple[Tensor, Tensor]] = []

        def seen(log_w: Tensor, state: State, to: list[tuple[Tensor, Tensor]] = tables) -> None:
            to.append((log_w, (state.log_f[1] - state.log_f[0]).cpu().double()))

        with reproducible(seed, STREAM, rows.start):
            program.check_observed(rows)
            path = kernel.path(program, rows)
            path.prepare()
            v = path.start(num_particles)
            annealed(path, v, kernel, seen=seen)
        log_w, log_p = (torch.stack(t) for t in zip(*tables, strict=True))  # (T + 1, S, n)
        check_weights(log_w[-1], rows)
        log_z = log_w.logsumexp(1) - log(num_particles)
        distortion = -(log_w.softmax(1) * log_p).sum(1).reshape(len(b), -1)
        rates.append(-log_z.reshape(len(b), -1) - b[:, None] * distortion)
        distortions.append(distortion)
    return RateDistortion(b, torch.cat(rates, 1), torch.cat(distortions, 1))
