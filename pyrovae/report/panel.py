"""What the page of a run is made of: panels, each of which knows what it needs and shows."""

__all__ = ["Panel", "Picture", "Shown", "arranged", "file_text", "filled", "known"]

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar

import torch
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from torch import Tensor

from pyrovae.data import Split
from pyrovae.evidence.estimate import Estimate
from pyrovae.evidence.results import Evidence
from pyrovae.latents.summary import Latent, latent
from pyrovae.likelihoods import Column, Columns
from pyrovae.models.base import Model
from pyrovae.plots.figures import Figure, as_url
from pyrovae.registry import enter, find, import_all
from pyrovae.report.words import number
from pyrovae.runs.pictures import can
from pyrovae.runs.saving import Pair

PANELS = "pyrovae.report.panels"  # the package of ours
ROWS = 15_000  # of data that a page shows, at most
CODES = 1_000  # whose latents are looked at, at most
Json = Mapping[str, object] | None
_known: dict[str, type["Panel"]] = {}


@dataclass(frozen=True)
class Shown:
    """The run that a page shows: what its panels draw from.

    Attributes:
        model: The trained model; `None` of a program.
        test: The data that the evidence is of, in its order.
        image_shape: `(height, width)` of a row of x; `None` where rows are no images.
        evidence: What `evaluate` found, nats; of a program without a log P(X) no estimates.
        history: ELBOs of training by name, a value an epoch, nats per datum.
        config: The run's options.
        name: Of the run.
        day: On which the evidence was computed.
        notes: What the run was trained with before it went on with these options.
        program: The (model, guide) of a program, or of the model.
    """

    model: Model | None
    test: Split
    image_shape: tuple[int, int] | None
    evidence: Evidence
    history: Mapping[str, Sequence[float]]
    config: Mapping[str, object]
    name: str
    day: date | None = None
    notes: Sequence[str] = ()
    program: Pair | None = None

    @cached_property
    def x(self) -> Tensor:
        """The first rows of x, `(n, ...)`: of data on disk no more is read."""
        return torch.as_tensor(self.test.x[:ROWS])

    @cached_property
    def y(self) -> Tensor | None:
        """Their labels, `(n,)`, where there are any."""
        return None if self.test.y is None else self.test.y[:ROWS]

    @property
    def first(self) -> Split:
        """The first rows, with what is more of all."""
        return Split(self.x, self.y, self.test.more)

    @cached_property
    def best(self) -> Estimate:
        """The estimate that answers the question, where there are estimates."""
        return self.evidence.best()

    @property
    def num_data(self) -> int:
        """N: data that the evidence is of; without any, of the test part."""
        return len(self.best.value if self.evidence.estimates else self.test.x)

    @property
    def shape(self) -> tuple[int, int] | None:
        """`(height, width)` in which a row of x is drawn: of a model's, if need be, as a strip."""
        return self.image_shape or ((1, self.x.shape[1]) if self.model else None)

    @property
    def columns(self) -> tuple[Column, ...]:
        """What the columns of x are, of a model of the rows of a table; of images none."""
        family = getattr(self.model, "likelihood", None)
        return family.columns if isinstance(family, Columns) and not self.image_shape else ()

    @property
    def pair(self) -> Pair | None:
        """Model and guide; `None` of a program that nobody gave."""
        return self.program or (self.model and (self.model.model, self.model.guide))

    @cached_property
    def latent(self) -> Latent | None:
        """What a model's codes of the first 1,000 data hold; `None` where there are none.

        Of a program that is drawn alone, what it learned need not be at hand.
        """
        if not (self.model and self.model.guide):
            return None
        data = (torch.as_tensor(a[:CODES]) for a in self.model.arrays(self.first))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the evaluation has warned already
            try:
                return latent(self.model.model, self.model.guide, *data, seed=0)
            except (TypeError, ValueError):
                return None

    def can(self, *protocols: type) -> bool:
        """Returns whether there is a model that can do all of that, and be drawn so.

        That is one of x alone, or for `Generates` one of x and y.

        Args:
            protocols: Of `pyrovae.models.base`.
        """
        return can(self.model, *protocols)


class Panel:
    """A section of the page.

    A new one is one subclass with a `name`, a `title` and `html`, in a module of its own or of a
    user's; once that is imported it is known by its name, and `--panels` and
    `pyrovae.report.write` put it on the page.

    Attributes:
        name: The name a user writes.
        title: The heading of the section.
        needs: What the model has to be able to do: protocols of `pyrovae.models.base`.
        rank: Its place on the page, from the top: ours are 10, 20, ..., pictures 30.
        key: Under which its `data` are given to the script of the page; "" for none.
        anchor: The id of its heading, "" for one made of its name.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[type, ...]] = ()
    rank: ClassVar[int] = 35
    key: ClassVar[str] = ""
    anchor: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        """Makes the class known by its name, where it has one of its own.

        Raises:
            TypeError: If another class has that name.
        """
        enter(_known, cls)

    def has_what_it_needs(self, shown: Shown) -> bool:
        """Returns whether it stands on the page of this run; by default by what it `needs`."""
        return not self.needs or shown.can(*self.needs)

    def html(self, shown: Shown) -> str:
        """Returns what stands below its heading: HTML, without anything from elsewhere.

        What comes from a user's files is to be escaped, by `markupsafe.escape`.
        """
        raise NotImplementedError(f"the panel {self.name} shows nothing; define html(shown)")

    def data(self, shown: Shown) -> Json:
        """Returns what the script of the page reads, as JSON can hold it."""
        return None


class Picture(Panel):
    """A figure on the page, in one section with the others; its label is read to the blind.

    A new one is one subclass with a `name`, a `title` (its caption) and `figure`.
    """

    rank: ClassVar[int] = 30

    def figure(self, shown: Shown) -> Figure:
        """Returns the figure, its numbers in words as its label (`figure.set_label`)."""
        raise NotImplementedError(f"the picture {self.name} is none; define figure(shown)")

    def html(self, shown: Shown) -> str:
        """Returns the figure with its caption and its words."""
        figure = self.figure(shown)
        words = figure.get_label() or self.title
        return filled("picture.html", caption=self.title, url=as_url(figure), words=words)


def known(name: str) -> type[Panel]:
    """Returns the panel of a name, without importing anything but pyrovae's own.

    Raises:
        ValueError: If there is none.
    """
    import_all(PANELS)
    hint = "one of your own is known once its module is imported; on a command line name it, "
    return find(_known, name, "panel", f"{hint}--panels package.module.Class")


def arranged(more: Sequence[type[Panel] | Panel] = ()) -> list[Panel]:
    """Returns the panels of a page from top to bottom: all of ours, and more.

    Args:
        more: Classes or instances; one that is there already is not repeated.
    """
    import_all(PANELS)
    ours = [cls for cls in _known.values() if cls.__module__.startswith(f"{PANELS}.")]
    made = {type(p): p for p in (p() if isinstance(p, type) else p for p in (*ours, *more))}
    return sorted(made.values(), key=lambda panel: panel.rank)


@cache
def _environment() -> Environment:
    """Returns what fills in the templates of the page."""
    environment = Environment(loader=PackageLoader("pyrovae", "report"), autoescape=True)
    environment.filters["number"] = number
    return environment


def filled(template: str, **values: object) -> Markup:
    """Returns a template of the page with its values, which are escaped.

    Args:
        template: Name of the file.
        values: By the names that it has for them.
    """
    return Markup(_environment().get_template(template).render(**values))


def file_text(name: str) -> str:
    """Returns the text of a file beside this one."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
