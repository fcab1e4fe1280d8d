"""Estimates as labelled arrays: what `evidence.nc` holds, and back.

Dimensions are "estimator", by name; "datum", N; "samples", the G numbers of particles of the
paths; and "batch", B, of estimates whose particles all data share. Variables are the tables of an
`Estimate` under their own names, `(estimator, datum)` or `(estimator, samples, datum)`, in nats
where they are estimates or errors; its verdicts; and what a second way said, as "second_*".
"""

__all__ = ["from_dataset", "to_dataset"]

import json
from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import torch

from pyrovae.evidence.confirmed import Confirmation
from pyrovae.evidence.estimate import Estimate
from pyrovae.labelled import Dataset, Variable, to_xarray

TABLES = {  # of an estimate in a Dataset: dimensions, and what it is
    "value": (("datum",), "estimate of log p(x), nats"),
    "std_error": (("datum",), "Monte Carlo standard error, nats"),
    "ess": (("datum",), "effective sample size"),
    "num_draws": (("datum",), "draws made"),
    "pareto_k": (("datum",), "Pareto k-hat of the weights"),
    "path": (("samples", "datum"), "estimate from fewer samples, nats"),
    "path_std_error": (
        ("samples", "datum"),
        "standard error of one estimate from fewer samples, nats",
    ),
}
SCALARS = {  # of an estimate: what it is
    "label": "what the estimator is called",
    "seconds": "wall time, s",
    "tolerance": "standard error that a verdict asks for, nats",
}


def to_dataset(
    estimates: Mapping[str, Estimate],
    num_samples: tuple[int, ...],
    protocol: Mapping[str, object],
) -> Dataset:
    """Returns estimates as a Dataset: dimensions "estimator", "samples" (of the path) and "datum".

    Args:
        estimates: By name, of the same N data.
        num_samples: The G numbers of particles of their paths.
        protocol: Becomes the attributes: numbers and text as they are, all else as JSON.
    """
    all_of = list(estimates.values())
    variables: dict[str, Variable] = {
        f: (("estimator", *dims), torch.stack([getattr(e, f) for e in all_of]), text)
        for f, (dims, text) in TABLES.items()
    }
    words = np.array([e.verdict() for e in all_of])
    variables["verdict"] = (("estimator", "datum"), words, "what the estimate is worth")
    for f, text in SCALARS.items():
        variables[f] = (("estimator",), np.array([getattr(e, f) for e in all_of]), text)
    for f in fields(Confirmation):
        column = np.array([getattr(e.confirmation, f.name) for e in all_of])
        text = f"of the second way: {f.name.replace('_', ' ')}"
        variables[f"second_{f.name}"] = (("estimator",), column, text)
    for name, e in estimates.items():
        for key, column in e.extras.items():
            text = f"{key.replace('_', ' ')}, of {e.label}"
            variables[f"{key}_of_{name}"] = (("datum",), column, text)
        if e.batches is not None:
            text = "estimate by batch of the particles that all data share, nats"
            variables[f"{name}_batches"] = (("batch", "datum"), e.batches, text)
    coords = {
        "estimator": list(estimates),
        "samples": list(num_samples),
        "datum": range(len(all_of[0].value)),
    }
    flat = {
        k: json.dumps(v) if isinstance(v, bool) or not isinstance(v, int | float | str) else v
        for k, v in protocol.items()
    }
    return to_xarray(variables, coords, flat)


def from_dataset(
    dataset: Dataset,
) -> tuple[dict[str, Estimate], tuple[int, ...], dict[str, object]]:
    """Returns estimates, the numbers of particles of their paths, and the protocol.

    Args:
        dataset: Of `to_dataset`, also as `evidence.nc` keeps it.

    Raises:
        KeyError, ValueError: If something is missing, or of another kind.
    """
    estimates = {str(name): _estimate(dataset, name) for name in dataset["estimator"].values}
    protocol = {str(k): _plain(v) for k, v in dataset.attrs.items() if k != "sha256"}
    return estimates, tuple(dataset["samples"].values.tolist()), protocol


def _estimate(dataset: Dataset, name: str) -> Estimate:
    """Returns one estimator's results, of tables `(N,)` and `(G, N)`.

    A file of an earlier version may lack the label and the second way; batches are there only
    where data share their particles.

    Args:
        dataset: Of `to_dataset`.
        name: Of the estimator.

    Raises:
        KeyError: If a table is missing.
        ValueError: If one has other dimensions, or holds no numbers of its kind.
    """
    one = dataset.sel(estimator=name)
    for f, (dims, _) in TABLES.items():
        letter = "i" if f == "num_draws" else "f"
        if one[f].dims != dims or one[f].dtype.kind != letter:
            raise ValueError(f"{f} of {name!r} is {one[f].dtype} over {one[f].dims}")
    tables = {f: torch.from_numpy(one[f].values.copy()) for f in TABLES}
    if f"{name}_batches" in dataset:
        tables["batches"] = torch.from_numpy(dataset[f"{name}_batches"].values.copy())
    scalars = {f: one[f].item() for f in SCALARS if f != "label" or f in dataset}
    if "second_reason" in dataset:  # evidence of before has none
        second = [f.name for f in fields(Confirmation) if f"second_{f.name}" in dataset]
        kept = {f: one[f"second_{f}"].item() for f in second}
        scalars["confirmation"] = Confirmation(**kept)
    own = f"_of_{name}"
    extras = {
        str(key).removesuffix(own): torch.from_numpy(dataset[key].values.copy())
        for key in dataset
        if str(key).endswith(own)
    }
    return Estimate(str(name), **tables, **scalars, extras=extras)


def _plain(value: object) -> object:
    """Returns an attribute of a Dataset as it was before `to_dataset` made it fit for netCDF.

    That has numbers and text alone: truth values and `None` stand there as JSON. Lists and
    dictionaries stay the JSON that they became.

    Args:
        value: As it was read.
    """
    if isinstance(value, str):
        return json.loads(value) if value in ("true", "false", "null") else value
    return value.item() if isinstance(value, np.generic) else value
