r"""Likelihoods P(X|z): one class a family, from a decoder's output f(z) to a distribution of X.

.. math::
    \log P(X \mid z) = \sum_{d=1}^{D} \log p(X_d; f_\theta(z)_d)

Given z the D dimensions are independent, so that a datum's log-probability is the sum over its
pixels, in nats: `likelihood(f).log_prob(x)` of f `(S, N, outputs * D)` and x `(N, D)` is `(S, N)`.
Of a family with a density in place of a probability, such as the Normal, it is the log of a
density: it may be positive, and changes with the units of X. Some densities have no upper bound:
a scale that goes to 0 makes data certain without end. They have a floor, and say so.
"""

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Column",
    "Columns",
    "Config",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Likelihood",
    "LogNormal",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "StudentT",
    "families",
    "family",
    "make",
]

from pyrovae.likelihoods.base import Config, Likelihood, families, family, make
from pyrovae.likelihoods.columns import Column, Columns
from pyrovae.likelihoods.single import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    LogNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)
