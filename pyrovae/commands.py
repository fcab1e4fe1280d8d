"""What the command lines share: exit codes, errors in one sentence, types and options."""

__all__ = [
    "ESTIMATORS",
    "USAGE",
    "add_common",
    "blocks_of",
    "check_device",
    "command",
    "guarded",
    "make_program",
    "numbers",
    "program_sha256",
]

import hashlib
import importlib
import json
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from tempfile import NamedTemporaryFile
from traceback import format_exception
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import ArgumentParser
    from torch import Tensor

    from pyrovae.folder import Folder
    from pyrovae.rows import Rows
    from pyrovae.runs import Blocks

# the names of `evaluate`, which --help does not wait for
ESTIMATORS = ["elbo", "importance", "jackknife", "prior", "ais", "quadrature"]
USAGE, DATA, DIVERGED, CHECKPOINT, UNFORESEEN, INTERRUPTED = 2, 3, 4, 5, 70, 130


def numbers() -> tuple[Any, Any, Any]:
    """Returns the parser's types of counts, amounts and seeds: > 0, > 0 and real, >= 0."""
    from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

    return PositiveInt, PositiveFloat, NonNegativeInt


def add_common(parser: "ArgumentParser") -> None:
    """Adds the options that every command has."""
    from jsonargparse import ActionYesNo

    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the program first: some ten seconds, once, then about twice as fast",
    )
    parser.add_argument(
        "--progress",
        action=ActionYesNo(yes_prefix="", no_prefix="no-"),
        default=None,
        help="show bars (default: on a terminal)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="the table as JSON on stdout, everything else on stderr",
    )


def make_program(name: str, seed: int, device: str) -> Any:
    """Returns the (model, guide) that `package.module:make` gives, its modules on the device.

    The module is imported, from the working directory too, and `make` called on random streams
    that the seed fixes.

    Raises:
        ValueError: If there is no such module or name in it.
        TypeError: If it gives no pair.
    """
    from pyrovae.digest import Reached
    from pyrovae.rng import seeded

    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    with seeded(seed):
        try:
            make = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as e:
            raise ValueError(
                f"--program {name} cannot be had ({e}); give package.module:make"
            ) from e
        pair = make()
    if not (isinstance(pair, tuple) and len(pair) == 2):
        raise TypeError(f"{name} returned {type(pair).__name__}, not (model, guide)")
    if device != "cpu":
        for network in Reached(*pair, read=False).modules:
            network.to(device)
    return pair


def program_sha256(pair: Any) -> str:
    """Returns a digest of a pair that `make_program` made, "" where it cannot be compared."""
    from pyrovae.digest import Reached

    reached = Reached(*pair)
    return "" if reached.unknown else reached.sha256


def blocks_of(
    folder: "Folder",
    model: Any,
    guide: Any,
    data: "Sequence[Tensor | Rows]",
    options: dict[str, Any],
    protocol: dict[str, Any],
) -> "Blocks":
    """Returns the finished blocks of this very evaluation; says how many there are.

    Their key is a digest of all that results depend on: options, data, parameters, and what model
    and guide reach, that is source, values, versions.
    """
    from pyrovae.digest import Reached
    from pyrovae.program import inspect
    from pyrovae.rows import in_chunks
    from pyrovae.runs import Blocks

    digest = hashlib.sha256(json.dumps([options, protocol], default=str).encode())
    digest.update(str([(x.device, x.dtype, tuple(x.shape)) for x in data]).encode())
    for _, d in chain.from_iterable(map(in_chunks, data)):
        digest.update(d.cpu().contiguous().numpy().data)
    program = inspect(model, guide, *data, plate=options["plate"])
    reached = Reached(model, guide)  # after a run, in which it imports what it needs
    digest.update((program.sha256 + reached.sha256).encode())
    if reached.unknown:
        print(
            f"the program holds a {reached.unknown[0]}, which cannot be compared: interrupted, "
            "this evaluation would begin anew",
            file=sys.stderr,
        )
        return Blocks(folder, uuid4().hex[:16])
    blocks = Blocks(folder, digest.hexdigest()[:16])
    if len(blocks):
        print(f"going on from {len(blocks)} finished blocks", file=sys.stderr)
    return blocks


def command(
    parser: "Callable[[], ArgumentParser]",
    run: Callable[[Any], int],
    argv: list[str] | None,
    interrupted: str,
) -> int:
    """Parses a command line and runs what it asks for; returns the exit code, as `guarded`."""
    return guarded(lambda: run(parser().parse_args(argv)), interrupted)


def guarded(run: Callable[[], int], interrupted: str) -> int:
    """Runs a command and returns its exit code; an error is one sentence on stderr.

    Of what nobody foresaw the traceback is kept in a file, which the sentence names. To be
    terminated is to be interrupted.
    """
    before = None
    with suppress(ValueError):  # in a thread, where signals are not met
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run()
    except SystemExit as e:  # of the parser
        return int(e.code or 0)
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        return INTERRUPTED
    except Exception as e:
        code, sentence = _told(e)
        print(f"error: {sentence}", file=sys.stderr)
        return code
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _told(error: Exception) -> tuple[int, str]:
    """Returns the exit code for an error, and its sentence."""
    from pyrovae.data import DataError
    from pyrovae.storage import StateError
    from pyrovae.svi import Diverged

    codes = {DataError: DATA, StateError: CHECKPOINT, Diverged: DIVERGED}
    codes |= dict.fromkeys((ValueError, TypeError, OSError), USAGE)
    code = next((code for kind, code in codes.items() if isinstance(error, kind)), UNFORESEEN)
    sentence = re.split(r"\n\s*Trace Shapes:", str(error))[0]  # Pyro adds a table
    if code != UNFORESEEN:
        return code, sentence
    with NamedTemporaryFile("w", prefix="pyrovae-", suffix=".txt", delete=False) as file:
        file.writelines(format_exception(error))
    what = sentence.strip().partition("\n")[0]
    return code, (
        f"{type(error).__name__} where none was expected ({what}); the traceback is in "
        f"{file.name}: please report it, or look there for a line of your own"
    )


def check_device(name: str) -> None:
    """Raises ValueError where torch has no such device."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        why = str(e).splitlines()[0]
        raise ValueError(f"--device {name} is not there ({why}); use cpu") from e
