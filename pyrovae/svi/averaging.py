"""The exponential moving average of the parameters over the steps of a training."""

__all__ = ["Average", "assign", "copied"]

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    r"""The average of parameters over t steps, of weights that decay; unconstrained.

    .. math::
        \bar\theta_t = \frac{1 - \beta}{1 - \beta^t} \sum_{i=1}^t \beta^{t - i} \theta_i
        = \bar\theta_{t-1} + \frac{1 - \beta}{1 - \beta^t} (\theta_t - \bar\theta_{t-1})

    The weights sum to 1 from the first step on, so that nothing is left of the start: the bias
    correction of the paper. It looks back over about :math:`1 / (1 - \beta)` steps.

    Args:
        named: The parameters by name, which go on changing.
        decay: The factor beta, above 0 and below 1.

    Attributes:
        steps: t.
        means: The average by name; before the first step the parameters as they are.

    References:
        Adam: a method for stochastic optimization (Kingma and Ba, 2014), section 7.2,
        https://arxiv.org/abs/1412.6980
    """

    def __init__(self, named: dict[str, Tensor], decay: float) -> None:
        self._named, self._decay = named, decay
        self.steps, self.means = 0, copied(named)

    def update(self) -> None:
        """Takes in the parameters after a step."""
        self.steps += 1
        weight = (1 - self._decay) / (1 - self._decay**self.steps)
        means, params = list(self.means.values()), list(self._named.values())
        get_ema_multi_avg_fn(1 - weight)(means, params, self.steps)

    def restore(self, means: dict[str, Tensor], steps: int) -> None:
        """Goes on from an average.

        Args:
            means: By name; empty where there was none, and one begins with the parameters.
            steps: That it was taken over.
        """
        assign(self.means, means or self._named)
        self.steps = steps if means else 0

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Runs its body with the average as parameters, which are then what they were."""
        before = copied(self._named)
        assign(self._named, self.means)
        try:
            yield
        finally:
            assign(self._named, before)


def copied(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors by name that stay as these are now."""
    return {name: p.detach().clone() for name, p in named.items()}


@torch.no_grad()
def assign(named: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Copies values into the tensors of their names, in place.

    Args:
        named: Tensors by name; others than those of `values` stay.
        values: Of the same shapes.
    """
    for name, value in values.items():
        named[name].copy_(value)
