"""The course of training: what it was, and all that a checkpoint must hold to go on."""

__all__ = ["Course", "Fit", "State"]

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from pyrovae.storage import StateError

State = dict[str, Any]


@dataclass(frozen=True)
class Fit:
    """What `fit` did, one value an epoch, in nats per datum.

    Attributes:
        elbo: ELBO of the training data, averaged over the epoch's steps.
        valid_elbo: ELBO of the validation data after each epoch; empty without any.
        best_epoch: The epoch, from 1, whose parameters were kept; the last without validation
            data.
        seconds: Wall time of each epoch.
        stopped_early: Whether `patience` ended it.
    """

    elbo: tuple[float, ...]
    valid_elbo: tuple[float, ...]
    best_epoch: int
    seconds: tuple[float, ...]
    stopped_early: bool

    def __repr__(self) -> str:
        valid = f", valid {self.valid_elbo[self.best_epoch - 1]:.3f}" if self.valid_elbo else ""
        return (
            f"Fit({len(self.elbo)} epochs in {sum(self.seconds):.1f} s; best epoch "
            f"{self.best_epoch}: ELBO {self.elbo[self.best_epoch - 1]:.3f}{valid} nats per datum)"
        )


class Course:
    """Where training stands: all that a checkpoint must hold."""

    def __init__(
        self, named: dict[str, Tensor], optim: torch.optim.Optimizer, schedule: LRScheduler
    ) -> None:
        self.named, self.optim, self.schedule = named, optim, schedule
        self.elbo: list[float] = []
        self.valid_elbo: list[float] = []
        self.seconds: list[float] = []
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.elbo)

    @property
    def waited(self) -> int:
        """Epochs since the best one."""
        return self.epoch - self.best_epoch

    def advance(self, elbo: float, valid_elbo: float | None, seconds: float) -> None:
        """Takes down an epoch's results, and its parameters where they are the best so far."""
        best = max(self.valid_elbo, default=-torch.inf)
        self.elbo.append(elbo)
        self.seconds.append(seconds)
        if valid_elbo is not None:
            self.valid_elbo.append(valid_elbo)
        if valid_elbo is None or valid_elbo > best or not self.best_epoch:
            self.best_epoch = self.epoch
            self.best = {} if valid_elbo is None else _copy(self.named)

    def last(self) -> dict[str, str]:
        """Returns the newest ELBOs, for the progress bar."""
        shown = {"elbo": self.elbo, "valid": self.valid_elbo}
        return {k: f"{v[-1]:.2f}" for k, v in shown.items() if v}

    def state(self) -> State:
        """Returns a copy of all `restore` needs: nested dictionaries of tensors and numbers."""
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            random["cuda"] = torch.cuda.get_rng_state()
        return {
            "parameters": _copy(self.named),
            "best": self.best,
            "optimizer": deepcopy(self.optim.state_dict()),
            "schedule": self.schedule.state_dict(),
            "random": random,
            "elbo": list(self.elbo),
            "valid_elbo": list(self.valid_elbo),
            "seconds": list(self.seconds),
            "best_epoch": self.best_epoch,
        }

    def restore(self, state: State, num_steps: int) -> None:
        """Goes to where `state` was taken; StateError where it is no state of this program."""
        shapes = {k: tuple(p.shape) for k, p in self.named.items()}
        if {k: tuple(p.shape) for k, p in state["parameters"].items()} != shapes:
            raise StateError(
                f"resume holds parameters {_shapes(state['parameters'])} but the program has "
                f"{_shapes(self.named)}; resume with the model that was trained"
            )
        if self.schedule.state_dict().get("total_steps") != state["schedule"].get("total_steps"):
            raise StateError(
                "resume was on a learning-rate schedule of "
                f"{state['schedule'].get('total_steps')} steps and this run has {num_steps}; "
                "a one-cycle schedule resumes with its own num_epochs and batch_size"
            )
        _assign(self.named, state["parameters"])
        optim = dict(state["optimizer"])
        optim["state"] = {int(k): v for k, v in optim["state"].items()}
        self.optim.load_state_dict(optim)
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"]["cpu"])
        if "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"])
        self.elbo, self.valid_elbo = list(state["elbo"]), list(state["valid_elbo"])
        self.seconds, self.best_epoch, self.best = (
            list(state["seconds"]),
            state["best_epoch"],
            state["best"],
        )

    def finish(self, stopped_early: bool) -> Fit:
        """Sets the best parameters and returns the course."""
        _assign(self.named, self.best)
        return Fit(
            tuple(self.elbo),
            tuple(self.valid_elbo),
            self.best_epoch,
            tuple(self.seconds),
            stopped_early,
        )


def _copy(named: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in named.items()}


@torch.no_grad()
def _assign(named: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        named[name].copy_(value)


def _shapes(named: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(p.shape)}" for name, p in named.items())
