"""The optimizers that `fit` knows by name; any other is a callable of the parameters and `lr`."""

__all__ = ["AdamW", "Muon", "optimizer_of"]

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from pyrovae.checks import check_not_negative
from pyrovae.registry import called


class Muon(Optimizer):
    r"""Muon for matrices, Adam for all other parameters, as one optimizer with one state.

    A matrix :math:`(A, B)` of gradient G moves along its momentum M made orthogonal, with
    :math:`U S V^\top = \mu M + (1 - \mu) G`,

    .. math::
        \theta \leftarrow \theta - 0.2\, \gamma \sqrt{\max(A, B)}\; U V^\top

    so that its entries move about as far as Adam's, by the same learning rate :math:`\gamma`.
    :math:`U V^\top` is approximated by five steps of Newton and Schulz in bfloat16, which cost
    more than the gradients of a small batch. Each parameter of two dimensions counts as a matrix,
    a table with a row for each datum, too. "one-cycle" does not cycle momenta.

    Args:
        params: What is optimised.
        lr: The learning rate of both.
        momentum: Of the matrices.
        weight_decay: Of the matrices: what they shrink by in a step, times `lr`.

    References:
        Muon: an optimizer for hidden layers in neural networks (Jordan et al., 2024),
        https://kellerjordan.github.io/posts/muon/
        Muon is scalable for LLM training (Liu et al., 2025), https://arxiv.org/abs/2502.16982, for
        the factor of the learning rate
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        params = list(params)
        matrices, others = ([p for p in params if (p.ndim == 2) is two] for two in (True, False))
        how = {"momentum": momentum, "weight_decay": weight_decay}
        muon = partial(torch.optim.Muon, adjust_lr_fn="match_rms_adamw", **how)
        pairs = (muon, matrices), (partial(Adam, fused=True), others)
        self._parts = [make(some, lr=lr) for make, some in pairs if some]
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Takes a step of each part.

        Args:
            closure: Evaluates the loss again, as of any optimizer of torch.

        Returns:
            What that returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state  # which may have been loaded
            part.step()
        return loss


class AdamW(torch.optim.AdamW):
    r"""Adam under which matrices shrink, and all other parameters do not.

    .. math::
        \theta \leftarrow (1 - \gamma \lambda)\, \theta - \gamma\, \Delta_{\mathrm{Adam}}

    Of few data, networks learn them by heart; shrunk, they find what data have in common: with it
    the imputation of a table of 569 rows got a fifth better.

    Args:
        params: What is optimised.
        weight_decay: Lambda, of parameters with two dimensions.
        lr: The learning rate, gamma.

    References:
        Decoupled weight decay regularization (Loshchilov and Hutter, 2019),
        https://arxiv.org/abs/1711.05101
    """

    def __init__(
        self, params: Iterable[Tensor], weight_decay: float = 0.1, *, lr: float = 1e-3
    ) -> None:
        check_not_negative(weight_decay=weight_decay)
        params = list(params)
        matrices, others = ([p for p in params if (p.ndim == 2) is two] for two in (True, False))
        parts = (matrices, weight_decay), (others, 0.0)
        groups = [{"params": some, "weight_decay": decay} for some, decay in parts if some]
        super().__init__(groups, lr=lr, fused=True)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": partial(Adam, fused=True),
    "adamw": AdamW,
    "muon": Muon,
}


def optimizer_of(text: str) -> Callable[..., Optimizer]:
    """Returns the optimizer of a name, with options as in "adamw(1.0)".

    Args:
        text: As a user wrote it.

    Raises:
        ValueError: If there is none of that name, or it takes no such options.
    """
    asked = called(text, "optimizer")
    if asked.name not in OPTIMIZERS:
        near = get_close_matches(asked.name, OPTIMIZERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose of {', '.join(OPTIMIZERS)}"
        raise ValueError(f"optimizer is {text!r}; {hint}")

    def made(params: Iterable[Tensor], lr: float) -> Optimizer:
        return OPTIMIZERS[asked.name](params, *asked.args, lr=lr, **asked.kwargs)

    try:
        made([torch.zeros(1, 1)], 1e-3)
    except TypeError as e:
        raise ValueError(f"optimizer {text!r} cannot be had: {e}") from e
    return made
