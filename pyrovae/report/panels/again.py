"""How the numbers are made again."""

__all__ = ["Again"]

from typing import ClassVar

from pyrovae.report.panel import Panel, Shown, filled
from pyrovae.report.words import commands


class Again(Panel):
    """The commands that make the numbers of the page again, and the run's options."""

    name: ClassVar[str] = "again"
    title: ClassVar[str] = "Run it again"
    rank: ClassVar[int] = 50
    anchor: ClassVar[str] = "again"

    def html(self, shown: Shown) -> str:
        """Returns the commands and the options."""
        lines = commands(shown.name, shown.evidence, shown.config, shown.notes)
        return filled("again.html", commands=lines, config=shown.config)
