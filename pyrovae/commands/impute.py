"""What is missing, filled in by a run's model: python -m pyrovae impute RUN --data FILE."""

__all__ = ["main", "parser"]

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.commands.common import check_device, check_free, guarded, write_table
from pyrovae.commands.named import own_code
from pyrovae.commands.users import blamed
from pyrovae.errors import DataError
from pyrovae.registry import names_table

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from collections.abc import Iterator, Sequence

    from jsonargparse import Namespace
    from torch import Tensor

    from pyrovae.commands.options import Parser
    from pyrovae.data.rows import Rows
    from pyrovae.likelihoods import Column
    from pyrovae.posteriors.imputation import Imputed
    from pyrovae.runs import Run

DOES = "Fills in what is missing in data by what a run's model says given the rest."
EXAMPLES = (
    ("runs/a --data holes.csv --out whole.csv", "means, and of classes the most probable"),
    ("runs/a --data holes.csv --out whole.csv --gaps gaps.csv", "and how sure of each value"),
    ("runs/a --data holes.csv --out whole.csv --draws many.csv", "multiple imputation"),
)


def parser() -> "Parser":
    """Returns the command line: a run's folder, data with gaps, and files for what fills them."""
    from pyrovae.commands.options import COUNT, FACTOR, SEED, Parser, add_common, add_own_code

    p = Parser(" impute", DOES, EXAMPLES, "RUN --data FILE --out FILE")
    p.add_argument("run", metavar="RUN", help="folder of python -m pyrovae.svi")
    add = p.add_argument_group("data and model").add_argument
    add(
        "--data",
        type=str,
        required=True,
        metavar="FILE",
        help="with gaps: a .csv or .parquet with the run's columns, or a .npy or .npz with NaN",
    )
    add(
        "--binarize",
        choices=["static", "dynamic", "threshold", "none"],
        help="(default: as the run)",
    )
    add_own_code(add)
    add("--plate", type=str | None, help="over the data (default: data)")
    add = p.add_argument_group("imputation").add_argument
    add("--out", type=str, required=True, metavar="FILE", help="the data without gaps")
    add(
        "--gaps",
        type=str | None,
        metavar="FILE",
        help="a .csv with a line for each gap: its value, and between what it lies",
    )
    add("--prob", type=FACTOR, default=0.9, metavar="X", help="of lying there")
    add(
        "--draws",
        type=str | None,
        metavar="FILE",
        help="the data as often as --num-draws says, one below another, each filled in at random",
    )
    add("--num-draws", type=COUNT, default=20, metavar="L", help="of each gap, for both")
    add("--num-particles", type=COUNT, default=1_000, metavar="S", help="draws of z per datum")
    add(
        "--num-temperatures",
        type=int,
        default=100,
        metavar="T",
        help="by which rows are annealed whose draws are not to be trusted; 0 anneals none",
    )
    add("--overwrite", action="store_true", help="replace files that are there")
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
    """Fills gaps in, writes files, and says how far they are to be trusted; returns 0.

    Args:
        config: The options.

    Raises:
        DataError, StateError, ValueError: If what is asked for is not there, or cannot be.
        ProgramError: If the user's code fails; the line is named.
    """
    import pyrovae as pv
    from pyrovae.commands.tasks import opened

    _check_files(config)
    with blamed(*own_code(vars(config))):
        check_device(config.device)
        known = opened(config)
        data = [x[:].to(config.device) for x in _arrays(config, known)]
        if data[0].ndim != 2:
            raise DataError(f"{config.data} is of shape {tuple(data[0].shape)}; give rows (N, D)")
        some = data[0].isnan().any(1)
        if not some.any():
            raise DataError(f"{config.data} has no gaps, which leaves nothing to fill in")
        found = pv.impute(
            *known.trained(*(x[:2] for x in data)),
            *(x[some] for x in data),
            num_draws=config.num_draws,
            num_particles=config.num_particles,
            num_temperatures=config.num_temperatures,
            seed=config.seed,
            plate=config.plate or known.config.get("plate", "data"),
        )
    _write(config, data[0].cpu(), found, known)
    words = ", ".join(f"{word}: {n}" for word, n in Counter(found.verdict).most_common())
    gaps, rows = int(found.gaps.sum()), len(found.gaps)
    print(f"{gaps} gaps in {rows} of {len(some)} rows filled in ({words})\nfile: {config.out}")
    if unseen := int(found.gaps.all(1).sum()):
        print(f"of {unseen} rows nothing is there: they got what a row is without any knowledge")
    return 0


def _check_files(config: "Namespace") -> None:
    """Raises ValueError where a file is there, is named twice, or is of no such kind.

    Args:
        config: The options.
    """
    table = names_table(config.data)
    kinds = {"out": table, "draws": table, "gaps": True}  # whether each is a table
    named = {option: config[option] for option in kinds if config[option]}
    paths = [Path(name).resolve() for name in (config.data, *named.values())]
    for option, name in named.items():
        if paths.count(Path(name).resolve()) > 1:
            raise ValueError(f"{name} is named twice; give each file a name of its own")
        check_free(name, config.overwrite)
        if names_table(name) != kinds[option]:
            kind = "table, .csv or .parquet" if kinds[option] else ".npy"
            raise ValueError(f"--{option} {name} is no {kind}; name one")
    least = round(2 / (1 - config.prob)) - 1
    if config.gaps and config.num_draws < least:
        raise ValueError(f"--prob {config.prob:g} needs more draws; add --num-draws {least}")


def _arrays(config: "Namespace", known: "Run") -> "tuple[Tensor | Rows, ...]":
    """Returns all rows of the file, what model and guide take of them, `(N, ...)` each.

    Args:
        config: The options.
        known: The run.
    """
    import pyrovae as pv

    columns = known.columns if names_table(config.data) else None
    binarize = config.binarize or known.config["binarize"]
    program = known.model is None
    rows, *_ = pv.data.load_rows(config.data, binarize, program=program, columns=columns)
    return known.arrays(rows)


def _write(config: "Namespace", x: "Tensor", found: "Imputed", known: "Run") -> None:
    """Writes the data without gaps, and what else is asked for.

    Args:
        config: The options.
        x: The data as the model takes them, `(N, D)`.
        found: What fills the rows that have gaps.
        known: The run.
    """
    import torch

    from pyrovae import data, storage

    gaps, out = x.isnan(), Path(config.out)
    some = gaps.any(1)
    draws = torch.full((len(found.draws), *x.shape), torch.nan, dtype=x.dtype)
    draws[:, some] = found.draws.to(x)
    mean = x.clone()
    mean[some] = found.mean.to(x)
    if names_table(config.data):
        from pyrovae.data.tables import filled_in, read_table, stacked

        frame = read_table(config.data, as_text=True).rename(columns=str)
        write_table(out, filled_in(frame, gaps, mean, known.table))
        if config.draws:
            tables = [filled_in(frame, gaps, d, known.table) for d in draws]
            write_table(Path(config.draws), stacked(tables))
    else:  # what is seen as it stands in the file, where the model is given draws in {0, 1}
        seen = data.load_rows(config.data)[0].x[:]
        storage.write_array(out, torch.where(gaps, mean, seen).numpy())
        if config.draws:
            storage.write_array(Path(config.draws), torch.where(gaps, draws, seen).numpy())
    if config.gaps:
        rows = some.nonzero()[:, 0].tolist()
        storage.write_lines(Path(config.gaps), _gaps(found, rows, known.table, config.prob))


def _gaps(
    found: "Imputed", rows: "Sequence[int]", columns: "Sequence[Column]", prob: float
) -> "Iterator[str]":
    """Yields the lines of a table of gaps: row, column, value, between what it lies, verdict.

    Of a class that has no order there is no between.

    Args:
        found: What fills them.
        rows: The number of each row that has gaps.
        columns: Of a table; else none, and columns are numbered.
        prob: Of lying there.
    """
    from pyrovae.data.tables import decoded
    from pyrovae.likelihoods import Column
    from pyrovae.storage import line_of_csv

    low, high = found.interval(prob)
    known = columns or [Column(str(d), "real") for d in range(found.gaps.shape[1])]
    tables = [decoded(u, known) for u in (found.mean, low, high)]
    yield "row,column,value,low,high,verdict"
    for n, d in found.gaps.nonzero().tolist():
        column = known[d]
        values = [table[column.name].iloc[n] for table in tables]
        if column.kind in ("binary", "categorical"):
            values[1:] = [None, None]
        yield line_of_csv([rows[n], column.name, *values, found.verdict[n]])
