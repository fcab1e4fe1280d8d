"""What a model is: a module with `model` and `guide`, known by its name."""

__all__ = ["Decodes", "Encodes", "HasPrior", "Model", "named"]

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from itertools import count
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar, Protocol, Self, runtime_checkable
from weakref import WeakKeyDictionary

import pyro
import torch
from torch import Tensor

from pyrovae.data.splits import Split, Splits
from pyrovae.errors import DataError

_known: dict[str, type["Model"]] = {}
_count = count()
_numbers: "WeakKeyDictionary[torch.nn.Module, int]" = WeakKeyDictionary()


class Model(torch.nn.Module):
    """A Pyro program with its networks: `model(*data)` and `guide(*data)`, plated over the data.

    A new model is one subclass with a `name`; it is then known by that name everywhere: to
    `pv.save` and `pv.load`, and to the commands. A subclass without a name of its own is known to
    none of them. What else it can do is said by its methods: see `Encodes`, `Decodes`, `HasPrior`.

    Attributes:
        name: The name a user writes.
        inputs: What of a split of the data it takes, in order.
        guide: `None` where nothing is left to guess.
    """

    name: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]] = ("x",)
    model: Callable[..., None]
    guide: Callable[..., None] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Makes the class known by its name, where it has one of its own.

        Raises:
            TypeError: If another class has that name.
        """
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            return
        other = _known.setdefault(cls.name, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(
                f"the name {cls.name!r} is that of {other.__module__}.{other.__qualname__}; give "
                f"{cls.__qualname__} another"
            )
        _known[cls.name] = cls  # defined again, as a notebook does

    def config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, as JSON can hold them."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns an untrained model of that `config()`."""
        return cls(**config)

    @classmethod
    def for_data(cls, splits: Splits, **config: Any) -> Self:
        """Returns an untrained model for a data set; what it takes besides are its options.

        Args:
            splits: The data set.
            config: The constructor's other arguments, beside `x_dim`.
        """
        return cls(x_dim=splits.train.x.shape[1], **config)

    @classmethod
    def arrays(cls, split: Split) -> tuple[Any, ...]:
        """Returns what `model` and `guide` take of a split: its `inputs`, in order.

        Raises:
            DataError: If the data set has no such part.
        """
        found = tuple(getattr(split, name) for name in cls.inputs)
        for name, array in zip(cls.inputs, found, strict=True):
            if array is None:
                raise DataError(f"{cls.__name__} takes {name}, and these data have none")
        return found

    def register(self, **nets: torch.nn.Module) -> None:
        """Calls `pyro.module` for each net under `Class#number.name`.

        Pyro keeps parameters in one global store, by name: with a fixed name the second model of a
        process would read the first one's entries and silently never train. The number tells
        instances (and copies) apart, and is no part of a saved name.
        """
        number = _numbers.setdefault(self, next(_count))
        for name, net in nets.items():
            pyro.module(f"{type(self).__name__}#{number}.{name}", net)


@runtime_checkable
class Encodes(Protocol):
    """A model whose Q(z|X) can be had: for pictures of its latent space."""

    def encode(self, x: Tensor, /) -> Any:
        """Returns Q(z|X) for x `(N, x_dim)`: batch shape `(N,)`, event shape `(z_dim,)`."""


@runtime_checkable
class Decodes(Protocol):
    """A model whose P(X|z) can be had: for pictures of what it generates."""

    def decode(self, z: Tensor, /) -> Any:
        """Returns P(X|z) for z `(..., z_dim)`: batch shape `(...)`, event shape `(x_dim,)`."""


@runtime_checkable
class HasPrior(Protocol):
    """A model whose P(z) can be had."""

    def prior(self, x: Tensor, /) -> Any:
        """Returns P(z) for each row of x `(N, ...)`: batch shape `(N,)`, event shape `(z_dim,)`.

        Of x only length, type and device count.
        """


def named(name: str) -> type[Model]:
    """Returns the model class of a name, without importing anything but pyrovae's own models.

    Raises:
        ValueError: If no class has that name.

    Example:
        >>> named("vae").__name__
        'VAE'
    """
    for module in iter_modules([str(Path(__file__).parent)]):
        import_module(f"pyrovae.models.{module.name}")
    if name not in _known:
        near = get_close_matches(name, _known, n=3) or sorted(_known)
        raise ValueError(
            f"there is no model named {name!r}; did you mean {' or '.join(near)}? (a class of "
            "your own is known once its module is imported; on a command line name it, --model "
            "package.module.Class)"
        )
    return _known[name]
