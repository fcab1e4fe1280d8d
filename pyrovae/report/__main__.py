"""Writes report.html, the page of a run, anew: python -m pyrovae report RUN."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.commands import command, make_program, program_sha256

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def parser() -> "ArgumentParser":
    """Returns the command line."""
    from jsonargparse import ArgumentParser

    p = ArgumentParser(prog="python -m pyrovae report", description=__doc__)
    p.add_argument("run", help="run folder of python -m pyrovae.svi")
    p.add_argument("--root", type=str | None, help="folder that holds the named data sets")
    p.add_argument("--program", type=str | None, help="of a program's run, for its diagram")
    return p


def main(argv: list[str] | None = None) -> int:
    """Writes the page and returns the exit code: 0 ok, 2 usage, 3 data, 5 run."""
    return command(parser, run, argv, "nothing was written")


def run(config: "Namespace") -> int:
    """Writes the page, and prints where it is."""
    from pyrovae import report, runs, storage
    from pyrovae.folder import worked_in

    program = None
    if config.program:
        if not runs.holds_program(config.run):
            raise ValueError(f"{config.run} holds a VAE, which needs no --program; leave it out")
        folder = Path(config.run)
        program = make_program(config.program, runs.read_config(folder)["seed"], "cpu")
        known = runs.load_evidence(folder)
        if known.protocol.get("program_sha256", made := program_sha256(program)) != made:
            raise storage.StateError(
                f"{config.program} has changed since the evidence in {config.run} was computed; "
                f"python -m pyrovae.evidence {config.run} --program {config.program} evaluates it"
            )
    with worked_in(config.run) as own:
        own.claim([runs.REPORT])
        print(report.write(config.run, root=config.root, program=program))
    return 0


if __name__ == "__main__":
    sys.exit(main())
