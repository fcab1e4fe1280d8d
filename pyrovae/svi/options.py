"""The options of `fit`: which there are, what they may be, and what they are by default."""

__all__ = ["Options", "Settings"]

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import pyro.infer
import torch
from torch import Tensor

from pyrovae.checks import check_positive, check_seed, check_sizes, shown
from pyrovae.svi.objectives import Objective
from pyrovae.svi.training import State

ADAM = partial(torch.optim.Adam, fused=True)
SCHEDULES = "constant", "one-cycle"
Maximised = Objective | pyro.infer.ELBO | Callable[..., Tensor] | str | None


class Options(TypedDict, total=False):
    """What `fit` takes by keyword, beside the arguments that it names.

    Attributes:
        objective: What is maximised: a `pv.Objective`; its name, or `package.module.Class` of
            your own; a Pyro `ELBO`, or a callable `(model, guide, *batch) -> loss` summed over
            the batch, whose losses are minimised. Default: the ELBO.
        lr_schedule: "constant" (the default) or "one-cycle" (Smith and Topin, 2017), which a
            finished run that is resumed with more epochs begins anew (Loshchilov and Hutter,
            2017).
        optimizer: Called with the parameters and `lr`; default Adam.
        clip_norm: Largest gradient norm; `None` clips nothing.
        patience: Stop after so many epochs without a better validation ELBO; `None` never does.
        transform: Applied to each training batch, `transform(*batch)`, such as a fresh
            binarization.
        device: Where batches go; default: where the data are.
        compile: Run loss and gradients as one compiled graph, once some ten seconds have gone
            into making it; see `pyrovae.program.Captured`. The short last batch runs as ever. A
            program or objective that no graph can be had of runs uncompiled, and a warning says
            why.
        progress: Show a bar; `None` does so on a terminal, and logs how far it is elsewhere.
        callback: Given the whole state after each epoch, and once before the first. It may write
            it down, or stop training by raising.
        resume: Such a state: goes on bit for bit as if never stopped, with the buffers of modules
            (batch normalisation) and its own random streams, whatever the seed. Another constant
            `lr`, `batch_size` or `clip_norm` takes effect from here on.
    """

    objective: Maximised
    lr_schedule: str
    optimizer: Callable[..., torch.optim.Optimizer]
    clip_norm: float | None
    patience: int | None
    transform: Callable[..., object] | None
    device: str | torch.device | None
    compile: bool
    progress: bool | None
    callback: Callable[[State], None] | None
    resume: State | None


@dataclass(frozen=True)
class Settings:
    """All of them with their values, checked; each as `Options` and `fit` say.

    Raises:
        TypeError: If what is called is no callable.
        ValueError: If a number is out of range, or there is no such schedule.
    """

    num_epochs: int
    batch_size: int
    lr: float
    seed: int | None
    objective: Maximised = None
    lr_schedule: str = SCHEDULES[0]
    optimizer: Callable[..., torch.optim.Optimizer] = ADAM
    clip_norm: float | None = None
    patience: int | None = None
    transform: Callable[..., object] | None = None
    device: str | torch.device | None = None
    compile: bool = False
    progress: bool | None = None
    callback: Callable[[State], None] | None = None
    resume: State | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("optimizer", "transform", "callback"):
            fn = getattr(self, name)
            if not (callable(fn) or (fn is None and name != "optimizer")):
                raise TypeError(f"{name} is {shown(fn)}; give a callable")
        check_sizes(num_epochs=self.num_epochs, batch_size=self.batch_size)
        check_sizes(patience=1 if self.patience is None else self.patience)
        check_positive(lr=self.lr, clip_norm=1.0 if self.clip_norm is None else self.clip_norm)
        if self.lr_schedule not in SCHEDULES:
            raise ValueError(
                f"lr_schedule is {self.lr_schedule!r}; choose {' or '.join(SCHEDULES)}"
            )
