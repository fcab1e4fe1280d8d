"""Stochastic variational inference: `fit` trains any Pyro model and guide."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrovae.errors import Diverged as Diverged
    from pyrovae.svi.fitting import Fit as Fit
    from pyrovae.svi.fitting import fit as fit

__all__ = ["Diverged", "Fit", "fit"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Loads `fit` when asked for: the command line's `--help` must not wait for torch."""
    if name in __all__:
        return getattr(import_module("pyrovae.svi.fitting"), name)
    raise AttributeError(f"module 'pyrovae.svi' has no attribute {name!r}")
