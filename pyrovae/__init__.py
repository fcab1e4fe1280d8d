"""Variational autoencoders as Pyro programs, and log P(X) of held-out data with honest errors."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "Bounds": "evidence.annealing",
    "Calibration": "evidence.calibration",
    "ConvVAE": "models.conv",
    "Defensive": "evidence.proposals",
    "Check": "program",
    "Evidence": "evidence.results",
    "LinearGaussian": "models.linear",
    "LogWeights": "evidence.weights",
    "Model": "models.base",
    "Refined": "evidence.proposals",
    "VAE": "models.vae",
    "Widened": "evidence.proposals",
    "ais": "evidence.annealing",
    "bdmc": "evidence.annealing",
    "calibrate": "evidence.calibration",
    "check": "program",
    "evaluate": "evidence.evaluate",
    "importance_sampling": "evidence.importance",
    "load": "saving",
    "prior_sampling": "evidence.importance",
    "psis": "diagnostics",
    "quadrature": "evidence.quadrature",
    "save": "saving",
    "to_arviz": "export",
}
_MODULES = (
    "data",
    "diagnostics",
    "evidence",
    "export",
    "likelihoods",
    "models",
    "nn",
    "plots",
    "program",
)
_MODULES += ("runs", "storage", "svi")

__all__ = ["__version__", *_MODULES, *_NAMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first asked for, so that `import pyrovae` stays light."""
    if name in _NAMES:
        return getattr(import_module(f"pyrovae.{_NAMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"pyrovae.{name}")
    raise AttributeError(f"module 'pyrovae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
