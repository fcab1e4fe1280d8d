"""log p(x) by hand: brute force on grids, the forward algorithm, Gaussian algebra."""

import math

import numpy as np
import torch


def axis(low=-7.0, high=7.0, size=71):
    return torch.linspace(low, high, size)


def integral(log_f, *axes):
    """log of the integral of exp(log_f(z)), z `(G, 1, d)` on a grid, log_f `(G, N)`: `(N,)`.

    The trapezoidal rule; for smooth f that is 0 at the rim it is as good as exact.
    """
    z = torch.cartesian_prod(*axes).reshape(-1, 1, len(axes))
    return log_f(z).logsumexp(0) + sum(math.log(a[1] - a[0]) for a in axes)


def expectation(log_f, loc, scale_tril, size=30):
    """log E f(g) under a normal, by Gauss-Hermite: g `(G, 1, d)`, log_f `(G, N)`: `(N,)`."""
    node, weight = (torch.from_numpy(a) for a in np.polynomial.hermite.hermgauss(size))
    d = len(loc)
    grid = torch.cartesian_prod(*[node] * d).reshape(-1, d)
    log_weight = torch.cartesian_prod(*[weight.log()] * d).reshape(-1, d).sum(-1)
    g = loc + math.sqrt(2) * grid @ scale_tril.T
    return (log_f(g[:, None]) + log_weight[:, None]).logsumexp(0) - d * math.log(math.pi) / 2


def forward(log_init, log_trans, log_obs, lengths):
    """The forward algorithm: log p of N sequences of observed log_obs `(N, T, K)`: `(N,)`.

    Args:
        log_init: `(K,)`, of the first step.
        log_trans: `(K, K)`, from row to column.
        log_obs: log p(x_t | state).
        lengths: `(N,)`, steps that count.
    """
    alpha = log_init + log_obs[:, 0]
    for t in range(1, log_obs.shape[1]):
        new = (alpha[:, :, None] + log_trans).logsumexp(1) + log_obs[:, t]
        alpha = torch.where((t < lengths)[:, None], new, alpha)
    return alpha.logsumexp(1)
