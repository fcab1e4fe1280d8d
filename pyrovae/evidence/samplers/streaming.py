"""Log-weights taken in as they are drawn: sums instead of a table, so that K has no bound."""

__all__ = ["StreamedWeights"]

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor

from pyrovae import diagnostics
from pyrovae.evidence.weights import LogWeights, Reductions, check_weights

TABLE, FEWEST = 2**18, 256  # weights kept at a time, and draws of each datum at least
BATCHES = 32  # of draws, between which shared draws' error is taken
EXACT = 256  # largest weights that the jackknife leaves out one by one


class StreamedWeights(Reductions):
    """What `LogWeights` of the same draws would say, of draws that are added bit by bit.

    Kept are, for each datum, the sums of log w, w and w^2, and the largest weights, which k-hat
    and the jackknife read; of the first draws a table, for the path of the estimate.

    Args:
        num_particles: S, the draws that will be added.
        grid: Numbers of draws at which the estimate is taken down.
        rows: Names of the data, for errors.

    Raises:
        ValueError: From `add`, if a weight is NaN or +inf; the datum is named.
    """

    def __init__(self, num_particles: int, grid: Sequence[int], rows: Sequence[int]) -> None:
        self.num_particles, self._rows, self._left = num_particles, rows, list(grid)
        self._num_batches = min(BATCHES, num_particles)
        self._kept = max(EXACT, diagnostics.tail_length(num_particles)) + 1
        self._made = self._filled = 0
        self._table = torch.empty(0, len(rows))
        self._path: list[tuple[Tensor, Tensor]] = []

    def add(self, log_w: Tensor) -> None:
        """Takes in a chunk of log-weights, `(s, N)`."""
        log_w = log_w.cpu()
        while len(log_w):
            if not len(self._table):
                self._open(log_w)
            part = log_w[: len(self._table) - self._filled]
            self._table[self._filled : self._filled + len(part)] = part
            self._filled, log_w = self._filled + len(part), log_w[len(part) :]
            if self._filled == len(self._table):
                self._close()

    @property
    def num_draws(self) -> Tensor:
        """S for each datum, `(N,)`."""
        return torch.full(self._peak.shape, self._made)

    def log_sum(self, power: int) -> Tensor:
        """Returns log sum_s w_s^power, `(N,)`, for powers 1 and 2."""
        return self._sums[power - 1].log() + power * self._peak

    def elbo(self) -> Tensor:
        """Returns mean log w, `(N,)`, as `LogWeights.elbo`."""
        return self._log_sum_w / self._made

    def elbo_std_error(self) -> Tensor:
        """Returns the standard error of `elbo`, `(N,)`; NaN for one particle."""
        if self._made == 1:
            return torch.full_like(self._squares, torch.nan)
        return (self._squares / (self._made - 1) / self._made).sqrt()

    def pareto_k(self) -> Tensor:
        """Returns the Pareto k-hat of the weights, `(N,)`; see `pyrovae.diagnostics.psis`."""
        return torch.from_numpy(diagnostics.tail_khat(torch.cat(self._largest, dim=1), self._made))

    def log_left_out(self) -> Tensor:
        r"""Returns sum_s log(1 - p_s), `(N,)`, p a weight's share of the sum, to about 1e-8.

        .. math::
            \sum_{s \in \text{largest}} \log(1 - p_s) - \sum_{s \notin} (p_s + p_s^2 / 2)

        of which the second sum is 1, and half the sum of squares, less those of the largest.
        """
        log_sum = self.log_sum(1)
        largest = torch.cat(self._largest, dim=1).double()
        share = (largest - log_sum[:, None]).nan_to_num(-torch.inf).exp()
        squares = (self.log_sum(2) - 2 * log_sum).nan_to_num(-torch.inf).exp()
        rest = 1 - share.sum(1) + (squares - share.square().sum(1)) / 2
        return (-share).log1p().sum(1) - rest.clamp(min=0)

    def batches(self) -> Tensor:
        """Returns log-mean-exp of each of up to 32 batches of successive draws, `(B, N)`."""
        share = (torch.arange(self._made) * self._num_batches // self._made).bincount()
        return self._parts.log() + self._peak - share.log()[:, None]

    def path(self, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns estimates of k draws and their errors, `(len(grid), N)`, for the object's grid.

        As `LogWeights.path` as far as one table goes; beyond, those of the first k draws.
        """
        values, errors = zip(*self._path, strict=True)
        return torch.cat(values), torch.cat(errors)

    def _open(self, like: Tensor) -> None:
        """Begins a table, up to the next k of the grid where that lies beyond the first table."""
        most = min(max(FEWEST, TABLE // len(self._rows)), self.num_particles - self._made)
        if self._made and self._left:
            most = min(most, self._left[0] - self._made)
        self._table, self._filled = like.new_empty(most, like.shape[1]), 0

    def _close(self) -> None:
        """Adds a full table to the sums."""
        table, self._table = self._table, self._table[:0]
        if not (table.amax(0) < torch.inf).all():  # a NaN goes through
            check_weights(table, self._rows)
        if not self._made:
            self._begin(table)
        self._add(table.T.contiguous())
        if len(table) == self._made:
            within = [k for k in self._left if k <= len(table)]
            self._path.append(LogWeights(table).path(within))
            self._left = self._left[len(within) :]
        elif self._left and self._left[0] == self._made:
            self._path.append((self.log_evidence()[None], self.std_error()[None]))
            self._left.pop(0)

    def _begin(self, table: Tensor) -> None:
        n = table.shape[1]
        self._largest = [table.new_full((n, 1), -torch.inf)]
        self._threshold = self._largest[0]
        self._peak = torch.full((n,), -torch.inf, dtype=torch.float64)
        self._sums = torch.zeros(2, n, dtype=torch.float64)
        self._parts = torch.zeros(self._num_batches, n, dtype=torch.float64)  # of w, by batch
        self._log_sum_w = torch.zeros(n, dtype=torch.float64)
        self._squares = torch.zeros(n, dtype=torch.float64)  # of log w about its mean

    def _add(self, log_w: Tensor) -> None:
        """Adds a table `(N, s)`."""
        peak = torch.maximum(self._peak, log_w.amax(1))
        shift = torch.where(peak.isfinite(), peak, 0.0)
        floor = log(torch.finfo(log_w.dtype).tiny) / 2  # lest w or its square underflow, slowly
        w = (log_w - shift[:, None].to(log_w.dtype)).clamp_(min=floor).exp_()
        scale = (self._peak - shift).exp()
        made, size = self._made, log_w.shape[1]
        batch = torch.arange(made, made + size) * self._num_batches // self.num_particles
        numbers, counts = batch.unique_consecutive(return_counts=True)
        parts = [part.sum(1, dtype=torch.float64) for part in w.split(counts.tolist(), dim=1)]
        self._parts = self._parts * scale
        self._parts[numbers] += torch.stack(parts)
        sums = torch.stack([torch.stack(parts).sum(0), w.square().sum(1, dtype=torch.float64)])
        self._sums = self._sums * torch.stack([scale, scale.square()]) + sums
        self._peak = peak
        log_sum_w = log_w.sum(1, dtype=torch.float64)
        mean = log_sum_w / size
        within = (log_w - mean[:, None].to(log_w.dtype)).square_().sum(1, dtype=torch.float64)
        between = (mean - self._log_sum_w / max(1, made)).square() * made * size / (made + size)
        self._squares += within + (between if made else 0.0)
        self._log_sum_w += log_sum_w
        self._made += size
        self._keep(log_w)

    def _keep(self, log_w: Tensor) -> None:
        """Keeps those above the smallest kept so far, now and then only the largest of all."""
        row, column = (log_w > self._threshold).nonzero(as_tuple=True)
        counts = torch.bincount(row, minlength=len(log_w))
        if not len(row):
            return
        place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
        found = log_w.new_full((len(log_w), int(counts.max())), -torch.inf)
        found[row, place] = log_w[row, column]
        self._largest.append(found)
        if sum(part.shape[1] for part in self._largest) >= 2 * self._kept:
            self._largest = [torch.cat(self._largest, dim=1).topk(self._kept, dim=1).values]
            self._threshold = self._largest[0][:, -1:]
