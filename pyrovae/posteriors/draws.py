"""Draws of z given x with their weights: expectations, resampling, prediction."""

__all__ = ["Draws", "posterior"]

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import TypedDict

import torch
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.evidence.reductions import annealed_verdicts, interval
from pyrovae.evidence.weights import LogWeights
from pyrovae.gaps import filled
from pyrovae.posteriors.weighted import STREAM, Annealed, Annealer, drawn, weighed
from pyrovae.program import (
    Program,
    Site,
    Values,
    base,
    by_datum,
    inspect,
    means,
    predict,
    reproducible,
    taken,
)
from pyrovae.rng import draw_seed
from pyrovae.side_by_side import SideBySide
from pyrovae.threads import one_at_a_time

ANNEALED = 64  # particles of a datum, at most
MEANS = 2**22  # numbers held at a time
Function = Callable[[Values], Tensor]


class PosteriorOptions(TypedDict, total=False):
    """Options of `posterior`."""

    num_particles: int
    num_temperatures: int
    seed: int | None
    plate: str
    block_size: int


@dataclass(frozen=True, repr=False, eq=False)
class Draws:
    r"""S draws of the latents of each of N data, and their weights: p(z|x) as far as they reach.

    .. math::
        E[f(z) | x_n] \approx \sum_s \bar w_{sn} f(z_{sn}), \quad
        \bar w_{sn} = w_{sn} / \textstyle\sum_{s'} w_{s'n}

    Weights are held; draws are made anew from their seed, a block of data at a time, so that
    memory does not grow with the size of the latents. Those of annealed data are held.

    Attributes:
        weights: Log-weights, `(S, N)`, nats; those that a datum has not are -inf.
        num_temperatures: By which each datum was annealed, `(N,)`; 0 where it was not.
    """

    program: Program
    weights: LogWeights
    num_temperatures: Tensor
    seed: int
    annealed: Mapping[int, Annealed]

    def __repr__(self) -> str:
        n, many = len(self.program), int((self.num_temperatures > 0).sum())
        ess = self.ess().median().item()
        return f"Draws({self.num_particles} x {n}; {many} annealed, median ESS {ess:.1f})"

    @property
    def num_particles(self) -> int:
        """S; annealed data have fewer, see `weights.num_draws`."""
        return self.weights.num_particles

    def ess(self) -> Tensor:
        """Returns the effective sample size of each datum's draws, `(N,)`."""
        return self.weights.ess()

    def verdict(self) -> list[str]:
        """Returns for each datum "not contradicted", or what would help; see `LogWeights.verdict`.

        Where draws of the guide were not to be trusted and could be annealed, it is that of
        annealing. No draws tell of what they all missed, so that none is "ok".
        """
        w, plain = self.weights, self.weights.verdict()
        after = annealed_verdicts(w.ess(), w.num_draws, w.std_error(), inf)
        steps = self.num_temperatures.tolist()
        return [a if t else p for p, a, t in zip(plain, after, steps, strict=True)]

    def expectation(self, fn: Function) -> Tensor:
        r"""Returns E[f(z)|x] of each datum, `(N, ...)`, float64.

        .. math::
            \hat\mu_n = \sum_s \bar w_{sn} f(z_{sn})

        Its bias is of order 1/S, its standard error `std_error`.

        Args:
            fn: f, of latents by site, `(S, n, ..., event)` each, to `(S, n, ...)`.

        Raises:
            ValueError: If it returns another shape, or NaN.

        References:
            Monte Carlo theory, methods and examples (Owen, 2013), chapter 9,
            https://artowen.su.domains/mc/

        Example:
            >>> import pyrovae as pv
            >>> vae, x = pv.VAE(x_dim=4, z_dim=2), torch.ones(3, 4)
            >>> d = pv.posterior(vae.model, vae.guide, x, num_particles=100, seed=0)
            >>> d.expectation(lambda z: z["z"]).shape
            torch.Size([3, 2])
        """
        return self._moments(fn)[0]

    def std_error(self, fn: Function) -> Tensor:
        r"""Returns the standard error of `expectation`, `(N, ...)`, by the delta method.

        .. math::
            \mathrm{se}^2 = \tfrac{S}{S - 1} \sum_s \bar w_{sn}^2 (f(z_{sn}) - \hat\mu_n)^2

        Args:
            fn: f, as `expectation` takes it.
        """
        return self._moments(fn)[1]

    def interval(self, fn: Function, prob: float = 0.95) -> tuple[Tensor, Tensor]:
        """Returns both ends of an interval for E[f(z)|x], `(N, ...)` each.

        `expectation` -+ `std_error` times a quantile of Student's t of ESS - 1 degrees of freedom.

        Args:
            fn: f, as `expectation` takes it.
            prob: Of covering it, between 0 and 1.

        Raises:
            ValueError: If `prob` is no such number.
        """
        value, error = self._moments(fn)
        groups = self.ess().reshape(-1, *[1] * (value.ndim - 1)).expand(value.shape)
        return interval(value, error, groups, prob)

    def resample(self, num_draws: int) -> Values:
        r"""Returns draws of p(z|x) by site, `(L, N, ..., event)`, of equal weight.

        .. math::
            z_n = z_{sn} \text{ with probability } \bar w_{sn}

        Args:
            num_draws: L, of each datum, with replacement.

        References:
            Bayesian statistics without tears: a sampling-resampling perspective (Smith and
            Gelfand, 1992), https://doi.org/10.1080/00031305.1992.10475856
        """
        check_sizes(num_draws=num_draws)
        return _joined(self._labelled(z, rows) for rows, z in self._resampled(num_draws))

    def predict(self, site: str, num_draws: int = 100) -> Tensor:
        r"""Returns draws of a site given x, `(L, N, ..., event)`: of what is observed, anew.

        .. math::
            z_l \sim p(z | x_n), \quad \tilde x_l \sim p(\tilde x | z_l)

        Args:
            site: Name of any site of the model; of a latent, the draws are those of `resample`.
            num_draws: L, of each datum.

        Raises:
            ValueError: If the model has no such site.
        """
        check_sizes(num_draws=num_draws)
        self._site(site)
        parts = []
        for rows, z in self._resampled(num_draws):
            if site not in z:
                with reproducible(self.seed, STREAM + 5, rows.start):
                    z = predict(self._whole, z, rows, num_draws, {site})
            parts.append(self._labelled({site: z[site]}, rows))
        return _joined(parts)[site]

    def mean_of(self, site: str) -> Tensor:
        r"""Returns E[x|seen] of an observed site, `(N, ..., event)`, by its means given z.

        Of a latent it is the expectation of its draws.

        .. math::
            E[\tilde x | x_n] \approx \sum_s \bar w_{sn} E[\tilde x | z_{sn}]

        Args:
            site: Its name.

        Raises:
            ValueError: If its distribution has no mean, or the model has no such site.
        """
        self._site(site)
        if site in self.program.sites.latents:
            return self.expectation(lambda z: z[site])
        return self._mean(site, "mean")

    def best_of(self, site: str) -> Tensor:
        """Returns what an observed site most likely is given x, `(N, ..., event)`.

        Of numbers the mean, as `mean_of`; of classes, in rows of mixed columns, the most probable.

        Args:
            site: Its name.

        Raises:
            ValueError: As `mean_of`.
        """
        p = base(self._site(site)["fn"])
        if isinstance(p, SideBySide) and site not in self.program.sites.latents:
            return p.told(self._mean(site, "summary"))
        return self.mean_of(site)

    def of_classes(self, site: str) -> list[bool]:
        """Returns of which numbers of an observed site's last axis only the class is meant.

        Args:
            site: Its name.
        """
        p = self._site(site)["fn"]
        width = p.event_shape[-1] if p.event_shape else 1
        return base(p).of_classes if isinstance(base(p), SideBySide) else [False] * width

    def _site(self, name: str) -> Site:
        """Returns a site of the model; ValueError if there is none of that name."""
        sites = {s["name"]: s for s in self.program.sites.model}
        if name not in sites:
            raise ValueError(f"the model has no site {name!r}; choose of {', '.join(sites)}")
        return sites[name]

    def _mean(self, name: str, of: str) -> Tensor:
        """Returns the mean given x of what a site's distribution says given z, `(N, ..., event)`.

        Args:
            name: Of the site.
            of: What it says: its "mean", or its "summary".
        """
        site, share, parts = self._site(name), self._share(), []
        for rows, z in self._blocks():
            size = max(1, int(MEANS / (len(rows) * max(1, self.program.event_size))))
            total = torch.zeros(())
            for i in range(0, self.num_particles, size):
                some = {n: v[i : i + size] for n, v in z.items()}
                w = share[i : i + size, rows.start : rows.stop]
                with reproducible(self.seed, STREAM + 6, rows.start, i):
                    mean = means(self._whole, some, rows, len(w), name, of)
                mean = by_datum(self.program, site, mean, rows)[1].cpu().double()
                w = w.reshape(*w.shape, *[1] * (mean.ndim - 2))
                total = total + torch.where(w > 0, w * mean, 0.0).sum(0)
            parts.append(total)
        return torch.cat(parts)

    @property
    def _whole(self) -> Program:
        """The program on data without gaps, so that it draws what is missing, too."""
        return self.program.on(tuple(map(filled, self.program.tensors)))

    def _share(self) -> Tensor:
        """Returns the normalised weights, `(S, N)`; ValueError where a datum has none above 0."""
        none = self.weights.log_w.amax(0) == -inf
        if none.any():
            raise ValueError(
                f"all {self.num_particles} draws of datum {int(none.nonzero()[0])} have weight 0, "
                "which leaves nothing to expect; take a wider guide, or more particles"
            )
        return self.weights.log_w.softmax(0)

    def _blocks(self) -> Iterator[tuple[range, Values]]:
        """Yields the blocks of data with their draws by site, `(S, ..., event)`."""
        for rows in self.program.blocks(self.program.block_size):
            found = self.annealed.get(rows.start)
            yield rows, drawn(self.program, rows, self.num_particles, self.seed, found)

    def _labelled(self, z: Values, rows: range) -> Values:
        """Returns values by site with the data second, `(S, n, plates, event)`.

        Args:
            z: By site, `(S, ..., event)`.
            rows: The n rows of a block.
        """
        sites = {s["name"]: s for s in self.program.sites.model}
        return {n: by_datum(self.program, sites[n], v, rows)[1] for n, v in z.items()}

    def _moments(self, fn: Function) -> tuple[Tensor, Tensor]:
        """Returns expectation and standard error of f, `(N, ...)` each.

        Args:
            fn: f.
        """
        share, parts = self._share(), []
        s = self.weights.num_draws
        for rows, z in self._blocks():
            with torch.no_grad():
                f = torch.as_tensor(fn(self._labelled(z, rows))).cpu().double()
            if f.shape[:2] != (self.num_particles, len(rows)):
                raise ValueError(
                    f"fn returned shape {tuple(f.shape)} for {self.num_particles} draws of "
                    f"{len(rows)} data; return (draws, data, ...)"
                )
            shape = -1, len(rows), *[1] * (f.ndim - 2)
            w = share[:, rows.start : rows.stop].reshape(shape)
            mean = torch.where(w > 0, w * f, 0.0).sum(0)
            if mean.isnan().any():
                row = int(mean.isnan().flatten(1).any(1).nonzero()[0])
                raise ValueError(f"fn returned NaN for datum {rows.start + row}; mend it there")
            square = torch.where(w > 0, (w * (f - mean)).square(), 0.0).sum(0)
            count = s[rows.start : rows.stop].double().reshape(shape[1:])
            parts.append((mean, (square * count / (count - 1)).sqrt()))
        value, error = map(torch.cat, zip(*parts, strict=True))
        return value, error

    def _resampled(self, num_draws: int) -> Iterator[tuple[range, Values]]:
        """Yields blocks with draws by site that were chosen by their weights, `(L, ..., event)`.

        Args:
            num_draws: L, of each datum.
        """
        share = self._share()
        sites = {s["name"]: s for s in self.program.sites.model}
        for rows, z in self._blocks():
            with reproducible(self.seed, STREAM + 4, rows.start):
                w = share[:, rows.start : rows.stop]
                chosen = torch.multinomial(w.T, num_draws, replacement=True).T  # (L, n)
            yield rows, {n: taken(self.program, sites[n], v, chosen) for n, v in z.items()}


def _joined(parts: Iterable[Values]) -> Values:
    """Returns blocks' values by site side by side, `(L, N, ...)`, on the CPU."""
    blocks = list(parts)
    return {name: torch.cat([b[name].cpu() for b in blocks], 1) for name in blocks[0]}


@one_at_a_time
def posterior(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: Tensor,
    num_particles: int = 1_000,
    num_temperatures: int = 100,
    seed: int | None = None,
    plate: str = "data",
    block_size: int = 64,
) -> Draws:
    r"""Returns draws of the latents given each datum with their weights, for any program.

    .. math::
        p(z | x_n) \approx \sum_s \bar w_{sn} \delta(z - z_{sn}), \quad
        w_{sn} = p(x_n, z_{sn}) / q(z_{sn} | x_n), \quad z_{sn} \sim q(z | x_n)

    The table of weights is the one that gives log p(x). Data whose weights are not to be trusted,
    by k-hat and ESS, are annealed: their particles end where HMC leads them along a path to the
    posterior. Discrete latents that are summed out are drawn from theirs given the others.

    Args:
        model: Any Pyro callable of `*data`.
        guide: Another; `None` draws from the prior.
        data: Tensors of equal length N, as the program takes them.
        num_particles: S, draws per datum.
        num_temperatures: T, by which 64 particles of what is not to be trusted are annealed; 0
            anneals nothing, and programs without a gradient are not annealed either.
        seed: Fixes the draws; `None` draws a seed.
        plate: Name of the plate over the data.
        block_size: Data per block.

    Raises:
        TypeError, ValueError: As `pyrovae.check` explains; also where a latent is common to all
            data.

    References:
        Monte Carlo theory, methods and examples (Owen, 2013), chapter 9,
        https://artowen.su.domains/mc/
        Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008
    """
    check_sizes(num_particles=num_particles, block_size=block_size)
    if num_temperatures:
        check_sizes(num_temperatures=num_temperatures)
    if plate is None:
        raise ValueError("plate is None, and draws here are each datum's; name the plate of data")
    program = inspect(model, guide, *data, plate=plate, block_size=block_size)
    if common := program.sites.common_latents:
        raise ValueError(
            f"latent {common[0]!r} is common to all data, and draws here are each datum's; make "
            "it a point in the guide (Delta)"
        )
    seed = draw_seed(seed)
    size, tables, found = num_particles, [], {}
    anneal = Annealer(program, num_temperatures, min(size, ANNEALED), seed)
    counts, steps = torch.full((len(program),), size), torch.zeros(len(program), dtype=torch.long)
    for rows in program.blocks(block_size):
        log_w = weighed(program, rows, size, seed)
        words = LogWeights(log_w).verdict()
        better = anneal(rows, [i for i, word in enumerate(words) if word != "not contradicted"])
        if better:
            log_w[:, better.members] = -torch.inf
            log_w[: len(better.log_w), better.members] = better.log_w
            where = torch.tensor(better.members) + rows.start
            counts[where], steps[where] = len(better.log_w), num_temperatures
            found[rows.start] = better
        tables.append(log_w)
    return Draws(program, LogWeights(torch.cat(tables, 1), counts), steps, seed, found)
