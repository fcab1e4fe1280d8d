"""What SVI maximises, one class an objective, in nats per datum.

The evidence of a program is that of its model, whatever was maximised to train it; so is the
validation ELBO that decides which epoch is kept.
"""

__all__ = ["ELBO", "Loss", "Objective", "named", "objective_of"]

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, cast

import pyro.infer
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

from pyrovae.checks import check_sizes, shown
from pyrovae.program import SummedOut, log_weights, negative_elbo, no_guide, summing_out
from pyrovae.registry import enter, find

Fn = Callable[..., object]  # a Pyro callable
_known: dict[str, type["Objective"]] = {}


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
        enter(_known, cls)

    @abstractmethod
    def per_datum(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the objective for each datum `(N,)`, nats, higher is better, with its gradient.

        Args:
            model: A Pyro callable of `*data`, or one whose discrete latents are to be summed out.
            guide: Another; `None` draws nothing.
            data: A batch, `(N, ...)` each.
        """

    def loss(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns what an optimizer minimises, `()`: minus the sum over the batch, nats.

        Args:
            model: As of `per_datum`.
            guide: Likewise.
            data: Likewise.
        """
        return -self.per_datum(model, guide, *data).sum()

    def graph_loss(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the loss by operations on tensors alone, of which a graph can be compiled.

        Args:
            model: As of `per_datum`.
            guide: Likewise.
            data: Likewise.
        """
        return self.loss(model, guide, *data)

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
class ELBO(Objective):
    r"""The evidence lower bound of each datum, `(N,)`, nats: in expectation at most log p(x).

    .. math::
        \mathrm{ELBO}(x) = E_{q(z|x)}[\log p(x, z) - \log q(z|x)]
        = \log p(x) - \mathrm{KL}(q(z|x) \,\|\, p(z|x)) \le \log p(x)

    Its gradient goes through the draws, which are reparameterized as :math:`z = g(x, \epsilon)`
    with noise :math:`\epsilon` that has no parameters, such as :math:`\mu(x) + \sigma(x)
    \epsilon`; where a guide's draws have no gradient (a discrete latent), the score function
    :math:`\nabla \log q(z|x)`, times what the draw decides, takes its place in `loss`. Discrete
    latents that the guide leaves out are summed out; where nothing is left to guess it is log p(x)
    itself, and training is maximum likelihood.

    Attributes:
        num_particles: S, draws a datum; `loss` runs the program so many times.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114
        Black box variational inference (Ranganath et al., 2013), https://arxiv.org/abs/1401.0118
    """

    name: ClassVar[str] = "elbo"
    num_particles: int = 1

    def __post_init__(self) -> None:
        check_sizes(num_particles=self.num_particles)

    def per_datum(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the mean of S log-weights for each datum, `(N,)`, nats.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another; `None` draws nothing.
            data: A batch, `(N, ...)` each.
        """
        return log_weights(model, guide, *data, num_particles=self.num_particles).mean(0)

    def loss(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns Pyro's loss of the batch, `()`, nats: scaled and masked as the program says.

        It takes latents common to all data too, for which no datum has a value of its own.

        Args:
            model: As of `per_datum`.
            guide: Likewise.
            data: Likewise.
        """
        return self._pyros(model).differentiable_loss(model, guide or no_guide, *data)

    def value(self, model: Fn, guide: Fn | None, *data: Tensor) -> float:
        """Returns the ELBO of a batch, summed, nats, without a gradient.

        Args:
            model: As of `per_datum`.
            guide: Likewise.
            data: Likewise.
        """
        return -self._pyros(model).loss(model, guide or no_guide, *data)

    def graph_loss(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the same without reading a number, where no site is summed out.

        Args:
            model: As of `per_datum`.
            guide: Likewise.
            data: Likewise.
        """
        if isinstance(model, SummedOut):
            return self.loss(model, guide, *data)
        losses = [
            negative_elbo(model, guide or no_guide, *data) for _ in range(self.num_particles)
        ]
        return sum(losses[1:], losses[0]) / self.num_particles

    def _pyros(self, model: Fn) -> Trace_ELBO | TraceEnum_ELBO:
        """Returns Pyro's own ELBO, for this model."""
        if isinstance(model, SummedOut):
            nesting = model.nesting
            return TraceEnum_ELBO(num_particles=self.num_particles, max_plate_nesting=nesting)
        return Trace_ELBO(num_particles=self.num_particles)


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


def objective_of(given: object) -> Objective:
    """Returns the objective that is meant.

    Args:
        given: One; the name or import path of one; a Pyro `ELBO`, or a callable
            `(model, guide, *batch) -> loss`, summed over the batch; `None` for the ELBO.

    Raises:
        TypeError: If it is nothing of that.
        ValueError: If there is none of that name.
    """
    if given is None:
        return ELBO()
    if isinstance(given, Objective):
        return given
    if isinstance(given, str):
        return _made(named(given))
    if isinstance(given, type) and issubclass(given, Objective):
        return _made(given)
    loss_of = getattr(given, "differentiable_loss", given)
    if isinstance(given, type) or isinstance(loss_of, pyro.infer.ELBO) or not callable(loss_of):
        raise TypeError(
            f"objective {shown(given)} has no differentiable loss; give a pv.Objective, its name, "
            "Trace_ELBO or another Pyro ELBO that has one, or a callable (model, guide, *batch) "
            "-> loss"
        )
    return Loss(cast(Callable[..., Tensor], loss_of), given)


def named(name: str) -> type[Objective]:
    """Returns the objective of a name, or that which `package.module.Class` is, imported.

    Raises:
        ValueError: If there is none.

    Example:
        >>> named("elbo").__name__
        'ELBO'
    """
    module, _, attribute = name.rpartition(".")
    if module:
        found = getattr(import_module(module), attribute, None)
        if isinstance(found, type) and issubclass(found, Objective):
            return found
        raise ValueError(
            f"{name} is no subclass of pyrovae.Objective; give package.module.Class of one"
        )
    import_module("pyrovae.svi.semi_supervised")  # which stands on this module
    hint = "a class of your own is known once its module is imported; or give package.module.Class"
    return find(_known, name, "objective", hint)


def _made(cls: type[Objective]) -> Objective:
    """Returns the objective with its defaults."""
    try:
        return cls()
    except TypeError as e:
        raise TypeError(
            f"the objective {cls.__name__} cannot be made without arguments ({e}); "
            f"give their defaults, or an object of it"
        ) from e
