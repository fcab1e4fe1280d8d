"""What SVI maximises, one class an objective, in nats per datum.

The evidence of a program is that of its model, whatever was maximised to train it; so is the
validation ELBO that decides which epoch is kept.
"""

__all__ = [
    "DReG",
    "ELBO",
    "IWAE",
    "STL",
    "AnalyticELBO",
    "BetaELBO",
    "Loss",
    "Objective",
    "SemiSupervised",
    "Trimmed",
    "named",
    "objective_of",
]

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from math import log
from typing import ClassVar, cast

import pyro.infer
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

from pyrovae.checks import check_not_negative, check_sizes, shown
from pyrovae.program import (
    SummedOut,
    log_weights,
    negative_elbo,
    no_guide,
    paths,
    terms,
)
from pyrovae.registry import called, find, made
from pyrovae.svi.objective import Fn, Loss, Objective, known, risen
from pyrovae.svi.semi_supervised import SemiSupervised


@dataclass(frozen=True)
class _OfDraws(Objective):
    """What S draws of each datum say.

    Attributes:
        num_particles: S.
    """

    num_particles: int = 1

    def __post_init__(self) -> None:
        check_sizes(num_particles=self.num_particles)


@dataclass(frozen=True)
class ELBO(_OfDraws):
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
class AnalyticELBO(_OfDraws):
    r"""The ELBO with its KL integrated where it can be: the same in expectation, less noise.

    .. math::
        \mathrm{ELBO}(x) = E_{q(z|x)}[\log p(x | z)] - \mathrm{KL}(q(z|x) \,\|\, p(z))

    By datum, `(N,)`, nats, with a sum over the latent sites, each given those drawn before it.
    Where Pyro has no integral (a mixture, a flow), and where the model draws latents before one
    that the guide draws after it, its term is log q - log p at the draw. Scales, such as those of
    subsampling plates, do not count, masks do.

    Attributes:
        num_particles: S, draws a datum.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), equation 10,
        https://arxiv.org/abs/1312.6114
    """

    name: ClassVar[str] = "analytic-elbo"

    def per_datum(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the mean of S terms for each datum, `(N,)`, nats.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another; `None` draws nothing.
            data: A batch, `(N, ...)` each.
        """
        found = terms(model, guide, *data, num_particles=self.num_particles)
        kl = sum(site.mean(0).sum(-1) for site in found.divergence.values())
        return found.log_likelihood.mean(0) - kl


@dataclass(frozen=True)
class BetaELBO(Objective):
    r"""The ELBO with a weight on its KL, which may rise from 0, and bits that cost nothing.

    .. math::
        E_{q(z|x)}[\log p(x | z)] - \beta_t \sum_j \max(\lambda, \mathrm{KL}_j), \quad
        \beta_t = \beta \min(1, t / \mathrm{warmup})

    By datum, `(N,)`, nats, in epoch t = 0, 1, ...; KL_j is that of group j, a dimension of the
    latent where Pyro knows the integral and else a site, and is compared with lambda in its mean
    over the batch. Below lambda a group's KL has no gradient, so that it is not pruned early. It
    is a lower bound of log p(x) for beta >= 1; whatever it is, the evidence of the trained program
    is that of the program.

    Attributes:
        beta: Weight of KL.
        warmup: Epochs in which it rises to that, in equal steps from 0; 0 for none.
        free_nats: lambda, of each group, nats.
        num_particles: S, draws a datum.

    Raises:
        ValueError: If beta, warmup or free_nats is negative.

    References:
        beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl
        Ladder variational autoencoders (Sonderby et al., 2016), on warm-up,
        https://arxiv.org/abs/1602.02282
        Improving variational inference with inverse autoregressive flow (Kingma et al., 2016),
        appendix C.8, on free bits, https://arxiv.org/abs/1606.04934
    """

    name: ClassVar[str] = "beta-elbo"
    beta: float = 1.0
    warmup: int = 0
    free_nats: float = 0.0
    num_particles: int = 1
    _weight: Tensor = field(
        default_factory=lambda: torch.ones(()), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_sizes(num_particles=self.num_particles)
        check_not_negative(beta=self.beta, warmup=self.warmup, free_nats=self.free_nats)
        self.begin(self.warmup)

    def begin(self, epoch: int) -> None:
        """Sets beta of that epoch.

        Args:
            epoch: t, from 0 on.
        """
        self._weight.fill_(self.beta * risen(epoch, self.warmup))

    def per_datum(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the objective for each datum, `(N,)`, nats.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another; `None` draws nothing.
            data: A batch, `(N, ...)` each.
        """
        found = terms(model, guide, *data, num_particles=self.num_particles)
        kl = sum(_not_below(self.free_nats, kl.mean(0)) for kl in found.divergence.values())
        return found.log_likelihood.mean(0) - self._weight.to(found.log_likelihood) * kl


def _not_below(least: float, kl: Tensor) -> Tensor:
    """Returns KL, `(N,)`, its groups counted as this where their mean over the batch is less.

    Args:
        least: Nats, of a group.
        kl: By datum and group, `(N, groups)`, nats.
    """
    return torch.where(kl.mean(0) < least, least, kl).sum(-1) if least else kl.sum(-1)


@dataclass(frozen=True)
class STL(_OfDraws):
    r"""The ELBO of each datum, `(N,)`, nats, with a gradient that vanishes at the exact guide.

    .. math::
        \nabla_\phi\, \mathrm{ELBO} = E\Bigl[
        \frac{\partial \log w}{\partial z} \frac{\partial z}{\partial \phi}\Bigr], \quad
        \log w = \log p(x, z) - \log q_\phi(z|x)

    "Sticking the landing": what log q depends on phi besides, the score, has mean 0 and is left
    out. Where q(z|x) = p(z|x), log w is constant in z, and so the gradient of the guide's
    parameters is 0 at each draw; that of the model's parameters is as ever.

    Attributes:
        num_particles: S, draws a datum.

    References:
        Sticking the landing (Roeder, Wu and Duvenaud, 2017), https://arxiv.org/abs/1703.09194
    """

    name: ClassVar[str] = "stl"

    def per_datum(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the mean of S log-weights for each datum, `(N,)`, nats.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another; `None` draws nothing.
            data: A batch, `(N, ...)` each.
        """
        along = paths(model, guide, *data, num_particles=self.num_particles)
        return _with_gradient(along.log_w.mean(0), (along.log_p + along.path).mean(0))


@dataclass(frozen=True)
class IWAE(_OfDraws):
    r"""The bound of S particles for each datum, `(N,)`, nats: tighter than the ELBO.

    .. math::
        \mathrm{IWAE}_S(x) = E\Bigl[\log \frac{1}{S} \sum_{s=1}^S w_s\Bigr], \quad
        \mathrm{ELBO} \le \mathrm{IWAE}_S \le \mathrm{IWAE}_{2S} \le \log p(x)

    Each datum has a logarithm of its own, and scales do not count: `pyro.infer.RenyiELBO` takes
    one of all data's weights together, which is another bound, and above log p(x) under a
    subsampling plate. The guide's gradient drowns in noise as S grows; see `DReG`.

    Attributes:
        num_particles: S.

    References:
        Importance weighted autoencoders (Burda, Grosse and Salakhutdinov, 2015),
        https://arxiv.org/abs/1509.00519
        Tighter variational bounds are not necessarily better (Rainforth et al., 2018),
        https://arxiv.org/abs/1802.04537
    """

    name: ClassVar[str] = "iwae"
    num_particles: int = 5

    def per_datum(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the log of the mean of S weights for each datum, `(N,)`, nats.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another; `None` draws nothing.
            data: A batch, `(N, ...)` each.
        """
        log_w = log_weights(model, guide, *data, num_particles=self.num_particles)
        return log_w.logsumexp(0) - log(self.num_particles)


@dataclass(frozen=True)
class DReG(IWAE):
    r"""The IWAE bound, `(N,)`, nats, with a gradient of the guide that does not drown as S grows.

    .. math::
        \nabla_\phi = E\Bigl[\sum_s \tilde w_s^2\,
        \frac{\partial \log w_s}{\partial z_s} \frac{\partial z_s}{\partial \phi}\Bigr], \quad
        \nabla_\theta = E\Bigl[\sum_s \tilde w_s \nabla_\theta \log p(x, z_s)\Bigr], \quad
        \tilde w_s = w_s / \sum_r w_r

    "Doubly reparameterized": equal in expectation to `IWAE`'s, whose score term is
    reparameterized once more. Of parameters that model and guide share each part counts.

    Attributes:
        num_particles: S.

    References:
        Doubly reparameterized gradient estimators for Monte Carlo objectives (Tucker et al.,
        2019), https://arxiv.org/abs/1810.04152
    """

    name: ClassVar[str] = "dreg"

    def per_datum(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the log of the mean of S weights for each datum, `(N,)`, nats.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another; `None` draws nothing.
            data: A batch, `(N, ...)` each.
        """
        along = paths(model, guide, *data, num_particles=self.num_particles)
        share = along.log_w.softmax(0)
        surrogate = (share * along.log_p + share.square() * along.path).sum(0)
        return _with_gradient(along.log_w.logsumexp(0) - log(self.num_particles), surrogate)


@dataclass(frozen=True)
class Trimmed(IWAE):
    r"""The IWAE bound of all rows but the least probable ones, which have weight 0, `(N,)`, nats.

    .. math::
        \sum_n w_n \, \mathrm{IWAE}_S(x_n), \quad
        w_n = 0 \text{ of the } \lfloor \alpha N \rfloor \text{ lowest of a batch of } N,
        \text{ else } 1

    The trimmed likelihood: odd rows among the training data, up to this share, do not bend the
    model towards themselves, as they do without bound where a normal says how far off they are.
    Which rows they are is asked anew in each step. It is no bound of the evidence of all rows,
    and on clean data it makes the spread too small: the tails are what it leaves out. Rows that
    are ignored count as 0 in what `fit` reports of training data; validation is by all rows.

    Attributes:
        num_particles: S; 1: that of the ELBO.
        share: alpha, from 0 to below 1/2.

    Raises:
        ValueError: If it is no such number.

    References:
        Maximum trimmed likelihood estimators: a unified approach, examples, and algorithms (Hadi
        and Luceno, 1997), https://doi.org/10.1016/S0167-9473(97)00011-X
    """

    name: ClassVar[str] = "trimmed"
    share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share < 0.5:
            raise ValueError(f"share is {self.share}; give a number from 0 to below 0.5")

    def per_datum(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the bound of each datum, of those that are ignored 0 without a gradient, `(N,)`.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another; `None` draws nothing.
            data: A batch, `(N, ...)` each.
        """
        value = super().per_datum(model, guide, *data)
        rank = value.detach().argsort().argsort()
        return torch.where(rank >= int(self.share * len(value)), value, 0.0)


def _with_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    """Returns a value with the gradient of a surrogate.

    Args:
        value: `(N,)`, nats.
        surrogate: Of the same shape.
    """
    return value + (surrogate - surrogate.detach())


def objective_of(given: object) -> Objective:
    """Returns the objective that is meant.

    Args:
        given: One; the name or import path of one, with options as in "iwae(50)"; a Pyro `ELBO`,
            or a callable `(model, guide, *batch) -> loss`, summed over the batch; `None` for the
            ELBO.

    Raises:
        TypeError: If it is nothing of that.
        ValueError: If there is none of that name.
    """
    if given is None:
        return ELBO()
    if isinstance(given, Objective):
        return given
    if isinstance(given, str) and "(" in given:
        asked = called(given, "objective")
        return made(named(asked.name), asked, "objective")
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
    hint = "a class of your own is known once its module is imported; or give package.module.Class"
    return find(known, name, "objective", hint)


def _made(cls: type[Objective]) -> Objective:
    """Returns the objective with its defaults."""
    try:
        return cls()
    except TypeError as e:
        raise TypeError(
            f"the objective {cls.__name__} cannot be made without arguments ({e}); "
            f"give their defaults, or an object of it"
        ) from e
