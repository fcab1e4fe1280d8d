"""How the answer is to be read: sentences, the table of estimates, the protocol."""

__all__ = ["Reading"]

from typing import ClassVar

from pyrovae.plots.figures import signed
from pyrovae.report.panel import Panel, Shown, filled


class Reading(Panel):
    """The sentences on the answer, all estimates in nats per datum, and what they depend on."""

    name: ClassVar[str] = "reading"
    title: ClassVar[str] = "How to read it"
    rank: ClassVar[int] = 10
    anchor: ClassVar[str] = "reading"

    def has_what_it_needs(self, shown: Shown) -> bool:
        """Returns whether there are estimates."""
        return bool(shown.evidence.estimates)

    def html(self, shown: Shown) -> str:
        """Returns the sentences, the table and the protocol."""
        lines = signed(shown.evidence.reading()).splitlines()[1:-1]  # the head says the others
        evidence = shown.evidence
        return filled("reading.html", lines=lines, evidence=evidence, rows=evidence.rows())
