"""What objectives of training are made of: densities that gradients flow through, by datum."""

__all__ = ["SummedOut", "log_weights", "negative_elbo", "no_guide", "summing_out"]

from dataclasses import dataclass
from typing import cast

import pyro
import torch
from pyro import poutine
from pyro.infer.enum import get_importance_trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.runtime import InferDict, Message
from torch import Tensor

from pyrovae.program.binding import Fn
from pyrovae.program.contexts import aside
from pyrovae.program.sites import Site, base, sample_sites, summable, vectorized
from pyrovae.program.sums import log_prob, sum_sites

ADVICE = "draw it there, with its plates, or give a guide of Pyro's such as AutoNormal(model)"


def no_guide(*data: object) -> None:
    """Draws nothing: the guide of a model in which nothing is left to guess."""


def log_weights(model: Fn, guide: Fn | None, *data: Tensor, num_particles: int = 1) -> Tensor:
    r"""Returns the log-weights `(S, N)` of S draws for each datum, in nats, with their gradient.

    .. math::
        \log w_{sn} = \log p(x_n, z_{sn}) - \log q(z_{sn} | x_n), \quad z_{sn} \sim q(z | x_n)

    All are made in one run, of S copies of the data as S N rows. The gradient flows through the
    draws (they are reparameterized) into model and guide. Masks count; scales, such as those of
    subsampling plates, do not. Sites that `summing_out` has marked are summed out.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; `None` draws nothing.
        data: A batch, `(N, ...)` each.
        num_particles: S.

    Raises:
        ValueError: If not all sites stand in one plate over the rows that it is given, the guide
            leaves a latent out, or its draws have no gradient where one is asked for.
    """
    rows = num_particles * len(data[0])
    copies = tuple(d.repeat(num_particles, *[1] * (d.ndim - 1)) for d in data)  # (S N, ...)
    if isinstance(model, SummedOut):
        model = poutine.enum(model, first_available_dim=-1 - model.nesting)
    guide_trace = poutine.trace(guide or no_guide).get_trace(*copies)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*copies)
    q = [s for s in sample_sites(guide_trace) if not s["is_observed"]]
    p = [s for s in sample_sites(model_trace) if not s["infer"].get("_deterministic")]
    for s in q:
        if torch.is_grad_enabled():
            _check_gradient(s)
    drawn = {s["name"] for s in q}
    for s in p:
        if not (s["is_observed"] or s["name"] in drawn or s["infer"].get("_dim_to_id")):
            raise ValueError(f"the guide does not draw site {s['name']!r}; {ADVICE}")
    frame = _plate_over(rows, [*p, *q])
    log_p, log_q = (sum_sites(sites, (), rows, frame.dim, log_prob) for sites in (p, q))
    return (log_p - log_q).unflatten(0, (num_particles, -1))  # (S, N)


def negative_elbo(model: Fn, guide: Fn, *data: Tensor) -> Tensor:
    r"""Returns the loss of Pyro's `Trace_ELBO`, one particle, summed over the data, in nats.

    .. math::
        \log q(z|x) - \log p(x, z), \quad z \sim q(z|x)

    scaled and masked as the program says. `Trace_ELBO` itself reads each term with `.item()`, so
    that no graph can be had of it.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another.
        data: A batch, `(n, ...)` each.

    Raises:
        ValueError: If a latent site's draws have no gradient (it is not reparameterized): the
            surrogate loss that `Trace_ELBO` has for them is not this.
    """
    guide_trace = poutine.trace(guide).get_trace(*data)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*data)
    terms = []
    for trace, sign in ((guide_trace, 1.0), (model_trace, -1.0)):
        trace.compute_log_prob()
        for site in sample_sites(trace):
            if trace is guide_trace:
                _check_gradient(site)
            terms.append(sign * cast(Tensor, trace.nodes[site["name"]].get("log_prob_sum")))
    return sum(terms[1:], terms[0])


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


def summing_out(model: Fn, guide: Fn | None, *data: Tensor) -> Fn:
    """Returns the model with the discrete latents that the guide leaves out to be summed out.

    It is the model itself where there are none. Both are run once, without a trace of it.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; `None` draws nothing.
        data: A batch, `(n, ...)` each.

    Raises:
        TypeError: If there is no guide, and a latent that cannot be summed out.
        ValueError: If the guide leaves such a one out.
    """
    with aside(), pyro.validation_enabled(False):
        traces = get_importance_trace("flat", float("inf"), model, guide or no_guide, data, {})
        p, q = map(sample_sites, traces)
    drawn = {s["name"] for s in q}
    left = [s for s in p if not s["is_observed"] and s["name"] not in drawn]
    if not left:
        return model
    if drawn_alone := [s["name"] for s in left if not summable(s)]:
        if guide is None:
            raise TypeError(
                "the guide is None; training needs one, a Pyro callable of the data that draws "
                f"site {drawn_alone[0]!r}"
            )
        raise ValueError(f"the guide does not draw site {drawn_alone[0]!r}; {ADVICE}")
    nesting = -min((f.dim or 0 for s in (*p, *q) for f in vectorized(s)), default=0)
    return SummedOut(model, frozenset(s["name"] for s in left), nesting)


def _check_gradient(site: Site) -> None:
    """Raises ValueError where a guide's draws at a site have no gradient."""
    if not site["fn"].has_rsample:
        raise ValueError(
            f"site {site['name']!r} is {type(base(site['fn'])).__name__}, whose draws "
            "have no gradient"
        )


def _plate_over(rows: int, sites: list[Site]) -> CondIndepStackFrame:
    """Returns the plate over so many rows that all sites stand in; ValueError without."""
    over = [{f for f in vectorized(s) if f.size == rows} for s in sites]
    if common := set.intersection(*over):
        return min(common, key=lambda f: f.name != "data")
    outside = [s["name"] for s, plates in zip(sites, over, strict=True) if not plates]
    raise ValueError(
        f"an objective of each datum needs all sites in one plate over the {rows} rows it is "
        f"given, and site {outside[0] if outside else sites[-1]['name']!r} is in none; write "
        "`with pyro.plate('data', len(x)):` around it, or take the objective 'elbo'"
    )
