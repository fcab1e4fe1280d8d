"""python -m pyrovae: names the commands and hands over."""

import sys
from importlib import import_module

import pyrovae

COMMANDS = {
    "svi": "fit a VAE, and say what log P(X) of held-out data is",
    "evidence": "held-out log P(X) of a trained run, or of your own program",
    "latent": "what a run's latent space holds, and what another bottleneck would",
    "compare": "which of two runs has the higher log P(X) of the same data",
    "anomalies": "which data are odd to a run's model, at a promised rate of false alarms",
    "classify": "of which class new data are, or whether they are of none",
    "impute": "fill in what is missing in data by what a run's model says",
    "regress": "predict a column of numbers by the others of its row",
    "generate": "more data by a run's model, on a condition or near others, and if they are new",
    "order": "data in the order of log P(x), or along a latent, with intervals of their ranks",
    "report": "write the page of a run anew",
}


def main(argv: list[str] | None = None) -> int:
    """Runs `pyrovae COMMAND ...` and returns its exit code."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in COMMANDS:
        return import_module(f"pyrovae.commands.{name}").main(rest)
    if name == "--version":
        print(pyrovae.__version__)
        return 0
    lines = "\n".join(f"  {command:10}{what}" for command, what in COMMANDS.items())
    usage = (
        f"usage: python -m pyrovae COMMAND ...\n\n{lines}\n  --version which pyrovae this is\n\n"
        "python -m pyrovae COMMAND --help says more."
    )
    if name in ("-h", "--help"):
        print(usage)
        return 0
    print(f"error: there is no command {name!r}; take {', '.join(COMMANDS)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
