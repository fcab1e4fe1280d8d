"""What a likelihood is: a class known by its name, from a decoder's output to a distribution."""

__all__ = ["Config", "Likelihood", "families", "family", "make"]

from typing import Any, ClassVar, TypeAlias

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.gaps import filled
from pyrovae.registry import called, enter, find, made

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
        binary: Whether X are in {0, 1}.
        filler: A number that X can be, which stands for what is missing and counts nowhere.

    Example:
        >>> p = make("bernoulli")(torch.zeros(7, 3))  # of f = 0, P(X = 1 | z) = 1/2
        >>> p.log_prob(torch.ones(7, 3)).exp()[0]  # 1/2 to the third
        tensor(0.1250)
    """

    name: ClassVar[str]
    outputs: int = 1
    binary: ClassVar[bool] = False
    filler: ClassVar[float] = 1.0

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

    def num_outputs(self, x_dim: int) -> int:
        """Returns how many numbers f(z) has for X of `x_dim` dimensions."""
        return self.outputs * x_dim

    def num_features(self, x_dim: int) -> int:
        """Returns how many numbers an encoder is given for X of `x_dim` dimensions."""
        return x_dim

    def features(self, x: Tensor) -> Tensor:
        """Returns what an encoder is given for X `(N, D)`, NaN where it is missing: 0 there."""
        return filled(x)

    def seen(self, x: Tensor) -> Tensor:
        """Returns which of the features are of what is not missing, `(N, num_features)`."""
        return ~x.isnan()

    def scale_to(self, x: Tensor) -> None:
        """Takes the units of its dimensions from training data `(N, D)`; by default none."""

    def start(self, mean: Tensor) -> Tensor:
        """Returns the decoder's first bias, `(num_outputs,)`, for data of this mean `(D,)`.

        With it X begins at its mean, and SVI need not find that first. By default it is 0.
        """
        return mean.new_zeros(self.num_outputs(len(mean)))


def family(name: str) -> type[Likelihood]:
    """Returns the class of a likelihood's name, whatever options are written behind it.

    Args:
        name: Such as "student-t(df=3)".

    Raises:
        ValueError: If no family has that name; those most like it are said.
    """
    hint = "a family of your own is known once its module is imported"
    return find(families, called(name, "likelihood").name, "likelihood", hint)


def make(likelihood: "str | type[Likelihood] | Likelihood", **config: object) -> Likelihood:
    """Returns a likelihood from a family's name, its class, or an instance of it.

    Args:
        likelihood: Which of the three, a name with options as in "student-t(df=3)"; an instance
            is returned as it is.
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
        asked, likelihood = called(likelihood, "likelihood"), family(likelihood)
        if asked.args or asked.kwargs:
            return made(
                likelihood, asked._replace(kwargs={**asked.kwargs, **config}), "likelihood"
            )
    if isinstance(likelihood, type) and issubclass(likelihood, Likelihood):
        return likelihood(**config)
    raise TypeError(
        f"likelihood is {likelihood!r}; give a name, a Likelihood class or an instance"
    )
