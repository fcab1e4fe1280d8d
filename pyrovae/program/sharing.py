"""Latents drawn and decoded once for all data, where they do not depend on them."""

__all__ = ["draw_latents", "log_likelihood_of_all", "scored_by_products", "shares_latents"]

from math import log, pi

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions.utils import probs_to_logits
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from pyrovae.program.densities import Program
from pyrovae.program.sites import Site, Values, base, is_masked
from pyrovae.program.sums import log_prob

PARTICLES, TOLERANCE = 3, 1e-4  # of the trial; relative, of log p(x|z)
aten = torch.ops.aten
# what these return depends on the shape of a tensor, not on its numbers
BY_SHAPE = {
    *(aten.new_zeros, aten.new_ones, aten.new_empty, aten.new_full, aten.new_empty_strided),
    *(aten.zeros_like, aten.ones_like, aten.empty_like, aten.full_like),
    *(aten.rand_like, aten.randn_like),
}


class _Traced(TorchDispatchMode):
    """Follows some tensors' numbers through all that torch computes from them.

    Attributes:
        read: Whether Python has read one of them, and may do with it what it likes.
    """

    def __init__(self, tensors: tuple[Tensor, ...]) -> None:
        super().__init__()
        self._reached = WeakIdKeyDictionary()
        self._reached.update(dict.fromkeys(tensors, True))
        self.read = False  # by Python, which may do with them what it likes

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket not in BY_SHAPE and any(
            map(self.reached, tree_leaves((args, kwargs)))
        ):
            made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
            self._reached.update(dict.fromkeys(made, True))
            self.read |= not made
        return result

    def reached(self, tensor: object) -> bool:
        """Returns whether a tensor's numbers depend on the first ones; no tensor's do not."""
        return isinstance(tensor, Tensor) and tensor in self._reached


def shares_latents(program: Program) -> bool:
    r"""Returns whether draws from the prior serve all data alike: found by running the program.

    .. math::
        \hat p(x_n) = \frac{1}{S} \sum_s p(x_n | z_s), \quad z_s \sim p(z)

    is then unbiased for each x_n with the same draws, which are decoded once for all data. No
    number of the data may reach a latent. Draws for one row are tried on others: prior and
    likelihood have to be, to a relative 1e-4, what they are where each row has the same draws for
    its own.

    Args:
        program: As `inspect` returns it; one that does not broadcast, has common latents, or takes
            its rows together, shares none.
    """
    sites = program.sites
    own = sites.latents and sites.dim is not None and not any(map(sites.common, sites.model))
    if not (program.selects_rows and program.particles.vectorized and own):
        return False
    rows = range(min(program.block_size, len(program)))
    block = program.on(tuple(d[: len(rows)].clone() for d in program.data))
    with _Traced(block.tensors) as traced:
        run = block.run(program.model, rows, PARTICLES)
        hidden = {s["name"]: s for s in run if not s["is_observed"]}
        if traced.read or any(traced.reached(s["value"]) for s in hidden.values()):
            return False
    z = draw_latents(program, PARTICLES)
    try:
        shared = log_likelihood_of_all(program, z, rows)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    apart, log_prior = _apart(program, z, hidden, rows)
    return _close(shared, apart) and _close(log_prior, log_prior[:, :1])


def _apart(
    program: Program, z: Values, sites: dict[str, Site], rows: range
) -> tuple[Tensor, Tensor]:
    """Returns log p(x|z) and log p(z), `(S, n)` each, where each row has these draws for its own.

    Args:
        program: Whose latents do not depend on the data.
        z: One row's draws by site, `(S, ..., event)`.
        sites: The latent sites by name, which know the axis of the data.
        rows: The n rows.
    """
    own = {}
    for name, value in z.items():
        axis = value.ndim + program.sites.axis(sites[name])
        own[name] = value.repeat_interleave(len(rows), dim=axis)
    scored = program.run(poutine.condition(program.model, data=own), rows, PARTICLES)
    log_likelihood, log_prior = (
        program.log_sum([s for s in scored if (s["name"] in z) == latent], rows, PARTICLES)
        for latent in (False, True)
    )
    return log_likelihood, log_prior


def draw_latents(program: Program, num_particles: int) -> Values:
    """Returns z ~ p(z) by site, `(S, ..., event)`, for one row of the data.

    Args:
        program: In which no latent depends on the data.
        num_particles: S.
    """
    sites = program.run(program.model, program.batching.held_rows[:1], num_particles)
    return {s["name"]: s["value"] for s in sites if not s["is_observed"]}


def log_likelihood_of_all(program: Program, z: Values, rows: range) -> Tensor:
    """Returns log p(x|z), `(S, n)`, in nats, of rows that share the latents of `draw_latents`.

    The model decodes z once. Where that gives a Bernoulli or normal with independent dimensions,
    all data are scored by matrix products, else one by one.

    Args:
        program: See `shares_latents`.
        z: Latents by site, of `draw_latents`, `(S, ..., event)`.
        rows: The n rows of a block, by number.
    """
    sites, size = _scored(program, z, rows)
    return program.log_sum(sites, rows, size, _score)


def scored_by_products(program: Program) -> bool:
    """Returns whether `log_likelihood_of_all` needs no memory for each datum's dimensions."""
    rows = program.batching.held_rows[: program.block_size]
    sites, _ = _scored(program, draw_latents(program, PARTICLES), rows)
    return all(_product(s) is not None for s in sites)


def _scored(program: Program, z: Values, rows: range) -> tuple[list[Site], int]:
    """Returns the sites that are no latents, given those, and the number of particles.

    Args:
        program: Whose model is run.
        z: Latents by site, of one row, `(S, ..., event)`.
        rows: The n rows of a block, which z is broadcast to.
    """
    size = len(next(iter(z.values())))
    sites = program.run(poutine.condition(program.model, data=z), rows, size)
    return [s for s in sites if s["name"] not in z], size


def _score(site: Site) -> Tensor:
    """Returns a site's log-density, `(S, n)`, by matrix products where they make it."""
    product = _product(site)
    return log_prob(site) if product is None else product


def _product(site: Site) -> Tensor | None:
    r"""Returns log p(x|z), `(S, n)`, by matrix products, or `None` where that is not its form.

    With logits l `(S, D)` of a Bernoulli, and x `(n, D)`,

    .. math::
        \log p(x_n | z_s) = \sum_d x_{nd} l_{sd} - \sum_d \log(1 + e^{l_{sd}})

    Of a normal, the square is multiplied out likewise, in float64.

    Args:
        site: What observes x, its parameters the same for all rows.
    """
    fn, x = base(site["fn"]), site["value"]
    event = site["fn"].event_dim
    names = {dist.Bernoulli: ("_param",), dist.Normal: ("loc", "scale")}.get(type(fn))
    if names is None or is_masked(site) or not event or x.ndim != 1 + event:
        return None
    params = [getattr(fn, name) for name in names]
    if any(p.ndim != 2 + event or (p.shape[1] > 1 and p.stride(1)) for p in params):
        return None  # other rows have other parameters
    x, params = x.flatten(1), [p[:, 0].flatten(1) for p in params]  # (n, D), (S, D) each
    if len(params) == 1:
        logits = params[0] if "logits" in vars(fn) else probs_to_logits(params[0], is_binary=True)
        return logits @ x.T - torch.nn.functional.softplus(logits).sum(1, keepdim=True)
    loc, scale, x64 = params[0].double(), params[1].double(), x.double()  # lest squares cancel
    precision = scale.square().reciprocal()  # (S, D)
    # (x - loc)^2 / scale^2 = x^2 / scale^2 - 2 x loc / scale^2, `(S, n)`, + what is own, `(S, 1)`
    squares = precision @ x64.square().T - 2 * (loc * precision) @ x64.T
    own = (loc.square() * precision + 2 * scale.log() + log(2 * pi)).sum(1, keepdim=True)
    return (-0.5 * (squares + own)).to(x.dtype)


def _close(a: Tensor, b: Tensor) -> bool:
    """Returns whether numbers are the same to a relative 1e-4.

    Args:
        a: Log-densities, nats.
        b: Others, which the first are compared with; they broadcast.
    """
    return bool(((a - b).abs() <= TOLERANCE * b.abs().clamp(min=1)).all())
