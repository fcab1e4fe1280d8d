"""The options of `fit`: which there are, what they may be, and what they are by default."""

__all__ = ["Options", "Settings"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import pyro.infer
import torch
from torch import Tensor
from torch.optim import Optimizer

from pyrovae.checks import check_positive, check_seed, check_sizes, shown
from pyrovae.svi.objectives import Objective
from pyrovae.svi.optimizers import optimizer_of
from pyrovae.svi.training import State
from pyrovae.svi.validation import Criterion, Estimates

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
        optimizer: "adam" (the default); "adamw(0.1)", under which matrices shrink; "muon", for
            matrices, see `pyrovae.svi.optimizers`; or what is called with the parameters and `lr`.
        clip_norm: Largest gradient norm; `None` clips nothing.
        ema: Factor by which the weights of earlier steps decay in an exponential moving average of
            the parameters, such as 0.999, which is what is validated, kept and returned, and what
            they are during `callback`; see `pyrovae.svi.averaging.Average`. Buffers stay as they
            are. `None`: the parameters themselves.
        criterion: What says which epoch is the best, on the first validation data: an estimator,
            such as `pv.Importance(100)` or `pv.IWAE(64, num_particles=64)`; or a function
            `(model, guide, *data, seed) -> (N,)`, nats, higher is better. `None`: the validation
            ELBO.
        criterion_rows: How many validation data, at most, it is taken of; the seed is always 0.
        patience: Stop after so many epochs without a better validation ELBO, or criterion; `None`
            never does.
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
            `lr`, `batch_size`, `clip_norm` or `ema` takes effect from here on.
    """

    objective: Maximised
    lr_schedule: str
    optimizer: str | Callable[..., Optimizer]
    clip_norm: float | None
    ema: float | None
    criterion: Criterion | None
    criterion_rows: int
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
    optimizer: str | Callable[..., Optimizer] = "adam"
    clip_norm: float | None = None
    ema: float | None = None
    criterion: Criterion | None = None
    criterion_rows: int = 500
    patience: int | None = None
    transform: Callable[..., object] | None = None
    device: str | torch.device | None = None
    compile: bool = False
    progress: bool | None = None
    callback: Callable[[State], None] | None = None
    resume: State | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("transform", "callback"):
            fn = getattr(self, name)
            if not (callable(fn) or fn is None):
                raise TypeError(f"{name} is {shown(fn)}; give a callable")
        if not (
            self.criterion is None
            or callable(self.criterion)
            or isinstance(self.criterion, Estimates)
        ):
            raise TypeError(
                f"criterion is {shown(self.criterion)}; give a pv.Estimator, such as "
                "pv.Importance(100), or a callable"
            )
        _ = self.optimizer_class  # which checks it
        check_sizes(num_epochs=self.num_epochs, batch_size=self.batch_size)
        check_sizes(criterion_rows=self.criterion_rows)
        check_sizes(patience=1 if self.patience is None else self.patience)
        check_positive(lr=self.lr, clip_norm=1.0 if self.clip_norm is None else self.clip_norm)
        check_positive(ema=0.5 if self.ema is None else self.ema)
        if self.ema is not None and self.ema >= 1:
            raise ValueError(f"ema is {self.ema}; give a number above 0 and below 1")
        if self.lr_schedule not in SCHEDULES:
            raise ValueError(
                f"lr_schedule is {self.lr_schedule!r}; choose {' or '.join(SCHEDULES)}"
            )

    @property
    def optimizer_class(self) -> Callable[..., Optimizer]:
        """What is called with the parameters and `lr`.

        Raises:
            TypeError: If that is no callable.
            ValueError: If there is no optimizer of that name.
        """
        if not isinstance(self.optimizer, str):
            if not callable(self.optimizer):
                raise TypeError(f"optimizer is {shown(self.optimizer)}; give a callable")
            return self.optimizer
        return optimizer_of(self.optimizer)
