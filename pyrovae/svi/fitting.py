"""Stochastic variational inference for any Pyro model and guide."""

__all__ = ["Diverged", "Fit", "fit"]

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO

from pyrovae.checks import check_positive, check_seed, check_sizes, shown
from pyrovae.errors import Diverged
from pyrovae.precision import float32_matmul, precision_is_set
from pyrovae.program import (
    Captured,
    CleanStore,
    buffers_of,
    check_callables,
    evaluation,
    explained,
)
from pyrovae.progress import Bar
from pyrovae.rng import draw_seed, seeded
from pyrovae.svi.batches import (
    Batches,
    Data,
    arguments,
    batches,
    with_constants,
    without_constants,
)
from pyrovae.svi.distributed import Processes
from pyrovae.svi.objectives import (
    compiled_gradients,
    find_parameters,
    gradients,
    largest_gradient,
    objective_loss,
)
from pyrovae.svi.training import Fit, State, Training
from pyrovae.threads import one_at_a_time

ADAM = partial(torch.optim.Adam, fused=True)


@one_at_a_time
def fit(
    model: Callable[..., object],
    guide: Callable[..., object],
    data: Data,
    *,
    valid: Data | None = None,
    num_epochs: int = 100,
    batch_size: int = 128,
    lr: float = 1e-3,
    lr_schedule: str = "constant",
    optimizer: Callable[..., torch.optim.Optimizer] = ADAM,
    objective: Any = None,
    clip_norm: float | None = None,
    patience: int | None = None,
    transform: Callable[..., object] | None = None,
    device: str | torch.device | None = None,
    compile: bool = False,
    seed: int | None = None,
    progress: bool | None = None,
    callback: Callable[[State], None] | None = None,
    resume: State | None = None,
) -> Fit:
    r"""Fits model and guide by SVI, maximising the ELBO per datum; returns what it did.

    .. math::
        \mathrm{ELBO}(x) = E_{q(z|x)}[\log p(x, z) - \log q(z|x)] \le \log p(x)

    The parameters are found by running the program once, as `SVI.step` does: those of
    `pyro.module`, `pyro.param` and `PyroModule` train, whatever else stands in Pyro's global
    store. They and the modules' buffers end at the best validation epoch. Random streams and
    global settings are left as found.

    Where `torch.distributed` is initialised (as `torchrun` and `python -m pyrovae.svi` do), every
    rank calls this with the same arguments. Each takes its share of a batch, and all take the
    gradient of the whole; validation and `callback` are rank 0's.

    Args:
        model: A Pyro callable of the data.
        guide: Another.
        data: A tensor, or tensors of equal length passed to the program in that order, with what
            is no tensor (`None`, a flag) handed on as it is; or a
            `torch.utils.data.DataLoader` of such, whose batches are taken as they come: it alone
            decides on their size and order, and is gone through once more at the start, to check.
        valid: Validation data, likewise; scored after each epoch without touching a weight.
        num_epochs: Passes over the data.
        batch_size: Rows of a step; the last batch of an epoch is short.
        lr: Learning rate; the highest one under "one-cycle".
        lr_schedule: "constant" or "one-cycle" (Smith and Topin, 2017), which a finished run that
            is resumed with more epochs begins anew (Loshchilov and Hutter, 2017).
        optimizer: Called with the parameters and `lr`.
        objective: A Pyro `ELBO`, or a callable `(model, guide, *batch) -> loss` summed over the
            batch; default `Trace_ELBO()`.
        clip_norm: Largest gradient norm; `None` clips nothing.
        patience: Stop after so many epochs without a better validation ELBO.
        transform: Applied to each training batch, `transform(*batch)`, such as a fresh
            binarization.
        device: Where batches go; default: where the data are.
        compile: Run loss and gradients as one compiled graph, once some ten seconds have gone into
            making it; see `pyrovae.program.Captured`. The short last batch runs as ever.
        seed: Fixes order and draws; `None` takes torch's current stream.
        progress: Show a bar; `None` does so on a terminal, and logs how far it is elsewhere.
        callback: Given the whole state after each epoch, and once before the first. It may write
            it down, or stop training by raising.
        resume: Such a state: goes on bit for bit as if never stopped, with the buffers of modules
            (batch normalisation) and its own random streams, whatever the seed. Another constant
            `lr`, `batch_size` or `clip_norm` takes effect from here on.

    Raises:
        ValueError: If no parameter gets a gradient, some tensor gets one that Pyro does not know
            of, data are empty, unequal in length, not finite or outside a site's support, an
            option is out of range, or `resume` is the state of another program, optimizer or
            schedule.
        Diverged: If a loss or gradient is not finite.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114

    Example:
        >>> from pyrovae.models.vae import VAE
        >>> vae, x = VAE(x_dim=4, z_dim=1, hidden_dims=(3,)), torch.ones(50, 4)
        >>> fit(vae.model, vae.guide, x, num_epochs=3, seed=0, progress=False).best_epoch
        3
    """
    check_seed(seed)
    check_callables(model, guide)
    if guide is None:
        raise TypeError("the guide is None; training needs one, a Pyro callable of the data")
    _check_called(optimizer=optimizer, transform=transform, callback=callback)
    _check_options(num_epochs, batch_size, lr, lr_schedule, clip_norm, patience, valid)
    objective = Trace_ELBO() if objective is None else objective
    loss_of = objective_loss(objective)
    model, guide = with_constants(model, data), with_constants(guide, data)
    train, held_out = batches(without_constants(data), batch_size, transform, device), None
    with explained(*arguments(data)):
        train.check(model)
    if valid is not None:
        held_out = batches(without_constants(valid), batch_size, None, device).check(model)
    processes = Processes.current()
    seed = _agreed(processes, train, seed)
    if processes.rank:
        callback, progress = None, False

    with (
        seeded(seed if resume is None else 0),
        CleanStore(),
        warnings.catch_warnings(),
        pyro.validation_enabled(False),
        nullcontext() if precision_is_set() else float32_matmul(),
    ):
        named = find_parameters(lambda: loss_of(model, guide, *train.first))
        params = list(named.values())
        trained = [p for p in params if p.requires_grad]
        make = partial(compiled_gradients, objective) if compile else partial(gradients, loss_of)
        step = make(model, guide, trained)
        training = Training(named, buffers_of(model, guide, named), optimizer(params, lr=lr))
        if resume is not None:
            training.restore(resume)
        processes.broadcast(params)
        training.plan(lr_schedule, lr, (num_epochs - training.epoch) * train.num_steps)
        if resume is None:
            _call(callback, training)
        warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)  # which are told below
        with Bar("training", num_epochs, training.epoch, "epoch", progress) as bar:
            while training.epoch < num_epochs and (patience is None or training.waited < patience):
                start = perf_counter()
                elbo = _epoch(training, train, processes, seed, step, clip_norm)
                valid_elbo = _valid_elbo(model, guide, held_out, processes)
                training.advance(elbo, valid_elbo, perf_counter() - start)
                bar.set_postfix(training.last(), refresh=False)
                bar.update()
                _call(callback, training)
        return training.finish(stopped_early=training.epoch < num_epochs)


def _agreed(processes: Processes, train: Batches, seed: int | None) -> int | None:
    """Returns the seed that all ranks have, once they have the same data."""
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
    step: Callable[..., Any],
    clip_norm: float | None,
) -> float:
    """Takes a step on each batch; returns the mean ELBO met on the way, nats per datum.

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
    total, num_data = 0.0, 0
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
        training.optim.step()
        training.schedule.step()
        total -= loss.item() * len(rows)
        num_data += len(rows)
    return total / num_data


def _call(callback: Callable[[State], None] | None, training: Training) -> None:
    if callback is not None:
        callback(training.state())


def _valid_elbo(
    model: Callable[..., object],
    guide: Callable[..., object],
    held_out: Batches | None,
    processes: Processes,
) -> float | None:
    """Returns the ELBO of held-out data, nats per datum, as rank 0 has it; draws are the same."""
    elbo = None
    if held_out is None:
        return elbo
    if not processes.rank:
        with evaluation(), seeded(0):
            losses = (Trace_ELBO().loss(model, guide, *x) for _, x in held_out.in_order())
            elbo = -sum(losses) / held_out.num_data
    return processes.broadcast_object(elbo)


def _check_called(**called: object) -> None:
    """Raises TypeError unless each of these is `None` or can be called."""
    for name, fn in called.items():
        if not (fn is None or callable(fn)):
            raise TypeError(f"{name} is {shown(fn)}; give a callable")


def _check_options(
    num_epochs: int,
    batch_size: int,
    lr: float,
    lr_schedule: str,
    clip_norm: float | None,
    patience: int | None,
    valid: object,
) -> None:
    check_sizes(num_epochs=num_epochs, batch_size=batch_size)
    check_sizes(patience=1 if patience is None else patience)
    check_positive(lr=lr, clip_norm=1.0 if clip_norm is None else clip_norm)
    if lr_schedule not in ("constant", "one-cycle"):
        raise ValueError(f"lr_schedule is {lr_schedule!r}; choose constant or one-cycle")
    if patience is not None and valid is None:
        raise ValueError("patience needs validation data; pass valid=...")
