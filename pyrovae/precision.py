"""Float32 matrix products: as fast as this CPU has them without losing accuracy."""

__all__ = ["float32_matmul"]

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch


@contextmanager
def float32_matmul() -> Iterator[None]:
    """Runs its body on the fastest products that are float32-accurate; the setting comes back.

    On some CPUs `torch.set_float32_matmul_precision("medium")` selects a library that is twice as
    fast at full accuracy, on others it rounds to bfloat16, which shifts log p(x|z) by a nat. It is
    tried once in a process and taken where its products are right. With a GPU in use it is not:
    the setting would mean TF32 there.
    """
    backends: list[Any] = [torch.backends.mkldnn.matmul, torch.backends.cuda.matmul]  # pyright: ignore
    before = [b.fp32_precision for b in backends]
    try:
        name = torch.get_float32_matmul_precision()
    except RuntimeError:  # set for each backend on its own
        name = None
    fast = not torch.cuda.is_initialized() and medium_is_exact()
    torch.set_float32_matmul_precision("medium" if fast else "highest")
    try:
        yield
    finally:
        if name:
            torch.set_float32_matmul_precision(name)
        for b, value in zip(backends, before, strict=True):
            b.fp32_precision = value


@cache
def medium_is_exact() -> bool:
    """Returns whether a product under "medium" is right to float32; leaves the setting changed."""
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(256, 512, generator=generator, dtype=torch.float32) for _ in range(2))
    torch.set_float32_matmul_precision("medium")
    error = torch.nn.functional.linear(x, w).double() - torch.nn.functional.linear(
        x.double(), w.double()
    )
    return error.abs().max().item() < 1e-3  # about 1e-4 in float32, 0.3 in bfloat16
