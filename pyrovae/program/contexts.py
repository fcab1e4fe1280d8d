"""Contexts that programs run in: in evaluation mode, on a random stream, without a trace left."""

__all__ = ["aside", "evaluation", "reproducible"]

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pyro
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from pyrovae.precision import float32_matmul
from pyrovae.program.parameters import CleanStore
from pyrovae.rng import seeded


@contextmanager
def evaluation() -> Iterator[None]:
    """Runs its body without gradients, in `eval()` mode, at float32 precision; restored after.

    Modules are met by a hook as they are called, so it matters not how the program holds them.
    Entries of Pyro's global store that only mirror modules' parameters are taken out again.
    Dropout and batch norm do what they do in use, and nothing is learned from test data.
    """
    _keep_freed_memory()
    met: list[torch.nn.Module] = []

    def meet(module: torch.nn.Module, _: object) -> None:
        if module.training:
            module.training = False
            met.append(module)

    hook = register_module_forward_pre_hook(meet)
    try:
        with torch.no_grad(), CleanStore(), float32_matmul():
            yield
    finally:
        hook.remove()
        for module in met:
            module.training = True


@contextmanager
def aside() -> Iterator[None]:
    """Runs its body as `evaluation` does, and leaves the random streams as they were.

    A look at a program, of which no number of a later computation depends.
    """
    with torch.random.fork_rng(), evaluation():
        yield


@contextmanager
def reproducible(seed: int | None, *stream: int) -> Iterator[None]:
    """Runs its body as `evaluation` does, on streams of `(seed, *stream)` as `seeded` has them.

    Pyro's own checks are off: `inspect` has run the program with them.

    Args:
        seed: Of the whole computation; `None` draws from the caller's stream.
        stream: Numbers of this part of it; parts with others draw independently.
    """
    with evaluation(), pyro.validation_enabled(False), seeded(seed, *stream):
        yield


@cache
def _keep_freed_memory() -> None:
    """Has the C library keep up to 62 MiB that are free, once and for the process.

    Otherwise glibc hands each chunk's arrays back to the system as they are freed, and the next
    chunk waits for new pages, up to a third of its time. It keeps twice the largest array freed
    so far that was smaller than 32 MiB (mallopt(3), M_MMAP_THRESHOLD); this one is never touched.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")
