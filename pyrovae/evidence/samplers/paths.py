"""Where annealing begins, the coordinates that it runs in, and the densities at both ends."""

__all__ = [
    "SCALE_DRAWS",
    "GuidePath",
    "Mixed",
    "Moved",
    "NormalPath",
    "Path",
    "PathProposal",
]

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from math import lgamma, log, log1p, pi
from statistics import NormalDist
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from pyrovae.evidence.samplers import hmc
from pyrovae.evidence.samplers.factors import Factor
from pyrovae.program import GeometricPath, Program

SCALE_DRAWS = 256  # of which a start's scale is read


class Path:
    r"""A path from a density that can be drawn from to a block's posterior.

    .. math::
        \log f_b(v) = (1 - b) \log f_0(v) + b \log f_1(v), \quad
        f_1(v) = p(x, z) \left|\frac{dz}{dv}\right|

    in coordinates v, `(S, n, d)`; of joint latents of all data `(S, d)`. Over v, f_0 integrates to
    1, and f_1 to p(x).

    Args:
        base: The program's latents u, unconstrained, from which v differ as the path says.
        parts: What of the path is each datum's own, `(n, ...)` each.

    Attributes:
        scale_draws: Draws of the start by which its scale is read.
    """

    scale_draws = SCALE_DRAWS

    def __init__(self, base: GeometricPath, *parts: Tensor) -> None:
        self.base, self.parts = base, parts

    def start(self, num_particles: int) -> Tensor:
        """Returns draws v of f_0, `(S, n, d)`.

        Args:
            num_particles: S.
        """
        return self.base.start(num_particles)

    def ends(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log f_0 and log f_1, `(S, n)` each, nats, differentiable in v.

        Args:
            v: `(S, n, d)`.
        """
        return self.base(v)

    def inward(self, u: Tensor) -> Tensor:
        """Returns v of latents u, unconstrained: `(..., n, d)` both."""
        return u

    def outward(self, v: Tensor) -> Tensor:
        """Returns the latents u of v, unconstrained: `(..., n, d)` both."""
        return v

    @cached_property
    def scale(self) -> Tensor:
        """The scale of the start's v, `(n, d)`: of a normal, its standard deviation.

        It is taken from the middle 80 % of D = 256 draws: of heavy tails, whose few outliers would
        rule a standard deviation, it is the scale of where the particles are. 1 in a direction
        without any.
        """
        draws = self.start(self.scale_draws).sort(0).values  # (D, n, d)
        tail = self.scale_draws // 10
        low, high = draws[tail], draws[-1 - tail]
        scale = (high - low) / (2 * NormalDist().inv_cdf(0.9))
        return torch.where(scale > 0, scale, 1.0)

    def prepare(self) -> None:
        """Does all that runs the program beside what is asked for, before draws that count."""
        _ = self.scale, self.states

    def only(self, members: list[int]) -> Self:
        """Returns the path of some of the block's data alone, by their places in it.

        Args:
            members: m places; the new path's rows count from 0.
        """
        path = self._elsewhere(self.base.select(members), tuple(p[members] for p in self.parts))
        if "scale" in self.__dict__:
            path.__dict__["scale"] = self.scale[members]
        return path

    def joined(self, others: Sequence["Path"], rows: range) -> Self:
        """Returns the path of more rows, of which this and the others are parts.

        Args:
            others: Paths of the rows that follow, in order.
            rows: All of them.
        """
        parts = zip(*(o.parts for o in (self, *others)), strict=True)
        base = GeometricPath(self.base.program, rows)
        return self._elsewhere(base, tuple(torch.cat(p) for p in parts))

    def _elsewhere(self, base: GeometricPath, parts: tuple[Tensor, ...]) -> Self:
        """Returns the path of other rows; what was found of these is forgotten.

        Args:
            base: Their latents.
            parts: What of the path is theirs, `(n, ...)` each.
        """
        path = copy(self)
        path.base, path.parts = base, parts
        for name in ("scale", "states"):
            path.__dict__.pop(name, None)
        return path

    @cached_property
    def states(self) -> hmc.States:
        """Takes v `(S, n, d)` to the state there; of a compiled program by a block's graph.

        Few rows are not worth a graph, which would be filled up with as many more of them.
        """
        if self.base.program.is_compiled:
            full = self._full()
            if 2 * len(self.base.rows) > full.base.program.block_size:
                return partial(self._captured, full)
        return partial(hmc.at, self.ends)

    def _full(self) -> Self:
        """Returns the path of a full block, of which a graph is made; the program is run once."""
        program = self.base.program.padded(self.base.rows)
        return self._elsewhere(GeometricPath(program, range(program.block_size)), self.parts)

    def _captured(self, block: Self, v: Tensor) -> hmc.State:
        """Returns the state at v from the graph of a full block, which v fills up.

        Args:
            block: The path of a full block.
            v: `(S, n, d)`.
        """
        n, program = v.shape[1], block.base.program
        drawn = "prior" if program.guide is None else "guide"
        short = program.block_size - n if program.plate else 0
        parts = tuple(_filled(p, 0, short) for p in self.parts)
        state = program.captured(
            f"the gradient of log p(x, z) along a {type(self).__name__} from the {drawn}",
            lambda data, v, *parts: hmc.at(block._on(data, parts).ends, v),
            _filled(v, 1, short),
            *parts,
        )
        if not short:
            return state
        return hmc.State(v, state.log_f[..., :n], state.grad[..., :n, :])

    def _on(self, data: tuple[Tensor, ...], parts: tuple[Tensor, ...]) -> Self:
        """Returns the path of other data, and of what belongs to them, of the same shapes.

        Args:
            data: A block's, `(n, ...)` each.
            parts: Likewise.
        """
        return self._elsewhere(self.base.on(data), parts)


class GuidePath(Path):
    """From the guide, or the prior without one; v are u themselves."""


class NormalPath(Path):
    r"""From a normal with a covariance, or a Student t, in coordinates in which it is standard.

    .. math::
        u = m + F v, \quad v \sim \mathrm{N}(0, I) \quad \text{or} \quad \mathrm{t}_\nu(0, I)

    Args:
        base: Of the model alone.
        mean: m, `(n, d)`.
        factor: F.
        df: Degrees of freedom of the t; `None` for a normal.
    """

    def __init__(
        self, base: GeometricPath, mean: Tensor, factor: Factor, df: float | None = None
    ) -> None:
        super().__init__(base, mean, *factor)
        self.df, self._kind = df, type(factor)

    @property
    def factor(self) -> Factor:
        """F, of the path's parts."""
        return self._kind(*self.parts[1:])

    def start(self, num_particles: int) -> Tensor:
        """Returns draws v, `(S, n, d)`.

        Args:
            num_particles: S.
        """
        v = torch.randn(num_particles, *self.parts[0].shape, dtype=self.parts[0].dtype)
        v = v.to(self.parts[0].device)
        if self.df is None:
            return v
        chi2 = torch.distributions.Chi2(torch.full(v.shape[:-1], self.df, dtype=v.dtype))
        return v / (chi2.sample() / self.df).sqrt()[..., None].to(v.device)

    def ends(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log f_0 and log f_1, `(S, n)` each, nats.

        Args:
            v: `(S, n, d)`.
        """
        return self.log_start(v), self.base(self.outward(v))[1] + self.log_volume

    def log_start(self, v: Tensor) -> Tensor:
        """Returns log f_0, `(S, n)`, nats, of v `(S, n, d)`."""
        d, square = v.shape[-1], v.square().sum(-1)
        if self.df is None:
            return -0.5 * square - d / 2 * log(2 * pi)
        const = lgamma((self.df + d) / 2) - lgamma(self.df / 2) - d / 2 * log(self.df * pi)
        return const - (self.df + d) / 2 * (square / self.df).log1p()

    @property
    def log_volume(self) -> Tensor:
        """Log |du/dv|, `(n,)`."""
        return self.factor.log_volume

    @cached_property
    def scale(self) -> Tensor:
        """1, as v are standard: `(n, d)`."""
        return torch.ones_like(self.parts[0])

    def inward(self, u: Tensor) -> Tensor:
        """Returns v of u, `(..., n, d)` both."""
        off = u - self.parts[0]
        return self.factor.solve(off.reshape(-1, *self.parts[0].shape)).reshape(off.shape)

    def outward(self, v: Tensor) -> Tensor:
        """Returns u of v, `(S, n, d)` both."""
        return self.parts[0] + self.factor.times(v)


class Mixed(Path):
    r"""From a mixture of guide and prior, :math:`(1 - \alpha) q(z|x) + \alpha p(z)`; v are u.

    Args:
        base: Of the guide.
        prior: Of the model alone, with the same u.
        weight: The prior's share alpha.
    """

    def __init__(self, base: GeometricPath, prior: GeometricPath, weight: float) -> None:
        super().__init__(base)
        self.prior, self.weight = prior, weight

    def start(self, num_particles: int) -> Tensor:
        """Returns draws of the mixture, `(S, n, d)`.

        Args:
            num_particles: S.
        """
        u, of_prior = self.base.start(num_particles), self.prior.start(num_particles)
        yes = torch.rand(u.shape[:-1], device=u.device) < self.weight
        return torch.where(yes[..., None], of_prior, u)

    def ends(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the log of the mixture, and log f_1, `(S, n)` each, nats.

        Args:
            v: `(S, n, d)`.
        """
        _, log_q, _ = self.base.latents(v)
        log_p, log_f1 = self.prior(v)
        return torch.logaddexp(log_q + log1p(-self.weight), log_p + log(self.weight)), log_f1

    def only(self, members: list[int]) -> Self:
        """Returns the path of some of the block's data alone; see `Path.only`."""
        return super().only(members)._with_prior()

    def joined(self, others: Sequence[Path], rows: range) -> Self:
        """Returns the path of more rows; see `Path.joined`.

        Args:
            others: Paths of the rows that follow, in order.
            rows: All of them.
        """
        return super().joined(others, rows)._with_prior()

    def _on(self, data: tuple[Tensor, ...], parts: tuple[Tensor, ...]) -> Self:
        path = super()._on(data, parts)
        path.prior = self.prior.on(data)
        return path

    def _full(self) -> Self:
        return super()._full()._with_prior()

    def _with_prior(self) -> Self:
        """Gives a new path the prior of its own rows, and returns it."""
        self.prior = GeometricPath(replace(self.base.program, guide=None), self.base.rows)
        return self


class Moved(Path):
    r"""From the guide shifted and stretched: :math:`u = m + s a + e^b (v - m)`, v ~ q(u|x).

    Args:
        base: Of the guide.
        mean: m, `(n, d)`.
        shift: s a, `(n, d)`.
        stretch: b, `(n, d)`.
    """

    def ends(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log f_0 and log f_1, `(S, n)` each, nats.

        Args:
            v: `(S, n, d)`.
        """
        _, log_f0, _ = self.base.latents(v)
        return log_f0, self.base(self.outward(v))[1] + self.parts[2].sum(-1)

    def inward(self, u: Tensor) -> Tensor:
        """Returns v of u, `(..., n, d)` both."""
        mean, shift, stretch = self.parts
        return mean + (-stretch).exp() * (u - mean - shift)

    def outward(self, v: Tensor) -> Tensor:
        """Returns u of v, `(..., n, d)` both."""
        mean, shift, stretch = self.parts
        return mean + shift + stretch.exp() * (v - mean)


@runtime_checkable
class PathProposal(Protocol):
    """What annealing may begin from, beside the guide and the prior."""

    def path(self, program: Program, rows: range) -> Path:
        """Returns the path from it, of a block of rows.

        Called under a random stream of the block's own, the same at each call; what it learns of
        the data may shape the path, but no later draw.

        Args:
            program: The pair and its data.
            rows: The n rows of the block.
        """
        ...


def _filled(x: Tensor, axis: int, more: int) -> Tensor:
    """Returns x with the last of an axis repeated so many times more."""
    if not more:
        return x
    last = x.narrow(axis, x.shape[axis] - 1, 1)
    return torch.cat([x, last.expand(*x.shape[:axis], more, *x.shape[axis + 1 :])], axis)
