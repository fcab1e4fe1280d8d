"""A run of model and guide on S copies of the data, through which gradients flow."""

__all__ = ["ADVICE", "Run", "SummedOut", "check_gradient", "no_guide", "run_of", "runs"]

from dataclasses import dataclass
from typing import cast

import torch
from pyro import poutine
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.runtime import InferDict, Message
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.program.binding import Fn
from pyrovae.program.handlers import Given
from pyrovae.program.sites import Site, Values, base, is_subsample, sample_sites, vectorized
from pyrovae.program.sums import log_prob, sum_sites

ADVICE = "draw it there, with its plates, or give a guide of Pyro's such as AutoNormal(model)"


def no_guide(*data: object) -> None:
    """Draws nothing: the guide of a model in which nothing is left to guess."""


@dataclass(frozen=True)
class SummedOut:
    r"""A model whose discrete latents k are to be summed out: log p(x, z) = log sum_k p(x, z, k).

    Attributes:
        model: The model.
        names: Of the sites k, which no guide draws.
        nesting: Number of plate dimensions; values of k stand side by side to their left.
    """

    model: Fn
    names: frozenset[str]
    nesting: int

    def __call__(self, *data: object) -> object:
        """Runs the model; whoever sums knows by `infer["enumerate"]` what to sum over."""

        def config(site: Message[..., object]) -> InferDict:
            return {"enumerate": "parallel"} if site.get("name") in self.names else {}

        return poutine.infer_config(self.model, config)(*data)


@dataclass(frozen=True)
class Run:
    """The sites of one run of model and guide on S copies of N data, as S N rows.

    Attributes:
        p, q: Sites of the model, observed ones too, and latents of the guide.
        num_particles: S.
        rows: S N, or as many as the plate drew of them.
        dim: Of the plate over the rows, from the right; `None` where there is none.
        subsampled: Rows that plates drew, `(n,)`, by name.
    """

    p: list[Site]
    q: list[Site]
    num_particles: int
    rows: int
    dim: int | None
    subsampled: Values

    def log_p(self) -> Tensor:
        """Returns log p(x, z), `(S, N)`, nats."""
        return self.summed(self.p)

    def log_q(self) -> Tensor:
        """Returns log q(z|x), `(S, N)`, nats."""
        return self.summed(self.q)

    def summed(self, sites: list[Site]) -> Tensor:
        """Returns the joint log-density of sites, `(S, N)`, nats."""
        total = sum_sites(sites, (), self.rows, self.dim, log_prob)
        return total.unflatten(0, (self.num_particles, -1))

    def by_row(self, site: Site, values: Tensor, event_dim: int | None = None) -> Tensor:
        """Returns values of a site, summed within a row, `(S, N, event)`, its event as one axis.

        Args:
            site: Whose batch shape they have.
            values: `(batch, event)`.
            event_dim: Number of event dimensions; `None`: the site's.
        """
        assert self.dim is not None
        event_dim = site["fn"].event_dim if event_dim is None else event_dim
        batch = values.ndim - event_dim
        values = values.reshape(*values.shape[:batch], -1)
        if summed := [d for d in range(batch) if d != batch + self.dim]:
            values = values.sum(summed)
        return values.unflatten(0, (self.num_particles, -1))


def runs(model: Fn, guide: Fn | None, data: tuple[Tensor, ...], num_particles: int) -> list[Run]:
    """Returns the run of S copies of the data; of a plate that draws rows itself, S runs.

    Args:
        model: As of `log_weights`.
        guide: Likewise.
        data: Likewise.
        num_particles: S.
    """
    run = run_of(model, guide, data, num_particles, {})
    if run.dim is not None:
        return [run]
    first = run_of(model, guide, data, 1, {}) if run.subsampled else run
    if first.dim is None:
        raise ValueError(_outside(run))
    more = (run_of(model, guide, data, 1, first.subsampled) for _ in range(num_particles - 1))
    return [first, *more]


def run_of(
    model: Fn, guide: Fn | None, data: tuple[Tensor, ...], num_particles: int, given: Values
) -> Run:
    """Runs guide and model once, on S copies of the data.

    Args:
        model: As of `log_weights`.
        guide: Likewise.
        data: Likewise.
        num_particles: S; where it is 1, a plate may draw some of the rows.
        given: Latents by site, and rows by plate, in place of draws.
    """
    copies = tuple(d.repeat(num_particles, *[1] * (d.ndim - 1)) for d in data)  # (S N, ...)
    if isinstance(model, SummedOut):
        model = poutine.enum(model, first_available_dim=-1 - model.nesting)
    with Given(given):
        guide_trace = poutine.trace(guide or no_guide).get_trace(*copies)
        replayed = poutine.replay(model, trace=guide_trace)
        model_trace = poutine.trace(replayed).get_trace(*copies)
    p, q = _sites(model_trace, guide_trace)
    nodes = cast(list[Site], [*guide_trace.nodes.values(), *model_trace.nodes.values()])
    plates = {s["name"]: s["value"] for s in nodes if s["type"] == "sample" and is_subsample(s)}
    rows = len(copies[0])
    frame = _plate_over(rows, set(plates) if num_particles == 1 else set(), [*p, *q])
    return Run(p, q, num_particles, frame.size if frame else rows, frame and frame.dim, plates)


def _sites(model_trace: Trace, guide_trace: Trace) -> tuple[list[Site], list[Site]]:
    """Returns the sites of a model, and the latents of its guide, which are all that it has.

    Args:
        model_trace: Of one run.
        guide_trace: Likewise.
    """
    q = [s for s in sample_sites(guide_trace) if not s["is_observed"]]
    p = [s for s in sample_sites(model_trace) if not s["infer"].get("_deterministic")]
    for s in q if torch.is_grad_enabled() else ():
        check_gradient(s)
    drawn = {s["name"] for s in q}
    for s in p:
        if not (s["is_observed"] or s["name"] in drawn or s["infer"].get("_dim_to_id")):
            raise ValueError(f"the guide does not draw site {s['name']!r}; {ADVICE}")
    return p, q


def check_gradient(site: Site) -> None:
    """Raises ValueError where a guide's draws at a site have no gradient."""
    if not site["fn"].has_rsample:
        raise ValueError(
            f"site {site['name']!r} is {type(base(site['fn'])).__name__}, whose draws "
            "have no gradient"
        )


def _plate_over(rows: int, drawing: set[str], sites: list[Site]) -> CondIndepStackFrame | None:
    """Returns the plate over the rows that all sites stand in; `None` without.

    Args:
        rows: So many.
        drawing: Names of plates that draw some of them, which will do too.
        sites: Of model and guide.
    """
    over = [{f for f in vectorized(s) if f.size == rows or f.name in drawing} for s in sites]
    return min(set.intersection(*over), key=lambda f: f.name != "data", default=None)


def _outside(run: Run) -> str:
    """Returns what is wrong with a run whose sites stand in no common plate over the rows."""
    sites = [*run.p, *run.q]
    outside = [s for s in sites if all(f.size != run.rows for f in vectorized(s))] or sites[-1:]
    return (
        f"an objective of each datum needs all sites in one plate over the {run.rows} rows it is "
        f"given, and site {outside[0]['name']!r} is in none; write "
        "`with pyro.plate('data', len(x)):` around it, or take the objective 'elbo'"
    )
