"""What it means that two results are equal: their contents are, tensors element by element."""

__all__ = ["ByContent", "same"]

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

import numpy as np
import torch
from torch import Tensor


class ByContent:
    """A base of dataclasses that hold tensors; they need `eq=False`.

    One is equal to another of its class where all fields are, by `same`, but for those of
    `compare=False`: the `==` that a dataclass makes would ask a tensor of truth values for one. As
    tensors do not, it has no hash.
    """

    def __eq__(self, other: object) -> bool:
        return same(self, other) if type(other) is type(self) else NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def same(one: object, other: object) -> bool:
    """Returns whether two values have equal contents: tensors element by element, NaN to NaN.

    Args:
        one: A number, string, tensor, array, dataclass, list, tuple or mapping of such.
        other: Another.
    """
    if isinstance(one, Tensor | np.ndarray) or isinstance(other, Tensor | np.ndarray):
        return type(one) is type(other) and _equal(torch.as_tensor(one), torch.as_tensor(other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one) and type(one) is type(other):
        return same(_compared(one), _compared(other))
    return bool(one == other or (one != one and other != other))  # the latter of NaN alone


def _compared(value: object) -> list[object]:
    """Returns the values of a dataclass's fields, but for those of `compare=False`."""
    assert is_dataclass(value)
    return [getattr(value, f.name) for f in fields(value) if f.compare]


def _equal(one: Tensor, other: Tensor) -> bool:
    """Returns whether two tensors have the same shape and elements, NaN to NaN."""
    nan = one.isnan(), other.isnan()
    return torch.equal(*nan) and torch.equal(one[~nan[0]], other[~nan[1]])
