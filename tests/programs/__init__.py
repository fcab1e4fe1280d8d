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
from programs.cases import MADE, Case

__all__ = ["CASES", "FAMILIES", "Case"]

FAMILIES = (vae, semi, flows, sequences, topics, mixtures, globals, guides, plates, refused)
CASES = [case for f in FAMILIES for case in MADE if case.make.__module__ == f.__name__]
