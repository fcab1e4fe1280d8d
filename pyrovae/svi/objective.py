"""What SVI maximises: an objective of one's own is one class."""

__all__ = ["Fn", "Loss", "Objective", "known", "risen"]

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pyro.infer
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyrovae.checks import shown
from pyrovae.program import negative_elbo, no_guide, summing_out
from pyrovae.registry import enter

Fn = Callable[..., object]  # a Pyro callable
known: dict[str, type["Objective"]] = {}


class Objective(ABC):
    """What `fit` maximises: a function of model, guide and a batch, with a value for each datum.

    A new objective is one subclass, in the package or in a module of your own, with a `name` and
    `per_datum`; `pyrovae.program.log_weights` gives it the log-weights `(S, N)` that most are
    made of. It is then known by its name everywhere; on a command line also by
    `package.module.Class`, where its arguments have defaults. Where its gradient is not that of
    its value (a surrogate), let `per_datum` return `value.detach() + (s - s.detach())` of the
    surrogate s.

    Attributes:
        name: The name a user writes.
    """

    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Makes the class known by its name, where it has one of its own."""
        enter(known, cls)

    @abstractmethod
    def per_datum(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the objective for each datum `(N,)`, nats, higher is better, with its gradient.

        Of a program whose plate draws n of the rows, `(n,)`, of these.

        Args:
            model: A Pyro callable of `*data`, or one whose discrete latents are to be summed out.
            guide: Another; `None` draws nothing.
            data: A batch, `(N, ...)` each.
        """

    def loss(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns what an optimizer minimises, `()`: minus the sum over the batch, nats.

        Where a plate draws some of its rows, that is their mean times all rows.

        Args:
            model: As of `per_datum`.
            guide: Likewise.
            data: Likewise.
        """
        value = self.per_datum(model, guide, *data)
        return -value.sum() * (len(data[0]) / len(value) if data else 1)

    def graph_loss(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the loss by operations on tensors alone, of which a graph can be compiled.

        Args:
            model: As of `per_datum`.
            guide: Likewise.
            data: Likewise.
        """
        return self.loss(model, guide, *data)

    def begin(self, epoch: int) -> None:  # noqa: B027  # nothing to do is the rule
        """Told before each epoch of `fit`, from 0 on: what follows a schedule moves here.

        A graph that was compiled reads the numbers of a tensor anew, and none of Python's.

        Args:
            epoch: Its number.
        """

    def prepared(self, model: Fn, guide: Fn | None, *data: Tensor) -> Fn:
        """Returns the model as `loss` takes it: discrete latents that no guide draws summed out.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another; `None` draws nothing.
            data: A batch, `(N, ...)` each.

        Raises:
            TypeError, ValueError: If the guide does not draw a latent that cannot be summed out.
        """
        return summing_out(model, guide, *data)


@dataclass(frozen=True)
class Loss(Objective):
    """Minus a loss of the batch that somebody else defines: a Pyro `ELBO`'s, or a callable's.

    Attributes:
        fn: `(model, guide, *batch) -> loss`, summed over the batch, `()`, nats.
        given: What it is of.
    """

    fn: Callable[..., Tensor]
    given: object

    def per_datum(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Raises TypeError: nothing is known of single data.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another.
            data: A batch, `(N, ...)` each.
        """
        raise TypeError(f"{shown(self.given)} has a loss of a batch, not of each datum")

    def loss(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns that loss, `()`, nats.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another; in the place of `None` one that draws nothing.
            data: A batch, `(N, ...)` each.
        """
        return self.fn(model, guide or no_guide, *data)

    def graph_loss(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the same, of `Trace_ELBO` without reading a number.

        Args:
            model: As of `loss`.
            guide: Likewise.
            data: Likewise.
        """
        if type(self.given) is Trace_ELBO and self.given.num_particles == 1:
            return negative_elbo(model, guide or no_guide, *data)
        return self.loss(model, guide, *data)

    def prepared(self, model: Fn, guide: Fn | None, *data: Tensor) -> Fn:
        """Returns the model as it is; TypeError if nothing draws a latent that has to be drawn.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another; `None` draws nothing.
            data: A batch, `(N, ...)` each.
        """
        if guide is None and isinstance(self.given, pyro.infer.ELBO):
            summing_out(model, guide, *data)
        return model


def risen(epoch: int, warmup: int) -> float:
    """Returns how far a weight has risen, from 0 in epoch 0 to 1 after `warmup` epochs.

    Args:
        epoch: Its number, from 0 on.
        warmup: Epochs in which it rises in equal steps; 0: it is 1 at once.
    """
    return min(1.0, epoch / warmup) if warmup else 1.0
