"""What objectives of training are made of: densities that gradients flow through, by datum."""

__all__ = [
    "Paths",
    "Terms",
    "divergence_of",
    "log_weights",
    "negative_elbo",
    "paths",
    "summing_out",
    "terms",
]

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import cast

import pyro
import torch
from pyro import poutine
from pyro.distributions import Independent
from pyro.infer.enum import get_importance_trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.program.binding import Fn
from pyrovae.program.contexts import aside
from pyrovae.program.copies import (
    ADVICE,
    Run,
    SummedOut,
    check_gradient,
    no_guide,
    run_of,
    runs,
)
from pyrovae.program.sites import (
    Distribution,
    Site,
    sample_sites,
    summable,
    vectorized,
)
from pyrovae.program.sums import log_prob


def log_weights(model: Fn, guide: Fn | None, *data: Tensor, num_particles: int = 1) -> Tensor:
    r"""Returns the log-weights `(S, N)` of S draws for each datum, in nats, with their gradient.

    .. math::
        \log w_{sn} = \log p(x_n, z_{sn}) - \log q(z_{sn} | x_n), \quad z_{sn} \sim q(z | x_n)

    All are made in one run, of S copies of the data as S N rows. The gradient flows through the
    draws (they are reparameterized) into model and guide. Masks count; scales, such as those of
    subsampling plates, do not. Of a plate that draws n of the N rows there are `(S, n)`, of the
    same rows in S runs. Sites that `summing_out` has marked are summed out.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; `None` draws nothing.
        data: A batch, `(N, ...)` each.
        num_particles: S.

    Raises:
        ValueError: If not all sites stand in one plate over the rows that it is given, the guide
            leaves a latent out, or its draws have no gradient where one is asked for.
    """
    found = runs(model, guide, data, num_particles)
    return torch.cat([run.log_p() - run.log_q() for run in found])


@dataclass(frozen=True)
class Paths:
    r"""S draws for each datum, whose weights move with the draws alone: the guide's density stays.

    Attributes:
        log_p: log p(x_n, z_sn), `(S, N)`, nats; its gradient reaches the model's parameters, and
            not the draws.
        log_w: log-weights, `(S, N)`, nats, without a gradient.
        path: `(S, N)`; of its values nothing is meant, and its gradient is

            .. math::
                \frac{\partial \log w_{sn}}{\partial z_{sn}}
                \frac{\partial z_{sn}}{\partial \phi}

            with respect to the guide's parameters phi, what log q depends on besides left out.
    """

    log_p: Tensor
    log_w: Tensor
    path: Tensor


def paths(model: Fn, guide: Fn | None, *data: Tensor, num_particles: int = 1) -> Paths:
    """Returns S draws for each datum with the gradients along their paths.

    The guide runs twice: it draws, and is then asked for the density of draws that stay.

    Args:
        model: As of `log_weights`.
        guide: Likewise.
        data: Likewise.
        num_particles: S.

    Raises:
        ValueError: As `log_weights`.
    """
    found = [_path(run, model, guide, data) for run in runs(model, guide, data, num_particles)]
    log_p, log_w, path = map(torch.cat, zip(*found, strict=True))
    return Paths(log_p, log_w, path)


def _path(
    drawn: Run, model: Fn, guide: Fn | None, data: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns `Paths` of one run, `(S, N)` each.

    Args:
        drawn: The run.
        model: As of `log_weights`.
        guide: Likewise.
        data: Likewise.
    """
    fixed = {s["name"]: cast(Tensor, _Fixed.apply(s["value"])) for s in drawn.q}
    at = run_of(model, guide, data, drawn.num_particles, drawn.subsampled | fixed)
    log_p, log_q = at.log_p(), at.log_q()
    log_w, path = log_p - log_q, torch.zeros_like(log_p)
    free = [s for s in drawn.q if s["value"].requires_grad]
    z = [fixed[s["name"]] for s in free]
    grad = partial(torch.autograd.grad, retain_graph=True, materialize_grads=True)
    slopes = grad(log_w.sum(), z) if z else ()
    for site, slope in zip(free, slopes, strict=True):
        path = path + drawn.by_row(site, slope * site["value"]).sum(-1)
    return log_p, log_w.detach(), path


class _Fixed(torch.autograd.Function):
    """Passes a tensor on and no gradient back: one can be asked for with respect to the result."""

    @staticmethod
    def forward(ctx: object, z: Tensor) -> Tensor:
        """Returns z, as a tensor of its own.

        Args:
            ctx: What torch keeps for `backward`.
            z: Any tensor.
        """
        return z.view_as(z)

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> None:
        """Returns no gradient.

        Args:
            ctx: Of `forward`.
            grads: With respect to its result.
        """


@dataclass(frozen=True)
class Terms:
    r"""The two terms of the ELBO of S draws for each datum, whose difference is an estimate of it.

    Attributes:
        log_likelihood: log p(x_n | z_sn), `(S, N)`, nats.
        divergence: KL(q(z|x) || p(z)) by latent site, `(S, N, groups)`, nats: a group is a
            dimension of the latent where its densities are products over these.
    """

    log_likelihood: Tensor
    divergence: dict[str, Tensor]


def terms(model: Fn, guide: Fn | None, *data: Tensor, num_particles: int = 1) -> Terms:
    r"""Returns log-likelihood and KL of S draws for each datum, with their gradients.

    .. math::
        \log p(x | z) \quad\mathrm{and}\quad
        \mathrm{KL}(q(z | x) \,\|\, p(z)) = E_q[\log q(z | x) - \log p(z)]

    KL is integrated where Pyro knows how (two normals), given what was drawn before it; else it is
    log q - log p at the draw. Where the model draws latents before this one that the guide draws
    after it, it is that as well: they depend on it then.

    Args:
        model: As of `log_weights`.
        guide: Likewise.
        data: Likewise.
        num_particles: S.

    Raises:
        ValueError: As `log_weights`.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), appendix B,
        https://arxiv.org/abs/1312.6114
    """
    found = [_terms(run, model) for run in runs(model, guide, data, num_particles)]
    divergence = {
        name: torch.cat([t.divergence[name] for t in found]) for name in found[0].divergence
    }
    return Terms(torch.cat([t.log_likelihood for t in found]), divergence)


def _terms(run: Run, model: Fn) -> Terms:
    """Returns the terms of one run.

    Args:
        run: The run.
        model: Of which it is.
    """
    latents = {s["name"]: s for s in run.p if s["name"] in {s["name"] for s in run.q}}
    before, met = _predecessors(latents.values()), set[str]()
    divergence: dict[str, Tensor] = {}
    for q in run.q:
        p = latents.get(q["name"])
        if p and isinstance(model, SummedOut) and log_prob(p).ndim > model.nesting:
            raise ValueError(
                f"the prior of site {q['name']!r} depends on what is summed out, which leaves no "
                "KL of its own; take the objective 'elbo' or 'iwae'"
            )
        known = divergence_of(q, p) if p and before[q["name"]] <= met else None
        if known is None:
            known = log_prob(q)[..., None]
            known = known if p is None else known - log_prob(p)[..., None]
        divergence[q["name"]] = run.by_row(q, known, event_dim=1)
        met.add(q["name"])
    rest = [s for s in run.p if s["name"] not in latents]
    return Terms(run.summed(rest), divergence)


def _predecessors(sites: Iterable[Site]) -> dict[str, set[str]]:
    """Returns by name of a site those that come before it."""
    names = [s["name"] for s in sites]
    return {name: set(names[:i]) for i, name in enumerate(names)}


def divergence_of(q: Site, p: Site) -> Tensor | None:
    """Returns KL(q || p) as its integral, `(batch, groups)`; `None` where Pyro knows none.

    Args:
        q: A site of the guide.
        p: The same site of the model.
    """
    one, other = (_factors(s["fn"]) for s in (q, p))
    if not isinstance(one, type(other)) or one.event_shape != other.event_shape:
        one, other = q["fn"], p["fn"]  # a product over dimensions beside what is none
    try:
        kl = kl_divergence(one, other)
    except NotImplementedError:
        return None
    kl = kl.reshape(*q["fn"].batch_shape, -1)
    for mask in (q["mask"], p["mask"]):
        if mask is not None:
            kl = torch.where(torch.as_tensor(mask, device=kl.device)[..., None], kl, 0.0)
    return kl


def _factors(fn: Distribution) -> Distribution:
    """Returns the distribution of the single numbers of a product, `Normal(...).to_event(1)`."""
    return fn.base_dist if isinstance(fn, Independent) else fn


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
                check_gradient(site)
            terms.append(sign * cast(Tensor, trace.nodes[site["name"]].get("log_prob_sum")))
    return sum(terms[1:], terms[0])


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
