"""What the command lines share: exit codes, errors in one sentence, types and options."""

__all__ = [
    "AMOUNT",
    "COUNT",
    "ESTIMATORS",
    "USAGE",
    "add_common",
    "blocks_of",
    "check_device",
    "command",
    "guarded",
    "make_program",
    "program_sha256",
]

import hashlib
import importlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from jsonargparse import ActionYesNo, ArgumentParser
from jsonargparse.typing import PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.folder import Folder
    from pyrovae.rows import Rows
    from pyrovae.runs import Blocks

COUNT: Any = PositiveInt
AMOUNT: Any = PositiveFloat
# the names of `evaluate`, which --help does not wait for
ESTIMATORS = ["elbo", "importance", "jackknife", "prior", "ais", "quadrature"]
USAGE, DATA, DIVERGED, CHECKPOINT, INTERRUPTED = 2, 3, 4, 5, 130


def add_common(parser: ArgumentParser) -> None:
    """Adds the options that every command has."""
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
    parser: ArgumentParser, run: Callable[[Any], int], argv: list[str] | None, interrupted: str
) -> int:
    """Parses a command line and runs what it asks for; returns the exit code, as `guarded`."""
    try:
        config = parser.parse_args(sys.argv[1:] if argv is None else argv)
    except SystemExit as e:
        return int(e.code or 0)
    return guarded(lambda: run(config), interrupted)


def guarded(run: Callable[[], int], interrupted: str) -> int:
    """Runs a command and returns its exit code; a user's error is one sentence on stderr."""
    from pyrovae.data import DataError
    from pyrovae.storage import StateError
    from pyrovae.svi import Diverged

    try:
        return run()
    except (DataError, StateError, Diverged, ValueError, TypeError, OSError) as e:
        codes = {DataError: DATA, StateError: CHECKPOINT, Diverged: DIVERGED}
        sentence = re.split(r"\n\s*Trace Shapes:", str(e))[0]  # Pyro adds a table
        print(f"error: {sentence}", file=sys.stderr)
        return next((code for kind, code in codes.items() if isinstance(e, kind)), USAGE)
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        return INTERRUPTED


def check_device(name: str) -> None:
    """Raises ValueError where torch has no such device."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        why = str(e).splitlines()[0]
        raise ValueError(f"--device {name} is not there ({why}); use cpu") from e
