"""Of which class new data are: python -m pyrovae classify RUN [RUN ...] --data FILE."""

__all__ = ["main", "parser"]

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyrovae.commands.common import check_device, guarded
from pyrovae.commands.named import own_code
from pyrovae.commands.users import blamed

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from collections.abc import Callable, Sequence

    from jsonargparse import Namespace
    from torch import Tensor

    from pyrovae.commands.options import Parser
    from pyrovae.commands.tasks import Part
    from pyrovae.runs import Run

DOES = "Of which class data are, by Bayes' rule over log P(x|y), or whether they are of none."
EXAMPLES = (
    ("runs/cvae --data new.npy", "calibrated on the run's own test part, at 5 % false alarms"),
    ("runs/no runs/yes --data new.csv", "by a run a class"),
    ("runs/cvae --data new.npy --out classes.csv", "and as a table, a row a datum"),
)
PRIORS = "uniform", "calibration"


class _Runs(NamedTuple):
    """The runs that are asked, one of a model of (x, y) or one a class, and their options.

    Attributes:
        runs: As they were read.
        configs: The options with each one's folder.
        names: Of the classes; `None` where they have numbers.
    """

    runs: "list[Run]"
    configs: "list[Namespace]"
    names: "Sequence[object] | None"


def parser() -> "Parser":
    """Returns the command line: folders of runs, data, and what they are held to."""
    from pyrovae.commands.options import COUNT, FACTOR, SEED, Parser, add_common

    p = Parser(" classify", DOES, EXAMPLES, "RUN [RUN ...] --data NAME")
    p.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="folder of python -m pyrovae.svi: of a model of x and y, or one a class, in order",
    )
    _add_data(p.add_argument_group("data and model").add_argument)
    add = p.add_argument_group("classes").add_argument
    add(
        "--prior",
        choices=PRIORS,
        default="uniform",
        help="of the classes: the same for all, or their shares of the calibration",
    )
    add(
        "--false-alarms",
        type=FACTOR,
        default=0.05,
        metavar="X",
        help="rate at which data of these classes are said to be of none",
    )
    add(
        "--estimator",
        type=str | None,
        metavar="NAME",
        help="of log P(x|y), with options as in 'ais(100, 16)' (default: importance sampling from "
        "each datum's mode, where the program has a gradient)",
    )
    add("--num-particles", type=COUNT, default=1_000, metavar="S", help="draws per datum")
    add("--seed", type=SEED, default=0, metavar="N", help="of the draws")
    add("--top", type=COUNT, default=10, metavar="N", help="rows that are shown, the least sure")
    add("--out", type=str | None, metavar="FILE", help="for all rows, as CSV")
    add = add_common(p)
    add("--workers", type=COUNT | None, metavar="N", help="processes that share the work")
    return p


def _add_data(add: "Callable[..., object]") -> None:
    """Adds the options that say which data are told classes of, and by which.

    Args:
        add: Adds an option to a group of the parser.
    """
    from pyrovae.commands.options import add_own_code

    add(
        "--data",
        type=str,
        required=True,
        metavar="NAME",
        help="of unknown classes: .npy, .npz or a table (all rows), or a data set by name (its "
        "test part)",
    )
    add(
        "--calibration",
        type=str | None,
        metavar="NAME",
        help="with labels, and not trained on; likewise (default: the runs' own test parts)",
    )
    add("--root", type=str | None, metavar="FOLDER", help="that holds the named data sets")
    add(
        "--binarize",
        choices=["static", "dynamic", "threshold", "none"],
        help="(default: as the run)",
    )
    add_own_code(add)
    add("--plate", type=str | None, help="over the data (default: data)")


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 3 data, 5 run, 130 interrupted.

    Args:
        argv: Without the name of the command; `None` takes the process's own.
    """
    return guarded(lambda: run(parser().parse_args(argv)))


def run(config: "Namespace") -> int:
    """Prints the classes, and writes them where a file is named; returns the exit code, 0.

    Args:
        config: The options.

    Raises:
        DataError, StateError, ValueError: If what is asked for is not there, or cannot be.
        ProgramError: If the user's code fails; the line is named.
    """
    import pyrovae as pv
    from pyrovae import storage
    from pyrovae.commands.estimators import estimator_asked
    from pyrovae.commands.tasks import check_out, names_of, part_of
    from pyrovae.posteriors.classified import HEADER

    with blamed(*own_code(vars(config))):
        check_device(config.device)
        check_out(config.out, HEADER)
        asked = _opened(config)
        first, own = asked.configs[0], asked.runs[0]
        part = part_of(first, own, config.data)
        x, y = part.rows.x[:].to(config.device), part.rows.y
        others, classes, said = _calibration(config, asked)
        models, guides = zip(*(r.trained() for r in asked.runs), strict=True)
        several, size = len(asked.runs) > 1, config.num_particles
        plate = config.plate or own.config.get("plate", "data")
        found = pv.classify(
            models if several else models[0],
            guides if several else guides[0],
            x,
            prior=classes.bincount() / len(classes) if config.prior == "calibration" else None,
            calibration=(others.to(config.device), classes),
            false_alarms=config.false_alarms,
            estimator=config.estimator and estimator_asked(config.estimator, "estimator", size),
            seed=config.seed,
            num_particles=size,
            plate=None if plate == "none" else plate,
            compile=config.compile,
            workers=config.workers,
            progress=config.progress,
        )
        index = names_of(first, part).rows
    if config.out:
        storage.write_lines(Path(config.out), found.to_csv(index, asked.names))
    known = y if y is not None and _are_classes(y, found.log_p.shape[1]) else None
    heading = f"data: {_named(part)}\ncalibration: {said}"
    table = found.table(config.top, index=index, names=asked.names)
    parts = [heading, found.reading(known), table]
    if config.out:
        parts.append(f"file: {config.out}")
    print("\n\n".join(parts), file=sys.stderr if config.json else sys.stdout)
    if config.json:
        told = {"runs": config.runs, "data": _named(part), "calibration": said}
        print(json.dumps({**told, **found.summary(known)}))
    return 0


def _opened(config: "Namespace") -> _Runs:
    """Returns the runs, each with its options.

    Args:
        config: The options, with the folders.

    Raises:
        ValueError: If their models are not what classes can be told by.
    """
    from pyrovae.commands.tasks import opened

    folders = config.runs
    if twice := [f for f in folders if folders.count(f) > 1]:
        raise ValueError(f"{twice[0]} is named twice; give one run a class")
    configs = [config.clone() for _ in folders]
    for one, folder in zip(configs, folders, strict=True):
        one.run = folder
    runs = [_checked(opened(one), len(folders) > 1) for one in configs]
    kept = [r.config["binarize"] for r in runs]
    if len(set(kept)) > 1:
        raise ValueError(
            f"{folders[0]} is of data binarized by {kept[0]!r}, and others by {set(kept[1:])}; "
            "log P(X) of other data cannot be compared"
        )
    if len(runs) > 1:
        return _Runs(runs, configs, folders)
    of_table, names = _with_classes(runs[0])
    return _Runs([of_table], configs, names)


def _checked(run: "Run", several: bool) -> "Run":
    """Returns a run of a model that is of use here; raises ValueError for another.

    Args:
        run: The run.
        several: Whether there is one a class.
    """
    if run.model is None:
        raise ValueError(f"{run.folder} is of a program; call pv.classify with it")
    takes = ", ".join(run.model.inputs)
    if several and takes != "x":
        raise ValueError(
            f"the model of {run.folder} takes ({takes}), and one a class has to take x alone; "
            "give that run alone, which knows all of its classes"
        )
    if not several and takes != "x, y":
        raise ValueError(
            f"the model of {run.folder} takes {takes} alone; give one run a class, or a run of "
            "a model that takes the class, as --model cvae does"
        )
    return run


def _with_classes(run: "Run") -> "tuple[Run, Sequence[object] | None]":
    """Returns a run that reads the labels of other tables as those of its own, and their names.

    Args:
        run: Of a table; of other data it stays what it is, and classes have numbers.
    """
    from pyrovae.data.tables import with_classes
    from pyrovae.registry import names_table

    said = run.config.get("columns")
    if not said or not names_table(run.config["data"]):
        return run, None
    columns = with_classes(run.config["data"], said)
    labels = [v for v in columns.values() if isinstance(v, dict) and v["kind"] == "label"]
    names = labels[0]["classes"] if labels else None
    return replace(run, config={**run.config, "columns": columns}), names


def _calibration(config: "Namespace", asked: _Runs) -> "tuple[Tensor, Tensor, str]":
    """Returns calibration data, `(n, D)`, their classes, `(n,)`, and what they are in words.

    Args:
        config: The options.
        asked: The runs.

    Raises:
        DataError: If they have no labels.
    """
    import torch

    from pyrovae.commands.tasks import part_of
    from pyrovae.errors import DataError

    pairs = list(zip(asked.configs, asked.runs, strict=True))
    if len(pairs) > 1 and config.calibration is None:
        parts = [part_of(one, run, None) for one, run in pairs]
        x = torch.cat([part.rows.x[:] for part in parts])
        y = torch.cat([torch.full((len(p.rows),), c) for c, p in enumerate(parts)])
        return x, y, "; ".join(map(_named, parts))
    part = part_of(*pairs[0], config.calibration)
    if part.rows.y is None or (part.rows.y < 0).all():
        raise DataError(
            f"{part.protocol['data']} has no labels, by which classes are calibrated; give data "
            "with y by --calibration"
        )
    if (y := part.rows.y).ndim > 1:
        raise DataError(
            f"y of {part.protocol['data']} is of vectors; classes are one integer each"
        )
    return part.rows.x[:][y >= 0], y[y >= 0], _named(part)


def _are_classes(y: "Tensor", count: int) -> bool:
    """Returns whether all labels are classes.

    Args:
        y: Labels, `(N,)`; -1 where there is none.
        count: C.
    """
    return y.ndim == 1 and bool(((y >= 0) & (y < count)).all())


def _named(part: "Part") -> str:
    """Returns what data are, in words."""
    return f"{part.protocol['data']}, {part.protocol['part']}"
