"""Likelihoods P(X|z): one class a family, from a decoder's output to a distribution."""

__all__ = ["Bernoulli", "ContinuousBernoulli", "Likelihood", "Normal", "families", "make"]

from difflib import get_close_matches
from math import expm1, log
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

families: dict[str, type["Likelihood"]] = {}


class Likelihood(torch.nn.Module):
    """A family P(X|z): maps a decoder's output to a distribution over X, one event dimension.

    A new family is one subclass with a `name` and a `forward`; it is then known by that name
    everywhere. Arguments of its constructor come back from `config`.

    Attributes:
        name: The name a user writes.
        outputs: Decoder outputs per data dimension.
    """

    name: ClassVar[str]
    outputs: ClassVar[int] = 1

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Adds the class to `families`."""
        super().__init_subclass__(**kwargs)
        families[cls.name] = cls

    def config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, as JSON can hold them."""
        return {}

    def forward(self, f: Tensor) -> Any:
        """Returns P(X|z) with event shape `(D,)` from decoder outputs f `(..., outputs * D)`."""
        raise NotImplementedError

    def start(self, mean: Tensor) -> Tensor:
        """Returns the decoder's first bias, `(outputs * D,)`, for data of this mean `(D,)`."""
        return mean.new_zeros(self.outputs * len(mean))


class Bernoulli(Likelihood):
    """P(X|z) = Bernoulli(X; logits f(z)), for X in {0, 1}; log-probabilities in nats.

    Logits, because probabilities are clamped: `Bernoulli(probs=sigmoid(-100))` gives
    log P(1) = -15.94 where -100 is true.
    """

    name = "bernoulli"

    def forward(self, f: Tensor) -> Any:
        """Returns Bernoulli(logits=f), event shape `(D,)`."""
        return dist.Bernoulli(logits=f).to_event(1)

    def start(self, mean: Tensor) -> Tensor:
        """Returns logit(mean), with the mean kept inside [0.001, 0.999] as Burda et al. do."""
        return torch.logit(mean.clamp(0.001, 0.999))


class ContinuousBernoulli(Bernoulli):
    """P(X|z) = CB(X; logits f(z)), a normalised density for grey X in [0, 1].

    References:
        The continuous Bernoulli (Loaiza-Ganem and Cunningham, 2019), https://arxiv.org/abs/1907.06845
    """

    name = "continuous-bernoulli"

    def forward(self, f: Tensor) -> Any:
        """Returns ContinuousBernoulli(logits=f), event shape `(D,)`."""
        return dist.ContinuousBernoulli(logits=f).to_event(1)


class Normal(Likelihood):
    """P(X|z) = N(X; f(z), sigma^2 I), a density; one sigma for all dimensions.

    Args:
        sigma: The standard deviation, given; or `None` to learn it, from 1 on and never below
            `floor`: without a floor the likelihood is unbounded (Mattei and Frellsen, 2018).
        floor: Smallest learned sigma.
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
        """The standard deviation of X given z."""
        return self._sigma or softplus(self.raw_sigma) + self.floor

    def config(self) -> dict[str, Any]:
        """Returns sigma (`None`: learned) and its floor."""
        return {"sigma": self._sigma, "floor": self.floor}

    def forward(self, f: Tensor) -> Any:
        """Returns N(f, sigma^2 I), event shape `(D,)`."""
        return dist.Normal(f, self.sigma).to_event(1)

    def start(self, mean: Tensor) -> Tensor:
        """Returns the mean itself."""
        return mean


def make(likelihood: "str | type[Likelihood] | Likelihood", **config: Any) -> Likelihood:
    """Returns a likelihood from a family's name, its class, or an instance of it.

    Raises:
        ValueError: If no family has that name.
        TypeError: If it is none of the three.

    Example:
        >>> make("normal", sigma=0.5)
        Normal()
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if isinstance(likelihood, str):
        if likelihood not in families:
            near = get_close_matches(likelihood, families, n=3) or sorted(families)
            raise ValueError(
                f"there is no likelihood named {likelihood!r}; did you mean {' or '.join(near)}? "
                "(a family of your own is known once its module is imported)"
            )
        return families[likelihood](**config)
    if isinstance(likelihood, type) and issubclass(likelihood, Likelihood):
        return likelihood(**config)
    raise TypeError(
        f"likelihood is {likelihood!r}; give a name, a Likelihood class or an instance"
    )
