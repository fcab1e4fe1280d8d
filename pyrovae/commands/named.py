"""What a command line names: by a name that is known, or `package.module.Name` of a user's own."""

__all__ = [
    "check_again",
    "data_source",
    "estimator_name",
    "likelihood_name",
    "model_class",
    "objective_named",
    "own_code",
    "panels_asked",
    "written_names",
]

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import pyrovae
from pyrovae.commands.users import ProgramError, imported
from pyrovae.errors import DataError
from pyrovae.registry import is_path

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from pyrovae.data.sets import Source
    from pyrovae.models.base import Model
    from pyrovae.report.panel import Panel
    from pyrovae.svi.objectives import Objective

T = TypeVar("T")
NAMING = "program", "model", "likelihood", "data", "objective", "criterion", "estimators"


def written_names(place: str) -> list[str]:
    """Returns the names of the classes that a module of ours, or those of a folder, define.

    They are read from the source: `--help` does not wait until they are imported.

    Args:
        place: Below the package: "likelihoods/single.py", or "models" for all modules there.

    Example:
        >>> written_names("likelihoods/single.py")[:3]
        ['bernoulli', 'continuous-bernoulli', 'normal']
    """
    path = Path(pyrovae.__file__).parent / place
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    line = re.compile(r'^    name(?:: ClassVar\[str\]| *, *\w+)? = "([^"]+)"', re.M)
    return [name for file in files for name in line.findall(file.read_text(encoding="utf-8"))]


def model_class(name: str) -> "type[Model]":
    """Returns the model class of a name, or that which `package.module.Class` is, imported.

    Args:
        name: As the user wrote it.

    Raises:
        ValueError: If no model has that name.
        ProgramError: If there is no such class, or importing it fails.
    """
    from pyrovae.models.base import Model, named

    if "." not in name:
        return named(name)
    found = _class("model", name, Model, "pyrovae.Model")
    if found.model is Model.model:
        raise ProgramError(
            f"--model {name} has no model; give the class a method model(self, *data), which "
            "samples latents and observes the data, in a pyro.plate"
        )
    return found


def likelihood_name(name: str) -> str:
    """Returns the name of a likelihood, that of a user's class once it is imported; options stay.

    Args:
        name: A name, which is not looked up here, or an import path.

    Raises:
        ProgramError: If there is no such class, or importing it fails.
    """
    from pyrovae.likelihoods import Likelihood

    if not is_path(name):
        return name
    path, bracket, options = name.partition("(")
    family = _class("likelihood", path, Likelihood, "pyrovae.likelihoods.Likelihood")
    return f"{family.name}{bracket}{options}"


def estimator_name(name: str) -> str:
    """Returns the name of an estimator, that of a user's class once it is imported.

    Args:
        name: A name, which is not looked up here, or an import path.

    Raises:
        ProgramError: If there is no such class, or importing it fails.
    """
    from pyrovae.evidence.estimators.base import Estimator

    if not is_path(name):
        return name
    return _class("estimators", name, Estimator, "pyrovae.Estimator").name


def objective_named(text: str) -> "Objective":
    """Returns the objective of a name, or that of a user's class, imported.

    Args:
        text: A name or import path, with options as in "iwae(50)".

    Raises:
        TypeError: If it cannot be made without arguments.
        ValueError: If no objective has that name, or takes the options.
        ProgramError: If there is no such class, or importing it fails.
    """
    from pyrovae.registry import called, made
    from pyrovae.svi.objectives import Objective, objective_of

    asked = called(text, "objective")
    if "." not in asked.name:
        return objective_of(text)
    cls = _class("objective", asked.name, Objective, "pyrovae.Objective")
    return made(cls, asked, "objective") if "(" in text else objective_of(cls)


def data_source(name: str) -> "Source":
    """Returns what `pyrovae.data.load` takes: a name, a path, or a user's class or function.

    Raises:
        DataError: If it is an address.
        ProgramError: If there is no such class or function, or importing it fails.
    """
    from pyrovae.data.base import DataSet

    if "://" in name:
        raise DataError(f"--data {name} is an address; download it, and give the file's path")
    if not is_path(name):
        return name
    form = "give a name, a .npy or .npz, or package.module.Name of a DataSet or function"
    found = _attribute("data", name, form)
    if not callable(found) or (isinstance(found, type) and not issubclass(found, DataSet)):
        raise ProgramError(f"--data {name} is no pyrovae.data.DataSet, and no function; {form}")
    return cast("Source", found)


def panels_asked(names: Sequence[str]) -> "list[type[Panel]]":
    """Returns the panels of these names, or of import paths, for the page of a run.

    Args:
        names: As the user wrote them.

    Raises:
        ValueError: If no panel has that name.
        ProgramError: If there is no such class, or importing it fails.
    """
    from pyrovae.report.panel import Panel, known

    form = "pyrovae.report.Panel"
    return [_class("panels", n, Panel, form) if is_path(n) else known(n) for n in names]


def _class(option: str, name: str, base: type[T], known: str) -> type[T]:
    """Returns the class of an import path.

    Args:
        option: That names it, without dashes.
        name: The import path.
        base: What it has to be a subclass of.
        known: The same as a user writes it.

    Raises:
        ProgramError: If there is none, it is no such subclass, or has no name of its own.
    """
    form = f"give package.module.Class, of a {known}"
    found = _attribute(option, name, form)
    if isinstance(found, type) and issubclass(found, base) and "name" in vars(found):
        return found
    raise ProgramError(
        f"--{option} {name} is no subclass of {known} with a name of its own; {form} that has "
        "one, such as name = 'mine'"
    )


def _attribute(option: str, name: str, form: str) -> object:
    """Returns what a module holds under the last part of an import path; `None` for nothing.

    Args:
        option: That names it, without dashes.
        name: The import path.
        form: What is to be given instead, where there is no such module.
    """
    module, _, attribute = name.rpartition(".")
    return getattr(imported(f"--{option} {name}", module, form), attribute, None)


def own_code(config: Mapping[str, object]) -> list[str]:
    """Returns the user's code that options name: of a program, and by import paths.

    Args:
        config: Options by name, with underscores.
    """
    program = config.get("program")
    named: list[object] = []
    for option in (*NAMING, "panels"):
        names = config.get(option)
        named += names if isinstance(names, list) else [names]
    return [*([str(program)] if program else []), *(str(n) for n in named if is_path(n))]


def check_again(
    kept: Mapping[str, object], given: Iterable[str], needed: Sequence[str] = NAMING
) -> None:
    """Raises ValueError where options name a user's code that the command line does not.

    Args:
        kept: The options of a run, or of a file, whose names are those of a command line.
        given: Those that the command line says itself.
        needed: Those that matter.
    """
    options = kept.get("model_options")
    inside = options.get("likelihood") if isinstance(options, dict) else None
    known = {**kept, "likelihood": kept.get("likelihood") or inside}
    for option in (n for n in needed if n not in given):
        names = known.get(option)
        listed = names if isinstance(names, list) else [names]
        if any(is_path(n) or (n and option == "program") for n in listed):
            name = " ".join(map(str, listed))
            raise ValueError(
                f"this is of the {option} {name}, and no code is imported because a file names "
                f"it; name it again: --{option} {name}"
            )
