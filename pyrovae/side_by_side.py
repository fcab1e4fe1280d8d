"""Numbers of several families in one row, as the columns of a table are."""

__all__ = ["SideBySide"]

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions.constraints import Constraint


class _Each(Constraint):
    """Supports of several groups of numbers, side by side.

    Args:
        parts: A support each, and of how many numbers.
        back: Where in the groups each number stands.
    """

    event_dim = 0

    def __init__(self, parts: Sequence[tuple[Any, int]], back: Tensor) -> None:
        self.parts, self.back = parts, back

    def check(self, value: Tensor) -> Tensor:
        """Returns which numbers are in theirs."""
        groups = value[..., self.back.argsort()].split([n for _, n in self.parts], -1)
        inside = [c.check(v) for (c, _), v in zip(self.parts, groups, strict=True)]
        return torch.cat(inside, -1)[..., self.back]

    def __repr__(self) -> str:
        return "the supports of its columns"


class SideBySide(TorchDistribution):
    r"""Independent numbers of several families: one distribution for each group of them.

    .. math::
        \log P(X_d) = \log P_{g(d)}(X_d)

    Args:
        parts: Of batch shape `(..., n)` each, the n numbers of a group, and no event dimension.
        back: Where in the groups, one after another, each of the D numbers stands, `(D,)`.
    """

    def __init__(self, parts: Sequence[TorchDistribution], back: Tensor) -> None:
        self.parts, self.back = tuple(parts), back
        self.sizes = [p.batch_shape[-1] for p in self.parts]
        self.place = back.argsort()
        batch = torch.broadcast_shapes(*(p.batch_shape[:-1] for p in self.parts))
        super().__init__(torch.Size((*batch, len(back))), validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        """None of its own: its parts have theirs."""
        return {}

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log P of each number of the value, nats, `(..., D)`."""
        groups = value[..., self.place].split(self.sizes, -1)
        return self._together([p.log_prob(v) for p, v in zip(self.parts, groups, strict=True)])

    @property
    def has_rsample(self) -> bool:
        """Whether draws of all of its parts have a gradient."""
        return all(p.has_rsample for p in self.parts)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Returns draws with a gradient, `(sample_shape, ..., D)`."""
        return self._together([p.rsample(torch.Size(sample_shape)) for p in self.parts])

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Returns draws, `(sample_shape, ..., D)`."""
        return self._together([p.sample(torch.Size(sample_shape)) for p in self.parts])

    @property
    def mean(self) -> Tensor:
        """Of numbers their mean, of classes that of their numbers, `(..., D)`."""
        return self._together([p.mean for p in self.parts])

    @property
    def summary(self) -> Tensor:
        """Means of numbers and probabilities of classes, group by group, `(..., M)`.

        Its expectation over parameters is the mean or the probability under all of them.
        """
        groups = [p.probs.flatten(-2) if _is_of_classes(p) else p.mean for p in self.parts]
        shape = torch.broadcast_shapes(*(g.shape[:-1] for g in groups))
        return torch.cat([g.expand(*shape, -1) for g in groups], -1)

    def told(self, summary: Tensor) -> Tensor:
        """Returns means of numbers and the most probable class of others, `(..., D)`.

        Args:
            summary: Such as `summary`, `(..., M)`.
        """
        widths = [
            p.probs[..., 0, :].shape[-1] * n if _is_of_classes(p) else n
            for p, n in zip(self.parts, self.sizes, strict=True)
        ]
        found = []
        for p, n, group in zip(self.parts, self.sizes, summary.split(widths, -1), strict=True):
            if _is_of_classes(p):
                group = group.unflatten(-1, (n, -1)).argmax(-1).to(group)
            elif isinstance(p, dist.Bernoulli):
                group = group.round()
            found.append(group)
        return torch.cat(found, -1)[..., self.back]

    @property
    def of_classes(self) -> list[bool]:
        """Of each of the D numbers, whether it stands for a class and is none itself."""
        kinds = [isinstance(p, (dist.Categorical, dist.Bernoulli)) for p in self.parts]
        groups = [k for k, n in zip(kinds, self.sizes, strict=True) for _ in range(n)]
        return [groups[i] for i in self.back.tolist()]

    @property
    def support(self) -> Constraint:
        """Each number in that of its family."""
        return _Each(
            [(p.support, n) for p, n in zip(self.parts, self.sizes, strict=True)], self.back
        )

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "SideBySide":
        """Returns the same in another batch shape, whose last length is D."""
        *batch, _ = batch_shape
        parts = [p.expand([*batch, n]) for p, n in zip(self.parts, self.sizes, strict=True)]
        return SideBySide(parts, self.back)

    def _together(self, groups: Sequence[Tensor]) -> Tensor:
        """Returns numbers of groups `(..., n)` in the order of the dimensions, `(..., D)`."""
        shape = torch.broadcast_shapes(*(g.shape[:-1] for g in groups))
        return torch.cat([g.expand(*shape, -1).to(groups[0]) for g in groups], -1)[..., self.back]


def _is_of_classes(p: TorchDistribution) -> bool:
    """Returns whether a distribution is one of classes, whose numbers are names."""
    return isinstance(p, dist.Categorical)
