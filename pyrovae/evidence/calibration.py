"""Self-checks of a program on data drawn from its model: the guide's calibration, and BDMC."""

__all__ = ["Calibration", "calibrate"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.diagnostics import ecdf_band
from pyrovae.equality import ByContent
from pyrovae.evidence.samplers.bdmc import Bounds, sandwich, simulated
from pyrovae.evidence.samplers.options import AnnealingRun
from pyrovae.evidence.samplers.tuning import tune
from pyrovae.program import GeometricPath, inspect, reproducible
from pyrovae.rng import draw_seed
from pyrovae.threads import one_at_a_time

STREAM = 20


@dataclass(frozen=True, repr=False, eq=False)
class Calibration(ByContent):
    """What `calibrate` found; as a string, a short report.

    Attributes:
        ranks: Rank of the z that made x among the guide's draws, `(N, d)`, 0 to `num_samples`,
            of each dimension of z by itself, unconstrained.
        names: The d latent dimensions: site and index.
        num_samples: The guide's draws per datum.
        band: Lower and upper edge of a 95 % band of the ranks' ECDF, `(2, num_samples + 1)`,
            for all of one dimension's ECDF at once.
        bounds: BDMC's bounds on the same simulated data.
    """

    ranks: np.ndarray
    names: tuple[str, ...]
    num_samples: int
    band: np.ndarray
    bounds: Bounds

    @property
    def ecdf(self) -> np.ndarray:
        """The share of ranks up to 0, 1, ..., num_samples, `(num_samples + 1, d)`."""
        # (N, 1, d) against (L + 1, 1)
        return (self.ranks[:, None] <= np.arange(self.num_samples + 1)[:, None]).mean(0)

    @property
    def outside(self) -> np.ndarray:
        """Which dimensions' ECDF leaves the band, `(d,)`."""
        low, high = self.band[:, :, None]
        return ((self.ecdf < low) | (self.ecdf > high)).any(0)

    def verdict(self) -> list[str]:
        """Returns for each dimension "ok", or how the guide is off: narrow, wide or shifted.

        "ok" where its ECDF stays in the band. Else what is further, in its standard errors, from
        what uniform ranks have: their mean, 1/2 (shifted), or their variance, 1/12 (too narrow
        where it is larger, as ranks heap at both ends).
        """
        place = (self.ranks + 0.5) / (self.num_samples + 1)  # (N, d), between 0 and 1
        lean = (place.mean(0) - 0.5) / np.sqrt(1 / 12 / len(place))  # (d,)
        breadth = (np.square(place - 0.5).mean(0) - 1 / 12) / np.sqrt(1 / 180 / len(place))
        words = []
        for out, a, b in zip(self.outside, lean, breadth, strict=True):
            off = "shifted" if abs(a) > abs(b) else "too narrow" if b > 0 else "too wide"
            words.append(off if out else "ok")
        return words

    def __str__(self) -> str:
        n, d = self.ranks.shape
        words = self.verdict()
        lines = [f"{name}: the guide is {w}" for name, w in zip(self.names, words, strict=True)]
        shown = [line for line, w in zip(lines, words, strict=True) if w != "ok"][:10]
        good = words.count("ok")
        return "\n".join(
            [
                f"Guide against {n} data simulated from the model: the ranks of {good} of {d} "
                "latent dimensions are uniform (95 % band each).",
                *shown,
                *(["..."] if d - good > len(shown) else []),
                f"Annealing on the same data: {self.bounds}.",
            ]
        )

    def __repr__(self) -> str:
        return f"Calibration({self.verdict().count('ok')} of {len(self.names)} dimensions ok)"


@one_at_a_time
def calibrate(
    model: Callable[..., object],
    guide: Callable[..., object],
    *data: Tensor,
    num_samples: int = 99,
    num_temperatures: int = 100,
    num_particles: int = 8,
    seed: int | None = None,
    plate: str = "data",
) -> Calibration:
    r"""Returns how well the guide is calibrated on data simulated from the model, and BDMC's gap.

    .. math::
        r_{ni} = \sum_{l=1}^L [z_{lni} < z^*_{ni}], \quad z^*_n \sim p(z), \quad
        x_n \sim p(x | z^*_n), \quad z_{ln} \sim q(z | x_n)

    Simulation-based calibration: were the guide the posterior, the rank r of each dimension of the
    z* that made x among L draws of the guide would be uniform on 0 to L. Ranks heaped
    at both ends tell of a guide too narrow, in the middle too wide, at one end shifted. It sees
    each dimension alone, on average over data: a guide that misses correlations can pass.

    Args:
        model: Any Pyro callable of `*data`.
        guide: Another.
        data: They give sizes and covariates only: what the program observes is drawn from it.
        num_samples: L, the guide's draws per datum.
        num_temperatures: T of BDMC's annealing, see `bdmc`.
        num_particles: S, particles that BDMC anneals per datum, forward and in reverse.
        seed: Fixes the draws; `None` draws a seed.
        plate: Name of the plate over the data.

    Raises:
        TypeError, ValueError: As `bdmc`.

    References:
        Validating Bayesian inference algorithms with simulation-based calibration (Talts et al.,
        2018), https://arxiv.org/abs/1804.06788
        Yes, but did it work?: evaluating variational inference (Yao et al., 2018),
        https://arxiv.org/abs/1802.02538
    """
    check_sizes(num_samples=num_samples, num_particles=num_particles)
    seed = draw_seed(seed)
    run = AnnealingRun(plate=plate)
    size = run.block_size(num_particles)
    program = inspect(model, guide, *data, plate=plate, block_size=size)
    program, latents = simulated(program, size, seed)
    ranks, labels = [], ()
    for rows, z in zip(program.blocks(size), latents, strict=True):
        with reproducible(seed, STREAM, rows.start):
            path = GeometricPath(program, rows)
            # (L, n, d) against (n, d)
            ranks.append((path.start(num_samples) < path.unconstrain(z)).sum(0))
            labels = tuple(path.labels)
    kernel = tune(program, num_temperatures, "tuned", run.num_leapfrog, seed)
    bounds = sandwich(program, latents, num_particles, size, seed, kernel)
    table = torch.cat(ranks).cpu().numpy()
    band = ecdf_band(len(table), num_samples)
    return Calibration(table, labels, num_samples, band, bounds)
