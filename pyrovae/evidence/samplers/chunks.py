"""How many particles to draw, and to decode, at once: as many as caches and memory hold."""

__all__ = ["at_once", "drawn_at_once", "pieces"]

import os
from collections.abc import Iterator
from math import ceil

from pyrovae.program import Program

CHUNK_SIZE = 4096  # particles x data decoded at once where their draws are made with them, and
NUMBERS = 2**24  # how many numbers those may be
CACHE = 2**20  # bytes of a core's second-level cache, where the system names none
PROPOSED = 2**18  # numbers proposed at once, over particles, data and latent dimensions,
DECODED = 4096  # or, where they are many, particles x data


def at_once(program: Program, num_threads: int) -> int:
    """Returns how many particles x data to decode at once: so many stay in the cores' caches.

    Draws of the prior depend on it where data do not share them: it then is the same everywhere.

    Args:
        program: Whose sizes of x and z count.
        num_threads: Cores that decode.
    """
    size = max(program.event_size, program.latent_size, 1)
    if program.guide is None:
        return max(1, min(CHUNK_SIZE, int(NUMBERS / size)))
    try:
        cache = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        cache = 0
    kept = 1 if not program.is_compiled else 0.5  # arrays of theirs in use at a time
    return max(1, int(num_threads * (cache or CACHE) / (4 * size * kept)))


def drawn_at_once(program: Program, num_data: int, chunk_size: int) -> tuple[int, int]:
    """Returns how many particles to propose for so many data at once, and how many to decode.

    The first does not depend on `chunk_size`, and with it no draw.

    Args:
        program: Whose latent dimensions count.
        num_data: n, rows of a block.
        chunk_size: Particles x data to decode at once, about.
    """
    numbers = num_data * max(1, program.latent_size)
    most = max(PROPOSED // numbers, DECODED // num_data, 1)
    return most, ceil(most / ceil(most * num_data / chunk_size))


def pieces(total: int, size: int) -> Iterator[int]:
    """Yields `size`, at least 1, as often as it fits into `total`, then the rest.

    Args:
        total: What all pieces add up to.
        size: Of a piece.
    """
    size = max(1, size)
    yield from [size] * (total // size)
    if total % size:
        yield total % size
