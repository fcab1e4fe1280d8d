"""Log-mean-exp by groups of k particles, taken in as they are drawn: the IWAE bound."""

__all__ = ["Groups", "Moments"]

from math import log

import torch
from torch import Tensor


class Moments:
    r"""Mean and standard error of numbers of each datum, of which more are added bit by bit.

    .. math::
        M \leftarrow M + M' + (\bar y' - \bar y)^2 \frac{S s}{S + s}

    is how the sum of squares about the mean, M of S numbers, takes in that of s more.

    Args:
        num_data: N.

    References:
        Updating formulae and a pairwise algorithm for computing sample variances (Chan, Golub and
        LeVeque, 1979), http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf
    """

    def __init__(self, num_data: int) -> None:
        self._made = 0
        self._sum, self._squares = torch.zeros(2, num_data, dtype=torch.float64)

    def add(self, size: int, total: Tensor, squares: Tensor) -> None:
        """Takes in s numbers of each datum.

        Args:
            size: s.
            total: Their sum, `(N,)`, float64.
            squares: The sum of their squares about their own mean, `(N,)`, float64.
        """
        made = self._made
        gap = total / size - self._sum / max(1, made)
        between = gap.square() * made * size / (made + size)
        self._squares += squares + (between if made else 0.0)
        self._sum += total
        self._made += size

    def mean(self) -> Tensor:
        """Returns the mean, `(N,)`."""
        return self._sum / self._made

    def std_error(self) -> Tensor:
        """Returns the standard error of the mean, `(N,)`; NaN for one number."""
        if self._made < 2:
            return torch.full_like(self._sum, torch.nan)
        return (self._squares / (self._made - 1) / self._made).sqrt()


class Groups:
    r"""The mean over groups of k successive particles of log-mean-exp, and its spread.

    .. math::
        \bar L = \frac1G \sum_{g=1}^G L_g, \quad
        L_g = \log \tfrac1k \sum_{s=(g-1)k+1}^{gk} w_s, \quad G = \lfloor S / k \rfloor

    Kept are, for each of N data, the sum of a group that is not full, and mean and squares of
    those that are: memory grows with neither S nor k.

    Args:
        k: Particles of a group.
        num_data: N.
    """

    def __init__(self, k: int, num_data: int) -> None:
        self._k, self._filled, self._moments = k, 0, Moments(num_data)
        self._open = torch.full((num_data,), -torch.inf, dtype=torch.float64)  # of log sum w

    def add(self, log_w: Tensor) -> None:
        """Takes in log-weights of the next s particles, for any s.

        Those that fill the open group come first, then whole groups at once, then what begins
        another.

        Args:
            log_w: `(s, N)`, nats.
        """
        log_w = log_w.double()
        head = log_w[: self._k - self._filled if self._filled else 0]
        self._fill(head)
        rest = log_w[len(head) :]
        full = rest[: len(rest) // self._k * self._k].unflatten(0, (-1, self._k))  # (g, k, N)
        self._take(full.logsumexp(1))
        self._fill(rest[full.shape[0] * self._k :])

    def mean(self) -> Tensor:
        r"""Returns :math:`\bar L`, `(N,)`, nats: in expectation the IWAE bound of k particles."""
        return self._moments.mean()

    def std_error(self) -> Tensor:
        """Returns its standard error between groups, `(N,)`, nats; NaN for one group."""
        return self._moments.std_error()

    def _fill(self, log_w: Tensor) -> None:
        """Adds some to the group that is not full, and takes that in where it then is.

        Args:
            log_w: `(s, N)`, nats, of no more particles than the group lacks.
        """
        if not len(log_w):
            return
        self._open = torch.logaddexp(self._open, log_w.logsumexp(0))
        self._filled += len(log_w)
        if self._filled == self._k:
            self._take(self._open[None])
            self._open, self._filled = torch.full_like(self._open, -torch.inf), 0

    def _take(self, log_sums: Tensor) -> None:
        """Adds full groups to the moments of their log-mean-exp.

        Args:
            log_sums: log sum w of each, `(g, N)`, nats.
        """
        if len(log_sums):
            values = log_sums - log(self._k)
            squares = (values - values.mean(0)).square().sum(0)
            self._moments.add(len(values), values.sum(0), squares)
