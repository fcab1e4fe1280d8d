"""A program as functions of tensors: log-densities by particle and datum."""

__all__ = ["SHARED_ROWS", "Program"]

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.program.capture import Captured
from pyrovae.program.enumeration import eliminate, enumerating
from pyrovae.program.handlers import (
    Site,
    Subsample,
    Values,
    base,
    check_support,
    observes_data,
    sample_sites,
    support,
)

SHARED_ROWS = 4096  # rows of a block that shares its draws


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
        dim: Dimension of the data plate, counted from the right.
        nesting: Number of plate dimensions; particles stand to their left.
        model_sites, guide_sites: The sample sites as they were in the first run.
        parameters: Every parameter found in the first run, by name.
        enumerated: Discrete latent sites that the guide leaves out: they are summed out.
        trouble: Why the program does not broadcast over particles and runs one by one; or "".
        shared: Whether draws from the prior serve all data alike, see `shares_latents`.
        first, total: Number of the data's first row, and of all rows, where the data are a `part`.
        graphs: Compiled functions of a block by name, see `compiled`; `None` runs all as written.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any] | None
    data: tuple[Any, ...]
    plate: str | None
    feed: str
    step: int
    dim: int
    nesting: int
    model_sites: tuple[Site, ...]
    guide_sites: tuple[Site, ...]
    parameters: Values
    enumerated: tuple[str, ...] = ()
    trouble: str = ""
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
        if self.trouble or self.feed == "subsample":
            why = self.trouble or f"plate {self.plate!r} subsamples the data"
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

    def captured(self, what: str, fn: Callable[..., Any], *args: Any) -> Any:
        """Returns `fn(data, *args)` of a `block`, from one graph for all blocks where compiled."""
        if self.graphs is None:
            return fn(self.data, *args)
        if what not in self.graphs:
            self.graphs[what] = Captured(fn, what)
        return self.graphs[what](self.data, *args)

    def propose(self, rows: range, num_particles: int) -> tuple[Values, Tensor]:
        """Returns z ~ q(z|x) by site, `(S, ..., event)`, and log q(z|x), `(S, n)`, in nats."""
        if not self.trouble:
            return self._propose(rows, num_particles)
        draws, log_q = zip(*(self._propose(rows) for _ in range(num_particles)), strict=True)
        return {k: torch.stack([z[k] for z in draws]) for k in draws[0]}, torch.stack(log_q)

    def log_joint(self, z: Values, rows: range, num_particles: int | None) -> Tensor:
        """Returns log p(x, z), `(S, n)`, in nats, for latents z by site, `(S, ..., event)`."""
        return self._at(z, num_particles, lambda v, s: self.log_density(self.model, v, rows, s))

    def log_guide(self, z: Values, rows: range, num_particles: int | None) -> Tensor:
        """Returns log q(z|x), `(S, n)`, in nats, for latents z by site, `(S, ..., event)`."""
        guide = self.guide
        assert guide is not None
        return self._at(z, num_particles, lambda v, s: self.log_density(guide, v, rows, s))

    def propose_prior(self, rows: range, num_particles: int) -> Values:
        """Returns z ~ p(z) by site, `(S, ..., event)`, of the latents that are not summed out."""
        if not self.trouble:
            return self._prior(rows, num_particles)
        draws = [self._prior(rows) for _ in range(num_particles)]
        return {name: torch.stack([z[name] for z in draws]) for name in draws[0]}

    def log_prior(self, z: Values, rows: range, num_particles: int | None) -> Tensor:
        """Returns log p(z), `(S, n)`, in nats, for latents z by site, `(S, ..., event)`."""
        return self._at(z, num_particles, lambda v, s: self._log_prior(v, rows, s))

    def log_likelihood(self, rows: range, num_particles: int) -> Tensor:
        """Returns log p(x|z) for z ~ p(z), drawn by the model itself, `(S, n)`, in nats."""
        if not self.trouble:
            return self._log_likelihood(rows, num_particles)
        return torch.stack([self._log_likelihood(rows) for _ in range(num_particles)])

    @property
    def summed(self) -> Callable[..., Any]:
        """The model with its `enumerated` sites in parallel, to be summed out of its density."""
        return enumerating(self.model, self.enumerated, -2 - self.nesting)

    def check_observed(self, rows: range) -> None:
        """Raises DataError where an observed value of these rows is outside its site's support."""
        dim = None if self.plate is None else self.dim
        for site in self.run(self.model, rows):
            check_support(site, dim, rows.start)

    @property
    def event_size(self) -> float:
        """Observed dimensions of a datum, D."""
        return sum(s["value"].numel() for s in self.model_sites if observes_data(s)) / self.step

    @property
    def latent_size(self) -> int:
        """Numbers that guide, or prior without one, draw for a datum; for all data if joint."""
        sites = self.guide_sites if self.guide else self.model_sites
        drawn = (s for s in sites if not s["is_observed"] and not isinstance(base(s["fn"]), Delta))
        return sum(s["value"].numel() for s in drawn) // (self.step if self.plate else 1)

    @property
    def sha256(self) -> str:
        """SHA-256 of all parameters, by name."""
        digest = hashlib.sha256()
        for name, p in sorted(self.parameters.items()):
            digest.update(name.encode() + p.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def is_discrete(self) -> bool:
        """Whether every observed site is discrete: its density is then a probability."""
        regions = [support(s) for s in self.model_sites if observes_data(s)]
        return bool(regions) and all(r is not None and r.is_discrete for r in regions)

    def _propose(self, rows: range, num_particles: int | None = None) -> tuple[Values, Tensor]:
        assert self.guide is not None
        sites = self.run(self.guide, rows, num_particles)
        return {s["name"]: s["value"] for s in sites}, self.log_sum(sites, rows, num_particles)

    def spread(self, table: Tensor, site: Site, value: Tensor) -> Tensor:
        """Returns a table `(S, n)` in a shape that broadcasts with a site's values."""
        shape = [len(table)] + [1] * (value.ndim - 1)
        if self.plate:
            axis = self.dim - site["fn"].event_dim
            shape[axis] = value.shape[axis]
            table = torch.nn.functional.pad(table, (0, shape[axis] - table.shape[1]))  # last block
        return table.reshape(shape)

    def _at(
        self, z: Values, num_particles: int | None, density: Callable[[Values, int | None], Tensor]
    ) -> Tensor:
        """Returns a density of all particles together, or one by one where there is trouble.

        `num_particles=None` is one particle without an axis of its own: `(n,)`.
        """
        if num_particles is None or not self.trouble:
            return density(z, num_particles)
        return torch.stack([density(z_s, None) for z_s in each(z, num_particles)])

    def _prior(self, rows: range, num_particles: int | None = None) -> Values:
        sites = self.run(self.model, rows, num_particles)
        hidden = (s for s in sites if not s["is_observed"])
        return {s["name"]: s["value"] for s in hidden if s["name"] not in self.enumerated}

    def _log_prior(self, z: Values, rows: range, num_particles: int | None) -> Tensor:
        hidden = {s["name"] for s in self.model_sites if not s["is_observed"]}
        sites = self.run(poutine.condition(self.summed, data=z), rows, num_particles)
        return self.log_sum([s for s in sites if s["name"] in hidden], rows, num_particles)

    def log_density(
        self, fn: Callable[..., Any], z: Values, rows: range, num_particles: int | None = None
    ) -> Tensor:
        """Returns `fn`'s log density (model: x, z; guide: z) at z: `(S, n)`; `(n,)` without S."""
        fn = self.summed if fn is self.model else fn
        sites = self.run(poutine.condition(fn, data=z), rows, num_particles)
        return self.log_sum(sites, rows, num_particles)

    def _log_likelihood(self, rows: range, num_particles: int | None = None) -> Tensor:
        sites = self.run(self.model, rows, num_particles)
        return self.log_sum([s for s in sites if s["is_observed"]], rows, num_particles)

    def run(
        self,
        fn: Callable[..., Any],
        rows: range,
        num_particles: int | None = None,
        handler: Messenger | None = None,
    ) -> list[Site]:
        """Returns one run's sample sites on these rows, in a plate of S particles if given."""
        data = self.data
        with ExitStack() as handlers:
            trace = handlers.enter_context(poutine.trace())
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
        term: Callable[[Site], Tensor] | None = None,
    ) -> Tensor:
        """Sums the sites' log-densities, masked and unscaled, to `(S, n)`, or `(n,)` without S.

        Enumerated sites are summed out; a change of variables counts with its Jacobian. Another
        `term` of a site than its log-density can be asked for.
        """
        lead = [] if num_particles is None else [num_particles]
        shape = lead + ([len(rows)] if self.plate else [])
        total = torch.zeros(shape, device=self.data[0].device)
        for name, log_p in eliminate([(site, (term or log_prob)(site)) for site in sites]):
            keep = [0] * len(lead) + ([log_p.ndim + self.dim] if self.plate else [])
            if summed := [d for d in range(log_p.ndim) if d not in keep]:
                log_p = log_p.sum(summed)
            log_p = log_p[..., : len(rows)] if self.plate else log_p
            if list(log_p.shape) != shape:
                raise ValueError(
                    f"site {name!r} gives log-densities of shape {tuple(log_p.shape)} "
                    f"where {tuple(shape)} (particles, data) was expected"
                )
            total = total + log_p
        return total


def log_prob(site: Site) -> Tensor:
    """Returns a site's log-density as its mask leaves it, with log |dz/du| where z = T(u)."""
    log_p = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    if "log_det" in site:
        log_p = log_p + site["log_det"]
    if site["mask"] is not None:
        log_p = torch.where(torch.as_tensor(site["mask"], device=log_p.device), log_p, 0.0)
    return log_p


def each(z: Values, num_particles: int) -> list[Values]:
    """Returns latents z by site, each `(S, ...)`, as S dictionaries of one particle."""
    return [{name: value[s] for name, value in z.items()} for s in range(num_particles)]
