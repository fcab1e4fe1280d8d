"""log p(x) by quadrature: exact to tolerance where a datum has few latent dimensions."""

__all__ = ["quadrature"]

import warnings
from collections.abc import Callable
from math import ceil, log, sqrt
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyrovae.evidence.weights import LogWeights, check_sizes
from pyrovae.program import Path, Program, evaluation, inspect
from pyrovae.rng import seeded

MOST = 3  # dimensions
TOLERANCE, MAX_POINTS = 1e-6, 2**21
CHUNK_SIZE = 2**15  # nodes x data evaluated at once
DRAWS, ROUNDS = 2048, 30  # of the search for the posterior's mass
NARROWER, WIDER = 1 / sqrt(2), 1.5


def quadrature(
    model: Callable[..., Any],
    *data: Tensor,
    tolerance: float = TOLERANCE,
    max_points: int = MAX_POINTS,
    plate: str | None = "data",
    block_size: int = 64,
    with_error: bool = False,
) -> Any:
    r"""Returns log p(x), `(N,)`, exact to a tolerance, for up to three latent dimensions a datum.

    .. math::
        p(x) = \int p(x, z(u)) \left|\frac{dz}{du}\right| du
             \approx h^d |L| \sum_{t \in h \mathbb{Z}^d, |t| \le R} f(m + L t)

    The trapezoidal rule on a lattice in the coordinates of the posterior's own mean m and
    covariance L L^T, which tempered importance sampling finds for each datum. For smooth densities
    its error falls faster than any power of h. The lattice is made finer (h / sqrt(2)) and wider
    (1.5 R) until it agrees with the coarser one and with itself shifted by h / 2, and its rim
    holds nothing: the larger difference and the rim's share estimate the error. The value is the
    mean of the lattice and its shifted self. Discrete latents are summed out.

    scipy.integrate.cubature would do it too, but splits one region at a time, for all data alike.

    Args:
        model: Any Pyro callable of `*data`.
        data: Tensors of equal length N, as the program takes them.
        tolerance: Estimated error allowed, nats. Of a float32 program the density itself is
            good to about 1e-5.
        max_points: Nodes per datum at most; a warning tells of data that needed more.
        plate: Name of the plate over the data; `None` integrates latents that all data share.
        block_size: Data per block.
        with_error: Return the estimated error, `(N,)`, nats, beside log p(x).

    Raises:
        TypeError, ValueError: As `pyrovae.check` explains; also for more than three dimensions, a
            latent that cannot be mapped from the reals, or NaN.

    References:
        The exponentially convergent trapezoidal rule (Trefethen and Weideman, 2014),
        https://doi.org/10.1137/130932132
    """
    check_sizes(max_points=max_points, block_size=block_size)
    program = inspect(model, None, *data, plate=plate, block_size=block_size)
    parts = [integrate(program, r, tolerance, max_points) for r in program.blocks(block_size)]
    value, error = (torch.cat(column) for column in zip(*parts, strict=True))
    if (missed := error > tolerance).any():
        warnings.warn(
            f"quadrature stopped at max_points={max_points} for {int(missed.sum())} of "
            f"{len(value)} data, with an estimated error of up to {error.max():.2g} nats; raise "
            "max_points, or use ais",
            stacklevel=2,
        )
    if plate is None:
        value, error = value[0], error[0]
    return (value, error) if with_error else value


def integrate(
    program: Program, rows: range, tolerance: float, max_points: int
) -> tuple[Tensor, Tensor]:
    """Returns log p(x) of a block and its estimated error, `(n,)` each, nats; n = 1 if joint."""
    with evaluation(), pyro.validation_enabled(False), seeded(0, rows.start):
        program.check_observed(rows)
        path = Path(program, rows)
        if not 1 <= path.size <= MOST:
            names = ", ".join(map(repr, path.names)) or "none"
            raise ValueError(
                f"the latents of a datum ({names}) have {path.size} continuous dimensions; "
                f"quadrature takes 1 to {MOST}, so use ais or importance_sampling"
            )
        mean, scale = _locate(path)
        n = len(mean)
        value, error, coarse = torch.full((3, n), torch.inf, dtype=torch.float64)
        h, reach = 1.0, 6.0
        active = torch.arange(n)
        while len(active) and (2 * ceil(reach / h) + 1) ** path.size <= max_points:
            if program.feed == "slice" and len(active) < len(path.rows):
                path = Path(program.take([rows[i] for i in active]), range(len(active)))
            frame = _density(path), mean[active], scale[active], h, reach
            (one, rim), (other, _) = _lattice(*frame, shift=0.0), _lattice(*frame, shift=0.5)
            new = torch.logaddexp(one, other) - log(2)
            apart = torch.maximum((one - other).abs(), (new - coarse[active]).abs())
            value[active], error[active] = new, apart + rim
            if rim.max() > tolerance / 4:
                reach *= WIDER
            else:
                h, coarse[active] = h * NARROWER, new
            done = error[active] <= tolerance
            active = active[~done] if program.feed == "slice" else active[: 0 if done.all() else n]
    return value, error


def _density(path: Path) -> Callable[[Tensor], Tensor]:
    """Returns log f_1 as a function of u `(S, n, d)`, `(S, n)`; n = 1 of joint latents."""
    if path.program.plate:
        return lambda u: path(u)[1].cpu().double()
    return lambda u: path(u[:, 0])[1].cpu().double()[:, None]


def _lattice(
    log_f: Callable[[Tensor], Tensor],
    mean: Tensor,
    scale: Tensor,
    h: float,
    reach: float,
    shift: float,
) -> tuple[Tensor, Tensor]:
    """Returns the trapezoidal rule's log integral `(n,)`, and what the rim says is left out."""
    n, d = mean.shape
    half = ceil(reach / h)
    side = 2 * half + 1
    total = inner = torch.full((n,), -torch.inf, dtype=torch.float64)
    size = max(1, CHUNK_SIZE // n)
    for start in range(0, side**d, size):
        number = torch.arange(start, min(start + size, side**d))
        node = torch.stack([number // side**i % side - half for i in range(d)], -1)  # (S, d)
        t = h * (node + shift).to(mean)
        terms = log_f(mean + (t[:, None, :, None] * scale.mT).sum(-2))  # (S, n)
        total = torch.logaddexp(total, terms.logsumexp(0))
        rim = node.abs().amax(-1) == half
        inner = torch.logaddexp(inner, terms[~rim].logsumexp(0))
    cell = d * log(h) + scale.diagonal(dim1=-2, dim2=-1).cpu().double().log().sum(-1)
    return total + cell, half * (1 - (inner - total).exp()).clamp(min=0)


def _locate(path: Path) -> tuple[Tensor, Tensor]:
    """Returns the posterior's mean `(n, d)` and the Cholesky factor of its covariance.

    Importance sampling, from the prior and then from the last round's normal, tempered so far that
    a quarter of the draws count; it closes in on the posterior where a single round would not.
    """
    u = path.start(DRAWS)
    log_q = path(u)[0].cpu().double()
    if not path.program.plate:
        u, log_q = u[:, None], log_q[:, None]
    log_f = _density(path)
    for _ in range(ROUNDS):
        log_w = log_f(u) - log_q
        if len(bad := torch.nonzero(~log_w.amax(0).isfinite())):  # NaN wins over any maximum
            raise ValueError(
                f"log p(x, z) of datum {path.rows.start + int(bad[0])} is NaN at a draw of z, or "
                "-inf at all; look for NaN in the parameters, or for data the model excludes"
            )
        power = _temper(log_w)
        w = (power * log_w).nan_to_num(-torch.inf).softmax(0)[..., None].to(u)
        mean = (w * u).sum(0)
        off = w.sqrt() * (u - mean)
        normal = MultivariateNormal(mean, torch.einsum("sni,snj->nij", off, off))
        if (power == 1).all():
            break
        u = mean + 1.2 * (normal.sample((DRAWS,)) - mean)
        wider = MultivariateNormal(mean, scale_tril=1.2 * normal.scale_tril)
        log_q = wider.log_prob(u).cpu().double()
    return normal.mean, normal.scale_tril


def _temper(log_w: Tensor) -> Tensor:
    """Returns the largest power up to 1, `(n,)`, at which a quarter of the weights count."""
    low, high = torch.zeros_like(log_w[0]), torch.ones_like(log_w[0])
    for power in [high] + [None] * 30:
        middle = (low + high) / 2 if power is None else power
        weights = LogWeights((middle * log_w).nan_to_num(-torch.inf))
        enough = weights.ess() >= len(log_w) / 4
        low = torch.where(enough, middle, low)
        high = torch.where(enough, high, middle)
    return low
