"""Pictures of programs and results: take numbers, return Figures. Alone touches matplotlib."""

from pyrovae.plots.curves import bars, histograms, lines
from pyrovae.plots.plates import mermaid, plates
from pyrovae.plots.results import (
    against,
    calibration,
    convergence,
    histogram,
    images,
    khats,
    latent_space,
    manifold,
    save,
    training,
)

__all__ = [
    "against",
    "bars",
    "calibration",
    "convergence",
    "histogram",
    "histograms",
    "images",
    "khats",
    "latent_space",
    "lines",
    "manifold",
    "mermaid",
    "plates",
    "save",
    "training",
]
