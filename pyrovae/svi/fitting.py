"""Stochastic variational inference for any Pyro model and guide: `fit`, epoch by epoch.

What a step minimises is in `objectives`, its gradient in `gradients`.
"""

__all__ = ["Diverged", "Fit", "fit"]

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from math import inf
from time import perf_counter
from typing import Unpack

import pyro
import torch
from torch import Tensor

from pyrovae.checks import check_options, may_be_missing
from pyrovae.errors import Diverged
from pyrovae.precision import float32_matmul, precision_is_set
from pyrovae.program import (
    Captured,
    CleanStore,
    buffers_of,
    check_callables,
    explained,
)
from pyrovae.progress import Bar
from pyrovae.rng import draw_seed, seeded
from pyrovae.svi.averaging import Average
from pyrovae.svi.batches import (
    Batches,
    Data,
    arguments,
    batches,
    with_constants,
    without_constants,
)
from pyrovae.svi.distributed import Processes
from pyrovae.svi.gradients import (
    Step,
    compiled_gradients,
    gradients,
    largest_gradient,
    looked_at,
)
from pyrovae.svi.objectives import objective_of
from pyrovae.svi.options import Options, Settings
from pyrovae.svi.training import Fit, Training
from pyrovae.svi.validation import Validation
from pyrovae.threads import one_at_a_time

Fn = Callable[..., object]  # a Pyro callable


@one_at_a_time
def fit(
    model: Fn,
    guide: Fn | None,
    data: Data,
    *,
    valid: Data | None = None,
    num_epochs: int = 100,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int | None = None,
    **options: Unpack[Options],
) -> Fit:
    r"""Fits model and guide by SVI, maximising the ELBO per datum; returns what it did.

    .. math::
        \mathrm{ELBO}(x) = E_{q(z|x)}[\log p(x, z) - \log q(z|x)] \le \log p(x)

    or another objective, see `pyrovae.svi.objectives`. A latent w common to all data, outside
    their plate, counts in a batch of n of N rows by n / N of log p(w) - log q(w): an epoch adds up
    to the ELBO of all data, whatever the size of its batches. The parameters are found by running
    the program once, as `SVI.step` does: those of `pyro.module`, `pyro.param` and `PyroModule`
    train, whatever else stands in Pyro's global store. They and the modules' buffers end at the
    epoch whose validation ELBO is best, or `criterion`; with `ema`, at their average then. Random
    streams and global settings are left as found.

    Where `torch.distributed` is initialised (as `torchrun` and `python -m pyrovae.svi` do), every
    rank calls this with the same arguments. Each takes its share of a batch, and all take the
    gradient of the whole; validation and `callback` are rank 0's.

    Args:
        model: A Pyro callable of the data.
        guide: Another; `None` where the model has no latents, or discrete ones alone, which are
            summed out: then log p(x) itself is maximised.
        data: A tensor, or tensors of equal length N passed to the program in that order, with
            what is no tensor (`None`, a flag) handed on as it is; or a
            `torch.utils.data.DataLoader` of such, whose batches are taken as they come: it alone
            decides on their size and order, and is gone through once more at the start, to check.
        valid: Validation data, likewise; scored after each epoch without touching a weight.
        num_epochs: Passes over the data.
        batch_size: Rows of a step; the last batch of an epoch is short.
        lr: Learning rate; the highest one under "one-cycle".
        seed: Fixes order and draws; `None` takes torch's current stream.
        options: `objective`, `lr_schedule`, `optimizer`, `clip_norm`, `ema`, `criterion`,
            `criterion_rows`, `patience`, `transform`, `device`, `compile`, `progress`, `callback`
            and `resume`, as `pyrovae.svi.options.Options` says.

    Raises:
        TypeError: If there is no such option, or no guide for a latent that has to be guessed.
        ValueError: If no parameter gets a gradient, some tensor gets one that Pyro does not know
            of, data are empty, unequal in length, not finite or outside a site's support, an
            option is out of range, the guide does not draw a latent that cannot be summed out,
            or `resume` is the state of another program, optimizer or schedule.
        Diverged: If a loss or gradient is not finite, or what chooses the best epoch after all.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114

    Example:
        >>> from pyrovae.models.vae import VAE
        >>> vae, x = VAE(x_dim=4, z_dim=1, hidden_dims=(3,)), torch.ones(50, 4)
        >>> fit(vae.model, vae.guide, x, num_epochs=3, seed=0, progress=False).best_epoch
        3
    """
    check_options(options, Options, fit)
    how = Settings(num_epochs, batch_size, lr, seed, **options)
    check_callables(model, guide)
    objective = objective_of(how.objective)
    model, guide = with_constants(model, data), guide and with_constants(guide, data)
    train, held_out = _batches(model, data, valid, how)
    processes = Processes.current()
    seed = _agreed(processes, train, how.seed)
    with _apart(seed if how.resume is None else 0):
        own = model, guide
        model, guide, named, factors = looked_at(objective, model, guide, train)
        make = compiled_gradients if how.compile else gradients
        step = make(objective, model, guide, [p for p in named.values() if p.requires_grad])
        training = _begun(named, buffers_of(model, guide, named), how, train.num_steps, processes)
        validation = Validation(model, guide, held_out, processes)
        _check_scored(training, validation, own, how)
        if how.resume is None:
            _save(training, how, processes)
        bar = Bar("training", how.num_epochs, training.epoch, "epoch", _shown(how, processes))
        with bar:
            while training.epoch < how.num_epochs and training.waited < (how.patience or inf):
                start = perf_counter()
                objective.begin(training.epoch)
                met = _epoch(training, train, processes, seed, step, how.clip_norm)
                with training.kept():
                    scores = validation()
                training.advance(*met, scores, perf_counter() - start)
                bar.set_postfix(training.last(), refresh=False)
                bar.update()
                _save(training, how, processes)
        return training.finish(training.epoch < how.num_epochs, factors)


def _batches(
    model: Fn, data: Data, valid: Data | None, how: Settings
) -> tuple[Batches, Batches | None]:
    """Returns the batches of training and validation data, which the model can observe.

    Args:
        model: A Pyro callable of the data.
        data: What it is trained on.
        valid: Validation data, or `None`; they are not transformed.
        how: The settings.

    Raises:
        ValueError: (mostly a `DataError`) If they are empty, unequal in length, not finite or
            outside a site's support, a column is missing in every row, or `patience` or
            `criterion` has no validation data.
    """
    for name in ("patience", "criterion"):
        if getattr(how, name) is not None and valid is None:
            raise ValueError(f"{name} needs validation data; pass valid=...")
    rows, missing = without_constants(data), may_be_missing(model)
    train = batches(rows, how.batch_size, how.transform, how.device, missing)
    with explained(*arguments(data)):
        train.check(model, learned=missing)
    if valid is None:
        return train, None
    held_out = batches(without_constants(valid), how.batch_size, None, how.device, missing)
    return train, held_out.check(model)


def _begun(
    named: dict[str, Tensor],
    buffers: dict[str, Tensor],
    how: Settings,
    num_steps: int,
    processes: Processes,
) -> Training:
    """Returns the training of these tensors as it begins, or goes on; the same on every rank.

    Args:
        named: The parameters by name.
        buffers: What else the modules keep, by name.
        how: The settings.
        num_steps: Of an epoch.
        processes: That train together; all begin with the tensors of rank 0.
    """
    params = list(named.values())
    average = None if how.ema is None else Average(named, how.ema)
    training = Training(named, buffers, how.optimizer_class(params, lr=how.lr), average)
    if how.resume is not None:
        training.restore(how.resume)
    processes.broadcast(params)
    training.plan(how.lr_schedule, how.lr, (how.num_epochs - training.epoch) * num_steps)
    return training


def _check_scored(
    training: Training, validation: Validation, pair: tuple[Fn, Fn | None], how: Settings
) -> None:
    """Has the best epoch chosen as the settings say, and as it was before.

    Args:
        training: As it begins, or goes on.
        validation: What scores held-out data.
        pair: Model and guide as the user gave them, of a batch.
        how: The settings.

    Raises:
        StateError: If earlier epochs were scored by something else.
        TypeError, ValueError: If the criterion cannot be had of this program.
    """
    training.check_scored(validation.possible, how.criterion is not None)
    if how.criterion is not None:
        with training.kept():
            validation.choose_by(how.criterion, how.criterion_rows, pair)


def _save(training: Training, how: Settings, processes: Processes) -> None:
    """Gives the state to the callback, on rank 0, with the parameters that would be kept."""
    if how.callback is not None and not processes.rank:
        state = training.state()
        with training.kept():
            how.callback(state)


def _shown(how: Settings, processes: Processes) -> bool | None:
    """Returns whether this rank shows how far it is."""
    return False if processes.rank else how.progress


@contextmanager
def _apart(seed: int | None) -> Iterator[None]:
    """Runs its body on streams fixed by the seed, and leaves all that is global as it was.

    That is random streams, Pyro's store and its validation, filters of warnings, and the precision
    of float32 products, which are those of the fastest library that is exact to float32.
    """
    with (
        seeded(seed),
        CleanStore(),
        warnings.catch_warnings(),
        pyro.validation_enabled(False),
        nullcontext() if precision_is_set() else float32_matmul(),
    ):
        warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)  # Diverged tells of it
        yield


def _agreed(processes: Processes, train: Batches, seed: int | None) -> int | None:
    """Returns the seed that all ranks have, once they have the same data; alone, the one given."""
    if processes.size == 1:
        return seed
    with seeded(0):
        processes.check_data(batch for _, batch in train.in_order())
    return processes.broadcast_object(draw_seed(seed))


def _epoch(
    training: Training,
    train: Batches,
    processes: Processes,
    seed: int | None,
    step: Step,
    clip_norm: float | None,
) -> tuple[float, float]:
    """Takes a step on each batch; returns what was met on the way, on average.

    That is the objective, nats per datum, and the norm of the gradient before it is clipped. A
    step that would not be finite is not taken: parameters, and what the optimizer knows of them,
    stay as they were before it.

    Args:
        training: With the parameters, their optimizer and its schedule.
        train: The batches.
        processes: Each of which has a share of a batch.
        seed: Fixes the order of the rows among processes.
        step: Returns loss and gradients of a batch.
        clip_norm: Largest gradient norm; `None` clips nothing.

    Raises:
        Diverged: If a loss or gradient is not finite.
    """
    params = list(training.named.values())
    trained = [p for p in params if p.requires_grad]
    total, norms, num_data = 0.0, 0.0, 0
    for i, (rows, x) in enumerate(train.epoch(processes, seed, training.epoch)):
        if isinstance(step, Captured) and i == 0:
            step.check(*x)
        loss, grads = processes.sum_gradients(step, x, len(rows), trained)
        for p, grad in zip(trained, grads, strict=True):
            p.grad = grad
        norm = torch.nn.utils.get_total_norm([g for g in grads if g is not None])
        if not (loss + norm).isfinite():
            what = f"loss is {loss.item():g} and its gradient norm {norm.item():g}"
            at = training.epoch * train.num_steps + i
            raise Diverged(what, at, training.epoch + 1, rows, largest_gradient(training.named))
        if clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(params, clip_norm, norm)
        training.step()
        total -= loss.item() * len(rows)
        norms += norm.item() * len(rows)
        num_data += len(rows)
    return total / num_data, norms / num_data
