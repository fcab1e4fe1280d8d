"""Pictures of programs and results: take numbers, return Figures. Alone touches matplotlib."""

from pyrovae.plots.curves import bars, histograms, lines
from pyrovae.plots.plates import mermaid, plates
from pyrovae.plots.results import (
    against,
    as_url,
    calibration,
    convergence,
    histogram,
    images,
    khats,
    latent_space,
    manifold,
    principal_axes,
    save,
    training,
)

__all__ = [
    "against",
    "as_url",
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
    "principal_axes",
    "save",
    "training",
]
