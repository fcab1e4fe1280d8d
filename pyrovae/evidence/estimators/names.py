"""Estimators by name: pyrovae's own, those of modules that were imported, and by import path.

A name that a user gives may be an import path, and is imported; one that stands in a file is not:
`kind` knows what is known already, and nothing else.
"""

__all__ = ["estimator", "kind", "named", "proposal"]

from ast import literal_eval
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from numbers import Integral, Real
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

from pyrovae.checks import shown
from pyrovae.evidence.estimators.base import Estimator, known, unnumbered
from pyrovae.evidence.samplers.laplace import Laplace
from pyrovae.evidence.samplers.proposals import Defensive, Refined, Widened
from pyrovae.registry import called, find, made

HINT = "one of your own is known once its module is imported, or by its path, package.module.Class"
WORDS = {"true": True, "false": False, "none": None, "null": None}  # of command lines
PROPOSALS: dict[str, type[Laplace | Widened | Defensive | Refined]] = {
    cls.__name__.lower(): cls for cls in (Laplace, Widened, Defensive, Refined)
}
PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def kind(name: str) -> type[Estimator]:
    """Returns the class of a name, or of that of a second of its kind; imports no user's module.

    Args:
        name: "importance", or "importance_2".

    Raises:
        ValueError: If there is none; the nearest is named.

    Example:
        >>> kind("ais_2").label
        'annealing'
    """
    return find(known(), unnumbered(name), "estimator", HINT)


def estimator(
    name: str, options: Mapping[str, object] | None = None, **shared: object
) -> Estimator:
    """Returns the estimator that a name stands for, with these options.

    Args:
        name: "importance", or "my_package.estimators.Mine", which is imported: an `Estimator`
            of a module that python finds.
        options: Its own options by the names of its fields, as values or as the text of a command
            line: `{"num_temperatures": "500"}`.
        shared: Options by the names that several estimators share, such as `num_particles` and
            `num_chains`; those that are not its own are left out, and `options` go before.

    Raises:
        ValueError: If there is no such estimator, or option of it, the nearest named; if a text
            is no value of its type, or a value is refused; in one sentence each.

    Example:
        >>> estimator("ais", {"num_temperatures": "500"}).num_temperatures
        500
    """
    cls = _class(name)
    return cls.of(shared, {own: _value(cls, own, x) for own, x in (options or {}).items()})


def proposal(text: str) -> Laplace | Widened | Defensive | Refined:
    """Returns the proposal that a text stands for, with its options as Python writes them.

    Args:
        text: "laplace", "widened", "defensive" or "refined", or "Widened(1.2, df=5)".

    Raises:
        ValueError: If there is none of that name, or it does not take the options.

    Example:
        >>> proposal("laplace(df=5)")
        Laplace(scale=1.1, df=5, num_steps=8)
    """
    asked = called(text, "proposal")
    name = asked.name.lower()
    if name not in PROPOSALS:
        raise ValueError(f"there is no proposal {asked.name!r}; {_nearest(name, PROPOSALS)}")
    return made(PROPOSALS[name], asked, "proposal")


def _class(name: str) -> type[Estimator]:
    """Returns the class of a name or import path."""
    return _imported(name) if "." in name else kind(name)


def _imported(name: str) -> type[Estimator]:
    """Returns the class at an import path; ValueError if there is none."""
    module, _, attribute = name.rpartition(".")
    try:
        found = import_module(module)
    except ModuleNotFoundError as e:
        if not (e.name and f"{module}.".startswith(f"{e.name}.")):
            raise
        raise ValueError(
            f"estimator {name!r} cannot be had: there is no module {e.name!r}; give one that "
            "python finds, or a name"
        ) from e
    cls = getattr(found, attribute, None)
    if isinstance(cls, type) and issubclass(cls, Estimator) and "name" in vars(cls):
        return cls
    own = [n for n, x in vars(found).items() if isinstance(x, type) and issubclass(x, Estimator)]
    near = get_close_matches(attribute, own, n=1)
    hint = f"did you mean {near[0]}?" if near else "it needs a name, such as name = 'mine'"
    raise ValueError(f"{name} is no subclass of pyrovae.Estimator with a name of its own; {hint}")


def _value(cls: type[Estimator], option: str, value: object) -> object:
    """Returns the value of an option, read where it is text.

    Text is read as Python writes numbers, lists and words, so that "1e-3" is a number and "auto" a
    word; `true`, `false` and `none` may be small. If no type of the option takes what was read, it
    may still take the text.

    Args:
        cls: Whose option it is.
        option: Name of a field.
        value: Given.

    Raises:
        ValueError: If there is no such option, or no type of it takes the text.
    """
    own = [f.name for f in fields(cls)]
    if option not in own:
        near = get_close_matches(option, own, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(own) or 'none'}"
        raise ValueError(f"the estimator {cls.name} has no option {option}; {hint}")
    if not isinstance(value, str):
        return value
    hint, text = get_type_hints(cls)[option], value
    try:
        read = WORDS[text.lower()] if text.lower() in WORDS else literal_eval(text)
    except (ValueError, SyntaxError):
        read = text
    for found in (read, text):
        if _fits(found, hint):
            return found
    if option == "proposal":
        return proposal(text)
    given = (hint, *get_args(hint))
    words = " or ".join(words for plain, words in PLAIN.items() if plain in given)
    raise ValueError(
        f"{option} of the estimator {cls.name} is {text!r}; "
        + (f"give {words}" if words else "no text stands for that: make the object in Python")
    )


def _fits(value: object, hint: object) -> bool:
    """Returns whether a number, word or list of them is of a type."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) in (tuple, list):
        return isinstance(value, tuple | list) and all(_fits(x, get_args(hint)[0]) for x in value)
    if isinstance(value, bool) or hint not in (int, float):
        return isinstance(hint, type) and isinstance(value, hint)
    return isinstance(value, Integral if hint is int else Real)


def named(
    estimators: Iterable[Estimator | str] | Estimator,
    options: Mapping[str, object],
    others: Iterable[str] = (),
) -> dict[str, Estimator]:
    """Returns estimators by name; the second of a kind is "importance_2".

    Args:
        estimators: Objects; or names and import paths, which stand for objects.
        options: Of those that are named, by the names that all of them share.
        others: Options that are no estimator's.

    Raises:
        TypeError: If it is no list of such, or there is no such option.
        ValueError: If there is no such estimator, or none at all.
    """
    given = [_class(e) if isinstance(e, str) else e for e in _given(estimators)]
    words = sorted({*others, *(word for cls in known().values() for word in cls.keywords)})
    if unknown := [word for word in options if word not in words]:
        raise TypeError(f"there is no option {unknown[0]!r}; {_nearest(unknown[0], words)}")
    for cls in known().values():
        cls.of(options)  # which checks them, of those too that are not asked for
    found: dict[str, Estimator] = {}
    for e in given:
        e = e.of(options) if isinstance(e, type) else e
        count = sum(other.name == e.name for other in found.values())
        found[f"{e.name}_{count + 1}" if count else e.name] = e
    return found


def _given(estimators: Iterable[Estimator | str] | Estimator) -> list[Estimator | str]:
    """Returns estimators that are asked for, each once; TypeError or ValueError if none are."""
    listed = [estimators] if isinstance(estimators, str | Estimator) else estimators
    given = list(dict.fromkeys(listed)) if isinstance(listed, Iterable) else []
    if not isinstance(listed, Iterable) or not all(isinstance(e, str | Estimator) for e in given):
        raise TypeError(
            f"estimators is {shown(estimators)}; give 'best' or another name, a list of names, "
            "such as ['elbo', 'ais'], or of objects, such as [pv.AIS()]"
        )
    if not given:
        raise ValueError(f"no estimator was asked for; choose from {', '.join(known())}")
    if nameless := [e for e in given if isinstance(e, Estimator) and "name" not in vars(type(e))]:
        cls = type(nameless[0]).__name__
        raise TypeError(f"{cls} has no name of its own; give it one, such as name = 'mine'")
    return given


def _nearest(name: str, there: Iterable[str]) -> str:
    """Returns what to do instead of a name that is not there."""
    there = list(there)
    near = get_close_matches(name, there, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"choose from {', '.join(there) or 'none'}"
