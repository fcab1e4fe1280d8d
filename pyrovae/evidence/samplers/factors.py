"""Factors F of a normal's covariance F F^T, at each datum's mode: u = m + F v."""

__all__ = ["Factor", "LowRank", "Triangular", "of_precision", "of_products"]

from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 0.1  # least curvature, in units of the prior's, where log p(x, z) is not concave


class Triangular(NamedTuple):
    """An upper triangular matrix.

    Attributes:
        matrix: F, `(n, d, d)`.
    """

    matrix: Tensor

    def times(self, v: Tensor) -> Tensor:
        """Returns F v, `(S, n, d)` both."""
        return torch.einsum("...ij,s...j->s...i", self.matrix, v)

    def transposed(self, g: Tensor) -> Tensor:
        """Returns F^T g, `(S, n, d)` both."""
        return torch.einsum("...ji,s...j->s...i", self.matrix, g)

    def solve(self, u: Tensor) -> Tensor:
        """Returns F^-1 u, `(S, n, d)` both."""
        return torch.linalg.solve_triangular(self.matrix, u[..., None], upper=True)[..., 0]

    def scaled(self, c: float) -> "Triangular":
        """Returns c F."""
        return Triangular(c * self.matrix)

    @property
    def log_volume(self) -> Tensor:
        """Log |F|, `(n,)`."""
        return self.matrix.diagonal(dim1=-2, dim2=-1).log().sum(-1)


class LowRank(NamedTuple):
    r"""A diagonal matrix, and few directions that are stretched.

    .. math::
        F = \mathrm{diag}(s) (I + V \mathrm{diag}(t - 1) V^T), \quad V^T V = I

    Attributes:
        scale: s, `(n, d)`.
        vectors: V, `(n, d, k)`.
        stretch: t, `(n, k)`.
    """

    scale: Tensor
    vectors: Tensor
    stretch: Tensor

    def times(self, v: Tensor) -> Tensor:
        """Returns F v, `(S, n, d)` both."""
        return self.scale * self._stretched(v, self.stretch)

    def transposed(self, g: Tensor) -> Tensor:
        """Returns F^T g, `(S, n, d)` both."""
        return self._stretched(self.scale * g, self.stretch)

    def solve(self, u: Tensor) -> Tensor:
        """Returns F^-1 u, `(S, n, d)` both."""
        return self._stretched(u / self.scale, 1 / self.stretch)

    def scaled(self, c: float) -> "LowRank":
        """Returns c F."""
        return self._replace(scale=c * self.scale)

    @property
    def log_volume(self) -> Tensor:
        """Log |F|, `(n,)`."""
        return self.scale.log().sum(-1) + self.stretch.log().sum(-1)

    def _stretched(self, v: Tensor, by: Tensor) -> Tensor:
        along = torch.einsum("...jk,s...j->s...k", self.vectors, v)
        return v + torch.einsum("...jk,s...k->s...j", self.vectors, (by - 1) * along)


Factor = Triangular | LowRank


def of_precision(precision: Tensor, scale: Tensor) -> Triangular:
    r"""Returns F of :math:`\Lambda^{-1} = F F^T`, with Lambda made definite.

    In units of the prior's scale, eigenvalues are replaced by their absolute values, at least a
    tenth, where one of a datum's is less.

    Args:
        precision: Lambda, `(n, d, d)`.
        scale: The prior's, `(n, d)`.

    References:
        Identifying and attacking the saddle point problem (Dauphin et al., 2014),
        https://arxiv.org/abs/1406.2572
    """
    s = scale.double()
    unit = (s[..., None] * precision.double() * s[..., None, :]).nan_to_num()
    eye = torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
    low = torch.linalg.cholesky_ex(unit - FLOOR * eye).info > 0  # (n,); of joint latents ()
    if low.any():
        values, vectors = torch.linalg.eigh(unit)
        lifted = (vectors * _lifted(values)[..., None, :]) @ vectors.mT
        unit = torch.where(low[..., None, None], lifted, unit)
    lower = torch.linalg.cholesky(unit)
    inverse = torch.linalg.solve_triangular(lower, eye, upper=False)
    return Triangular((s[..., None] * inverse.mT).to(scale))


def of_products(products: Tensor, directions: Tensor, scale: Tensor) -> tuple[LowRank, Tensor]:
    r"""Returns F of what Lambda is in some directions, and the directions to look in next.

    In units of the prior's scale Lambda is taken as :math:`I + Q B Q^T`, Rayleigh and Ritz's
    choice: what is not of the prior, in the space of Q; what Lambda takes Q to is the next Q.

    Args:
        products: :math:`\Lambda \, \mathrm{diag}(s) Q`, `(n, d, k)`.
        directions: Q, orthonormal, `(n, d, k)`.
        scale: The prior's s, `(n, d)`.

    References:
        Finding structure with randomness: probabilistic algorithms for constructing approximate
        matrix decompositions (Halko et al., 2011), https://arxiv.org/abs/0909.4061
    """
    q = directions.double()
    y = (scale[..., None] * products).double().nan_to_num() - q
    values, vectors = torch.linalg.eigh((q.mT @ y + y.mT @ q) / 2)
    stretch = _lifted(1 + values).rsqrt()
    factor = LowRank(scale, (q @ vectors).to(scale), stretch.to(scale))
    return factor, torch.linalg.qr(y).Q.to(scale)


def _lifted(values: Tensor) -> Tensor:
    """Returns eigenvalues as they are to be."""
    return values.abs().clamp(min=FLOOR)
