"""Stochastic variational inference: `fit` trains any Pyro model and guide.

What is maximised stands in `objectives`, the gradients of that in `gradients`, where batches come
from in `batches`, what goes on from epoch to epoch in `training`, and how several processes share
it in `distributed`; `fitting` puts them together.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrovae.errors import Diverged as Diverged
    from pyrovae.svi import objectives as objectives
    from pyrovae.svi.fitting import Fit as Fit
    from pyrovae.svi.fitting import fit as fit

__all__ = ["Diverged", "Fit", "fit", "objectives"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Loads `fit` when asked for: the command line's `--help` must not wait for torch."""
    if name == "objectives":
        return import_module("pyrovae.svi.objectives")
    if name in __all__:
        return getattr(import_module("pyrovae.svi.fitting"), name)
    raise AttributeError(f"module 'pyrovae.svi' has no attribute {name!r}")
