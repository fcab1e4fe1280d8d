"""More data by a run's model, and whether they are new: python -m pyrovae generate RUN."""

__all__ = ["main", "parser"]

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.commands.common import check_device, check_free, guarded, write_table
from pyrovae.commands.named import own_code
from pyrovae.commands.users import blamed
from pyrovae.registry import names_table

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import Namespace
    from torch import Tensor

    from pyrovae.commands.options import Parser
    from pyrovae.data import Split, Splits
    from pyrovae.posteriors.generation import Generated
    from pyrovae.posteriors.two_sample import TwoSample
    from pyrovae.runs import Run

DOES = "Makes more data by a run's model, and says how near they are to its training rows."
EXAMPLES = (
    ("runs/a --num-data 1000 --out made.npy", "of the model's own"),
    ("runs/a --y 3 --out threes.npy", "of a class, by a model of X given Y"),
    ("runs/a --near some.csv --rows 5 --num-data 20 --out like.csv", "20 near each of five rows"),
    ("runs/a --out made.csv --nearest rows.csv", "beside the nearest training row of each"),
)


def parser() -> "Parser":
    """Returns the command line: a run's folder, how many data, of what, and files for them."""
    from pyrovae.commands.options import COUNT, SEED, Parser, add_common, add_own_code

    p = Parser(" generate", DOES, EXAMPLES, "RUN --out FILE")
    p.add_argument("run", metavar="RUN", help="folder of python -m pyrovae.svi")
    add = p.add_argument_group("data made").add_argument
    add("--num-data", type=COUNT, default=100, metavar="N", help="how many; of --near, of each")
    add(
        "--y", type=int | None, metavar="K", help="the class they are of, for a model that takes Y"
    )
    add(
        "--near",
        type=str | None,
        metavar="NAME",
        help="they are made near these: .npy, .npz, a table, or a data set by name (test part)",
    )
    add("--rows", type=str | None, help="of --near: 100 (so many, evenly) or start:stop[:step]")
    add("--out", type=str, required=True, metavar="FILE", help=".npy; of a table .csv or .parquet")
    add(
        "--nearest",
        type=str | None,
        metavar="FILE",
        help="likewise, for the training row that is nearest to each; in a table with its "
        "distance, and the share of training rows that have another one as near",
    )
    add("--overwrite", action="store_true", help="replace files that are there")
    add("--seed", type=SEED, default=0, metavar="N", help="of the draws")
    add = p.add_argument_group("data and model").add_argument
    add(
        "--data",
        type=str | None,
        metavar="NAME",
        help="the run's own data again, where they are code of yours: package.module.Name",
    )
    add("--root", type=str | None, metavar="FOLDER", help="that holds the named data sets")
    add(
        "--binarize",
        choices=["static", "dynamic", "threshold", "none"],
        help="of --near (default: as the run)",
    )
    add_own_code(add)
    add("--plate", type=str | None, help="over the data (default: data)")
    add_common(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 3 data, 5 run, 130 interrupted.

    Args:
        argv: Without the name of the command; `None` takes the process's own.
    """
    return guarded(lambda: run(parser().parse_args(argv)))


def run(config: "Namespace") -> int:
    """Makes data, writes them, and says whether they are copies and pass for real; returns 0.

    Args:
        config: The options.

    Raises:
        DataError, StateError, ValueError: If what is asked for is not there, or cannot be.
        ProgramError: If the user's code fails; the line is named.
    """
    from pyrovae.commands.tasks import data_of, opened

    with blamed(*own_code(vars(config))):
        check_device(config.device)
        known = opened(config)
        _check_files(config, known)
        splits = data_of(config, known)
        train = _training(known, splits)
        found = _made(config, known, train)
        tested = _tested(config, splits, found)
    _write(config, known, found, train[0])
    lines = [found.reading(), tested if isinstance(tested, str) else tested.reading()]
    lines.append(f"file: {config.out}")
    print("\n".join(lines), file=sys.stderr if config.json else sys.stdout)
    if config.json:
        about = {"run": config.run, "file": config.out, **found.summary()}
        if not isinstance(tested, str):
            numbers = {"auc": tested.auc, "std_error": tested.std_error, "p": tested.p_value}
            about["two_sample"] = numbers
        print(json.dumps(about))
    return 0


def _check_files(config: "Namespace", known: "Run") -> None:
    """Raises ValueError where a file is there, is named twice, or is of no such kind.

    Args:
        config: The options.
        known: The run.
    """
    named = {o: config[o] for o in ("out", "nearest") if config[o]}
    for option, name in named.items():
        check_free(name, config.overwrite)
        fits = names_table(name) if known.table else Path(name).suffix == ".npy"
        if not fits:
            kind = "table, .csv or .parquet" if known.table else ".npy"
            raise ValueError(f"--{option} {name} is no {kind}; name one")
    if len({Path(n).resolve() for n in named.values()}) < len(named):
        raise ValueError(f"{config.out} is named twice; give each file a name of its own")


def _training(known: "Run", splits: "Splits") -> "list[Tensor]":
    """Returns what model and guide took of the training part, in memory.

    Args:
        known: The run.
        splits: Its data; what training drew afresh for each batch is drawn once.
    """
    from pyrovae.rng import seeded

    part: Split = splits.train
    if splits.transform is not None:
        from dataclasses import replace

        with seeded(0):
            part = replace(part, x=splits.transform(part.x[:]))
    return [x[:] for x in known.arrays(part)]


def _made(config: "Namespace", known: "Run", train: "list[Tensor]") -> "Generated":
    """Returns the data that are asked for.

    Args:
        config: The options.
        known: The run.
        train: What it was trained on.
    """
    import torch

    import pyrovae as pv
    from pyrovae.commands.tasks import of_data
    from pyrovae.data.rows import chosen

    rows = [x.to(config.device) for x in train]
    near, (model, guide) = None, known.trained(*(x[: known.config["batch_size"]] for x in rows))
    if config.near:
        near = [
            chosen(x, config.rows)[:].to(config.device) for x in of_data(config, config.near).data
        ]
    return pv.generate(
        model,
        config.num_data,
        y=None if config.y is None else torch.tensor(config.y, device=config.device),
        near=near,
        guide=guide,
        train=rows,
        seed=config.seed,
        plate=config.plate or known.config.get("plate", "data"),
    )


def _tested(config: "Namespace", splits: "Splits", found: "Generated") -> "TwoSample | str":
    """Returns the two-sample test against the run's own test part, or why there is none.

    Args:
        config: The options.
        splits: The run's data.
        found: What was made.
    """
    if config.near:
        return "Near given data they are no draws of P(X), and are not held against the test part."
    real = splits.test.x[:]
    if config.y is not None and splits.test.y is not None:
        real = real[splits.test.y == config.y]
    try:
        return found.two_sample(real)
    except ValueError as e:
        return f"No two-sample test: {e}."


def _write(config: "Namespace", known: "Run", found: "Generated", train: "Tensor") -> None:
    """Writes what was made, and the nearest training rows where asked for.

    Args:
        config: The options.
        known: The run.
        found: What was made.
        train: The training rows.
    """
    from pyrovae import storage

    assert found.nearest is not None
    nearest = train[found.nearest]
    if not known.table:
        storage.write_array(Path(config.out), found.x.numpy())
        if config.nearest:
            storage.write_array(Path(config.nearest), nearest.numpy())
        return
    from pyrovae.data.tables import decoded

    write_table(Path(config.out), decoded(found.x, known.table))
    if config.nearest:
        assert found.distance is not None
        frame = decoded(nearest, known.table)
        frame["distance"], frame["p_value"] = found.distance.numpy(), found.p_value.numpy()
        write_table(Path(config.nearest), frame)
