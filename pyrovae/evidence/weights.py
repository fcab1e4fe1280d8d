r"""A table of log-weights, and the reductions that read it.

In expectation, each in nats per datum:

.. math::
    \text{ELBO} = \overline{\log w} \le \text{IWAE}_k \le \text{IWAE}_{2k} \le
    \log \overline w \le \log p(x)

with bars for means over the S particles of a datum. Beside them stand what says how far they are
to be trusted: standard error, effective sample size, k-hat.
"""

__all__ = ["LogWeights", "check_weights"]

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
import torch
from torch import Tensor

from pyrovae import diagnostics
from pyrovae.equality import ByContent
from pyrovae.evidence.reductions import LIGHT, Reductions


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
