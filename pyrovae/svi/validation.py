"""What held-out data say of the parameters after each epoch, and by what the best are chosen."""

__all__ = ["Criterion", "Estimates", "Scores", "Validation"]

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from pyrovae.checks import shown
from pyrovae.program import evaluation
from pyrovae.rng import seeded
from pyrovae.svi.batches import Batch, Batches
from pyrovae.svi.distributed import Processes
from pyrovae.svi.objectives import ELBO

Fn = Callable[..., object]  # a Pyro callable


@runtime_checkable
class Estimates(Protocol):
    """What estimates log p(x) of each datum, as every `pv.Estimator` does."""

    def values(self, model: Fn, guide: Fn | None, *data: Tensor, seed: int | None) -> Tensor:
        """Returns the estimate of each datum, `(N,)`, nats, higher is better.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another, or `None`.
            data: `(N, ...)` each.
            seed: Fixes the draws.
        """
        ...


Criterion = Estimates | Callable[..., Tensor]


class Scores(NamedTuple):
    """Means over held-out data, nats per datum; `None` of what was not asked for.

    Attributes:
        elbo: The ELBO of all of them.
        criterion: Of the first rows, what else is to choose the best epoch.
    """

    elbo: float | None = None
    criterion: float | None = None


class Validation:
    """Scores held-out data without touching a weight, as rank 0 has it for all.

    Modules are in `eval()` mode and nothing learns. The draws are the same every time, so that
    epochs are compared on one footing.

    Args:
        model: A Pyro callable of a batch, as the objective takes it.
        guide: Another, or `None`.
        held_out: Batches of validation data, or `None`.
        processes: That train together.
    """

    def __init__(
        self, model: Fn, guide: Fn | None, held_out: Batches | None, processes: Processes
    ) -> None:
        self._model, self._guide = model, guide
        self._held_out, self._processes = held_out, processes
        self._criterion: Callable[[Batch], float] | None = None
        self._rows: Batch = ()

    @property
    def possible(self) -> bool:
        """Whether there are held-out data."""
        return self._held_out is not None

    def choose_by(self, criterion: Criterion, rows: int, pair: tuple[Fn, Fn | None]) -> None:
        """Has a criterion scored as well from here on; what it refuses, it refuses now.

        Args:
            criterion: An estimator, or a function of model, guide and data.
            rows: Of how many of the first held-out data it is taken, at most.
            pair: Model and guide as the user gave them.

        Raises:
            TypeError: If it gives no number of each datum.
            ValueError: Whatever it finds wrong with the program.
        """
        score = criterion.values if isinstance(criterion, Estimates) else criterion

        def mean(data: Batch) -> float:
            with evaluation(), seeded(0):
                values = score(*pair, *data, seed=0)
            if not isinstance(values, Tensor) or values.shape != (len(data[0]),):
                got = tuple(values.shape) if isinstance(values, Tensor) else shown(values)
                raise TypeError(
                    f"the criterion gives {got} of {len(data[0])} data; let it return a number of "
                    "each, a tensor (N,), or give a pv.Estimator"
                )
            return values.double().mean().item()

        if self._held_out is not None and not self._processes.rank:
            with seeded(0):
                self._rows = _first(self._held_out, rows)
            mean(tuple(d[:2] for d in self._rows))
            self._criterion = mean

    def __call__(self) -> Scores:
        """Returns the scores of the parameters as they are."""
        if self._held_out is None:
            return Scores()
        scores = Scores()
        if not self._processes.rank:
            with evaluation(), seeded(0):
                batches = self._held_out.in_order()
                elbos = (ELBO().value(self._model, self._guide, *x) for _, x in batches)
                elbo = sum(elbos) / self._held_out.num_data
            scores = Scores(elbo, self._criterion and self._criterion(self._rows))
        return self._processes.broadcast_object(scores)


def _first(batches: Batches, number: int) -> Batch:
    """Returns the first rows of data, `(n, ...)` each.

    Args:
        batches: The data, which are gone through to their end.
        number: How many, at most.
    """
    parts = [
        tuple(d[: number - int(rows[0])] for d in batch)
        for rows, batch in batches.in_order()
        if int(rows[0]) < number
    ]
    return tuple(map(torch.cat, zip(*parts, strict=True)))
