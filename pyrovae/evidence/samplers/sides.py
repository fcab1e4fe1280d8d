"""Log p(x) of the data themselves from both sides, by independent runs, and what the runs show."""

__all__ = ["CERTIFIED", "WORDS", "Sides"]

from math import log
from typing import NamedTuple, Self

import torch
from scipy.special import ndtri, stdtrit
from torch import Tensor

from pyrovae import diagnostics
from pyrovae.evidence.samplers.pimh import coupled
from pyrovae.evidence.weights import LogWeights

COVERED = 0.975  # of a side
ERRORS = 2.0  # standard errors by which both bounds are let out
HEAVY = 0.7  # k-hat, from which on means do not settle
EQUAL = 1e-3  # nats above the mean, up to which it makes no difference
UNMET = 0.1  # chance, of a chain at the largest run, that it stays there
WORDS = (  # of codes; the first is that of certified data
    "certified",
    "runs scatter too much",
    "weights have a heavy tail",
    "chains do not meet",
    "two starts disagree",
    "not confirmed on simulated data",
    "too few simulated data are certified",
    "no data can be simulated",
    "time ran out",
)
CERTIFIED, WIDE, TAIL, APART, STARTS, SIMULATED, FEW, NONE, LATE = range(len(WORDS))


class Sides(NamedTuple):
    r"""Bounds of log p(x) of n data from M runs of S particles each, in nats, `(n,)` all.

    .. math::
        \mathrm{E}[\log \hat w] \le \log p(x) \le
        \frac{\mathrm{E}[\hat w \log \hat w]}{\mathrm{E}[\hat w]}, \quad
        \hat w_m = \tfrac1S \sum_s w_{ms}

    Standard errors are let out as far as Student's quantile, of M - 1 degrees of freedom, lies
    beyond the normal one: two of them cover what they should, of few runs, too. Of the upper bound
    two also cover what the particles' tail, as k-hat fits it, holds beyond those that were met.

    Attributes:
        value: log of the mean over all runs.
        std_error: Its standard error.
        lower: Mean over runs of log w-hat: in expectation a lower bound.
        lower_error: Its standard error.
        upper: Of coupled chains: in expectation an upper bound.
        upper_error: Its standard error.
        pareto_k: The larger k-hat, of the particles' w and of w log w, both over their mean.
        highest: The largest log w of all particles.
        num_draws: M S.
        temperatures: T, of the runs; 1 are no more than importance sampling.
        rung: The number of the way that the runs went.
        code: Why they certify nothing, as `WORDS` has it; 0 where they do.
    """

    value: Tensor
    std_error: Tensor
    lower: Tensor
    lower_error: Tensor
    upper: Tensor
    upper_error: Tensor
    pareto_k: Tensor
    highest: Tensor
    num_draws: Tensor
    temperatures: Tensor
    rung: Tensor
    code: Tensor

    @classmethod
    def of(cls, log_w: Tensor, seed: int, tolerance: float, rung: tuple[int, int]) -> Self:
        """Returns what runs say, and by themselves prove.

        Args:
            log_w: Of the particles of M runs, `(M, S, n)`, nats.
            seed: Of the chains.
            tolerance: Nats, within which log p(x) is to be known.
            rung: The number of the way, and its temperatures T.
        """
        num_runs, size, n = log_w.shape
        runs = (log_w.logsumexp(1) - log(size)).double()  # log w-hat, (M, n)
        pooled, chains = LogWeights(runs), coupled(runs, seed)
        upper = torch.maximum(chains.upper, runs.mean(0))  # as it is but for the noise of orders
        every = log_w.flatten(0, 1)
        value, lower = pooled.log_evidence(), runs.mean(0)
        steep = every + (every - value).clamp(min=EQUAL).log()  # below 0, it is bounded
        own_k, steep_k = (LogWeights(w).pareto_k() for w in (every, steep))
        k = torch.maximum(own_k, steep_k)
        draws = torch.full((n,), len(every))
        student = stdtrit(num_runs - 1, COVERED) / ndtri(COVERED)
        lower_error = student * runs.std(0) / num_runs**0.5
        upper_error = student * chains.std_error + _unseen(every - value, own_k) / ERRORS
        width = upper - lower
        wide = ~(width + ERRORS * (lower_error + upper_error) <= 2 * tolerance)
        code = torch.full((n,), CERTIFIED)
        code[num_runs * chains.unmet > UNMET] = APART
        code[~(k <= HEAVY)] = TAIL
        code[~(width <= tolerance) | wide] = WIDE
        which, temperatures = (torch.full((n,), i) for i in rung)
        return cls(
            value,
            student * pooled.std_error(),
            lower,
            lower_error,
            upper,
            upper_error,
            k,
            every.amax(0).double(),
            draws,
            temperatures,
            which,
            code,
        )

    @property
    def certified(self) -> Tensor:
        """Whether the runs certify log p(x), `(n,)`."""
        return self.code == CERTIFIED

    @property
    def half_width(self) -> Tensor:
        """Half of what lies between both bounds, let out by two of their errors, `(n,)`, nats."""
        width = self.upper - self.lower
        return (width + ERRORS * (self.lower_error + self.upper_error)) / 2

    def more_runs(self, tolerance: float) -> Tensor:
        """Returns by which factor more runs might certify, `(n,)`; inf where none would.

        Args:
            tolerance: Nats, within which log p(x) is to be known.
        """
        width, errors = self.upper - self.lower, ERRORS * (self.lower_error + self.upper_error)
        factor = 1.2 * (errors / (2 * tolerance - width)).square()
        hopeless = (self.code != WIDE) | ~(width < 0.9 * tolerance)
        return torch.where(hopeless, torch.inf, factor.clamp(min=1.0))

    def put(self, members: Tensor, other: "Sides") -> "Sides":
        """Returns these with the numbers of some data replaced.

        Args:
            members: Their places, `(m,)`.
            other: Of these m data.
        """
        pairs = zip(self, other, strict=True)
        return Sides(*(a.index_put((members,), b.to(a)) for a, b in pairs))

    def of_members(self, members: Tensor) -> "Sides":
        """Returns those of some data, by places or a mask."""
        return Sides(*(a[members] for a in self))


def _unseen(log_w: Tensor, pareto_k: Tensor) -> Tensor:
    r"""Returns what the fitted tail of weights adds to their mean beyond those met, `(n,)`, nats.

    .. math::
        \log \Bigl(1 + \tfrac TS \max\bigl(0, \mathrm{E}[y] - \overline y\bigr)\Bigr), \quad
        \mathrm{E}[y] = \frac{k}{(1 - k)(2^k - 1)} \, \mathrm{median}(y)

    of the excesses y of the T largest weights above the next one, in units of the mean: those of a
    generalised Pareto distribution with shape k. Large weights that are rare and not yet met leave
    means too low, and errors too small, more often than not.

    Args:
        log_w: Of all particles, `(S, n)`, less the log of their mean, nats.
        pareto_k: Their k-hat, `(n,)`; of 1 and more, or of too few draws, 0 is returned.
    """
    num_draws = len(log_w)
    size = diagnostics.tail_length(num_draws)
    top = log_w.topk(size + 1, dim=0).values.exp()
    excess = top[:-1] - top[-1]
    k = torch.where(pareto_k < 1, pareto_k, 0.0).clamp(min=0.001)
    mean = excess.median(0).values * k / ((1 - k) * (2**k - 1))
    return (size / num_draws * (mean - excess.mean(0)).clamp(min=0)).log1p()
