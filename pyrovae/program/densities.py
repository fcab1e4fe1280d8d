"""A program as functions of tensors: log-densities by particle and datum."""

__all__ = ["AUXILIARY", "FAILURES", "Program"]

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Self, TypeVar, cast

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.data.rows import Rows
from pyrovae.program.batching import Batching, Data
from pyrovae.program.binding import Fn
from pyrovae.program.capture import Captured
from pyrovae.program.enumeration import enumerating
from pyrovae.program.handlers import KeptMasks
from pyrovae.program.parameters import sha256
from pyrovae.program.particles import Computed, OneByOne, Particles, SharedDraws, Vectorized
from pyrovae.program.sites import (
    Site,
    Sites,
    Values,
    observes_data,
    remasked,
    sample_sites,
    summable,
    support,
)
from pyrovae.program.sums import log_prob, sum_sites
from pyrovae.program.supports import check_cover, check_support, needs_no_cover

AUXILIARY = "_unconstrained"  # what Pyro's AutoNormal adds to a latent's name
# what a program raises where shapes do not fit; anything else is an error of its own
FAILURES = RuntimeError, ValueError, TypeError, IndexError
R = TypeVar("R")
# of a program at latents z by site, the rows of a block and S
Density = Callable[["Program", Values, range, int | None], Tensor]


@dataclass(frozen=True, repr=False)
class Program:
    r"""A (model, guide) pair and its data, as functions of tensors with per-datum results.

    S is the number of particles, n the number of rows of a block. `inspect` makes one. All
    densities are in nats, masked, and without the factors of subsampling and `poutine.scale`:

    .. math::
        \log w_{sn} = \log p(x_n, z_{sn}) - \log q(z_{sn} | x_n), \quad z_{sn} \sim q(z | x_n)

    is `log_joint` less what `propose` returns beside z.

    Attributes:
        model, guide: The Pyro callables; `guide=None` where only the prior proposes.
        batching: The data, `(N, ...)` each, and how a block of rows is given to the program.
        particles: How it runs for S particles.
        sites: The sample sites as they were in the first run, and the data plate.
        parameters: Every parameter found in the first run, by name.
        enumerated: Discrete latent sites that the guide leaves out: they are summed out.
        masked: Latent sites that the model masks: what is masked is neither weighed nor proposed.
        graphs: Compiled functions of a block by name, see `compiled`; `None` runs all as written.
    """

    model: Fn
    guide: Fn | None
    batching: Batching
    particles: Particles
    sites: Sites
    parameters: Values
    enumerated: tuple[str, ...] = ()
    masked: frozenset[str] = frozenset()
    graphs: dict[str, Captured[object]] | None = None

    def __len__(self) -> int:
        return len(self.batching)

    @property
    def data(self) -> Data:
        """The data, tensors `(N, ...)` or `Rows` on disk."""
        return self.batching.data

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The data in memory; `Rows` on disk are read."""
        return tuple(d[:] if isinstance(d, Rows) else d for d in self.data)

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        return self.data[0].device

    @property
    def plate(self) -> str | None:
        """Name of the data plate; `None` takes all data as one (joint weights)."""
        return self.sites.plate

    @property
    def block_size(self) -> int:
        """Rows of a full block."""
        return self.batching.block_size

    @property
    def selects_rows(self) -> bool:
        """Whether any rows can be taken alone, see `select`."""
        return self.batching.selects

    @property
    def is_compiled(self) -> bool:
        """Whether functions of a block run as compiled graphs."""
        return self.graphs is not None

    @property
    def event_size(self) -> float:
        """Observed dimensions of a datum, D."""
        observed = (s["value"].numel() for s in self.sites.model if observes_data(s))
        return sum(observed) / self.block_size

    @property
    def latent_size(self) -> int:
        """Numbers that guide, or prior without one, draw for a datum; for all data if joint."""
        own, common = self.sites.numbers_drawn(of_guide=self.guide is not None)
        return common + own // self.block_size

    @property
    def is_discrete(self) -> bool:
        """Whether every observed site is discrete: its density is then a probability."""
        regions = [support(s["fn"]) for s in self.sites.model if observes_data(s)]
        return bool(regions) and all(r is not None and r.is_discrete for r in regions)

    @property
    def sha256(self) -> str:
        """SHA-256 of all parameters, by name."""
        return sha256(self.parameters)

    def blocks(self, size: int) -> list[range]:
        """Returns all rows in blocks of `size`, or of what program and particles dictate."""
        return self.batching.blocks(self.particles.rows_of_block(size))

    def on(self, data: tuple[Tensor, ...]) -> "Program":
        """Returns the program on other data of the same shapes."""
        return replace(self, batching=self.batching.on(data))

    def select(self, rows: Sequence[int]) -> "Program":
        """Returns the program on some of its data, in any order; where it `selects_rows`.

        Args:
            rows: Their numbers; in the new program they count from 0.
        """
        return replace(self, batching=self.batching.select(rows))

    def holding(self, rows: range) -> "Program":
        """Returns the program with no more data than these rows need; they keep their numbers."""
        return replace(self, batching=self.batching.holding(rows))

    def padded(self, rows: range) -> "Program":
        """Returns the program on these rows alone, filled up to a full block with the last one."""
        return replace(self, batching=self.batching.padded(rows))

    def parted(self, size: int) -> "Program":
        """Returns the program, of which at most so many rows run together, and are a graph's."""
        return replace(self, batching=self.batching.parted(size))

    def folded(self, rows: range, num_particles: int) -> Self:
        """Returns the program on S copies of these rows, `(S n, ...)`, one after another.

        Args:
            rows: The n rows of a block, by number.
            num_particles: S, the number of copies.
        """
        copies = self.batching.repeated(rows, num_particles)
        return replace(self, batching=copies, particles=Vectorized())

    def sharing(self) -> "Program":
        """Returns the program in which one row's draws of the prior serve all; see `sharing`."""
        return replace(self, particles=SharedDraws())

    def unshared(self) -> "Program":
        """Returns the program in which each row has draws of its own."""
        return replace(self, particles=Vectorized()) if self.particles.shared else self

    def compiled(self) -> "Program":
        """Returns the program with `captured` functions compiled, where it can be.

        That is, particles in parallel and a block's data given as arguments; else it warns, and
        returns the program as it is.
        """
        if not self.particles.parallel or self.sites.dim is None or not self.batching.captures:
            loop = f"plate {self.plate!r} subsamples the data, or is a loop"
            why = self.particles.reason or loop
            warnings.warn(f"the program runs uncompiled, slower: {why}", stacklevel=3)
            return self
        return replace(self, graphs={})

    def uncompiled(self) -> "Program":
        """Returns the program that runs as written."""
        return replace(self, graphs=None)

    def without_data(self) -> "Program":
        """Returns the program to be sent to another process: no data, nothing compiled yet."""
        graphs = None if self.graphs is None else {}
        return replace(self, batching=replace(self.batching, data=()), graphs=graphs)

    def captured(self, what: str, fn: Callable[..., R], *args: object) -> R:
        """Returns `fn(data, *args)` of a `padded` block, from one graph for all where compiled.

        Args:
            what: Its name among the graphs.
            fn: A function of the data of a block, `(n, ...)` each, and `args`.
            args: Tensors, or dictionaries of them.
        """
        if self.graphs is None:
            return fn(self.data, *args)
        if what not in self.graphs:
            self.graphs[what] = Captured(fn, what)
        return cast(R, self.graphs[what](self.data, *args))

    def propose(self, rows: range, num_particles: int) -> tuple[Values, Tensor]:
        r"""Returns z ~ q(z|x) by site, `(S, ..., event)`, and log q(z|x), `(S, n)`, in nats.

        .. math::
            \log q(z_{sn} | x_n) = \sum_i \log q_i(z_{sn}^{(i)} | x_n, \text{earlier sites})

        over the guide's sites i in the data plate; of auxiliary draws u that a Delta site maps to
        z, it is log q(u|x) and the site's own density, log |du/dz|.

        Args:
            rows: The n rows of a block, by number.
            num_particles: S.
        """

        def draw(program: Program, rows: range, size: int | None, _: Computed) -> Computed:
            assert program.guide is not None
            sites = program.run(program.guide, rows, size)
            sites = program.proposed(sites, rows, size)
            z = {s["name"]: s["value"] for s in sites}
            return Computed(z, (program.log_sum(sites, rows, size),))

        z, (log_q,) = self.particles.run(draw, self, rows, num_particles)
        return z, log_q

    def propose_prior(self, rows: range, num_particles: int) -> Values:
        """Returns z ~ p(z) by site, `(S, ..., event)`, of the latents that are not summed out.

        Each row has draws of its own, in the order in which the model's sites run.

        Args:
            rows: The n rows of a block, by number.
            num_particles: S.
        """

        def draw(program: Program, rows: range, size: int | None, _: Computed) -> Computed:
            hidden = (s for s in program.run(program.model, rows, size) if not s["is_observed"])
            kept = (s for s in hidden if s["name"] not in program.enumerated)
            return Computed({s["name"]: s["value"] for s in kept}, ())

        return self.particles.run(draw, self, rows, num_particles).z

    def propose_one(self, rows: range) -> Values:
        """Returns one particle's latents by site, `(..., event)`, and what the guide draws beside.

        They are the guide's, or the prior's without one.
        """
        alone = replace(self, particles=OneByOne())
        z = alone.propose_prior(rows, 1) if self.guide is None else alone.propose(rows, 1)[0]
        return {name: value[0] for name, value in z.items()}

    def log_likelihood(self, rows: range, num_particles: int) -> Tensor:
        r"""Returns log p(x|z) for z ~ p(z), drawn by the model itself, `(S, n)`, in nats.

        .. math::
            \log p(x_n | z_{sn}) = \sum_i \log p_i(x_n^{(i)} | z_{sn}, \text{earlier sites})

        over the observed sites i: the log-weights of naive sampling, for which q is the prior.
        Discrete latents are drawn, too.

        Args:
            rows: The n rows of a block, by number.
            num_particles: S.
        """

        def score(program: Program, rows: range, size: int | None, _: Computed) -> Computed:
            observed = [s for s in program.run(program.model, rows, size) if s["is_observed"]]
            return Computed({}, (program.log_sum(observed, rows, size),))

        (log_p,) = self.particles.run(score, self, rows, num_particles).tables
        return log_p

    def log_joint(self, z: Values, rows: range, num_particles: int | None) -> Tensor:
        r"""Returns log p(x, z), `(S, n)`, in nats, for latents z by site, `(S, ..., event)`.

        .. math::
            \log p(x_n, z_{sn}) = \log p(z_{sn}) + \log p(x_n | z_{sn})

        With discrete latents k summed out, :math:`\log \sum_k p(x, z, k)`.

        Args:
            z: Latents by site, `(S, ..., event)`.
            rows: The n rows of a block, by number.
            num_particles: S; `None` without that dimension, of one particle.
        """
        return self._at(z, rows, num_particles, lambda p, *at: p.log_density(p.model, *at))

    def log_guide(self, z: Values, rows: range, num_particles: int | None) -> Tensor:
        """Returns log q(z|x), `(S, n)`, in nats, for latents z by site, `(S, ..., event)`.

        Args:
            z: Latents by site, `(S, ..., event)`, with the guide's auxiliary draws.
            rows: The n rows of a block, by number.
            num_particles: S; `None` without that dimension, of one particle.

        Raises:
            KeyError, NotImplementedError: If the guide's density is known at its own draws alone,
                as of a flow without an inverse.
        """
        return self._at(z, rows, num_particles, lambda p, *at: p.log_density(p.guide, *at))

    def log_prior(self, z: Values, rows: range, num_particles: int | None) -> Tensor:
        r"""Returns log p(z), `(S, n)`, in nats, for latents z by site, `(S, ..., event)`.

        Of a model whose prior has covariates, log p(z|covariates). Sites that are summed out leave
        :math:`\log \sum_k p(z, k)`.

        Args:
            z: Latents by site, `(S, ..., event)`.
            rows: The n rows of a block, by number.
            num_particles: S; `None` without that dimension, of one particle.
        """

        def log_prior(program: Program, z: Values, rows: range, size: int | None) -> Tensor:
            sites = program.run(poutine.condition(program.summed, data=z), rows, size)
            hidden = [s for s in sites if s["name"] in program.sites.latents]
            return program.log_sum(hidden, rows, size)

        return self._at(z, rows, num_particles, log_prior)

    def log_density(
        self, fn: Fn | None, z: Values, rows: range, num_particles: int | None = None
    ) -> Tensor:
        """Returns `fn`'s log density at z in a single run: `(S, n)`; `(n,)` without S.

        Of the model, it is log p(x, z); of the guide, log q(z|x).

        Args:
            fn: The model or the guide.
            z: Latents by site, `(S, ..., event)`.
            rows: The n rows of a block, by number.
            num_particles: S; `None` without that dimension, of one particle.
        """
        assert fn is not None
        of_model = fn is self.model
        fn = poutine.condition(self.summed if of_model else fn, data=z)
        sites = self.run(fn, rows, num_particles)
        sites = sites if of_model else self.proposed(sites, rows, num_particles)
        return self.log_sum(sites, rows, num_particles)

    @property
    def summed(self) -> Fn:
        """The model with its `enumerated` sites in parallel, to be summed out of its density."""
        return enumerating(self.model, self.enumerated, -2 - self.sites.num_plates)

    @property
    def summed_guide(self) -> Fn:
        """The guide, likewise, with those of them that it draws."""
        assert self.guide is not None
        return enumerating(self.guide, self.enumerated, -2 - self.sites.num_plates)

    def summing(self) -> "Program":
        """Returns the program in which discrete sites that the guide draws are summed out too."""
        latents = (s for s in self.sites.guide if s["name"] in self.sites.latents)
        more = (s["name"] for s in latents if summable(s))
        enumerated = tuple(dict.fromkeys((*self.enumerated, *more)))
        return self if enumerated == self.enumerated else replace(self, enumerated=enumerated)

    def check_observed(self, rows: range) -> None:
        """Raises DataError where an observed value of these rows is outside its site's support.

        Args:
            rows: The n rows of a block, by number; the model is run on them, the guide as well
                unless all supports are the reals.

        Raises:
            ValueError: If the guide's draws cannot reach all of a latent's support.
        """
        dim = None if self.plate is None else self.sites.dim
        for site in self.run(self.model, rows):
            check_support(site, dim, rows.start)
        latents = self.sites.latents
        if self.guide is None or needs_no_cover(s for s in self.sites.all if s["name"] in latents):
            return
        ours = {s["name"]: s for s in self.run(self.guide, rows) if not s["is_observed"]}
        z = {name: s["value"] for name, s in ours.items()}
        for site in self.run(poutine.condition(self.model, data=z), rows):
            if site["name"] in ours and site["name"] in latents:
                check_cover(ours[site["name"]], site)

    def align(self, table: Tensor, site: Site, value: Tensor) -> Tensor:
        """Returns a table `(S, n)` in a shape that broadcasts with a site's values.

        Args:
            table: `(S, n)`.
            site: A sample site, which knows the axis of the data.
            value: Of that site, `(S, ..., event)`.
        """
        shape = [len(table)] + [1] * (value.ndim - 1)
        if self.plate:
            axis = self.sites.axis(site)
            shape[axis] = value.shape[axis]
            table = torch.nn.functional.pad(table, (0, shape[axis] - table.shape[1]))  # last block
        return table.reshape(shape)

    def run(
        self,
        fn: Fn,
        rows: range,
        num_particles: int | None = None,
        handler: Messenger | None = None,
    ) -> list[Site]:
        """Returns one run's sample sites on these rows, in a plate of S particles if given.

        Args:
            fn: The model, the guide, or either under a handler.
            rows: The n rows of a block, by number.
            num_particles: S; `None` without that dimension, of one particle.
            handler: Entered before the program runs.
        """
        with ExitStack() as handlers:
            trace = handlers.enter_context(poutine.trace())
            handlers.enter_context(KeptMasks(self.sites.latents))
            if handler is not None:
                handlers.enter_context(handler)
            data = self.batching.arguments(rows)
            handlers.enter_context(self.batching.handler(rows))
            if num_particles is not None:
                plate = pyro.plate("_particles", num_particles, dim=-1 - self.sites.num_plates)
                handlers.enter_context(plate)
            fn(*data)
        return sample_sites(trace.trace)

    def proposed(
        self, sites: Iterable[Site], rows: range, num_particles: int | None = None
    ) -> list[Site]:
        """Returns the guide's sites that are draws, masked as the model masks its latents there.

        What the guide observes is no part of q(z|x).

        Args:
            sites: Of a run of the guide.
            rows: The n rows of a block, by number.
            num_particles: S; `None` without that dimension, of one particle.
        """
        given = {s["name"] for s in self.sites.guide if s["is_observed"]}
        drawn, masks = [s for s in sites if s["name"] not in given], {}
        if self.masked:
            at = poutine.condition(self.model, data={s["name"]: s["value"] for s in drawn})
            masks = {s["name"]: s["mask"] for s in self.run(at, rows, num_particles)}
        masks = {name: masks[name] for name in self.masked}
        return [remasked(s, masks.get(s["name"].removesuffix(AUXILIARY))) for s in drawn]

    def log_sum(
        self,
        sites: Iterable[Site],
        rows: range,
        num_particles: int | None,
        term: Callable[[Site], Tensor] = log_prob,
    ) -> Tensor:
        """Sums the sites' log-densities, masked and unscaled, to `(S, n)`, or `(n,)` without S.

        What is common to all data is left out: given it, they are independent. Enumerated sites
        are summed out, each a distribution also where it is masked; a change of variables counts
        with its Jacobian. Another `term` of a site than its log-density can be asked for.

        Args:
            sites: Of one run.
            rows: The n rows of a block, by number.
            num_particles: S; `None` without that dimension, of one particle.
            term: Of a site, in the shape of its log-density, nats.
        """
        own = [self.unmasked(s) for s in sites if not self.sites.common(s)]
        lead = () if num_particles is None else (num_particles,)
        if self.plate and self.sites.dim is None:
            alike: list[list[Site]] = [[] for _ in rows]
            for site in own:
                alike[self.sites.number(site)].append(site)
            columns = [sum_sites(group, lead, None, None, term) for group in alike]
            return torch.stack([c.to(self.device) for c in columns], -1)
        num_data, dim = (len(rows), self.sites.dim) if self.plate else (None, None)
        return sum_sites(own, lead, num_data, dim, term).to(self.device)

    def unmasked(self, site: Site) -> Site:
        """Returns a latent's site without its mask, unless what is masked is left out of q too."""
        bare = site["name"] in self.sites.latents and site["name"] not in self.masked
        return remasked(site, None) if bare else site

    def _at(self, z: Values, rows: range, num_particles: int | None, density: Density) -> Tensor:
        """Returns `density(program, z, rows, S)` of all particles, `(S, n)`; `(n,)` of one.

        Args:
            z: Latents by site, `(S, ..., event)`.
            rows: The n rows of a block, by number.
            num_particles: S; `None` without that dimension, of one particle.
            density: What is computed, in the program's way of running particles.
        """
        if num_particles is None:
            return density(self, z, rows, None)
        work = partial(_density_of, density)
        (log_p,) = self.particles.run(work, self, rows, num_particles, Computed(z, ())).tables
        return log_p


def _density_of(
    density: Density, program: Program, rows: range, size: int | None, inputs: Computed
) -> Computed:
    """Returns a density at the latents of `inputs`, as a table alone."""
    return Computed({}, (density(program, inputs.z, rows, size),))
