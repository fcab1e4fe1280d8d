"""Quasi-random draws: scrambled Sobol points in place of uniform numbers."""

__all__ = ["quasi_random"]

from collections.abc import Iterator

import torch
from torch.quasirandom import SobolEngine

from pyrovae.evidence.samplers.chunks import pieces
from pyrovae.evidence.samplers.scheme import RANDOMIZATIONS
from pyrovae.program import Program, Quantiles


def quasi_random(
    program: Program, rows: range, num_particles: int, most: int
) -> Iterator[tuple[int, Quantiles]]:
    r"""Yields numbers of draws, and the context that makes as many draws quasi-random.

    .. math::
        z_{sn} = F^{-1}(u_{sn}), \quad u_{sn} = t_s \oplus \Delta_n

    with F the proposal's distribution function, dimension by dimension, t a Sobol sequence with a
    random linear scrambling, and a digital shift (exclusive or of the digits) of each datum's
    own: the errors of different data are then independent. There are 16 randomizations of S / 16
    points each; their means are independent, and between them the standard error is taken.

    Args:
        program: Whose latents are drawn, d for each datum.
        rows: The n rows of a block.
        num_particles: S, a multiple of 16.
        most: Draws made at once at most.

    Raises:
        ValueError: If the program has no latents of each datum, or no particles in parallel.

    References:
        Quasi-Monte Carlo variational inference (Buchholz et al., 2018),
        https://arxiv.org/abs/1807.01604
        Scrambled Sobol' and Niederreiter-Xing points (Matousek, 1998),
        https://doi.org/10.1006/jcom.1998.0489
    """
    sites = program.sites
    own = sites.dim is not None and not sites.common_latents
    if not (program.particles.vectorized and own and program.latent_size):
        raise ValueError(
            "quasi-random draws need latents of each datum, in a data plate that is no loop, and "
            "a program that broadcasts over particles; this one has not: draw with qmc=False"
        )
    joint = program.plate is None
    num_data = program.batching.rows_of_run(rows)
    dims, digits = program.latent_size, 2**SobolEngine.MAXBIT
    for _ in range(RANDOMIZATIONS):
        sobol = SobolEngine(dims, scramble=True, seed=int(torch.randint(2**31, ())))
        shift = torch.randint(digits, (dims,) if joint else (num_data, dims))  # (n, d)
        for size in pieces(num_particles // RANDOMIZATIONS, most):
            points = (sobol.draw(size, dtype=torch.float64) * digits).long()  # (s, d)
            points = points.clamp(max=digits - 1)  # the first is made in float32, and may be 1
            mixed = (points if joint else points[:, None]) ^ shift  # (s, n, d)
            uniform = ((mixed.double() + 0.5) / digits).to(program.data[0].device)
            yield size, Quantiles(uniform, None if joint else sites.dim)
