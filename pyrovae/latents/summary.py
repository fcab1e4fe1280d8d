"""What a latent space holds of data: rate by dimension, active units, components, information."""

__all__ = ["Codes", "Latent", "latent"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.equality import ByContent
from pyrovae.latents.information import Information, information
from pyrovae.plots import principal_axes
from pyrovae.program import Program, code_of, inspect, reproducible
from pyrovae.rng import draw_seed
from pyrovae.threads import one_at_a_time

STREAM = 21  # of random numbers
ACTIVE = 0.01  # share of the prior's variance: where means vary by more, a dimension is in use
COMPARED = 2_000  # data whose codes are compared with each other, at most


@dataclass(frozen=True, repr=False, eq=False)
class Codes(ByContent):
    r"""What the guide says of one latent site, of N data.

    Attributes:
        mean: E[z|x] under the guide, `(N, d)`; NaN where z has no mean, as a category has none.
        sd: Its standard deviation, `(N, d)`.
        error: Standard error of `mean`, `(N, d)`: 0 but where the site depends on what the guide
            draws before it, or its mean is known by its draws alone.
        divergence: KL(q(z|x) || p(z)), `(N, groups)`, nats; a group is a dimension where both
            densities are products over these.
        prior_variance: Of z under P(z), `(d,)`; of a prior that depends on data or on latents
            before it, over all of these that were met.
    """

    mean: Tensor
    sd: Tensor
    error: Tensor
    divergence: Tensor
    prior_variance: Tensor

    @property
    def kl(self) -> Tensor:
        """Mean KL over the data of each group, `(groups,)`, nats."""
        return self.divergence.mean(0)

    @property
    def variance(self) -> Tensor:
        """Variance of the means over data, `(d,)`, less what their own errors add to it."""
        return self.mean.var(0) - self.error.square().mean(0)

    @property
    def active(self) -> Tensor:
        r"""Which dimensions are active units, `(d,)`: Var_x(E[z|x]) > 0.01 Var(z) under P(z).

        Of P(z) = N(0, I) that is Burda's 0.01, on another scale, as of shares of topics, the same
        share. A P(z) without a finite variance is measured by 0.01 itself.

        References:
            Importance weighted autoencoders (Burda et al., 2015), section 5.2,
            https://arxiv.org/abs/1509.00519
        """
        scale = torch.where(self.prior_variance.isfinite(), self.prior_variance, 1.0)
        return self.variance > ACTIVE * scale

    def components(self) -> tuple[Tensor, Tensor]:
        """Returns the principal axes of the means, by rows, and their shares of the variance.

        There are d of them, `(d, d)` and `(d,)`, or N where that is less.
        """
        return principal_axes(self.mean, self.mean.shape[1])


@dataclass(frozen=True, repr=False, eq=False)
class Latent(ByContent):
    """What the latents of a program hold of N data.

    `print` shows it as a table, a row for each site.

    Attributes:
        codes: By site, in the order in which the guide draws them.
        information: Of x and z, where it can be had; from the first 2,000 data at most.
    """

    codes: Mapping[str, Codes]
    information: Information | None

    def __getitem__(self, site: str) -> Codes:
        return self.codes[site]

    @property
    def rates(self) -> Tensor:
        """KL(q(z|x) || p(z)) of each datum over all sites, `(N,)`, nats."""
        return torch.stack([c.divergence.sum(1) for c in self.codes.values()]).sum(0)

    def rate(self) -> tuple[float, float]:
        """Returns the mean of `rates` and its standard error over data, nats."""
        return self.rates.mean().item(), self.rates.std().item() / sqrt(len(self.rates))

    def __repr__(self) -> str:
        return f"Latent({', '.join(self.codes)}: {len(self.rates)} data)"

    def __str__(self) -> str:
        return "\n".join([*_table(self.codes), "", *self.reading()])

    def reading(self) -> Iterator[str]:
        """Yields what is to be said of rate and information, a sentence each."""
        rate, error = self.rate()
        yield f"Rate: KL(q(z|x) || p(z)) = {rate:.3f} +- {error:.3f} nats per datum."
        known = self.information
        if not known:
            yield "Information: q(z|x) of another datum's z cannot be had, or data share latents."
            return
        (low, high), (error, _) = known.bounds(), known.errors()
        if known.one_prior:  # else the rate is no bound
            high = min(high, rate)
        yield (
            f"Information of x and z: between {low:.3f} +- {error:.3f} and {high:.3f} nats "
            f"({len(known.lower)} data, which can show {known.most:.3f} at most)."
        )
        if known.one_prior:
            yield (
                "KL(q(z) || p(z)) of all codes together: between "
                f"{max(rate - high, 0.0):.3f} and {max(rate - low, 0.0):.3f} nats."
            )

    def to_csv(self, labels: Sequence[object] | None = None) -> Iterator[str]:
        """Yields lines of CSV: a datum a row, with the means and deviations of its latents.

        Columns are "datum", the number of the row from 0, "label" where there are some, "kl" in
        nats, and of each dimension "<site>_<k>_mean" and "<site>_<k>_sd", k from 1.

        Args:
            labels: Of the data, N of them.
        """
        names = ["datum", *(["label"] if labels is not None else []), "kl"]
        columns = []
        for site, c in self.codes.items():
            for what, table in (("mean", c.mean), ("sd", c.sd)):
                names += [f"{site}_{k + 1}_{what}" for k in range(table.shape[1])]
                columns.append(table)
        yield ",".join(names)
        for n, row in enumerate(torch.cat([self.rates[:, None], *columns], 1).tolist()):
            label = [] if labels is None else [labels[n]]
            yield ",".join(map(str, [n, *label, *row]))


def _table(codes: Mapping[str, Codes]) -> Iterator[str]:
    """Yields the lines of the table of sites."""
    width = max(4, *map(len, codes))
    yield f"{'site':{width}}  dimensions  active   KL nats  of the largest"
    for name, c in codes.items():
        active = "-" if c.mean.isnan().all() else int(c.active.sum())
        largest = f"{c.kl.max():14.3f}" if len(c.kl) == c.mean.shape[1] else f"{'-':>14}"
        yield f"{name:{width}}  {c.mean.shape[1]:10}  {active:>6}  {c.kl.sum():8.3f}  {largest}"


@one_at_a_time
def latent(
    model: Callable[..., object],
    guide: Callable[..., object],
    *data: Tensor,
    num_particles: int = 16,
    seed: int | None = None,
    plate: str = "data",
    block_size: int = 64,
) -> Latent:
    r"""Returns what the latents of each datum are under the guide, and what they cost.

    .. math::
        R = \frac1N \sum_n \mathrm{KL}(q(z|x_n) \,\|\, p(z))
          = I(x; z) + \mathrm{KL}(q(z) \,\|\, p(z)), \quad q(z) = \frac1N \sum_n q(z|x_n)

    by site and, where the densities are products over them, by dimension. A dimension that the
    model does not use costs about 0 nats, and its mean hardly varies over the data.

    Args:
        model: Any Pyro callable of `*data`.
        guide: Another, with latents in the plate over the data.
        data: Tensors of equal length N, as the program takes them.
        num_particles: S, draws of the guide per datum: of sites that depend on others', and of
            what has no mean or no KL in closed form.
        seed: Fixes the draws; `None` draws a seed.
        plate: Name of the plate over the data.
        block_size: Data per block.

    Raises:
        TypeError, ValueError: As `pyrovae.check` explains; also where no datum has latents of its
            own, or the plate over the data is a loop.

    References:
        ELBO surgery: yet another way to carve up the variational evidence lower bound (Hoffman
        and Johnson, 2016), http://approximateinference.org/accepted/HoffmanJohnson2016.pdf

    Example:
        >>> from pyrovae.models.vae import VAE
        >>> vae = VAE(x_dim=4, z_dim=2, hidden_dims=(3,))
        >>> latent(vae.model, vae.guide, torch.ones(5, 4), seed=0)["z"].kl.shape
        torch.Size([2])
    """
    check_sizes(num_particles=num_particles, block_size=block_size)
    if guide is None:
        raise TypeError("the guide is None, and codes are what a guide says; give one")
    program = inspect(model, guide, *data, plate=plate, block_size=block_size)
    seed = draw_seed(seed)
    codes = _codes(program, num_particles, seed)
    if not codes:
        raise ValueError("no datum has latents of its own, so that there are no codes to look at")
    return Latent(codes, information(program, min(len(program), COMPARED), seed))


def _codes(program: Program, num_particles: int, seed: int) -> dict[str, Codes]:
    """Returns the codes of all data, by site.

    Args:
        program: With a guide.
        num_particles: S.
        seed: Fixes the draws.
    """
    parts: dict[str, list[tuple[Tensor, ...]]] = {}
    for rows in program.blocks(program.block_size):
        with reproducible(seed, STREAM, rows.start):
            for name, code in code_of(program, rows, num_particles).items():
                spread = code.mean.var(0) if num_particles > 1 else torch.zeros_like(code.mean[0])
                sd = (code.variance.mean(0) + spread).sqrt()
                error = (spread / num_particles).sqrt()
                found = code.mean.mean(0), sd, error, code.divergence.mean(0)
                second = (code.prior_mean.square() + code.prior_variance).mean(0)
                parts.setdefault(name, []).append((*found, code.prior_mean.mean(0), second))
    codes = {}
    for name, found in parts.items():
        mean, sd, error, kl, first, second = map(torch.cat, zip(*found, strict=True))
        codes[name] = Codes(mean, sd, error, kl, second.mean(0) - first.mean(0).square())
    return codes
