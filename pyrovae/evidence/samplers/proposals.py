"""What particles are drawn from: proposals that cover more of the posterior than the guide."""

__all__ = ["Defensive", "Refined", "Widened"]

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log, log1p
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.checks import check_positive, check_sizes
from pyrovae.evidence.samplers.paths import GuidePath, Mixed, Moved, Path
from pyrovae.evidence.samplers.scheme import Sampler
from pyrovae.program import GeometricPath, Program, Replaced, Values, base

SCALE_DRAWS = 256  # for the guide's mean and scale


@dataclass(frozen=True)
class Widened:
    r"""The guide with its normal sites' scales multiplied, or with Student-t tails as well.

    .. math::
        z \sim \mathrm{N}(m, c^2 s^2) \quad \text{or} \quad \mathrm{t}_\nu(m, c^2 s^2), \qquad
        q(z | x) = \mathrm{N}(m, s^2)

    A guide fitted by the ELBO is often narrower than the posterior, and weights then have heavy
    tails. Factors a little above 1 cure that; in many dimensions they cost ESS.

    Attributes:
        scale: Factor of every scale.
        df: Degrees of freedom of the tails; `None` leaves them normal.
    """

    takes_quasi_random: ClassVar[bool] = True
    scale: float = 1.2
    df: float | None = None

    def __post_init__(self) -> None:
        check_positive(scale=self.scale, df=1.0 if self.df is None else self.df)

    def sampler(self, program: Program, rows: range) -> Sampler:
        """Returns what draws from the widened guide.

        Args:
            program: The pair and its data.
            rows: The n rows of a block.

        Raises:
            ValueError: By what is returned, at a site of the guide that is not normal.
        """
        wider = self._wider(program)
        return lambda num_particles: wider.propose(rows, num_particles)

    def path(self, program: Program, rows: range) -> Path:
        """Returns the path that begins at the widened guide, for `ais(proposal=...)`.

        Args:
            program: The pair and its data.
            rows: The n rows of a block.
        """
        return GuidePath(GeometricPath(self._wider(program), rows))

    def _wider(self, program: Program) -> Program:
        """Returns the program with the widened guide for its guide."""
        return replace(program, guide=Replaced(self._widen)(_guide(program)))

    def _widen(self, name: str, fn: TorchDistribution) -> TorchDistribution:
        """Returns a site's distribution widened, through what wraps it; points stay points."""
        if isinstance(fn, dist.Delta):
            return fn
        if isinstance(fn, dist.Independent):
            return self._widen(name, fn.base_dist).to_event(fn.reinterpreted_batch_ndims)
        if isinstance(fn, dist.ExpandedDistribution):
            return self._widen(name, fn.base_dist).expand(fn.batch_shape)
        if isinstance(fn, torch.distributions.TransformedDistribution):
            return dist.TransformedDistribution(self._widen(name, fn.base_dist), fn.transforms)
        if isinstance(fn, torch.distributions.Normal):
            scale = self.scale * fn.scale
            normal = dist.Normal(fn.loc, scale)
            return normal if self.df is None else dist.StudentT(self.df, fn.loc, scale)
        if isinstance(fn, torch.distributions.MultivariateNormal):
            factor = self.scale * fn.scale_tril
            if self.df is None:
                return dist.MultivariateNormal(fn.loc, scale_tril=factor)
            return dist.MultivariateStudentT(self.df, fn.loc, factor)
        raise ValueError(
            f"the guide's site {name!r} is {type(base(fn)).__name__}; only normal sites, also "
            "transformed ones, can be widened: pass a wider Pyro guide as the proposal instead"
        )


@dataclass(frozen=True)
class Defensive:
    r"""A mixture of guide and prior.

    .. math::
        r(z | x) = (1 - \alpha) \, q(z | x) + \alpha \, p(z), \quad
        w = \frac{p(x, z)}{r(z | x)} \le \frac{p(x | z)}{\alpha}

    The bound makes the weights' variance finite wherever p(x|z) is bounded; each draw costs three
    runs of the model.

    Attributes:
        weight: The prior's share alpha, between 0 and 1.

    References:
        Safe and effective importance sampling (Owen and Zhou, 2000),
        https://doi.org/10.1080/01621459.2000.10473909
    """

    weight: float = 0.1

    def __post_init__(self) -> None:
        check_positive(weight=self.weight)
        if self.weight >= 1:
            raise ValueError(f"weight is {self.weight}; give a share between 0 and 1")

    def sampler(self, program: Program, rows: range) -> Sampler:
        """Returns what draws from the mixture.

        Args:
            program: The pair and its data.
            rows: The n rows of a block.

        Raises:
            ValueError: If the guide has no density at draws of the prior.
        """
        _check_own(program)

        def draw(num_particles: int) -> tuple[Values, Tensor]:
            z, log_q = program.propose(rows, num_particles)  # {site: (S, ..., event)}, (S, n)
            prior = program.propose_prior(rows, num_particles)
            from_prior = torch.rand_like(log_q) < self.weight  # (S, n), for all sites alike
            for s in program.sites.guide:
                name = s["name"]
                yes = program.align(from_prior, s, z[name])
                z[name] = torch.where(yes, prior[name], z[name])
            log_q = program.log_guide(z, rows, num_particles) + log1p(-self.weight)
            log_p = program.log_prior(z, rows, num_particles) + log(self.weight)
            return z, torch.logaddexp(log_q, log_p)  # (S, n), nats

        return draw

    def path(self, program: Program, rows: range) -> Path:
        """Returns the path that begins at the mixture, for `ais(proposal=...)`.

        Args:
            program: The pair and its data.
            rows: The n rows of a block.

        Raises:
            ValueError: As `sampler`.
        """
        _guide(program)
        _check_own(program)
        prior = GeometricPath(replace(program, guide=None), rows)
        return Mixed(GeometricPath(program, rows), prior, self.weight)


def _guide(program: Program) -> Callable[..., object]:
    """Returns the guide that a proposal is made of; ValueError without one."""
    if program.guide is None:
        raise ValueError(
            "this proposal is made of the guide, and there is none; pass guide=, or take "
            "pv.Laplace(), which needs none"
        )
    return program.guide


def _check_own(program: Program) -> None:
    """Raises ValueError where the guide's density at draws of the prior is unknown.

    Args:
        program: The pair, whose guide may draw what it maps to the latents.
    """
    latent = {s["name"] for s in program.sites.model if not s["is_observed"]}
    if extra := sorted({s["name"] for s in program.sites.guide} - latent):
        raise ValueError(
            f"the guide draws {extra[0]!r} and maps it to the latents, so that its density at "
            "draws of the prior is unknown; write a guide that samples the latents themselves"
        )


@dataclass(frozen=True)
class Refined:
    r"""The guide, shifted and stretched for each datum by a few gradient steps on its ELBO.

    .. math::
        u' = m + s \odot a + e^b \odot (u - m), \quad u \sim q(u | x), \quad
        \log r(z' | x) = \log q(u | x) - \sum_i b_i - \log \left|\frac{dz'}{du'}\right|

    in unconstrained space, with the guide's mean m and scale s, from 256 draws; Adam moves a and
    b, `(n, d)`, by the reparameterized gradient of
    :math:`\log p(x, z(u')) |dz/du'| + \sum b`: semi-amortised inference.

    Attributes:
        num_steps: Steps of Adam.
        lr: Their size, in units of the guide's scale.
        num_particles: S of a step, particles per datum.

    References:
        Semi-amortized variational autoencoders (Kim et al., 2018), https://arxiv.org/abs/1802.02550
    """

    sums_discrete: ClassVar[bool] = True
    num_steps: int = 30
    lr: float = 0.1
    num_particles: int = 8

    def __post_init__(self) -> None:
        check_sizes(num_steps=self.num_steps, num_particles=self.num_particles)
        check_positive(lr=self.lr)

    def sampler(self, program: Program, rows: range) -> Sampler:
        """Returns what draws from the refined guide, which it fits to these rows.

        Args:
            program: The pair and its data.
            rows: The n rows of a block.

        Raises:
            ValueError: If log p(x, z) has no gradient in the latents.
        """
        moved = self.path(program, rows)
        path, stretch = moved.base, moved.parts[-1]

        def draw(num_particles: int) -> tuple[Values, Tensor]:
            u = path.start(num_particles)  # (S, n, d)
            _, log_q, _ = path.latents(u)  # of u, not of z: (S, n)
            z, _, log_det = path.latents(moved.outward(u))
            return z, log_q - stretch.sum(-1) - log_det

        return draw

    def path(self, program: Program, rows: range) -> Path:
        """Returns the path that begins at the refined guide, for `ais(proposal=...)`.

        Args:
            program: The pair and its data.
            rows: The n rows of a block.

        Raises:
            ValueError: If log p(x, z) has no gradient in the latents.
        """
        _guide(program)
        path = GeometricPath(program, rows)
        path.check_gradient()
        draws = path.start(SCALE_DRAWS)  # (256, n, d)
        mean, scale = draws.mean(0), draws.std(0)  # (n, d)
        shift, stretch = (torch.zeros_like(mean, requires_grad=True) for _ in range(2))
        optimizer = torch.optim.Adam([shift, stretch], lr=self.lr)
        for _ in range(self.num_steps):
            u = path.start(self.num_particles)
            with torch.enable_grad():
                moved = Moved(path, mean, scale * shift, stretch)
                # (n,): up to the entropy of the guide, which does not move
                elbo = path(moved.outward(u))[1].mean(0) + stretch.sum(-1)
                shift.grad, stretch.grad = torch.autograd.grad(-elbo.sum(), [shift, stretch])
            optimizer.step()
        return Moved(path, mean, scale * shift.detach(), stretch.detach())
