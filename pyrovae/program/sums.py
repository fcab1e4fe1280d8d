"""Log-densities of sites, summed to one number for each particle and datum."""

__all__ = ["TOLERANCE", "close", "log_det", "log_prob", "sum_sites"]

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pyrovae.program.enumeration import eliminate
from pyrovae.program.sites import Site

TOLERANCE = 1e-4  # nats, and relative: log-densities that differ less are the same


def sum_sites(
    sites: Iterable[Site],
    lead: tuple[int, ...],
    num_data: int | None,
    dim: int | None,
    term: Callable[[Site], Tensor],
) -> Tensor:
    r"""Returns the sum of a term of the sites, `(*lead, n)`; `lead` alone of one datum, or of all.

    For log-densities that is the log of the joint density, by particle and datum:

    .. math::
        \log p_{sn} = \sum_i \log p_i(v_{sn}^{(i)} | \text{earlier sites})

    Args:
        sites: Of one run; enumerated ones are summed out.
        lead: `(S,)`, or `()` of a run without particles.
        num_data: n, the first of the rows that a run filled up; `None` sums over all data.
        dim: The data plate's dimension, from the right.
        term: Of a site, in the shape of its log-density, nats.

    Raises:
        ValueError: If a term has other dimensions than those of particles, data and plates:
            nothing is broadcast by luck.
    """
    shape = [*lead] if num_data is None else [*lead, num_data]
    total = torch.zeros(shape)
    for name, log_p in eliminate([(site, term(site)) for site in sites]):
        keep = [0] * len(lead) + ([] if dim is None else [log_p.ndim + dim])
        if summed := [d for d in range(log_p.ndim) if d not in keep]:
            log_p = log_p.sum(summed)
        log_p = log_p if num_data is None else log_p[..., :num_data]
        if list(log_p.shape) != shape:
            raise ValueError(
                f"site {name!r} gives log-densities of shape {tuple(log_p.shape)} "
                f"where {tuple(shape)} (particles, data) was expected"
            )
        total = total.to(log_p.device) + log_p
    return total


def log_prob(site: Site) -> Tensor:
    """Returns a site's log-density as its mask leaves it, with log |dz/du| where z = T(u).

    It is in nats, of the site's batch shape, without the factors of `poutine.scale` and
    subsampling.
    """
    log_p = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return _masked(site, log_p + site["log_det"] if "log_det" in site else log_p)


def log_det(site: Site) -> Tensor:
    """Returns log |dz/du| of a site whose value is z = T(u), as its mask leaves it."""
    assert "log_det" in site
    return _masked(site, site["log_det"])


def _masked(site: Site, term: Tensor) -> Tensor:
    """Returns a term with 0 where its site's mask is False."""
    if site["mask"] is None:
        return term
    return torch.where(torch.as_tensor(site["mask"], device=term.device), term, 0.0)


def close(a: Tensor, b: Tensor) -> bool:
    """Returns whether log-densities are the same but for rounding: to 1e-4, NaN included.

    Args:
        a: Log-densities, nats.
        b: Others, of the same shape.
    """
    return torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
