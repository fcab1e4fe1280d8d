"""Sample sites as a run leaves them, and what is read off them: plates, supports, sizes."""

__all__ = [
    "Distribution",
    "Site",
    "Sites",
    "Values",
    "base",
    "bijection",
    "is_factor",
    "is_masked",
    "is_subsample",
    "masks_within",
    "observes_data",
    "remasked",
    "sample_sites",
    "summable",
    "support",
    "vectorized",
]

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NotRequired, TypedDict, cast

from pyro.distributions import (
    Delta,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    TorchDistribution,
    Unit,
)
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.runtime import InferDict, Message
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.constraints import MixtureSameFamilyConstraint

Distribution = TorchDistribution
Values = dict[str, Tensor]  # by site, or by parameter


class Site(TypedDict):
    """A sample statement of one run, as Pyro's trace holds it (`pyro.poutine.runtime.Message`).

    Of a value `(..., event)`, the batch dimensions are those of the plates around the statement.

    Attributes:
        name: The statement's.
        fn: Its distribution.
        value: Drawn or observed, `(..., event)`.
        is_observed: Whether it has `obs=`, or is conditioned on.
        mask: What counts of it, in the shape of its log-density; `None` without one.
        args, kwargs: What its distribution is called with.
        infer: Its own options of inference.
        cond_indep_stack: The plates around it, the innermost first.
        log_det: log |dz/du| where its value is z = T(u), nats; see `Unconstrained`.
    """

    type: str
    name: str
    fn: Distribution
    value: Tensor
    is_observed: bool
    mask: Tensor | bool | None
    args: tuple[object, ...]
    kwargs: dict[str, object]
    infer: InferDict
    cond_indep_stack: tuple[CondIndepStackFrame, ...]
    log_det: NotRequired[Tensor]


@dataclass(frozen=True)
class Sites:
    """The sample sites of model and guide in their first run, and the data plate around them.

    Attributes:
        model, guide: The sites in the order in which they were run; no draws of a plate's rows.
        plate: Name of the data plate; `None` takes all data as one (joint weights).
        dim: Dimension of the data plate, counted from the right; `None` where it is a loop
            (`for n in pyro.plate("data", N)`), each datum with sites of its own.
        num_plates: Number of plate dimensions; particles stand to their left.
    """

    model: tuple[Site, ...]
    guide: tuple[Site, ...]
    plate: str | None
    dim: int | None
    num_plates: int

    @property
    def all(self) -> tuple[Site, ...]:
        """The sites of both."""
        return (*self.model, *self.guide)

    @cached_property
    def latents(self) -> frozenset[str]:
        """Names of the model's latent sites."""
        return frozenset(s["name"] for s in self.model if not s["is_observed"])

    @cached_property
    def common_latents(self) -> tuple[str, ...]:
        """Names of the latents that are common to all data, and drawn, in order."""
        own = (s for s in self.model if s["name"] in self.latents)
        return tuple(s["name"] for s in own if self.common(s))

    @cached_property
    def axes(self) -> dict[str, int]:
        """The axis of the data in each site's value, from the right."""
        return {s["name"]: self.axis(s) for s in self.all}

    def common(self, site: Site) -> bool:
        """Returns whether a site is common to all data: it stands outside the data plate."""
        return self.plate is not None and self._frame(site) is None

    def axis(self, site: Site) -> int:
        """Returns the axis of the data in a site's value, counted from the right.

        Raises:
            ValueError: If the data plate is a loop, in which values have no such axis.
        """
        if self.dim is None:
            raise ValueError(
                f"plate {self.plate!r} is a loop; write `with pyro.plate({self.plate!r}, len(x)):`"
                " instead of `for`, or use importance_sampling or prior_sampling"
            )
        return self.dim - site["fn"].event_dim

    def number(self, site: Site) -> int:
        """Returns which row of a block a site belongs to, where the data plate is a loop.

        Args:
            site: Inside the data plate; numbers begin with 0.
        """
        frame = self._frame(site)
        assert frame is not None
        return frame.counter - 1  # Pyro counts from 1

    def without(self, names: set[str]) -> "Sites":
        """Returns the sites of other names; the plates stay, also where none is left in them."""
        model, guide = (
            tuple(s for s in sites if s["name"] not in names) for sites in (self.model, self.guide)
        )
        return Sites(model, guide, self.plate, self.dim, self.num_plates)

    def numbers_drawn(self, of_guide: bool) -> tuple[int, int]:
        """Returns how many numbers a run draws: in the data plate, and for all data together.

        Points (Delta) are not drawn.

        Args:
            of_guide: Whether the guide's are meant, or the model's.
        """
        sites = self.guide if of_guide else self.model
        drawn = [s for s in sites if not s["is_observed"] and not isinstance(base(s["fn"]), Delta)]
        own = [s["value"].numel() for s in drawn if self.plate and not self.common(s)]
        total = sum(s["value"].numel() for s in drawn)
        return sum(own), total - sum(own)

    def _frame(self, site: Site) -> CondIndepStackFrame | None:
        """Returns the data plate around a site, `None` where it stands outside."""
        return next((f for f in site["cond_indep_stack"] if f.name == self.plate), None)


def sample_sites(trace: Trace) -> list[Site]:
    """Returns the sample sites of a trace in order, without the draws of subsampling plates.

    Args:
        trace: Of one run, as `pyro.poutine.trace` records it.
    """
    nodes = cast(list[Site], list(trace.nodes.values()))
    return [s for s in nodes if s["type"] == "sample" and not is_subsample(s)]


def is_subsample(site: Site) -> bool:
    """Returns whether a site is a subsampling plate's draw of rows."""
    return site_is_subsample(cast(Message, site))


def remasked(site: Site, mask: Tensor | bool | None) -> Site:
    """Returns a site with another mask.

    Args:
        site: A sample site.
        mask: In the shape of its log-density; `None` without one.
    """
    return {**site, "mask": mask}


def vectorized(site: Site) -> list[CondIndepStackFrame]:
    """Returns the frames of the plates around a site that are no loops: each has a dimension."""
    return [f for f in site["cond_indep_stack"] if f.vectorized]


def observes_data(site: Site) -> bool:
    """Returns whether a site observes data, unlike those of `deterministic` and `factor`."""
    made_up = site["infer"].get("_deterministic") or not site["value"].numel()
    return site["is_observed"] and not made_up


def is_factor(site: Site) -> bool:
    """Returns whether a site is a `pyro.factor`, which adds a number and has no value."""
    return isinstance(base(site["fn"]), Unit)


def summable(site: Site) -> bool:
    """Returns whether a latent site has finitely many values, to be summed out.

    Pyro then knows them all (`fn.enumerate_support()`).
    """
    return not site["is_observed"] and bool(getattr(site["fn"], "has_enumerate_support", False))


def base(fn: object) -> Distribution:
    """Returns a distribution without the wrappers that only reshape or mask it.

    Args:
        fn: A distribution of Pyro or torch.
    """
    while type(fn).__name__ in (
        "Independent",
        "ExpandedDistribution",
        "MaskedDistribution",
        "Seen",
    ):
        fn = getattr(fn, "base_dist")  # noqa: B009
    return cast(Distribution, fn)


def is_masked(site: Site) -> bool:
    """Returns whether some of a site's density is left out, by a mask of any kind."""
    return site["mask"] is not None or any(True for _ in masks_within(site["fn"]))


def masks_within(fn: Any) -> Iterator[Tensor | bool]:
    """Yields the masks of parts of a distribution's event."""
    while isinstance(fn, Independent | ExpandedDistribution | MaskedDistribution):
        if isinstance(fn, MaskedDistribution):
            yield fn._mask
        fn = fn.base_dist


def support(fn: object) -> constraints.Constraint | None:
    """Returns the support of a distribution's scalars, or `None` where it names none.

    Args:
        fn: A distribution; that of an event of many numbers, such as a simplex, stays one.
    """
    try:
        region = cast(Distribution, fn).support
    except NotImplementedError:
        return None
    while isinstance(region, constraints.independent):
        region = region.base_constraint
    return cast(constraints.Constraint, region)


def bijection(fn: object) -> Transform:
    """Returns the map from the reals onto a distribution's support; of a mixture, its parts'.

    Args:
        fn: A distribution.

    Raises:
        NotImplementedError: If torch knows none.
    """
    region = cast(Distribution, fn).support
    while isinstance(region, MixtureSameFamilyConstraint):
        region = region.base_constraint
    return biject_to(region)
