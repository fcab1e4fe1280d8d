"""Random streams: fixed by a seed, and handed back to the caller as they were.

One seed gives many streams that are independent of each other, by numbers: of a part of the
computation, then of a block's first row. So a block's draws depend on neither the blocks before it
nor on who computes it.
"""

__all__ = ["draw_seed", "seeded", "stream_seed"]

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from pyrovae.checks import check_seed


@contextmanager
def seeded(seed: int | None, *stream: int) -> Iterator[None]:
    """Runs its body on torch streams fixed by `(seed, *stream)` alone.

    Bodies with other `stream` numbers draw independently. The caller's streams (CPU and CUDA) come
    back untouched. With `seed=None` the body draws from the caller's own stream, which moves on.

    Args:
        seed: Of the whole computation, or `None`.
        stream: Numbers of this part of it.

    Example:
        >>> with seeded(0, 1):
        ...     a = torch.randn(3)
        >>> with seeded(0, 1):
        ...     b = torch.randn(3)
        >>> torch.equal(a, b)
        True
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed(seed, *stream))
        yield


def stream_seed(seed: int, *stream: int) -> int:
    """Returns what torch is seeded with for the stream of these numbers, 0 to 2^63 - 1.

    NumPy's `SeedSequence` hashes the seed and the numbers, its `spawn_key`, so that neighbours are
    as unlike as any two.

    Args:
        seed: Of the whole computation.
        stream: Numbers of this part of it.

    References:
        https://numpy.org/doc/stable/reference/random/parallel.html
    """
    state = np.random.SeedSequence(seed, spawn_key=stream).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def draw_seed(seed: int | None) -> int:
    """Returns `seed`, or one drawn from torch's current stream where it is `None`.

    That stream then moves on by one number, so that calls without a seed differ.

    Args:
        seed: As the user gave it.

    Raises:
        ValueError: If it is no integer, or negative.
    """
    check_seed(seed)
    return int(torch.randint(2**31, ())) if seed is None else int(seed)
