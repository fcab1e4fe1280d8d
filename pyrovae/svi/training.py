"""A training in progress: what it was so far, and all that a checkpoint must hold to go on."""

__all__ = ["Training", "Fit", "State"]

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from pyrovae.errors import Diverged, StateError
from pyrovae.program import check_kinds
from pyrovae.svi.averaging import Average, assign, copied
from pyrovae.svi.validation import Scores

State = dict[str, Any]
# of an optimizer's groups: what the schedule sets, and how the step is computed, not what
MOVING = {"params", "lr", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}
MOVING |= {"fused", "foreach", "capturable", "differentiable"}
MOMENTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "sum"}


@dataclass(frozen=True)
class Fit:
    """What `fit` did, one value an epoch, in nats per datum.

    Attributes:
        elbo: ELBO of the training data, or whatever was maximised, averaged over the epoch's
            steps: parameters move meanwhile, so it lags behind.
        valid_elbo: ELBO of the validation data after each epoch, whatever was maximised; empty
            without any.
        best_epoch: The epoch, from 1, whose parameters were kept; the last without validation
            data.
        criterion: What chose it, an estimate of log p(x) of the first validation data after each
            epoch; empty where `valid_elbo` did.
        seconds: Wall time of each epoch.
        stopped_early: Whether `patience` ended it.
        grad_norm: Norm of the gradient of the loss per datum, before it is clipped, averaged over
            the epoch's steps.
        factors: Of a program that observes no data the names of its factors, whose sum the ELBOs
            are then: no bound of log p(x), as there is none.
    """

    elbo: tuple[float, ...]
    valid_elbo: tuple[float, ...]
    best_epoch: int
    seconds: tuple[float, ...]
    stopped_early: bool
    factors: tuple[str, ...] = ()
    criterion: tuple[float, ...] = ()
    grad_norm: tuple[float, ...] = ()

    def __repr__(self) -> str:
        shown = {"valid": self.valid_elbo, "criterion": self.criterion}
        valid = "".join(f", {k} {v[self.best_epoch - 1]:.3f}" for k, v in shown.items() if v)
        best = f"{', '.join(self.factors) or 'ELBO'} {self.elbo[self.best_epoch - 1]:.3f}"
        return (
            f"Fit({len(self.elbo)} epochs in {sum(self.seconds):.1f} s; best epoch "
            f"{self.best_epoch}: {best}{valid} nats per datum)"
        )


class Training:
    """Where training stands: all that a checkpoint must hold.

    `plan` comes first, and after `restore` where there is something to go on from; then `advance`
    once an epoch, and `finish`.

    Args:
        named: The parameters by name, unconstrained, as the optimizer has them in this order.
        buffers: What else the program's modules keep, such as running means, by name.
        optim: Of the parameters.
        average: Of the parameters over steps, what is validated and kept; `None` for themselves.

    Attributes:
        named, buffers, optim, average: As given; tensors are changed in place.
        schedule: Of the learning rate; one step of it a step of the optimizer.
        begun: The state that this went on from; `None` of a training from its start.
        elbo, valid_elbo: What was met in each epoch so far, nats per datum, higher is better.
        grad_norm: Norm of the gradient of each epoch's steps, on average, before it is clipped.
        seconds: What each epoch took.
        criterion: What chooses the best epoch, likewise; empty where `valid_elbo` does.
        best_epoch: The one of the highest finite criterion or validation ELBO, from 1, the last
            one without validation data; 0 before there is any.
        best: Parameters and buffers after that epoch, by name; empty without validation data.
    """

    def __init__(
        self,
        named: dict[str, Tensor],
        buffers: dict[str, Tensor],
        optim: torch.optim.Optimizer,
        average: Average | None = None,
    ) -> None:
        self.named, self.buffers, self.optim, self.average = named, buffers, optim, average
        self.schedule: LRScheduler
        self.begun: State | None = None
        self.elbo: list[float] = []
        self.valid_elbo: list[float] = []
        self.criterion: list[float] = []
        self.grad_norm: list[float] = []
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

    def step(self) -> None:
        """Takes a step along the gradients; the schedule and the average go along."""
        self.optim.step()
        self.schedule.step()
        if self.average:
            self.average.update()

    def kept(self) -> AbstractContextManager[None]:
        """Runs its body with the parameters that would be kept now: their average, if asked."""
        return self.average.in_place() if self.average else nullcontext()

    def advance(self, elbo: float, grad_norm: float, scores: Scores, seconds: float) -> None:
        """Takes down an epoch's results, and its parameters where they are the best so far.

        A score that is not finite never counts as the best: the steps went too far.

        Args:
            elbo: Mean over the epoch's steps, nats per datum.
            grad_norm: Likewise, of the gradients.
            scores: Of the validation data after it.
            seconds: That it took.
        """
        by = self.criterion or self.valid_elbo
        best = by[self.best_epoch - 1] if self.best else None
        self.elbo.append(elbo)
        self.grad_norm.append(grad_norm)
        self.seconds.append(seconds)
        for history, score in zip((self.valid_elbo, self.criterion), scores, strict=True):
            history += [] if score is None else [score]
        score = scores.elbo if scores.criterion is None else scores.criterion
        if score is None or (isfinite(score) and (best is None or score > best)):
            self.best_epoch = self.epoch
            self.best = {} if score is None else copied(self._means | self.buffers)

    @property
    def _means(self) -> dict[str, Tensor]:
        """The parameters that would be kept now, by name."""
        return self.average.means if self.average else self.named

    def last(self) -> dict[str, str]:
        """Returns the newest ELBOs, for the progress bar."""
        shown = {"elbo": self.elbo, "valid": self.valid_elbo, "criterion": self.criterion}
        return {k: f"{v[-1]:.2f}" for k, v in shown.items() if v}

    def state(self) -> State:
        """Returns a copy of all `restore` needs: nested dictionaries of tensors and numbers.

        Its keys are "parameters", "buffers" and "best" (tensors by name); "averages" (likewise,
        empty without) and "averaged_steps" (a number); "optimizer" and "schedule" (their own
        `state_dict`); "random" (the streams of CPU and CUDA); "elbo", "valid_elbo", "criterion",
        "grad_norm" and "seconds" (numbers by epoch); and "best_epoch".
        """
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            random["cuda"] = torch.cuda.get_rng_state()
        return {
            "parameters": copied(self.named),
            "buffers": copied(self.buffers),
            "best": self.best,
            "averages": copied(self.average.means) if self.average else {},
            "averaged_steps": self.average.steps if self.average else 0,
            "optimizer": deepcopy(self.optim.state_dict()),
            "schedule": self.schedule.state_dict(),
            "random": random,
            "elbo": list(self.elbo),
            "valid_elbo": list(self.valid_elbo),
            "criterion": list(self.criterion),
            "grad_norm": list(self.grad_norm),
            "seconds": list(self.seconds),
            "best_epoch": self.best_epoch,
        }

    def restore(self, state: State) -> None:
        """Goes to where a state was taken, random streams and all.

        Optimizer and schedule follow in `plan`, when it is known how many steps are left.

        Raises:
            StateError: If it lacks something, or is of another program: nothing is changed then.
        """
        with _read_from(state):
            held = self.named | self.buffers
            saved = {**state["parameters"], **state.get("buffers", {})}
            averages, steps = dict(state.get("averages", {})), state.get("averaged_steps", 0)
            for ours, kept in ((held, saved), (held, state["best"]), (self.named, averages)):
                if kept:
                    advice = "resume with the model that was trained"
                    check_kinds(ours, kept, "the parameters in resume", advice)
            if type(steps) is not int or steps < bool(averages):
                raise ValueError(f"its averages are over {steps} steps")
            histories = _histories(state)
            torch.set_rng_state(state["random"]["cpu"])
            if "cuda" in state["random"]:
                torch.cuda.set_rng_state(state["random"]["cuda"])
            self.begun = state
            self.elbo, self.valid_elbo, self.criterion, self.grad_norm, self.seconds = histories
            self.best_epoch, self.best = state["best_epoch"], state["best"]
            assign(held, saved)
            if self.average:
                self.average.restore(averages, steps)

    def check_scored(self, valid: bool, criterion: bool) -> None:
        """Raises StateError where earlier epochs were scored by other things than later ones.

        Args:
            valid: Whether there are validation data from here on.
            criterion: Whether a criterion chooses the best epoch.
        """
        for what, now, before in (
            ("validation data", valid, self.valid_elbo),
            ("a criterion", criterion, self.criterion),
        ):
            if self.epoch and now != bool(before):
                had, has = ("with" if b else "without" for b in (before, now))
                raise StateError(
                    f"resume was trained {had} {what}, and this run is {has}; resume with what it "
                    "was begun with, so that its epochs can be compared"
                )

    def plan(self, name: str, lr: float, num_steps: int) -> None:
        """Sets the learning rates of the steps left: goes on with a schedule or begins one.

        A constant rate may be another than before. All else stays with what was begun. A cycle
        rises to `lr` over the first 30 % of its steps and falls to a 250,000th of that, with
        momentum moving the other way; one that is finished begins anew over the steps added.

        Args:
            name: "constant" or "one-cycle".
            lr: The rate, or the highest of a cycle.
            num_steps: Number of the steps left.

        Raises:
            StateError: If another schedule was begun, or one with another number of steps left or
                another rate, or another optimizer.

        References:
            Super-convergence (Smith and Topin, 2017), https://arxiv.org/abs/1708.07120
            SGDR: stochastic gradient descent with warm restarts (Loshchilov and Hutter, 2017),
            https://arxiv.org/abs/1608.03983
        """
        with _read_from(self.begun):
            self._plan(name, lr, num_steps)

    def _plan(self, name: str, lr: float, num_steps: int) -> None:
        """Does what `plan` says; a state of a wrong kind raises whatever it raises."""
        begun = self.begun["schedule"] if self.begun else {}
        total = begun.get("total_steps")
        left = total - 1 - begun["last_epoch"] if total else None
        if begun and ((total is None) != (name == "constant") or left not in (None, 0, num_steps)):
            was = f"one-cycle with {left} steps left" if total else "constant"
            raise StateError(
                f"resume was on a learning-rate schedule {was}, and this run asks for {name} with "
                f"{num_steps}; resume with its own lr_schedule, num_epochs and batch_size"
            )
        if begun:
            self._check_optimizer(bool(total), lr if left else None)
        if left == 0:
            self._load_optimizer()
        self.schedule = self._schedule(name, lr, begun["total_steps"] if left else num_steps + 1)
        if begun and left != 0:
            self._go_on(begun)

    def _go_on(self, begun: State) -> None:
        """Takes over a schedule, after its like was made, which sets rates of its own then."""
        rates = [group["lr"] for group in self.optim.param_groups]
        self._load_optimizer()
        self.schedule.load_state_dict(begun)
        if not begun.get("total_steps"):
            for group, rate in zip(self.optim.param_groups, rates, strict=True):
                group["lr"] = rate

    def _schedule(self, name: str, lr: float, length: int) -> LRScheduler:
        """Returns a schedule of so many steps, from its first."""
        if name == "constant":
            return ConstantLR(self.optim, factor=1.0)
        momentum = bool({"betas", "momentum"} & set(self.optim.defaults))
        return OneCycleLR(self.optim, lr, length, cycle_momentum=momentum)

    def _check_optimizer(self, cycled: bool, lr: float | None) -> None:
        """Raises StateError where the optimizer, or a cycle's highest rate, is another."""
        assert self.begun is not None
        ours, theirs = self.optim.param_groups, self.begun["optimizer"]["param_groups"]
        moving = MOVING | ({"betas", "momentum"} if cycled else set())
        for one, other in zip(ours, theirs, strict=False):
            if lr is not None and other["max_lr"] != lr:
                raise StateError(
                    f"resume is inside a one-cycle schedule with lr {other['max_lr']:g}, and this "
                    f"run asks for {lr:g}; resume with its own lr, which another cycle may change"
                )
            for name in sorted((one.keys() | other.keys()) - moving):
                asked, had = (_plain(group.get(name, "none")) for group in (one, other))
                if asked != had:
                    raise StateError(
                        f"resume was optimised with {name} {had}, and this run asks for {asked}; "
                        "resume with its own optimizer"
                    )
        if len(ours) != len(theirs):
            raise StateError("resume was optimised in other groups; resume with its own optimizer")

    def _load_optimizer(self) -> None:
        """Gives the optimizer the state that was begun with; ValueError for other shapes."""
        assert self.begun is not None
        state = dict(self.begun["optimizer"])
        state["state"] = {int(k): v for k, v in state["state"].items()}
        self.optim.load_state_dict(state)
        for p, kept in self.optim.state.items():
            for name in MOMENTS & kept.keys():
                if kept[name].shape != p.shape:
                    raise ValueError(f"{name} of shape {kept[name].shape} for one {p.shape}")

    def finish(self, stopped_early: bool, factors: tuple[str, ...] = ()) -> Fit:
        """Sets the best parameters and returns what was done.

        Args:
            stopped_early: Whether epochs were left.
            factors: Of a program that observes no data, by name.

        Raises:
            Diverged: If what chooses the best epoch was finite after none.
        """
        if not self.best_epoch:
            what = "criterion" if self.criterion else "validation ELBO"
            last = (self.criterion or self.valid_elbo)[-1]
            raise Diverged(
                f"training diverged: the {what} is {last} after the last epoch, and was finite "
                "after none"
            )
        assign(self.named | self.buffers, self.best or self._means)
        return Fit(
            tuple(self.elbo),
            tuple(self.valid_elbo),
            self.best_epoch,
            tuple(self.seconds),
            stopped_early,
            factors,
            tuple(self.criterion),
            tuple(self.grad_norm),
        )


def _histories(state: State) -> list[list[float]]:
    """Returns a state's numbers by epoch: ELBOs, validation ELBOs, criterion, norms, seconds.

    Of a state from before there were norms, these are NaN.

    Raises:
        TypeError, ValueError: If they are no numbers, or do not go together.
    """
    names = ("elbo", "valid_elbo", "seconds")
    elbo, valid, seconds = (list(state[name]) for name in names)
    criterion = list(state.get("criterion", []))
    epochs, best = len(elbo), state["best_epoch"]
    norms = list(state.get("grad_norm", [nan] * epochs))
    histories = [elbo, valid, criterion, norms, seconds]
    if not all(type(v) in (int, float) for history in histories for v in history):
        raise TypeError("its history is not of numbers")
    lengths = {len(valid), len(criterion)}
    if (
        {len(seconds), len(norms)} != {epochs}
        or lengths - {0, epochs}
        or len(criterion) > len(valid)
    ):
        raise ValueError("its history is of different lengths")
    if type(best) is not int or not bool(epochs and not valid) <= best <= epochs:
        raise ValueError(f"its best epoch is {best} of {epochs}")
    return histories


def _plain(value: object) -> object:
    """Returns a value as a file has it: no tuples."""
    return list(value) if isinstance(value, tuple) else value


@contextmanager
def _read_from(state: State | None) -> Iterator[None]:
    """Raises StateError for whatever a state that is read lacks, or holds of a wrong kind.

    Without a state, errors are those of the optimizer or the schedule, and stay what they are.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as e:
        if state is None or isinstance(e, StateError):
            raise
        raise StateError(
            f"resume is no state of a training ({type(e).__name__}: {e}); give what `callback` "
            "was given"
        ) from e
