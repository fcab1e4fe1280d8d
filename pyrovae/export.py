"""Results for other tools: draws and their weights as groups of ArviZ."""

__all__ = ["to_arviz"]

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.evidence.samplers.chunks import at_once
from pyrovae.evidence.weights import LogWeights, check_weights
from pyrovae.program import (
    Program,
    Site,
    Values,
    by_datum,
    inspect,
    observes_data,
    predict,
    reproducible,
    taken,
)
from pyrovae.rng import draw_seed
from pyrovae.threads import one_at_a_time

STREAM = 30
Variables = dict[str, tuple[list[str], np.ndarray]]  # dimensions and values by name


class Groups(Protocol):
    """What ArviZ makes of groups of draws: its InferenceData, or xarray's DataTree from 1.0 on."""

    def __getitem__(self, name: str) -> xr.Dataset: ...
    def __getattr__(self, name: str) -> xr.Dataset: ...


@one_at_a_time
def to_arviz(
    model: Callable[..., object],
    guide: Callable[..., object],
    *data: Tensor,
    num_samples: int = 1_000,
    num_particles: int = 5_000,
    seed: int | None = None,
    plate: str = "data",
    block_size: int = 64,
) -> Groups:
    r"""Returns posterior, prior and predictive draws as ArviZ's InferenceData (1.x: DataTree).

    The posterior's draws are those of the guide, resampled by their importance weights w. Where
    k-hat is bad they follow the guide more than the posterior: it stands beside them.

    .. math::
        z_n = z_{sn} \text{ with probability } w_{sn} / \textstyle\sum_{s'} w_{s'n}, \quad
        z_{sn} \sim q(z | x_n), \quad s = 1, \ldots, S

    Groups: `posterior`, `prior` (latents), `posterior_predictive` (x drawn anew), `log_likelihood`
    (log p(x|z) of each datum, nats), `observed_data`, and `sample_stats`: `log_weight` of each
    draw kept, `pareto_k`, `ess` and `log_evidence` of each datum. Dimensions: `chain` (one),
    `draw`, `datum`, then plates by name and `<site>_dim_<i>`. Discrete latents that are summed
    out have no draws, and a program that has them no posterior predictive.

    Args:
        model: Any Pyro callable of `*data`.
        guide: Another.
        data: Tensors of equal length N, as the program takes them.
        num_samples: Draws kept, per datum.
        num_particles: S, particles of the guide that they are chosen from, per datum.
        seed: Fixes the draws; `None` draws a seed.
        plate: Name of the plate over the data.
        block_size: Data per block.

    Raises:
        TypeError, ValueError: As `importance_sampling`.

    References:
        Bayesian statistics without tears: a sampling-resampling perspective (Smith and Gelfand,
        1992), https://doi.org/10.1080/00031305.1992.10475856
    """
    check_sizes(num_samples=num_samples, num_particles=num_particles, block_size=block_size)
    if plate is None:
        raise ValueError(
            "plate is None, for all data as one, and the groups here have draws of each datum; "
            "name the plate over the data"
        )
    program = inspect(model, guide, *data, plate=plate, block_size=block_size)
    if common := program.sites.common_latents:
        raise ValueError(
            f"latent {common[0]!r} is common to all data, and the groups here have draws of each "
            "datum; make it a point in the guide (Delta)"
        )
    seed = draw_seed(seed)
    blocks = [
        _block(program, rows, num_samples, num_particles, seed)
        for rows in program.blocks(block_size)
    ]
    groups: dict[str, dict[str, np.ndarray]] = {}
    dims: dict[str, list[str]] = {}
    for group, variables in blocks[0].items():
        groups[group] = {}
        for name, (names, _) in variables.items():
            axis = names.index("datum")
            whole = np.concatenate([block[group][name][1] for block in blocks], axis)
            groups[group][name] = whole if group == "observed_data" else whole[None]
            dims[name] = names if group == "observed_data" else names[1:]
    stats = groups["sample_stats"]
    per_datum = {k: stats.pop(k)[0] for k in ("pareto_k", "ess", "log_evidence")}
    tree = _from_dict(groups, {"datum": np.arange(len(program))}, dims)
    for name, values in per_datum.items():
        tree["sample_stats"][name] = xr.DataArray(values, dims="datum")
    return tree


def _block(
    program: Program, rows: range, num_samples: int, num_particles: int, seed: int
) -> dict[str, Variables]:
    r"""Returns a block's variables by group: dimensions without chain, and values, `(L, n, ...)`.

    L = `num_samples` are kept of S = `num_particles`, for n rows. All draws of a block come from a
    random stream of its own, seeded by the seed and its first row: no other block changes them.

    .. math::
        \log p(x_n | z_{ln}) = \log p(x_n, z_{ln}) - \log p(z_{ln})

    Args:
        program: The inspected program.
        rows: Of the data, n of them.
        num_samples: L, draws kept of each datum.
        num_particles: S, particles of the guide of each datum.
        seed: Of the whole export.

    Returns:
        For each group, by variable, its dimensions and values. `pareto_k`, `ess` and
        `log_evidence` are `(n,)`, `log_weight` and the log-likelihood `(L, n)`, in nats.
    """
    with reproducible(seed, STREAM, rows.start):
        program.check_observed(rows)
        weights, chosen, kept = _resampled(program, rows, num_samples, num_particles)
        sites = {s["name"]: s for s in program.sites.model}
        latent = [sites[name] for name in kept]
        prior = program.propose_prior(rows, num_samples)
        log_x = program.log_joint(kept, rows, num_samples)
        log_x = log_x - program.log_prior(kept, rows, num_samples)
        observed = {s["name"]: s for s in program.run(program.model, rows) if observes_data(s)}
        drawn = {} if program.enumerated else predict(program, kept, rows, num_samples)
    table = ["draw", "datum"]
    stats = {"log_weight": (table, weights.log_w.gather(0, chosen).numpy())}
    for name in ("pareto_k", "ess", "log_evidence"):
        stats[name] = (["datum"], getattr(weights, name)().numpy())
    groups = {
        "posterior": {s["name"]: _labelled(program, s, kept[s["name"]], rows) for s in latent},
        "prior": {s["name"]: _labelled(program, s, prior[s["name"]], rows) for s in latent},
        "posterior_predictive": {
            name: _labelled(program, sites[name], drawn[name], rows) for name in observed if drawn
        },
        "log_likelihood": {"+".join(observed): (table, log_x.cpu().double().numpy())},
        "observed_data": {},
        "sample_stats": stats,
    }
    for name, site in observed.items():
        names, values = _labelled(program, site, site["value"][None], rows)
        groups["observed_data"][name] = (names[1:], values[0])
    return {group: variables for group, variables in groups.items() if variables}


def _resampled(
    program: Program, rows: range, num_samples: int, num_particles: int
) -> tuple[LogWeights, Tensor, Values]:
    """Returns draws of the posterior of these rows, chosen by their weights from the guide's.

    Densities are taken of a part of the particles at a time, see `at_once`.

    Args:
        program: The inspected program.
        rows: Of the data, n of them.
        num_samples: L, draws to choose for each datum, with replacement.
        num_particles: S, draws of the guide to choose from.

    Returns:
        The log-weights of the guide's S particles, `(S, n)`; the numbers of those chosen,
        `(L, n)`; and their latents by site, `(L, ..., event)`.

    References:
        Bayesian statistics without tears: a sampling-resampling perspective (Smith and Gelfand,
        1992), https://doi.org/10.1080/00031305.1992.10475856
    """
    z, log_q = program.propose(rows, num_particles)
    size = max(1, at_once(program, torch.get_num_threads()) // len(rows))
    parts = [slice(i, i + size) for i in range(0, num_particles, size)]
    log_w = torch.cat([_log_joint(program, z, rows, part) - log_q[part] for part in parts])
    check_weights(log_w, rows)
    weights = LogWeights(log_w)
    share = weights.log_w.softmax(0)  # (S, n)
    chosen = torch.multinomial(share.T, num_samples, replacement=True).T  # (L, n)
    latent = [s for s in program.sites.model if s["name"] in z and not s["is_observed"]]
    kept = {s["name"]: taken(program, s, z[s["name"]], chosen) for s in latent}
    return weights, chosen, kept


def _log_joint(program: Program, z: Values, rows: range, part: slice) -> Tensor:
    """Returns log p(x, z) `(s, n)`, nats, of some of the particles z `(S, ..., event)`.

    Args:
        program: The inspected program.
        z: Latents by site.
        rows: Of the data, n of them.
        part: Which of the S particles, s of them.
    """
    z = {name: value[part] for name, value in z.items()}
    return program.log_joint(z, rows, len(next(iter(z.values()))))


def _labelled(
    program: Program, site: Site, value: Tensor, rows: range
) -> tuple[list[str], np.ndarray]:
    """Returns a site's values with the data second, then plates by name, then the event.

    Axes that no plate has, which Pyro leaves at length 1 between those that it uses, are dropped.

    Args:
        program: Which knows the axis of the data.
        site: Of the model, with its plates.
        value: Draws, `(L, ..., event)`.
        rows: Of the data, n of them.

    Returns:
        Names of the dimensions, "draw", "datum", the plates from left to right, "<site>_dim_<i>";
        and the values, `(L, n, plates, event)`.
    """
    plates, value = by_datum(program, site, value, rows)
    event = [f"{site['name']}_dim_{i}" for i in range(site["fn"].event_dim)]
    return ["draw", "datum", *plates, *event], value.cpu().numpy()


def _from_dict(
    groups: dict[str, dict[str, np.ndarray]],
    coords: dict[str, np.ndarray],
    dims: dict[str, list[str]],
) -> Groups:
    """Returns ArviZ's groups; its 1.x takes them as one dictionary, 0.x as keywords.

    Args:
        groups: Values by group and variable, the first axis that of the one chain, but for data.
        coords: Of "datum", `(N,)`.
        dims: Names of each variable's dimensions after chain and draw, which ArviZ adds itself.
    """
    with warnings.catch_warnings():
        # once a day, ArviZ 0.23 announces its refactoring when it is imported
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return import_module("arviz_base").from_dict(groups, coords=coords, dims=dims)
        except ModuleNotFoundError:
            return import_module("arviz").from_dict(**groups, coords=coords, dims=dims)
