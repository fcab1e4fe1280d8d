"""Float32 matrix products: as fast as this CPU has them without losing accuracy."""

__all__ = ["float32_matmul", "precision_is_set"]

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol, cast

import torch


class Precision(Protocol):
    """What of torch has a precision of its own: all backends, or the matrix products of one.

    Attributes:
        fp32_precision: "ieee" for full float32, "tf32" or "bf16" for less, "none" where it follows
            the setting of all backends; read back, that reads as theirs.
    """

    fp32_precision: str


@contextmanager
def float32_matmul() -> Iterator[None]:
    """Runs its body on the fastest products that are float32-accurate; every setting comes back.

    On some CPUs `torch.set_float32_matmul_precision("medium")` selects a library that is twice as
    fast at full accuracy, on others it rounds to bfloat16, which shifts log p(x|z) by a nat. It is
    tried once in a process and taken where its products are right. With a GPU in use it is not:
    the setting would mean TF32 there.

    What the body raises is raised, with the settings back. Threads share them: one at a time.
    """
    backends = [
        cast(Precision, getattr(b, "matmul"))  # noqa: B009
        for b in (torch.backends.mkldnn, torch.backends.cuda)
    ]
    before = _own_settings(backends)
    for b in backends:
        b.fp32_precision = "ieee"  # the next line raises where one says other than it would
    name = torch.get_float32_matmul_precision()
    try:
        fast = not torch.cuda.is_initialized() and medium_is_exact()
        torch.set_float32_matmul_precision("medium" if fast else "highest")
        yield
    finally:
        torch.set_float32_matmul_precision(name)
        for b, value in zip(backends, before, strict=True):
            b.fp32_precision = value


def precision_is_set() -> bool:
    """Returns whether less than float32 was chosen, for all products or for those of a backend.

    `fit` asks: what a user chose for training stays, where evidence is always float32.
    """
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set for a backend on its own
        return True


@cache
def medium_is_exact() -> bool:
    """Returns whether "medium" products are right to float32; leaves the setting changed.

    A product `(256, 512) (512, 256)` of normal numbers is compared with float64's: its
    largest error is about 1e-4 in float32 and 0.3 in bfloat16.
    """
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(256, 512, generator=generator, dtype=torch.float32) for _ in range(2))
    torch.set_float32_matmul_precision("medium")
    error = torch.nn.functional.linear(x, w).double() - torch.nn.functional.linear(
        x.double(), w.double()
    )
    return error.abs().max().item() < 1e-3  # about 1e-4 in float32, 0.3 in bfloat16


def _own_settings(backends: list[Precision]) -> list[str]:
    """Returns what each is set to; "none" where it reads as `torch.backends.fp32_precision`.

    That is found by changing the latter and looking which follow.

    Args:
        backends: Whose settings; they are left as they were.
    """
    everything = cast(Precision, torch.backends)
    read, overall = [b.fp32_precision for b in backends], everything.fp32_precision
    everything.fp32_precision = "tf32" if overall == "ieee" else "ieee"
    follows = [b.fp32_precision != value for b, value in zip(backends, read, strict=True)]
    everything.fp32_precision = overall
    return ["none" if f else value for f, value in zip(follows, read, strict=True)]
