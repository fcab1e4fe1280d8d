"""What is read off a table of log-weights: bounds, errors, and how far they can be trusted."""

__all__ = [
    "KHAT_NEEDS",
    "LIGHT",
    "Reductions",
    "VERDICTS",
    "annealed_verdicts",
    "annealed_well",
    "interval",
    "thresholds",
    "verdicts",
]

from math import inf

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from pyrovae import diagnostics

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


def annealed_well(
    ess: Tensor, num_draws: Tensor, std_error: Tensor, tolerance: float = inf
) -> Tensor:
    """Returns which data look annealed well enough, of the shape of `ess`.

    Those of which a quarter of the annealed particles count, by their ESS, of at least two, and
    whose standard error is within the tolerance.

    Args:
        ess: Effective sample sizes, `(N,)`.
        num_draws: S of each datum, `(N,)`.
        std_error: Of the estimates, nats, `(N,)`.
        tolerance: Standard error asked for, nats.
    """
    return (ess >= num_draws / 4) & (num_draws > 1) & (std_error <= tolerance)


def annealed_verdicts(
    ess: Tensor, num_draws: Tensor, std_error: Tensor, tolerance: float = inf
) -> list[str]:
    """Returns for each datum "not contradicted" or "more temperatures"; see `annealed_well`.

    Args:
        ess: Effective sample sizes, `(N,)`.
        num_draws: S of each datum, `(N,)`.
        std_error: Of the estimates, nats, `(N,)`.
        tolerance: Standard error asked for, nats.
    """
    good = annealed_well(ess, num_draws, std_error, tolerance)
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
