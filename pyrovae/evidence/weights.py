"""A table of log-weights, and the reductions that read it."""

__all__ = ["LogWeights", "check_sizes", "check_weights"]

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae import diagnostics


@dataclass(frozen=True, repr=False)
class LogWeights:
    r"""Log-weights of S particles for each of N data, and what they say of log p(x), in nats.

    .. math::
        \log w_{sn} = \log p(x_n, z_{sn}) - \log q(z_{sn} | x_n), \quad z_{sn} \sim q(\cdot | x_n)

    so that E[w_{sn}] = p(x_n). Joint weights of all data, `(S,)`, reduce to scalars.

    Args:
        log_w: The table, `(S, N)` or `(S,)`; kept as float64 on the CPU. -inf is legal.

    Raises:
        ValueError: If a weight is NaN or +inf (the datum is named), or the table is empty.

    Example:
        >>> LogWeights(torch.zeros(100, 3)).log_evidence()
        tensor([0., 0., 0.], dtype=torch.float64)
    """

    log_w: Tensor

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
        return f"LogWeights({shape}; log p(x) = {mean:.4f} nats, median ESS {ess:.1f})"

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self.log_w, dtype=dtype)

    @property
    def num_particles(self) -> int:
        """S, the number of draws made."""
        return len(self.log_w)

    def elbo(self) -> Tensor:
        """Returns mean log w over particles, `(N,)`; in expectation a lower bound of log p(x)."""
        return self.log_w.mean(0)

    def elbo_std_error(self) -> Tensor:
        """Returns the Monte Carlo standard error of `elbo`, `(N,)`; NaN for one particle."""
        s = self.num_particles
        return self.log_w.std(0) / s**0.5 if s > 1 else self.elbo() * torch.nan

    def log_evidence(self) -> Tensor:
        r"""Returns log 1/S sum_s w_s, `(N,)`: the importance-sampled log p(x).

        w is unbiased for p(x); its log is, in expectation, a lower bound of log p(x) that rises to
        it with S: the IWAE bound of S particles.

        References:
            Importance weighted autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519
        """
        return self.log_w.logsumexp(0) - log(self.num_particles)

    def iwae(self, k: int) -> Tensor:
        """Returns the IWAE bound of k particles, `(N,)`: mean log-mean-exp over disjoint subsets.

        The table gives S // k subsets; in expectation a lower bound of log p(x), rising with k.
        """
        return self.subsets(k).mean(0)

    def subsets(self, k: int) -> Tensor:
        """Returns log-mean-exp of each disjoint subset of k particles, `(S // k, N)`."""
        if not 1 <= k <= self.num_particles:
            raise ValueError(f"k is {k}; give 1 to {self.num_particles}, the number of particles")
        count = self.num_particles // k
        return self.log_w[: count * k].unflatten(0, (count, k)).logsumexp(1) - log(k)

    def std_error(self) -> Tensor:
        r"""Returns the delta-method standard error of `log_evidence`, `(N,)`; NaN for S = 1.

        .. math::
            \mathrm{sd}(w) / (\sqrt{S}\, \bar w) = \sqrt{(S / \mathrm{ESS} - 1) / (S - 1)}

        It knows only the mass the proposal visited: read it beside ESS and k-hat.
        """
        s = self.num_particles
        spread = (s / self.ess() - 1).clamp(min=0)
        return (spread / (s - 1)).sqrt() if s > 1 else spread * torch.nan

    def ess(self) -> Tensor:
        """Returns the effective sample size (sum w)^2/sum w^2, `(N,)`: 1 to S; 0 if all w = 0."""
        ess = (2 * self.log_w.logsumexp(0) - (2 * self.log_w).logsumexp(0)).exp()
        return ess.nan_to_num(0.0)

    def pareto_k(self) -> Tensor:
        """Returns the Pareto k-hat of the weights, `(N,)`; see `pyrovae.diagnostics.psis`."""
        table = self.log_w if self.log_w.ndim == 2 else self.log_w[:, None]
        return torch.from_numpy(diagnostics.pareto_k(table)).reshape(self.log_w.shape[1:])

    def bad(self) -> Tensor:
        """Returns where k-hat > min(1 - 1/log10(S), 0.7), `(N,)`: do not trust the estimate."""
        return self.pareto_k() > diagnostics.khat_threshold(self.num_particles)


def check_weights(log_w: Tensor, start: int = 0) -> None:
    """Raises ValueError naming the datum, counted from `start`, of the first NaN or +inf log w."""
    bad = torch.isnan(log_w) | (log_w == torch.inf)
    if bool(bad.any()):
        particle, *datum = torch.nonzero(bad)[0].tolist()
        whose = f"datum {start + datum[0]}" if datum else "the data"
        raise ValueError(
            f"log w is {log_w[(particle, *datum)].item()} at particle {particle} of {whose}; "
            "look for NaN in the parameters, or for a proposal without density there"
        )


def check_sizes(**sizes: int) -> None:
    """Raises ValueError unless every size is a positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} is {size!r}; give a positive integer")
