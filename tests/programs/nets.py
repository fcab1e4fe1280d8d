"""The networks that the programs share."""

import itertools

from torch import nn


def mlp(*sizes):
    """A network of these widths, tanh between them."""
    widths = itertools.pairwise(sizes)
    layers = [layer for a, b in widths for layer in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1])
