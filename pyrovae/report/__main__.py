"""Writes report.html, the page of a run, anew: python -m pyrovae report RUN."""

import sys

from jsonargparse import ArgumentParser

from pyrovae.commands import guarded


def parser() -> ArgumentParser:
    """Returns the command line."""
    p = ArgumentParser(prog="python -m pyrovae report", description=__doc__)
    p.add_argument("run", help="run folder of python -m pyrovae.svi")
    p.add_argument("--root", type=str | None, help="folder that holds the named data sets")
    return p


def main(argv: list[str] | None = None) -> int:
    """Writes the page and returns the exit code: 0 ok, 2 usage, 3 data, 5 run."""
    try:
        config = parser().parse_args(sys.argv[1:] if argv is None else argv)
    except SystemExit as e:
        return int(e.code or 0)

    def run() -> int:
        from pyrovae import report

        print(report.write(config.run, root=config.root))
        return 0

    return guarded(run, "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
