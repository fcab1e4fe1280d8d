r"""Particle-independent Metropolis-Hastings on a table of runs: log p(x) bounded from above.

M independent runs of annealing, or of importance sampling with all its particles, give for each of
N data M numbers :math:`\hat w` with :math:`\mathrm{E}_q[\hat w] = p(x)`, q their law. Then

.. math::
    \mathrm{E}_q[\log \hat w] \le \log p(x) \le
    \frac{\mathrm{E}_q[\hat w \log \hat w]}{\mathrm{E}_q[\hat w]}
    = \mathrm{E}_\pi[\log \hat w], \quad \pi(\hat w) \propto \hat w \, q(\hat w)

both by Jensen's inequality. The lower bound is the mean of the table; the upper one is a mean
under :math:`\pi`, the law that a chain keeps which takes a new run in with probability
:math:`\min(1, \hat w' / \hat w)`. No program is run here, and no model simulated from.
"""

__all__ = ["Coupled", "coupled", "in_order"]

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from pyrovae.equality import ByContent
from pyrovae.evidence.weights import check_weights
from pyrovae.rng import draw_seed, stream_seed

ORDERS = 20  # random stream
MOST, FEWEST, STEPS = 64, 16, 2048  # orders, and their steps of which more make them fewer
NUMBERS = 2**18  # weights at once, over runs, orders and data: about 15 MB
LOST = 16.0  # nats below the largest weight, from which on one run no longer counts beside it
LEAST = 700.0  # nats below it, at which float64 still holds a weight


@dataclass(frozen=True, repr=False, eq=False)
class Coupled(ByContent):
    """An estimate of an upper bound of log p(x) from M runs, and what it can hide.

    See `coupled`. Where all runs of a datum have weight 0, nothing bounds it from above: `upper`
    and `std_error` are inf, `unmet` is 1 and `meeting_time` M.

    Attributes:
        upper: In expectation an upper bound of log p(x), nats, `(N,)`.
        std_error: Of `upper`, nats, `(N,)`, of M - 1 degrees of freedom; inf where fewer than two
            runs have a weight.
        unmet: Share of orders in which the chains do not meet within the runs, `(N,)`: at most
            1 / M but where all weights are 0. M times it is the chance that a chain at the largest
            weight takes no other run in.
        meeting_time: Mean number of runs after the first until they meet, or M, `(N,)`, 1 to M.
    """

    upper: Tensor
    std_error: Tensor
    unmet: Tensor
    meeting_time: Tensor

    def __repr__(self) -> str:
        return (
            f"Coupled({len(self.upper)} data: upper {self.upper.mean():.4f} nats, std. error of a "
            f"datum {self.std_error.median():.4f}; unmet {self.unmet.mean():.4f}, at most "
            f"{self.unmet.max():.4f}, after {self.meeting_time.mean():.2f} runs)"
        )


def coupled(log_w: Tensor, seed: int | None = None) -> Coupled:
    r"""Returns an estimate of :math:`\mathrm{E}_\pi[\log \hat w]`, above log p(x), by two chains.

    The runs in some order, :math:`P_0, \dots, P_{M-1}`, are proposed to a chain X from
    :math:`X_0 = P_0`, and to Y one step later, from :math:`Y_0 = P_1`; at step t both decide on
    :math:`P_t` by one uniform number, :math:`X_t` and :math:`Y_{t-1}` come of it, and
    :math:`\tau` is the first t at which they are the same. With :math:`h = \log \hat w`,
    k = M / 2 and m = M - 1,

    .. math::
        H_{k:m} = \frac{1}{m - k + 1} \sum_{t=k}^m h(X_t) + \sum_{t=k+1}^{\tau-1}
        \min\Bigl(1, \frac{t - k}{m - k + 1}\Bigr) \bigl(h(X_t) - h(Y_{t-1})\bigr)

    is without bias for the mean under :math:`\pi`. `upper` is its mean over random orders, 64 of
    up to 32 runs and down to 16 of more, and over the uniform numbers in closed form. Where
    :math:`\tau \ge M` the sum is cut off at m. In the mean that takes nothing negative away (X
    stays at :math:`P_0` until :math:`\tau`, and Y's weight is below its), so that, for any k,

    .. math::
        \mathrm{E}[\text{upper}] = \mathrm{E}[h(X_{M-1})] \le \mathrm{E}_\pi[h]

    and rises with M. Over all orders every k gives the same number; with M / 2 the noise of the
    orders drawn is a small part of the error whether or not a few runs outweigh the rest. Large
    weights that are rare keep `upper` low, even below log p(x): `unmet` and `meeting_time` show
    that as far as one of the runs met such a weight.

    .. math::
        \mathrm{se}^2 = \frac{M - 1}{M} \sum_i \Bigl(S_{-i} - \frac1M \sum_j S_{-j}\Bigr)^2
        + \frac{\mathrm{var}(H)}{R}, \quad
        S_{-i} = \frac{\sum_{j \ne i} \hat w_j h_j}{\sum_{j \ne i} \hat w_j}

    is the jackknife of the self-normalised mean, and what the R orders add. Of 8 to 32 runs with a
    normal log w of standard deviation 0.1 to 0.3, +- Student's quantile of M - 1 degrees times it
    covers at 93 to 95 %, of 0.7 at 86 to 90 %: the errors left are estimates too low.

    All data share the orders: what others stand in the table changes nothing. -inf is a legal
    weight: no chain that has another takes such a run in, and the estimate is that of the others.

    Args:
        log_w: Of each run, log of an unbiased estimate of p(x), nats, `(M, N)`, two runs or more.
        seed: Fixes the orders; the caller's random streams stay untouched. `None` draws a seed.

    Raises:
        ValueError: If the table has another shape, a weight is NaN or +inf (the datum is named),
            or the seed is no integer or negative.

    Example:
        >>> coupled(torch.zeros(8, 3), seed=0).upper
        tensor([0., 0., 0.], dtype=torch.float64)

    References:
        Unbiased smoothing using particle independent Metropolis-Hastings (Middleton et al., 2019),
        https://arxiv.org/abs/1902.01781
        Unbiased Markov chain Monte Carlo methods with couplings (Jacob, O'Leary and Atchade,
        2020), https://arxiv.org/abs/1708.03625
        Particle Markov chain Monte Carlo methods (Andrieu, Doucet and Holenstein, 2010),
        https://doi.org/10.1111/j.1467-9868.2009.00736.x
    """
    log_w = torch.as_tensor(log_w).detach().to("cpu", torch.float64)
    if log_w.ndim != 2 or len(log_w) < 2 or not log_w.numel():
        shape = tuple(log_w.shape)
        raise ValueError(f"log_w has shape {shape}; give (runs, data), two runs or more of each")
    check_weights(log_w)
    num_runs = len(log_w)
    top = log_w.max(0).values.clamp(min=torch.finfo(torch.float64).min)  # (N,)
    num_orders = max(FEWEST, min(MOST, STEPS // num_runs))
    orders = _orders(num_runs, num_orders, draw_seed(seed))  # (M, R)
    size = max(1, NUMBERS // orders.numel())
    parts = [_means(part, orders) for part in (log_w - top).split(size, dim=1)]
    mean, variance, meeting_time = torch.cat(parts, dim=1)
    seen = (log_w > -inf).sum(0)  # (N,)
    std_error = (_jackknife(log_w - top) + variance / num_orders).sqrt()
    return Coupled(
        torch.where(seen > 0, top + mean, inf),
        torch.where(seen > 1, std_error, inf),
        torch.where(seen > 0, _unmet(log_w - top), 1.0),
        torch.where(seen > 0, meeting_time, float(num_runs)),
    )


def _orders(num_runs: int, num_orders: int, seed: int) -> Tensor:
    """Returns random orders of M runs, `(M, R)`."""
    generator = torch.Generator().manual_seed(stream_seed(seed, ORDERS))
    orders = [torch.randperm(num_runs, generator=generator) for _ in range(num_orders)]
    return torch.stack(orders, dim=1)


def _means(log_w: Tensor, orders: Tensor) -> Tensor:
    """Returns mean and variance of H over orders, and the mean meeting time, `(3, n)`.

    A chain that has seen nothing better may be at a run whose weight is lost beside the largest.
    What h is there does not show in the mean over all orders (beyond 1e-5 nats); their noise is
    least with a likely value.

    Args:
        log_w: Less the largest of each datum, `(M, n)`, nats.
        orders: `(M, R)`.
    """
    likely = (log_w.softmax(0) * log_w.clamp(min=-LEAST)).sum(0)  # (n,)
    h = torch.where(log_w < -LOST, likely, log_w)  # (M, n)
    w = log_w.clamp(min=-LOST).exp()
    estimates, times = in_order(w[orders], h[orders], len(log_w) // 2)
    return torch.stack([estimates.mean(0), estimates.var(0), times.mean(0)])


def in_order(w: Tensor, h: Tensor, first: int) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`H_{k:M-1}` in its mean over the uniform numbers, and that of min(tau, M).

    The law of X over the runs is carried on from step to step, and that of Y where the two are
    apart. They are until X first moves: Y, whose weight is then below that of X, moves with it.

    Args:
        w: Weights of M runs in the order of their proposal, `(M, ...)`, all above 0.
        h: What is averaged, of each run, `(M, ...)`.
        first: k, 1 to M - 1.
    """
    at, apart = torch.zeros_like(h), torch.zeros_like(h)  # P(X_t = i); P(Y_{t-1} = i, t < tau)
    at[0] = 1.0
    total, time = torch.zeros_like(h[0]), torch.ones_like(h[0])
    for t in range(1, len(h)):
        accept = (w[t] / w[:t]).clamp_(max=1.0)  # (t, ...), from each run
        if t == 1:
            apart[1] = 1 - accept[0]
        else:
            apart[t] = (apart[1:t] * (accept[1:] - accept[0])).sum(0)  # Y moves, X does not
            apart[1:t] *= 1 - accept[1:]
        moves = accept.mul_(at[:t])
        at[:t] -= moves
        at[t] = moves.sum(0)
        time += at[0]
        if t >= first:
            total += (at[: t + 1] * h[: t + 1]).sum(0)
        if t > first:
            total += (t - first) * (at[0] * h[0] - (apart[1 : t + 1] * h[1 : t + 1]).sum(0))
    return total / (len(h) - first), time


def _unmet(log_w: Tensor) -> Tensor:
    r"""Returns the chance that X never moves, over all orders, `(N,)`.

    .. math::
        \frac1M \sum_i \prod_{j \ne i} (1 - \min(1, w_j / w_i))
        = \frac1M \prod_{j \ne \max} (1 - w_j / w_{\max})
    """
    w = log_w.exp()
    w.scatter_(0, log_w.argmax(0, keepdim=True), 0.0)
    return (1 - w).prod(0) / len(w)


def _jackknife(log_w: Tensor) -> Tensor:
    """Returns the jackknife's variance of sum w log w / sum w, `(N,)`."""
    h = log_w.clamp(min=-LEAST)
    w = h.exp()
    means = _left_out(w * h) / _left_out(w)  # (M, N)
    return (means - means.mean(0)).square().sum(0) * (len(h) - 1) / len(h)


def _left_out(x: Tensor) -> Tensor:
    """Returns the sum over all rows but one, for each, without a difference, `(M, N)`."""
    none = torch.zeros_like(x[:1])
    before = torch.cat([none, x[:-1].cumsum(0)])
    after = torch.cat([x[1:].flip(0).cumsum(0).flip(0), none])
    return before + after
