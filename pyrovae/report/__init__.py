"""One self-contained HTML page of a run."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrovae.report.page import render as render
    from pyrovae.report.page import write as write

__all__ = ["render", "write"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Loads what makes pages when it is first asked for, so that --help stays light."""
    if name in __all__:
        return getattr(import_module("pyrovae.report.page"), name)
    raise AttributeError(f"module 'pyrovae.report' has no attribute {name!r}")
