"""A user's own code on a command line: imported, made, and its line named where it fails."""

__all__ = [
    "ProgramError",
    "blamed",
    "check_takes",
    "make_program",
    "model_class",
    "named_again",
    "program_sha256",
]

import importlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyrovae
from pyrovae.errors import DataError, ProgramError

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from pyrovae.program.binding import Pair

OURS = f"{Path(pyrovae.__file__).parent}/"
PATHS = "stdlib", "platstdlib", "purelib", "platlib"
LIBRARIES = tuple(f"{sysconfig.get_path(p)}/" for p in PATHS)
FORM = "give package.module:make, of a make() that returns (model, guide)"
CLASS = "give package.module.Class, of a pyrovae.Model"


def make_program(name: str, seed: int, device: str) -> "Pair":
    """Returns the (model, guide) that `package.module:make` gives, its modules on the device.

    The module is imported, from the working directory too, and `make` called on random streams
    that the seed fixes.

    Args:
        name: `package.module:make`.
        seed: Fixes the random streams that `make` is called on.
        device: Where the modules go.

    Raises:
        ProgramError: If there is no such module or name in it, it fails, or gives no pair.
    """
    from pyrovae.digest import Reached
    from pyrovae.rng import seeded

    module, _, attribute = name.partition(":")
    if module.endswith(".py") or "/" in module:
        dotted = ".".join(p for p in Path(module).with_suffix("").parts if p not in ("/", "."))
        raise ProgramError(
            f"--program {name} is a path; give a module that python finds from here, such as "
            f"{dotted}:{attribute or 'make'}"
        )
    if not (module and attribute):
        raise ProgramError(f"--program {name} names no function; {FORM}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    with seeded(seed), blamed(name):
        function = _function(name, _imported(f"--program {name}", module, FORM), attribute)
        pair = function()
    _check_pair(name, pair)
    if device != "cpu":
        for network in Reached(*pair, read=False).modules:
            network.to(device)
    return pair


def _check_pair(name: str, pair: object) -> None:
    """Raises ProgramError unless it is a model and a guide, or `None` for that."""
    if not (isinstance(pair, tuple) and len(pair) == 2):
        kind = f"a tuple of {len(pair)}" if isinstance(pair, tuple) else type(pair).__name__
        raise ProgramError(f"{name} returned {kind}, not (model, guide)")
    for who, fn in zip(("model", "guide"), pair, strict=True):
        if not (callable(fn) or (who == "guide" and fn is None)):
            raise ProgramError(f"{name} returned a {who} of type {type(fn).__name__}; {FORM}")


def model_class(name: str) -> Any:
    """Returns the model class of a name, or that which `package.module.Class` is, imported.

    Raises:
        ValueError: If no model has that name.
        ProgramError: If there is no such class, or importing it fails.
    """
    from pyrovae.models.base import Model, named

    module, _, attribute = name.rpartition(".")
    if not module:
        return named(name)
    if "" not in sys.path:
        sys.path.insert(0, "")
    with blamed(name):
        found = getattr(_imported(f"--model {name}", module, CLASS), attribute, None)
    if not (isinstance(found, type) and issubclass(found, Model) and "name" in vars(found)):
        raise ProgramError(
            f"--model {name} is no subclass of pyrovae.Model with a name of its own; {CLASS} that "
            "has one, such as name = 'mine'"
        )
    if found.model is Model.model:
        raise ProgramError(
            f"--model {name} has no model; give the class a method model(self, *data), which "
            "samples latents and observes the data, in a pyro.plate"
        )
    return found


def named_again(name: str | None, kept: Mapping[str, Any]) -> Any:
    """Returns the class of a run's model where a user names it, imported; else `None`.

    Args:
        name: What the user says.
        kept: The run's options.

    Raises:
        ValueError: If it is a user's and not named: no code is imported because a file names it.
    """
    if name:
        return model_class(name)
    if "." in (known := str(kept.get("model"))):
        raise ValueError(
            f"this is a run of the model {known}, and no code is imported because a file names "
            f"it; name it again: --model {known}"
        )
    return None


def _imported(option: str, module: str, form: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name and f"{module}.".startswith(f"{e.name}."):
            raise ProgramError(
                f"{option} cannot be had: there is no module {e.name!r} in the working directory, "
                f"or installed; {form}"
            ) from None
        raise


def _function(name: str, module: ModuleType, attribute: str) -> Callable[[], Any]:
    if not hasattr(module, attribute):
        own = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        near = get_close_matches(attribute, own, n=1)
        hint = f"did you mean {near[0]}?" if near else FORM
        raise ProgramError(
            f"--program {name} cannot be had: {module.__name__} has no {attribute!r}; {hint}"
        )
    make = getattr(module, attribute)
    if not callable(make):
        raise ProgramError(f"--program {name} is of type {type(make).__name__}; {FORM}")
    if takes := _refused(make, ()):
        raise ProgramError(f"--program {name} takes {takes}, but is given nothing; {FORM}")
    return make


def check_takes(pair: "Pair", data: Sequence[object], name: str) -> None:
    """Raises DataError where a model or guide cannot be called with that many data.

    Args:
        pair: Model and guide, or `None` for that.
        data: What they are to be called with.
        name: Of the data, in the words of an error.
    """
    for who, fn in zip(("model", "guide"), pair, strict=True):
        if fn is not None and (takes := _refused(fn, data)):
            raise DataError(
                f"{name} gives {len(data)} array{'s' * (len(data) > 1)}, but the {who} takes "
                f"{takes}; give as many as that, in its order"
            )


def _refused(fn: Callable[..., object], arguments: Sequence[object]) -> str | None:
    """Returns what a callable takes where that is not these arguments, else `None`."""
    try:
        known = inspect.signature(getattr(fn, "forward", fn))
    except (TypeError, ValueError):  # not every callable tells
        return None
    try:
        known.bind(*arguments)
    except TypeError:
        return str(known)
    return None


def program_sha256(pair: "Pair") -> str:
    """Returns a digest of a pair that `make_program` made, "" where it cannot be compared."""
    from pyrovae.digest import Reached

    reached = Reached(*pair)
    return "" if reached.unknown else reached.sha256


@contextmanager
def blamed(program: str | None) -> Iterator[None]:
    """Runs its body; where a user's program makes it fail, says in which of their lines.

    Raises:
        ProgramError: In place of an error, or exit, that came from or through a line of theirs.
    """
    try:
        yield
    except (Exception, SystemExit) as e:
        place, ours = _place(e, program) if program else ("", False)
        if not place or isinstance(e, DataError | ProgramError):
            raise
        what = e.msg if isinstance(e, SyntaxError) else str(e)
        what = re.split(r"\n\s*Trace Shapes:", what)[0].strip()  # Pyro adds a table
        if ours and isinstance(e, ValueError | TypeError):
            raise ProgramError(f"{what} ({place})") from e
        kind = f"{type(e).__name__}: {what}".partition("\n")[0].rstrip(": ")
        raise ProgramError(f"{program} fails in its own code, {place}: {kind}") from e


def _place(error: BaseException, program: str) -> tuple[str, bool]:
    """Returns file and line of an error in a user's code, "" without; and whether we raised it."""
    if isinstance(error, SyntaxError) and _theirs(error.filename or "", program):
        return f"{error.filename}, line {error.lineno}", False
    frames = [(f.f_code.co_filename, line) for f, line in walk_tb(error.__traceback__)]
    own = [f"{file}, line {line}" for file, line in frames if _theirs(file, program)]
    if own:
        return own[-1], frames[-1][0].startswith(OURS)
    cause = error.__cause__
    return (_place(cause, program)[0], True) if cause else ("", False)


def _theirs(file: str, program: str) -> bool:
    """Returns whether a file is a user's: of the program, or of no library."""
    name = program.partition(":")[0] if ":" in program else program.rpartition(".")[0]
    module = sys.modules.get(name)
    if file == getattr(module, "__file__", None):
        return True
    return Path(file).is_file() and not file.startswith((OURS, *LIBRARIES))
