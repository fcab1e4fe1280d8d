"""HMC's mass matrix, from the particles of a pilot."""

__all__ = ["Mass"]

import torch
from torch import Tensor

KEPT = 0.3  # of the stages before
FULL = 64  # dimensions up to which there are correlations


class Mass:
    """The particles' covariance along a pilot's way, each stage's averaged with those before.

    References:
        Shrinkage algorithms for MMSE covariance estimation (Chen et al., 2010),
        https://arxiv.org/abs/0907.4698: rho, here of what correlations differ from none.
    """

    def __init__(self) -> None:
        self._covariance: Tensor | None = None
        self._freedom = 0.0

    def factor(self, u: Tensor) -> Tensor:
        """Takes in a stage's particles, and returns A, `(d, d)`.

        Args:
            u: In units of the start's scale, `(S, n, d)`; of joint latents `(S, d)`.
        """
        off = (u - u.mean(0)).double().flatten(0, -2)  # (S n, d)
        freedom, d = max(1, len(off) - len(off) // len(u)), u.shape[-1]
        now = off.mT @ off / freedom
        if self._covariance is None:
            self._covariance, self._freedom = now, freedom
        else:  # of an average, as squares of its shares add up
            self._covariance = KEPT * self._covariance + (1 - KEPT) * now
            self._freedom = 1 / (KEPT**2 / self._freedom + (1 - KEPT) ** 2 / freedom)
        scale = self._covariance.diagonal().sqrt()
        scale = torch.where((scale > 0) & scale.isfinite(), scale, 1.0)
        eye = torch.eye(d, dtype=scale.dtype, device=scale.device)
        if d > FULL or not self._covariance.isfinite().all():
            return (scale * eye).to(u)
        correlation = self._covariance / scale[:, None] / scale
        square = correlation.square().sum() - d  # of what is off the diagonal
        rho = min(1.0, d * (d - 1) / self._freedom / max(square.item(), 1e-9))
        shrunk = (1 - rho) * correlation + rho * eye
        lower, failed = torch.linalg.cholesky_ex(shrunk)
        lower = eye if failed else lower
        return (scale[:, None] * lower).to(u)
