"""One self-contained HTML page of a run."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrovae.report.comparison import render_comparison as render_comparison
    from pyrovae.report.page import render as render
    from pyrovae.report.page import write as write
    from pyrovae.report.panel import Panel as Panel
    from pyrovae.report.panel import Picture as Picture
    from pyrovae.report.panel import Shown as Shown

_MODULES = {"render": "page", "write": "page", "render_comparison": "comparison"}

__all__ = ["Panel", "Picture", "Shown", "render", "render_comparison", "write"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Loads what makes pages when it is first asked for, so that --help stays light."""
    if name in __all__:
        return getattr(import_module(f"pyrovae.report.{_MODULES.get(name, 'panel')}"), name)
    raise AttributeError(f"module 'pyrovae.report' has no attribute {name!r}")
