"""Latents that the model masks: what of them counts in p and q alike."""

__all__ = ["check_masks", "check_summed_masks"]

from dataclasses import replace

import torch
from pyro import poutine
from pyro.distributions import Delta

from pyrovae.program.densities import AUXILIARY, Program
from pyrovae.program.sites import base
from pyrovae.program.sums import close


def check_masks(program: Program, rows: range) -> Program:
    """Returns the program with the latents whose masked entries can be left out of p and q alike.

    Where a latent is masked, the guide still draws it; its density counts in neither p nor q,
    which is right if nothing that counts depends on it there: the log-density of the model must
    not notice when masked entries are replaced by other draws.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.

    Raises:
        ValueError: If something that is not masked depends on what is.
    """
    sites = {s["name"]: s for s in program.run(program.summed, rows)}
    hidden = program.sites.latents - set(program.enumerated)
    masked = {name for name in hidden if sites[name]["mask"] is not None}
    if not masked:
        return program
    if program.guide is None:
        return program  # only what is observed is weighed
    check_summed_masks(program, rows)
    drawn = {s["name"] for s in program.sites.guide if not isinstance(base(s["fn"]), Delta)}
    masked = {n for n in masked if n in drawn or n + AUXILIARY in drawn}
    program = replace(program, masked=frozenset(masked))
    z, fresh = program.propose_one(rows), program.propose_one(rows)
    at = poutine.condition(program.summed, data=z)
    sites, other = {s["name"]: s for s in program.run(at, rows)}, dict(z)
    for name in masked:
        mask = torch.as_tensor(sites[name]["mask"])
        mask = mask.reshape(*mask.shape, *[1] * sites[name]["fn"].event_dim)
        other[name] = torch.where(mask, z[name], fresh[name])
    a, b = (program.log_density(program.model, at, rows) for at in (z, other))
    if not close(a, b):
        raise ValueError(
            f"latent {sorted(masked)[0]!r} is masked where what is observed still depends on it; "
            "mask that as well, or leave the latent unmasked"
        )
    return program


def check_summed_masks(program: Program, rows: range) -> None:
    """Raises ValueError where a latent is masked by a site that is summed out.

    Its mask then has a dimension of the enumerated values, and differs along it.

    Args:
        program: As its first run has shown it.
        rows: Those that it is tried on.
    """
    hidden = program.sites.latents - set(program.enumerated)
    for site in program.run(program.summed, rows):
        if site["name"] in hidden and site["mask"] is not None:
            mask = torch.as_tensor(site["mask"])
            one = mask[(slice(1),) * max(0, mask.ndim - 1 - program.sites.num_plates)]
            if (mask != one).any():
                raise ValueError(
                    f"latent {site['name']!r} is masked by what is summed out: where it is masked "
                    "it has no density to be summed; draw the discrete site in the guide and use "
                    "importance_sampling, or leave out the mask"
                )
