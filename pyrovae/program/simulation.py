"""Data drawn from a program, in place of what it observes."""

__all__ = ["draw_summed", "means", "predict", "simulate"]

from collections.abc import Collection

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Categorical

from pyrovae.program.densities import Program
from pyrovae.program.particles import Computed, OneByOne
from pyrovae.program.sites import Values, base, observes_data


def simulate(program: Program, rows: range) -> tuple[tuple[Tensor, ...], Values]:
    """Returns a block of the data with x ~ p(x|z) in place of x, and the z ~ p(z) by site.

    Covariates stay. What is observed has to be a data argument or a view of one (a slice,
    columns, a reshape), so that x can be put where the program reads it. Then z is a draw of the
    posterior p(z|x) exactly, as bidirectional Monte Carlo and calibration need one.

    Args:
        program: With data to take sizes and covariates from.
        rows: The n rows of a block, by number.

    Returns:
        The data arguments, `(n, ...)` each, and the latents, `(..., event)`, that are not summed
        out.

    Raises:
        ValueError: If an observed value is no view of the data; the site is named.

    References:
        Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse et al., 2015),
        https://arxiv.org/abs/1511.02543
    """
    program = program.holding(rows)
    blocks = tuple(d.contiguous() for d in program.tensors)
    program = program.on(blocks)
    observed = [s for s in program.run(program.model, rows) if observes_data(s)]
    drawn = {s["name"]: s for s in program.run(poutine.uncondition(program.model), rows)}
    simulated = [b.clone() for b in blocks]
    for site in observed:
        i = next((i for i, b in enumerate(blocks) if _within(site["value"], b)), None)
        if i is None:
            raise ValueError(
                f"site {site['name']!r} observes a value computed from the data; observe a data "
                "argument itself, or a view of it such as x[:, :3], so that x can be simulated"
            )
        value, offset = site["value"], site["value"].storage_offset() - blocks[i].storage_offset()
        place = simulated[i].as_strided(value.shape, value.stride(), offset)
        place.copy_(drawn[site["name"]]["value"])
    names = {s["name"] for s in program.sites.model if not s["is_observed"]}
    z = {name: drawn[name]["value"] for name in names - set(program.enumerated)}
    return tuple(simulated), z


def predict(
    program: Program,
    z: Values,
    rows: range,
    num_particles: int,
    names: Collection[str] | None = None,
) -> Values:
    """Returns what the model draws given latents z by site, `(S, ..., event)`: x ~ p(x|z).

    Args:
        program: Its model draws.
        z: Latents by site, `(S, ..., event)`.
        rows: The n rows of a block, by number.
        num_particles: S.
        names: Of the sites that are returned; `None` for those that observe data.
    """
    if names is None:
        names = {s["name"] for s in program.sites.model if observes_data(s)}
    particles = program.particles if program.particles.vectorized else OneByOne()

    def draw(program: Program, rows: range, size: int | None, given: Computed) -> Computed:
        fn = poutine.condition(poutine.uncondition(program.model), data=given.z)
        sites = program.run(fn, rows, size)
        return Computed({s["name"]: s["value"] for s in sites if s["name"] in names}, ())

    return particles.run(draw, program, rows, num_particles, Computed(z, ())).z


def means(
    program: Program,
    z: Values,
    rows: range,
    num_particles: int,
    name: str,
    of: str = "mean",
) -> Tensor:
    """Returns E[x|z] of a site, `(S, ..., event)`, for latents z by site, `(S, ..., event)`.

    Args:
        program: Its model says of which distribution x is.
        z: Latents by site, `(S, ..., event)`.
        rows: The n rows of a block, by number.
        num_particles: S.
        name: Of the site.
        of: What is taken of its distribution, such as its "summary" where that has one.

    Raises:
        ValueError: If its distribution has no mean.
    """
    particles = program.particles if program.particles.vectorized else OneByOne()

    def mean(program: Program, rows: range, size: int | None, given: Computed) -> Computed:
        fn = poutine.condition(poutine.uncondition(program.model), data=given.z)
        (site,) = (s for s in program.run(fn, rows, size) if s["name"] == name)
        try:
            value = site["fn"].mean if of == "mean" else getattr(base(site["fn"]), of)
        except (NotImplementedError, AttributeError):
            value = site["value"] * torch.nan
        if value.isnan().any():
            raise ValueError(
                f"site {name!r} is {type(base(site['fn'])).__name__}, which has no mean; take its "
                "draws"
            )
        event_dim = site["fn"].event_dim
        shape = site["value"].shape[: site["value"].ndim - event_dim]
        return Computed({name: value.expand(*shape, *value.shape[value.ndim - event_dim :])}, ())

    return particles.run(mean, program, rows, num_particles, Computed(z, ())).z[name]


def draw_summed(program: Program, z: Values, rows: range, num_particles: int) -> Values:
    r"""Returns z and, of each latent k that is summed out, a draw of its posterior given z and x.

    .. math::
        k_i \sim p(k_i | x, z, k_1, \ldots, k_{i-1}) \propto
        \sum_{k_{i+1}, \ldots} p(x, z, k_1, k_2, \ldots)

    one site after another, each at the price of as many densities as it has values.

    Args:
        program: With what is summed out.
        z: The other latents by site, `(S, ..., event)`.
        rows: The n rows of a block, by number.
        num_particles: S.

    Raises:
        ValueError: If a datum has several values of one such site, in plates of its own.
    """
    if not program.enumerated:
        return z
    like = predict(program, z, rows, num_particles, program.enumerated)
    sites = {s["name"]: s for s in program.sites.model if s["name"] in program.enumerated}
    for name, site in sites.items():
        values, event = site["fn"].enumerate_support(expand=False), site["fn"].event_shape
        numbers = values.reshape(len(values), *event)  # (K, event)
        shape = like[name].shape
        log_p = [
            program.log_joint({**z, name: v.expand(shape)}, rows, num_particles) for v in numbers
        ]
        chosen = Categorical(logits=torch.stack(log_p, -1)).sample()  # (S, n)
        place = program.align(chosen, site, like[name]).reshape(-1, *[1] * len(event))
        if place.numel() * event.numel() != like[name].numel():
            raise ValueError(
                f"latent {name!r} has several values of a datum, in plates of its own, and draws "
                "of it given x and z are not to be had; let the guide draw it"
            )
        z = {**z, name: numbers[place.reshape(shape[: len(shape) - len(event)])]}
    return z


def _within(value: Tensor, block: Tensor) -> bool:
    """Returns whether a tensor is a view into another, which is contiguous.

    Args:
        value: What a site observes.
        block: A data argument.
    """
    first, start = value.data_ptr(), block.data_ptr()
    same = value.untyped_storage().data_ptr() == block.untyped_storage().data_ptr()
    return same and start <= first < start + max(1, block.numel()) * block.element_size()
