"""Held-out log P(X) of a trained run, or of your own program, with a verdict for each datum."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pyrovae.commands import (
    ESTIMATORS,
    add_common,
    blocks_of,
    check_device,
    command,
    make_program,
    numbers,
    program_sha256,
)

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import ArgumentParser, Namespace
    from torch import Tensor

    from pyrovae.data import Splits
    from pyrovae.rows import Rows


class Task(NamedTuple):
    """What is to be evaluated: a program, its data, and what is known of both."""

    model: Any
    guide: Any
    data: "tuple[Tensor | Rows, ...]"
    image_shape: tuple[int, int] | None
    protocol: dict[str, Any]
    folder: Path
    plate: str | None
    splits: "Splits | None" = None  # of the run, where it is about its own test part and folder


def parser() -> "ArgumentParser":
    """Returns the command line."""
    from jsonargparse import ArgumentParser

    COUNT, AMOUNT, SEED = numbers()
    p = ArgumentParser(prog="python -m pyrovae.evidence", description=__doc__)
    add = p.add_argument
    add("run", nargs="?", type=str | None, help="run folder of python -m pyrovae.svi")
    add("--program", type=str | None, help="package.module:make, returning (model, guide)")
    add(
        "--data",
        type=str | None,
        help="data set by name (its test part) or .npy/.npz (all rows; of a program: its arrays "
        "in order); default: the run's own test part",
    )
    add("--root", type=str | None, help="folder that holds the named data sets")
    add("--binarize", choices=["static", "dynamic", "threshold", "none"])
    add("--rows", type=str | None, help="100 (so many, evenly spaced) or start:stop[:step]")
    add(
        "--estimators",
        nargs="+",
        default=["elbo", "importance", "prior", "ais"],
        choices=ESTIMATORS,
    )
    add("--num-particles", type=COUNT | str, default=5_000, help="K, draws per datum, or auto")
    add("--tolerance", type=AMOUNT, default=0.01, help="standard error that auto aims at, nats")
    add("--max-particles", type=COUNT, default=100_000, help="draws per datum of auto, at most")
    add("--max-seconds", type=AMOUNT | None, help="time after which auto asks for no more")
    add("--num-temperatures", type=COUNT, default=100, help="of annealing")
    add("--num-chains", type=COUNT, default=8, help="annealing runs per datum")
    add("--plate", type=str | None, help="over the data (default: data); none: all at once")
    add("--dry-run", action="store_true", help="say what it will cost, and do nothing")
    add("--workers", type=COUNT | None, help="processes that share the work, a thread each")
    add("--seed", type=SEED, default=0, help="of the draws")
    add("--out", type=str | None, help="folder (default: the run's; RUN/evidence-DATA of others')")
    add_common(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 3 data, 5 run, 130 interrupted."""
    return command(parser, run, argv, "the same command goes on from the blocks already done")


def run(config: "Namespace") -> int:
    """Evaluates, prints, and writes tables and pictures."""
    import pyrovae as pv
    from pyrovae import report, runs
    from pyrovae.folder import worked_in
    from pyrovae.rows import chosen

    if config.num_particles != "auto" and isinstance(config.num_particles, str):
        raise ValueError(f"--num-particles is {config.num_particles!r}; give a number, or auto")
    if not (config.run or config.program):
        raise ValueError("give a run folder, or --program package.module:make")
    check_device(config.device)
    task = _of_run(config) if config.run else _of_program(config)
    data = tuple(chosen(d, config.rows).to(config.device) for d in task.data)
    options = {
        name: config[name]
        for name in (
            *("estimators", "num_particles", "tolerance", "max_particles", "max_seconds"),
            *("num_temperatures", "num_chains", "seed", "compile"),
        )
    }
    options["plate"] = None if task.plate == "none" else task.plate
    if config.dry_run:
        from pyrovae.evidence.cost import cost

        expected = cost(task.model, task.guide, *data, **options)
        print(json.dumps(expected.rows()) if config.json else expected)
        return 0
    protocol = {**task.protocol, "rows_chosen": config.rows or "all"}
    with worked_in(task.folder) as folder:
        folder.check(runs.EVIDENCE_FILES)
        blocks = blocks_of(folder, task.model, task.guide, data, options, protocol)
        evidence = pv.evaluate(
            task.model,
            task.guide,
            *data,
            **options,
            workers=config.workers,
            progress=config.progress,
            protocol=protocol,
            blocks=blocks,
        )
        runs.write_evidence(folder, evidence, data[0], task.image_shape)
        if task.splits:
            report.write(task.folder, splits=task.splits, program=(task.model, task.guide))
        blocks.discard()
    print(f"{evidence}\n\nfolder: {task.folder}", file=sys.stderr if config.json else sys.stdout)
    if config.json:
        result = {"folder": str(task.folder), "estimators": evidence.rows()}
        print(json.dumps({**result, "protocol": dict(evidence.protocol)}))
    return 0


def _of_run(config: "Namespace") -> Task:
    """Returns what a run folder holds with its test data, or with others."""
    import pyrovae as pv
    from pyrovae import runs

    folder = Path(config.run)
    program = runs.holds_program(folder)
    kept = runs.read_config(folder)
    if config.program and not program:
        raise ValueError(
            f"{folder} holds a VAE, which needs no --program; give a run folder, or --program, "
            "one of them"
        )
    if program and not config.program:
        raise ValueError(
            f"{folder} is the run of the program {kept.get('program')}, and no code is imported "
            f"because a file names it; name it again: --program {kept.get('program')}"
        )
    name, root = config.data or kept["data"], config.root or kept["root"]
    binarize = config.binarize or kept["binarize"]
    own = config.data in (None, kept["data"]) and binarize == kept["binarize"]
    splits = None
    if config.data and config.data != kept["data"] and Path(config.data).exists():
        part, shape, protocol = _all_rows(config, binarize, program)
    else:
        valid_size = kept["valid_size"] if own else None
        load = pv.data.load_arrays if program else pv.data.load
        splits = load(name, root=root, binarize=binarize, valid_size=valid_size)
        part, shape, protocol = splits.test, splits.image_shape, splits.protocol
        protocol = {**protocol, "part": "test"}
    if program:
        pair = make_program(config.program, kept["seed"], config.device)
        protocol |= {"program": config.program, "program_sha256": program_sha256(pair)}
        some = tuple(x[: kept["batch_size"]].to(config.device) for x in part.arrays)
        model, guide = pv.load(folder, pair, *some)
    else:
        vae = pv.load(folder).to(config.device)
        model, guide = vae.model, vae.guide
        protocol |= {"likelihood": kept["likelihood"]}
    default = folder if own else folder / f"evidence-{Path(name).stem}"
    out = Path(config.out) if config.out else default
    protocol |= {"saved_sha256": runs.saved_sha256(folder)}
    mine = splits if own and out.resolve() == folder.resolve() else None
    plate = config.plate or kept.get("plate", "data")
    return Task(model, guide, part.arrays, shape, protocol, out, plate, mine)


def _all_rows(config: "Namespace", binarize: str, program: bool) -> Any:
    """Returns all rows of a file as one part, its image shape, and its protocol."""
    import pyrovae as pv

    path = Path(config.data)
    if not program:
        return pv.data.load_rows(path, binarize)
    if binarize != "none":
        raise ValueError(
            f"--binarize is {binarize}, but a program gets the arrays of {path} as they are; "
            "binarize them beforehand, or in the program"
        )
    x, *more = pv.data.read_tensors(path)
    return pv.data.Split(x, None, tuple(more)), None, {"data": config.data}


def _of_program(config: "Namespace") -> Task:
    """Returns a user's program with a user's data."""
    import pyrovae as pv

    if not config.data:
        raise ValueError("--program needs --data: a .npy or .npz, or a data set by name")
    model, guide = make_program(config.program, config.seed, config.device)
    binarize = config.binarize or "none"
    if Path(config.data).exists():
        part, shape, protocol = _all_rows(config, binarize, program=True)
    else:
        splits = pv.data.load(config.data, root=config.root or "data", binarize=binarize)
        part, shape = splits.test, splits.image_shape
        protocol = {**splits.protocol, "part": "test"}
    protocol = {"program": config.program, **protocol}
    name = config.program.partition(":")[2]
    folder = Path(config.out or f"runs/evidence-{name}-{Path(config.data).stem}")
    return Task(model, guide, part.arrays, shape, protocol, folder, config.plate or "data")


if __name__ == "__main__":
    sys.exit(main())
