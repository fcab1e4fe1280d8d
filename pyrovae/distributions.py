"""Distributions that torch and Pyro lack: as Pyro's own, for observed data."""

__all__ = [
    "Categorical",
    "DiscretizedLogistic",
    "ExchangeableNormal",
    "Label",
    "NormalMixture",
    "OpenBeta",
    "Seen",
    "seen",
]

from collections.abc import Sequence
from itertools import combinations
from math import lgamma
from typing import cast

import pyro.distributions as dist
import torch
from pyro.distributions import Independent, MaskedDistribution, TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid

from pyrovae.gaps import has_gaps

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


class _OrMissing(Constraint):
    """Values of a support, and NaN, which says that there is none.

    Args:
        known: The support.
    """

    def __init__(self, known: Constraint) -> None:
        self.known, self.event_dim = known, known.event_dim

    def check(self, value: Tensor) -> Tensor:
        """Returns which values are."""
        return self.known.check(value) | value.isnan()


class Seen(MaskedDistribution):
    r"""Independent numbers of which some are missing: NaN, which counts in no density.

    .. math::
        \log P(X) = \sum_{d \text{ seen}} \log P(X_d)

    What is drawn is missing where the data are, so that it can stand in their place.

    References:
        MIWAE: deep generative modelling and imputation of incomplete data sets (Mattei and
        Frellsen, 2019), https://arxiv.org/abs/1812.02633
    """

    filler = 1.0  # a number of the support, in place of what is missing

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log P of each number of the value, nats, 0 where it is missing."""
        return super().log_prob(torch.where(torch.as_tensor(self._mask), value, self.filler))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Returns draws, NaN where data are missing."""
        draws = self.base_dist.sample(torch.Size(sample_shape))
        return torch.where(torch.as_tensor(self._mask), draws, torch.nan)

    @property
    def support(self) -> Constraint:
        """That of what is seen, or NaN."""
        return _OrMissing(self.base_dist.support)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Seen":
        """Returns the same in another batch shape."""
        new = cast(Seen, super().expand(torch.Size(batch_shape), _instance))
        new.filler = self.filler
        return new


def seen(p: TorchDistribution, x: Tensor, filler: float = 1.0) -> TorchDistribution:
    """Returns P(X) with what is missing of x left out; P itself where nothing is.

    Args:
        p: Of batch shape `(..., N)` and event shape `(D,)`, a product over the D dimensions.
        x: `(N, D)`, NaN where it is missing.
        filler: A number of the support.

    Raises:
        ValueError: If something is missing and P is no such product.
    """
    if not has_gaps(x):
        return p
    if not isinstance(p, Independent) or p.base_dist.event_shape:
        raise ValueError(
            f"x has missing values, NaN, and {type(p).__name__} is no product over dimensions, of "
            "which some can be left out; fill them in, or take another likelihood"
        )
    known = Seen(p.base_dist, ~x.isnan())
    known.filler = filler
    return known.to_event(1)


class OpenBeta(dist.Beta):
    """The Beta distribution, which has no number at 0 and at 1: its density is 0 there, or inf."""

    support = _OpenInterval()


class Categorical(dist.Categorical):
    """A category whose classes are numbers 0, ..., K - 1, as grey levels are: it has a mean."""

    @property
    def mean(self) -> Tensor:
        """sum_k k p_k, of the batch shape."""
        return self.probs @ self._numbers()

    @property
    def variance(self) -> Tensor:
        """sum_k k^2 p_k - mean^2."""
        return self.probs @ self._numbers().square() - self.mean.square()

    def _numbers(self) -> Tensor:
        """Returns 0, ..., K - 1, of the type of the probabilities."""
        return torch.arange(self.probs.shape[-1]).to(self.probs)


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


class ExchangeableNormal(TorchDistribution):
    r"""K normal vectors in an order drawn at random: event shape `(K, D)`.

    .. math::
        p(v) = \frac{1}{K!} \sum_\pi \prod_k N(v_k; m_{\pi(k)}, s_{\pi(k)}^2 I)

    over the permutations of K, in K 2^(K-1) terms: of a set of normals, the vectors so far are
    those, in whatever order.

    Args:
        locs: m, `(K, D)`.
        scales: s, `(K,)`.
    """

    has_rsample = True

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        """Those of m and s."""
        return {
            "locs": constraints.independent(constraints.real, 2),
            "scales": constraints.independent(constraints.positive, 1),
        }

    @property
    def support(self) -> Constraint:
        """All K vectors."""
        return constraints.independent(constraints.real, 2)

    def __init__(
        self,
        locs: Tensor,
        scales: Tensor,
        batch_shape: torch.Size | tuple[int, ...] = (),
        validate_args: bool | None = None,
    ) -> None:
        self.locs, self.scales = locs, scales
        super().__init__(torch.Size(batch_shape), locs.shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "ExchangeableNormal":
        """Returns the same with another batch shape."""
        return ExchangeableNormal(self.locs, self.scales, batch_shape, validate_args=False)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Returns draws, `(*sample_shape, *batch_shape, K, D)`."""
        shape = self._extended_shape(torch.Size(sample_shape))
        order = torch.rand(shape[:-1], device=self.locs.device).argsort(-1)  # (..., K)
        noise = torch.randn(shape, dtype=self.locs.dtype, device=self.locs.device)
        return self.locs[order] + self.scales[order][..., None] * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p of each value, nats.

        Args:
            value: `(..., K, D)`.
        """
        if self._validate_args:
            self._validate_sample(value)
        each = dist.Normal(self.locs, self.scales[:, None]).to_event(1)
        log_p = log_permanent(each.log_prob(value[..., None, :])) - lgamma(len(self.locs) + 1)
        return log_p.expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))


def log_permanent(log_a: Tensor) -> Tensor:
    r"""Returns the log of the permanents of matrices of positive numbers, `(...)`.

    .. math::
        \log \sum_\pi \prod_k a_{k \pi(k)}

    Row by row, for each set of columns that those so far have taken: K 2^(K-1) terms.

    Args:
        log_a: Their logarithms, `(..., K, K)`.
    """
    size = log_a.shape[-1]
    total = log_a.new_zeros(*log_a.shape[:-2], 1)
    before: dict[tuple[int, ...], int] = {(): 0}
    for row in range(size):
        taken = list(combinations(range(size), row + 1))
        last = torch.tensor(taken, device=log_a.device)  # the column of this row
        others = [[before[s[:i] + s[i + 1 :]] for i in range(row + 1)] for s in taken]
        others = torch.tensor(others, device=log_a.device)
        total = (total[..., others] + log_a[..., row, :][..., last]).logsumexp(-1)
        before = {s: i for i, s in enumerate(taken)}
    return total[..., 0]


class NormalMixture(TorchDistribution):
    r"""A mixture of K normals with independent dimensions, the same for all of a batch.

    .. math::
        \log p(z) = \log \sum_k \pi_k \prod_j N(z_j; \mu_{kj}, \sigma_{kj}^2)

    In nats. `MixtureSameFamily` has it too, by a table of K d numbers for each z, in density and
    draws: of 500 components and 50 dimensions 400 MB for 4,096 z. Here the squares are products of
    matrices, in float64, as their differences are small.

    Args:
        logits: Of pi, `(K,)`, not normalized.
        locs: mu, `(K, d)`.
        scales: sigma, `(K, d)`.
        batch_shape: Of the batch, for all of which these are the parameters.
    """

    def __init__(
        self,
        logits: Tensor,
        locs: Tensor,
        scales: Tensor,
        batch_shape: Sequence[int] | torch.Size = torch.Size(),  # noqa: B008
    ) -> None:
        self.logits, self.locs, self.scales = logits, locs, scales
        super().__init__(torch.Size(batch_shape), locs.shape[1:], validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        """None: nothing is checked."""
        return {}

    @property
    def support(self) -> Constraint:
        """All z."""
        return constraints.real_vector

    @property
    def mean(self) -> Tensor:
        """E[z], `(*batch_shape, d)`."""
        mean = self.logits.softmax(0) @ self.locs
        return mean.expand(*self.batch_shape, -1)

    @property
    def variance(self) -> Tensor:
        """Variances of the dimensions, `(*batch_shape, d)`."""
        second = self.logits.softmax(0) @ (self.scales.square() + self.locs.square())
        return second - self.mean.square()

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z), `(...)`, nats, for z `(..., d)`."""
        z, mu, sigma = (t.double() for t in (value, self.locs, self.scales))
        a = sigma.pow(-2)
        constant = (mu.square() * a).sum(1) + (2 * torch.pi * sigma.square()).log().sum(1)
        squares = z.square() @ a.T - 2 * z @ (mu * a).T + constant  # (..., K)
        log_p = (self.logits.double().log_softmax(0) - squares / 2).logsumexp(-1)
        return log_p.to(value.dtype).expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] | torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Returns draws `(*sample_shape, *batch_shape, d)`, without a gradient."""
        with torch.no_grad():
            shape = torch.Size((*sample_shape, *self.batch_shape))
            k = dist.Categorical(logits=self.logits).sample(shape)
            return torch.normal(self.locs[k], self.scales[k])

    def expand(
        self, batch_shape: Sequence[int] | torch.Size, _instance: object = None
    ) -> "NormalMixture":
        """Returns the distribution for this batch shape."""
        return NormalMixture(self.logits, self.locs, self.scales, batch_shape)
