"""The networks that the programs share."""

from torch import nn


def mlp(*sizes):
    """A network of these widths, tanh between them."""
    layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1])
