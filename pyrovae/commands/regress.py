"""What a column is given the others of its row: python -m pyrovae regress RUN --column NAME."""

__all__ = ["main", "parser"]

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyrovae.commands.common import check_device, check_free, guarded
from pyrovae.commands.named import own_code
from pyrovae.commands.users import blamed
from pyrovae.registry import names_table

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import Namespace
    from torch import Tensor

    from pyrovae.commands.options import Parser
    from pyrovae.data.rows import Rows
    from pyrovae.runs import Run

DOES = "Predicts a column of numbers by the others of its row, with intervals."
EXAMPLES = (
    ("runs/a --column income", "of the run's own test part, beside what is there"),
    ("runs/a --column income --data new.csv --out incomes.csv", "of a table with or without it"),
    ("runs/a --column 3 --data new.npy --out fourth.csv", "of an array, by number"),
)


def parser() -> "Parser":
    """Returns the command line: a run's folder, a column, data, and a file for what it says."""
    from pyrovae.commands.options import COUNT, FACTOR, SEED, Parser, add_common, add_own_code
    from pyrovae.commands.tasks import add_data

    p = Parser(" regress", DOES, EXAMPLES, "RUN --column NAME")
    p.add_argument("run", metavar="RUN", help="folder of python -m pyrovae.svi")
    add = p.add_argument_group("data and model").add_argument
    add(
        "--column",
        type=str,
        required=True,
        metavar="NAME",
        help="of a table its name, else its number from 0; what stands there is not looked at",
    )
    add_data(add)
    add_own_code(add)
    add("--plate", type=str | None, help="over the data (default: data)")
    add = p.add_argument_group("regression").add_argument
    add("--out", type=str | None, metavar="FILE", help="a .csv with a line for each row")
    add("--prob", type=FACTOR, default=0.95, metavar="X", help="of lying in an interval")
    add("--num-particles", type=COUNT, default=1_000, metavar="S", help="draws of z per datum")
    add("--num-draws", type=COUNT, default=1_000, metavar="L", help="of each number")
    add(
        "--num-temperatures",
        type=int,
        default=100,
        metavar="T",
        help="by which rows are annealed whose draws are not to be trusted; 0 anneals none",
    )
    add("--overwrite", action="store_true", help="replace a file that is there")
    add("--seed", type=SEED, default=0, metavar="N", help="of the draws")
    add_common(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 3 data, 5 run, 130 interrupted.

    Args:
        argv: Without the name of the command; `None` takes the process's own.
    """
    return guarded(lambda: run(parser().parse_args(argv)))


def run(config: "Namespace") -> int:
    """Predicts a column, writes a table where one is named, and says how good it is; returns 0.

    Args:
        config: The options.

    Raises:
        DataError, StateError, ValueError: If what is asked for is not there, or cannot be.
        ProgramError: If the user's code fails; the line is named.
    """
    import torch

    import pyrovae as pv
    from pyrovae import storage
    from pyrovae.commands.tasks import opened
    from pyrovae.data.rows import chosen

    if config.out:
        check_free(config.out, config.overwrite)
    with blamed(*own_code(vars(config))):
        check_device(config.device)
        known = opened(config)
        column, rows = _column(config.column, known), _rows(config, known)
        data = [chosen(x, config.rows)[:].to(config.device) for x in rows.data]
        index = chosen(torch.arange(len(rows.data[0])), config.rows)[:].tolist()
        names = [i if rows.names is None else rows.names[i] for i in index]
        found = pv.regress(
            *known.trained(*(x[:2] for x in data)),
            *data,
            column=column,
            num_draws=config.num_draws,
            num_particles=config.num_particles,
            num_temperatures=config.num_temperatures,
            seed=config.seed,
            plate=config.plate or known.config.get("plate", "data"),
        )
    truth = data[0][:, column]
    if config.out:
        storage.write_lines(Path(config.out), found.to_csv(names, truth, config.prob))
    lines = [f"data: {rows.said}", found.reading(truth, config.prob)]
    if config.out:
        lines.append(f"file: {config.out}")
    print("\n".join(lines), file=sys.stderr if config.json else sys.stdout)
    if config.json:
        about = {"run": config.run, "data": rows.said, "column": config.column}
        print(json.dumps(about | found.summary(truth, config.prob)))
    return 0


def _column(name: str, known: "Run") -> int:
    """Returns the number of a column.

    Args:
        name: As it was given.
        known: The run.

    Raises:
        ValueError: If there is none of that name, it is one of classes, or no number.
    """
    from pyrovae.likelihoods.columns import CLASSES

    if not known.table:
        if not name.isdecimal():
            raise ValueError(f"--column is {name!r} and the data are no table; give a number")
        return int(name)
    names = [c.name for c in known.table]
    if name not in names:
        raise ValueError(f"the run has no column {name!r}; it has {', '.join(names)}")
    column = known.table[names.index(name)]
    if column.kind in CLASSES:
        raise ValueError(
            f"{name} is {column.kind}, which is no number; python -m pyrovae impute says the most "
            "probable class"
        )
    return names.index(name)


class Predicted(NamedTuple):
    """Data whose column is predicted: arrays, names of rows, and what they are in words."""

    data: "tuple[Tensor | Rows, ...]"
    names: list[object] | None
    said: str


def _rows(config: "Namespace", known: "Run") -> Predicted:
    """Returns the rows whose column is predicted; in a table it may be absent.

    Args:
        config: The options.
        known: The run.
    """
    from pyrovae.commands.tasks import is_own, of_data
    from pyrovae.data.tables import TableFile, read_table

    if not config.data or is_own(config, config.data) or not names_table(config.data):
        task = of_data(config, config.data)
        return Predicted(task.data, None, f"{task.protocol['data']}, {task.protocol['part']}")
    frame = read_table(config.data).rename(columns=str)
    if config.column not in frame:
        frame[config.column] = float("nan")
    table = TableFile(frame, known.columns)
    index = None if table.index is None else list(table.index)
    return Predicted(known.arrays(table.rows), index, f"{config.data}, all")
