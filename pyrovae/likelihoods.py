r"""Likelihoods P(X|z): one class a family, from a decoder's output f(z) to a distribution of X.

.. math::
    \log P(X \mid z) = \sum_{d=1}^{D} \log p(X_d; f_\theta(z)_d)

Given z the D dimensions are independent, so that a datum's log-probability is the sum over its
pixels, in nats: `likelihood(f).log_prob(x)` of f `(S, N, outputs * D)` and x `(N, D)` is `(S, N)`.
Of a family with a density in place of a probability, the Normal and the continuous Bernoulli, it
is the log of a density: it may be positive, and changes with the units of X.
"""

__all__ = ["Bernoulli", "ContinuousBernoulli", "Likelihood", "Normal", "families", "make"]

from math import expm1, log
from typing import Any, ClassVar, TypeAlias

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.registry import enter, find

Config: TypeAlias = dict[str, Any]  # arguments of a constructor, as JSON can hold them
families: dict[str, type["Likelihood"]] = {}


class Likelihood(torch.nn.Module):
    r"""A family P(X|z): maps a decoder's output to a distribution over X, one event dimension.

    A new family is one subclass with a `name` and a `forward`; it is then known by that name
    everywhere. A subclass without a name of its own is known by none. Arguments of its
    constructor come back from `config`. Parameters of its own are learned with the decoder's.

    Attributes:
        name: The name a user writes.
        outputs: Decoder outputs per data dimension, such as 2 for a mean and a scale each.

    Example:
        >>> p = make("bernoulli")(torch.zeros(7, 3))  # of f = 0, P(X = 1 | z) = 1/2
        >>> p.log_prob(torch.ones(7, 3)).exp()[0]  # 1/2 to the third
        tensor(0.1250)
    """

    name: ClassVar[str]
    outputs: ClassVar[int] = 1

    def __init_subclass__(cls) -> None:
        """Adds the class to `families`, where it has a name of its own.

        Raises:
            TypeError: If another class has that name.
        """
        super().__init_subclass__()
        enter(families, cls)

    def config(self) -> Config:
        """Returns the constructor's arguments, as JSON can hold them."""
        return {}

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns P(X|z) of a decoder's outputs.

        Args:
            f: `(..., outputs * D)`, any numbers.

        Returns:
            A Pyro distribution of batch shape `(...)` and event shape `(D,)`; its `log_prob` of
            X `(..., D)` is in nats, `(...)`, summed over the D dimensions.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no P(X|z); define forward(self, f), from decoder outputs "
            "f to a Pyro distribution with one event dimension"
        )

    def start(self, mean: Tensor) -> Tensor:
        """Returns the decoder's first bias, `(outputs * D,)`, for data of this mean `(D,)`.

        With it X begins at its mean, and SVI need not find that first. By default it is 0.
        """
        return mean.new_zeros(self.outputs * len(mean))


class Bernoulli(Likelihood):
    r"""P(X|z) = Bernoulli(X; logits f(z)), for X in {0, 1}; log-probabilities in nats.

    .. math::
        \log P(X \mid z) = \sum_d X_d f_d - \log(1 + e^{f_d}) \le 0

    Logits, because probabilities are clamped: `Bernoulli(probs=sigmoid(-100))` gives
    log P(1) = -15.94 where -100 is true. Grey X have no probability under it: binarize them, or
    take `ContinuousBernoulli`.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), appendix C.1,
        https://arxiv.org/abs/1312.6114
    """

    name = "bernoulli"

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns Bernoulli(logits=f) for f `(..., D)`: event shape `(D,)`."""
        return dist.Bernoulli(logits=f).to_event(1)

    def start(self, mean: Tensor) -> Tensor:
        """Returns logit(mean), `(D,)`, with the mean kept inside [0.001, 0.999].

        References:
            Importance weighted autoencoders (Burda, Grosse and Salakhutdinov, 2015), whose code
            does so, https://arxiv.org/abs/1509.00519
        """
        return torch.logit(mean.clamp(0.001, 0.999))


class ContinuousBernoulli(Bernoulli):
    r"""P(X|z) = CB(X; logits f(z)), a normalised density for grey X in [0, 1]; in nats.

    .. math::
        \log p(X \mid z) = \sum_d \log C(\lambda_d) + X_d \log \lambda_d
            + (1 - X_d) \log(1 - \lambda_d), \quad \lambda_d = 1 / (1 + e^{-f_d}), \quad
        C(\lambda) = \frac{2\, \mathrm{artanh}(1 - 2\lambda)}{1 - 2\lambda}

    C is what the Bernoulli lacks where X is grey; without it the "likelihood" is no density, and
    its number no log-likelihood. f is the logit of lambda, not of the mean of X.

    References:
        The continuous Bernoulli (Loaiza-Ganem and Cunningham, 2019), https://arxiv.org/abs/1907.06845
    """

    name = "continuous-bernoulli"

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns ContinuousBernoulli(logits=f) for f `(..., D)`: event shape `(D,)`."""
        return dist.ContinuousBernoulli(logits=f).to_event(1)


class Normal(Likelihood):
    r"""P(X|z) = N(X; f(z), sigma^2 I), a density for real X, in nats; one sigma for all of X.

    .. math::
        \log p(X \mid z) = -\frac{1}{2 \sigma^2} \sum_d (X_d - f_d)^2
            - \frac{D}{2} \log(2 \pi \sigma^2)

    Args:
        sigma: The standard deviation, given, in the units of X; or `None` to learn it, from 1 on
            and never below `floor`: without a floor the likelihood is unbounded.
        floor: Smallest learned sigma.

    Raises:
        ValueError: If sigma is neither positive and finite nor `None`.

    References:
        Tutorial on variational autoencoders (Doersch, 2016), section 2,
        https://arxiv.org/abs/1606.05908
        Leveraging the exact likelihood of deep latent variable models (Mattei and Frellsen,
        2018), on the floor, https://arxiv.org/abs/1802.04826
    """

    name = "normal"

    def __init__(self, sigma: float | None = None, floor: float = 0.01) -> None:
        super().__init__()
        if sigma is not None and not 0 < sigma < float("inf"):
            raise ValueError(f"sigma is {sigma}; give a positive number, or None to learn it")
        self._sigma, self.floor = sigma, floor
        if sigma is None:
            self.raw_sigma = torch.nn.Parameter(torch.tensor(log(expm1(1 - floor))))

    @property
    def sigma(self) -> Tensor | float:
        """The standard deviation of X given z: softplus(raw) + floor where it is learned."""
        return self._sigma or softplus(self.raw_sigma) + self.floor

    def config(self) -> Config:
        """Returns sigma (`None`: learned) and its floor."""
        return {"sigma": self._sigma, "floor": self.floor}

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns N(f, sigma^2 I) for f `(..., D)`: event shape `(D,)`."""
        return dist.Normal(f, self.sigma).to_event(1)

    def start(self, mean: Tensor) -> Tensor:
        """Returns the mean itself, `(D,)`."""
        return mean


def make(likelihood: "str | type[Likelihood] | Likelihood", **config: object) -> Likelihood:
    """Returns a likelihood from a family's name, its class, or an instance of it.

    Args:
        likelihood: Which of the three; an instance is returned as it is.
        config: What the constructor of the family takes, such as `sigma`.

    Raises:
        ValueError: If no family has that name; those most like it are said.
        TypeError: If it is none of the three.

    Example:
        >>> make("normal", sigma=0.5)
        Normal()
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if isinstance(likelihood, str):
        hint = "a family of your own is known once its module is imported"
        likelihood = find(families, likelihood, "likelihood", hint)
    if isinstance(likelihood, type) and issubclass(likelihood, Likelihood):
        return likelihood(**config)
    raise TypeError(
        f"likelihood is {likelihood!r}; give a name, a Likelihood class or an instance"
    )
