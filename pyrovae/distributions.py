"""Distributions that torch and Pyro lack: as Pyro's own, for observed data."""

__all__ = ["DiscretizedLogistic", "Label", "OpenBeta"]

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid

NEAR = 1e-3  # of a step, within which a number is a level: k / 255 in float32 is


class _Levels(Constraint):
    """Numbers k / (L - 1) of k = 0, ..., L - 1.

    Args:
        levels: L.
    """

    is_discrete = True

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def check(self, value: Tensor) -> Tensor:
        """Returns which numbers are levels."""
        k = value * (self.levels - 1)
        return (value >= 0) & (value <= 1) & ((k - k.round()).abs() < NEAR)

    def __repr__(self) -> str:
        return f"{{0, 1/{self.levels - 1}, ..., 1}}"


class _OpenInterval(Constraint):
    """Numbers between 0 and 1, without both."""

    def check(self, value: Tensor) -> Tensor:
        """Returns which numbers are."""
        return (value > 0) & (value < 1)

    def __repr__(self) -> str:
        return "(0, 1)"


class _ClassOrNone(Constraint):
    """Numbers 0, ..., K - 1, and -1 or NaN for none.

    Args:
        num_classes: K.
    """

    is_discrete = True

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def check(self, value: Tensor) -> Tensor:
        """Returns which numbers are."""
        whole = (value == value.round()) & (value >= -1) & (value < self.num_classes)
        return whole | value.isnan()

    def __repr__(self) -> str:
        return f"{{0, ..., {self.num_classes - 1}}}, and -1 where there is none"


class OpenBeta(dist.Beta):
    """The Beta distribution, which has no number at 0 and at 1: its density is 0 there, or inf."""

    support = _OpenInterval()


class DiscretizedLogistic(TorchDistribution):
    r"""A logistic variable rounded to L levels in [0, 1], its tails falling to the first and last.

    .. math::
        P(X = \tfrac{k}{L - 1}) = \sigma\Bigl(\frac{x_k^+ - \mu}{s}\Bigr)
        - \sigma\Bigl(\frac{x_k^- - \mu}{s}\Bigr), \quad x_k^\pm = \frac{k \pm 1/2}{L - 1}

    with :math:`x_0^- = -\infty` and :math:`x_{L-1}^+ = \infty`: they add up to 1. The log of the
    difference is taken as :math:`\log \sigma(a) + \log \sigma(-b) + \log(1 - e^{b - a})`, exact
    also where both are 0 or 1 to rounding.

    Args:
        loc: mu, any shape.
        scale: s > 0.
        levels: L.
        validate_args: Whether arguments and values are checked.

    References:
        Improving variational inference with inverse autoregressive flow (Kingma et al., 2016),
        appendix, https://arxiv.org/abs/1606.04934
        PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517
    """

    def __init__(
        self, loc: Tensor, scale: Tensor, levels: int = 256, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        """Those of loc and scale."""
        return {"loc": constraints.real, "scale": constraints.positive}

    @property
    def support(self) -> Constraint:
        """The L levels."""
        return _Levels(self.levels)

    @property
    def mean(self) -> Tensor:
        """E[X] = 1/(L - 1) sum_k P(X >= k / (L - 1)), k = 1, ..., L - 1."""
        cuts = (torch.arange(1, self.levels).to(self.loc) - 0.5) / (self.levels - 1)
        return torch.sigmoid((self.loc[..., None] - cuts) / self.scale[..., None]).mean(-1)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "DiscretizedLogistic":
        """Returns the same with a larger batch shape."""
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return DiscretizedLogistic(loc, scale, self.levels, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log P(X = value), nats.

        Args:
            value: Levels, of a shape that broadcasts with the batch shape.
        """
        if self._validate_args:
            self._validate_sample(value)
        half = 0.5 / (self.levels - 1)
        up, low = ((value + shift - self.loc) / self.scale for shift in (half, -half))
        between = (-torch.expm1(-2 * half / self.scale)).log()
        inner = logsigmoid(up) + logsigmoid(-low) + between
        edge = torch.where(value < half, logsigmoid(up), inner)
        return torch.where(value > 1 - half, logsigmoid(-low), edge)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Returns draws, rounded to levels, `(*sample_shape, *batch_shape)`."""
        with torch.no_grad():
            u = torch.rand(self._extended_shape(torch.Size(sample_shape))).to(self.loc)
            tiny = torch.finfo(u.dtype).tiny
            x = self.loc + self.scale * torch.logit(u.clamp(tiny, 1 - torch.finfo(u.dtype).eps))
            return (x.clamp(0, 1) * (self.levels - 1)).round() / (self.levels - 1)


class Label(TorchDistribution):
    r"""The label of a class c, which says c; -1 or NaN says nothing: the label is missing.

    .. math::
        P(y \mid c) = 1 \text{ if } y = c \text{ or missing}, \quad 0 \text{ otherwise}

    Which labels are missing is given, as the sizes of the data are: what is drawn is c.

    Args:
        c: Classes from 0 to K - 1, of any shape, which is the batch shape.
        num_classes: K.
        dtype: Of log-probabilities; `None` for torch's default.
        validate_args: Whether values are checked.
    """

    def __init__(
        self,
        c: Tensor,
        num_classes: int,
        dtype: torch.dtype | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.c, self.num_classes = c, num_classes
        self.dtype = dtype or torch.get_default_dtype()
        super().__init__(c.shape, validate_args=validate_args)

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        """That of c."""
        return {"c": constraints.integer_interval(0, self.num_classes - 1)}

    @property
    def support(self) -> Constraint:
        """The K classes, and none."""
        return _ClassOrNone(self.num_classes)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "Label":
        """Returns the same with a larger batch shape."""
        c = self.c.expand(batch_shape)
        return Label(c, self.num_classes, self.dtype, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log P(y = value | c), 0 or -inf.

        Args:
            value: Labels, of a shape that broadcasts with the batch shape.
        """
        if self._validate_args:
            self._validate_sample(value)
        fits = (value == self.c) | (value == -1) | value.isnan()
        return torch.zeros_like(fits, dtype=self.dtype).masked_fill(~fits, -torch.inf)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Returns c, `(*sample_shape, *batch_shape)`."""
        return self.c.expand(self._extended_shape(torch.Size(sample_shape)))
