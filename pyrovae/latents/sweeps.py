"""One model trained several ways: what another bottleneck, or another beta, gives."""

__all__ = ["Mean", "Trained", "looked_at", "table"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

from torch import Tensor

from pyrovae.evidence.results import Evidence
from pyrovae.evidence.samplers.importance import importance_sampling
from pyrovae.latents.summary import latent

DRAWS = 100  # of the guide per datum, for the ELBO


class Mean(NamedTuple):
    """A mean over data, nats per datum, and its standard error over them."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Tensor) -> "Mean":
        """Returns that of values, `(N,)`."""
        return cls(values.mean().item(), values.std().item() / sqrt(len(values)))


@dataclass(frozen=True)
class Trained:
    """What one training has come to, on held-out data, in nats per datum.

    Attributes:
        value: Of what was varied.
        log_p: log P(X) by the best estimate, with its error over data.
        mc_error: Its Monte Carlo error.
        elbo: -(rate + distortion).
        rate: KL(Q(z|X) || P(z)).
        distortion: -E log P(X|z), z from Q(z|X).
        active: Active units.
    """

    value: float
    log_p: Mean
    mc_error: float
    elbo: Mean
    rate: Mean
    distortion: Mean
    active: int


def looked_at(
    value: float,
    pair: tuple[Callable[..., object], Callable[..., object] | None],
    data: tuple[Tensor, ...],
    evidence: Evidence,
    seed: int,
) -> Trained:
    r"""Returns what a trained pair does with held-out data.

    .. math::
        \mathrm{ELBO} = -(R + D), \quad R = \mathrm{KL}(q(z|x) \,\|\, p(z)), \quad
        D = -\mathrm{E}_q \log p(x|z)

    Args:
        value: Of what was varied.
        pair: Model and guide.
        data: Of which the evidence is, `(N, ...)` each.
        evidence: Of all of them.
        seed: Fixes the draws.

    References:
        Fixing a broken ELBO (Alemi et al., 2018), https://arxiv.org/abs/1711.00464
    """
    model, guide = pair
    assert guide is not None
    found = latent(model, guide, *data, seed=seed)
    elbo = importance_sampling(model, guide, *data, num_particles=DRAWS, seed=seed).elbo()
    best = evidence.best()
    return Trained(
        value,
        log_p=Mean(best.mean, best.data_error),
        mc_error=best.monte_carlo_error,
        elbo=Mean.of(elbo),
        rate=Mean.of(found.rates),
        distortion=Mean.of(-elbo - found.rates),
        active=sum(int(c.active.sum()) for c in found.codes.values()),
    )


def table(option: str, trained: Sequence[Trained]) -> str:
    """Returns what was found as a table, a training a row.

    Args:
        option: What was varied.
        trained: In order.
    """
    lines = [f"{option:>8}  log P(X) +- samples +- data     ELBO    rate  distortion  active"]
    for t in trained:
        p = f"{t.log_p.value:8.3f} +- {t.mc_error:.3f} +- {t.log_p.error:.3f}"
        rest = f"{t.elbo.value:7.3f}  {t.rate.value:6.3f}  {t.distortion.value:10.3f}"
        lines.append(f"{t.value:8g}  {p:29}  {rest}  {t.active:6}")
    return "\n".join(lines)
