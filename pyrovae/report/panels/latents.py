"""What each dimension of the latent space costs, and how much of it is in use."""

__all__ = ["Dimensions"]

from typing import ClassVar

from pyrovae.plots.figures import Figure, signed
from pyrovae.report.panel import Picture, Shown
from pyrovae.runs.latents import dimensions


class Dimensions(Picture):
    """KL(Q(z|X) || P(z)) by dimension, nats, active units, and the information of z and X."""

    name: ClassVar[str] = "dimensions"
    rank: ClassVar[int] = 31
    title: ClassVar[str] = "What each latent dimension costs: those of about 0 nats are not used."

    def has_what_it_needs(self, shown: Shown) -> bool:
        """Returns whether data of the run have latents of their own, and a guide for them."""
        return shown.latent is not None

    def figure(self, shown: Shown) -> Figure:
        """Returns the bars; the label has the other numbers."""
        assert shown.latent
        figure = dimensions(shown.latent)
        figure.set_label(signed(f"{figure.get_label()} {' '.join(shown.latent.reading())}"))
        return figure
