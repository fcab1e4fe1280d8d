"""Which estimators a command line asks for: by name or import path, with options of their own."""

__all__ = [
    "add_estimators",
    "criterion_asked",
    "estimator_asked",
    "estimators_asked",
    "on_record",
]

import json
from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING

from pyrovae.commands.named import estimator_name, written_names
from pyrovae.commands.options import did_you_mean
from pyrovae.registry import is_path

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import Namespace
    from torch import Tensor

    from pyrovae.evidence.estimators.base import Estimator

CRITERION = 100  # particles of an estimator that is taken after every epoch


def add_estimators(
    add: Callable[..., object], default: Sequence[str], unguided: Sequence[str] = ()
) -> None:
    """Adds the options that say which estimators are asked for.

    Args:
        add: Adds an option to a group of the parser.
        default: Names.
        unguided: Those of a model without a guide, where it decides; the parser then leaves open
            which.
    """
    names = ", ".join(written_names("evidence/estimators"))
    by_guide = f"{' '.join(default)}; of a model without a guide: {' '.join(unguided)}"
    add(
        "--estimators",
        nargs="+",
        default=None if unguided else list(default),
        metavar="NAME",
        help=f"of {names}; or package.module.Class of your own; --estimators.NAME.OPTION VALUE "
        f"for its options{f' (default: {by_guide})' if unguided else ''}",
    )
    add("--estimator_options", type=dict | None, help=SUPPRESS)


def estimators_asked(config: "Namespace", shared: Sequence[str]) -> "list[Estimator]":
    """Returns the estimators of a configuration, a user's own imported.

    Args:
        config: With `estimators`, and `estimator_options` by their names.
        shared: Options of `config` that go by one name for all estimators, such as
            "num_particles"; those of an estimator's own go before.

    Raises:
        ValueError: If there is no such estimator, or option of it.
        ProgramError: If a user's own cannot be had.
    """
    from pyrovae.evidence.estimators.names import estimator

    names = [estimator_name(name) for name in config.estimators]
    options: Mapping[str, Mapping[str, object]] = config.estimator_options or {}
    if other := [name for name in options if name not in names]:
        raise ValueError(
            f"--estimators.{other[0]} has options, but it is not asked for"
            f"{did_you_mean(other[0], names) or '; add it to --estimators'}"
        )
    common = {name: config[name] for name in shared}
    return [estimator(name, options.get(name), **common) for name in names]


def criterion_asked(text: str | None, plate: str | None) -> "Callable[..., Tensor] | None":
    """Returns what `fit` takes as criterion, of an estimator with options; `None` of nothing.

    Args:
        text: As of `estimator_asked`; particles are 100 where it says nothing of them.
        plate: Name of the plate over the data.

    Raises:
        ValueError: If there is no such estimator, or option of it.
        ProgramError: If a user's own cannot be had.
    """
    if text is None:
        return None
    return partial(estimator_asked(text, "criterion", CRITERION).values, plate=plate)


def estimator_asked(text: str, option: str, num_particles: int) -> "Estimator":
    """Returns the estimator that one option names, with options of its own.

    Args:
        text: A name or import path, with options as in "importance(500)".
        option: That says it, without dashes.
        num_particles: Where it says nothing of them.

    Raises:
        ValueError: If there is no such estimator, or option of it.
        ProgramError: If a user's own cannot be had.
    """
    from pyrovae.evidence.estimators.names import estimator, kind
    from pyrovae.registry import called

    asked = called(text, option)
    name = estimator_name(asked.name)
    takes = signature(kind(name))
    try:
        own = takes.bind(*asked.args, **asked.kwargs).arguments
    except TypeError as e:
        raise ValueError(
            f"--{option} is {text!r}, but {name} takes {', '.join(takes.parameters) or 'nothing'}"
        ) from e
    return estimator(name, own, num_particles=num_particles)


def on_record(config: "Namespace") -> dict[str, str]:
    """Returns what the record says of estimators beside their own facts, to ask for them again."""
    record = {}
    if any(map(is_path, config.estimators)):
        record["estimators"] = " ".join(config.estimators)
    if config.estimator_options:
        record["estimator_options"] = json.dumps(config.estimator_options)
    return record
