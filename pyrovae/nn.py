"""Encoders and decoders: ordinary torch modules."""

__all__ = ["MLP", "Encoder", "positive"]

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import softplus


def positive(raw: Tensor, floor: float = 1e-4) -> Tensor:
    """Returns softplus(raw) + floor: a scale that neither overflows nor reaches zero."""
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
