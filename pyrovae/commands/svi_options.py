"""The command line of `python -m pyrovae.svi`, and what a run that is resumed was begun with.

Options come from three places, the later going before: defaults, a file (`--config`, or the
config.yaml of the run that `--resume` goes on with), and the command line itself.
"""

__all__ = ["GUIDED", "UNGUIDED", "Config", "configured", "kept", "parser"]

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.commands.named import check_again, model_class, own_code, written_names
from pyrovae.commands.users import blamed

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import Namespace

    from pyrovae.commands.options import Parser

Config = dict[str, Any]  # of values as YAML has them
INVOCATION = ("config", "out", "resume", "overwrite", "progress", "json", "download", "panels")
DOES = (
    "Fits a VAE, or another model or program, by SVI, and says what log P(X) of held-out data is."
)
EXAMPLES = (
    ("--data mnist --download --z-dim 50 --out runs/mnist", "a VAE of MNIST"),
    ("--out runs/mnist --resume --num-epochs 500", "the same run, further"),
    ("--model conv-vae --model.channels 16 32", "another model, with its options"),
    ("--model mine.Model --data x.npy", "your own: a subclass of pyrovae.Model in mine.py"),
    ("--program prog:make --data xy.npz", "your own: make() in prog.py gives (model, guide)"),
)
# estimators of a program with a guide, and without one
GUIDED, UNGUIDED = ("elbo", "importance", "prior", "best"), ("exact",)


def parser() -> "Parser":
    """Returns the parser, a group of options after the other.

    What is not about this invocation (`INVOCATION`) goes into config.yaml, so that
    `--config RUN/config.yaml` makes the same run again.
    """
    from pyrovae.commands.options import Parser, add_common

    p = Parser(".svi", DOES, EXAMPLES)
    for group in (
        _add_data,
        _add_labels,
        _add_program,
        _add_training,
        _add_validation,
        _add_evidence,
        _add_folder,
        add_common,
    ):
        group(p)
    return p


def _add_data(p: "Parser") -> None:
    """Adds what is trained on: a data set, how it is split and made binary.

    Args:
        p: The parser.
    """
    from pyrovae.commands.options import COUNT

    add = p.add_argument_group("data").add_argument
    add(
        "--data",
        default="digits",
        help="data set by name, or the path of a .npy or .npz (of a program: its arrays in order) "
        "or of a table, .csv or .parquet",
    )
    add(
        "--columns",
        type=dict | str | None,
        metavar="FILE",
        help="YAML that says what columns of a table are, as age: count, of those that are not "
        "what they seem to be",
    )
    add("--root", default="data", metavar="FOLDER", help="that holds the named data sets")
    add("--download", action="store_true", help="fetch a torchvision data set that is not there")
    add(
        "--binarize",
        choices=["static", "dynamic", "threshold", "none"],
        help="(default: dynamic where X are in {0, 1}, as of a Bernoulli, else none)",
    )
    add(
        "--valid-size",
        type=COUNT | None,
        metavar="N",
        help="training rows held out for validation (default: a fifth of the rows; 10,000 of the "
        "MNIST family)",
    )


def _add_labels(p: "Parser") -> None:
    """Adds how many labels a model that takes them is told.

    Args:
        p: The parser.
    """
    from pyrovae.commands.options import COUNT

    p.add_argument_group("labels").add_argument(
        "--num-labels",
        type=COUNT | None,
        metavar="N",
        help="of the training data, as many of each class, that a model with labels is told; none "
        "of validation and test data (default: all labels of all data)",
    )


def _add_program(p: "Parser") -> None:
    """Adds what is trained: a model with its options, or a program.

    Args:
        p: The parser.
    """
    from pyrovae.commands.model_options import add_model

    add = p.add_argument_group("model").add_argument
    add_model(add)
    add(
        "--program",
        type=str | None,
        metavar="MODULE:MAKE",
        help="instead of a model: make() returns (model, guide)",
    )
    add("--plate", default="data", metavar="NAME", help="of a program's plate over the data")


def _add_training(p: "Parser") -> None:
    """Adds how it is trained: what is maximised, by which steps, for how long.

    Args:
        p: The parser.
    """
    from pyrovae.commands.options import AMOUNT, COUNT, FACTOR, SEED

    add = p.add_argument_group("training").add_argument
    add(
        *("-n", "--num-epochs"),
        type=COUNT,
        default=300,
        metavar="N",
        help="passes over the training data",
    )
    add("--batch-size", type=COUNT, default=128, metavar="N", help="rows of a step")
    add(
        "--objective",
        type=str | None,
        metavar="NAME",
        help=f"what is maximised: {', '.join(written_names('svi'))}, with options "
        "as in iwae(50); or package.module.Class of your own (default: the model's, mostly elbo)",
    )
    add(
        "--lr",
        type=AMOUNT,
        default=1e-3,
        metavar="X",
        help="learning rate; the highest one of one-cycle",
    )
    add("--lr-schedule", default="constant", choices=["constant", "one-cycle"])
    add(
        "--optimizer",
        default="adam",
        metavar="NAME",
        help="adam; adamw(0.1), under which matrices shrink; muon, for matrices",
    )
    add("--clip-norm", type=AMOUNT | None, metavar="X", help="largest norm of the gradient")
    add(
        "--ema",
        type=FACTOR | None,
        metavar="X",
        help="decay of an exponential moving average of the parameters, such as 0.999, which is "
        "validated and kept (default: the parameters themselves)",
    )
    add("--seed", type=SEED, default=0, metavar="N", help="of weights, training and evaluation")


def _add_validation(p: "Parser") -> None:
    """Adds which epoch is the best, and when there will be no better one.

    Args:
        p: The parser.
    """
    from pyrovae.commands.options import COUNT

    add = p.add_argument_group("validation").add_argument
    add(
        "--criterion",
        type=str | None,
        metavar="NAME",
        help="what is highest at the best epoch: an estimator, with options as in importance(500) "
        "or iwae(64), else of 100 particles; or package.module.Class of your own (default: the "
        "validation ELBO)",
    )
    add(
        "--criterion-rows",
        type=COUNT,
        default=500,
        metavar="N",
        help="first validation rows, at most, that it is taken of",
    )
    add(
        "--patience",
        type=COUNT | None,
        metavar="N",
        help="epochs to wait for a better validation ELBO, or criterion",
    )


def _add_evidence(p: "Parser") -> None:
    """Adds how log P(X) is estimated in the end.

    Args:
        p: The parser.
    """
    from pyrovae.commands.estimators import add_estimators
    from pyrovae.commands.options import COUNT

    add = p.add_argument_group("evidence").add_argument
    add_estimators(add, GUIDED, UNGUIDED)
    add("--num-particles", type=COUNT, default=5_000, metavar="K", help="samples per datum")


def _add_folder(p: "Parser") -> None:
    """Adds where the run lies, and what becomes of one that lies there.

    Args:
        p: The parser.
    """
    from pyrovae.commands.options import add_panels

    add = p.add_argument_group("run folder").add_argument
    add("--out", type=str | None, metavar="FOLDER", help="(default: runs/<time>-<data>)")
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--overwrite", action="store_true", help="replace the run in --out")
    add_panels(add)
    add("--config", action="config", metavar="FILE", help="YAML of options; flags override it")


def configured(argv: list[str]) -> "Namespace":
    """Returns what the command line asks for, of a run that is resumed as it was begun.

    Options of the model and of estimators are resolved: with the defaults of their classes, which
    are imported for it. Which estimators, where none are named, is left to whether there is a
    guide.

    Args:
        argv: Without the name of the command.

    Raises:
        ValueError: If a file names code of a user's that the command line does not name, or a
            program comes with a model's options.
    """
    from pyrovae.commands.dotted import estimator_options, without_dotted
    from pyrovae.commands.model_options import binary, resolve, with_options_shown

    p = with_options_shown(parser(), argv)
    argv, dotted = without_dotted(argv)
    config = p.parse_args(argv)
    if config.resume and config.out and (Path(config.out) / "config.yaml").exists():
        from pyrovae.runs import read_config

        read_config(Path(config.out))
        config = p.parse_args(["--config", str(Path(config.out) / "config.yaml"), *argv])
    if isinstance(config.columns, str):
        config.columns = _columns(config.columns)
    check_again(vars(config), {a.partition("=")[0].removeprefix("--") for a in argv})
    if config.program and (dotted.model or config.model != p.get_default("model")):
        raise ValueError("a program is no model with options; give --program or --model")
    with blamed(*own_code(vars(config))):
        resolve(config, dotted.model)
        drawn = not config.program and binary(vars(config))
    from pyrovae.svi.optimizers import optimizer_of

    _ = optimizer_of(config.optimizer)  # refused before data are read
    named = "elbo" if config.program else model_class(config.model).objective
    config.objective = config.objective or named
    config.estimator_options = estimator_options(config.estimator_options, dotted.estimators)
    config.binarize = config.binarize or ("dynamic" if drawn else "none")
    return config


def _columns(path: str) -> Mapping[str, object]:
    """Returns what a YAML file says of columns, by name; ValueError where it is none."""
    from pyrovae.storage import read_yaml

    said = read_yaml(Path(path))
    if not isinstance(said, dict):
        raise ValueError(f"--columns {path} holds no columns; write lines such as age: count")
    return said


def kept(config: "Namespace") -> Config:
    """Returns what goes into config.yaml: all that decides the numbers, as plain values.

    They go through JSON, which makes plain numbers of the parser's restricted ones.

    Args:
        config: What is asked for, resolved.
    """
    return json.loads(json.dumps({k: v for k, v in vars(config).items() if k not in INVOCATION}))
