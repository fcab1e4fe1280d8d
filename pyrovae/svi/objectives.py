"""What SVI minimises: a loss of model and guide, its parameters, and its gradients."""

__all__ = [
    "compiled_gradients",
    "find_parameters",
    "gradients",
    "largest_gradient",
    "objective_loss",
]

from collections.abc import Callable, Iterator
from math import isfinite
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor

from pyrovae.program import Captured, Parameters, negative_elbo


def objective_loss(objective: Any) -> Any:
    """Returns the differentiable loss of a Pyro ELBO, or the callable itself."""
    loss_of = getattr(objective, "differentiable_loss", objective)
    if isinstance(loss_of, ELBO) or not callable(loss_of):
        name = type(objective).__name__
        raise TypeError(
            f"objective {name} has no differentiable loss; give Trace_ELBO, another ELBO that has "
            "one, or a callable (model, guide, *batch) -> loss"
        )
    return loss_of


def compiled_gradients(
    objective: Any,
    model: Callable[..., object],
    guide: Callable[..., object],
    params: list[Tensor],
) -> Captured:
    """Returns `gradients` as a graph, for `Trace_ELBO` that of its equal without `.item()`.

    Args:
        objective: A Pyro ELBO, or a loss `(model, guide, *batch)`, summed over the batch, nats.
        model: A Pyro callable of a batch.
        guide: Another.
        params: What the gradients are with respect to.
    """
    plain = type(objective) is Trace_ELBO and objective.num_particles == 1
    loss_of = objective_loss(objective)
    record = gradients(negative_elbo if plain else loss_of, model, guide, params)
    return Captured(gradients(loss_of, model, guide, params), "the SVI step", record)


def gradients(
    loss_of: Callable[..., Tensor],
    model: Callable[..., object],
    guide: Callable[..., object],
    params: list[Tensor],
) -> Callable[..., tuple[Tensor, tuple[Tensor | None, ...]]]:
    """Returns the function of a batch that gives the loss per datum and its gradients.

    Args:
        loss_of: `(model, guide, *batch)`, summed over the batch, nats.
        model: A Pyro callable of a batch.
        guide: Another.
        params: What the gradients are with respect to.
    """

    def at(*batch: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        with torch.enable_grad():
            loss = loss_of(model, guide, *batch) / len(batch[0])
        return loss.detach(), torch.autograd.grad(loss, params, allow_unused=True)

    return at


def find_parameters(loss_of: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Returns all parameters of a loss by name; ValueError if Pyro misses one or none trains."""
    with torch.random.fork_rng(), Parameters() as parameters:
        loss = loss_of()
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
    return named


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """Yields the leaf tensors that the loss sends gradients to."""
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
    """Returns the parameter whose gradient is largest, not-finite ones first, with its norm."""
    norms = {k: p.grad.norm().item() for k, p in named.items() if p.grad is not None}
    name = max(
        norms, key=lambda k: (not isfinite(norms[k]), norms[k] if isfinite(norms[k]) else 0.0)
    )
    return f"{name} (norm {norms[name]:g})"
