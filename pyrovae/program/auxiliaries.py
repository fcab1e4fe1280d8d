"""Guides that draw auxiliary values and map them to the latents: whether q(z|x) is known."""

__all__ = ["check_auxiliaries"]

from collections.abc import Callable

import torch
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyrovae.program.densities import Program
from pyrovae.program.sites import Site, Values, base, remasked
from pyrovae.program.sums import log_det

TOLERANCE = 1e-3  # of log |du/dz|, relative


def check_auxiliaries(program: Program, rows: range) -> None:
    r"""Raises ValueError unless the guide's auxiliary draws are its latents in other coordinates.

    With u ~ q(u|x) and z = T(u), T invertible, the density of z is

    .. math::
        \log q(z | x) = \log q(u | x) - \log |\det dz/du|

    and a Delta site says log |du/dz|, nats, as its `log_density`; Pyro's autoguides do. Where T
    is not invertible, the weight of (u, z) lacks a density r(u|z, x), which nobody gave; where T
    is constant, z is a point and has no density at all. T's derivative is taken by autograd, of
    the
    first datum: `(d, d)` for d latent numbers.

    Args:
        program: As its first run has shown it.
        rows: Of which the guide is run; the first one is looked at.

    References:
        Auxiliary deep generative models (Maaloe et al., 2016), https://arxiv.org/abs/1602.05473,
        for guides whose draws are more than the latents, and the density r that they need
    """
    if program.guide is None:
        return
    moved, u = _moved(program, rows, program.guide)
    common = {s["name"] for s in program.sites.guide if program.sites.common(s)}
    own = {name: value for name, value in u.items() if name not in common}
    if not moved and not own:
        return
    if not moved:
        raise _not_invertible(own)
    with torch.enable_grad():
        sites = {s["name"]: s for s in program.run(program.guide, rows, None, _Given(u))}
    for name in moved:
        if not _moves(sites[name]["value"], own):
            raise _still(name, next(iter(u), None), _moves(sites[name]["value"], u))
    _check_jacobian(program, rows, [sites[name] for name in moved], own)


def _moved(
    program: Program, rows: range, guide: Callable[..., object]
) -> tuple[list[str], Values]:
    """Returns the latents of each datum that are points, and the auxiliary draws by site.

    Args:
        program: Whose guide is run.
        rows: On these.
        guide: The guide.

    Returns:
        Names of latents that a Delta site sets, and what else the guide drew, `(..., n, event)`,
        as leaves that gradients go to.
    """
    drawn = program.proposed(program.run(guide, rows), rows)
    points = {s["name"]: s for s in drawn if isinstance(base(s["fn"]), Delta)}
    latents, common = program.sites.latents, program.sites.common
    moved = [name for name, s in points.items() if name in latents and not common(s)]
    auxiliary = (s for s in drawn if s["name"] not in latents | points.keys())
    return moved, {s["name"]: s["value"].detach().clone().requires_grad_() for s in auxiliary}


def _check_jacobian(program: Program, rows: range, sites: list[Site], own: Values) -> None:
    """Raises ValueError unless Delta sites say log |du/dz| of a datum's own draws u.

    Args:
        program: Whose densities are summed.
        rows: On which the sites were run.
        sites: The Delta sites, their values made from u.
        own: u by site, drawn in the data plate.
    """
    jacobian, log_dz = _derivative(program, rows, sites, own)
    if jacobian.shape[0] != jacobian.shape[1]:
        raise _not_invertible(own)
    log_du = -torch.linalg.slogdet(jacobian).logabsdet - log_dz
    if not log_du.isfinite():
        raise _not_invertible(own)
    said = program.log_sum([remasked(s, None) for s in sites], rows, None)
    off = (_first(program, said) - log_du).abs().item()
    if off > TOLERANCE * max(1.0, abs(log_du.item())):
        raise ValueError(
            f"the guide's Delta site {sites[0]['name']!r} has a log_density that is off by "
            f"{off:.3g} nats from log |du/dz| of the map that made it from "
            f"{', '.join(map(repr, own))}; give it that"
        )


def _not_invertible(own: Values) -> ValueError:
    """Returns the error for auxiliary draws that the latents do not determine."""
    return ValueError(
        f"the guide draws auxiliary {', '.join(map(repr, own))} beside the latents, which are no "
        "invertible function of them: the weights lack a density r(u|z, x) of the auxiliaries "
        "given the latents; sum them out of q(z|x), or make them latents of the model too"
    )


def _derivative(
    program: Program, rows: range, sites: list[Site], own: Values
) -> tuple[Tensor, Tensor]:
    """Returns dv/du of the first datum, v its unconstrained latents, and log |dz/dv|.

    Args:
        program: Whose model knows the supports that z = S(v) reaches from the reals.
        rows: On which the sites were run.
        sites: The Delta sites.
        own: u by site.

    Returns:
        `(latent numbers, auxiliary numbers)`, float64, and a scalar, nats.
    """
    latents: list[Tensor] = []
    moved: list[Site] = []
    with torch.enable_grad():
        for site in sites:
            fn = next(s for s in program.sites.model if s["name"] == site["name"])["fn"]
            transform, z = biject_to(fn.support), site["value"]
            v = transform.inv(z)
            event_dim = site["fn"].event_dim
            latents.append(_of_first(program, v, event_dim + v.ndim - z.ndim))
            added = transform.log_abs_det_jacobian(v, z)
            if more := event_dim - transform.codomain.event_dim:
                added = added.flatten(-more).sum(-1)
            moved.append({**site, "mask": None, "log_det": added})
        grads = [
            torch.autograd.grad(
                v,
                list(own.values()),
                retain_graph=True,
                materialize_grads=True,
                allow_unused=True,
            )
            for v in torch.cat(latents)
        ]
    # (latent numbers, auxiliary numbers), of the first datum
    event_dims = {s["name"]: s["fn"].event_dim for s in program.sites.guide}
    jacobian = torch.stack(
        [
            torch.cat(
                [_of_first(program, g, event_dims[n]) for n, g in zip(own, row, strict=True)]
            )
            for row in grads
        ]
    )
    total = program.log_sum(moved, rows, None, log_det)
    return jacobian.double(), _first(program, total)


def _moves(value: Tensor, u: Values) -> bool:
    """Returns whether a value has a gradient other than 0 in any of these draws.

    Args:
        value: Of a latent.
        u: Draws by site, that it may be made of.
    """
    if not value.requires_grad or not u:
        return False
    ones = torch.ones_like(value)
    grads = torch.autograd.grad(
        value, list(u.values()), ones, retain_graph=True, materialize_grads=True, allow_unused=True
    )
    return any(bool((g != 0).any()) for g in grads)


def _still(name: str, common: str | None, moves: bool) -> ValueError:
    """Returns the error for a latent that no draw of its datum moves.

    Args:
        name: Of the latent.
        common: A draw that is common to all data, if there is one.
        moves: Whether that moves it.
    """
    if moves:
        return ValueError(
            f"the guide draws {common!r} for all data together and {name!r} of each datum from "
            "it: a datum has no density of its own; take a guide with sites in the data plate, "
            "such as AutoNormal, or pass plate=None for log p of all data at once"
        )
    return ValueError(
        f"the guide is a point (Delta) at site {name!r}; importance sampling needs a guide that "
        "covers the posterior"
    )


def _of_first(program: Program, value: Tensor, event_dim: int) -> Tensor:
    """Returns the first datum's numbers of a value, flat; all if joint.

    Args:
        program: Which knows the dimension of the data.
        value: `(..., n, ..., event)`.
        event_dim: Its dimensions to the right of all plates.
    """
    if program.plate is None or program.sites.dim is None:
        return value.reshape(-1)
    return value.select(program.sites.dim - event_dim, 0).reshape(-1)


def _first(program: Program, term: Tensor) -> Tensor:
    """Returns the first datum's entry of a table `(n,)`, float64; the scalar of joint data."""
    return (term if program.plate is None else term[0]).detach().double()


class _Given(Messenger):
    """Gives drawn sites these values, and leaves them drawn."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self._values = values

    def _pyro_sample(self, msg: Site) -> None:
        if msg["name"] in self._values:
            msg["value"] = self._values[msg["name"]]
