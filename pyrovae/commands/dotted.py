"""Options of what a command line names: `--model.OPTION X`, `--estimators.NAME.OPTION X`."""

__all__ = ["Dotted", "estimator_options", "without_dotted"]

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import yaml

DOTTED = re.compile(r"--(model|estimators)\.([^=]+)")


class Dotted(NamedTuple):
    """What a command line says by dotted options, as text.

    Attributes:
        model: By option.
        estimators: By the name of the estimator, and option.
    """

    model: dict[str, str]
    estimators: dict[str, dict[str, str]]


def without_dotted(argv: Sequence[str]) -> tuple[list[str], Dotted]:
    """Returns a command line without its dotted options, and these; several values as a list.

    Raises:
        ValueError: If one has no value, or names no estimator.

    Example:
        >>> without_dotted(["--seed", "1", "--model.widths", "5", "4", "--estimators.ais.a=2"])
        (['--seed', '1'], Dotted(model={'widths': '[5, 4]'}, estimators={'ais': {'a': '2'}}))
    """
    rest: list[str] = []
    found: dict[str, list[str]] = {}
    values = rest
    for word in argv:
        option, equals, value = word.partition("=")
        if DOTTED.match(word):
            values = found[option] = [value] if equals else []
        elif word.startswith("-") and not re.match(r"-[\d.]", word):
            values = rest
            rest.append(word)
        else:
            values.append(word)
    dotted = Dotted({}, {})
    for option, words in found.items():
        if not words:
            raise ValueError(f"{option} needs a value")
        text = words[0] if len(words) == 1 else f"[{', '.join(words)}]"
        of, _, name = option.removeprefix("--").partition(".")
        if of == "model":
            dotted.model[name.replace("-", "_")] = text
            continue
        estimator, _, name = name.rpartition(".")
        if not estimator:
            raise ValueError(f"{option} names no estimator; write --estimators.NAME.OPTION VALUE")
        dotted.estimators.setdefault(estimator, {})[name.replace("-", "_")] = text
    return rest, dotted


def estimator_options(
    kept: Mapping[str, Mapping[str, object]] | None, given: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, object]] | None:
    """Returns the options of estimators by name, those of a configuration below those given.

    Args:
        kept: Of a configuration; `None` without any.
        given: Of the command line, texts, which are read as YAML.
    """
    found = {name: dict(options) for name, options in (kept or {}).items()}
    for name, options in given.items():
        read = {option: yaml.safe_load(text) for option, text in options.items()}
        found[name] = {**found.get(name, {}), **read}
    return found or None
