"""What a run was asked, and how its training went: config.yaml and metrics.jsonl."""

__all__ = [
    "CONFIG",
    "Config",
    "METRICS",
    "OPTIONS",
    "about_model",
    "about_training",
    "read_config",
    "read_metrics",
    "read_notes",
    "write_config",
    "write_metrics",
]

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Required, TypedDict, cast

import yaml

from pyrovae import storage
from pyrovae.arrays import said

CONFIG, METRICS = "config.yaml", "metrics.jsonl"


class Config(TypedDict, total=False):
    """The options of a run in `config.yaml`, those that are read again.

    Attributes:
        data: Name, path or import path of the data set.
        root: Folder that holds the named data sets.
        binarize: "static", "dynamic", "threshold" or "none".
        batch_size: Rows of a step of training.
        seed: Of weights, training and evaluation.
        valid_size: Training rows held out for validation; `None` for the data set's own number.
        columns: What was said of a table's columns, by name; `None` of other data.
        num_labels: Of training rows that a model is told; `None` for all there are.
        likelihood: Of a VAE, by name or import path; `None` of other models.
        program: `package.module:make`; `None` of a model.
        model: Name or import path; "vae" of a program, too, which does not read it.
        model_options: Of the model, but those of the VAE that have names of their own here.
        plate: Name of the plate over the data.
    """

    data: Required[str]
    root: Required[str]
    binarize: Required[str]
    batch_size: Required[int]
    seed: Required[int]
    valid_size: int | None
    columns: dict[str, object] | None
    num_labels: int | None
    likelihood: str | None
    program: str | None
    model: str | None
    model_options: dict[str, object] | None
    plate: str


OPTIONS = {  # of config.yaml, those that are read again: what they may be
    "data": str,
    "root": str,
    "binarize": str,
    "likelihood": str | None,
    "batch_size": int,
    "seed": int,
    "valid_size": int | None,
    "columns": dict | None,
    "num_labels": int | None,
    "program": str | None,
    "model": str | None,
    "model_options": dict | None,
    "objective": str | None,
}


def read_config(folder: Path) -> Config:
    """Returns what `write_config` wrote.

    Of options that are read again the type is checked, others are taken as they are; those that
    came later than the first version may be `None`, and need not be there.

    Args:
        folder: Of the run.

    Raises:
        StateError: If `config.yaml` is not there, is no plain YAML, or an option is missing or of
            another type.
    """
    path = folder / CONFIG
    try:
        config = storage.read_yaml(path)
        if not isinstance(config, dict):
            raise ValueError("it is no list of options")
        for name, kinds in OPTIONS.items():
            if not isinstance(config.get(name), kinds):
                raise ValueError(f"{name} is {config.get(name, 'missing')!r}")
        return cast(Config, config)
    except (OSError, ValueError) as e:
        raise storage.StateError(f"{path} cannot be read: {said(e)}") from e


def about_model(config: Mapping[str, object]) -> dict[str, object]:
    """Returns what the protocol says of the model of these options.

    Of a VAE that is its likelihood, with prior, posterior and activation where they are others
    than most have; of another model its name.

    Args:
        config: Of the run.
    """
    if not config.get("likelihood"):
        return {"model": config.get("model")}
    options = config.get("model_options")
    return {"likelihood": config["likelihood"], **(options if isinstance(options, dict) else {})}


def about_training(config: Mapping[str, object]) -> dict[str, object]:
    """Returns what the protocol says of how the model of these options was trained.

    Args:
        config: Of the run; one of before there were objectives says nothing.

    Returns:
        The objective, and of how the best epoch was found what is no default.
    """
    kept = {name: config[name] for name in ("criterion", "ema") if config.get(name) is not None}
    return {name: config[name] for name in ("objective",) if name in config} | kept


def write_config(folder: Path, config: Mapping[str, object], notes: Iterable[str] = ()) -> None:
    """Writes `config.yaml`: every option that decides the numbers, resolved.

    Args:
        folder: Of the run.
        config: Options by name, of values that JSON holds.
        notes: Sentences that stand above as comments: what a run was trained with before it went
            on with these options.

    Raises:
        OSError: If it cannot be written.
        TypeError: If a value is none of JSON's.
    """
    plain = json.loads(json.dumps(dict(config)))  # of which nothing is met twice, for no anchors
    lines = [*(f"# {note}" for note in notes), yaml.safe_dump(plain, sort_keys=False)]
    storage.write_lines(folder / CONFIG, [line.rstrip() for line in lines])


def read_notes(folder: Path) -> list[str]:
    """Returns the notes that `write_config` wrote, in order, without their "# ".

    Args:
        folder: Of the run.

    Raises:
        OSError, ValueError: If there is no `config.yaml` that can be read as text.
    """
    lines = storage.read_text(folder / CONFIG).splitlines()
    return [line.removeprefix("# ") for line in lines if line.startswith("# ")]


def write_metrics(folder: Path, history: Mapping[str, Sequence[float]]) -> None:
    """Writes `metrics.jsonl`, a line an epoch: ELBOs in nats per datum, wall time in seconds.

    Args:
        folder: Of the run.
        history: "elbo", "valid_elbo", "criterion", "grad_norm" and "seconds", a number an epoch
            each; one that is empty, as without validation data, is left out.

    Raises:
        OSError: If it cannot be written.
    """
    names = ("elbo", "valid_elbo", "criterion", "grad_norm", "seconds")
    columns = {k: history[k] for k in names if history.get(k)}
    lines = (
        json.dumps({"epoch": i + 1, **dict(zip(columns, row, strict=True))})
        for i, row in enumerate(zip(*columns.values(), strict=True))
    )
    storage.write_lines(folder / METRICS, lines)


def read_metrics(folder: Path) -> dict[str, list[float]]:
    """Returns what `write_metrics` wrote, a list for each name; empty without the file.

    Args:
        folder: Of the run.

    Raises:
        StateError: If something else stands there.
    """
    path = folder / METRICS
    if not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in storage.read_text(path).splitlines()]
        names = list(rows[0].keys()) if rows else []
        table = {name: [row[name] for row in rows] for name in names}
        if all(type(v) in (int, float) for column in table.values() for v in column):
            return table
        raise ValueError("something in it is no number")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise storage.StateError(f"{path} cannot be read: {said(e)}; move it away") from e
