"""Which of two runs has the higher log P(X): python -m pyrovae compare RUN RUN."""

__all__ = ["main", "parser"]

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.commands.common import guarded
from pyrovae.commands.named import estimator_name
from pyrovae.errors import StateError

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import Namespace

    from pyrovae.commands.options import Parser
    from pyrovae.evidence.results import Evidence

DOES = "Which of two runs has the higher log P(X) of the same data, and whether that can be told."
EXAMPLES = (
    ("runs/a runs/b", "the difference datum by datum, a - b, with its errors"),
    ("runs/a runs/b --out runs/a-b", "and as a page, a table and a picture"),
    ("runs/a runs/b --estimator-a ais --estimator-b ais", "by other estimates of theirs"),
)


def parser() -> "Parser":
    """Returns the command line: two folders with evidence, and whose estimates count."""
    from pyrovae.commands.options import Parser

    p = Parser(" compare", DOES, EXAMPLES, "RUN RUN")
    p.add_argument("run_a", metavar="RUN", help="folder of python -m pyrovae.svi or .evidence")
    p.add_argument("run_b", metavar="RUN", help="another, of the same data")
    add = p.add_argument_group("comparison").add_argument
    for side in ("a", "b"):
        add(
            f"--estimator-{side}",
            type=str | None,
            metavar="NAME",
            help=f"whose estimates of {side} count (default: those that its evidence goes by)",
        )
    add(
        "--out",
        type=str | None,
        metavar="FOLDER",
        help="for comparison.html, a page, with its table, comparison.csv, and its picture",
    )
    add("--json", action="store_true", help="the numbers as JSON on stdout, all else on stderr")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 5 run, 130 interrupted.

    Args:
        argv: Without the name of the command; `None` takes the process's own.
    """
    return guarded(lambda: run(parser().parse_args(argv)))


def run(config: "Namespace") -> int:
    """Prints the comparison, and writes it where a folder is named; returns the exit code, 0.

    Args:
        config: The options.

    Raises:
        StateError: If a folder is not there, or holds no evidence.
        ValueError: If both cannot be compared, or the folder for results is that of a run.
    """
    import pyrovae as pv
    from pyrovae import report, runs
    from pyrovae.runs.folder import worked_in

    folders = [config.run_a, config.run_b]
    asked = [name and estimator_name(name) for name in (config.estimator_a, config.estimator_b)]
    if config.out and Path(config.out).resolve() in [Path(f).resolve() for f in folders]:
        raise ValueError(f"--out {config.out} is one of both runs; name a folder of its own")
    one, other = map(_evidence, folders)
    found = pv.compare(one, other, estimator_a=asked[0], estimator_b=asked[1])
    parts = [f"a: {folders[0]}\nb: {folders[1]}", str(found)]
    if config.out:
        with worked_in(config.out) as folder:
            runs.write_comparison(folder, found, report.render_comparison(found, *folders))
        parts.append(f"folder: {config.out}")
    print("\n\n".join(parts), file=sys.stderr if config.json else sys.stdout)
    if config.json:
        print(json.dumps({"a": folders[0], "b": folders[1], **found.summary()}))
    return 0


def _evidence(folder: str) -> "Evidence":
    """Returns the evidence in a folder; raises StateError if there is none.

    Args:
        folder: As the user wrote it.
    """
    from pyrovae import runs

    if not Path(folder).is_dir():
        raise StateError(f"{folder} is no folder; give that of a run")
    return runs.load_evidence(Path(folder))
