"""Which model a command line asks for, and its options: `--model NAME --model.OPTION VALUE`."""

__all__ = ["add_model", "binary", "options_of", "resolve", "with_options_shown"]

import re
from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from pyrovae.commands.named import likelihood_name, model_class, written_names
from pyrovae.commands.options import AMOUNT, COUNT, Parser, did_you_mean
from pyrovae.registry import names_table

if TYPE_CHECKING:
    from pyrovae.models.base import Model

PREFIX = "--model."
PLAIN = int, float, str, bool, NoneType, ...
MANY = list, tuple, Sequence
VAE: dict[str, object] = {  # its options have names without --model., too
    "likelihood": "bernoulli",
    "sigma": None,
    "z_dim": 16,
    "hidden_dims": [256],
}


def add_model(add: Callable[..., object]) -> None:
    """Adds the options that say which model; those of the VAE also without `--model.`.

    Args:
        add: Adds an option to a group of the parser.
    """
    names = ", ".join(written_names("models"))
    add(
        "--model",
        default="vae",
        metavar="NAME",
        help=f"of {names}; or package.module.Class of your own; --model.OPTION VALUE for its "
        "options, which --model NAME --help lists",
    )
    add("--model_options", type=dict | None, help=SUPPRESS)
    add(
        "--likelihood",
        type=str | None,
        metavar="NAME",
        help=f"p(x|z), of {', '.join(written_names('likelihoods/single.py'))}; or "
        f"package.module.Class of your own (default: {VAE['likelihood']})",
    )
    add(
        "--sigma",
        type=AMOUNT | None,
        metavar="X",
        help="of a normal, log-normal or student-t likelihood (default: learned)",
    )
    add(
        "--z-dim",
        type=COUNT | None,
        metavar="N",
        help=f"latent dimensions (default: {VAE['z_dim']})",
    )
    add(
        "--hidden-dims",
        type=COUNT,
        nargs="+",
        metavar="N",
        help="widths of the encoder's layers, the decoder's in reverse (default: 256)",
    )


def with_options_shown(parser: Parser, argv: Sequence[str]) -> Parser:
    """Returns a parser whose help lists the options of the model that a command line names.

    Its module is imported for that, so this is done for `--help` alone.

    Args:
        parser: Gains a group of options, which it does not read: `resolve` does.
        argv: The command line.
    """
    asked = {"-h", "--help"} & set(argv)
    names = [v for w, v in pairwise(argv) if w == "--model"]
    names += [w.removeprefix("--model=") for w in argv if w.startswith("--model=")]
    if not asked or not names:
        return parser
    of_model, plain = _parsed_as(model_class(names[-1]))
    add = parser.add_argument_group(f"options of the model {names[-1]}").add_argument
    for action in of_model._actions:  # pyright: ignore[reportPrivateUsage]
        if action.dest in plain:
            add(f"{PREFIX}{action.dest}", metavar="X", default=action.default, help=action.help)
    return parser


def _parsed_as(cls: "type[Model]") -> tuple[ArgumentParser, dict[str, object]]:
    """Returns what parses the options of a model class, and the types of those that are plain.

    Only numbers, words and lists of them can be given, so that none names code to import.

    Args:
        cls: Of whose `for_data` the options are the keywords.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_method_arguments(cls, "for_data", skip={"splits"})
    actions = {a.dest: a for a in parser._actions if a.dest != "help"}  # pyright: ignore[reportPrivateUsage]
    hints = {name: getattr(a, "_typehint", a.type) for name, a in actions.items()}
    return parser, {name: hint for name, hint in hints.items() if _is_plain(hint)}


def model_options(cls: "type[Model]", given: Mapping[str, object]) -> dict[str, object]:
    """Returns what `for_data` of a model class takes, as given or by default, of its types.

    Args:
        cls: The class.
        given: Options by name, from the command line as text; "16 32" is a list where one is due.

    Raises:
        ValueError: If it takes no such option, or another value.
    """
    parser, plain = _parsed_as(cls)
    listed = dict(given)
    for name, value in given.items():
        if name not in plain:
            raise ValueError(
                f"the model {cls.name} has no option {name}{did_you_mean(name, plain)}; it takes "
                f"{', '.join(plain) or 'none'}"
            )
        if isinstance(value, str) and value[:1] != "[" and get_origin(plain[name]) in MANY:
            listed[name] = f"[{value}]"
    try:
        options = vars(parser.parse_object(listed))
    except ArgumentError as e:
        raise ValueError(_refused(cls, listed, " ".join(str(e).split()))) from e
    return {name: options[name] for name in plain}


def _refused(cls: "type[Model]", given: Mapping[str, object], what: str) -> str:
    """Returns in a sentence why the parser refuses the options of a model.

    Args:
        cls: The class.
        given: Options by name.
        what: The parser's own words, in one line.
    """
    if name := next((n for n in given if f'"{n}"' in what), None):
        what = re.sub(r"<class '(\w+)'>", r"\1", what.partition(": ")[2])
        expected = what.partition(". Got value")[0].strip()
        return f"{PREFIX}{name} is {given[name]!r}; {expected.lower()}"
    return f"the model {cls.name} needs {PREFIX}{what.rpartition('required: ')[2]}"


def _is_plain(hint: object) -> bool:
    """Returns whether a type holds numbers, words and lists of them alone.

    Args:
        hint: Such as `int | None` or `list[int]`.
    """
    if hint in PLAIN or get_origin(hint) is Literal:
        return True
    many = get_origin(hint) in (*MANY, dict, Union, UnionType)
    return many and all(map(_is_plain, get_args(hint)))


def resolve(config: Namespace, options: Mapping[str, object]) -> None:
    """Puts the options of the model into the configuration, of the VAE under their own names.

    Args:
        config: What the command line says besides; gains them.
        options: Those of `--model.OPTION VALUE`, by name.

    Raises:
        ValueError: If the model takes no such option, or a program has any.
    """
    short = {name: config[name] for name in VAE if config[name] is not None}
    if config.program:
        if of_vae := [name for name, value in short.items() if value != VAE[name]]:
            raise ValueError(
                f"--{of_vae[0].replace('_', '-')} is for a VAE, not for a program; leave it out"
            )
        found = VAE
    else:
        cls = model_class(config.model)
        given = {**_of_table(config.data, cls), **(config.model_options or {}), **short, **options}
        found = model_options(cls, given)
        if config.model != "vae":
            config.model_options, found = found, dict.fromkeys(VAE)
        else:
            plain = model_options(cls, {})
            more = {n: v for n, v in found.items() if n not in VAE and v != plain[n]}
            config.model_options, found = more or None, {name: found[name] for name in VAE}
    for name, value in found.items():
        config[name] = value


def _of_table(data: str, cls: "type[Model]") -> dict[str, object]:
    """Returns the likelihood of a model of a table, where nobody says another.

    Args:
        data: As the user named it.
        cls: The model's class.
    """
    takes = names_table(data) and "likelihood" in _parsed_as(cls)[1]
    return {"likelihood": "columns"} if takes else {}


def options_of(config: Mapping[str, object]) -> dict[str, object]:
    """Returns the options of the model in a configuration that `resolve` has filled in.

    A likelihood of the user's own is imported.

    Args:
        config: Of the run.

    Raises:
        ProgramError: If there is no such likelihood, or importing it fails.
    """
    options = config["model_options"]
    found = {name: config[name] for name in VAE} if config["model"] == "vae" else {}
    found |= options if isinstance(options, dict) else {}
    if isinstance(family := found.get("likelihood"), str):
        found["likelihood"] = likelihood_name(family)
    return found


def binary(config: Mapping[str, object]) -> bool:
    """Returns whether the model of a configuration is one of X in {0, 1}.

    Its likelihood decides, where it has one; else the class says so.

    Args:
        config: Of the run, filled in by `resolve`.

    Raises:
        ValueError: If there is no likelihood of that name.
    """
    from pyrovae.likelihoods import family

    name = options_of(config).get("likelihood")
    return (
        family(name).binary if isinstance(name, str) else model_class(str(config["model"])).binary
    )
