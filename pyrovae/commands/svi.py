"""The main job: fit a model or program by SVI, then say what log P(X) of held-out data is."""

import json
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pyrovae.commands.common import (
    Asked,
    blocks_of,
    check_device,
    guarded,
    interrupted,
)
from pyrovae.commands.named import check_again, data_source, model_class, own_code
from pyrovae.commands.users import blamed, check_takes, make_program, program_sha256

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import Namespace

    from pyrovae.commands.options import Parser
    from pyrovae.data import Split, Splits
    from pyrovae.evidence.results import Evidence
    from pyrovae.models.base import Model
    from pyrovae.runs.folder import Folder
    from pyrovae.runs.saving import Pair
    from pyrovae.svi import Fit
    from pyrovae.svi.distributed import Processes

INVOCATION = ("config", "out", "resume", "overwrite", "progress", "json", "download")
DOES = (
    "Fits a VAE, or another model or program, by SVI, and says what log P(X) of held-out data is."
)
EXAMPLES = (
    ("--data mnist --download --z-dim 50 --out runs/mnist", "a VAE of MNIST"),
    ("--out runs/mnist --resume --num-epochs 500", "the same run, further"),
    ("--model conv-vae --model.channels 16 32", "another model, with its options"),
    ("--model mine.Model --data x.npy", "your own: a subclass of pyrovae.Model in mine.py"),
    ("--program prog:make --data xy.npz", "your own: make() in prog.py gives (model, guide)"),
)


def parser() -> "Parser":
    """Returns the command line; what is not about this invocation also goes into config.yaml."""
    from pyrovae.commands.estimators import add_estimators
    from pyrovae.commands.model_options import add_model
    from pyrovae.commands.options import AMOUNT, COUNT, SEED, Parser, add_common

    p = Parser("svi", DOES, EXAMPLES)
    add = p.add_argument_group("data").add_argument
    add(
        "--data",
        default="digits",
        help="data set by name, or the path of a .npy or .npz (of a program: its arrays in order)",
    )
    add("--root", default="data", metavar="FOLDER", help="that holds the named data sets")
    add("--download", action="store_true", help="fetch a torchvision data set that is not there")
    add(
        "--binarize",
        choices=["static", "dynamic", "threshold", "none"],
        help="(default: dynamic; of a program: none)",
    )
    add(
        "--valid-size",
        type=COUNT | None,
        metavar="N",
        help="training rows held out for validation (default: a fifth of the rows; 10,000 of the "
        "MNIST family)",
    )
    add = p.add_argument_group("model").add_argument
    add_model(add)
    add(
        "--program",
        type=str | None,
        metavar="MODULE:MAKE",
        help="instead of a model: make() returns (model, guide)",
    )
    add("--plate", default="data", metavar="NAME", help="of a program's plate over the data")
    add = p.add_argument_group("training").add_argument
    add(
        *("-n", "--num-epochs"),
        type=COUNT,
        default=300,
        metavar="N",
        help="passes over the training data",
    )
    add("--batch-size", type=COUNT, default=128, metavar="N", help="rows of a step")
    add(
        "--lr",
        type=AMOUNT,
        default=1e-3,
        metavar="X",
        help="learning rate; the highest one of one-cycle",
    )
    add("--lr-schedule", default="constant", choices=["constant", "one-cycle"])
    add("--clip-norm", type=AMOUNT | None, metavar="X", help="largest norm of the gradient")
    add(
        "--patience",
        type=COUNT | None,
        metavar="N",
        help="epochs to wait for a better validation ELBO",
    )
    add("--seed", type=SEED, default=0, metavar="N", help="of weights, training and evaluation")
    add = p.add_argument_group("evidence").add_argument
    add_estimators(add, ("elbo", "importance", "prior"))
    add(
        "--num-particles",
        type=COUNT,
        default=5_000,
        metavar="K",
        help="samples per datum",
    )
    add = p.add_argument_group("run folder").add_argument
    add(
        "--out",
        type=str | None,
        metavar="FOLDER",
        help="of the run (default: runs/<time>-<data>)",
    )
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--overwrite", action="store_true", help="replace the run in --out")
    add("--config", action="config", metavar="FILE", help="YAML of options; flags override it")
    add_common(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 3 data, 4 diverged, 5 checkpoint."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded(lambda: run(_configured(argv), argv))


def _configured(argv: list[str]) -> "Namespace":
    """Returns what the command line asks for, of a run that is resumed as it was begun."""
    from pyrovae.commands.dotted import estimator_options, without_dotted
    from pyrovae.commands.model_options import resolve, with_options_shown

    p = with_options_shown(parser(), argv)
    argv, dotted = without_dotted(argv)
    config = p.parse_args(argv)
    if config.resume and config.out and (Path(config.out) / "config.yaml").exists():
        from pyrovae.runs import read_config

        read_config(Path(config.out))
        config = p.parse_args(["--config", str(Path(config.out) / "config.yaml"), *argv])
    check_again(vars(config), {a.partition("=")[0].removeprefix("--") for a in argv})
    if config.program and (dotted.model or config.model != p.get_default("model")):
        raise ValueError("a program is no model with options; give --program or --model")
    with blamed(*own_code(vars(config))):
        resolve(config, dotted.model)
    config.estimator_options = estimator_options(config.estimator_options, dotted.estimators)
    config.binarize = config.binarize or ("none" if config.program else "dynamic")
    return config


def run(config: "Namespace", argv: list[str]) -> int:
    """Fits, evaluates, prints and writes the run folder; of several processes, rank 0 does."""
    from pyrovae.svi.distributed import joined

    with joined(config.device) as (processes, config.device), blamed(*own_code(vars(config))):
        return _run(config, processes, argv)


def _run(config: "Namespace", processes: "Processes", argv: list[str]) -> int:
    from pyrovae.runs.folder import worked_in

    # through JSON, which makes plain numbers of the parser's restricted ones
    kept = json.loads(json.dumps({k: v for k, v in vars(config).items() if k not in INVOCATION}))
    splits = _splits(config)
    check_device(config.device)
    model = None if config.program else _model(kept, splits)
    pair = (model.model, model.guide) if model else _program(config, splits)
    job = Task(config, kept, splits, model, pair, "" if model else program_sha256(pair))
    if processes.rank:
        _fitted(job, None, processes)
        return 0
    path = _path(config)
    before = _written(path)

    def how() -> str:
        again = [*_without(argv), "--out", str(path)]
        what = f"nothing of it is in {path} yet, and this begins anew"
        if config.resume or _written(path) != before:
            again, what = [*again, "--resume"], f"this goes on with the run in {path}"
        elif config.overwrite:
            again = [*again, "--overwrite"]
        start = "python" if processes.size == 1 else "torchrun, with its options as before,"
        return f"{what}: {start} -m pyrovae.svi {shlex.join(again)}"

    with worked_in(path) as folder, interrupted(how):
        result, evidence = _fitted_and_evaluated(job, folder, processes)
    to = sys.stderr if config.json else sys.stdout
    print(
        f"{config.data}, {config.binarize} binarization; {result}\n\n{evidence}\n\n"
        f"run folder: {folder.path}",
        file=to,
    )
    if config.json:
        table = {"run": str(folder.path), "estimators": evidence.rows()}
        print(json.dumps({**table, "protocol": dict(evidence.protocol)}))
    return 0


class Task(NamedTuple):
    """What is asked for, with its data and its model."""

    config: "Namespace"
    kept: dict[str, Any]
    splits: "Splits"
    model: "Model | None"
    pair: "Pair"
    program: str  # digest, of a program that is no model

    def arrays(self, split: "Split") -> tuple[Any, ...]:
        """Returns what model and guide take of a split."""
        return self.model.arrays(split) if self.model else split.arrays


def _fitted_and_evaluated(
    task: Task, folder: "Folder", processes: "Processes"
) -> "tuple[Fit, Evidence]":
    """Writes the run folder, and returns the result of the fit and the evidence."""
    import pyrovae as pv
    from pyrovae import report, runs, storage
    from pyrovae.commands.estimators import estimators_asked, on_record
    from pyrovae.evidence.evaluate import planned
    from pyrovae.runs.saving import check_loadable

    config, splits, model, pair = task.config, task.splits, task.model, task.pair
    _check_folder(folder, config)
    if model:
        check_loadable(model)  # before training, too
    test = tuple(x.to(config.device) for x in task.arrays(splits.test))
    options: Asked = {
        "estimators": estimators_asked(config, ("num_particles",)),
        "seed": config.seed,
        "plate": config.plate,
        "compile": config.compile,
    }
    planned(*pair, *test, **options)  # what would be refused is refused before training
    result, notes = _fitted(task, folder, processes)
    runs.write_config(folder.path, task.kept, notes)
    runs.write_metrics(folder.path, vars(result))  # killed after its last epoch, it has none left
    some = [] if model else [x[: config.batch_size].to(config.device) for x in splits.train.arrays]
    runs.save(model or pair, folder.path, *some, epoch=result.best_epoch)
    about = runs.about_model(task.kept)
    if not model:
        about = {"program": config.program, "program_sha256": task.program}
    protocol = {**splits.protocol, "part": "test", **about, **on_record(config)}
    protocol["saved_sha256"] = runs.saved_sha256(folder.path)
    blocks = blocks_of(folder, *pair, test, options, protocol)
    evidence = pv.evaluate(
        *pair, *test, **options, progress=config.progress, protocol=protocol, blocks=blocks
    )
    runs.drop_evidence(folder)
    storage.write_dataset(folder.path / runs.EVIDENCE, evidence.to_xarray())
    runs.write_figures(folder.path, model, splits, result, evidence, config.device)
    report.write(folder.path, splits=splits, program=pair)
    runs.drop_blocks(folder)
    return result, evidence


def _fitted(
    task: Task, folder: "Folder | None", processes: "Processes"
) -> "tuple[Fit, list[str]]":
    """Returns the result of the fit, and notes on what earlier epochs were trained with."""
    import pyrovae as pv
    from pyrovae import runs
    from pyrovae.runs.resuming import read_checkpoint

    config, splits, resume = task.config, task.splits, None
    if folder and config.resume:
        resume = read_checkpoint(folder.path, splits.protocol, task.kept, task.program)
        folder.claim(runs.RUN_FILES)
    resume = processes.broadcast_object(resume)
    notes = resume.notes if resume else []
    result = pv.svi.fit(
        *task.pair,  # pyright: ignore[reportArgumentType]  # fit refuses where there is no guide
        task.arrays(splits.train),
        valid=task.arrays(splits.valid),
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        lr_schedule=config.lr_schedule,
        clip_norm=config.clip_norm,
        patience=config.patience,
        transform=splits.transform,
        device=config.device,
        compile=config.compile,
        seed=config.seed,
        progress=config.progress,
        callback=_writer(task, folder, notes) if folder else None,
        resume=resume.state if resume else None,
    )
    return result, notes


def _splits(config: "Namespace") -> "Splits":
    import pyrovae as pv

    load = pv.data.load_arrays if config.program else pv.data.load
    return load(
        data_source(config.data),
        root=config.root,
        binarize=config.binarize,
        valid_size=config.valid_size,
        download=config.download,
    )


def _model(kept: dict[str, Any], splits: "Splits") -> "Model":
    """Returns the model asked for, untrained."""
    from pyrovae.commands.model_options import options_of
    from pyrovae.rng import seeded

    with seeded(kept["seed"]):
        model = model_class(kept["model"]).for_data(splits, **options_of(kept))
    return model.to(kept["device"])


def _program(config: "Namespace", splits: "Splits") -> "Pair":
    pair = make_program(config.program, config.seed, config.device)
    check_takes(pair, splits.train.arrays, f"--data {config.data}")
    return pair


def _path(config: "Namespace") -> Path:
    """Returns the path of the run folder."""
    if config.resume and not config.out:
        raise ValueError("--resume needs the run's folder; add --out FOLDER")
    if config.resume and config.overwrite:
        raise ValueError("--resume keeps the run and --overwrite drops it; give one of them")
    return Path(config.out or f"runs/{datetime.now():%Y%m%d-%H%M%S}-{Path(config.data).stem}")


def _written(path: Path) -> int:
    """Returns when a run was last taken down in its folder, 0 where none was."""
    from pyrovae import runs

    checkpoint = path / runs.CHECKPOINT
    return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0


def _without(argv: list[str]) -> list[str]:
    """Returns a command line without what says where it writes, and whether it resumes."""
    kept = list(argv)
    if "--out" in kept:
        del kept[kept.index("--out") : kept.index("--out") + 2]
    said = ("--resume", "--overwrite")
    return [word for word in kept if word not in said and not word.startswith("--out=")]


def _check_folder(folder: "Folder", config: "Namespace") -> None:
    """Raises ValueError where a new run would replace an old one, or there is none to resume."""
    from pyrovae import runs, storage

    folder.check(runs.RUN_FILES)
    there = runs.holds_run(folder)
    if config.resume and not there:
        raise storage.StateError(f"there is no run in {folder.path.resolve()} to resume")
    if there and not (config.resume or config.overwrite):
        resume = "--resume, " * (runs.CHECKPOINT in folder)
        raise ValueError(
            f"{folder.path} already holds a run; add {resume}--overwrite, or another --out"
        )


def _writer(task: Task, folder: "Folder", notes: list[str]) -> Any:
    """Returns the callback that keeps the run folder up to date, an epoch at a time.

    It is first called when all input has been found good: only then does a new run replace an old.
    """
    from pyrovae import runs, storage

    path, model = folder.path, task.model
    known = {"data": task.splits.protocol, "config": task.kept, "notes": notes}

    def write(state: dict[str, Any]) -> None:
        epoch = len(state["elbo"])
        if epoch == 0:
            runs.clear(folder)
        if state["best_epoch"] == epoch and model:
            runs.write_model(path, model, epoch=epoch)
        elif state["best_epoch"] == epoch:
            runs.write_state(path, state["parameters"], state["buffers"], epoch=epoch)
        storage.save_state(path / runs.CHECKPOINT, {**state, **known, "program": task.program})
        runs.write_config(path, task.kept, notes)
        runs.write_metrics(path, state)

    return write
