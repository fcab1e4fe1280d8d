"""Draws and log-densities from compiled graphs, each of one number of particles and rows.

Graphs are kept by the program, under a name, and are the same for all blocks; to other shapes than
theirs, the program answers as it is written. n are the rows of a block, S its particles.
"""

__all__ = ["guide_graph", "joint_graph", "likelihood_graph", "makes_draws"]

from collections.abc import Callable

import torch
from torch import Tensor

from pyrovae.evidence.samplers.scheme import Sampler
from pyrovae.program import Program, Values


def makes_draws(program: Program, rows: range) -> bool:
    """Returns whether a graph may make a block's draws: of no other shape are they the same.

    Args:
        program: The pair; where it is not compiled, there is no graph.
        rows: The n rows of the block, as many as a full block has or fewer.
    """
    return program.is_compiled and len(rows) == program.block_size


def guide_graph(program: Program, rows: range, most: int) -> Sampler:
    """Returns what draws from the guide, by a graph where it is asked for as many as `most`.

    Args:
        program: The pair and its data.
        rows: The n rows of a full block.
        most: S of the graph.

    Returns:
        A function of S that gives z by site, `(S, ..., event)`, and log q(z|x), `(S, n)`, nats.
    """
    block = program.padded(rows)

    def propose(data: tuple[Tensor, ...]) -> tuple[Values, Tensor]:
        return block.on(data).propose(range(len(rows)), most)

    def draw(num_particles: int) -> tuple[Values, Tensor]:
        if num_particles != most:
            return program.propose(rows, num_particles)
        return block.captured(f"{most} draws of q(z|x)", propose)

    return draw


def likelihood_graph(program: Program, rows: range, most: int) -> Callable[[int], Tensor]:
    """Returns what gives log p(x|z) at draws of the prior, by a graph where they are `most`.

    Args:
        program: The model and its data.
        rows: The n rows of a full block.
        most: S of the graph.

    Returns:
        A function of S that gives log p(x|z), `(S, n)`, nats.
    """
    block = program.padded(rows)

    def log_likelihood(data: tuple[Tensor, ...]) -> Tensor:
        return block.on(data).log_likelihood(range(len(rows)), most)

    def score(num_particles: int) -> Tensor:
        if num_particles != most:
            return program.log_likelihood(rows, num_particles)
        return block.captured(f"log p(x|z) of {most} draws", log_likelihood)

    return score


def joint_graph(
    program: Program, rows: range, chunk: int
) -> Callable[[Values, range, int], Tensor]:
    """Returns what `Program.log_joint` does, from a graph of full blocks and chunks.

    z, `(s, ..., event)` by site, is filled up to that shape, and what is too much of log p(x, z)
    left out.

    Args:
        program: The pair and its data.
        rows: The n rows of a block, most of a full one.
        chunk: Particles of the graph.

    Returns:
        A function of z, the rows and s that gives log p(x, z), `(s, n)`, nats.
    """
    block = program.padded(rows)

    def log_joint(data: tuple[Tensor, ...], z: Values) -> Tensor:
        return block.on(data).log_joint(z, range(program.block_size), chunk)

    def score(z: Values, rows: range, num_particles: int) -> Tensor:
        filled = {name: _filled(value, 0, chunk) for name, value in z.items()}
        for s in program.sites.guide if program.plate else ():
            if s["name"] in filled and not program.sites.common(s):
                value = filled[s["name"]]
                axis = value.ndim + program.sites.axis(s)
                filled[s["name"]] = _filled(value, axis, program.block_size)
        log_p = block.captured(f"log p(x, z) of {chunk} draws", log_joint, filled)
        log_p = log_p[:num_particles]  # (s, step)
        return log_p[:, : len(rows)] if program.plate else log_p

    return score


def _filled(x: Tensor, axis: int, size: int) -> Tensor:
    """Returns x with the last of an axis repeated until there are `size`."""
    length = x.shape[axis]
    if length == size:
        return x
    return x.index_select(axis, torch.arange(size, device=x.device).clamp(max=length - 1))
