r"""Priors P(z): one class a family, learned with the decoder where it has parameters.

.. math::
    \log P(X) = \log \int P(X \mid z)\, P(z)\, dz

Log-densities are in nats. A `Prior` is called with X, of which length, type and device count, and
with the model's Q(z|X), of which a `Vamp` is made.
"""

__all__ = ["Flow", "Mixture", "Normal", "Prior", "Vamp", "make"]

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import expm1, log
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.data.rows import Rows
from pyrovae.distributions import NormalMixture
from pyrovae.flows import Flowed, couplings
from pyrovae.gaps import filled
from pyrovae.nn import positive
from pyrovae.registry import asked_for, enter

Config = dict[str, Any]
Encode = Callable[[Tensor], TorchDistribution]
families: dict[str, type["Prior"]] = {}


class Prior(torch.nn.Module):
    """P(z) of a latent, for each row of X: one subclass with a `name` and a `forward`.

    It is then known by that name everywhere: `pv.VAE(784, 50, prior="mixture(100)")`. What the
    constructor takes beside the sizes are its options; they come back from `config`.

    Args:
        z_dim: Dimensions of the latent.
        x_dim: Dimensions of a datum.

    Attributes:
        name: The name a user writes.

    Raises:
        ValueError: If a size is no positive integer.
        TypeError: Where the class is defined, if another has its name.
    """

    name: ClassVar[str]

    def __init__(self, z_dim: int, x_dim: int) -> None:
        super().__init__()
        check_sizes(z_dim=z_dim, x_dim=x_dim)
        self.z_dim, self.x_dim = z_dim, x_dim

    def __init_subclass__(cls) -> None:
        """Adds the class to `families`, where it has a name of its own."""
        super().__init_subclass__()
        enter(families, cls)

    def config(self) -> Config:
        """Returns the constructor's arguments beside the sizes, as JSON can hold them."""
        return {}

    @abstractmethod
    def forward(self, x: Tensor, encode: Encode) -> TorchDistribution:
        """Returns P(z) for each row of X: batch shape `(N,)`, event shape `(z_dim,)`.

        Args:
            x: `(N, ...)`, of which length, type and device count.
            encode: Q(z|X) of the model, for X `(n, x_dim)`.
        """

    def start_at(self, x: Tensor | Rows) -> Self:
        """Begins at the training data, where that helps; returns itself.

        Args:
            x: `(N, x_dim)`.
        """
        return self


class Normal(Prior):
    r"""P(z) = N(0, I): what a VAE has if no other is given.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114
    """

    name = "normal"

    def forward(self, x: Tensor, encode: Encode) -> TorchDistribution:
        """Returns N(0, I) for each row of x `(N, ...)`.

        Args:
            x: As of `Prior`.
            encode: Likewise.
        """
        zeros = x.new_zeros(len(x), self.z_dim)
        return dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)


class Mixture(Prior):
    r"""A mixture of K normals with weights, means and standard deviations of its own.

    .. math::
        P(z) = \sum_{k=1}^K \pi_k\, N(z; \mu_k, \mathrm{diag}\, \sigma_k^2)

    Means begin at draws of N(0, I), weights equal, sigma at 1.

    Args:
        z_dim: Dimensions of the latent.
        x_dim: Dimensions of a datum.
        num_components: K.

    References:
        Deep unsupervised clustering with Gaussian mixture variational autoencoders (Dilokthanakul
        et al., 2016), https://arxiv.org/abs/1611.02648
    """

    name = "mixture"

    def __init__(self, z_dim: int, x_dim: int, num_components: int = 100) -> None:
        super().__init__(z_dim, x_dim)
        check_sizes(num_components=num_components)
        self.num_components = num_components
        self.logits = torch.nn.Parameter(torch.zeros(num_components))
        self.locs = torch.nn.Parameter(torch.randn(num_components, z_dim))
        self.raw_scales = torch.nn.Parameter(torch.full((num_components, z_dim), log(expm1(1.0))))

    def config(self) -> Config:
        """Returns K."""
        return {"num_components": self.num_components}

    def forward(self, x: Tensor, encode: Encode) -> TorchDistribution:
        """Returns the mixture for each row of x `(N, ...)`.

        Args:
            x: As of `Prior`.
            encode: Likewise.
        """
        parts = self.logits, self.locs, positive(self.raw_scales)
        return NormalMixture(*parts).expand((len(x),))


class Vamp(Prior):
    r"""The mixture of the posteriors of K pseudo-inputs u_k, which are learned.

    .. math::
        P(z) = \frac{1}{K} \sum_{k=1}^K Q(z \mid u_k)

    Of all priors the mean of Q(z|X) over the data has the highest ELBO; this is its likeness with
    K data of its own. They begin at training data, by `start_at`, else at numbers around 1/2, and
    are not kept inside any bounds. It is for guides Q(z|X) that are normal with independent
    dimensions.

    Args:
        z_dim: Dimensions of the latent.
        x_dim: Dimensions of a datum.
        num_components: K.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018), https://arxiv.org/abs/1705.07120
    """

    name = "vamp"

    def __init__(self, z_dim: int, x_dim: int, num_components: int = 500) -> None:
        super().__init__(z_dim, x_dim)
        check_sizes(num_components=num_components)
        self.num_components = num_components
        self.inputs = torch.nn.Parameter(0.5 + 0.01 * torch.randn(num_components, x_dim))

    def config(self) -> Config:
        """Returns K."""
        return {"num_components": self.num_components}

    def forward(self, x: Tensor, encode: Encode) -> TorchDistribution:
        """Returns the mixture for each row of x `(N, ...)`.

        Args:
            x: As of `Prior`.
            encode: Q(z|X) of the model, for X `(n, x_dim)`.

        Raises:
            ValueError: If Q(z|X) is not normal with independent dimensions.
        """
        q = encode(self.inputs)
        parts = getattr(q, "base_dist", None)
        if not isinstance(parts, torch.distributions.Normal):
            raise ValueError(
                f"the prior vamp is a mixture of Q(z|u), which is {type(parts or q).__name__}; "
                "give a posterior that is 'diagonal', or another prior"
            )
        equal = q.mean.new_zeros(self.num_components)
        return NormalMixture(equal, parts.mean, parts.stddev).expand((len(x),))

    @torch.no_grad()
    def start_at(self, x: Tensor | Rows) -> Self:
        """Sets the pseudo-inputs to rows of the data, drawn by torch's stream; returns itself.

        Args:
            x: `(N, x_dim)`.
        """
        rows = torch.randint(len(x), (self.num_components,))
        self.inputs.copy_(filled(x[rows]))
        return self


class Flow(Prior):
    r"""A normalizing flow: z = T(u) of normal u, T learned and invertible.

    .. math::
        \log P(z) = \log N(T^{-1}(z); 0, I) + \log |\det \partial T^{-1} / \partial z|

    T are affine couplings, each of half the dimensions given the other half, `zuko.flows.NICE`;
    that library has to be there.

    Args:
        z_dim: Dimensions of the latent, two or more.
        x_dim: Dimensions of a datum.
        num_transforms: Couplings.
        hidden_dims: Widths of their networks.

    Raises:
        ModuleNotFoundError: If zuko is not installed.

    References:
        Density estimation using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803
        Improving variational inference with inverse autoregressive flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934
    """

    name = "flow"

    def __init__(
        self, z_dim: int, x_dim: int, num_transforms: int = 4, hidden_dims: Sequence[int] = (64,)
    ) -> None:
        super().__init__(z_dim, x_dim)
        self.num_transforms, self.hidden_dims = num_transforms, tuple(hidden_dims)
        self.net = couplings(z_dim, 0, num_transforms, self.hidden_dims)

    def config(self) -> Config:
        """Returns number and widths of the couplings."""
        return {"num_transforms": self.num_transforms, "hidden_dims": list(self.hidden_dims)}

    def forward(self, x: Tensor, encode: Encode) -> TorchDistribution:
        """Returns the flow's distribution for each row of x `(N, ...)`.

        Args:
            x: As of `Prior`.
            encode: Likewise.
        """
        zeros = x.new_zeros(len(x), self.z_dim)
        return Flowed(dist.Normal(zeros, torch.ones_like(zeros)).to_event(1), self.net(None))


def make(prior: "str | Prior | None", z_dim: int, x_dim: int) -> Prior:
    """Returns the prior that is meant, for latents and data of these sizes.

    Args:
        prior: A name, with options as in "mixture(100)"; one that is made already; `None` for
            "normal".
        z_dim: Dimensions of the latent.
        x_dim: Dimensions of a datum.

    Raises:
        ValueError: If no prior has that name, or takes the options, or it is of other sizes.
        TypeError: If it is none of these.
    """
    if isinstance(prior, Prior):
        if (prior.z_dim, prior.x_dim) != (z_dim, x_dim):
            raise ValueError(
                f"the prior is for z_dim {prior.z_dim} and x_dim {prior.x_dim}, and the model has "
                f"{z_dim} and {x_dim}"
            )
        return prior
    if prior is None:
        return Normal(z_dim, x_dim)
    if not isinstance(prior, str):
        raise TypeError(f"prior is {prior!r}; give a name, a pyrovae.priors.Prior or a callable")
    hint = "one of your own is known once its module is imported"
    return asked_for(families, prior, "prior", hint, z_dim, x_dim)
