"""What a run folder holds, and how it is loaded again.

A finished run of the main job has these files, beside `manifest.json`, see `Folder`:

    config.yaml             every option that decides the numbers; notes as comments above
    metrics.jsonl           a JSON object a line, one an epoch: "epoch", "elbo", "valid_elbo" (nats
                            per datum), "seconds"
    model.safetensors       what was learned, see `pyrovae.runs.saving`
    checkpoint.safetensors  the state that training goes on from, see `read_checkpoint`
    evidence.nc             estimates of each datum, see `pyrovae.evidence.stored`
    evidence.csv            the same as a table, a datum a row
    figures/<name>.png      pictures of training, model and evidence
    report.html             the page, one file
    blocks/<key>/<name>.safetensors
                            finished blocks of an evaluation that has not come to its end
"""

__all__ = [
    "BLOCKS",
    "CHECKPOINT",
    "CONFIG",
    "Config",
    "EVIDENCE",
    "EVIDENCE_FILES",
    "REPORT",
    "RUN_FILES",
    "TABLE",
    "Blocks",
    "about_model",
    "about_training",
    "clear",
    "drop_blocks",
    "drop_evidence",
    "holds_run",
    "load_evidence",
    "read_config",
    "read_metrics",
    "read_notes",
    "write_config",
    "write_evidence",
    "write_figures",
    "write_metrics",
]

import json
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Required, TypedDict, cast

import torch
import yaml
from torch import Tensor

from pyrovae import plots, storage
from pyrovae.arrays import said
from pyrovae.data import Splits
from pyrovae.data.rows import Rows
from pyrovae.evidence.results import Evidence
from pyrovae.labelled import read_dataset
from pyrovae.models.base import Model
from pyrovae.runs import pictures
from pyrovae.runs.folder import Folder
from pyrovae.runs.saving import MODEL
from pyrovae.storage import State
from pyrovae.svi.training import Fit

CONFIG, METRICS = "config.yaml", "metrics.jsonl"
CHECKPOINT, EVIDENCE, FIGURES = "checkpoint.safetensors", "evidence.nc", "figures"
TABLE, BLOCKS, REPORT = "evidence.csv", "blocks", "report.html"
OF_EVIDENCE = "evidence", "histogram", "khat_importance", "khat_prior", "two_estimates", "extremes"
OF_MODEL = "training", "reconstructions", "samples", "latent_space", "manifold"  # pictures


class Config(TypedDict, total=False):
    """The options of a run in `config.yaml`, those that are read again.

    Attributes:
        data: Name, path or import path of the data set.
        root: Folder that holds the named data sets.
        binarize: "static", "dynamic", "threshold" or "none".
        batch_size: Rows of a step of training.
        seed: Of weights, training and evaluation.
        valid_size: Training rows held out for validation; `None` for the data set's own number.
        likelihood: Of a VAE, by name or import path; `None` of other models.
        program: `package.module:make`; `None` of a model.
        model: Name or import path; "vae" of a program, too, which does not read it.
        model_options: Of models other than the VAE, whose options have names of their own.
        plate: Name of the plate over the data.
    """

    data: Required[str]
    root: Required[str]
    binarize: Required[str]
    batch_size: Required[int]
    seed: Required[int]
    valid_size: int | None
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
    "program": str | None,
    "model": str | None,
    "model_options": dict | None,
    "objective": str | None,
}
LATER = (
    "valid_size",
    "program",
    "model",
    "model_options",
    "likelihood",
    "objective",
)  # need not be there


def _picture(name: str) -> str:
    """Returns the name of a picture's file in a run folder, such as "figures/evidence.png"."""
    return f"{FIGURES}/{name}.png"


EVIDENCE_FILES = EVIDENCE, TABLE, REPORT, *map(_picture, OF_EVIDENCE)  # made of one evidence
RUN_FILES = CONFIG, METRICS, MODEL, CHECKPOINT, *map(_picture, OF_MODEL), *EVIDENCE_FILES


def holds_run(folder: Folder) -> bool:
    """Returns whether a folder has files of a run in it, and ours; a model alone is worth it.

    Args:
        folder: That `worked_in` gave.
    """
    return any(name in folder for name in (CONFIG, METRICS, MODEL, CHECKPOINT, EVIDENCE))


def clear(folder: Folder) -> None:
    """Removes the files of a run from a folder, and nothing else; makes room for another's.

    Args:
        folder: That `worked_in` gave; from now on its list has all that a run writes.

    Raises:
        ValueError: If a file of that name is there and not ours.
    """
    drop_blocks(folder)
    folder.remove(RUN_FILES)
    folder.claim(RUN_FILES)


def drop_blocks(folder: Folder) -> None:
    """Removes the blocks of all evaluations, whatever their keys.

    Args:
        folder: That `worked_in` gave.
    """
    folder.remove([name for name in folder.names if name.startswith(f"{BLOCKS}/")])


def drop_evidence(folder: Folder) -> None:
    """Removes evidence with all that was made of it: before other evidence takes its place.

    So a page or a picture never stands beside numbers that it does not show.

    Args:
        folder: That `worked_in` gave.

    Raises:
        ValueError: If a file of such a name is there and not ours.
    """
    folder.remove(EVIDENCE_FILES)
    folder.claim(EVIDENCE_FILES)


def read_config(folder: Path) -> Config:
    """Returns what `write_config` wrote.

    Options that came later than the first version (`LATER`) need not be there; of those that are
    read again the type is checked, others are taken as they are.

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
            if not isinstance(config.get(name, None if name in LATER else ...), kinds):
                raise ValueError(f"{name} is {config.get(name, 'missing')!r}")
        return cast(Config, config)
    except (OSError, ValueError) as e:
        raise storage.StateError(f"{path} cannot be read: {said(e)}") from e


def about_model(config: Mapping[str, object]) -> dict[str, object]:
    """Returns what the protocol says of the model of these options: its likelihood, else its name.

    Args:
        config: Of the run.
    """
    named = "likelihood" if config.get("likelihood") else "model"
    return {named: config.get(named)}


def about_training(config: Mapping[str, object]) -> dict[str, object]:
    """Returns what the protocol says of how the model of these options was trained.

    Args:
        config: Of the run; one of before there were objectives says nothing.
    """
    return {name: config[name] for name in ("objective",) if name in config}


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
        history: "elbo", "valid_elbo" and "seconds", a number an epoch each; one that is empty, as
            without validation data, is left out.

    Raises:
        OSError: If it cannot be written.
    """
    columns = {k: history[k] for k in ("elbo", "valid_elbo", "seconds") if history[k]}
    lines = (
        json.dumps({"epoch": i + 1, **dict(zip(columns, row, strict=True))})
        for i, row in enumerate(zip(*columns.values(), strict=True))
    )
    storage.write_lines(folder / METRICS, lines)


class Blocks(MutableMapping[str, dict[str, State]]):
    """Finished blocks of an evaluation in a folder: whole or not there, each a file of its own.

    An evaluation that is stopped finds here what it had done. One that is broken, or was altered,
    counts as not there, and is computed again.

    A block "guide-64" holds by name the columns `(..., n)` that estimators read of the guide's
    draws for the n rows from 64 on, such as "importance.value", the "seconds" it took, and, where
    data share their draws, "batches", `(B, n)`; see `pyrovae.evidence.blocks`. One named
    "guide-second" is what a second way said of all of them.

    Args:
        folder: Where they lie, in a folder of their own.
        key: What the blocks depend on: those of another key are not seen.

    Raises:
        ValueError: If something that is not ours lies in their place.
    """

    def __init__(self, folder: Folder, key: str) -> None:
        self._owner, self._name = folder, f"{BLOCKS}/{key}/"
        self._folder = folder.path / self._name
        folder.claim([self._name])

    def __getitem__(self, name: str) -> dict[str, State]:
        if name not in self:
            raise KeyError(name)
        return storage.load_state(self._path(name))

    def __setitem__(self, name: str, block: dict[str, State]) -> None:
        storage.save_state(self._path(name), block)

    def __delitem__(self, name: str) -> None:
        self._path(name).unlink()

    def __contains__(self, name: object) -> bool:
        try:
            storage.load_state(self._path(str(name)))
        except storage.StateError:  # not there, or not as it was written: to be computed again
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in sorted(self._folder.glob(f"*{storage.STATE}")))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def discard(self) -> None:
        """Removes these blocks."""
        self._owner.remove([self._name])

    def _path(self, name: str) -> Path:
        """Returns the file of a block, `blocks/<key>/<name>.safetensors` in the run's folder."""
        return self._folder / f"{name}{storage.STATE}"


def load_evidence(folder: Path) -> Evidence:
    """Returns the evidence of a run folder.

    Args:
        folder: Of the run.

    Raises:
        StateError: If it has no `evidence.nc`, or one that is broken, altered or of another kind.
    """
    path = folder / EVIDENCE
    try:
        return Evidence.from_xarray(read_dataset(path))
    except Exception as e:  # whatever the libraries make of broken files
        why = f"cannot be read ({said(e)})" if path.exists() else "is not there"
        raise storage.StateError(
            f"{path} {why}; python -m pyrovae.evidence {folder} makes it"
        ) from e


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


def write_evidence(
    folder: Folder, evidence: Evidence, x: Tensor | Rows, shape: tuple[int, int] | None
) -> None:
    """Writes `evidence.nc`, `evidence.csv` and their pictures, with those of the extreme data.

    What other evidence left there is removed first, the report with it.

    Args:
        folder: That `worked_in` gave.
        evidence: Of all rows of x.
        x: The data, `(N, D)`.
        shape: Height and width of an image, H W = D; `None` where the data are none.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If one of that name is there and not ours.
    """
    drop_evidence(folder)
    storage.write_dataset(folder.path / EVIDENCE, evidence.to_xarray())
    storage.write_lines(folder.path / TABLE, evidence.to_csv())
    for name, figure in pictures.of_evidence(evidence, x, shape).items():
        plots.save(figure, folder.path / _picture(name))


def write_figures(
    folder: Path,
    model: Model | None,
    splits: Splits,
    fit: Fit,
    evidence: Evidence,
    device: str | torch.device | None = None,
) -> None:
    """Writes the pictures of a run into its `figures/`, those that its model can give.

    Args:
        folder: Of the run.
        model: What was trained; `None` of a program, of which only training and evidence are
            drawn.
        splits: Its data, of which the test data are shown.
        fit: Its training: ELBOs by epoch, nats per datum.
        evidence: Of the test data.
        device: Where the model is; `None` for the data's own.

    Raises:
        OSError: If a file cannot be written.
    """
    history = {"elbo": fit.elbo, "valid_elbo": fit.valid_elbo}
    for name, figure in pictures.of_run(model, splits, history, evidence, device).items():
        plots.save(figure, folder / _picture(name))
