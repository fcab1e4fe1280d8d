"""What is missing in data, by what is seen: a mean, draws and intervals of each gap."""

__all__ = ["Imputed", "ends", "given_seen", "impute"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from pyrovae.checks import gaps_inform, may_be_missing
from pyrovae.equality import ByContent
from pyrovae.posteriors.draws import Draws, PosteriorOptions, posterior
from pyrovae.threads import one_at_a_time


@dataclass(frozen=True, repr=False, eq=False)
class Imputed(ByContent):
    r"""N data whose gaps are filled in; what was seen stands as it was.

    Attributes:
        mean: `(N, D)`; in a gap :math:`\sum_s \bar w_{sn} E[x | z_{sn}]`, of classes, in rows of
            mixed columns, the most probable.
        draws: `(L, N, D)`: z of p(z | seen) by its weights, then x of p(x | z); multiple
            imputation.
        gaps: Where x was missing, `(N, D)`.
        verdict: Of each datum's draws of z: "not contradicted", or what would help.
    """

    mean: Tensor
    draws: Tensor
    gaps: Tensor
    verdict: list[str]

    def __repr__(self) -> str:
        n, d = self.gaps.shape
        share = self.gaps.double().mean().item()
        return f"Imputed({n} x {d}, {share:.1%} filled in, {len(self.draws)} draws)"

    def interval(self, prob: float = 0.95) -> tuple[Tensor, Tensor]:
        """Returns both ends of an interval for each number, `(N, D)`: quantiles of its draws.

        Of what was seen both are what was seen. Few draws have no quantiles far out: the least
        and the greatest of L leave out 2 / (L + 1).

        Args:
            prob: Of holding what is missing, between 0 and 1.

        Raises:
            ValueError: If `prob` is no such number, or there are too few draws for it.
        """
        return ends(self.draws, prob)


def ends(draws: Tensor, prob: float) -> tuple[Tensor, Tensor]:
    """Returns quantiles of draws that hold a share of them, `(...)` each.

    Args:
        draws: `(L, ...)`.
        prob: The share, between 0 and 1.

    Raises:
        ValueError: If `prob` is no such number, or there are too few draws for it.
    """
    if not 0 < prob < 1:
        raise ValueError(f"prob is {prob}; give a probability between 0 and 1")
    size = len(draws)
    least = (1 - prob) / 2 * (size + 1) - 1  # the place of the lower end, from 0
    if least < 0:
        raise ValueError(
            f"{size} draws have no quantiles so far out as {prob:g} asks; give num_draws of "
            f"{2 / (1 - prob):.0f} or more"
        )
    ordered, place = draws.sort(0).values, int(least)
    part = least - place
    low = (1 - part) * ordered[place] + part * ordered[place + 1]
    high = (1 - part) * ordered[-1 - place] + part * ordered[-2 - place]
    return low, high


@one_at_a_time
def impute(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: Tensor,
    num_draws: int = 20,
    site: str | None = None,
    **options: Unpack[PosteriorOptions],
) -> Imputed:
    r"""Returns data whose gaps, NaN, are filled in by what the model says given the rest.

    .. math::
        p(x_{\text{missing}} | x_{\text{seen}}) \approx
        \sum_s \bar w_s \, p(x_{\text{missing}} | z_s), \quad
        \bar w_s \propto p(x_{\text{seen}}, z_s) / q(z_s | x_{\text{seen}})

    for values that are missing at random: that they are must not depend on what they are. For
    others see `pv.NotMIWAE`.

    Args:
        model: A Pyro callable of `*data` that takes NaN for missing, as those of this package.
        guide: Another; `None` draws from the prior.
        data: As the program takes them; of the first, `(N, D)`, gaps are filled in.
        num_draws: L, of each datum.
        site: Name of the site that observes them; `None` for "x", or in a model whose gaps tell of
            what is missing, such as `pv.NotMIWAE`, for that of what is missing.
        **options: As of `posterior`: `num_particles`, `num_temperatures`, `seed`, `plate`,
            `block_size`.

    Raises:
        ValueError: If the model takes no NaN for missing, or has no such site.
        TypeError, ValueError: As `posterior`.

    References:
        MIWAE: deep generative modelling and imputation of incomplete data sets (Mattei and
        Frellsen, 2019), https://arxiv.org/abs/1812.02633

    Example:
        >>> import pyrovae as pv
        >>> vae, x = pv.VAE(x_dim=4, z_dim=2), torch.ones(3, 4)
        >>> x[0, 1] = torch.nan
        >>> impute(vae.model, vae.guide, x, num_particles=50, seed=0)
        Imputed(3 x 4, 8.3% filled in, 20 draws)
    """
    site = site or gaps_inform(model) or "x"
    d, draws = given_seen(model, guide, *data, num_draws=num_draws, site=site, **options)
    x, mean = data[0], d.best_of(site)
    x = x.cpu()
    gaps = x.isnan()
    return Imputed(
        torch.where(gaps, mean.to(x.dtype), x),
        torch.where(gaps, draws.to(x.dtype), x),
        gaps,
        d.verdict(),
    )


def given_seen(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: Tensor,
    num_draws: int,
    site: str,
    **options: Unpack[PosteriorOptions],
) -> tuple[Draws, Tensor]:
    """Returns draws of z given what is seen, and of x given these, `(L, N, D)`.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; or `None`.
        data: As the program takes them, the first `(N, D)`.
        num_draws: L, of x.
        site: Name of the site that observes the first.
        **options: As of `posterior`.

    Raises:
        ValueError: If the model takes no NaN for missing, or has no such site.
    """
    if 0 not in may_be_missing(model):
        raise ValueError(
            "the model does not say that NaN is missing in its data; take one of this package, "
            "or mark yours with pyrovae.checks.nan_is_missing and leave NaN out of its densities"
        )
    d = posterior(model, guide, *data, **options)
    draws = d.predict(site, num_draws)
    if draws.shape[1:] != data[0].shape:
        raise ValueError(
            f"site {site!r} is of shape {tuple(draws.shape[1:])} and the data are of "
            f"{tuple(data[0].shape)}; name the site that observes them"
        )
    return d, draws
