"""Writes report.html, the page of a run, anew: python -m pyrovae report RUN."""

from typing import TYPE_CHECKING

from pyrovae.commands.common import guarded
from pyrovae.commands.named import estimator_name, own_code, panels_asked
from pyrovae.commands.users import blamed

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import Namespace

    from pyrovae.commands.options import Parser
    from pyrovae.runs import Run

DOES = "Writes report.html, the page of a run, anew."
EXAMPLES = (
    ("runs/mnist", "the page of that run"),
    ("runs/mnist --root /data", "where its data set has moved"),
    ("runs/mine --program prog:make", "of your own program, with its diagram"),
)


def parser() -> "Parser":
    """Returns the command line: a run's folder, and what of the user's own code made it."""
    from pyrovae.commands.options import Parser, add_own_code, add_panels

    p = Parser(".report", DOES, EXAMPLES, "RUN")
    p.add_argument("run", help="folder of python -m pyrovae.svi")
    add = p.add_argument_group("data and model").add_argument
    add("--root", type=str | None, metavar="FOLDER", help="that holds the named data sets")
    add_own_code(add)
    add(
        "--data",
        type=str | None,
        metavar="NAME",
        help="of a run with your own data set: package.module.Name",
    )
    add(
        "--estimators",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of evidence by your own estimators: package.module.Class",
    )
    add_panels(add)
    return p


def main(argv: list[str] | None = None) -> int:
    """Writes the page and returns the exit code: 0 ok, 2 usage, 3 data, 5 run.

    Args:
        argv: Without the name of the command; `None` takes the process's own.
    """
    return guarded(lambda: run(parser().parse_args(argv)))


def run(config: "Namespace") -> int:
    """Writes the page, and prints where it is; returns the exit code of what went well, 0.

    Args:
        config: The options.

    Raises:
        StateError: If the folder holds no run with evidence, or evidence of another model or data.
        ProgramError: If code of the user's own is not there, or fails.
    """
    from pyrovae import report, runs
    from pyrovae.commands.tasks import data_of, opened
    from pyrovae.runs.folder import worked_in

    with blamed(*own_code(vars(config))):
        opened_run = opened(config, needs_program=False)
        for name in config.estimators:
            estimator_name(name)
        _check_program(config, opened_run)
        with worked_in(config.run) as own:
            own.claim([runs.REPORT])
            asked, splits = panels_asked(config.panels), data_of(config, opened_run)
            page = report.write(
                config.run, splits=splits, program=opened_run.program, panels=asked
            )
            print(page)
    return 0


def _check_program(config: "Namespace", run: "Run") -> None:
    """Raises StateError where a program is not the one that the evidence is of.

    Args:
        config: The options, which name it.
        run: With the program, made anew; one that was not named is not looked at.
    """
    from pyrovae import runs, storage
    from pyrovae.commands.users import program_sha256

    if run.program is None or not (run.folder / runs.EVIDENCE).exists():
        return
    known = runs.load_evidence(run.folder)
    if known.protocol.get("program_sha256", made := program_sha256(run.program)) != made:
        raise storage.StateError(
            f"{config.program} has changed since the evidence in {config.run} was computed; "
            f"python -m pyrovae.evidence {config.run} --program {config.program} evaluates it"
        )
