"""Where the mass of a block's posterior lies, found by tempered importance sampling.

u, `(S, n, d)`, are the latents of n data, unconstrained; n = 1 where all data have joint latents.
"""

__all__ = ["Search"]

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyrovae.evidence.samplers.cells import log_joint
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import GeometricPath, Program

PARTICLES, ROUNDS = 2048, 30  # of each datum in a round, and how many rounds at most
PEAKS = 64  # draws of highest density that each round keeps


class Search:
    """Draws of a block's latents: where its mass is, and what importance sampling makes of them.

    Attributes:
        peaks: u and log f of the draws of highest density, `(S, n, d)` and `(S, n)`, each round's.
        sampled: Estimates of log p(x) and their standard errors, `(n,)`, likewise.
    """

    def __init__(self, path: GeometricPath) -> None:
        self._path = path
        self.peaks: list[tuple[Tensor, Tensor]] = []
        self.sampled: list[tuple[Tensor, Tensor]] = []

    def locate(self) -> tuple[Tensor, Tensor]:
        r"""Returns the posterior's mean `(n, d)` and its covariance's Cholesky factor `(n, d, d)`.

        Importance sampling, from the prior and then from the last round's normal, tempered so far
        that a quarter of the particles count; it closes in on the posterior where a single round
        would not.

        .. math::
            m = \sum_s \pi_s u_s, \quad \Sigma = \sum_s \pi_s (u_s - m) (u_s - m)^T, \quad
            \pi_s \propto (f(u_s) / q(u_s))^b, \quad
            u \sim q = \mathrm{N}(m, 1.44 \, \Sigma)

        with m and Sigma of the round before, and the largest power b up to 1 that leaves an ESS of
        a quarter of the particles.

        References:
            Adaptive importance sampling in general mixture classes (Cappé et al., 2008),
            https://arxiv.org/abs/0710.4242
        """
        path = self._path
        u = path.start(PARTICLES)  # (S, n, d)
        log_q = path(u)[0].cpu().double()
        if not path.program.plate:
            u, log_q = u[:, None], log_q[:, None]
        reached = torch.zeros(u.shape[1])
        for _ in range(ROUNDS):
            log_w = self._weigh(u, log_q)
            power = _temper(log_w)
            w = (power * log_w).nan_to_num(-torch.inf).softmax(0)[..., None].to(u)  # (S, n, 1)
            mean = (w * u).sum(0)  # (n, d)
            off = w.sqrt() * (u - mean)  # (S, n, d)
            normal = MultivariateNormal(mean, torch.einsum("sni,snj->nij", off, off))
            if ((power == 1) | (power < 1.1 * reached)).all():  # the latter on several scales
                break
            reached = power
            u = mean + 1.2 * (normal.sample((PARTICLES,)) - mean)
            wider = MultivariateNormal(mean, scale_tril=1.2 * normal.scale_tril)
            log_q = wider.log_prob(u).cpu().double()
        return normal.mean, normal.scale_tril  # pyright: ignore[reportPossiblyUnboundVariable]

    def propose(self, program: Program) -> None:
        """Draws from the guide as well: peaks where it has a mode, and one more estimate.

        Args:
            program: The pair, the model of which is the path's.
        """
        z, log_q = program.propose(self._path.rows, PARTICLES)
        u = self._path.unconstrain(z, PARTICLES)
        log_p = program.log_joint(z, self._path.rows, PARTICLES)
        if not program.plate:
            u, log_q, log_p = u[:, None], log_q[:, None], log_p[:, None]
        log_f = log_joint(self._path, u)
        self._keep(u, log_f, (log_p - log_q).cpu().double())

    def _weigh(self, u: Tensor, log_q: Tensor) -> Tensor:
        """Returns log f(u) - log q(u), `(S, n)`, and keeps what there is to keep of it."""
        log_f = log_joint(self._path, u)
        log_w = log_f - log_q  # (S, n), nats
        if len(bad := torch.nonzero(~log_w.amax(0).isfinite())):  # NaN wins over any maximum
            raise ValueError(
                f"log p(x, z) of datum {self._path.rows.start + int(bad[0])} is NaN or inf at a "
                "draw of z, or -inf at all; look for NaN in the parameters, for data the model "
                "excludes, or for a prior that is infinite where z rounds to (float64 rounds less)"
            )
        self._keep(u, log_f, log_w)
        return log_w

    def _keep(self, u: Tensor, log_f: Tensor, log_w: Tensor) -> None:
        """Keeps the 64 of u `(S, n, d)` with the highest log f, and what log w `(S, n)` says."""
        log_f, top = log_f.topk(PEAKS, dim=0)  # (64, n)
        self.peaks.append((u[top.to(u.device), torch.arange(u.shape[1])], log_f))
        weights = LogWeights(log_w)
        self.sampled.append((weights.log_evidence(), weights.std_error()))


def _temper(log_w: Tensor) -> Tensor:
    """Returns the largest power up to 1, `(n,)`, at which a quarter of the weights `(S, n)` count.

    By bisection, 30 times: ESS falls as the power rises.
    """
    low, high = torch.zeros_like(log_w[0]), torch.ones_like(log_w[0])
    for power in [high] + [None] * 30:
        middle = (low + high) / 2 if power is None else power
        weights = LogWeights((middle * log_w).nan_to_num(-torch.inf))
        enough = weights.ess() >= len(log_w) / 4
        low = torch.where(enough, middle, low)
        high = torch.where(enough, high, middle)
    return low
