"""Log-weights taken in as they are drawn: sums instead of a table, so that S has no bound."""

__all__ = ["StreamedWeights"]

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor

from pyrovae import diagnostics
from pyrovae.evidence.reductions import Reductions
from pyrovae.evidence.samplers.groups import Groups, Moments
from pyrovae.evidence.weights import LogWeights, check_weights

TABLE_SIZE, TABLE_ROWS = 2**18, 256  # weights held at a time, and particles of each datum at least
BATCHES = 32  # of particles, between which the error of those that all data share is taken
LARGEST = 256  # weights of each datum, at least, that the jackknife leaves out one by one


class StreamedWeights(Reductions):
    r"""What `LogWeights` of the same particles would say, of particles that are added bit by bit.

    Held are, for each datum and relative to its largest log-weight m so far,

    .. math::
        \sum_s e^{\log w_s - m}, \quad \sum_s e^{2 (\log w_s - m)}, \quad \sum_s \log w_s, \quad
        \sum_s (\log w_s - \overline{\log w})^2

    and its largest weights, which k-hat and the jackknife read; of the first particles a table,
    for the path of the estimate. Memory is of order N sqrt(S).

    Args:
        num_particles: S, the particles that will be added.
        grid: Numbers of particles at which the estimate is taken down.
        rows: Numbers of the data, `(N,)`, which errors name.
        group_sizes: Every k of which `iwae` will be asked.

    Raises:
        ValueError: From `add`, if a weight is NaN or +inf; the datum is named.

    References:
        Updating formulae and a pairwise algorithm for computing sample variances (Chan, Golub and
        LeVeque, 1979), http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf
    """

    def __init__(
        self,
        num_particles: int,
        grid: Sequence[int],
        rows: Sequence[int],
        group_sizes: Sequence[int] = (),
    ) -> None:
        self._groups = {k: Groups(k, len(rows)) for k in group_sizes}
        self.num_particles, self._rows, self._left = num_particles, rows, list(grid)
        self._num_batches = min(BATCHES, num_particles)
        self._num_largest = max(LARGEST, diagnostics.tail_length(num_particles)) + 1
        self._made = self._filled = 0  # particles in the sums, and in the open table
        self._table = torch.empty(0, len(rows))
        self._path: list[tuple[Tensor, Tensor]] = []

    def add(self, log_w: Tensor) -> None:
        """Takes in a chunk of log-weights, and closes every table that it fills.

        Args:
            log_w: `(s, N)`, nats, for any s; S in all.

        Raises:
            ValueError: If a weight of a table that was filled is NaN or +inf; the datum is named.
        """
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
        """Returns log sum_s w_s^power, `(N,)`, for powers 1 and 2.

        Args:
            power: 1 or 2; two are enough for the mean, its error and the effective sample size.
        """
        return self._sums[power - 1].log() + power * self._peak

    def elbo(self) -> Tensor:
        """Returns mean log w, `(N,)`, nats, as `LogWeights.elbo`."""
        return self._logs.mean()

    def elbo_std_error(self) -> Tensor:
        """Returns the standard error of `elbo`, `(N,)`, nats; NaN for one particle."""
        return self._logs.std_error()

    def iwae(self, k: int) -> Tensor:
        """Returns the IWAE bound of k particles, `(N,)`, nats, as `LogWeights.iwae`.

        Args:
            k: One of the constructor's `group_sizes`.
        """
        return self._groups[k].mean()

    def iwae_std_error(self, k: int) -> Tensor:
        """Returns its standard error, `(N,)`, nats, as `LogWeights.iwae_std_error`.

        Args:
            k: One of the constructor's `group_sizes`.
        """
        return self._groups[k].std_error()

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
        largest = torch.cat(self._largest, dim=1).double()  # (N, L)
        share = (largest - log_sum[:, None]).nan_to_num(-torch.inf).exp()
        squares = (self.log_sum(2) - 2 * log_sum).nan_to_num(-torch.inf).exp()  # of all p, (N,)
        rest = 1 - share.sum(1) + (squares - share.square().sum(1)) / 2
        return (-share).log1p().sum(1) - rest.clamp(min=0)

    def batches(self) -> Tensor:
        """Returns log-mean-exp of each of up to 32 batches of successive particles, `(B, N)`."""
        share = (torch.arange(self._made) * self._num_batches // self._made).bincount()  # (B,)
        return self._parts.log() + self._peak - share.log()[:, None]

    def path(self, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns estimates of k particles and their errors, `(G, N)`, for the grid it was given.

        As `LogWeights.path` as far as one table goes; beyond, those of the first k particles.

        Args:
            grid: The G numbers k, as the constructor had them.
        """
        values, errors = zip(*self._path, strict=True)
        return torch.cat(values), torch.cat(errors)

    def _open(self, like: Tensor) -> None:
        """Begins a table, up to the next k of the grid where that lies beyond the first table.

        Args:
            like: A tensor of the type that the table is to have.
        """
        left = self.num_particles - self._made
        most = min(max(TABLE_ROWS, TABLE_SIZE // len(self._rows)), left)
        if self._made and self._left:
            most = min(most, self._left[0] - self._made)
        self._table, self._filled = like.new_empty(most, like.shape[1]), 0

    def _close(self) -> None:
        """Adds a full table to the sums, and takes down the estimate where the grid says so."""
        table, self._table = self._table, self._table[:0]
        if not (table.amax(0) < torch.inf).all():  # a NaN goes through
            check_weights(table, self._rows)
        if not self._made:
            self._begin(table)
        self._add(table.T.contiguous())
        for groups in self._groups.values():
            groups.add(table)
        if len(table) == self._made:
            within = [k for k in self._left if k <= len(table)]
            self._path.append(LogWeights(table).path(within))
            self._left = self._left[len(within) :]
        elif self._left and self._left[0] == self._made:
            self._path.append((self.log_evidence()[None], self.std_error()[None]))
            self._left.pop(0)

    def _begin(self, table: Tensor) -> None:
        """Sets the sums to those of no particles, for as many data as a table `(s, N)` has."""
        n = table.shape[1]
        self._largest = [table.new_full((n, 1), -torch.inf)]  # in pieces, (N, l) each
        self._threshold = self._largest[0]  # the smallest of them that counts, (N, 1)
        self._peak = torch.full((n,), -torch.inf, dtype=torch.float64)  # m
        self._sums = torch.zeros(2, n, dtype=torch.float64)  # of w and w^2, both over e^m
        self._parts = torch.zeros(self._num_batches, n, dtype=torch.float64)  # of w, by batch
        self._logs = Moments(n)  # of log w

    def _add(self, log_w: Tensor) -> None:
        """Adds a table `(N, s)`."""
        self._add_weights(log_w)
        self._add_logs(log_w)
        self._made += log_w.shape[1]
        self._keep(log_w)

    def _add_weights(self, log_w: Tensor) -> None:
        r"""Adds w and w^2 of a table to their sums, in all and by batch.

        .. math::
            m' = \max(m, \max_s \log w_s), \quad
            A' = A\, e^{m - m'} + \sum_s e^{\log w_s - m'}, \quad
            B' = B\, e^{2 (m - m')} + \sum_s e^{2 (\log w_s - m')}

        Args:
            log_w: `(N, s)`, nats.
        """
        peak = torch.maximum(self._peak, log_w.amax(1))
        shift = torch.where(peak.isfinite(), peak, 0.0)
        floor = log(torch.finfo(log_w.dtype).tiny) / 2  # lest w or its square underflow, slowly
        w = (log_w - shift[:, None].to(log_w.dtype)).clamp_(min=floor).exp_()  # (N, s)
        scale = (self._peak - shift).exp()  # (N,): what the former sums are relative to the new m
        batch = torch.arange(self._made, self._made + log_w.shape[1])
        batch = batch * self._num_batches // self.num_particles
        numbers, counts = batch.unique_consecutive(return_counts=True)
        parts = [part.sum(1, dtype=torch.float64) for part in w.split(counts.tolist(), dim=1)]
        self._parts = self._parts * scale
        self._parts[numbers] += torch.stack(parts)
        sums = torch.stack([torch.stack(parts).sum(0), w.square().sum(1, dtype=torch.float64)])
        self._sums = self._sums * torch.stack([scale, scale.square()]) + sums  # (2, N)
        self._peak = peak

    def _add_logs(self, log_w: Tensor) -> None:
        """Adds log w of a table to their moments: number, sum, and sum of squares about the mean.

        Args:
            log_w: `(N, s)`, nats.
        """
        size, total = log_w.shape[1], log_w.sum(1, dtype=torch.float64)
        off = log_w - (total / size)[:, None].to(log_w.dtype)
        self._logs.add(size, total, off.square_().sum(1, dtype=torch.float64))

    def _keep(self, log_w: Tensor) -> None:
        """Keeps those above the smallest kept so far, now and then only the largest of all.

        Pieces `(N, l)` are gathered, with -inf where a datum has fewer, until they are twice as
        wide as what counts: to sort once for many tables takes less time.

        Args:
            log_w: A table, `(N, s)`, nats.
        """
        row, column = (log_w > self._threshold).nonzero(as_tuple=True)  # by row, of (N, s)
        counts = torch.bincount(row, minlength=len(log_w))  # (N,)
        if not len(row):
            return
        place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]  # within their row
        found = log_w.new_full((len(log_w), int(counts.max())), -torch.inf)
        found[row, place] = log_w[row, column]
        self._largest.append(found)
        if sum(part.shape[1] for part in self._largest) >= 2 * self._num_largest:
            kept = torch.cat(self._largest, dim=1).topk(self._num_largest, dim=1).values
            self._largest, self._threshold = [kept], kept[:, -1:]
