"""Estimators of log p(x) as objects: a file for each kind, and what all of them share."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrovae.evidence.estimators.base import Estimator as Estimator
    from pyrovae.evidence.estimators.names import estimator as estimator

__all__ = ["Estimator", "estimator"]  # pyright: ignore[reportUnsupportedDunderAll]
_NAMES = {"Estimator": "base", "estimator": "names"}


def __getattr__(name: str) -> object:
    """Loads what is asked for, or a module of its own, when it is first asked for."""
    if name in _NAMES:
        return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
    if name.startswith("_") or find_spec(f"{__name__}.{name}") is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
