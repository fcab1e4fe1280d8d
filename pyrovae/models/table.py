"""A VAE of few data with gaps, such as a table's: a linear Gaussian model, and what bends it."""

__all__ = ["TableVAE"]

from collections.abc import Sequence
from typing import Any, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.checks import check_sizes
from pyrovae.data.splits import Splits
from pyrovae.gaps import has_gaps, or_prior
from pyrovae.likelihoods import Column, Columns, Likelihood
from pyrovae.models.parts import make_family
from pyrovae.models.vae import VAE
from pyrovae.nn import MLP, Bias

BENT = 0.1  # of what Glorot's first weights of an output are


class TableVAE(VAE):
    r"""A variational autoencoder whose encoder is exact where its decoder is linear.

    .. math::
        f(z) = W z + b + g(z), \quad
        Q(z \mid X) = N(\mu, P^{-1}), \quad
        P = I + \sum_{j \text{ seen}} \lambda_j a_j a_j^\top, \quad
        \mu = P^{-1} \sum_{j \text{ seen}} \lambda_j a_j (u_j - c_j) + h(u)

    with features u of X, what is missing left out of both sums, and networks g and h that are
    small at first. A linear Gaussian model is that with g = h = 0: the posterior of any of the
    2^D patterns of gaps is then this Q, which no encoder that is given zeros for them learns from
    some hundred rows. X is `(N, x_dim)`, log P(X) in nats per datum, and all else as of `VAE`.
    Trained with few data its matrices want to shrink: `optimizer="adamw(1.0)"` of
    `pyrovae.svi.fit`.

    Args:
        x_dim: Dimensions of a datum, D.
        z_dim: Dimensions of its latent.
        hidden_dims: Hidden widths of h; those of g are in reverse.
        likelihood: P(X|z): a family's name, a `Likelihood` class or an instance; `None` for a
            normal of each dimension, in its own units and with its own sigma.
        activation: Of the hidden layers, a name of `pyrovae.nn.ACTIVATIONS`.

    Raises:
        TypeError: If `hidden_dims` is no list, or `likelihood` no family.
        ValueError: If a size is no positive integer, no family has the likelihood's name, or one
            has a mask: h is told what is seen, and to the sums a mask would be data.

    References:
        Autoencoders and probabilistic inference with missing data: an exact solution for the
        factor analysis case (Williams, Nash and Nazabal, 2018), https://arxiv.org/abs/1801.03851
        Auto-encoding variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114

    Example:
        >>> vae = TableVAE(x_dim=6, z_dim=2)
        >>> q = vae.encode(torch.full((3, 6), torch.nan))  # nothing seen: the prior's
        >>> q.variance[0].detach().round(decimals=3)
        tensor([1., 1.])
    """

    name = "table-vae"
    objective = "iwae(5)"

    def __init__(
        self,
        x_dim: int,
        z_dim: int,
        hidden_dims: Sequence[int] = (32,),
        likelihood: str | type[Likelihood] | Likelihood | None = None,
        *,
        activation: str = "tanh",
    ) -> None:
        check_sizes(x_dim=x_dim)
        family = likelihood or Columns([Column(str(d), "real") for d in range(x_dim)])
        super().__init__(x_dim, z_dim, hidden_dims, family, activation=activation)
        if isinstance(self.likelihood, Columns) and self.likelihood.mask:
            raise ValueError(
                "the columns have a mask, and a TableVAE is told what is missing in its own way; "
                "give Columns(mask=False)"
            )
        widths, outputs = self.hidden_dims, self.likelihood.num_outputs(self.x_dim)
        features = self.likelihood.num_features(self.x_dim)
        self.encoder = Experts(features, widths, self.z_dim, activation)
        self.decoder = torch.nn.Sequential(
            Bent(self.z_dim, widths[::-1], outputs, activation), Bias(outputs)
        )

    def encode(self, x: Tensor) -> TorchDistribution:
        """Returns Q(z|X) for x `(N, x_dim)`: batch shape `(N,)`, event shape `(z_dim,)`.

        Raises:
            ValueError: If x is not of shape `(N, x_dim)`.
        """
        x = self.checked(x)
        there = self.likelihood.seen(x) if has_gaps(x) else None
        loc, scale = self.encoder(self.likelihood.features(x), there)
        return dist.MultivariateNormal(or_prior(x, loc, 0.0), scale_tril=scale)

    @classmethod
    def for_data(  # pyright: ignore[reportIncompatibleMethodOverride]  # options of its own
        cls,
        splits: Splits,
        z_dim: int = 16,
        hidden_dims: Sequence[int] = (32,),
        likelihood: str = "columns",
        sigma: float | None = None,
        **config: Any,
    ) -> Self:
        """Returns an untrained model that begins at the mean of the training data.

        Args:
            splits: The data set.
            z_dim: Latent dimensions.
            hidden_dims: Widths of h, of g in reverse.
            likelihood: P(X|z), by name, with options as in "student-t(df=3)"; of data that are
                no table "columns" is a normal of each dimension.
            sigma: Of the normal likelihood; `None` to learn it.
            config: What the constructor takes besides.

        Raises:
            ValueError: If sigma is given to another family.
        """
        x, family = splits.train.x, None
        if splits.columns or likelihood != "columns":
            family = make_family(likelihood, sigma, splits, mask=False)
        return cls(x.shape[1], z_dim, hidden_dims, family, **config).start_at(x)


class Bent(torch.nn.Module):
    """W z + g(z), without a bias: a linear map, and a network that is small at first.

    Args:
        in_dim: Size of z, `(..., in_dim)`.
        hidden_dims: Hidden widths of g.
        out_dim: Size of what it returns, `(..., out_dim)`.
        activation: Of g, a name of `pyrovae.nn.ACTIVATIONS`.
    """

    def __init__(
        self, in_dim: int, hidden_dims: Sequence[int], out_dim: int, activation: str
    ) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(in_dim, out_dim, bias=False)
        torch.nn.init.normal_(self.linear.weight, std=0.3)
        self.net = _small(MLP(in_dim, hidden_dims, out_dim, activation))

    def forward(self, z: Tensor) -> Tensor:
        """Returns W z + g(z), `(..., out_dim)`, for z `(..., in_dim)`."""
        return self.linear(z) + self.net(z)


class Experts(torch.nn.Module):
    """mu and P^-1 of Q(z|X) by a sum over the features that are seen, see `TableVAE`.

    Args:
        features: How many there are.
        hidden_dims: Hidden widths of h.
        z_dim: Dimensions of the latent.
        activation: Of h, a name of `pyrovae.nn.ACTIVATIONS`.
    """

    def __init__(
        self, features: int, hidden_dims: Sequence[int], z_dim: int, activation: str
    ) -> None:
        super().__init__()
        self.directions = torch.nn.Parameter(0.3 * torch.randn(features, z_dim))  # a
        self.centers = torch.nn.Parameter(torch.zeros(features))  # c
        self.raw_precision = torch.nn.Parameter(torch.zeros(features))  # of lambda
        self.net = _small(MLP(2 * features, hidden_dims, z_dim, activation))

    def forward(self, u: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns mu `(N, z_dim)` and lower triangular L, `(N, z_dim, z_dim)`, P^-1 = L L^T.

        Args:
            u: Features, `(N, features)`, 0 where they are missing.
            seen: Where they are not; `None` where none is missing: L is then that of all data,
                `(z_dim, z_dim)`.
        """
        there, a = torch.ones_like(u) if seen is None else seen.to(u), self.directions
        lam = 1 / softplus(self.raw_precision).square()
        weight = lam if seen is None else there * lam
        eye = torch.eye(a.shape[1], dtype=u.dtype, device=u.device)
        precision = eye + (weight.unsqueeze(-1) * a).mT @ a
        pull = (weight * (u - self.centers)) @ a
        upper = torch.linalg.cholesky(precision.flip(-2, -1)).flip(-2, -1)  # P = U U^T
        scale = torch.linalg.solve_triangular(upper.mT, eye, upper=False)
        mu = (scale @ (scale.mT @ pull.unsqueeze(-1))).squeeze(-1)
        return mu + self.net(torch.cat([u, there], -1)), scale


def _small(net: MLP) -> MLP:
    """Returns a network whose outputs are small at first, and have no bias."""
    last = net[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.mul_(BENT)
    last.register_parameter("bias", None)
    return net
