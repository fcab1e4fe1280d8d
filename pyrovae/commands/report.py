"""Writes report.html, the page of a run, anew: python -m pyrovae report RUN."""

from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.commands.common import guarded
from pyrovae.commands.users import blamed, make_program, named_again, program_sha256

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from pyrovae.commands.options import Parser

DOES = "Writes report.html, the page of a run, anew."
EXAMPLES = (
    ("runs/mnist", "the page of that run"),
    ("runs/mnist --root /data", "where its data set has moved"),
    ("runs/mine --program prog:make", "of your own program, with its diagram"),
)


def parser() -> "Parser":
    """Returns the command line."""
    from pyrovae.commands.options import Parser

    p = Parser("report", DOES, EXAMPLES, "RUN")
    p.add_argument("run", help="folder of python -m pyrovae.svi")
    add = p.add_argument_group("data and model").add_argument
    add("--root", type=str | None, metavar="FOLDER", help="that holds the named data sets")
    add("--program", type=str | None, metavar="MODULE:MAKE", help="of the run, for its diagram")
    add("--model", type=str | None, metavar="NAME", help="package.module.Class, of your own")
    return p


def main(argv: list[str] | None = None) -> int:
    """Writes the page and returns the exit code: 0 ok, 2 usage, 3 data, 5 run."""
    return guarded(lambda: run(parser().parse_args(argv)))


def run(config: "Namespace") -> int:
    """Writes the page, and prints where it is."""
    from pyrovae import report, runs, storage
    from pyrovae.runs.folder import worked_in

    program = None
    holds_program = runs.holds_program(Path(config.run))  # and a run at all
    if config.program:
        if not holds_program:
            raise ValueError(f"{config.run} holds a model, which needs no --program; leave it out")
        folder = Path(config.run)
        program = make_program(config.program, runs.read_config(folder)["seed"], "cpu")
        known = runs.load_evidence(folder)
        if known.protocol.get("program_sha256", made := program_sha256(program)) != made:
            raise storage.StateError(
                f"{config.program} has changed since the evidence in {config.run} was computed; "
                f"python -m pyrovae.evidence {config.run} --program {config.program} evaluates it"
            )
    if not holds_program:
        named_again(config.model, runs.read_config(Path(config.run)))
    with worked_in(config.run) as own, blamed(config.program or config.model):
        own.claim([runs.REPORT])
        print(report.write(config.run, root=config.root, program=program))
    return 0
