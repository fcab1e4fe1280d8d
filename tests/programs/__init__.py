"""Programs in the patterns of Pyro's own examples, each with its log p(x) found another way."""

from programs import (
    flows,
    globals,
    guides,
    mixtures,
    plates,
    refused,
    semi,
    sequences,
    topics,
    vae,
)
from programs.cases import CASES, Case

__all__ = [
    "CASES",
    "Case",
    "flows",
    "globals",
    "guides",
    "mixtures",
    "plates",
    "refused",
    "semi",
    "sequences",
    "topics",
    "vae",
]
