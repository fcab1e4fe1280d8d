"""What the command lines share: exit codes, errors in one sentence, and how to go on."""

__all__ = [
    "Asked",
    "USAGE",
    "blocks_of",
    "check_device",
    "check_free",
    "guarded",
    "interrupted",
    "write_table",
]

import hashlib
import json
import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from tempfile import NamedTemporaryFile
from traceback import format_exception
from typing import TYPE_CHECKING, TypedDict
from uuid import uuid4

from pyrovae.errors import DataError, Diverged, StateError

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from pandas import DataFrame
    from torch import Tensor

    from pyrovae.data.rows import Rows
    from pyrovae.evidence.estimators.base import Estimator
    from pyrovae.runs import Blocks
    from pyrovae.runs.folder import Folder

OF_MEMORY = r"(?i)memory|storage size calculation overflowed"  # torch's words
USAGE, DATA, DIVERGED, CHECKPOINT, UNFORESEEN, INTERRUPTED = 2, 3, 4, 5, 70, 130


class Asked(TypedDict):
    """What `evaluate` is asked for, and `cost`, with the data."""

    estimators: "list[Estimator]"
    seed: int
    plate: str | None
    compile: bool


def blocks_of(
    folder: "Folder",
    model: "Callable[..., object]",
    guide: "Callable[..., object] | None",
    data: "Sequence[Tensor | Rows]",
    options: "Asked",
    protocol: Mapping[str, object],
) -> "Blocks":
    """Returns the finished blocks of this very evaluation; says how many there are.

    Their key is a digest of all that results depend on: options, data, parameters, and what model
    and guide reach, that is source, values, versions.

    Args:
        folder: Of the run, locked.
        model: A Pyro callable of `*data`.
        guide: Another, or `None`.
        data: What both take, `(N, ...)` each; all of it is read.
        options: Of the evaluation.
        protocol: What is on record of data and model.

    Returns:
        Those of the key's first 16 digits; without any where the program cannot be compared.
    """
    from pyrovae.data.rows import in_chunks
    from pyrovae.digest import Reached
    from pyrovae.program import inspect
    from pyrovae.runs import Blocks

    digest = hashlib.sha256(json.dumps([dict(options), dict(protocol)], default=str).encode())
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


def guarded(run: Callable[[], int]) -> int:
    """Runs a command and returns its exit code; an error is one sentence on stderr.

    Of what nobody foresaw the traceback is kept in a file, which the sentence names. To be
    terminated is to be interrupted.

    Args:
        run: The command; returns its exit code.

    Returns:
        That; or 2 of usage, 3 of data, 4 of training that diverged, 5 of a run's state, 70 of what
        nobody foresaw, 130 of an interrupt.
    """
    before = None
    with suppress(ValueError):  # in a thread, where signals are not met
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _logged():
            return run()
    except SystemExit as e:  # of the parser
        return int(e.code or 0)
    except KeyboardInterrupt as e:
        print(f"interrupted; {e.args[0] if e.args else 'nothing was changed'}", file=sys.stderr)
        return INTERRUPTED
    except Exception as e:
        code, sentence = _told(e)
        print(f"error: {sentence}", file=sys.stderr)
        return code
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupted(how: Callable[[], str]) -> Iterator[None]:
    """Runs its body; interrupted, the user is told how to go on.

    Args:
        how: Returns that in a sentence, asked for when it is needed.

    Raises:
        KeyboardInterrupt: With that sentence, which `guarded` prints.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how()) from None


@contextmanager
def _logged() -> Iterator[None]:
    """Shows what the package logs on stderr: how far long work is."""
    log, shown = logging.getLogger("pyrovae"), logging.StreamHandler()
    level = log.level
    log.addHandler(shown)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(shown)
        log.setLevel(level)


def _told(error: Exception) -> tuple[int, str]:
    """Returns the exit code for an error, and its sentence, the first line of what it says.

    That memory does not hold something is the user's affair, too, though torch has no class for
    it: it is known by its words. The traceback of what nobody foresaw is written to a temporary
    file.

    Args:
        error: That ended a command.
    """
    codes = {DataError: DATA, StateError: CHECKPOINT, Diverged: DIVERGED}
    codes |= dict.fromkeys((ValueError, TypeError, OSError), USAGE)
    code = next((code for kind, code in codes.items() if isinstance(error, kind)), UNFORESEEN)
    # of what Pyro and torch say, without the tables and tensors below
    sentence = str(error).strip().partition("\n")[0].rstrip(":")
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and re.search(OF_MEMORY, sentence)
    ):
        what = sentence.rpartition("Allocator: ")[2].partition(". Error code")[0]
        what = f" ({what})" if what else ""
        return USAGE, f"memory does not hold that{what}; give less data, or smaller sizes"
    if code != UNFORESEEN:
        return code, sentence
    with NamedTemporaryFile("w", prefix="pyrovae-", suffix=".txt", delete=False) as file:
        file.writelines(format_exception(error))
    return code, (
        f"{type(error).__name__} where none was expected ({sentence}); the traceback is in "
        f"{file.name}: please report it, or look there for a line of your own"
    )


def check_free(path: str, overwrite: bool) -> None:
    """Raises ValueError where a file is there that nobody said may be replaced.

    Args:
        path: Of what is to be written.
        overwrite: Whether somebody did.
    """
    if Path(path).exists() and not overwrite:
        raise ValueError(f"{path} is there already; name another, or add --overwrite")


def check_device(name: str) -> None:
    """Raises ValueError where torch has no such device, or one that holds no numbers.

    Args:
        name: As the user wrote it.
    """
    import torch

    try:
        torch.zeros(1, device=name).item()  # "meta" holds no numbers
    except (RuntimeError, AssertionError) as e:
        why = str(e).splitlines()[0]
        raise ValueError(f"--device {name} is not there ({why}); use cpu") from e


def write_table(path: Path, frame: "DataFrame") -> None:
    """Writes a .csv or .parquet whole or not at all, without the numbers of rows.

    Args:
        path: Where to.
        frame: The table.

    Raises:
        DataError: If a .parquet is asked for, and pyarrow is not there.
    """
    from pyrovae import storage

    write = frame.to_parquet if path.suffix == ".parquet" else frame.to_csv
    try:
        storage.write_atomic(path, lambda temporary: write(temporary, index=False))
    except ImportError as e:
        raise DataError(f"{path} needs pyarrow to be written; name a .csv") from e
