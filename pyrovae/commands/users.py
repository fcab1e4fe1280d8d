"""A user's own code on a command line: imported, made, and its line named where it fails."""

__all__ = [
    "ProgramError",
    "blamed",
    "check_takes",
    "imported",
    "make_program",
    "program_sha256",
]

import importlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import TYPE_CHECKING, cast

import pyrovae
from pyrovae.errors import DataError, ProgramError

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from pyrovae.program.binding import Pair

OURS = f"{Path(pyrovae.__file__).parent}/"
PATHS = "stdlib", "platstdlib", "purelib", "platlib"
LIBRARIES = tuple(f"{sysconfig.get_path(p)}/" for p in PATHS)
FORM = "give package.module:make, of a make() that returns (model, guide)"


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
    with seeded(seed), blamed(name):
        function = _function(name, imported(f"--program {name}", module, FORM), attribute)
        pair = function()
    pair = _checked(name, pair)
    if device != "cpu":
        for network in Reached(*pair, read=False).modules:
            network.to(device)
    return pair


def _checked(name: str, pair: object) -> "Pair":
    """Returns a model and a guide, or `None` for that.

    Args:
        name: `package.module:make`, for messages.
        pair: What `make` returned.

    Raises:
        ProgramError: If that is no such pair.
    """
    if not (isinstance(pair, tuple) and len(pair) == 2):
        kind = f"a tuple of {len(pair)}" if isinstance(pair, tuple) else type(pair).__name__
        raise ProgramError(f"{name} returned {kind}, not (model, guide)")
    for who, fn in zip(("model", "guide"), pair, strict=True):
        if not (callable(fn) or (who == "guide" and fn is None)):
            raise ProgramError(f"{name} returned a {who} of type {type(fn).__name__}; {FORM}")
    return cast("Pair", pair)


def imported(option: str, module: str, form: str) -> ModuleType:
    """Returns a user's module, which is found from the working directory, too.

    Args:
        option: What names it, as the command line has it.
        module: Its dotted name.
        form: What is to be given instead, where there is no such module.

    Raises:
        ProgramError: If there is none, or importing it fails; the line is named.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    with blamed(option.partition(" ")[2]):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as e:
            if not (e.name and f"{module}.".startswith(f"{e.name}.")):
                raise
            raise ProgramError(
                f"{option} cannot be had: there is no module {e.name!r} in the working directory, "
                f"or installed; {form}"
            ) from None


def _function(name: str, module: ModuleType, attribute: str) -> Callable[..., object]:
    """Returns the function that makes a program.

    Args:
        name: `package.module:make`, for messages.
        module: The module, imported.
        attribute: Name of the function in it.

    Raises:
        ProgramError: If there is none, it cannot be called, or needs arguments.
    """
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
    """Returns what a callable takes where that is not these arguments, else `None`.

    Args:
        fn: Of a module, whose `forward` is asked, or a function; one that does not tell refuses
            none.
        arguments: By position.
    """
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
    """Returns a digest of a pair that `make_program` made, "" where it cannot be compared.

    Args:
        pair: Model and guide, before training: with other weights they have another digest.
    """
    from pyrovae.digest import Reached

    reached = Reached(*pair)
    return "" if reached.unknown else reached.sha256


@contextmanager
def blamed(*names: str) -> Iterator[None]:
    """Runs its body; where a user's code makes it fail, says in which of their lines.

    Args:
        names: Of what is theirs, `package.module:make` or `package.module.Name`; without any, an
            error stays what it is.

    Raises:
        ProgramError: In place of an error, or exit, that came from or through a line of theirs.
    """
    try:
        yield
    except (Exception, SystemExit) as e:
        file, line, ours = _place(e, names) if names else ("", 0, False)
        if not file or isinstance(e, DataError | ProgramError):
            raise
        place = f"{file}, line {line}"
        what = e.msg if isinstance(e, SyntaxError) else str(e)
        what = re.split(r"\n\s*Trace Shapes:", what)[0].strip()  # Pyro adds a table
        if ours and isinstance(e, ValueError | TypeError):
            raise ProgramError(f"{what} ({place})") from e
        kind = f"{type(e).__name__}: {what}".partition("\n")[0].rstrip(": ")
        name = next((n for n in names if _file(n) == file), names[0])
        raise ProgramError(f"{name} fails in its own code, {place}: {kind}") from e


def _place(error: BaseException, names: Sequence[str]) -> tuple[str, int, bool]:
    """Returns file and line of an error in a user's code, "" without; and whether we raised it.

    Of several lines of theirs it is the last one that was called. An error that only was caused by
    one of theirs counts as ours, at that one's line.

    Args:
        error: Any, with its traceback.
        names: Of what is theirs.
    """
    if isinstance(error, SyntaxError) and _theirs(error.filename or "", names):
        return error.filename or "", error.lineno or 0, False
    frames = [(f.f_code.co_filename, line) for f, line in walk_tb(error.__traceback__)]
    if own := [frame for frame in frames if _theirs(frame[0], names)]:
        return *own[-1], frames[-1][0].startswith(OURS)
    cause = error.__cause__
    return (*_place(cause, names)[:2], True) if cause else ("", 0, False)


def _theirs(file: str, names: Sequence[str]) -> bool:
    """Returns whether a file is a user's: of what is named, or of no library.

    Args:
        file: As a traceback has it; "<string>" and its like are none.
        names: Of what is theirs, wherever it is installed.
    """
    if file in [_file(name) for name in names]:
        return True
    return Path(file).is_file() and not file.startswith((OURS, *LIBRARIES))


def _file(name: str) -> str | None:
    """Returns the file of the module of a name, `None` while it is not imported.

    Args:
        name: `package.module:make` or `package.module.Name`.
    """
    module = name.partition(":")[0] if ":" in name else name.rpartition(".")[0]
    return getattr(sys.modules.get(module), "__file__", None)
