"""Held-out log P(X) of a trained run, or of your own program, with a verdict for each datum."""

import json
import shlex
import sys
from typing import TYPE_CHECKING

from pyrovae.commands.common import Asked, blocks_of, check_device, guarded, interrupted
from pyrovae.commands.named import own_code, panels_asked
from pyrovae.commands.tasks import add_data
from pyrovae.commands.users import blamed

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from collections.abc import Sequence

    from jsonargparse import Namespace
    from torch import Tensor

    from pyrovae.commands.options import Parser
    from pyrovae.commands.tasks import Task
    from pyrovae.data.rows import Rows
    from pyrovae.evidence.results import Evidence

DOES = "Held-out log P(X) of a trained run, or of your own program, with a verdict for each datum."
EXAMPLES = (
    ("runs/mnist --rows 100", "a hundred rows of a run's own test part"),
    ("runs/mnist --num-particles 100000 --workers 8 --dry-run", "what that will cost"),
    ("runs/mnist --estimators ais --estimators.ais.num_leapfrog 20", "an estimator's own option"),
    ("--program prog:make --data xy.npz", "your own: make() in prog.py gives (model, guide)"),
)
# estimators of a program with a guide, and without one
GUIDED, UNGUIDED = ("elbo", "importance", "prior", "best"), ("exact",)
SHARED = ("num_particles", "tolerance", "max_particles", "max_seconds")
SHARED += ("num_temperatures", "num_chains")


def parser() -> "Parser":
    """Returns the command line: a run's folder or a program, data, and how they are evaluated."""
    from pyrovae.commands.options import COUNT, Parser, add_common, add_own_code, add_panels

    p = Parser(".evidence", DOES, EXAMPLES, "[RUN]")
    p.add_argument("run", nargs="?", type=str | None, help="folder of python -m pyrovae.svi")
    add = p.add_argument_group("data and model").add_argument
    add_data(add)
    add_own_code(add)
    add("--plate", type=str | None, help="over the data (default: data); none: all at once")
    _add_evidence(p)
    add = p.add_argument_group("folder").add_argument
    add(
        "--out",
        type=str | None,
        metavar="FOLDER",
        help="(default: the run's; RUN/evidence-DATA for other data)",
    )
    add_panels(add)
    add = add_common(p)
    add("--workers", type=COUNT | None, metavar="N", help="processes that share the work")
    add("--dry-run", action="store_true", help="say what it will cost, and do nothing")
    return p


def _add_evidence(p: "Parser") -> None:
    """Adds the options of the estimators, a group for each kind.

    Args:
        p: The parser.
    """
    from pyrovae.commands.estimators import add_estimators
    from pyrovae.commands.options import AMOUNT, COUNT, SEED

    add = p.add_argument_group("evidence").add_argument
    add_estimators(add, GUIDED, UNGUIDED)
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


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 3 data, 5 run, 130 interrupted.

    Args:
        argv: Without the name of the command; `None` takes the process's own.
    """
    argv = sys.argv[1:] if argv is None else argv
    return guarded(lambda: run(_configured(argv), argv))


def _configured(argv: list[str]) -> "Namespace":
    """Returns what the command line asks for, options of estimators by their names among it.

    Args:
        argv: Without the name of the command.

    Raises:
        ValueError: If neither a run nor a program is named, options are another command's, or the
            number of particles is none.
    """
    from pyrovae.commands.dotted import estimator_options, without_dotted

    rest, dotted = without_dotted(argv)
    config = parser().parse_args(rest)
    config.estimator_options = estimator_options(config.estimator_options, dotted.estimators)
    if dotted.model:
        raise ValueError(f"--model.{next(iter(dotted.model))} is for training; a run has its own")
    if config.num_particles != "auto" and isinstance(config.num_particles, str):
        raise ValueError(
            f"--num-particles is {config.num_particles!r}; give a whole number above 0, or auto"
        )
    if config.model and not config.run:
        raise ValueError("--model is of a run; give its folder, or --program package.module:make")
    if not (config.run or config.program):
        raise ValueError("give a run folder, or --program package.module:make")
    return config


def run(config: "Namespace", argv: list[str]) -> int:
    """Evaluates, prints, and writes tables and pictures.

    Args:
        config: The options.
        argv: The command line, to be said again where it is interrupted.

    Returns:
        The exit code of a run that went well, 0.

    Raises:
        ProgramError: If the user's code fails; the line is named.
        DataError, StateError, ValueError: If what is asked for is not there, or cannot be.
    """
    from pyrovae.commands.estimators import estimators_asked
    from pyrovae.commands.tasks import of_program, of_run
    from pyrovae.data.rows import chosen

    with blamed(*own_code(vars(config))):
        check_device(config.device)
        task = of_run(config) if config.run else of_program(config)
        config.estimators = config.estimators or list(GUIDED if task.pair[1] else UNGUIDED)
        data = tuple(chosen(x, config.rows).to(config.device) for x in task.data)
        options: Asked = {
            "estimators": estimators_asked(config, SHARED),
            "seed": config.seed,
            "compile": config.compile,
            "plate": None if task.plate == "none" else task.plate,
        }
        if config.dry_run:
            return _predicted(config, task, data, options)
        return _evaluated(config, task, data, options, argv)


def _predicted(
    config: "Namespace",
    task: "Task",
    data: "Sequence[Tensor | Rows]",
    options: "Asked",
) -> int:
    """Prints what an evaluation will cost, under `--json` as JSON; returns the exit code.

    Args:
        config: The options.
        task: Model and guide.
        data: The rows chosen, what model and guide take, `(N, ...)` each.
        options: Of `cost`.
    """
    from pyrovae.evidence.cost import cost

    expected = cost(*task.pair, *data, **options)
    print(json.dumps(expected.rows()) if config.json else expected)
    return 0


def _evaluated(
    config: "Namespace",
    task: "Task",
    data: "Sequence[Tensor | Rows]",
    options: "Asked",
    argv: list[str],
) -> int:
    """Evaluates, writes what was found, and prints it; returns the exit code.

    That files may be written is looked at first. Blocks are kept as they come, for one who goes
    on, and are removed when the results have been written.

    Args:
        config: The options.
        task: Model and guide, where results go, and what is on record of the data.
        data: The rows chosen, what model and guide take, `(N, ...)` each.
        options: Of `evaluate`.
        argv: The command line, to be said again where it is interrupted.
    """
    import pyrovae as pv
    from pyrovae import report, runs
    from pyrovae.commands.estimators import on_record
    from pyrovae.runs.folder import worked_in

    protocol = {
        **task.protocol,
        "rows_chosen": config.rows or "all",
        "rows_available": len(task.data[0]),
        **on_record(config),
    }
    again = (
        f"this goes on from the blocks already done in {task.folder / runs.BLOCKS}: "
        f"python -m pyrovae.evidence {shlex.join(argv)}"
    )
    with worked_in(task.folder) as folder, interrupted(lambda: again):
        folder.check(runs.EVIDENCE_FILES)
        blocks = blocks_of(folder, *task.pair, data, options, protocol)
        evidence = pv.evaluate(
            *task.pair,
            *data,
            **options,
            workers=config.workers,
            progress=config.progress,
            protocol=protocol,
            blocks=blocks,
        )
        runs.write_evidence(folder, evidence, data[0], task.image_shape)
        if task.splits:
            asked = panels_asked(config.panels)
            report.write(task.folder, splits=task.splits, program=task.pair, panels=asked)
        blocks.discard()
    _say(config, task, evidence)
    return 0


def _say(config: "Namespace", task: "Task", evidence: "Evidence") -> None:
    """Prints the table, and under `--json` that as JSON alone on stdout.

    Args:
        config: The options.
        task: Whose folder is named.
        evidence: What was found.
    """
    print(f"{evidence}\n\nfolder: {task.folder}", file=sys.stderr if config.json else sys.stdout)
    if config.json:
        result = {"folder": str(task.folder), "estimators": evidence.rows()}
        print(json.dumps({**result, "protocol": dict(evidence.protocol)}))
