"""The VAE with several layers of latents, one given the other."""

__all__ = ["HierarchicalVAE"]

from collections.abc import Sequence
from itertools import pairwise
from math import inf
from typing import Literal, Self, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae import likelihoods
from pyrovae.checks import check_sizes, check_widths, nan_is_missing
from pyrovae.data.rows import Rows
from pyrovae.data.splits import Splits
from pyrovae.distributions import seen
from pyrovae.gaps import or_prior
from pyrovae.likelihoods import Config, Likelihood
from pyrovae.models.base import Model
from pyrovae.models.parts import begin, make_family, rows_of
from pyrovae.nn import MLP, Encoder
from pyrovae.registry import written
from pyrovae.rng import seeded

Direction = Literal["ladder", "bottom-up"]


class HierarchicalVAE(Model):
    r"""A VAE of L layers of latents: the top one makes the next, and the lowest makes X.

    .. math::
        z_L \sim N(0, I), \quad z_l \mid z_{l+1} \sim N(\mu_l(z_{l+1}),
        \mathrm{diag}\, \sigma_l(z_{l+1})^2), \quad X \mid z_1 \sim P(X \mid f_\theta(z_1))

    all plated over the data, with sites "z1", ..., "zL" and "x". The guide goes one of two ways.
    "bottom-up" is the chain the other way round, :math:`Q(z_1 \mid X)\, Q(z_2 \mid z_1) \cdots`,
    each normal with independent dimensions. "ladder" draws the top layer first, as the model does:

    .. math::
        Q(z_L \mid X) = N(\hat\mu_L, \hat\sigma_L^2), \quad
        Q(z_l \mid z_{l+1}, X) \propto N(\hat\mu_l, \hat\sigma_l^2)\, N(\mu_l, \sigma_l^2)(z_{l+1})

    with :math:`\hat\mu_l, \hat\sigma_l` made of X by a net that goes up, so that each layer weighs
    what the data say with what the model says, by their precisions. `model` and `guide` take X of
    shape `(N, x_dim)`; log-probabilities are in nats.

    Args:
        x_dim: Dimensions of one datum, D.
        z_dims: Dimensions of the layers, the lowest first, two or more.
        hidden_dims: Hidden widths of each net.
        likelihood: P(X|z_1): a family's name, a `Likelihood` class or an instance.
        direction: Of the guide, "ladder" or "bottom-up".
        activation: Of the hidden layers, a name of `pyrovae.nn.ACTIVATIONS`.

    Raises:
        ValueError: If a size is no positive integer, there are fewer than two layers, or there is
            no such direction or likelihood.

    References:
        Stochastic backpropagation and approximate inference in deep generative models (Rezende,
        Mohamed and Wierstra, 2014), https://arxiv.org/abs/1401.4082
        Ladder variational autoencoders (Sonderby et al., 2016), https://arxiv.org/abs/1602.02282

    Example:
        >>> model = HierarchicalVAE(x_dim=64, z_dims=(8, 2))
        >>> model.sample(3).shape
        torch.Size([3, 64])
    """

    name = "hierarchical-vae"

    def __init__(
        self,
        x_dim: int,
        z_dims: Sequence[int],
        hidden_dims: Sequence[int] = (256,),
        likelihood: str | type[Likelihood] | Likelihood = "bernoulli",
        direction: Direction = "ladder",
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        self.z_dims = check_widths(z_dims=z_dims)
        self.hidden_dims = hidden = check_widths(hidden_dims=hidden_dims)
        check_sizes(x_dim=x_dim)
        if len(self.z_dims) < 2:
            raise ValueError(f"z_dims is {list(self.z_dims)}; give two layers or more, as (32, 8)")
        if direction not in get_args(Direction):
            raise ValueError(f"direction is {direction!r}; give 'ladder' or 'bottom-up'")
        self.x_dim, self.direction, self.activation = int(x_dim), direction, activation
        self.likelihood = likelihoods.make(likelihood)
        outputs = self.likelihood.num_outputs(self.x_dim)
        self.decoder = MLP(self.z_dims[0], hidden[::-1], outputs, activation)
        self.down = torch.nn.ModuleList(  # mu_l and sigma_l of P(z_l | z_{l+1})
            Encoder(above, hidden, below, activation) for below, above in pairwise(self.z_dims)
        )
        inputs = self.likelihood.num_features(self.x_dim)
        below = [inputs, *self.z_dims]
        if direction == "ladder":  # what goes up is as wide as the hidden layer, not as z
            width = hidden[-1] if hidden else self.x_dim
            below = [inputs, *[width] * len(self.z_dims)]
            self.up = torch.nn.ModuleList(
                MLP(i, hidden, o, activation) for i, o in pairwise(below)
            )
            below = below[1:]
        self.encoder = torch.nn.ModuleList(
            Encoder(i, hidden, z, activation) for i, z in zip(below, self.z_dims, strict=False)
        )

    @nan_is_missing("x")
    def model(self, x: Tensor) -> None:
        """Generative model: P(z_L) ... P(z_1|z_2) P(X|z_1), plated over the data.

        Args:
            x: `(N, x_dim)`; NaN is missing, and P(X|z_1) that of the rest.

        Raises:
            ValueError: If x is of another shape, or no floats.
        """
        self.register(decoder=self.decoder, down=self.down, likelihood=self.likelihood)
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z{len(self.z_dims)}", self.top(x))  # z_L ~ N(0, I)
            for layer in reversed(range(1, len(self.z_dims))):
                z = pyro.sample(f"z{layer}", self.given_above(z, layer))  # z_l ~ P(z_l|z_{l+1})
            x = self.checked(x)
            p = seen(self.decode(z), x, self.likelihood.filler)
            pyro.sample("x", p, obs=x)  # X ~ P(X|z_1)

    def guide(self, x: Tensor) -> None:
        """Variational posterior over all layers, plated over the data.

        Args:
            x: `(N, x_dim)`.
        """
        self.register(encoder=self.encoder)
        if self.direction == "bottom-up":
            h = self.likelihood.features(self.checked(x))
            with pyro.plate("data", len(x)):
                for layer, net in enumerate(self.encoder, 1):
                    h = pyro.sample(f"z{layer}", dist.Normal(*net(h)).to_event(1))
            return
        self.register(up=self.up, down=self.down)
        heard = self.heard(x)
        with pyro.plate("data", len(x)):
            loc, scale = heard[-1]
            z = pyro.sample(f"z{len(heard)}", dist.Normal(loc, scale).to_event(1))
            for layer in reversed(range(1, len(heard))):
                q = weighed(heard[layer - 1], self.down[layer - 1](z))
                z = pyro.sample(f"z{layer}", q)

    def top(self, x: Tensor) -> TorchDistribution:
        """Returns P(z_L) = N(0, I) for each row of x `(N, ...)`."""
        zeros = x.new_zeros(len(x), self.z_dims[-1])
        return dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)

    def given_above(self, z: Tensor, layer: int) -> TorchDistribution:
        """Returns P(z_l | z_{l+1}): batch shape `(...)`, event shape `(z_dims[l - 1],)`.

        Args:
            z: The layer above, `(..., z_dims[l])`.
            layer: l, from 1 on.
        """
        return dist.Normal(*self.down[layer - 1](z)).to_event(1)

    def decode(self, z: Tensor) -> TorchDistribution:
        """Returns P(X|z_1) for z_1 `(..., z_dims[0])`: batch `(...)`, event shape `(x_dim,)`."""
        return self.likelihood(self.decoder(z))

    def heard(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns what the ladder's way up makes of x `(N, x_dim)`: mu and sigma by layer.

        Where nothing of x is seen nothing is heard, sigma is infinite; at the top that of P(z_L).
        """
        h, found = self.likelihood.features(self.checked(x)), []
        for up, net in zip(self.up, self.encoder, strict=True):
            h = up(h)
            loc, scale = net(h)
            last = len(found) == len(self.up) - 1
            found.append((or_prior(x, loc, 0.0), or_prior(x, scale, 1.0 if last else inf)))
        return found

    @torch.no_grad()
    def sample(self, n: int, *, seed: int | None = None) -> Tensor:
        """Returns n draws of X ~ P(X), `(n, x_dim)`: layer by layer from the top, then X.

        Args:
            n: How many.
            seed: Fixes them; `None` goes on with torch's random stream.
        """
        with seeded(seed):
            z = self.top(next(self.decoder.parameters()).new_empty(n, 0)).sample()
            for layer in reversed(range(1, len(self.z_dims))):
                z = self.given_above(z, layer).sample()
            return self.decode(z).sample()

    @torch.no_grad()
    def start_at(self, x: Tensor | Rows) -> Self:
        """Sets the decoder's last bias: X begins at the mean of x `(N, x_dim)`; returns self."""
        begin(self.decoder, self.likelihood, x)
        return self

    def checked(self, x: Tensor) -> Tensor:
        """Returns x `(N, x_dim)`.

        Raises:
            ValueError: If it is of another shape, or no floats.
        """
        return rows_of(x, self.x_dim, "model")

    def config(self) -> Config:
        """Returns what `from_config` needs to build the same architecture, fit for JSON."""
        return {
            "x_dim": self.x_dim,
            "z_dims": list(self.z_dims),
            "hidden_dims": list(self.hidden_dims),
            "likelihood": written(self.likelihood.name, self.likelihood.config()),
            "direction": self.direction,
            "activation": self.activation,
        }

    @classmethod
    def for_data(  # pyright: ignore[reportIncompatibleMethodOverride]  # options of its own
        cls,
        splits: Splits,
        z_dims: Sequence[int] = (16, 4),
        hidden_dims: Sequence[int] = (256,),
        likelihood: str = "bernoulli",
        sigma: float | None = None,
        direction: Direction = "ladder",
        activation: str = "tanh",
    ) -> Self:
        """Returns an untrained model that begins at the mean of the training data.

        Args:
            splits: The data set.
            z_dims: Dimensions of the layers, the lowest first.
            hidden_dims: Widths of each net's layers.
            likelihood: P(X|z_1), by name.
            sigma: Of the normal likelihood; `None` to learn it.
            direction: Of the guide, ladder or bottom-up.
            activation: Of the hidden layers.
        """
        x, family = splits.train.x, make_family(likelihood, sigma, splits)
        return cls(x.shape[1], z_dims, hidden_dims, family, direction, activation).start_at(x)


def weighed(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> TorchDistribution:
    r"""Returns the normal that is proportional to the product of two, by their precisions.

    .. math::
        \sigma^{-2} = \sigma_1^{-2} + \sigma_2^{-2}, \quad
        \mu = \sigma^2 (\mu_1 \sigma_1^{-2} + \mu_2 \sigma_2^{-2})

    Args:
        one: mu and sigma, `(..., d)` each.
        other: Likewise.

    References:
        Ladder variational autoencoders (Sonderby et al., 2016), equations 17 to 19,
        https://arxiv.org/abs/1602.02282
    """
    a, b = one[1].pow(-2), other[1].pow(-2)
    loc = (one[0] * a + other[0] * b) / (a + b)
    return dist.Normal(loc, (a + b).rsqrt()).to_event(1)
