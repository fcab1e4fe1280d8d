"""Log-mean-exp by groups of k particles, taken in as they are drawn: the IWAE bound."""

__all__ = ["Groups"]

from math import log

import torch
from torch import Tensor


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
        self._k, self._filled, self._made = k, 0, 0
        self._open = torch.full((num_data,), -torch.inf, dtype=torch.float64)  # of log sum w
        self._sum = torch.zeros(num_data, dtype=torch.float64)
        self._squares = torch.zeros(num_data, dtype=torch.float64)  # about the mean

    def add(self, log_w: Tensor) -> None:
        """Takes in log-weights `(s, N)` of the next s particles."""
        log_w = log_w.double()
        head = log_w[: self._k - self._filled if self._filled else 0]
        self._fill(head)
        rest = log_w[len(head) :]
        full = rest[: len(rest) // self._k * self._k].unflatten(0, (-1, self._k))  # (g, k, N)
        self._take(full.logsumexp(1))
        self._fill(rest[full.shape[0] * self._k :])

    def mean(self) -> Tensor:
        r"""Returns :math:`\bar L`, `(N,)`, nats: in expectation the IWAE bound of k particles."""
        return self._sum / self._made

    def std_error(self) -> Tensor:
        """Returns its standard error between groups, `(N,)`, nats; NaN for one group."""
        if self._made < 2:
            return torch.full_like(self._sum, torch.nan)
        return (self._squares / (self._made - 1) / self._made).sqrt()

    def _fill(self, log_w: Tensor) -> None:
        """Adds `(s, N)` to the group that is not full, and takes that in where it then is."""
        if not len(log_w):
            return
        self._open = torch.logaddexp(self._open, log_w.logsumexp(0))
        self._filled += len(log_w)
        if self._filled == self._k:
            self._take(self._open[None])
            self._open, self._filled = torch.full_like(self._open, -torch.inf), 0

    def _take(self, log_sums: Tensor) -> None:
        """Adds full groups, log sum w `(g, N)`, to mean and squares, as Chan et al. (1979) do."""
        size, made = len(log_sums), self._made
        if not size:
            return
        values = log_sums - log(self._k)
        mean = values.mean(0)
        if made:
            gap = mean - self._sum / made
            self._squares += gap.square() * made * size / (made + size)
        self._squares += (values - mean).square().sum(0)
        self._sum += values.sum(0)
        self._made += size
