r"""A table of log-weights, and the reductions that read it.

In expectation, each in nats per datum:

.. math::
    \text{ELBO} = \overline{\log w} \le \text{IWAE}_k \le \text{IWAE}_{2k} \le
    \log \overline w \le \log p(x)

with bars for means over the S particles of a datum. Beside them stand what says how far they are
to be trusted: standard error, effective sample size, k-hat.
"""

__all__ = [
    "KHAT_NEEDS",
    "LogWeights",
    "Reductions",
    "VERDICTS",
    "annealed_verdicts",
    "check_weights",
    "interval",
    "thresholds",
    "verdicts",
]

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log, sqrt

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from pyrovae import diagnostics
from pyrovae.equality import ByContent

VERDICTS = ("not contradicted", "more samples", "use ais")
KHAT_NEEDS = 25  # particles that a k-hat can be had from
LIGHT = 0.35  # k-hat up to which quasi-random draws are trusted to be even in the tail


class Reductions:
    """What log-weights say of log p(x), as far as their sums and the largest of them tell.

    S is the number of particles of each of N data; numbers are nats unless said otherwise.
    """

    @property
    def num_draws(self) -> Tensor:
        """S, the particles drawn for each datum, `(N,)`."""
        raise NotImplementedError

    def log_sum(self, power: int) -> Tensor:
        """Returns log sum_s w_s^power, `(N,)`, for the powers 1 and 2."""
        raise NotImplementedError

    def log_left_out(self) -> Tensor:
        """Returns sum_s log(1 - p_s), `(N,)`, p a weight's share of the sum, for the jackknife."""
        raise NotImplementedError

    def pareto_k(self) -> Tensor:
        """Returns the Pareto k-hat of the weights, `(N,)`; see `pyrovae.diagnostics.psis`."""
        raise NotImplementedError

    def log_evidence(self) -> Tensor:
        r"""Returns log 1/S sum_s w_s, `(N,)`: the importance-sampled log p(x).

        .. math::
            \log \hat p(x) = \log \frac1S \sum_s w_s, \quad
            \mathrm{E}[\log \hat p(x)] \approx \log p(x) - \tfrac12 \mathrm{se}^2

        w is unbiased for p(x); its log is, in expectation, a lower bound of log p(x) that rises to
        it with S: the IWAE bound of S particles.

        References:
            Importance weighted autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519
        """
        return self.log_sum(1) - self.num_draws.double().log()

    def std_error(self) -> Tensor:
        r"""Returns the delta-method standard error of `log_evidence`, `(N,)`; NaN for S = 1.

        .. math::
            \mathrm{sd}(w) / (\sqrt{S}\, \bar w) = \sqrt{(S / \mathrm{ESS} - 1) / (S - 1)}

        It knows only the mass the proposal visited: read it beside ESS and k-hat. Of quasi-random
        draws it is the same over the means of their randomizations; see `LogWeights.std_error`.

        References:
            Monte Carlo theory, methods and examples (Owen, 2013), chapter 9,
            https://artowen.su.domains/mc/
        """
        s = self.num_draws.double()
        variance = (s / self.ess() - 1).clamp(min=0)  # of w over its squared mean, (N,)
        return torch.where(s > 1, (variance / (s - 1)).sqrt(), torch.nan)

    @property
    def degrees_of_freedom(self) -> Tensor:
        """What `std_error` has of them, `(N,)`: particles, or randomizations of such, less 1."""
        return self.num_draws - 1

    def interval(self, prob: float = 0.95) -> tuple[Tensor, Tensor]:
        """Returns both ends of an interval for log p(x), `(N,)` each, nats; NaN for S = 1.

        `log_evidence` +- `std_error` times the quantile of Student's t: a standard error from few
        particles, or from 16 randomizations, is itself uncertain. As blind as the standard error
        is, and centred on a lower bound: it does not reach up by the bias.

        Args:
            prob: Of covering log p(x), between 0 and 1.

        Raises:
            ValueError: If `prob` is no such number.
        """
        groups = self.degrees_of_freedom + 1
        return interval(self.log_evidence(), self.std_error(), groups, prob)

    def jackknife(self) -> Tensor:
        r"""Returns `log_evidence` with its bias of order 1/S taken off by the jackknife, `(N,)`.

        .. math::
            S L - (S - 1) \frac1S \sum_s L_{-s}
            = L - (S - 1) \Bigl(\log \frac{S}{S - 1} + \frac1S \sum_s \log(1 - p_s)\Bigr)

        with L the log-mean-exp of all weights, :math:`L_{-s}` of all but one, and p a weight's
        share of the sum. It is no bound and varies more; to mass that the weights miss it is as
        blind as they are. NaN for S = 1.

        References:
            Debiasing evidence approximations: on importance-weighted autoencoders and jackknife
            variational inference (Nowozin, 2018), https://openreview.net/forum?id=HyZoi-WRb
        """
        s = self.num_draws.double()
        correction = (s - 1) * ((s / (s - 1)).log() + self.log_left_out() / s)
        return self.log_evidence() - torch.where(s > 1, correction, torch.nan)

    def ess(self) -> Tensor:
        r"""Returns the effective sample size, `(N,)`, 1 to S; 0 where all w = 0.

        .. math::
            \mathrm{ESS} = \Bigl(\sum_s w_s\Bigr)^2 \Big/ \sum_s w_s^2

        So many equally weighted particles would have the same variance.

        References:
            A note on importance sampling using standardized weights (Kong, 1992), technical report
            348, University of Chicago.
        """
        ess = (2 * self.log_sum(1) - self.log_sum(2)).exp()
        return ess.nan_to_num(0.0)

    def bad(self) -> Tensor:
        """Returns where k-hat > min(1 - 1/log10(S), 0.7), `(N,)`: do not trust the estimate."""
        return self.pareto_k() > thresholds(self.num_draws)

    def verdict(self, tolerance: float = inf) -> list[str]:
        """Returns for each datum "not contradicted", "more samples" or "use ais".

        See `verdicts`. Nothing in a table certifies it, so that none is "ok": where the proposal
        missed a mode, the weights look as good as can be. `evaluate` looks for that.

        Args:
            tolerance: Standard error asked for, nats.
        """
        columns = self.pareto_k(), self.ess(), self.std_error(), self.num_draws
        return [VERDICTS[i] for i in verdicts(*columns, tolerance).reshape(-1).tolist()]


@dataclass(frozen=True, repr=False, eq=False)
class LogWeights(ByContent, Reductions):
    r"""Log-weights of S particles for each of N data, and what they say of log p(x), in nats.

    .. math::
        \log w_{sn} = \log p(x_n, z_{sn}) - \log q(z_{sn} | x_n), \quad z_{sn} \sim q(\cdot | x_n)

    so that E[w_{sn}] = p(x_n). Joint weights of all data, `(S,)`, reduce to scalars.

    Args:
        log_w: The table, `(S, N)` or `(S,)`; kept as float64 on the CPU. -inf is legal.
        counts: S of each datum, `(N,)`, where they differ; rows beyond are -inf.
        randomizations: Independent randomizations that quasi-random draws came in, one after
            another in the table; 1 for independent draws.

    Raises:
        ValueError: If a weight is NaN or +inf (the datum is named), or the table is empty.

    Example:
        >>> LogWeights(torch.zeros(100, 3)).log_evidence()
        tensor([0., 0., 0.], dtype=torch.float64)
    """

    log_w: Tensor
    counts: Tensor | None = None
    randomizations: int = 1

    def __post_init__(self) -> None:
        log_w = torch.as_tensor(self.log_w).detach().to("cpu", torch.float64)
        if log_w.ndim not in (1, 2) or not log_w.numel():
            raise ValueError(
                f"log_w has shape {tuple(log_w.shape)}; give (particles, data) or (particles,)"
            )
        check_weights(log_w)
        object.__setattr__(self, "log_w", log_w)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.log_w.shape))
        mean = self.log_evidence().mean().item()
        ess = self.ess().median().item()
        return f"{type(self).__name__}({shape}; log p(x) = {mean:.4f} nats, median ESS {ess:.1f})"

    def __array__(
        self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None
    ) -> np.ndarray:
        return np.array(self.log_w.numpy(), dtype=dtype)

    @property
    def num_particles(self) -> int:
        """S, the number of particles; that of the datum with most where they differ."""
        return len(self.log_w)

    @property
    def num_draws(self) -> Tensor:
        """S, the particles drawn for each datum, `(N,)`."""
        if self.counts is not None:
            return self.counts
        return torch.full(self.log_w.shape[1:], self.num_particles)

    def log_sum(self, power: int) -> Tensor:
        """Returns log sum_s w_s^power, `(N,)`."""
        return (power * self.log_w).logsumexp(0)

    def std_error(self) -> Tensor:
        r"""Returns the delta-method standard error of `log_evidence`, `(N,)`; NaN for S = 1.

        Quasi-random draws are too few for their largest weights to be evener than chance. Where
        k-hat, with its own error, may exceed 0.35, what the tail's weights have above the rest
        adds the variance that it has in independent draws: between randomizations it hardly
        shows before one of them meets such a weight.

        .. math::
            \mathrm{se}^2 = \mathrm{se}^2_{\text{between}} + \frac1{S^2} \sum_{s \in \text{tail}}
            \bigl(w_s - w_{\text{tail, least}}\bigr)^2 / \bar w^2

        References:
            Randomly permuted (t,m,s)-nets and (t,s)-sequences (Owen, 1995),
            https://doi.org/10.1007/978-1-4612-2552-2_19: scrambling, and errors between
            randomizations.
        """
        if self.randomizations == 1:
            return super().std_error()
        s = self.num_particles
        between = LogWeights(self.subsets(s // self.randomizations)).std_error()  # (N,)
        k, size = self.pareto_k(), diagnostics.tail_length(s)
        # (T + 1, N): over their mean, and the first that is not in the tail
        tail = (self.log_w - self.log_evidence()).exp().topk(size + 1, dim=0).values
        excess = (tail - tail[-1]).square().sum(0) / s**2
        heavy = k + (1 + k) / sqrt(size) > LIGHT
        return torch.where(heavy, (between.square() + excess).sqrt(), between)

    @property
    def degrees_of_freedom(self) -> Tensor:
        """What `std_error` has of them, `(N,)`: particles, or randomizations of such, less 1."""
        if self.randomizations == 1:
            return super().degrees_of_freedom
        return torch.full(self.log_w.shape[1:], self.randomizations - 1)

    def elbo(self) -> Tensor:
        r"""Returns mean log w over particles, `(N,)`; in expectation a lower bound of log p(x).

        .. math::
            \frac1S \sum_s \log w_s, \quad \mathrm{E}[\log w] =
            \log p(x) - \mathrm{KL}(q(z | x) \,\|\, p(z | x))

        References:
            Auto-encoding variational Bayes (Kingma and Welling, 2013),
            https://arxiv.org/abs/1312.6114
        """
        return self._over_draws(self.log_w).sum(0) / self.num_draws

    def elbo_std_error(self) -> Tensor:
        """Returns the Monte Carlo standard error of `elbo`, `(N,)`, sd(log w) / sqrt(S).

        NaN for one particle; of quasi-random draws, between the means of their randomizations.
        """
        if self.randomizations > 1:
            groups = self.log_w.unflatten(0, (self.randomizations, -1)).mean(1)  # (16, N)
            return LogWeights(groups).elbo_std_error()
        s = self.num_draws
        squares = self._over_draws((self.log_w - self.elbo()).square()).sum(0)
        return torch.where(s > 1, (squares / (s - 1) / s).sqrt(), torch.nan)

    def iwae(self, k: int) -> Tensor:
        r"""Returns the IWAE bound of k particles, `(N,)`: mean log-mean-exp over disjoint subsets.

        .. math::
            \frac{1}{\lfloor S / k \rfloor} \sum_j \log \frac1k \sum_{s \in j} w_s

        In expectation a lower bound of log p(x), rising with k.

        References:
            Importance weighted autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519
        """
        return self.subsets(k).mean(0)

    def iwae_std_error(self, k: int) -> Tensor:
        """Returns the Monte Carlo standard error of `iwae`, `(N,)`, nats; NaN for one subset."""
        subsets = self.subsets(k)
        if len(subsets) == 1:
            return torch.full(self.log_w.shape[1:], torch.nan, dtype=torch.float64)
        return subsets.std(0) / sqrt(len(subsets))

    def subsets(self, k: int) -> Tensor:
        """Returns log-mean-exp of each disjoint subset of k successive particles, `(S // k, N)`.

        Raises:
            ValueError: If a datum has not so many.
        """
        most = int(self.num_draws.min())
        if not 1 <= k <= most:
            raise ValueError(f"k is {k}; give 1 to {most}, the number of particles")
        count = most // k
        return self.log_w[: count * k].unflatten(0, (count, k)).logsumexp(1) - log(k)

    def path(self, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns estimates of k particles and their errors, `(G, N)`, for each k of the grid.

        Means over disjoint subsets and the standard deviation between them: that of one such
        estimate. Of a single subset, the delta method's.

        Args:
            grid: The G numbers k, none above S.
        """
        values, errors = [self.log_w[:0]], [self.log_w[:0]]
        for k in grid:
            subsets = self.subsets(k)
            values.append(subsets.mean(0, keepdim=True))
            one = len(subsets) == 1
            errors.append(
                (LogWeights(self.log_w[:k]).std_error() if one else subsets.std(0))[None]
            )
        return torch.cat(values), torch.cat(errors)

    def log_left_out(self) -> Tensor:
        """Returns sum_s log(1 - p_s), `(N,)`, p a weight's share of the sum."""
        share = (self.log_w - self.log_w.logsumexp(0)).nan_to_num(-torch.inf).exp()  # (S, N)
        return self._over_draws((-share).log1p()).sum(0)

    def pareto_k(self) -> Tensor:
        """Returns the Pareto k-hat of the weights, `(N,)`; see `pyrovae.diagnostics.psis`."""
        table, counts = self.log_w.reshape(self.num_particles, -1), self.num_draws.reshape(-1)
        k = torch.empty(len(counts), dtype=torch.float64)
        for s in counts.unique().tolist():
            k[counts == s] = torch.from_numpy(diagnostics.pareto_k(table[:s, counts == s]))
        return k.reshape(self.log_w.shape[1:])

    def _over_draws(self, table: Tensor) -> Tensor:
        """Returns a table `(S, N)` with 0 where it has no draws but is only filled up."""
        if self.counts is None:
            return table
        rows = torch.arange(self.num_particles).reshape(-1, *[1] * (self.log_w.ndim - 1))
        return torch.where(rows < self.counts, table, 0.0)


def verdicts(
    pareto_k: Tensor, ess: Tensor, std_error: Tensor, num_draws: Tensor, tolerance: float = inf
) -> Tensor:
    """Returns what can be said of importance sampling of each datum, `(N,)`, as numbers.

    0, not contradicted: k-hat at most 0.5, so that the variance is finite and +- 2 standard errors
    mean what they say of the mass the proposal visits, ESS at least 50, and the standard error
    within the tolerance. 1, more samples: k-hat up to 0.7, or of fewer than 25 draws, which tell
    nothing. 2, use ais: above, where more draws of the same proposal hardly help. k-hats are
    shrunk towards their mean by their own uncertainty, but for those that are no chance
    (`pyrovae.diagnostics.shrunk_khat`).

    Args:
        pareto_k: Of each datum's weights, `(N,)`.
        ess: Effective sample sizes, `(N,)`.
        std_error: Of the estimates, nats, `(N,)`.
        num_draws: S of each datum, `(N,)`.
        tolerance: Standard error asked for, nats.

    References:
        Pareto smoothed importance sampling (Vehtari et al., 2024),
        https://jmlr.org/papers/v25/19-556.html: k-hats of 0.5 and 0.7.
    """
    flat = pareto_k.reshape(-1).numpy(), num_draws.reshape(-1).numpy()
    k = torch.from_numpy(diagnostics.shrunk_khat(*flat)).reshape(pareto_k.shape)
    good = (k <= 0.5) & (ess >= 50) & (std_error <= tolerance)
    return torch.where(good, 0, torch.where((k <= 0.7) | (num_draws < KHAT_NEEDS), 1, 2))


def annealed_verdicts(
    ess: Tensor, num_draws: Tensor, std_error: Tensor, tolerance: float = inf
) -> list[str]:
    """Returns for each datum "not contradicted" or "more temperatures".

    The first where a quarter of its annealed particles count, by their ESS, of at least two, and
    the standard error is within the tolerance.

    Args:
        ess: Effective sample sizes, `(N,)`.
        num_draws: S of each datum, `(N,)`.
        std_error: Of the estimates, nats, `(N,)`.
        tolerance: Standard error asked for, nats.
    """
    good = (ess >= num_draws / 4) & (num_draws > 1) & (std_error <= tolerance)
    return [VERDICTS[0] if g else "more temperatures" for g in good.reshape(-1).tolist()]


def interval(
    value: Tensor, std_error: Tensor, num_draws: Tensor, prob: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Returns value -+ quantile x standard error, `(N,)` each: Student's, of S - 1 degrees.

    Eight annealed particles know their own spread so badly that 1.96 of it cover 85 to 93 %.

    Args:
        value: Estimates, nats, `(N,)`.
        std_error: Of them, nats, `(N,)`.
        num_draws: S of each datum, or its number of independent groups of particles, `(N,)`.
        prob: Of covering, between 0 and 1.

    Raises:
        ValueError: If `prob` is no such number.
    """
    if not 0 < prob < 1:
        raise ValueError(f"prob is {prob}; give a probability between 0 and 1")
    freedom = (num_draws - 1).clamp(min=1).double().numpy()
    reach = torch.from_numpy(np.asarray(stdtrit(freedom, (1 + prob) / 2))) * std_error
    return value - reach, value + reach


def thresholds(num_draws: Tensor) -> Tensor:
    """Returns the k-hat above which so many weights are not to be trusted, elementwise.

    See `pyrovae.diagnostics.khat_threshold`.
    """
    limits = [diagnostics.khat_threshold(s) for s in num_draws.reshape(-1).tolist()]
    return torch.tensor(limits, dtype=torch.float64).reshape(num_draws.shape)


def check_weights(log_w: Tensor, rows: Sequence[int] | None = None) -> None:
    """Raises ValueError for a NaN or +inf log w, naming its datum.

    Args:
        log_w: `(S, N)`, or `(S,)` of all data as one; -inf is legal.
        rows: Number of each column's datum, `(N,)`; `None` where it is the column's own.
    """
    bad = torch.isnan(log_w) | (log_w == torch.inf)
    if bool(bad.any()):
        particle, *datum = torch.nonzero(bad)[0].tolist()
        whose = f"datum {rows[datum[0]] if rows else datum[0]}" if datum else "the data"
        raise ValueError(
            f"log w is {log_w[(particle, *datum)].item()} at particle {particle} of {whose}; "
            "look for NaN in the parameters, or for a proposal without density there"
        )
