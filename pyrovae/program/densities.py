"""A program as functions of tensors: log-densities by particle and datum."""

__all__ = ["AUXILIARY", "SHARED_ROWS", "Program"]

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.program.capture import Captured
from pyrovae.program.enumeration import enumerating
from pyrovae.program.folding import fold, unfold
from pyrovae.program.handlers import (
    KeptMasks,
    Site,
    Subsample,
    Values,
    base,
    observes_data,
    sample_sites,
    sha256,
)
from pyrovae.program.sums import each, log_prob, sum_sites, summable
from pyrovae.program.supports import check_supports, support

SHARED_ROWS = 4096  # rows of a block that shares its draws
AUXILIARY = "_unconstrained"  # what Pyro's AutoNormal adds to a latent's name


@dataclass(frozen=True, repr=False)
class Program:
    """A (model, guide) pair and its data, as functions of tensors with per-datum results.

    S is the number of particles, n the number of rows of a block. `inspect` makes one.

    Attributes:
        model, guide: The Pyro callables; `guide=None` where only the prior proposes.
        data: Their arguments: tensors of equal length N, or `Rows` on disk.
        plate: Name of the data plate; `None` takes all data as one (joint weights).
        feed: How a block reaches the program: "slice" (of the data), "subsample" (the rows are
            told to a subsampling plate) or "whole" (a program of fixed size: all rows are one
            block).
        step: Rows of the first run; what a subsampling plate takes at a time.
        dim: Dimension of the data plate, counted from the right; `None` where it is a loop
            (`for n in pyro.plate("data", N)`), each datum with sites of its own.
        nesting: Number of plate dimensions; particles stand to their left.
        model_sites, guide_sites: The sample sites as they were in the first run.
        parameters: Every parameter found in the first run, by name.
        enumerated: Discrete latent sites that the guide leaves out: they are summed out.
        trouble: Why the program does not broadcast over particles; or "".
        folds: Whether it then takes particles as further rows of data, in parallel after all;
            otherwise they run one by one.
        masked: Latent sites that the model masks: what is masked is neither weighed nor proposed.
        shared: Whether draws from the prior serve all data alike, see `shares_latents`.
        first, total: Number of the data's first row, and of all rows, where the data are a `part`.
        graphs: Compiled functions of a block by name, see `compiled`; `None` runs all as written.
    """

    model: Callable[..., object]
    guide: Callable[..., object] | None
    data: tuple[Any, ...]
    plate: str | None
    feed: str
    step: int
    dim: int | None
    nesting: int
    model_sites: tuple[Site, ...]
    guide_sites: tuple[Site, ...]
    parameters: Values
    enumerated: tuple[str, ...] = ()
    trouble: str = ""
    folds: bool = False
    masked: frozenset[str] = frozenset()
    shared: bool = False
    first: int = 0
    total: int = 0
    graphs: dict[str, Captured] | None = None

    def __len__(self) -> int:
        return len(self.data[0])

    def blocks(self, size: int) -> list[range]:
        """Returns all rows in blocks of `size`, or of what the program's feed dictates."""
        size = max(size, SHARED_ROWS) if self.shared else size
        size = {"slice": size, "subsample": self.step, "whole": len(self)}[self.feed]
        return [range(i, min(i + size, len(self))) for i in range(0, len(self), size)]

    def take(self, rows: Sequence[int]) -> "Program":
        """Returns the program on some of its data, in any order; its feed has to be "slice"."""
        index = [row - self.first for row in rows]
        return replace(self, data=tuple(d[index] for d in self.data), first=0)

    def part(self, rows: range) -> "Program":
        """Returns the program with no more data than these rows need; they keep their numbers."""
        if self.feed != "slice":
            return self
        data = tuple(d[rows.start : rows.stop].clone() for d in self.data)
        return replace(self, data=data, first=rows.start, total=len(self))

    def compiled(self) -> "Program":
        """Returns the program with `captured` functions compiled, where it can be.

        That is, particles in parallel and a block's data given as arguments.
        """
        if (self.trouble and not self.folds) or self.dim is None or self.feed == "subsample":
            why = self.trouble or f"plate {self.plate!r} subsamples the data, or is a loop"
            warnings.warn(f"the program runs uncompiled, slower: {why}", stacklevel=3)
            return self
        return replace(self, graphs={})

    def block(self, rows: range) -> "Program":
        """Returns the program on these rows alone, filled up to a full block with the last one."""
        if self.feed != "slice":
            return self
        index = torch.arange(rows.start, rows.start + self.step * rows.step, rows.step)
        index = index.clamp(max=rows[-1]).to(self.data[0].device) - self.first
        return replace(self, data=tuple(d[index] for d in self.data), feed="whole")

    def captured(self, what: str, fn: Callable[..., object], *args: Any) -> Any:
        """Returns `fn(data, *args)` of a `block`, from one graph for all blocks where compiled.

        Args:
            what: Its name among the graphs.
            fn: A function of the data of a block, `(n, ...)` each, and `args`.
            args: Tensors, or dictionaries of them.
        """
        if self.graphs is None:
            return fn(self.data, *args)
        if what not in self.graphs:
            self.graphs[what] = Captured(fn, what)
        return self.graphs[what](self.data, *args)

    def propose(self, rows: range, num_particles: int) -> tuple[Values, Tensor]:
        """Returns z ~ q(z|x) by site, `(S, ..., event)`, and log q(z|x), `(S, n)`, in nats.

        Args:
            rows: The n rows of a block, by number.
            num_particles: S.
        """
        return self._drawn(rows, num_particles, lambda p, *at: p._propose(*at))

    def log_joint(self, z: Values, rows: range, num_particles: int | None) -> Tensor:
        """Returns log p(x, z), `(S, n)`, in nats, for latents z by site, `(S, ..., event)`.

        Args:
            z: Latents by site, `(S, ..., event)`.
            rows: The n rows of a block, by number.
            num_particles: S; `None` without that dimension, of one particle.
        """
        return self._at(z, rows, num_particles, lambda p, *at: p.log_density(p.model, *at))

    def log_guide(self, z: Values, rows: range, num_particles: int | None) -> Tensor:
        """Returns log q(z|x), `(S, n)`, in nats, for latents z by site, `(S, ..., event)`.

        Args:
            z: Latents by site, `(S, ..., event)`.
            rows: The n rows of a block, by number.
            num_particles: S; `None` without that dimension, of one particle.
        """
        return self._at(z, rows, num_particles, lambda p, *at: p.log_density(p.guide, *at))

    def propose_prior(self, rows: range, num_particles: int) -> Values:
        """Returns z ~ p(z) by site, `(S, ..., event)`, of the latents that are not summed out.

        Args:
            rows: The n rows of a block, by number.
            num_particles: S.
        """
        return self._drawn(rows, num_particles, lambda p, *at: (p._prior(*at), torch.ones(0)))[0]

    def log_prior(self, z: Values, rows: range, num_particles: int | None) -> Tensor:
        """Returns log p(z), `(S, n)`, in nats, for latents z by site, `(S, ..., event)`.

        Args:
            z: Latents by site, `(S, ..., event)`.
            rows: The n rows of a block, by number.
            num_particles: S; `None` without that dimension, of one particle.
        """
        return self._at(z, rows, num_particles, lambda p, *at: p._log_prior(*at))

    def log_likelihood(self, rows: range, num_particles: int) -> Tensor:
        """Returns log p(x|z) for z ~ p(z), drawn by the model itself, `(S, n)`, in nats.

        Args:
            rows: The n rows of a block, by number.
            num_particles: S.
        """
        return self._drawn(rows, num_particles, lambda p, *at: ({}, p._log_likelihood(*at)))[1]

    def folded(self, rows: range, num_particles: int) -> "Program":
        """Returns the program on S copies of these rows, `(S n, ...)`, one after another.

        Args:
            rows: The n rows of a block, by number.
            num_particles: S, the number of copies.
        """
        start, stop = rows.start - self.first, rows.stop - self.first
        part = slice(start, stop, rows.step) if self.feed == "slice" else slice(None)
        data = tuple(d[part].repeat(num_particles, *[1] * (d.ndim - 1)) for d in self.data)
        size = num_particles * len(rows)
        return replace(self, data=data, feed="whole", step=size, first=0, trouble="", folds=False)

    def axis(self, site: Site) -> int:
        """Returns the axis of the data in a site's value, counted from the right.

        Raises:
            ValueError: If the data plate is a loop, in which values have no such axis.
        """
        if self.dim is None:
            raise ValueError(
                f"plate {self.plate!r} is a loop; write `with pyro.plate({self.plate!r}, len(x)):`"
                " instead of `for`, or use importance_sampling or prior_sampling"
            )
        return self.dim - site["fn"].event_dim

    @cached_property
    def axes(self) -> dict[str, int]:
        """The axis of the data in each site's value, from the right."""
        return {s["name"]: self.axis(s) for s in (*self.model_sites, *self.guide_sites)}

    @cached_property
    def latents(self) -> frozenset[str]:
        """Names of the model's latent sites."""
        return frozenset(s["name"] for s in self.model_sites if not s["is_observed"])

    def common(self, site: Site) -> bool:
        """Returns whether a site is common to all data: it stands outside the data plate."""
        return self.plate is not None and self._frame(site) is None

    @cached_property
    def common_latents(self) -> tuple[str, ...]:
        """Names of the latents that are common to all data, and drawn."""
        return tuple(
            s["name"] for s in self.model_sites if s["name"] in self.latents and self.common(s)
        )

    @property
    def summed(self) -> Callable[..., object]:
        """The model with its `enumerated` sites in parallel, to be summed out of its density."""
        return enumerating(self.model, self.enumerated, -2 - self.nesting)

    @property
    def summed_guide(self) -> Callable[..., object]:
        """The guide, likewise, with those of them that it draws."""
        assert self.guide is not None
        return enumerating(self.guide, self.enumerated, -2 - self.nesting)

    def summing(self) -> "Program":
        """Returns the program in which discrete sites that the guide draws are summed out too."""
        more = (s["name"] for s in self.guide_sites if s["name"] in self.latents and summable(s))
        enumerated = tuple(dict.fromkeys((*self.enumerated, *more)))
        return self if enumerated == self.enumerated else replace(self, enumerated=enumerated)

    def check_observed(self, rows: range) -> None:
        """Raises DataError where an observed value of these rows is outside its site's support.

        Raises ValueError where the guide's draws cannot reach all of a latent's support.
        """
        check_supports(self, rows)

    @property
    def event_size(self) -> float:
        """Observed dimensions of a datum, D."""
        return sum(s["value"].numel() for s in self.model_sites if observes_data(s)) / self.step

    @property
    def latent_size(self) -> int:
        """Numbers that guide, or prior without one, draw for a datum; for all data if joint."""
        sites = self.guide_sites if self.guide else self.model_sites
        drawn = [s for s in sites if not s["is_observed"] and not isinstance(base(s["fn"]), Delta)]
        sizes = [(s["value"].numel(), self.plate and not self.common(s)) for s in drawn]
        return (
            sum(k for k, own in sizes if not own) + sum(k for k, own in sizes if own) // self.step
        )

    @property
    def sha256(self) -> str:
        """SHA-256 of all parameters, by name."""
        return sha256(self.parameters)

    @property
    def is_discrete(self) -> bool:
        """Whether every observed site is discrete: its density is then a probability."""
        regions = [support(s) for s in self.model_sites if observes_data(s)]
        return bool(regions) and all(r is not None and r.is_discrete for r in regions)

    def spread(self, table: Tensor, site: Site, value: Tensor) -> Tensor:
        """Returns a table `(S, n)` in a shape that broadcasts with a site's values.

        Args:
            table: `(S, n)`.
            site: A sample site, which knows the axis of the data.
            value: Of that site, `(S, ..., event)`.
        """
        shape = [len(table)] + [1] * (value.ndim - 1)
        if self.plate:
            axis = self.axis(site)
            shape[axis] = value.shape[axis]
            table = torch.nn.functional.pad(table, (0, shape[axis] - table.shape[1]))  # last block
        return table.reshape(shape)

    def drawn(
        self, sites: Iterable[Site], rows: range, num_particles: int | None = None
    ) -> list[Site]:
        """Returns the guide's sites that are draws, masked as the model masks its latents there.

        What the guide observes is no part of q(z|x).

        Args:
            sites: Of a run of the guide.
            rows: The n rows of a block, by number.
            num_particles: S; `None` without that dimension, of one particle.
        """
        given = {s["name"] for s in self.guide_sites if s["is_observed"]}
        drawn, masks = [s for s in sites if s["name"] not in given], {}
        if self.masked:
            at = poutine.condition(self.model, data={s["name"]: s["value"] for s in drawn})
            masks = {s["name"]: s["mask"] for s in self.run(at, rows, num_particles)}
        masks = {name: masks[name] for name in self.masked}
        return [s | {"mask": masks.get(s["name"].removesuffix(AUXILIARY))} for s in drawn]

    def _propose(self, rows: range, num_particles: int | None = None) -> tuple[Values, Tensor]:
        assert self.guide is not None
        sites = self.drawn(self.run(self.guide, rows, num_particles), rows, num_particles)
        return {s["name"]: s["value"] for s in sites}, self.log_sum(sites, rows, num_particles)

    def _drawn(
        self, rows: range, size: int, draw: Callable[..., tuple[Values, Tensor]]
    ) -> tuple[Values, Tensor]:
        """Returns `draw(program, rows, S)`, latents by site and a table `(S, n)`, as it can be."""
        if not self.trouble:
            return draw(self, rows, size)
        if self.folds:
            z, table = draw(self.folded(rows, size), range(size * len(rows)), None)
            return self.unfolded(z, size), table.unflatten(0, (size, -1))
        draws, tables = zip(*(draw(self, rows, None) for _ in range(size)), strict=True)
        return {k: torch.stack([z[k] for z in draws]) for k in draws[0]}, torch.stack(tables)

    def _at(
        self, z: Values, rows: range, size: int | None, density: Callable[..., Tensor]
    ) -> Tensor:
        """Returns `density(program, z, rows, S)` of all particles, `(S, n)`, likewise."""
        if size is None or not self.trouble:
            return density(self, z, rows, size)
        if self.folds:
            many = self.folded(rows, size)
            log_p = density(many, fold(z, self.axes), range(size * len(rows)), None)
            return log_p.unflatten(0, (size, -1))
        return torch.stack([density(self, z_s, rows, None) for z_s in each(z, size)])

    def unfolded(self, z: Values, num_particles: int) -> Values:
        """Returns latents on S copies of the rows, `(..., S n, ...)`, by particle.

        Args:
            z: Latents by site, `(..., S n, ...)`.
            num_particles: S.
        """
        return {name: unfold(v, self.axes[name], num_particles) for name, v in z.items()}

    def number(self, site: Site) -> int:
        """Returns which row of a block a site belongs to, where the data plate is a loop."""
        frame = self._frame(site)
        assert frame is not None
        return frame.counter - 1  # Pyro counts from 1

    def _frame(self, site: Site) -> CondIndepStackFrame | None:
        """Returns the data plate around a site, `None` where it stands outside."""
        return next((f for f in site["cond_indep_stack"] if f.name == self.plate), None)

    def _prior(self, rows: range, num_particles: int | None = None) -> Values:
        sites = self.run(self.model, rows, num_particles)
        hidden = (s for s in sites if not s["is_observed"])
        return {s["name"]: s["value"] for s in hidden if s["name"] not in self.enumerated}

    def _log_prior(self, z: Values, rows: range, num_particles: int | None) -> Tensor:
        sites = self.run(poutine.condition(self.summed, data=z), rows, num_particles)
        return self.log_sum([s for s in sites if s["name"] in self.latents], rows, num_particles)

    def log_density(
        self,
        fn: Callable[..., object] | None,
        z: Values,
        rows: range,
        num_particles: int | None = None,
    ) -> Tensor:
        """Returns `fn`'s log density (model: x, z; guide: z) at z: `(S, n)`; `(n,)` without S.

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
        sites = sites if of_model else self.drawn(sites, rows, num_particles)
        return self.log_sum(sites, rows, num_particles)

    def _log_likelihood(self, rows: range, num_particles: int | None = None) -> Tensor:
        sites = self.run(self.model, rows, num_particles)
        return self.log_sum([s for s in sites if s["is_observed"]], rows, num_particles)

    def run(
        self,
        fn: Callable[..., object],
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
        data = self.data
        with ExitStack() as handlers:
            trace = handlers.enter_context(poutine.trace())
            handlers.enter_context(KeptMasks(self.latents))
            if handler is not None:
                handlers.enter_context(handler)
            if self.feed == "slice":
                start, stop = rows.start - self.first, rows.stop - self.first
                data = tuple(d[start : stop : rows.step] for d in data)
            elif self.feed == "subsample":
                index = torch.arange(rows.start, rows.start + self.step, device=data[0].device)
                handlers.enter_context(Subsample(self.plate, index.clamp(max=len(self) - 1)))
            if num_particles is not None:
                plate = pyro.plate("_particles", num_particles, dim=-1 - self.nesting)
                handlers.enter_context(plate)
            fn(*data)
        return sample_sites(trace.trace)

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
        own = [self._unmasked(s) for s in sites if not self.common(s)]
        lead = () if num_particles is None else (num_particles,)
        if self.plate and self.dim is None:
            alike: list[list[Site]] = [[] for _ in rows]
            for site in own:
                alike[self.number(site)].append(site)
            columns = [sum_sites(group, lead, None, None, term) for group in alike]
            return torch.stack([c.to(self.data[0].device) for c in columns], -1)
        num_data, dim = (len(rows), self.dim) if self.plate else (None, None)
        return sum_sites(own, lead, num_data, dim, term).to(self.data[0].device)

    def _unmasked(self, site: Site) -> Site:
        """Returns a latent's site without its mask, unless what is masked is left out of q too."""
        bare = site["name"] in self.latents and site["name"] not in self.masked
        return site | {"mask": None} if bare else site
