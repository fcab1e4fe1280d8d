"""The pictures of a run: estimates, training, data and what the model makes of them, diagram."""

__all__ = [
    "Conditions",
    "Estimates",
    "Intervals",
    "Program",
    "Reconstructions",
    "Samples",
    "Training",
]

from typing import ClassVar

import torch
from torch import Tensor

from pyrovae import plots
from pyrovae.certificate import Certificate
from pyrovae.evidence.results import Evidence
from pyrovae.models.base import Decodes, Encodes, Generates, HasPrior
from pyrovae.plots.figures import Figure, signed
from pyrovae.report.panel import Picture, Shown
from pyrovae.runs.pictures import conditions, reconstructions, samples, training


class Estimates(Picture):
    """Estimates against the number of draws, nats per datum."""

    name: ClassVar[str] = "evidence"
    title: ClassVar[str] = "Estimates against the number of draws: flat is done, rising is not."

    def has_what_it_needs(self, shown: Shown) -> bool:
        """Returns whether there are estimates with fewer draws."""
        return bool(shown.evidence.num_samples)

    def figure(self, shown: Shown) -> Figure:
        """Returns the curves."""
        return plots.convergence(shown.evidence)


class Intervals(Picture):
    """Both bounds of log p(x) of each datum, nats."""

    name: ClassVar[str] = "intervals"
    title: ClassVar[str] = (
        "log p(x) of each datum between its bounds, and how far these are apart."
    )

    def has_what_it_needs(self, shown: Shown) -> bool:
        """Returns whether there are bounds from both sides."""
        return bool(Certificate.all_in(shown.evidence))

    def figure(self, shown: Shown) -> Figure:
        """Returns the picture of the first of them."""
        return plots.intervals(next(iter(Certificate.all_in(shown.evidence).values())))


class Training(Picture):
    """The ELBO by epoch, nats per datum."""

    name: ClassVar[str] = "training"
    title: ClassVar[str] = "What SVI raises, epoch by epoch."

    def has_what_it_needs(self, shown: Shown) -> bool:
        """Returns whether there is a history."""
        return bool(shown.history.get("elbo"))

    def figure(self, shown: Shown) -> Figure:
        """Returns the curves of training and validation data."""
        return training(shown.history, shown.evidence)


class OfImages(Picture):
    """A picture of data, which are images or can be drawn as strips; rows of tables cannot."""

    def has_what_it_needs(self, shown: Shown) -> bool:
        """Returns whether the model can do what is drawn, and data are no rows of a table."""
        return super().has_what_it_needs(shown) and not shown.columns


class Reconstructions(OfImages):
    """Twelve data, and E[X|z] at the mean of Q(z|X)."""

    name: ClassVar[str] = "reconstructions"
    title: ClassVar[str] = "Test data, and what P(X|z) makes of the mean of Q(z|X)."
    needs: ClassVar[tuple[type, ...]] = (Encodes, Decodes)

    def figure(self, shown: Shown) -> Figure:
        """Returns two rows of images; the label has their log p(x) and labels."""
        assert shown.shape
        figure = reconstructions(shown.model, shown.x, shown.shape)
        of_first = _of_first(shown.evidence, shown.y)
        figure.set_label(signed(f"{figure.get_label()}{of_first}"))
        return figure


class Samples(OfImages):
    """E[X|z] for 36 draws of the prior."""

    name: ClassVar[str] = "samples"
    title: ClassVar[str] = "E[X|z] for z from the prior: no encoder takes part."
    needs: ClassVar[tuple[type, ...]] = (HasPrior, Decodes)

    def figure(self, shown: Shown) -> Figure:
        """Returns three rows of images."""
        assert shown.shape
        return samples(shown.model, shown.x, shown.shape)


class Conditions(OfImages):
    """Data, and of the Y of each E[X|Y] and draws of X ~ P(X|Y)."""

    name: ClassVar[str] = "conditions"
    title: ClassVar[str] = "Test data, and what is drawn given their Y: no encoder takes part."
    needs: ClassVar[tuple[type, ...]] = (Generates,)

    def figure(self, shown: Shown) -> Figure:
        """Returns five rows of images."""
        assert shown.shape
        assert shown.y is not None
        return conditions(shown.model, shown.x, shown.y, shown.shape)


class Program(Picture):
    """The plate diagram of model and guide."""

    name: ClassVar[str] = "program"
    title: ClassVar[str] = (
        "The program, from what running it shows: what is observed is shaded, dots are "
        "parameters, the plate says N times."
    )

    def has_what_it_needs(self, shown: Shown) -> bool:
        """Returns whether the program is at hand."""
        return shown.pair is not None

    def figure(self, shown: Shown) -> Figure:
        """Returns the diagram of a run on as many rows as the evidence is of, or would be."""
        assert shown.pair
        arrays = shown.model.arrays(shown.first) if shown.model else shown.first.arrays
        n = shown.num_data  # for the N of the plate
        data = (torch.as_tensor(a[:1]) for a in arrays)
        return plots.plates(*shown.pair, *(a.expand(n, *a.shape[1:]) for a in data))


def _of_first(evidence: Evidence, y: Tensor | None) -> str:
    """Returns what is known of the first twelve data, in words: log p(x) in nats, and labels.

    Args:
        evidence: Whose best estimate is told, where there is one.
        y: Labels, `(n,)`, or `None`.
    """
    text = ""
    if evidence.estimates:
        values = evidence.best().value[:12].tolist()
        text = f" Their log p(x): {', '.join(f'{v:.1f}' for v in values)}."
    if y is not None:
        text += f" Their labels: {', '.join(map(str, y[:12].tolist()))}."
    return text
