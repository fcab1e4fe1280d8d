"""The mixture of Gaussians: one discrete latent, summed out, so that log P(X) is exact."""

__all__ = ["GaussianMixture", "nearest"]

import warnings
from math import expm1, log
from typing import Self

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.checks import check_positive, check_sizes, nan_is_missing
from pyrovae.data.splits import Splits
from pyrovae.distributions import seen
from pyrovae.likelihoods import Config
from pyrovae.models.base import Model
from pyrovae.models.parts import mean_seen
from pyrovae.rng import seeded


class GaussianMixture(Model):
    r"""K normal components with weights, means and standard deviations of their own.

    .. math::
        c_n \sim \mathrm{Cat}(\pi), \quad X_n \mid c_n \sim N(\mu_{c_n}, \mathrm{diag}\,
        \sigma_{c_n}^2), \quad \log P(X) = \log \sum_k \pi_k N(X; \mu_k, \sigma_k^2)

    The latent has K values, so nothing is guessed: `guide` is `None`, the latent is summed out,
    and `exact` is the estimator. The log-density is in nats per datum; X is `(N, x_dim)`. SVI is
    maximum likelihood by gradients: `pv.svi.fit(m.model, m.guide, x)`, which of several maxima
    finds one. It begins where `start_at` says, or with means drawn from N(0, I).

    Args:
        x_dim: Dimensions of one datum, D.
        num_components: K.
        floor: Smallest sigma, in the units of X: without one a component that shrinks onto a datum
            makes the likelihood grow without end.

    Raises:
        ValueError: If a size is no positive integer, or the floor not positive.

    References:
        Maximum likelihood from incomplete data via the EM algorithm (Dempster, Laird and Rubin,
        1977), section 4.3, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x

    Example:
        >>> import pyrovae as pv
        >>> m, x = GaussianMixture(x_dim=2, num_components=3), torch.zeros(4, 2)
        >>> evidence = pv.evaluate(m.model, None, x, estimators="exact", progress=False)
        >>> torch.allclose(evidence["exact"].value, m.log_evidence(x).double(), atol=1e-5)
        True
    """

    name = "gaussian-mixture"
    binary = False

    def __init__(self, x_dim: int, num_components: int, floor: float = 0.01) -> None:
        super().__init__()
        check_sizes(x_dim=x_dim, num_components=num_components)
        check_positive(floor=floor)
        self.x_dim, self.num_components, self.floor = x_dim, num_components, floor
        self.components = _Components(num_components, x_dim)

    @nan_is_missing("x")
    def model(self, x: Tensor) -> None:
        """Generative model: P(c) P(X|c), plated over the data x `(N, x_dim)`, NaN is missing."""
        self.register(components=self.components)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", self.weights(), infer={"enumerate": "parallel"})  # c ~ Cat(pi)
            pyro.sample("x", seen(self.component(c), x), obs=x)  # X ~ N(mu_c, sigma_c^2)

    def weights(self) -> dist.Categorical:
        """Returns P(c), batch shape `()`."""
        return dist.Categorical(logits=self.components.logits)

    def component(self, c: Tensor) -> TorchDistribution:
        """Returns P(X|c) for c `(...)`: batch shape `(...)`, event shape `(x_dim,)`."""
        return dist.Normal(self.components.locs[c], self.scales[c]).to_event(1)

    @property
    def scales(self) -> Tensor:
        """Standard deviations, `(K, x_dim)`: softplus(raw) + floor."""
        return softplus(self.components.raw_scales) + self.floor

    def _log_joint(self, x: Tensor) -> Tensor:
        """Returns log P(X, c), `(N, K)`, nats, for x `(N, x_dim)`."""
        every = torch.arange(self.num_components, device=x.device)
        x = x[:, None]
        return seen(self.component(every), x).log_prob(x) + self.weights().logits

    @torch.no_grad()
    def log_evidence(self, x: Tensor) -> Tensor:
        """Returns log P(X) of each row of x `(N, x_dim)`, exactly, `(N,)`, in nats."""
        return self._log_joint(x).logsumexp(1)

    @torch.no_grad()
    def responsibilities(self, x: Tensor) -> Tensor:
        """Returns the posterior P(c|X) of each row of x `(N, x_dim)`, `(N, K)`."""
        return self._log_joint(x).softmax(1)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int | None = None) -> Tensor:
        """Returns n draws of X ~ P(X), `(n, x_dim)`: c from its weights, then X given c.

        Args:
            n: How many.
            seed: Fixes them; `None` goes on with torch's random stream.
        """
        with seeded(seed):
            return self.component(self.weights().sample((n,))).sample()

    @torch.no_grad()
    def start_at(self, x: Tensor, *, seed: int = 0) -> Self:
        """Returns the model itself, its components those that k-means finds in x.

        Args:
            x: Data, `(N, x_dim)`, K rows or more.
            seed: Of k-means.

        Raises:
            ValueError: If x has another shape, or fewer rows, or fewer that differ.
        """
        x, near = nearest(x, self.x_dim, self.num_components, seed)
        locs, parts = self.components.locs, [x[near == k] for k in range(self.num_components)]
        count = torch.tensor([float(len(part)) for part in parts]).to(locs)
        if not count.all():
            raise ValueError(
                f"x has {int(count.count_nonzero())} rows that differ; give {len(count)} or more, "
                "or ask for fewer components"
            )
        found, every = torch.stack([_moments(part) for part in parts]), _moments(x)
        every = torch.where(every.isnan(), torch.tensor([[0.0], [1.0]]).to(every), every)
        mean, spread = torch.where(found.isnan(), every, found).to(locs).unbind(1)
        raw = (spread - self.floor).clamp(min=self.floor)
        locs.copy_(mean)
        self.components.raw_scales.copy_(raw.expm1().log().where(raw < 20, raw))
        self.components.logits.copy_((count / count.sum()).log())
        return self

    @classmethod
    def for_data(  # pyright: ignore[reportIncompatibleMethodOverride]  # options of its own
        cls, splits: Splits, num_components: int = 10, floor: float = 0.01
    ) -> Self:
        """Returns a model for a data set, started at its training data.

        Args:
            splits: The data set.
            num_components: K.
            floor: Smallest sigma.
        """
        x = splits.train.x
        model = cls(x.shape[1], num_components, floor)
        seed = int(torch.randint(2**31 - 1, ()))
        return model.start_at(x[:], seed=seed)

    def config(self) -> Config:
        """Returns the constructor's arguments."""
        return {
            "x_dim": self.x_dim,
            "num_components": self.num_components,
            "floor": self.floor,
        }


def nearest(x: Tensor, x_dim: int, num_components: int, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the rows in which something is seen, `(M, x_dim)`, and k-means' number of each.

    The number is that of the component that it puts them in, `(M,)`, with the means of columns in
    the place of what is missing.

    Args:
        x: Data, `(N, x_dim)`, K such rows or more.
        x_dim: D.
        num_components: K; some may be left without a row, where fewer rows differ.
        seed: Of k-means.

    Raises:
        ValueError: If x has another shape, or fewer rows.
    """
    from sklearn.cluster import KMeans  # takes a second to import
    from sklearn.exceptions import ConvergenceWarning

    rows = x[~x.isnan().all(1)] if x.ndim == 2 else x
    if rows.ndim != 2 or rows.shape[1] != x_dim or len(rows) < num_components:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; give (N, {x_dim}), of {num_components} rows or more "
            "that are not all NaN"
        )
    whole = torch.where(rows.isnan(), mean_seen(rows), rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the caller counts the rows
        found = KMeans(num_components, random_state=seed).fit(whole.cpu().numpy())
    return rows, torch.as_tensor(found.labels_, device=x.device)


def _moments(x: Tensor) -> Tensor:
    """Returns mean and standard deviation of what is seen of x's columns, `(2, D)`, or NaN."""
    mean = x.nanmean(0)
    return torch.stack([mean, (x - mean).square().nanmean(0).sqrt()])


class _Components(torch.nn.Module):
    """Parameters of K components in D dimensions.

    Args:
        num_components: K.
        x_dim: D.
    """

    def __init__(self, num_components: int, x_dim: int) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(num_components))
        self.locs = torch.nn.Parameter(torch.randn(num_components, x_dim))
        self.raw_scales = torch.nn.Parameter(torch.full((num_components, x_dim), log(expm1(1.0))))
