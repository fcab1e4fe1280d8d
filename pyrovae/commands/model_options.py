"""Which model a command line asks for, and its options: `--model NAME --model.OPTION VALUE`."""

__all__ = ["add_model", "options_of", "resolve", "without_model"]

import re
from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from pyrovae.commands.common import LIKELIHOODS
from pyrovae.commands.options import AMOUNT, COUNT, did_you_mean
from pyrovae.commands.users import model_class

PREFIX = "--model."
PLAIN = int, float, str, bool, NoneType, ...
MANY = list, tuple, Sequence
VAE: dict[str, Any] = {  # its options have names without --model., too
    "likelihood": LIKELIHOODS[0],
    "sigma": None,
    "z_dim": 16,
    "hidden_dims": [256],
}


def add_model(add: Callable[..., Any]) -> None:
    """Adds the options that say which model; those of the VAE also without `--model.`."""
    add(
        "--model",
        default="vae",
        metavar="NAME",
        help="by name, or package.module.Class of your own; --model.OPTION VALUE for its options",
    )
    add("--model_options", type=dict | None, help=SUPPRESS)
    add("--likelihood", choices=LIKELIHOODS, help=f"p(x|z) (default: {VAE['likelihood']})")
    add(
        "--sigma",
        type=AMOUNT | None,
        metavar="X",
        help="of the normal likelihood (default: learned)",
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


def without_model(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns a command line without its `--model.OPTION VALUE ...`, and these by name.

    Raises:
        ValueError: If one has no value.
    """
    rest: list[str] = []
    found: dict[str, list[str]] = {}
    values = rest
    for word in argv:
        name, equals, value = word.partition("=")
        if word.startswith(PREFIX):
            option = name.removeprefix(PREFIX).replace("-", "_")
            values = found[option] = [value] if equals else []
        elif word.startswith("-") and not re.match(r"-[\d.]", word):
            values = rest
            rest.append(word)
        else:
            values.append(word)
    if empty := [name for name, words in found.items() if not words]:
        raise ValueError(f"{PREFIX}{empty[0]} needs a value")
    options = {n: v[0] if len(v) == 1 else f"[{', '.join(v)}]" for n, v in found.items()}
    return rest, options


def model_options(cls: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Returns what `for_data` of a model class takes, as given or by default, of its types.

    Only numbers, words and lists of them can be given, so that none names code to import.

    Raises:
        ValueError: If it takes no such option, or another value.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_method_arguments(cls, "for_data", skip={"splits"})
    hints = {a.dest: getattr(a, "_typehint", a.type) for a in parser._actions}  # pyright: ignore
    plain = {n: h for n, h in hints.items() if n != "help" and _is_plain(h)}
    for name, value in given.items():
        if name not in plain:
            raise ValueError(
                f"the model {cls.name} has no option {name}{did_you_mean(name, plain)}; it takes "
                f"{', '.join(plain) or 'none'}"
            )
        if isinstance(value, str) and value[:1] != "[" and get_origin(plain[name]) in MANY:
            given = {**given, name: f"[{value}]"}
    try:
        options = vars(parser.parse_object(given))
    except ArgumentError as e:
        what = " ".join(str(e).split())
        if name := next((n for n in given if f'"{n}"' in what), None):
            what = re.sub(r"<class '(\w+)'>", r"\1", what.partition(": ")[2])
            expected = what.partition(". Got value")[0].strip()
            raise ValueError(f"{PREFIX}{name} is {given[name]!r}; {expected.lower()}") from e
        needed = what.rpartition("required: ")[2]
        raise ValueError(f"the model {cls.name} needs {PREFIX}{needed}") from e
    return {name: options[name] for name in plain}


def _is_plain(hint: Any) -> bool:
    """Returns whether a type holds numbers, words and lists of them alone."""
    if hint in PLAIN or get_origin(hint) is Literal:
        return True
    many = get_origin(hint) in (*MANY, dict, Union, UnionType)
    return many and all(map(_is_plain, get_args(hint)))


def resolve(config: Namespace, options: dict[str, Any]) -> None:
    """Puts the options of the model into the configuration, of the VAE under their own names."""
    short = {name: config[name] for name in VAE if config[name] is not None}
    if config.program:
        if of_vae := [name for name, value in short.items() if value != VAE[name]]:
            raise ValueError(
                f"--{of_vae[0].replace('_', '-')} is for a VAE, not for a program; leave it out"
            )
        found = VAE
    else:
        given = {**(config.model_options or {}), **short, **options}
        found = model_options(model_class(config.model), given)
        if config.model != "vae":
            config.model_options, found = found, dict.fromkeys(VAE)
    for name, value in found.items():
        config[name] = value


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of the model in a configuration that `resolve` has filled in."""
    options = config["model_options"]
    return {name: config[name] for name in VAE} if options is None else options
