"""What a model is: a module with `model` and `guide`, known by its name."""

__all__ = [
    "Classifies",
    "Decodes",
    "Encodes",
    "Generates",
    "HasPrior",
    "Model",
    "Samples",
    "named",
]

from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar, Protocol, Self, runtime_checkable
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.data.rows import Rows
from pyrovae.data.splits import Split, Splits
from pyrovae.errors import DataError
from pyrovae.likelihoods import Config
from pyrovae.registry import enter, find, import_all

_known: dict[str, type["Model"]] = {}
_count = count()
_numbers: "WeakKeyDictionary[torch.nn.Module, int]" = WeakKeyDictionary()


def _no_model(self: torch.nn.Module, *data: Tensor) -> None:
    """Stands for the program of a class that has none."""
    raise TypeError(
        f"{type(self).__name__} has no model; define model(self, *data), which samples latents "
        "and observes the data, in a pyro.plate"
    )


class Model(torch.nn.Module):
    r"""A Pyro program with its networks: `model(*data)` and `guide(*data)`, plated over the data.

    .. math::
        p(X) = \prod_n \int p(X_n \mid z_n)\, p(z_n)\, dz_n, \quad q(z \mid X) \approx p(z \mid X)

    `model` samples z from p(z) and observes X under p(X|z), `guide` samples z from q(z|X), both
    in a `pyro.plate("data", len(x))`; each begins with `self.register(...)` of the networks that
    it uses. Log-probabilities are in nats. `pyrovae.models.vae.VAE` is the pattern to copy.

    A new model is one subclass with a `name`; it is then known by that name everywhere: to
    `pv.save` and `pv.load`, and to the commands. A subclass without a name of its own is known to
    none of them. What else it can do is said by its methods: see `Encodes`, `Decodes`, `HasPrior`,
    `Classifies`, `Samples` and `Generates`.

    The constructor is also run under `torch.device("meta")`, where tensors have shapes and no
    numbers: `pv.load` tells so, before memory is taken, that a file's sizes are those of its
    weights. So it makes its networks and keeps its arguments, and does not look at a number of
    theirs (`.item()`, `.numpy()`, an `if` on a tensor) or load any from elsewhere.

    Attributes:
        name: The name a user writes.
        inputs: What of a split of the data it takes, in order: ("x", "y") for labels as well.
        objective: What its command maximises where nobody says otherwise, by name.
        target: What its evidence is, as tables and pages write it: "log P(X|Y)" where all that it
            is given besides is a condition.
        binary: Whether its command draws X in {0, 1} from grey data where nobody says otherwise;
            of a model that is asked for with a likelihood, that decides.
        model: A method `model(self, *data)`, the Pyro program.
        guide: Likewise; `None` where nothing is left to guess.

    Raises:
        TypeError: Where the class is defined, if another has its name.
    """

    name: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]] = ("x",)
    objective: ClassVar[str] = "elbo"
    target: ClassVar[str] = "log P(X)"
    binary: ClassVar[bool] = True
    model: Callable[..., None] = _no_model
    guide: Callable[..., None] | None = None

    def __init_subclass__(cls) -> None:
        """Makes the class known by its name, where it has one of its own."""
        super().__init_subclass__()
        enter(_known, cls)

    def config(self) -> Config:
        """Returns the constructor's arguments, as JSON can hold them.

        What `from_config` makes of them has the same parts as this model, so that the saved
        weights fit. By default there are none.
        """
        return {}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Returns an untrained model of that `config()`, also under `torch.device("meta")`."""
        return cls(**config)

    @classmethod
    def for_data(cls, splits: Splits, **config: Any) -> Self:
        """Returns an untrained model for a data set; what it takes besides are its options.

        On a command line these are `--model.OPTION VALUE`: numbers, words and lists of them.

        Args:
            splits: The data set.
            config: The constructor's other arguments, beside `x_dim`.
        """
        return cls(x_dim=splits.train.x.shape[1], **config)

    @classmethod
    def arrays(cls, split: Split) -> tuple[Tensor | Rows, ...]:
        """Returns what `model` and `guide` take of a split: its `inputs`, `(N, ...)` each.

        Raises:
            DataError: If the data set has no such part.
        """
        found = tuple(getattr(split, name) for name in cls.inputs)
        for name, array in zip(cls.inputs, found, strict=True):
            if array is None:
                raise DataError(f"{cls.__name__} takes {name}, and these data have none")
        return found

    def register(self, **nets: torch.nn.Module) -> None:
        """Calls `pyro.module` for each net under `Class#number.name`: SVI then trains it.

        Pyro keeps parameters in one global store, by name: with a fixed name the second model of a
        process would read the first one's entries and silently never train. The number tells
        instances (and copies) apart, and is no part of a saved name.

        Args:
            nets: Modules by name, in `model` and in `guide` those that each uses.
        """
        number = _numbers.setdefault(self, next(_count))
        for name, net in nets.items():
            pyro.module(f"{type(self).__name__}#{number}.{name}", net)


@runtime_checkable
class Encodes(Protocol):
    """A model whose Q(z|X) can be had: its latent space and reconstructions are then drawn."""

    def encode(self, x: Tensor, /) -> TorchDistribution:
        """Returns Q(z|X) for x `(N, x_dim)`: batch shape `(N,)`, event shape `(z_dim,)`."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """A model whose P(X|z) can be had: what it generates is then drawn, as a plane for 2-d z."""

    def decode(self, z: Tensor, /) -> TorchDistribution:
        """Returns P(X|z) for z `(..., z_dim)`: batch shape `(...)`, event shape `(x_dim,)`."""
        ...


@runtime_checkable
class HasPrior(Protocol):
    """A model whose P(z) can be had: KL(Q(z|X) || P(z)) is then told by dimension, in nats."""

    def prior(self, x: Tensor, /) -> TorchDistribution:
        """Returns P(z) for each row of x `(N, ...)`: batch shape `(N,)`, event shape `(z_dim,)`.

        Of x only length, type and device count.
        """
        ...


@runtime_checkable
class Classifies(Protocol):
    """A model that says which class a datum is of: its accuracy is then told beside log P(X)."""

    def classify(self, x: Tensor, /) -> Tensor:
        """Returns the probability of each of K classes, `(N, K)`, for x `(N, x_dim)`."""
        ...


@runtime_checkable
class Samples(Protocol):
    """A model that draws data of its own, X ~ P(X)."""

    def sample(self, n: int, /, *, seed: int | None = None) -> Tensor:
        """Returns n draws of X `(n, x_dim)`: z from the prior, then X given z.

        Args:
            n: How many.
            seed: Fixes them; `None` goes on with torch's random stream.
        """
        ...


@runtime_checkable
class Generates(Protocol):
    """A model of X given Y that draws X ~ P(X|Y): data are then shown beside draws on their Y."""

    def generate(self, y: Tensor, /, *, seed: int | None = None) -> Tensor:
        """Returns a draw of X `(N, x_dim)` for each row of Y, a class each or a vector.

        Args:
            y: `(N,)`, or `(N, y_dim)`.
            seed: Fixes them; `None` goes on with torch's random stream.
        """
        ...


def named(name: str) -> type[Model]:
    """Returns the model class of a name, without importing anything but pyrovae's own models.

    Raises:
        ValueError: If no class has that name; those most like it are said.

    Example:
        >>> named("vae").__name__
        'VAE'
    """
    import_all("pyrovae.models")
    hint = "a class of your own is known once its module is imported; on a command line name it, "
    return find(_known, name, "model", f"{hint}--model package.module.Class")
