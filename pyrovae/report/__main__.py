"""Writes report.html, the page of a run, anew: python -m pyrovae report RUN."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from pyrovae.commands import command, make_program


def parser() -> ArgumentParser:
    """Returns the command line."""
    p = ArgumentParser(prog="python -m pyrovae report", description=__doc__)
    p.add_argument("run", help="run folder of python -m pyrovae.svi")
    p.add_argument("--root", type=str | None, help="folder that holds the named data sets")
    p.add_argument("--program", type=str | None, help="of a program's run, for its diagram")
    return p


def main(argv: list[str] | None = None) -> int:
    """Writes the page and returns the exit code: 0 ok, 2 usage, 3 data, 5 run."""
    return command(parser(), run, argv, "nothing was written")


def run(config: Namespace) -> int:
    """Writes the page, and prints where it is."""
    from pyrovae import report, runs

    program = None
    if config.program:
        if not runs.holds_program(config.run):
            raise ValueError(f"{config.run} holds a VAE, which needs no --program; leave it out")
        seed = runs.read_config(Path(config.run))["seed"]
        program = make_program(config.program, seed, "cpu")
    print(report.write(config.run, root=config.root, program=program))
    return 0


if __name__ == "__main__":
    sys.exit(main())
