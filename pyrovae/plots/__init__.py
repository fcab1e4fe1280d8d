"""Pictures of programs and results: take numbers, return Figures. Alone touches matplotlib."""

from pyrovae.plots.curves import bars, histograms, lines, training
from pyrovae.plots.evidence import against, calibration, convergence, differences, histogram, khats
from pyrovae.plots.figures import as_url, save
from pyrovae.plots.intervals import intervals
from pyrovae.plots.models import images, latent_space, manifold, principal_axes
from pyrovae.plots.planes import planes
from pyrovae.plots.plates import mermaid, plates

__all__ = [
    "against",
    "as_url",
    "bars",
    "calibration",
    "convergence",
    "differences",
    "histogram",
    "histograms",
    "images",
    "intervals",
    "khats",
    "latent_space",
    "lines",
    "manifold",
    "mermaid",
    "planes",
    "plates",
    "principal_axes",
    "save",
    "training",
]
