"""Normalizing flows for priors and guides: zuko's networks, as distributions of Pyro's kind."""

__all__ = ["Flowed", "couplings"]

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

from pyrovae.checks import check_sizes

if TYPE_CHECKING:
    from zuko.transforms import ComposedTransform  # an extra

MOST = 10**8  # weights: what a file asks for is made before it is known to fit


def couplings(
    z_dim: int, context: int, num_transforms: int, hidden_dims: Sequence[int]
) -> torch.nn.Module:
    """Returns affine couplings, each of half the dimensions given the others: a lazy transform.

    Called with a context `(..., context)`, or `None`, it is the map from z to noise.

    Args:
        z_dim: Dimensions, two or more.
        context: Numbers that it is given besides; 0 for none.
        num_transforms: Couplings.
        hidden_dims: Widths of their networks.

    Raises:
        ValueError: If a size is no positive integer, or z_dim is 1, or there are more weights than
            100 million.
        ModuleNotFoundError: If zuko is not installed.
    """
    check_sizes(num_transforms=num_transforms)
    for width in hidden_dims:
        check_sizes(hidden_dims=width)
    if z_dim < 2:
        raise ValueError(f"z_dim is {z_dim}; a flow of couplings needs two dimensions or more")
    validates = Distribution._validate_args
    try:
        import zuko  # an extra, which turns validation off for all
    except ModuleNotFoundError as e:
        raise ModuleNotFoundError(
            "a flow needs the library zuko; install it, pip install 'pyrovae[flows]'"
        ) from e
    finally:
        Distribution.set_default_validate_args(validates)
    widths = [z_dim + context, *hidden_dims, 2 * z_dim]
    size = num_transforms * sum(i * o for i, o in pairwise(widths))
    if size > MOST:
        raise ValueError(f"a flow of {size:.2g} weights was asked for; give smaller networks")
    hidden = tuple(map(int, hidden_dims))
    options = {"hidden_features": hidden, "activation": torch.nn.Tanh}
    with torch.device("cpu"):  # zuko reads numbers, which a meta device has not
        made = zuko.flows.NICE(z_dim, context, transforms=num_transforms, **options)
    return made.transform.to(torch.get_default_device())


class Flowed(TorchDistribution):
    r"""z with f(z) = u, u of a base distribution and f invertible.

    .. math::
        \log p(z) = \log p_u(f(z)) + \log |\det \partial f / \partial z|

    zuko's own is no distribution of Pyro's, and torch's `TransformedDistribution` runs f twice for
    a density.

    Args:
        base: Of u, event shape `(d,)`.
        transform: f, a transform of zuko's.
    """

    has_rsample = True

    def __init__(self, base: TorchDistribution, transform: "ComposedTransform") -> None:
        self.base, self.transform = base, transform
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """None: nothing is checked."""
        return {}

    @property
    def support(self) -> constraints.Constraint:
        """All z."""
        return constraints.real_vector

    def rsample(self, sample_shape: Sequence[int] | torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Returns draws `(*sample_shape, *batch_shape, d)`, with their gradient."""
        return cast(Tensor, self.transform.inv(self.base.rsample(torch.Size(sample_shape))))

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z), `(...)`, nats, for z `(..., d)`."""
        u, log_det = self.transform.call_and_ladj(value)
        return self.base.log_prob(u) + log_det

    def expand(
        self, batch_shape: Sequence[int] | torch.Size, _instance: object = None
    ) -> "Flowed":
        """Returns the distribution for this batch shape."""
        return Flowed(self.base.expand(torch.Size(batch_shape)), self.transform)
