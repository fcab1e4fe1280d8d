"""How much a code says of which datum it is of, and how far all codes together are from P(z)."""

__all__ = ["Information", "information"]

from dataclasses import dataclass
from math import log, sqrt

import torch
from torch import Tensor

from pyrovae.equality import ByContent
from pyrovae.program import Program, given_to_others, reproducible

STREAM = 22  # of random numbers
NUMBERS = 2**22  # of a table of latents, at most
TOGETHER = 256  # data whose draws are scored at once, at most


@dataclass(frozen=True, repr=False, eq=False)
class Information(ByContent):
    r"""Mutual information of x and z under Q(z|X), from N data: both bounds of it, nats.

    .. math::
        I = \mathrm{E}_x \mathrm{KL}(q(z|x) \,\|\, q(z)), \quad q(z) = \mathrm{E}_x\, q(z|x)

    Attributes:
        lower: Of each datum, `(N,)`: their mean is in expectation at most I and never above
            log N. It is the information between z and the number of the datum among these N,
            whose aggregated posterior is the mixture of their N posteriors.
        upper: Of each datum, `(N,)`: the mean is in expectation at least I.
        one_prior: Whether P(z) is the same for all data, tried on some: the rate less I is then
            KL(q(z) || p(z)).
    """

    lower: Tensor
    upper: Tensor
    one_prior: bool

    @property
    def most(self) -> float:
        """Log N, which `lower` cannot exceed."""
        return log(len(self.lower))

    def bounds(self) -> tuple[float, float]:
        """Returns the means of both bounds, nats."""
        return self.lower.mean().item(), self.upper.mean().item()

    def errors(self) -> tuple[float, float]:
        """Returns standard errors of both means, over data, nats."""
        size = sqrt(len(self.lower))
        return self.lower.std().item() / size, self.upper.std().item() / size


def information(program: Program, num_data: int, seed: int) -> Information | None:
    r"""Returns both bounds of the mutual information, from one draw of each datum's guide.

    .. math::
        \log\frac{q(z_n|x_n)}{\tfrac1N \sum_m q(z_n|x_m)} \quad\mathrm{and}\quad
        \log\frac{q(z_n|x_n)}{\tfrac1{N-1} \sum_{m \ne n} q(z_n|x_m)}

    `None` where a guide's density is known at its own draws alone, data share latents, or there
    are fewer than two data.

    Args:
        program: With a guide, evaluated in blocks.
        num_data: N, the first of the data.
        seed: Fixes the draws.

    References:
        ELBO surgery: yet another way to carve up the variational evidence lower bound (Hoffman
        and Johnson, 2016), http://approximateinference.org/accepted/HoffmanJohnson2016.pdf
        On variational bounds of mutual information (Poole et al., 2019), sections 2.1 and 2.3,
        https://arxiv.org/abs/1905.06922
    """
    blocks = [b for b in program.blocks(program.block_size) if b.start < num_data]
    if program.sites.common_latents or num_data < 2:
        return None
    try:
        own, others = _scored(program, blocks, num_data, seed)
    except (KeyError, NotImplementedError):  # as of a flow without an inverse
        return None
    every = torch.logaddexp(own, others)
    lower, upper = own - every + log(num_data), own - others + log(num_data - 1)
    return Information(lower, upper, _same_prior(program, blocks[0], seed))


def _scored(
    program: Program, blocks: list[range], num_data: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Returns log q(z_n|x_n), and log of the sum of q(z_n|x_m) over all others, `(N,)` each.

    Args:
        program: As of `information`.
        blocks: Of rows, that hold the first N.
        num_data: N.
        seed: Fixes the draws.
    """
    own, others = [], []
    for block in blocks:
        with reproducible(seed, STREAM, block.start):
            z, _ = program.propose(block, 1)
            width = sum(v[0].numel() for v in z.values()) // len(block)
            step = min(TOGETHER, max(1, NUMBERS // (program.block_size * width)))
            last = min(len(block), num_data - block.start)
            for start in range(0, last, step):
                which = range(start, min(start + step, last))
                at = torch.arange(len(which))
                same = at, at + block.start + which.start
                found = []
                for rows in blocks:
                    given = given_to_others(program, z, which, rows)
                    found.append(program.log_guide(given, rows, len(which)).double().cpu())
                table = torch.cat(found, 1)[:, :num_data]
                own.append(table[same])
                table[same] = -torch.inf
                others.append(table.logsumexp(1))
    return torch.cat(own), torch.cat(others)


def _same_prior(program: Program, rows: range, seed: int) -> bool:
    """Returns whether P(z) is the same for some data: tried at draws of theirs.

    Args:
        program: As of `information`.
        rows: The data.
        seed: Fixes the draws.
    """
    with reproducible(seed, STREAM, rows.start):
        z, _ = program.propose(rows, 1)
        first = given_to_others(program, z, range(1), rows)
        log_p = program.log_prior(first, rows, 1)
    return torch.allclose(log_p, log_p[:, :1], rtol=1e-4, atol=1e-4)
