"""log P(X) of held-out data: estimators, their tables of log-weights, and the verdict.

An evaluation goes one way, a module a step: `planning` says what is to be done, in blocks of data;
`blocks` computes them, by the `estimators`, which draw by the `samplers` and reduce `weights`; of
these become an `estimate` for each estimator, and `results`, the evidence. `evaluate` is the steps
in a row, and `cost` a prediction of what they take.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from pyrovae.evidence import blocks as blocks
    from pyrovae.evidence import calibration as calibration
    from pyrovae.evidence import comparison as comparison
    from pyrovae.evidence import confirmation as confirmation
    from pyrovae.evidence import cost as cost
    from pyrovae.evidence import estimate as estimate
    from pyrovae.evidence import estimators as estimators
    from pyrovae.evidence import evaluate as evaluate
    from pyrovae.evidence import planning as planning
    from pyrovae.evidence import results as results
    from pyrovae.evidence import samplers as samplers
    from pyrovae.evidence import weights as weights

__all__ = ["blocks", "calibration", "comparison", "confirmation", "cost", "estimate"]  # pyright: ignore[reportUnsupportedDunderAll]
__all__ += ["estimators", "evaluate", "planning", "results", "samplers", "weights"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> "ModuleType":
    """Loads a module when it is first asked for: `--help` of the command must not wait for it."""
    if name in __all__:
        return import_module(f"pyrovae.evidence.{name}")
    raise AttributeError(f"module 'pyrovae.evidence' has no attribute {name!r}")
