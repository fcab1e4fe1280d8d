"""How many draws each datum needs, as a pilot with draws of its own finds it."""

__all__ = ["FIRST", "draws_due"]

from collections.abc import Callable
from time import time

import torch
from torch import Tensor

from pyrovae.evidence.samplers.scheme import Scheme
from pyrovae.evidence.weights import LogWeights

FIRST, GROWTH = 128, 4  # the pilot's draws, and by how much they grow
AHEAD, MARGIN = 8, 1.2  # how many times its draws the pilot foresees, and what is added


def draws_due(
    draw: Callable[[Tensor, int, int], Tensor],
    scheme: Scheme,
    num_data: int,
    *,
    together: bool,
    start: float,
) -> Tensor:
    r"""Returns how many draws are due for each datum, `(n,)`, for the standard error asked for.

    .. math::
        S_n = 1.2 \, (s / \mathrm{ESS}_n - 1) / \mathrm{tolerance}^2

    by the ESS of a pilot's s draws: the delta method's variance of log-mean-exp. The pilot goes
    on, four times as many draws at a time, for data whose k-hat is bad or that need more than 8
    times what it drew; numbers are rounded up to FIRST times a power of the root of 2, so that
    many data have the same.

    Args:
        draw: Returns log-weights `(s, m)` of these m data, `(m,)`, for s and a stage's number.
        scheme: What is asked for.
        num_data: n.
        together: Whether all data have the same number of draws.
        start: When the run began, by the clock.
    """
    counts = torch.zeros(num_data, dtype=torch.long)
    todo, pilot, stage = torch.arange(num_data), torch.empty(0, num_data), 0
    while len(todo):
        more = FIRST * GROWTH**stage - len(pilot)
        pilot = torch.cat([pilot, draw(todo, more, stage)])  # (s, m)
        due, known = _due(pilot, scheme, start)
        if together:
            due, known = due.max().expand_as(due), known.all().expand_as(known)
        counts[todo] = due
        todo, pilot, stage = todo[~known], pilot[:, ~known], stage + 1
    counts = (FIRST * 2 ** (2 * (counts / FIRST).log2()).ceil().div(2)).ceil().long()
    return counts.clamp(max=scheme.max_particles)


def _due(pilot: Tensor, scheme: Scheme, start: float) -> tuple[Tensor, Tensor]:
    """Returns the draws due by a pilot `(s, m)`, and whether that is known well enough, `(m,)`."""
    weights, made = LogWeights(pilot), len(pilot)
    variance = (made / weights.ess() - 1).nan_to_num(torch.inf, posinf=torch.inf)
    due = (MARGIN * variance / scheme.tolerance**2).clamp(FIRST, scheme.max_particles).long()
    known = ~weights.bad() & (due <= AHEAD * made)
    late = scheme.max_seconds is not None and time() - start > scheme.max_seconds
    if late or made * GROWTH > scheme.max_particles:
        due = torch.where(known, due, made if late else scheme.max_particles)
        known[:] = True
    return due, known
