"""Held-out log P(X) of a trained run, or of your own program, with a verdict for each datum."""

import hashlib
import importlib
import json
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt

from pyrovae.commands import AMOUNT, COUNT, ESTIMATORS, add_common, check_device, command

if TYPE_CHECKING:
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
    splits: "Splits | None" = None  # of the run, where it is about its own test part and folder


def parser() -> ArgumentParser:
    """Returns the command line."""
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
    add("--binarize", choices=["static", "dynamic", "threshold", "none"], type=str | None)
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
    add("--plate", type=str | None, default="data", help="over the data; null: all at once")
    add("--dry-run", action="store_true", help="say what it will cost, and do nothing")
    add("--workers", type=COUNT | None, help="processes that share the work, a thread each")
    add("--seed", type=NonNegativeInt, default=0, help="of the draws")
    add("--out", type=str | None, help="folder (default: the run's; RUN/evidence-DATA of others')")
    add_common(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 3 data, 5 run, 130 interrupted."""
    return command(parser(), run, argv, "the same command goes on from the blocks already done")


def run(config: Namespace) -> int:
    """Evaluates, prints, and writes tables and pictures."""
    import pyrovae as pv
    from pyrovae import report, runs
    from pyrovae.rows import chosen

    if config.num_particles != "auto" and isinstance(config.num_particles, str):
        raise ValueError(f"--num-particles is {config.num_particles!r}; give a number, or auto")
    if bool(config.run) == bool(config.program):
        raise ValueError("give a run folder, or --program package.module:make, one of them")
    check_device(config.device)
    task = _of_program(config) if config.program else _of_run(config)
    data = tuple(chosen(d, config.rows).to(config.device) for d in task.data)
    options = {
        name: config[name]
        for name in (
            *("estimators", "num_particles", "tolerance", "max_particles", "max_seconds"),
            *("num_temperatures", "num_chains", "plate", "seed", "compile"),
        )
    }
    if config.dry_run:
        from pyrovae.evidence.cost import cost

        expected = cost(task.model, task.guide, *data, **options)
        print(json.dumps(expected.rows()) if config.json else expected)
        return 0
    protocol = {**task.protocol, "rows_chosen": config.rows or "all"}
    blocks = runs.Blocks(task.folder / runs.BLOCKS, _key(task, data, options))
    if len(blocks):
        print(f"going on from {len(blocks)} finished blocks", file=sys.stderr)
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
    runs.write_evidence(task.folder, evidence, data[0], task.image_shape)
    if task.splits:
        report.write(task.folder, splits=task.splits)
    blocks.discard()
    print(f"{evidence}\n\nfolder: {task.folder}", file=sys.stderr if config.json else sys.stdout)
    if config.json:
        result = {"folder": str(task.folder), "estimators": evidence.rows()}
        print(json.dumps({**result, "protocol": dict(evidence.protocol)}))
    return 0


def _of_run(config: Namespace) -> Task:
    """Returns the VAE of a run folder with its test data, or with others."""
    import pyrovae as pv
    from pyrovae import runs

    folder = Path(config.run)
    vae = pv.load(folder).to(config.device)
    kept = runs.read_config(folder)
    name, root = config.data or kept["data"], config.root or kept["root"]
    binarize = config.binarize or kept["binarize"]
    own = config.data in (None, kept["data"]) and binarize == kept["binarize"]
    splits = None
    if config.data and config.data != kept["data"] and Path(config.data).exists():
        part, shape, protocol = pv.data.load_rows(Path(config.data), binarize)
    else:
        valid_size = kept["valid_size"] if own else None
        splits = pv.data.load(name, root=root, binarize=binarize, valid_size=valid_size)
        part, shape, protocol = splits.test, splits.image_shape, splits.protocol
        protocol = {**protocol, "part": "test"}
    default = folder if own else folder / f"evidence-{Path(name).stem}"
    out = Path(config.out) if config.out else default
    protocol |= {"likelihood": kept["likelihood"]}
    mine = splits if own and out.resolve() == folder.resolve() else None
    return Task(vae.model, vae.guide, (part.x,), shape, protocol, out, mine)


def _of_program(config: Namespace) -> Task:
    """Returns a user's program with a user's data."""
    import pyrovae as pv

    if not config.data:
        raise ValueError("--program needs --data: a .npy or .npz, or a data set by name")
    module, _, name = config.program.partition(":")
    sys.path.insert(0, "")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise ValueError(
            f"--program {config.program} cannot be had ({e}); give package.module:make"
        ) from e
    pair = make()
    if not (isinstance(pair, tuple) and len(pair) == 2):
        raise TypeError(f"{config.program} returned {type(pair).__name__}, not (model, guide)")
    binarize = config.binarize or "none"
    protocol: dict[str, Any] = {"program": config.program, "data": config.data}
    if Path(config.data).exists():
        data, shape = pv.data.read_tensors(Path(config.data)), None
    else:
        splits = pv.data.load(config.data, root=config.root or "data", binarize=binarize)
        data, shape = (splits.test.x,), splits.image_shape
        protocol |= {**splits.protocol, "part": "test"}
    folder = Path(config.out or f"runs/evidence-{name}-{Path(config.data).stem}")
    return Task(*pair, data, shape, protocol, folder)


def _key(task: Task, data: "tuple[Tensor | Rows, ...]", options: dict[str, Any]) -> str:
    """Returns a digest of what the blocks' results depend on."""
    from pyrovae.program import inspect
    from pyrovae.rows import in_chunks

    digest = hashlib.sha256(json.dumps([options, task.protocol], default=str).encode())
    for _, d in chain.from_iterable(map(in_chunks, data)):
        digest.update(d.cpu().contiguous().numpy().data)
    digest.update(inspect(task.model, task.guide, *data, plate=options["plate"]).sha256.encode())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
