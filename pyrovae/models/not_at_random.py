"""A VAE of data whose gaps tell of what is missing: values missing not at random."""

__all__ = ["NotMIWAE"]

from collections.abc import Sequence
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.checks import nan_is_missing, shown
from pyrovae.distributions import seen
from pyrovae.likelihoods import Config, Likelihood
from pyrovae.models.table import TableVAE

MECHANISMS = "self", "higher", "lower", "linear"


class NotMIWAE(TableVAE):
    r"""A `TableVAE` that also says which numbers are missing, given what they are.

    .. math::
        z_n \sim N(0, I), \quad X_n \mid z_n \sim P(X \mid f_\theta(z_n)), \quad
        S_n \mid X_n \sim \prod_d \mathrm{Bernoulli}(S_{nd} \mid \sigma(g_d(X_n)))

    S is 1 where X, `(N, x_dim)`, is missing, NaN. What is seen of X and S are observed, and what
    is missing of X is a latent of its own, "missing", which the guide draws from P(X|z): the
    weights are those of

    .. math::
        \log P(X_{\text{seen}}, S) = \log \int P(X_{\text{seen}} \mid z)\,
        P(S \mid X_{\text{seen}}, X_{\text{miss}})\, P(X_{\text{miss}} \mid z)\, P(z)\,
        dX_{\text{miss}}\, dz

    in nats per datum, which is no log P(X), nor compared with one. Where S does not depend on X,
    values are missing at random, and a `TableVAE` is all that is needed; that they do not is
    nothing that data can show without an assumption on how they do: here it is the mechanism g.

    - "self": :math:`g_d = w_d (u_d - b_d)`, u features of X: each number decides for itself;
    - "higher": the same with w positive: high numbers are missing more often; "lower": negative;
    - "linear": g = W u + b: also what others are decides.

    Args:
        x_dim: Dimensions of a datum, D.
        z_dim: Dimensions of its latent.
        hidden_dims: Hidden widths of h; those of g are in reverse, see `TableVAE`.
        likelihood: P(X|z), of numbers: a family with a reparametrised draw, such as "normal";
            `None` for a normal of each dimension, in its own units and with its own sigma.
        mechanism: g, by name.
        activation: Of the hidden layers, a name of `pyrovae.nn.ACTIVATIONS`.

    Raises:
        TypeError, ValueError: As `TableVAE`; or if there is no such mechanism.

    References:
        not-MIWAE: deep generative modelling with missing not at random data (Ipsen, Mattei and
        Frellsen, 2021), https://arxiv.org/abs/2006.12871

    Example:
        >>> vae, x = NotMIWAE(x_dim=4, z_dim=2, mechanism="higher"), torch.ones(3, 4)
        >>> x[0, 1] = torch.nan
        >>> vae.model(x)
    """

    name = "not-miwae"
    objective = "iwae(20)"
    target: ClassVar[str] = "log P(X, S)"

    def __init__(
        self,
        x_dim: int,
        z_dim: int,
        hidden_dims: Sequence[int] = (32,),
        likelihood: str | type[Likelihood] | Likelihood | None = None,
        *,
        mechanism: str = "self",
        activation: str = "tanh",
    ) -> None:
        super().__init__(x_dim, z_dim, hidden_dims, likelihood, activation=activation)
        if mechanism not in MECHANISMS:
            raise ValueError(f"mechanism is {shown(mechanism)}; choose of {', '.join(MECHANISMS)}")
        self.mechanism = Mechanism(self.x_dim, mechanism)

    @nan_is_missing("x", informs="missing")
    def model(self, x: Tensor) -> None:
        """Generative model: P(z) P(X|z) P(S|X), plated over the data.

        Args:
            x: `(N, x_dim)`, NaN where S is 1.

        Raises:
            ValueError: If x is of another shape, or no floats, or P(X|z) is of what has no
                gradient.
        """
        self.register(decoder=self.decoder, likelihood=self.likelihood, mechanism=self.mechanism)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(x))  # z ~ N(0, I)
            x, p = self.checked(x), self.decode(z)
            if not p.has_rsample:
                raise ValueError(
                    f"likelihood {self.likelihood.name!r} is of what has no gradient; take one of "
                    "numbers, such as 'normal', for what is missing not at random"
                )
            drawn = pyro.sample("missing", p)  # X ~ P(X|z) where it is missing; elsewhere unused
            pyro.sample("x", seen(p, x, self.likelihood.filler), obs=x)
            gaps = x.isnan()
            u = self.likelihood.features(torch.where(gaps, drawn, x))
            s = dist.Bernoulli(logits=self.mechanism(u), validate_args=False).to_event(1)
            pyro.sample("mask", s, obs=gaps.to(u.dtype))  # S ~ P(S|X)

    def guide(self, x: Tensor) -> None:
        """Variational posterior: Q(z|X) P(X|z), plated over the data; the second is the model's.

        Args:
            x: `(N, x_dim)`, NaN where S is 1.
        """
        self.register(encoder=self.encoder, decoder=self.decoder, likelihood=self.likelihood)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.encode(x))
            pyro.sample("missing", self.decode(z))

    def config(self) -> Config:
        """Returns what `from_config` needs to build the same architecture, fit for JSON."""
        return super().config() | {"mechanism": self.mechanism.kind}


class Mechanism(torch.nn.Module):
    """Logits of which numbers are missing, by what they are.

    Args:
        size: D.
        kind: Of `MECHANISMS`.
    """

    def __init__(self, size: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.bias = torch.nn.Parameter(torch.zeros(size))
        shape = (size, size) if kind == "linear" else (size,)
        self.weight = torch.nn.Parameter(0.1 * torch.randn(shape))

    def forward(self, u: Tensor) -> Tensor:
        """Returns logits of S = 1, `(..., D)`, for features u `(..., D)`."""
        if self.kind == "linear":
            return u @ self.weight.T + self.bias
        sign = {"self": self.weight, "higher": softplus(self.weight)}
        weight = sign.get(self.kind, -softplus(self.weight))
        return weight * u + self.bias
