"""Which new data are odd to a run's model: python -m pyrovae anomalies RUN --data FILE."""

__all__ = ["main", "parser"]

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.commands.common import check_device, guarded
from pyrovae.commands.named import own_code
from pyrovae.commands.users import blamed

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import Namespace

    from pyrovae.commands.options import Parser
    from pyrovae.commands.tasks import Names
    from pyrovae.posteriors.anomalies import Anomalies

DOES = "Which data are odd to a run's model, by -log P(x), with a promised rate of false alarms."
EXAMPLES = (
    ("runs/a --data new.npy", "against the run's own test part, at 5 % false alarms"),
    ("runs/a --data new.npy --calibration usual.npy --false-alarms 0.01", "against others"),
    ("runs/a --data new.npy --out odd.csv", "and as a table, a row a datum"),
)


def parser() -> "Parser":
    """Returns the command line: a run's folder, data to be judged, and what they are held to."""
    from pyrovae.commands.options import COUNT, FACTOR, SEED, Parser, add_common, add_own_code

    p = Parser(" anomalies", DOES, EXAMPLES, "RUN --data NAME")
    p.add_argument("run", metavar="RUN", help="folder of python -m pyrovae.svi")
    add = p.add_argument_group("data and model").add_argument
    add(
        "--data",
        type=str,
        required=True,
        metavar="NAME",
        help="to be judged: .npy, .npz or a table (all rows), or a data set by name (its test "
        "part)",
    )
    add(
        "--calibration",
        type=str | None,
        metavar="NAME",
        help="that are not odd, and not trained on; likewise (default: the run's own test part)",
    )
    add("--root", type=str | None, metavar="FOLDER", help="that holds the named data sets")
    add(
        "--binarize",
        choices=["static", "dynamic", "threshold", "none"],
        help="(default: as the run)",
    )
    add_own_code(add)
    add("--plate", type=str | None, help="over the data (default: data)")
    add = p.add_argument_group("anomalies").add_argument
    add("--false-alarms", type=FACTOR, default=0.05, metavar="X", help="rate that is promised")
    add(
        "--estimator",
        type=str | None,
        metavar="NAME",
        help="of log P(x), with options as in 'ais(100, 16)' (default: importance sampling from "
        "each datum's mode, where the program has a gradient)",
    )
    add("--num-particles", type=COUNT, default=1_000, metavar="S", help="draws per datum")
    add("--seed", type=SEED, default=0, metavar="N", help="of the draws")
    add(
        "--top",
        type=COUNT,
        default=10,
        metavar="N",
        help="oddest rows that are shown, with the columns that make them so",
    )
    add("--out", type=str | None, metavar="FILE", help="for all rows, as CSV")
    add = add_common(p)
    add("--workers", type=COUNT | None, metavar="N", help="processes that share the work")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 3 data, 5 run, 130 interrupted.

    Args:
        argv: Without the name of the command; `None` takes the process's own.
    """
    return guarded(lambda: run(parser().parse_args(argv)))


def run(config: "Namespace") -> int:
    """Prints what is odd, and writes it where a file is named; returns the exit code, 0.

    Args:
        config: The options.

    Raises:
        DataError, StateError, ValueError: If what is asked for is not there, or cannot be.
        ProgramError: If the user's code fails; the line is named.
    """
    import pyrovae as pv
    from pyrovae import storage
    from pyrovae.commands.estimators import estimator_asked
    from pyrovae.commands.tasks import check_out, names_of, of_data
    from pyrovae.posteriors.anomalies import HEADER

    with blamed(*own_code(vars(config))):
        check_device(config.device)
        check_out(config.out, HEADER)
        task, others = of_data(config, config.data), of_data(config, config.calibration)
        data, calibration = ([x[:].to(config.device) for x in t.data] for t in (task, others))
        size, asked = config.num_particles, config.estimator
        found = pv.anomalies(
            *task.pair,
            *data,
            calibration=calibration,
            false_alarms=config.false_alarms,
            estimator=asked and estimator_asked(asked, "estimator", size),
            columns=config.top,
            seed=config.seed,
            num_particles=size,
            plate=None if task.plate == "none" else task.plate,
            compile=config.compile,
            workers=config.workers,
            progress=config.progress,
        )
        names = names_of(config, task)
    if config.out:
        storage.write_lines(Path(config.out), found.to_csv(names.rows))
    said = (f"{t.protocol['data']}, {t.protocol['part']}" for t in (task, others))
    _say(config, found, names, *said)
    return 0


def _say(config: "Namespace", found: "Anomalies", names: "Names", data: str, others: str) -> None:
    """Prints what was found, under `--json` as JSON alone on stdout.

    Args:
        config: The options.
        found: Of the data.
        names: Of their rows and columns.
        data: What was judged, in words.
        others: What it was held to.
    """
    table = found.table(config.top, columns=names.columns, index=names.rows)
    parts = [f"data: {data}\ncalibration: {others}", found.reading(), table]
    if config.out:
        parts.append(f"file: {config.out}")
    print("\n\n".join(parts), file=sys.stderr if config.json else sys.stdout)
    if config.json:
        print(
            json.dumps({"run": config.run, "data": data, "calibration": others, **found.summary()})
        )
