"""The gradients of a loss: of which parameters, for a batch, and where they fail."""

__all__ = ["Step", "compiled_gradients", "gradients", "largest_gradient", "looked_at"]

from collections.abc import Callable, Iterator, Sequence
from math import isfinite

import torch
from torch import Tensor

from pyrovae.program import Captured, Parameters, factors_alone, shared_out
from pyrovae.svi.batches import Batches
from pyrovae.svi.objectives import Objective

ROUNDING = 1e-2  # of a step: batch normalisation's sums in float32 are rounded otherwise
Fn = Callable[..., object]
Step = Callable[..., tuple[Tensor, Sequence[Tensor | None]]]


def gradients(objective: Objective, model: Fn, guide: Fn | None, params: list[Tensor]) -> Step:
    r"""Returns the function of a batch `(n, ...)` that gives its loss per datum and the gradients.

    .. math::
        \ell = -\frac{1}{n} \sum_{i=1}^n \mathrm{objective}(x_i), \quad
        \nabla_{\theta, \phi}\, \ell

    The loss is a tensor `()` in nats, without a graph; of the gradients each has the shape of its
    parameter, or is `None` where the batch does not reach it. A mean, not a sum: the learning rate
    need not change with the size of a batch.

    Args:
        objective: Whose loss is minimised, nats per datum.
        model: A Pyro callable of a batch.
        guide: Another, or `None`.
        params: What the gradients are with respect to.
    """
    return _gradients(objective.loss, model, guide, params)


def compiled_gradients(
    objective: Objective, model: Fn, guide: Fn | None, params: list[Tensor]
) -> Captured:
    """Returns `gradients` as a graph of the objective's `graph_loss`, compiled at its first call.

    Batches of another size than the first one's run as ever. Where no graph can be had, because
    something reads a number or a draw has no gradient, all do, and a warning says why.

    Args:
        objective: Whose loss is minimised, nats per datum.
        model: A Pyro callable of a batch.
        guide: Another, or `None`.
        params: What the gradients are with respect to.
    """
    record = _gradients(objective.graph_loss, model, guide, params)
    step = gradients(objective, model, guide, params)
    return Captured(step, "the SVI step", record, ROUNDING)


def _gradients(
    loss_of: Callable[..., Tensor], model: Fn, guide: Fn | None, params: list[Tensor]
) -> Step:
    """Returns the function of a batch that gives the loss per datum, `()`, and its gradients."""

    def at(*batch: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        with torch.enable_grad():
            loss = loss_of(model, guide, *batch) / len(batch[0])
        return loss.detach(), torch.autograd.grad(loss, params, allow_unused=True)

    return at


def looked_at(
    objective: Objective, model: Fn, guide: Fn | None, train: Batches
) -> tuple[Fn, Fn | None, dict[str, Tensor], tuple[str, ...]]:
    """Returns model and guide as the objective takes them, and the parameters of its loss by name.

    Last come the names of the model's factors, where it observes no data and has those alone.

    Latents common to all data count by a batch's share, see `shared_out`. A loss is computed once.
    Pyro tells of parameters as `pyro.param`, `pyro.module` and `PyroModule` meet them; autograd
    tells of tensors that would get a gradient. Both have to agree: what Pyro does not know would
    be left out of the optimizer, and silently never train.

    Args:
        objective: Whose loss is looked at.
        model: A Pyro callable of a batch.
        guide: Another, or `None`.
        train: Of whose first batch, `(n, ...)` each, it is the loss; what is drawn for it, its
            transform included, moves no stream.

    Raises:
        ValueError: If Pyro misses a parameter, or none trains: the message says how to register
            it.
    """
    with torch.random.fork_rng(), Parameters() as parameters:
        batch = train.first
        model, guide = shared_out(model, guide, batch, train.num_data)
        model = objective.prepared(model, guide, *batch)
        loss = objective.loss(model, guide, *batch)
    factors = factors_alone(model, *batch)
    leaves = list(_leaves(loss))
    for leaf in leaves:
        leaf.grad = torch.zeros_like(leaf)
    named = parameters.named()
    for leaf in leaves:
        leaf.grad = None
    for leaf in leaves:
        if not any(leaf is p for p in named.values()):
            raise ValueError(
                f"a tensor of shape {tuple(leaf.shape)} would get a gradient but Pyro does "
                "not know it, so it would never train; register its module with "
                "pyro.module(name, net) inside model or guide"
            )
    if not leaves:
        raise ValueError(
            "no parameter gets a gradient; register networks with pyro.module(name, net), or "
            "tensors with pyro.param, inside model or guide"
        )
    return model, guide, named, factors


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """Yields the leaf tensors that the loss sends gradients to, each once."""
    todo, seen = [loss.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            yield leaf
        todo += [following for following, _ in node.next_functions]


def largest_gradient(named: dict[str, Tensor]) -> str:
    """Returns the parameter whose gradient is largest, not-finite ones first, with its norm.

    That is a name and a number, as an error can hold them: "VAE.encoder (norm nan)".
    """
    norms = {k: p.grad.norm().item() for k, p in named.items() if p.grad is not None}
    name = max(
        norms, key=lambda k: (not isfinite(norms[k]), norms[k] if isfinite(norms[k]) else 0.0)
    )
    return f"{name} (norm {norms[name]:g})"
