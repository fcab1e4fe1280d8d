"""Draws of a block's posterior with their weights: the guide's, annealed where those mislead."""

__all__ = ["Annealed", "Annealer", "drawn", "weighed"]

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.evidence.samplers.annealing import annealed
from pyrovae.evidence.samplers.chunks import at_once
from pyrovae.evidence.samplers.tuning import Kernel, path_of, tune
from pyrovae.evidence.weights import check_weights
from pyrovae.program import Program, Values, draw_summed, reproducible

STREAM = 40  # of random numbers, and the three that follow


def proposed(
    program: Program, rows: range, num_particles: int, seed: int
) -> tuple[Values, Tensor | None]:
    """Returns z by site, `(S, ..., event)`, of the guide or the prior, and log q, `(S, n)`, nats.

    They depend on the seed and the first row alone. Without any z there is no q.

    Args:
        program: As it was inspected.
        rows: The n rows of a block.
        num_particles: S.
        seed: Fixes the draws.
    """
    with reproducible(seed, STREAM, rows.start):
        if program.guide is not None:
            return program.propose(rows, num_particles)
        z = program.propose_prior(rows, num_particles)
        return z, program.log_prior(z, rows, num_particles) if z else None


def weighed(program: Program, rows: range, num_particles: int, seed: int) -> Tensor:
    r"""Returns log w of what is `proposed` for a block, `(S, n)`, nats.

    .. math::
        \log w_{sn} = \log p(x_n, z_{sn}) - \log q(z_{sn} | x_n), \quad z_{sn} \sim q(z | x_n)

    Args:
        program: As it was inspected.
        rows: The n rows.
        num_particles: S.
        seed: Fixes the draws.
    """
    z, log_q = proposed(program, rows, num_particles, seed)
    with reproducible(seed, STREAM, rows.start):
        size = max(1, at_once(program, torch.get_num_threads()) // len(rows))
        parts = [slice(i, min(i + size, num_particles)) for i in range(0, num_particles, size)]
        log_w = torch.cat(
            [
                program.log_joint({n: v[p] for n, v in z.items()}, rows, p.stop - p.start)
                for p in parts
            ]
        )
        log_w = (log_w if log_q is None else log_w - log_q).cpu().double()
    check_weights(log_w, rows)
    return log_w


class Annealed(NamedTuple):
    """Data of a block that were annealed.

    Attributes:
        members: The m data, by their places in it.
        z: Where particles ended by site, `(M, ..., event)`.
        log_w: Their log-weights, `(M, m)`, nats.
    """

    members: list[int]
    z: Values
    log_w: Tensor


@dataclass(frozen=True)
class Annealer:
    """Anneals the data of a program whose draws from the guide are not to be trusted.

    Attributes:
        program: As it was inspected.
        num_temperatures: T.
        num_particles: Of each such datum.
        seed: Fixes the draws.
    """

    program: Program
    num_temperatures: int
    num_particles: int
    seed: int

    @cached_property
    def kernel(self) -> Kernel | None:
        """Transitions, tuned on a pilot; `None` of what cannot be annealed."""
        if not (self.num_temperatures and self.program.selects_rows):
            return None
        with reproducible(self.seed, STREAM + 1):
            try:
                path_of(self.program, range(1), None).base.check_gradient()
            except ValueError:
                return None
        return tune(self.program, self.num_temperatures, "tuned", 2, self.seed, None)

    def __call__(self, rows: range, members: list[int]) -> Annealed | None:
        """Returns draws of some data of a block, or `None` where they cannot be had.

        Args:
            rows: Of the block.
            members: The m data, by their places in it.
        """
        if not members or self.kernel is None:
            return None
        with reproducible(self.seed, STREAM + 1, rows.start):
            program = self.program.select([rows[i] for i in members])
            few = range(len(members))
            path = self.kernel.path(program, few)
            path.prepare()
        with reproducible(self.seed, STREAM + 2, rows.start):
            log_w, _, v = annealed(path, path.start(self.num_particles), self.kernel)
            u, base = path.outward(v), path.base
            z = (base.values if program.guide is None else base.latents)(u)[0]
            z = draw_summed(base.program, z, few, self.num_particles)
        check_weights(log_w, [rows[i] for i in members])
        return Annealed(members, z, log_w)


def drawn(
    program: Program, rows: range, num_particles: int, seed: int, found: Annealed | None
) -> Values:
    """Returns draws of a block's latents by site, `(S, ..., event)`: the same in every call.

    Those of annealed data stand first, where the weights of their other draws are 0.

    Args:
        program: As it was inspected.
        rows: The n rows.
        num_particles: S.
        seed: Fixes the draws.
        found: What was annealed of the block.
    """
    z, _ = proposed(program, rows, num_particles, seed)
    with reproducible(seed, STREAM + 3, rows.start):
        z = draw_summed(program, z, rows, num_particles)
    sites = [s for s in program.sites.model if s["name"] in z]
    z = {s["name"]: z[s["name"]] for s in sites}
    if found:
        for site in sites:
            name, axis = site["name"], program.sites.axis(site)
            ours, theirs = z[name].clone(), found.z[name].movedim(axis, 1)
            ours.movedim(axis, 1)[: len(theirs), found.members] = theirs[:, : len(found.members)]
            z[name] = ours
    return z
