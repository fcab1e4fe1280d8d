"""Hamiltonian Monte Carlo along a path between two densities, on bare tensors."""

__all__ = ["State", "accept", "at", "leapfrog", "transition"]

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

JITTER = 0.2  # share of a step size


class State(NamedTuple):
    """Where particles are, and what the path's two ends are there.

    Any shape `*` of particles moves at once, each by itself; annealing has `(S, n)`.

    Attributes:
        u: Positions, `(*, d)`.
        log_f: log f_0 and log f_1, `(2, *)`, in nats.
        grad: Their gradients in u, `(2, *, d)`.
    """

    u: Tensor
    log_f: Tensor
    grad: Tensor


States = Callable[[Tensor], State]


def at(ends: Callable[[Tensor], Sequence[Tensor]], u: Tensor) -> State:
    """Returns the state at given positions, both gradients from one run of the program.

    Args:
        ends: Takes u `(*, d)` to log f_0 and log f_1, `(*)` each, differentiable in u. An end
            without a gradient has one of 0.
        u: Positions, `(*, d)`.
    """
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        log_f = tuple(ends(u))
        grads = [
            torch.autograd.grad(f.sum(), u, retain_graph=True, materialize_grads=True)[0]
            if f.requires_grad
            else torch.zeros_like(u)
            for f in log_f
        ]
    return State(u.detach(), torch.stack(log_f).detach(), torch.stack(grads))


def along(pair: Tensor, b: float) -> Tensor:
    """Returns (1 - b) pair[0] + b pair[1], where b = 0 and b = 1 see one of the two alone.

    Args:
        pair: What there is of the path's two ends, `(2, ...)`.
        b: Where on the path, 0 to 1.
    """
    return pair[int(b)] if b in (0, 1) else (1 - b) * pair[0] + b * pair[1]


def leapfrog(
    states: States,
    state: State,
    v: Tensor,
    b: float,
    step: Tensor | float,
    num_steps: int,
    factor: Tensor | None = None,
) -> tuple[State, Tensor]:
    r"""Returns position and velocity after `num_steps` leapfrog steps under log f_b.

    .. math::
        v \leftarrow v + \tfrac12 \epsilon \nabla \log f_b(u), \quad
        u \leftarrow u + \epsilon v, \quad v \leftarrow v + \tfrac12 \epsilon \nabla \log f_b(u)

    with :math:`\log f_b = (1 - b) \log f_0 + b \log f_1`. Reversible (negate v) and
    volume-preserving; the energy's error is of order step^2. A step that differs between
    dimensions is a diagonal mass matrix, diag(1 / step^2); with a factor A, velocities count as
    A v and gradients as A^T times theirs: the mass matrix is (A A^T)^-1 in units of the step.

    Args:
        states: Takes u `(*, d)` to the state there, as `at` does.
        state: Where to begin.
        v: Velocities, `(*, d)`.
        b: Where on the path, 0 to 1.
        step: Step sizes epsilon, to broadcast with u.
        num_steps: Number of steps; successive half steps of v are made as one.
        factor: A, `(d, d)`; `None` for the identity.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), section 2.3, https://arxiv.org/abs/1206.1901
    """

    def push(state: State, share: float) -> Tensor:
        force = share * step * along(state.grad, b)
        return force if factor is None else force @ factor

    v = v + push(state, 0.5)
    for i in range(num_steps):
        state = states(state.u + step * (v if factor is None else v @ factor.mT))
        v = v + push(state, 1.0 if i < num_steps - 1 else 0.5)
    return state, v


def transition(
    states: States,
    state: State,
    b: float,
    step: Tensor | float,
    num_steps: int,
    factor: Tensor | None = None,
) -> tuple[State, Tensor]:
    r"""Returns the particles' states after one HMC transition, and their acceptance rates `(*)`.

    .. math::
        v \sim \mathrm{N}(0, I), \quad (u', v') = \mathrm{leapfrog}(u, v), \quad
        \text{rate} = \min\{1, f_b(u') e^{-|v'|^2 / 2} / (f_b(u) e^{-|v|^2 / 2})\}

    It leaves f_b invariant whatever the step sizes are, provided they do not depend on the state.
    They are jittered by up to 20 %, each particle's by itself, lest trajectories close on
    themselves. A move to where the density is 0 or not a number is rejected.

    Args:
        states: Takes u `(*, d)` to the state there, as `at` does.
        state: Where the particles are.
        b: Where on the path, 0 to 1.
        step: Step sizes, to broadcast with u.
        num_steps: Leapfrog steps, each a gradient.
        factor: A of the mass matrix, `(d, d)`, see `leapfrog`.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), https://arxiv.org/abs/1206.1901
    """
    step = step * (1 + JITTER * (2 * torch.rand_like(state.u[..., :1]) - 1))  # (*, d)
    v = torch.randn_like(state.u)
    moved, v_moved = leapfrog(states, state, v, b, step, num_steps, factor)
    log_ratio = along(moved.log_f, b) - along(state.log_f, b)  # (*)
    log_ratio = log_ratio + 0.5 * (v.square().sum(-1) - v_moved.square().sum(-1))
    rate = log_ratio.exp().clamp(max=1).nan_to_num(0.0)
    yes = accept(rate)
    return State(
        torch.where(yes[..., None], moved.u, state.u),
        torch.where(yes, moved.log_f, state.log_f),
        torch.where(yes[..., None], moved.grad, state.grad),
    ), rate


def accept(rate: Tensor) -> Tensor:
    """Returns which moves are made, `(*)`, each with its probability: Metropolis's step."""
    return torch.rand_like(rate) < rate
