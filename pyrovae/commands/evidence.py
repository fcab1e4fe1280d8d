"""Held-out log P(X) of a trained run, or of your own program, with a verdict for each datum."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pyrovae.commands.common import (
    ESTIMATORS,
    blocks_of,
    check_device,
    check_local,
    guarded,
    interrupted,
)
from pyrovae.commands.users import blamed, check_takes, make_program, named_again, program_sha256

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import Namespace
    from torch import Tensor

    from pyrovae.commands.options import Parser
    from pyrovae.data import Splits
    from pyrovae.data.rows import Rows


DOES = "Held-out log P(X) of a trained run, or of your own program, with a verdict for each datum."
EXAMPLES = (
    ("runs/mnist --rows 100", "a hundred rows of a run's own test part"),
    ("runs/mnist --num-particles 100000 --workers 8 --dry-run", "what that will cost"),
    ("--program prog:make --data xy.npz", "your own: make() in prog.py gives (model, guide)"),
)


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


def parser() -> "Parser":
    """Returns the command line."""
    from pyrovae.commands.options import AMOUNT, COUNT, SEED, Parser, add_common

    p = Parser("evidence", DOES, EXAMPLES, "[RUN]")
    p.add_argument("run", nargs="?", type=str | None, help="folder of python -m pyrovae.svi")
    add = p.add_argument_group("data and model").add_argument
    add(
        "--data",
        type=str | None,
        help="data set by name (its test part) or .npy/.npz (all rows; of a program: its arrays "
        "in order) (default: the run's own test part)",
    )
    add("--root", type=str | None, metavar="FOLDER", help="that holds the named data sets")
    add(
        "--binarize",
        choices=["static", "dynamic", "threshold", "none"],
        help="(default: as the run; of a program: none)",
    )
    add(
        "--rows",
        type=str | None,
        help="100 (so many, evenly spaced) or start:stop[:step] (default: all)",
    )
    add(
        "--program",
        type=str | None,
        metavar="MODULE:MAKE",
        help="instead of a run: make() returns (model, guide)",
    )
    add(
        "--model",
        type=str | None,
        metavar="NAME",
        help="of a run of your own model: package.module.Class",
    )
    add("--plate", type=str | None, help="over the data (default: data); none: all at once")
    add = p.add_argument_group("evidence").add_argument
    add(
        "--estimators",
        nargs="+",
        default=["elbo", "importance", "prior", "ais"],
        choices=ESTIMATORS,
        metavar="NAME",
        help=f"of {', '.join(ESTIMATORS)}",
    )
    add(
        "--num-particles",
        type=COUNT | str,
        default=5_000,
        metavar="K",
        help="draws per datum, or auto",
    )
    add("--seed", type=SEED, default=0, metavar="N", help="of the draws")
    add = p.add_argument_group("with --num-particles auto").add_argument
    add("--tolerance", type=AMOUNT, default=0.01, metavar="X", help="standard error to aim at")
    add("--max-particles", type=COUNT, default=100_000, metavar="K", help="draws, at most")
    add("--max-seconds", type=AMOUNT | None, metavar="X", help="after which it asks for no more")
    add = p.add_argument_group("with --estimators ais").add_argument
    add("--num-temperatures", type=COUNT, default=100, metavar="N", help="of annealing")
    add("--num-chains", type=COUNT, default=8, metavar="N", help="annealing runs per datum")
    add = p.add_argument_group("folder").add_argument
    add(
        "--out",
        type=str | None,
        metavar="FOLDER",
        help="(default: the run's; RUN/evidence-DATA for other data)",
    )
    add = add_common(p)
    add("--workers", type=COUNT | None, metavar="N", help="processes that share the work")
    add("--dry-run", action="store_true", help="say what it will cost, and do nothing")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 3 data, 5 run, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded(lambda: run(parser().parse_args(argv), argv))


def run(config: "Namespace", argv: list[str]) -> int:
    """Evaluates, prints, and writes tables and pictures."""
    with blamed(config.program or config.model):
        return _run(config, argv)


def _run(config: "Namespace", argv: list[str]) -> int:
    import pyrovae as pv
    from pyrovae import report, runs
    from pyrovae.data.rows import chosen
    from pyrovae.runs.folder import worked_in

    if config.num_particles != "auto" and isinstance(config.num_particles, str):
        raise ValueError(
            f"--num-particles is {config.num_particles!r}; give a whole number above 0, or auto"
        )
    if config.model and not config.run:
        raise ValueError("--model is of a run; give its folder, or --program package.module:make")
    if not (config.run or config.program):
        raise ValueError("give a run folder, or --program package.module:make")
    check_device(config.device)
    check_local(config.data or "")
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
    protocol = {
        **task.protocol,
        "rows_chosen": config.rows or "all",
        "rows_available": len(task.data[0]),
    }

    def how() -> str:
        done, again = task.folder / runs.BLOCKS, shlex.join(argv)
        return (
            f"this goes on from the blocks already done in {done}: "
            f"python -m pyrovae.evidence {again}"
        )

    with worked_in(task.folder) as folder, interrupted(how):
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
            f"{folder} holds a model, which needs no --program; give a run folder, or --program, "
            "one of them"
        )
    if program and not config.program:
        raise ValueError(
            f"{folder} is the run of the program {kept.get('program')}, and no code is imported "
            f"because a file names it; name it again: --program {kept.get('program')}"
        )
    cls = None if program else named_again(config.model, kept)
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
        check_takes(pair, part.arrays, f"--data {name}")
        protocol |= {"program": config.program, "program_sha256": program_sha256(pair)}
        some = tuple(x[: kept["batch_size"]].to(config.device) for x in part.arrays)
        model, guide = pv.load(folder, pair, *some)
        arrays = part.arrays
    else:
        loaded = pv.load(folder).to(config.device)
        if cls and type(loaded) is not cls:
            raise ValueError(f"{folder} holds a {type(loaded).__name__}, not a {config.model}")
        model, guide, arrays = loaded.model, loaded.guide, loaded.arrays(part)
        protocol |= runs.about_model(kept)
    default = folder if own else folder / f"evidence-{Path(name).stem}"
    out = Path(config.out) if config.out else default
    protocol |= {"saved_sha256": runs.saved_sha256(folder)}
    mine = splits if own and out.resolve() == folder.resolve() else None
    plate = config.plate or kept.get("plate", "data")
    return Task(model, guide, arrays, shape, protocol, out, plate, mine)


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
    check_takes((model, guide), part.arrays, f"--data {config.data}")
    protocol = {"program": config.program, **protocol}
    name = config.program.partition(":")[2]
    folder = Path(config.out or f"runs/evidence-{name}-{Path(config.data).stem}")
    return Task(model, guide, part.arrays, shape, protocol, folder, config.plate or "data")
