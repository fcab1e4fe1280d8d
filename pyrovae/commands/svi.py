"""The main job: fit a model or program by SVI, then say what log P(X) of held-out data is.

From the command line to the page in one direction: options (`svi_options`), a task of them, with
its data and its model, the fit, what of it is saved, the evidence, pictures and page.
"""

__all__ = ["main", "parser"]

import json
import shlex
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.commands.common import Asked, blocks_of, guarded, interrupted
from pyrovae.commands.named import (
    own_code,
    panels_asked,
)
from pyrovae.commands.svi_options import configured, parser
from pyrovae.commands.svi_task import Task, task_of
from pyrovae.commands.users import blamed
from pyrovae.errors import NoDensity, StateError

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import Namespace
    from torch import Tensor

    from pyrovae.data.rows import Rows
    from pyrovae.evidence.results import Evidence
    from pyrovae.runs.folder import Folder
    from pyrovae.svi import Fit
    from pyrovae.svi.distributed import Processes
    from pyrovae.svi.training import State


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code.

    0 is ok, 2 usage, 3 data, 4 diverged, 5 checkpoint, 130 interrupted, 70 what nobody foresaw.

    Args:
        argv: Without the name of the command; `None` takes the process's own.
    """
    argv = sys.argv[1:] if argv is None else argv
    return guarded(lambda: run(configured(argv), argv))


def run(config: "Namespace", argv: list[str]) -> int:
    """Fits, evaluates, prints and writes the run folder; of several processes, rank 0 does.

    Args:
        config: What is asked for.
        argv: The command line, for the one that goes on after an interrupt.
    """
    from pyrovae.runs.folder import worked_in
    from pyrovae.svi.distributed import joined

    with joined(config.device) as (processes, config.device), blamed(*own_code(vars(config))):
        task = task_of(config)
        if processes.rank:
            _fitted(task, None, processes)
            return 0
        path = _path(config)
        going_on = _going_on(config, argv, path, processes.size)
        with worked_in(path) as folder, interrupted(going_on):
            result, evidence = _fitted_and_evaluated(task, folder, processes)
    about = f"{config.data}, {config.binarize} binarization; {result}"
    if "accuracy" in evidence.protocol:
        about += f"\naccuracy of the test data's labels: {evidence.protocol['accuracy']:.2%}"
    to = sys.stderr if config.json else sys.stdout
    print(f"{about}\n\n{evidence}\n\nrun folder: {path}", file=to)
    if config.json:
        table = {"run": str(path), "estimators": evidence.rows()}
        print(json.dumps({**table, "protocol": dict(evidence.protocol)}))
    return 0


def _path(config: "Namespace") -> Path:
    """Returns the path of the run folder, of a new run without `--out` one named by the time.

    Args:
        config: What is asked for.

    Raises:
        ValueError: If a run is to be resumed that is not named, or is to be dropped as well.
    """
    if config.resume and not config.out:
        raise ValueError("--resume needs the run's folder; add --out FOLDER")
    if config.resume and config.overwrite:
        raise ValueError("--resume keeps the run and --overwrite drops it; give one of them")
    return Path(config.out or f"runs/{datetime.now():%Y%m%d-%H%M%S}-{Path(config.data).stem}")


def _going_on(
    config: "Namespace", argv: list[str], path: Path, num_processes: int
) -> Callable[[], str]:
    """Returns what says, when this is interrupted, which command goes on with it.

    Args:
        config: What was asked for.
        argv: The command line, of which the new one is made.
        path: Of the run folder: whether something of this run is in it yet decides.
        num_processes: How many train together.
    """
    before = _written(path)

    def sentence() -> str:
        again = [*_without_folder(argv), "--out", str(path)]
        what = f"nothing of it is in {path} yet, and this begins anew"
        if config.resume or _written(path) != before:
            again, what = [*again, "--resume"], f"this goes on with the run in {path}"
        elif config.overwrite:
            again = [*again, "--overwrite"]
        start = "python" if num_processes == 1 else "torchrun, with its options as before,"
        return f"{what}: {start} -m pyrovae.svi {shlex.join(again)}"

    return sentence


def _written(path: Path) -> int:
    """Returns when a run was last taken down in its folder, ns since 1970; 0 where none was.

    Args:
        path: Of the run folder.
    """
    from pyrovae import runs

    checkpoint = path / runs.CHECKPOINT
    return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0


def _without_folder(argv: list[str]) -> list[str]:
    """Returns a command line without what says where it writes, and whether it resumes.

    Args:
        argv: Without the name of the command; it stays as it is.
    """
    left = list(argv)
    if "--out" in left:
        del left[left.index("--out") : left.index("--out") + 2]
    said = ("--resume", "--overwrite")
    return [word for word in left if word not in said and not word.startswith("--out=")]


def _fitted_and_evaluated(
    task: Task, folder: "Folder", processes: "Processes"
) -> "tuple[Fit, Evidence]":
    """Writes the run folder, and returns the result of the fit and the evidence.

    What would be refused is refused before anything is trained or written. Killed at any time, the
    folder holds a run that `--resume` goes on with.

    Args:
        task: What is asked for.
        folder: Of the run, locked.
        processes: That train together; this is rank 0.
    """
    from pyrovae import report, runs, storage
    from pyrovae.commands.estimators import estimators_asked
    from pyrovae.evidence.results import Evidence
    from pyrovae.program import summing_out
    from pyrovae.runs.saving import check_loadable

    config, path = task.config, folder.path
    _check_folder(folder, config)
    if task.model:
        check_loadable(task.model)
    model, guide = task.pair
    if guide is None:  # which the estimators would say in words of their own
        summing_out(model, guide, *_first_batch(task))
    test = tuple(x.to(config.device) for x in task.arrays(task.splits.test))
    options: Asked = {
        "estimators": estimators_asked(config, ("num_particles",)),
        "seed": config.seed,
        "plate": config.plate,
        "compile": config.compile,
    }
    why = _refusal(task, test, options)
    result, notes = _fitted(task, folder, processes)
    runs.write_config(path, task.kept, notes)
    runs.write_metrics(path, vars(result))  # killed after its last epoch, it has none left
    some = () if task.model else _first_batch(task)
    runs.save(task.model or task.pair, path, *some, epoch=result.best_epoch)
    if why:
        evidence = Evidence.none(why, _about(task))
    else:
        evidence = _evaluated(task, folder, test, options)
    runs.drop_evidence(folder)
    if evidence.estimates:
        storage.write_dataset(path / runs.EVIDENCE, evidence.to_xarray())
    runs.write_figures(path, task.model, task.splits, result, evidence, config.device)
    asked = panels_asked(task.config.panels)
    report.write(path, splits=task.splits, program=task.pair, panels=asked)
    runs.drop_blocks(folder)
    return result, evidence


def _refusal(task: Task, test: "tuple[Tensor | Rows, ...]", options: Asked) -> NoDensity | None:
    """Returns why there will be no log P(X), where the program has none; it is trained even so.

    Args:
        task: What is asked for.
        test: What model and guide take of the test data, `(N, ...)` each.
        options: Of the evaluation.

    Raises:
        ValueError: Whatever else the evaluation would be refused with.
    """
    from pyrovae.evidence.planning import plan

    try:
        plan(*task.pair, *test, **options)
    except NoDensity as e:
        return e
    return None


def _about(task: Task) -> dict[str, object]:
    """Returns what is on record of data, model and training."""
    from pyrovae import runs

    about = runs.about_model(task.kept)
    if not task.model:
        about = {"program": task.config.program, "program_sha256": task.program}
    data = {**task.splits.protocol, "part": "test"}
    return {**data, **about, **runs.about_training(task.kept)}


def _check_folder(folder: "Folder", config: "Namespace") -> None:
    """Raises ValueError where a new run would replace an old one, or there is none to resume.

    Args:
        folder: Of the run.
        config: What is asked for.
    """
    from pyrovae import runs

    folder.check(runs.RUN_FILES)
    there = runs.holds_run(folder)
    if config.resume and not there:
        raise StateError(f"there is no run in {folder.path.resolve()} to resume")
    if there and not (config.resume or config.overwrite):
        resume = "--resume, " * (runs.CHECKPOINT in folder)
        raise ValueError(
            f"{folder.path} already holds a run; add {resume}--overwrite, or another --out"
        )


def _fitted(
    task: Task, folder: "Folder | None", processes: "Processes"
) -> "tuple[Fit, list[str]]":
    """Returns the result of the fit, and notes on what earlier epochs were trained with.

    Args:
        task: What is asked for.
        folder: Of the run; `None` on other ranks than 0, which write nothing.
        processes: That train together; all go on from what rank 0 has read.
    """
    import pyrovae as pv
    from pyrovae import runs
    from pyrovae.runs.resuming import read_checkpoint

    config, resume = task.config, None
    if folder and config.resume:
        resume = read_checkpoint(folder.path, task.splits.protocol, task.kept, task.program)
        folder.claim(runs.RUN_FILES)
    resume = processes.broadcast_object(resume)
    notes = resume.notes if resume else []
    result = pv.svi.fit(
        *task.pair,
        task.arrays(task.splits.train),
        valid=task.arrays(task.splits.valid),
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        objective=task.objective,
        lr=config.lr,
        lr_schedule=config.lr_schedule,
        optimizer=config.optimizer,
        clip_norm=config.clip_norm,
        ema=config.ema,
        criterion=task.criterion,
        criterion_rows=config.criterion_rows,
        patience=config.patience,
        transform=_transform(task),
        device=config.device,
        compile=config.compile,
        seed=config.seed,
        progress=config.progress,
        callback=_writer(task, folder, notes) if folder else None,
        resume=resume.state if resume else None,
    )
    return result, notes


def _transform(task: Task) -> "Callable[..., tuple[Tensor, ...]] | None":
    """Returns what training applies to a batch, of which x alone is drawn afresh; or `None`.

    Args:
        task: What is asked for, of whose model x need not be the first input.
    """
    fresh = task.splits.transform
    inputs = task.model.inputs if task.model else ("x",)
    if fresh is None or "x" not in inputs:
        return None
    at = inputs.index("x")
    return lambda *batch: (*batch[:at], fresh(batch[at]), *batch[at + 1 :])


def _writer(task: Task, folder: "Folder", notes: list[str]) -> "Callable[[State], None]":
    """Returns the callback that keeps the run folder up to date, an epoch at a time.

    It is first called when all input has been found good: only then does a new run replace an old.
    Each file is written whole or not at all, the checkpoint after the model that it speaks of.

    Args:
        task: What is asked for.
        folder: Of the run.
        notes: What earlier epochs were trained with, to stand above config.yaml.
    """
    from pyrovae import runs, storage

    path, model = folder.path, task.model
    known = {"data": task.splits.protocol, "config": task.kept, "notes": notes}

    def write(state: "State") -> None:
        epoch = len(state["elbo"])
        if epoch == 0:
            runs.clear(folder)
        if state["best_epoch"] == epoch and model:
            runs.write_model(path, model, epoch=epoch)
        elif state["best_epoch"] == epoch:
            parameters = state["averages"] or state["parameters"]
            runs.write_state(path, parameters, state["buffers"], epoch=epoch)
        storage.save_state(path / runs.CHECKPOINT, {**state, **known, "program": task.program})
        runs.write_config(path, task.kept, notes)
        runs.write_metrics(path, state)

    return write


def _first_batch(task: Task) -> "tuple[Tensor, ...]":
    """Returns what model and guide take of the first rows of training data, `(n, ...)` each."""
    size, device = task.config.batch_size, task.config.device
    return tuple(x[:size].to(device) for x in task.arrays(task.splits.train))


def _evaluated(
    task: Task, folder: "Folder", test: "tuple[Tensor | Rows, ...]", options: Asked
) -> "Evidence":
    """Returns the evidence of the test data; what was finished before an interrupt stays.

    Args:
        task: What was asked for, trained by now.
        folder: Of the run, which keeps finished blocks.
        test: What model and guide take of the test data, `(N, ...)` each.
        options: Of the evaluation.
    """
    import pyrovae as pv
    from pyrovae import runs
    from pyrovae.commands.estimators import on_record

    protocol = {
        **_about(task),
        **runs.accuracy(task.model, task.splits.test, task.config.device),
        **on_record(task.config),
        "saved_sha256": runs.saved_sha256(folder.path),
    }
    blocks = blocks_of(folder, *task.pair, test, options, protocol)
    return pv.evaluate(
        *task.pair,
        *test,
        **options,
        progress=task.config.progress,
        protocol=protocol,
        blocks=blocks,
    )
