"""Writes report.html, the page of a run, anew: python -m pyrovae report RUN."""

import sys

from jsonargparse import ArgumentParser, Namespace

from pyrovae.commands import command


def parser() -> ArgumentParser:
    """Returns the command line."""
    p = ArgumentParser(prog="python -m pyrovae report", description=__doc__)
    p.add_argument("run", help="run folder of python -m pyrovae.svi")
    p.add_argument("--root", type=str | None, help="folder that holds the named data sets")
    return p


def main(argv: list[str] | None = None) -> int:
    """Writes the page and returns the exit code: 0 ok, 2 usage, 3 data, 5 run."""
    return command(parser(), run, argv, "nothing was written")


def run(config: Namespace) -> int:
    """Writes the page, and prints where it is."""
    from pyrovae import report

    print(report.write(config.run, root=config.root))
    return 0


if __name__ == "__main__":
    sys.exit(main())
