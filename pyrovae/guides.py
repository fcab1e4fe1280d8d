r"""Families of Q(z|X): one class a family, from an encoder's outputs to a distribution of z.

.. math::
    \log P(X) - \mathrm{ELBO}(X) = \mathrm{KL}(Q(z \mid X) \,\|\, P(z \mid X))

A richer family brings the ELBO nearer to log P(X), and fewer draws of it are enough to estimate
that. Draws are reparameterized.
"""

__all__ = ["Diagonal", "Family", "Flow", "Full", "make"]

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.flows import Flowed, couplings
from pyrovae.nn import positive
from pyrovae.registry import asked_for, enter

Config = dict[str, Any]
families: dict[str, type["Family"]] = {}


class Family(torch.nn.Module):
    """Q(z|X) of an encoder's outputs: one subclass with a `name`, `outputs` and a `forward`.

    It is then known by that name everywhere: `pv.VAE(784, 50, posterior="full")`. What the
    constructor takes beside the size are its options; they come back from `config`.

    Args:
        z_dim: Dimensions of the latent.

    Attributes:
        name: The name a user writes.

    Raises:
        ValueError: If the size is no positive integer.
        TypeError: Where the class is defined, if another has its name.
    """

    name: ClassVar[str]

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        check_sizes(z_dim=z_dim)
        self.z_dim = z_dim

    def __init_subclass__(cls) -> None:
        """Adds the class to `families`, where it has a name of its own."""
        super().__init_subclass__()
        enter(families, cls)

    def config(self) -> Config:
        """Returns the constructor's arguments beside the size, as JSON can hold them."""
        return {}

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Numbers that an encoder gives for a datum."""

    @abstractmethod
    def forward(self, h: Tensor) -> TorchDistribution:
        """Returns Q(z|X) of outputs h `(N, outputs)`: batch `(N,)`, event `(z_dim,)`."""


class Diagonal(Family):
    r"""Q(z|X) = N(mu(X), diag sigma(X)^2): independent dimensions.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), appendix C.2,
        https://arxiv.org/abs/1312.6114
    """

    name = "diagonal"

    @property
    def outputs(self) -> int:
        """Mu and what sigma is made of: 2 z_dim."""
        return 2 * self.z_dim

    def forward(self, h: Tensor) -> TorchDistribution:
        """Returns the normal of h `(N, 2 z_dim)`."""
        loc, raw_scale = h.chunk(2, -1)
        return dist.Normal(loc, positive(raw_scale)).to_event(1)


class Full(Family):
    r"""Q(z|X) = N(mu(X), L(X) L(X)^T): with correlations, L lower triangular.

    The diagonal of L is positive; below it are any numbers. An encoder that begins with small
    outputs begins near independent dimensions.

    References:
        An introduction to variational autoencoders (Kingma and Welling, 2019), section 2.5.1,
        https://arxiv.org/abs/1906.02691

    Attributes:
        places: Which output stands at each place of L, `(z_dim, z_dim)`; the last of them is 0.
    """

    name = "full"
    places: Tensor

    def __init__(self, z_dim: int) -> None:
        super().__init__(z_dim)
        places = torch.full((z_dim, z_dim), z_dim * (z_dim - 1) // 2)
        rows, columns = torch.tril_indices(z_dim, z_dim, -1)
        places[rows, columns] = torch.arange(len(rows))
        self.register_buffer("places", places, persistent=False)

    @property
    def outputs(self) -> int:
        """mu, and L by rows: z_dim + z_dim (z_dim + 1) / 2."""
        return self.z_dim + self.z_dim * (self.z_dim + 1) // 2

    def forward(self, h: Tensor) -> TorchDistribution:
        """Returns the normal of h `(N, outputs)`."""
        loc, raw_scale, below = h.tensor_split((self.z_dim, 2 * self.z_dim), -1)
        below = torch.nn.functional.pad(below, (0, 1))  # a 0 for all that is not below
        lower = below[..., self.places]
        return dist.MultivariateNormal(loc, scale_tril=lower + positive(raw_scale).diag_embed())


class Flow(Family):
    r"""Q(z|X): a normal with independent dimensions, sent through a flow that X conditions.

    .. math::
        z = T(u; c(X)), \quad u \sim N(\mu(X), \mathrm{diag}\, \sigma(X)^2), \quad
        \log Q(z \mid X) = \log N(u) - \log |\det \partial T / \partial u|

    T are affine couplings given c, a context that the encoder gives beside mu and sigma. It needs
    the library zuko.

    Args:
        z_dim: Dimensions of the latent, two or more.
        num_transforms: Couplings.
        context: Numbers in c.
        hidden_dims: Widths of the couplings' networks.

    Raises:
        ModuleNotFoundError: If zuko is not installed.

    References:
        Variational inference with normalizing flows (Rezende and Mohamed, 2015),
        https://arxiv.org/abs/1505.05770
        Density estimation using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803
    """

    name = "flow"

    def __init__(
        self,
        z_dim: int,
        num_transforms: int = 4,
        context: int = 32,
        hidden_dims: Sequence[int] = (64,),
    ) -> None:
        super().__init__(z_dim)
        check_sizes(context=context)
        self.num_transforms, self.context = num_transforms, context
        self.hidden_dims = tuple(hidden_dims)
        self.net = couplings(z_dim, context, num_transforms, self.hidden_dims)

    def config(self) -> Config:
        """Returns number and widths of the couplings, and the size of the context."""
        sizes = {"num_transforms": self.num_transforms, "context": self.context}
        return {**sizes, "hidden_dims": list(self.hidden_dims)}

    @property
    def outputs(self) -> int:
        """mu, what sigma is made of, and c."""
        return 2 * self.z_dim + self.context

    def forward(self, h: Tensor) -> TorchDistribution:
        """Returns the distribution of z for h `(N, outputs)`."""
        loc, raw_scale, context = h.tensor_split((self.z_dim, 2 * self.z_dim), -1)
        return Flowed(dist.Normal(loc, positive(raw_scale)).to_event(1), self.net(context))


def make(posterior: "str | Family", z_dim: int) -> Family:
    """Returns the family that is meant, for latents of this size.

    Args:
        posterior: A name, with options as in "flow(8)", or one that is made already.
        z_dim: Dimensions of the latent.

    Raises:
        ValueError: If no family has that name, or takes the options, or it is of another size.
        TypeError: If it is neither.
    """
    if isinstance(posterior, Family):
        if posterior.z_dim != z_dim:
            raise ValueError(f"the posterior is for z_dim {posterior.z_dim}, and z_dim is {z_dim}")
        return posterior
    if not isinstance(posterior, str):
        raise TypeError(f"posterior is {posterior!r}; give a name or a pyrovae.guides.Family")
    hint = "one of your own is known once its module is imported"
    return asked_for(families, posterior, "posterior", hint, z_dim)
