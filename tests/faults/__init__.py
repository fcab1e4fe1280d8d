"""What can go wrong with files: processes killed while they write, broken and hostile ones."""

import os
import resource
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

HANGS = 60  # seconds after which something that should take one will never end
SMALL = (
    "--num-epochs 3 --z-dim 2 --hidden-dims 8 --num-particles 20 --estimators elbo importance "
    "--no-progress"
).split()


class Outcome(NamedTuple):
    """How a forked process ended: exit code, or minus the signal; memory in MiB, seconds."""

    code: int
    said: str
    memory: float
    seconds: float


def forked(run, log):
    """Returns how `run()`, which returns an exit code, ends in a process of its own.

    A fork has all modules imported, so that it is quick.
    """
    begun = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # from 3.12 on, where there are threads
        child = os.fork()
    if child == 0:
        os._exit(_child(run, log))
    _, status, used = os.wait4(child, 0)
    start, text = Path(log).read_text(errors="replace").split("\n", 1)
    memory = (used.ru_maxrss - int(start)) / 1024
    return Outcome(os.waitstatus_to_exitcode(status), text, memory, time.monotonic() - begun)


def _child(run, log):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(HANGS)
    with open(log, "w") as file:
        file.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\n")
        file.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    try:
        return run()
    except BaseException:
        traceback.print_exc()
        return 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
