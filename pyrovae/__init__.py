"""Variational autoencoders as Pyro programs, and log P(X) of held-out data with honest errors."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers see of the names that are loaded below
    from pyrovae import data as data
    from pyrovae import diagnostics as diagnostics
    from pyrovae import evidence as evidence
    from pyrovae import export as export
    from pyrovae import guides as guides
    from pyrovae import likelihoods as likelihoods
    from pyrovae import models as models
    from pyrovae import nn as nn
    from pyrovae import plots as plots
    from pyrovae import priors as priors
    from pyrovae import program as program
    from pyrovae import runs as runs
    from pyrovae import sklearn as sklearn
    from pyrovae import storage as storage
    from pyrovae import svi as svi
    from pyrovae.certificate import Certificate as Certificate
    from pyrovae.certificate import certify as certify
    from pyrovae.diagnostics import psis as psis
    from pyrovae.evidence.calibration import Calibration as Calibration
    from pyrovae.evidence.calibration import calibrate as calibrate
    from pyrovae.evidence.comparison import Comparison as Comparison
    from pyrovae.evidence.comparison import compare as compare
    from pyrovae.evidence.estimators.ais import AIS as AIS
    from pyrovae.evidence.estimators.base import Estimator as Estimator
    from pyrovae.evidence.estimators.best import Best as Best
    from pyrovae.evidence.estimators.exact import Exact as Exact
    from pyrovae.evidence.estimators.importance import ELBO as ELBO
    from pyrovae.evidence.estimators.importance import IWAE as IWAE
    from pyrovae.evidence.estimators.importance import Importance as Importance
    from pyrovae.evidence.estimators.importance import Jackknife as Jackknife
    from pyrovae.evidence.estimators.naive import Naive as Naive
    from pyrovae.evidence.estimators.quadrature import Quadrature as Quadrature
    from pyrovae.evidence.estimators.sandwich import Sandwich as Sandwich
    from pyrovae.evidence.evaluate import evaluate as evaluate
    from pyrovae.evidence.results import Evidence as Evidence
    from pyrovae.evidence.samplers.annealing import ais as ais
    from pyrovae.evidence.samplers.bdmc import Bounds as Bounds
    from pyrovae.evidence.samplers.bdmc import bdmc as bdmc
    from pyrovae.evidence.samplers.distortion import RateDistortion as RateDistortion
    from pyrovae.evidence.samplers.distortion import rate_distortion as rate_distortion
    from pyrovae.evidence.samplers.importance import importance_sampling as importance_sampling
    from pyrovae.evidence.samplers.importance import prior_sampling as prior_sampling
    from pyrovae.evidence.samplers.laplace import Laplace as Laplace
    from pyrovae.evidence.samplers.proposals import Defensive as Defensive
    from pyrovae.evidence.samplers.proposals import Refined as Refined
    from pyrovae.evidence.samplers.proposals import Widened as Widened
    from pyrovae.evidence.samplers.quadrature import quadrature as quadrature
    from pyrovae.evidence.weights import LogWeights as LogWeights
    from pyrovae.export import to_arviz as to_arviz
    from pyrovae.latents.summary import Latent as Latent
    from pyrovae.latents.summary import latent as latent
    from pyrovae.models.autoencoder import AutoEncoder as AutoEncoder
    from pyrovae.models.base import Model as Model
    from pyrovae.models.bayesian_mixture import BayesianGaussianMixture as BayesianGaussianMixture
    from pyrovae.models.conv import ConvVAE as ConvVAE
    from pyrovae.models.cvae import CVAE as CVAE
    from pyrovae.models.hierarchical import HierarchicalVAE as HierarchicalVAE
    from pyrovae.models.linear import LinearGaussian as LinearGaussian
    from pyrovae.models.mixture import GaussianMixture as GaussianMixture
    from pyrovae.models.not_at_random import NotMIWAE as NotMIWAE
    from pyrovae.models.semi_supervised import SemiSupervisedVAE as SemiSupervisedVAE
    from pyrovae.models.table import TableVAE as TableVAE
    from pyrovae.models.vae import VAE as VAE
    from pyrovae.posteriors.anomalies import Anomalies as Anomalies
    from pyrovae.posteriors.anomalies import anomalies as anomalies
    from pyrovae.posteriors.classes import classify as classify
    from pyrovae.posteriors.classified import Classified as Classified
    from pyrovae.posteriors.draws import Draws as Draws
    from pyrovae.posteriors.draws import posterior as posterior
    from pyrovae.posteriors.generation import Generated as Generated
    from pyrovae.posteriors.generation import generate as generate
    from pyrovae.posteriors.given_rest import GivenRest as GivenRest
    from pyrovae.posteriors.given_rest import given_rest as given_rest
    from pyrovae.posteriors.imputation import Imputed as Imputed
    from pyrovae.posteriors.imputation import impute as impute
    from pyrovae.posteriors.ordering import Ordered as Ordered
    from pyrovae.posteriors.ordering import order as order
    from pyrovae.posteriors.regression import Regressed as Regressed
    from pyrovae.posteriors.regression import regress as regress
    from pyrovae.program import Check as Check
    from pyrovae.program import check as check
    from pyrovae.runs.saving import load as load
    from pyrovae.runs.saving import save as save
    from pyrovae.svi.objectives import Objective as Objective

__version__ = "0.1.0"

_NAMES = {
    "AIS": "evidence.estimators.ais",
    "Anomalies": "posteriors.anomalies",
    "anomalies": "posteriors.anomalies",
    "Classified": "posteriors.classified",
    "classify": "posteriors.classes",
    "GivenRest": "posteriors.given_rest",
    "given_rest": "posteriors.given_rest",
    "BayesianGaussianMixture": "models.bayesian_mixture",
    "AutoEncoder": "models.autoencoder",
    "Best": "evidence.estimators.best",
    "Bounds": "evidence.samplers.bdmc",
    "Calibration": "evidence.calibration",
    "CVAE": "models.cvae",
    "ConvVAE": "models.conv",
    "Generated": "posteriors.generation",
    "generate": "posteriors.generation",
    "Imputed": "posteriors.imputation",
    "impute": "posteriors.imputation",
    "Regressed": "posteriors.regression",
    "regress": "posteriors.regression",
    "Ordered": "posteriors.ordering",
    "order": "posteriors.ordering",
    "Draws": "posteriors.draws",
    "posterior": "posteriors.draws",
    "Defensive": "evidence.samplers.proposals",
    "Certificate": "certificate",
    "Check": "program",
    "Comparison": "evidence.comparison",
    "ELBO": "evidence.estimators.importance",
    "Estimator": "evidence.estimators.base",
    "Evidence": "evidence.results",
    "Exact": "evidence.estimators.exact",
    "GaussianMixture": "models.mixture",
    "HierarchicalVAE": "models.hierarchical",
    "IWAE": "evidence.estimators.importance",
    "Importance": "evidence.estimators.importance",
    "Jackknife": "evidence.estimators.importance",
    "Laplace": "evidence.samplers.laplace",
    "Latent": "latents.summary",
    "latent": "latents.summary",
    "LinearGaussian": "models.linear",
    "LogWeights": "evidence.weights",
    "Model": "models.base",
    "Naive": "evidence.estimators.naive",
    "NotMIWAE": "models.not_at_random",
    "Objective": "svi.objectives",
    "Quadrature": "evidence.estimators.quadrature",
    "Refined": "evidence.samplers.proposals",
    "RateDistortion": "evidence.samplers.distortion",
    "rate_distortion": "evidence.samplers.distortion",
    "Sandwich": "evidence.estimators.sandwich",
    "SemiSupervisedVAE": "models.semi_supervised",
    "TableVAE": "models.table",
    "VAE": "models.vae",
    "Widened": "evidence.samplers.proposals",
    "ais": "evidence.samplers.annealing",
    "bdmc": "evidence.samplers.bdmc",
    "calibrate": "evidence.calibration",
    "certify": "certificate",
    "check": "program",
    "compare": "evidence.comparison",
    "evaluate": "evidence.evaluate",
    "importance_sampling": "evidence.samplers.importance",
    "load": "runs.saving",
    "prior_sampling": "evidence.samplers.importance",
    "psis": "diagnostics",
    "quadrature": "evidence.samplers.quadrature",
    "save": "runs.saving",
    "to_arviz": "export",
}
_MODULES = (
    "data",
    "diagnostics",
    "evidence",
    "export",
    "guides",
    "likelihoods",
    "models",
    "nn",
    "plots",
    "priors",
    "program",
)
_MODULES += ("runs", "sklearn", "storage", "svi")

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
