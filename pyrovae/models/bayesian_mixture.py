"""The Bayesian mixture of Gaussians: the means are latents that all data have in common."""

__all__ = ["BayesianGaussianMixture"]

from math import log, pi
from typing import Self

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

from pyrovae.checks import check_positive, check_sizes, nan_is_missing
from pyrovae.data.splits import Splits
from pyrovae.distributions import ExchangeableNormal, seen
from pyrovae.gaps import filled
from pyrovae.likelihoods import Config
from pyrovae.models.base import Model
from pyrovae.models.mixture import nearest
from pyrovae.models.parts import rows_of
from pyrovae.rng import seeded

MOST_ROWS = 14  # whose 3^N pairs of disjoint subsets are summed over, in seconds
MOST_COMPONENTS = 12  # whose 2^K subsets are, for each particle


class BayesianGaussianMixture(Model):
    r"""K normal components whose means have a prior: mean-field, coordinate ascent, exact sums.

    .. math::
        \mu_k \sim N(0, \tau^2 I), \quad c_n \sim \mathrm{Cat}(1/K), \quad
        X_n \mid c_n, \mu \sim N(\mu_{c_n}, \sigma^2 I), \quad Q(\mu_k) = N(m_k, s_k^2 I)

    X is `(N, x_dim)`. The means are common to all data, and stand outside their plate; c is each
    datum's own, and is summed out, by `pv.svi.fit` and by Pyro's `TraceEnum_ELBO`. There are three
    ways to Q, and its numbers, in nats, can be held against exact ones:

    - `cavi(x)`, coordinate ascent, raises the ELBO of Q(mu) Q(c), update by update;
    - `pv.svi.fit(m.model, m.guide, x)` raises that of Q(mu) alone, which is no lower;
    - `start_at(x)` takes the posterior given the components that k-means finds.

    What is known of mu comes from the data that Q was fitted to. So
    `pv.evaluate(m.model, m.guide, x)` is about other data: the log predictive density of each
    datum, which `log_predictive` has in closed form. The evidence of a whole set is one number,
    `pv.evaluate(m.model, m.exchangeable_guide, x, plate=None)`: its posterior has K! modes alike,
    of which `guide` is at one, and finds log K! nats less. `joint_log_evidence` is exact, of few
    rows.

    Args:
        x_dim: Dimensions of one datum, D.
        num_components: K.
        prior_scale: tau, the standard deviation of the means, in the units of X.
        sigma: That of X around its component's mean.

    Raises:
        ValueError: If a size is no positive integer, or a scale not positive.

    References:
        Variational inference: a review for statisticians (Blei, Kucukelbir and McAuliffe, 2017),
        sections 2 and 3, https://arxiv.org/abs/1601.00670

    Example:
        >>> _ = torch.manual_seed(0)
        >>> m = BayesianGaussianMixture(x_dim=2, num_components=3)
        >>> x = m.sample(12)
        >>> elbo = m.start_at(x).cavi(x)
        >>> bool((elbo.diff() > -1e-9).all() and elbo[-1] < m.joint_log_evidence(x))
        True
    """

    name = "bayesian-gaussian-mixture"
    binary = False

    def __init__(
        self, x_dim: int, num_components: int, prior_scale: float = 5.0, sigma: float = 1.0
    ) -> None:
        super().__init__()
        check_sizes(x_dim=x_dim, num_components=num_components)
        check_positive(prior_scale=prior_scale, sigma=sigma)
        self.x_dim, self.num_components = int(x_dim), int(num_components)
        self.prior_scale, self.sigma = float(prior_scale), float(sigma)
        self.means = _Means(self.num_components, self.x_dim, self.prior_scale, self.sigma)

    @nan_is_missing("x")
    def model(self, x: Tensor) -> None:
        """Generative model: P(mu), and P(c) P(X|c, mu), plated over the data x `(N, x_dim)`.

        NaN is missing, and P(X|c, mu) that of the rest.
        """
        zero, even = x.new_zeros(self.x_dim), self.checked(x).new_zeros(self.num_components)
        with pyro.plate("components", self.num_components):  # mu_k ~ N(0, tau^2 I)
            mu = pyro.sample("mu", dist.Normal(zero, self.prior_scale).to_event(1))
        with pyro.plate("data", len(x)):
            c = pyro.sample(  # c ~ Cat(1/K)
                "c", dist.Categorical(logits=even), infer={"enumerate": "parallel"}
            )
            mean = Vindex(mu[..., None, :, :])[..., c, :]
            p = seen(dist.Normal(mean, self.sigma).to_event(1), x)
            pyro.sample("x", p, obs=x)  # X ~ N(mu_c, sigma^2 I)

    def guide(self, x: Tensor) -> None:
        """Variational posterior of the means, whatever the rows plated over the data are."""
        self.register(means=self.means)
        with pyro.plate("components", self.num_components):
            pyro.sample("mu", dist.Normal(self.means.locs, self.scales[:, None]).to_event(1))

    def exchangeable_guide(self, x: Tensor) -> None:
        r"""The same with its labels permuted at random: for the evidence of a whole set.

        .. math::
            Q'(\mu) = \frac{1}{K!} \sum_\pi \prod_k N(\mu_{\pi(k)}; m_k, s_k^2 I)

        The posterior does not tell the K! orders of the components apart, nor does this.

        Args:
            x: The data, `(N, x_dim)`.

        Raises:
            ValueError: If there are more than 12 components, whose subsets are too many.
        """
        if self.num_components > MOST_COMPONENTS:
            raise ValueError(
                f"{self.num_components} components have {2**self.num_components} subsets, which "
                f"the exchangeable guide sums over; it takes {MOST_COMPONENTS} components at most"
            )
        self.register(means=self.means)
        q = ExchangeableNormal(self.means.locs, self.scales)
        u = pyro.sample("u", q, infer={"is_auxiliary": True})
        with pyro.plate("components", self.num_components):
            mu = u.reshape(u.shape[:-3] + u.shape[-2:])  # its plate takes the place of the data's
            pyro.sample("mu", dist.Delta(mu, event_dim=1))

    @property
    def scales(self) -> Tensor:
        """s_k, the standard deviations of Q(mu_k), `(K,)`, in the units of X."""
        return self.means.log_scales.exp()

    @torch.no_grad()
    def start_at(self, x: Tensor, *, seed: int = 0) -> Self:
        """Returns the model itself, Q(mu) the posterior given the components of k-means.

        Args:
            x: Data, `(N, x_dim)`, K rows or more.
            seed: Of k-means.

        Raises:
            ValueError: If x has another shape, or fewer rows.
        """
        x, labels = nearest(x, self.x_dim, self.num_components, seed)
        phi = torch.nn.functional.one_hot(labels.long(), self.num_components)
        return self._put(*self._means_given(x.double(), phi.double()))

    @torch.no_grad()
    def cavi(self, x: Tensor, *, max_sweeps: int = 1_000, tolerance: float = 1e-9) -> Tensor:
        r"""Raises Q by coordinate ascent; returns the ELBO after each update, `(2T,)`, nats.

        T sweeps of two updates each, of all Q(c_n) and then of all Q(mu_k), computed in float64:

        .. math::
            \phi_{nk} \propto \exp\Bigl(-\frac{|x_n - m_k|^2 + D s_k^2}{2\sigma^2}\Bigr), \quad
            \frac{1}{s_k^2} = \frac{1}{\tau^2} + \sum_n \frac{\phi_{nk}}{\sigma^2}, \quad
            m_k = s_k^2 \sum_n \frac{\phi_{nk} x_n}{\sigma^2}

        Each is the best one given the other, so that the ELBO of all of x together,

        .. math::
            E_{Q(\mu) Q(c)}[\log P(X, c, \mu) - \log Q(\mu) - \log Q(c)] \le \log P(X)

        never falls. What is missing of x_n counts in none of these; of a component the mean of
        1/s_k^2 over dimensions is then taken. It rises to the nearest of many maxima: begin at
        `start_at` of some seeds.

        Args:
            x: The data, `(N, x_dim)`.
            max_sweeps: T at most.
            tolerance: Nats by which a sweep has to raise the ELBO for another to follow.

        Raises:
            ValueError: If x has another shape, or an option is not positive.

        References:
            Variational inference: a review for statisticians (Blei, Kucukelbir and McAuliffe,
            2017), algorithm 2, https://arxiv.org/abs/1601.00670
        """
        check_sizes(max_sweeps=max_sweeps)
        check_positive(tolerance=tolerance)
        x = self.checked(x).double()
        m, s = self.means.locs.double(), self.scales.double()
        elbos: list[Tensor] = []
        for _ in range(max_sweeps):
            phi = self._log_joint(x, m, s).softmax(1)
            elbos.append(self._elbo(x, phi, m, s))
            m, s = self._means_given(x, phi)
            elbos.append(self._elbo(x, phi, m, s))
            if len(elbos) > 2 and elbos[-1] - elbos[-3] <= tolerance:
                break
        self._put(m, s)
        return torch.stack(elbos).cpu()

    @torch.no_grad()
    def elbo(self, x: Tensor) -> Tensor:
        """Returns the ELBO of all of x `(N, x_dim)` together, with the best Q(c), `()`, nats."""
        x, m, s = self.checked(x).double(), self.means.locs.double(), self.scales.double()
        return self._elbo(x, self._log_joint(x, m, s).softmax(1), m, s)

    @torch.no_grad()
    def responsibilities(self, x: Tensor) -> Tensor:
        """Returns the best Q(c|X) of each row of x `(N, x_dim)`, `(N, K)`."""
        return self._log_joint(self.checked(x), self.means.locs, self.scales).softmax(1)

    @torch.no_grad()
    def log_predictive(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        r"""Returns the log predictive density of each row of x `(N, x_dim)`, `(N,)`, nats.

        .. math::
            \log \int P(X_n \mid \mu)\, Q(\mu)\, d\mu
            = \log \tfrac1K \sum_k N(X_n; m_k, (s_k^2 + \sigma^2) I)

        Args:
            x: Data that Q was not fitted to.
            given: The few data `(M, x_dim)` of which the exact posterior is to stand in the place
                of Q: log P(X_n | given).

        Raises:
            ValueError: If one has another shape, or `given` more than 13 rows.
        """
        self.checked(x)
        if given is not None:
            both = [self.joint_log_evidence(torch.cat([given, row[None]])) for row in x]
            return torch.stack(both) - self.joint_log_evidence(given)
        scale = (self.scales.square() + self.sigma**2).sqrt()[:, None]
        components = dist.Normal(self.means.locs, scale).to_event(1)
        x = x[:, None]
        return seen(components, x).log_prob(x).logsumexp(1) - log(self.num_components)

    @torch.no_grad()
    def joint_log_evidence(self, x: Tensor) -> Tensor:
        r"""Returns log P(X) of all rows of x `(N, x_dim)` together, exactly, `()`, nats.

        The sum over all K^N assignments, the means integrated out: over all ways to divide the
        rows into K subsets, in 3^N terms,

        .. math::
            P(X) = K^{-N} \sum_{S_1 \cup \dots \cup S_K} \prod_k P(X_{S_k}), \quad
            P(X_S) = \int P(\mu) \prod_{n \in S} N(X_n; \mu, \sigma^2 I)\, d\mu

        Q is not looked at.

        Args:
            x: 14 rows at most.

        Raises:
            ValueError: If x has another shape, or more rows.
        """
        if len(self.checked(x)) > MOST_ROWS:
            raise ValueError(
                f"x has {len(x)} rows, and their {self.num_components}^{len(x)} assignments are "
                f"too many to sum over; give {MOST_ROWS} rows at most, or take pv.evaluate("
                "m.model, m.exchangeable_guide, x, plate=None)"
            )
        log_f = self._of_subsets(x.double())
        parts = torch.full_like(log_f, -torch.inf)
        parts[0] = 0.0  # no component divides the empty set alone
        for _ in range(self.num_components - 1):
            parts = _divided(parts[None], log_f[None])[0]
        return (parts + log_f.flip(0)).logsumexp(0) - len(x) * log(self.num_components)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int | None = None) -> Tensor:
        """Returns n draws of X from its predictive density, `(n, x_dim)`, each with a mu ~ Q.

        Args:
            n: How many.
            seed: Fixes them; `None` goes on with torch's random stream.
        """
        with seeded(seed):
            c = torch.randint(self.num_components, (n,), device=self.means.locs.device)
            scale = (self.scales.square() + self.sigma**2).sqrt()
            return dist.Normal(self.means.locs[c], scale[c][:, None]).sample()

    def checked(self, x: Tensor) -> Tensor:
        """Returns x `(N, x_dim)` as it is; ValueError if it is of another shape, or no floats."""
        return rows_of(x, self.x_dim, "mixture")

    def _log_joint(self, x: Tensor, m: Tensor, s: Tensor) -> Tensor:
        """Returns E_Q(mu)[log P(X_n, c_n = k | mu)], `(N, K)`, nats.

        Args:
            x: `(N, D)`.
            m: Means of Q(mu), `(K, D)`.
            s: Their standard deviations, `(K,)`.
        """
        known = ~x[:, None].isnan()
        squares = ((x[:, None] - m).square() + s.square()[:, None]).where(known, 0).sum(-1)
        widths = known.sum(-1).to(m) * log(2 * pi * self.sigma**2)
        constant = 0.5 * widths + log(self.num_components)
        return -0.5 * squares / self.sigma**2 - constant

    def _elbo(self, x: Tensor, phi: Tensor, m: Tensor, s: Tensor) -> Tensor:
        """Returns the ELBO of Q(mu) Q(c), `()`, nats.

        Args:
            x: `(N, D)`.
            phi: Q(c), `(N, K)`.
            m: Means of Q(mu), `(K, D)`.
            s: Their standard deviations, `(K,)`.
        """
        ratio = (s / self.prior_scale).square()
        kl = 0.5 * (
            m.square().sum(1) / self.prior_scale**2 + self.x_dim * (ratio - 1 - ratio.log())
        )
        return (phi * self._log_joint(x, m, s) - torch.xlogy(phi, phi)).sum() - kl.sum()

    def _means_given(self, x: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the best Q(mu) given Q(c): means `(K, D)` and standard deviations `(K,)`.

        Args:
            x: `(N, D)`.
            phi: Q(c), `(N, K)`.
        """
        count = phi.T @ (~x.isnan()).to(phi)  # of what is seen, (K, D)
        precision = self.prior_scale**-2 + count / self.sigma**2
        return phi.T @ filled(x) / self.sigma**2 / precision, precision.mean(1).rsqrt()

    def _of_subsets(self, x: Tensor) -> Tensor:
        """Returns log P(X_S) of one component, for each subset S of the rows, `(2^N,)`, nats.

        Args:
            x: `(N, D)`; row n is in S where bit n of its number is 1.
        """
        inside = (torch.arange(2 ** len(x), device=x.device)[:, None] >> _up_to(x)) & 1
        inside, noise = inside.to(x), self.sigma**2
        count, x = inside @ (~x.isnan()).to(x), filled(x)  # of what is seen, (2^N, D)
        ratio = noise / self.prior_scale**2
        squares = inside @ x.square() - (inside @ x).square() / (count + ratio)
        widths = count * log(2 * pi * noise) + (count / ratio).log1p()
        return -0.5 * (squares / noise + widths).sum(1)

    def _put(self, m: Tensor, s: Tensor) -> Self:
        """Returns the model itself, with these means `(K, D)` and deviations `(K,)` of Q(mu).

        Args:
            m: Means.
            s: Standard deviations.
        """
        self.means.locs.copy_(m)
        self.means.log_scales.copy_(s.log())
        return self

    @classmethod
    def for_data(  # pyright: ignore[reportIncompatibleMethodOverride]  # options of its own
        cls,
        splits: Splits,
        num_components: int = 10,
        prior_scale: float = 5.0,
        sigma: float = 1.0,
    ) -> Self:
        """Returns a model for a data set, started at its training data.

        Args:
            splits: The data set.
            num_components: K.
            prior_scale: tau, the standard deviation of the means.
            sigma: That of X around its component's mean.
        """
        x = splits.train.x[:]
        model = cls(x.shape[1], num_components, prior_scale, sigma)
        return model.start_at(x, seed=int(torch.randint(2**31 - 1, ())))

    def config(self) -> Config:
        """Returns the constructor's arguments."""
        return {
            "x_dim": self.x_dim,
            "num_components": self.num_components,
            "prior_scale": self.prior_scale,
            "sigma": self.sigma,
        }


class _Means(torch.nn.Module):
    """Q(mu) of K means in D dimensions: drawn from the prior, as sure as one datum makes them.

    Args:
        num_components: K.
        x_dim: D.
        prior_scale: tau.
        sigma: Of X.
    """

    def __init__(self, num_components: int, x_dim: int, prior_scale: float, sigma: float) -> None:
        super().__init__()
        log_scale = -0.5 * log(prior_scale**-2 + sigma**-2)
        self.locs = torch.nn.Parameter(prior_scale * torch.randn(num_components, x_dim))
        self.log_scales = torch.nn.Parameter(torch.full((num_components,), log_scale))


def _up_to(x: Tensor) -> Tensor:
    """Returns 0, ..., N - 1 for x `(N, D)`."""
    return torch.arange(len(x), device=x.device)


def _divided(a: Tensor, b: Tensor) -> Tensor:
    r"""Returns the log of the sum over the ways to divide each set in two, `(m, 2^n)`, nats.

    .. math::
        \log \sum_{T \subseteq S} \exp(a_T + b_{S \setminus T})

    Of the sets without their last element, and of those with it, which is then in T or is not:
    3^n terms.

    Args:
        a: m functions of the subsets of n elements, `(m, 2^n)`, by the number whose bits they are.
        b: Others.
    """
    if a.shape[1] == 1:
        return a + b
    (a0, a1), (b0, b1) = a.chunk(2, 1), b.chunk(2, 1)
    neither, left, right = _divided(torch.cat([a0, a1, a0]), torch.cat([b0, b0, b1])).chunk(3)
    return torch.cat([neither, torch.logaddexp(left, right)], 1)
