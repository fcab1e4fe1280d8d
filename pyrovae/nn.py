"""Encoders and decoders: ordinary torch modules, and how a model makes them known to Pyro."""

__all__ = ["MLP", "Encoder", "Registered", "positive"]

from collections.abc import Sequence
from itertools import count, pairwise
from weakref import WeakKeyDictionary

import pyro
import torch
from torch import Tensor
from torch.nn.functional import softplus


def positive(raw: Tensor, floor: float = 1e-4) -> Tensor:
    """Returns softplus(raw) + floor: a scale that neither overflows nor reaches zero.

    Args:
        raw: Any numbers.
        floor: The least result.
    """
    return softplus(raw) + floor


class MLP(torch.nn.Sequential):
    """A multilayer perceptron with tanh units, Glorot-uniform weights and zero biases.

    Args:
        in_dim: Size of the input, `(..., in_dim)`.
        hidden_dims: Widths of the hidden layers.
        out_dim: Size of the linear output, `(..., out_dim)`.
    """

    def __init__(self, in_dim: int, hidden_dims: Sequence[int], out_dim: int) -> None:
        layers: list[torch.nn.Module] = []
        for i, o in pairwise([in_dim, *hidden_dims, out_dim]):
            linear = torch.nn.Linear(i, o)
            torch.nn.init.xavier_uniform_(linear.weight)
            torch.nn.init.zeros_(linear.bias)
            layers += [linear, torch.nn.Tanh()]
        super().__init__(*layers[:-1])


class Encoder(torch.nn.Module):
    """mu(X) and sigma(X) of Q(z|X), each `(..., z_dim)`, from X `(..., x_dim)`."""

    def __init__(self, x_dim: int, hidden_dims: Sequence[int], z_dim: int) -> None:
        super().__init__()
        self.net = MLP(x_dim, hidden_dims, 2 * z_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mu(x) and sigma(x) > 0, each `(..., z_dim)`."""
        loc, raw_scale = self.net(x).chunk(2, dim=-1)
        return loc, positive(raw_scale)


_count = count()
_numbers: "WeakKeyDictionary[torch.nn.Module, int]" = WeakKeyDictionary()


class Registered(torch.nn.Module):
    """A module whose nets are known to Pyro under names that no other instance shares.

    Pyro keeps parameters in one global store, by name: with a fixed name the second model of a
    process would read the first one's entries and silently never train.
    """

    def register(self, **nets: torch.nn.Module) -> None:
        """Calls `pyro.module` for each net under `Class#number.name`.

        The number tells instances (and copies) apart in Pyro's store and is no part of a saved
        name.
        """
        number = _numbers.setdefault(self, next(_count))
        for name, net in nets.items():
            pyro.module(f"{type(self).__name__}#{number}.{name}", net)
