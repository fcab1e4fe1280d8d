"""Training over several processes: which one this is, and what it shares with the others.

The words are torch's: a process is a rank, their number the size of the group.
"""

__all__ = ["Processes", "joined"]

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pyrovae.errors import DataError
from pyrovae.rng import seeded, stream_seed

T = TypeVar("T")
Step = Callable[..., tuple[Tensor, Sequence[Tensor | None]]]
TIMEOUT = timedelta(minutes=5)  # after which a silent rank counts as dead


@dataclass(frozen=True)
class Processes:
    r"""This process among those that train together; alone, everything is as it would be anyway.

    .. math::
        \frac{1}{n} \sum_r n_r g_r = \frac{1}{n} \sum_{i=1}^n \nabla \ell_i,
        \quad n = \sum_r n_r

    is the gradient of a batch of n rows, of which rank r has taken its :math:`n_r` and found
    :math:`g_r`, their mean. `torch.nn.parallel.DistributedDataParallel` would average
    `torch.nn.Parameter`s only, each rank's alike, and Pyro's `pyro.param` makes plain tensors.

    Attributes:
        rank: Number of this process; 0 writes.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Processes":
        """Returns what `torch.distributed` says; a process alone where that is not set up."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def share(self, rows: Tensor) -> Tensor:
        """Returns this rank's part of the rows of a batch `(n,)`, `(n_r,)`; it may be empty."""
        return rows.tensor_split(self.size)[self.rank]

    def order(self, num_data: int, seed: int, epoch: int) -> Tensor:
        """Returns an epoch's order of rows `(N,)`, the same for all; begins a stream of its own.

        From here on, draws differ from rank to rank: those of an epoch are fixed by its number.

        Args:
            num_data: N.
            seed: Of the training.
            epoch: Its number, from 0.
        """
        with seeded(seed, epoch):
            order = torch.randperm(num_data)
        torch.manual_seed(stream_seed(seed, epoch, self.rank))
        return order

    def sum_gradients(
        self, step: Step, batch: tuple[Tensor, ...], size: int, params: list[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Returns loss and gradients per datum of a batch of `size`, of which this is a share.

        All ranks call it at once, those with an empty share too, which count for nothing.

        Args:
            step: Gives loss and gradients per datum of a batch.
            batch: This rank's share of it, `(n, ...)` each.
            size: Rows of the whole batch.
            params: What the gradients are with respect to.
        """
        if self.size == 1:
            return step(*batch)
        number = len(batch[0])
        if number:
            loss, grads = step(*batch)
        else:
            loss, grads = params[0].new_zeros(()), [None] * len(params)
        pairs = zip(params, grads, strict=True)
        whole = [loss, *(torch.zeros_like(p) if g is None else g for p, g in pairs)]
        flat = torch.cat([t.detach().reshape(-1) for t in whole]) * (number / size)
        dist.all_reduce(flat)
        loss, *grads = _split(whole, flat)
        return loss, grads

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Sets tensors to those of rank 0, in place; they have the same shapes everywhere."""
        if self.size > 1:
            flat = torch.cat([t.detach().reshape(-1) for t in tensors])
            dist.broadcast(flat, 0)
            with torch.no_grad():
                for t, part in zip(tensors, _split(tensors, flat), strict=True):
                    t.copy_(part)

    def broadcast_object(self, value: T) -> T:
        """Returns what rank 0 gives here: numbers, words, or what pickle takes."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]

    def check_data(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Compares the data of all ranks, by a digest of types, shapes and bytes.

        Args:
            batches: All of them, `(n, ...)` each.

        Raises:
            DataError: On every rank, if one holds other data than rank 0.
        """
        digest = hashlib.sha256()
        for d in chain.from_iterable(batches):
            digest.update(f"{d.dtype}{tuple(d.shape)}".encode())
            digest.update(d.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        all_digests = [""] * self.size
        dist.all_gather_object(all_digests, digest.hexdigest())
        for rank, other in enumerate(all_digests):
            if other != all_digests[0]:
                raise DataError(
                    f"rank {rank} holds other data than rank 0 (sha256 {other[:12]}, not "
                    f"{all_digests[0][:12]}); give every rank the same data"
                )


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """Joins the processes that torchrun started, if it did; yields the ranks and the own device.

    gloo connects CPUs, nccl GPUs, of which each process takes its own. A rank that does not answer
    for five minutes counts as dead, and the others end.

    Args:
        device: As the command line has it: "cpu", "cuda", "cuda:1".
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Processes(), device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=TIMEOUT)
    try:
        yield Processes.current(), device
    finally:
        dist.destroy_process_group()


def _split(like: Sequence[Tensor], flat: Tensor) -> list[Tensor]:
    """Returns parts of a flat tensor in the shapes of others."""
    parts = flat.split([t.numel() for t in like])
    return [part.view_as(t) for t, part in zip(like, parts, strict=True)]
