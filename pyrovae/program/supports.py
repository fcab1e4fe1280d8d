"""Where values may lie: supports of sites, against what is observed and what a guide draws."""

__all__ = ["check_cover", "check_support", "needs_no_cover"]

from collections.abc import Iterable
from math import inf

import torch
from pyro.distributions import Delta, constraints
from torch import Tensor
from torch.distributions.constraints import Constraint

from pyrovae.errors import DataError
from pyrovae.program.sites import Distribution, Site, base, observes_data, support

Ends = tuple[Tensor, Tensor]  # the lower and the upper one of an interval


def check_support(site: Site, dim: int | None, start: int) -> None:
    """Raises DataError where an observed value has another shape or leaves its site's support.

    Pyro's own check is off while programs run many times; outside a support, `log_prob` still
    gives a number, such as a Bernoulli's of a grey pixel, which is no log-likelihood.

    Args:
        site: A sample site; one that is not observed passes, and so does what is masked.
        dim: The data plate's dimension, from the right; `None` takes the value's first.
        start: The number of the value's first row, for the message.
    """
    region, value, shape = support(site["fn"]), site["value"], site["fn"].shape()
    if not observes_data(site):
        return
    if value.shape != shape:
        raise DataError(
            f"site {site['name']!r} observes a value of shape {tuple(value.shape)} where its "
            f"distribution {type(base(site['fn'])).__name__} has {tuple(shape)}; give data of "
            "that shape, or mend the distribution's with to_event"
        )
    if region is None:
        return
    inside = region.check(value)
    event_dim = site["fn"].event_dim
    if inside.ndim < value.ndim:
        inside = inside.reshape(inside.shape + (1,) * (value.ndim - inside.ndim))
    if site["mask"] is not None:
        mask = torch.as_tensor(site["mask"], device=value.device)
        inside = inside | ~mask.reshape(mask.shape + (1,) * event_dim)
    if bool(inside.all()):
        return
    index = torch.nonzero(~inside)[0].tolist()
    axis = 0 if dim is None else value.ndim - event_dim + dim
    column = index[:axis] + index[axis + 1 :]
    name = type(base(site["fn"])).__name__
    advice = {
        "Bernoulli": "; binarize first: pyrovae.data.binarize(x), or model grey data with the "
        "likelihood 'continuous-bernoulli' or 'normal'",
        "ContinuousBernoulli": "; scale it to [0, 1] first, or use the likelihood 'normal'",
    }.get(name, "")
    raise DataError(
        f"x has values outside {_words(region)} but site {site['name']!r} is {name}: "
        f"{value[tuple(index)].item():g} at row {start + index[axis]}, "
        f"column {', '.join(map(str, column)) or 0}{advice}"
    )


def needs_no_cover(sites: Iterable[Site]) -> bool:
    """Returns whether all of these sites reach all reals, so that none can miss a value.

    Args:
        sites: The latents' of model and guide.
    """
    return all(support(s["fn"]) is constraints.real for s in sites)


def check_cover(guide: Site, model: Site) -> None:
    """Raises ValueError where a guide's site cannot reach all values of the model's.

    What it never proposes is left out of the estimate, and no weight tells of it: E_q[w] is
    the integral of p(x, z) over the guide's support alone, less than p(x).

    Intervals are compared by their ends, to 1e-5 of their length; other supports by their kind, or
    by whether 100 draws of the model's distribution lie inside.

    Args:
        guide: A site as the guide draws it.
        model: The same as the model has it, given the draw.
    """
    ours, theirs = guide["fn"], model["fn"]
    if isinstance(base(ours), Delta) or isinstance(base(theirs), Delta):
        return
    region, whole = support(ours), support(theirs)
    if region is None or whole is None:
        return
    inner, outer = _bounds(ours, region), _bounds(theirs, whole)
    if inner is not None and outer is not None and region.is_discrete == whole.is_discrete:
        low, high = (a.to(b) - b for a, b in zip(inner, outer, strict=True))
        slack = 1e-5 * (outer[1] - outer[0]).nan_to_num(1.0, posinf=1.0).clamp(max=1.0)
        if not ((low > slack).any() or (high < -slack).any()):
            return
    elif type(region) is type(whole) or _reaches(region, theirs):
        return
    raise ValueError(
        f"the guide draws {guide['name']!r} from {_described(ours, region, inner)} where the "
        f"model has {_described(theirs, whole, outer)}: values that it never proposes would be "
        "left out of the estimate; give a guide that covers them"
    )


def _bounds(fn: object, region: Constraint | None) -> Ends | None:
    """Returns the ends of a support that is an interval of numbers, `None` of another one.

    Args:
        fn: A distribution; of a transformed one, its base and transforms tell more than its
            support.
        region: Its support.

    Returns:
        Lower and upper end, which broadcast with the batch shape; -inf and inf where there is
        none.
    """
    fn = base(fn)
    if isinstance(fn, torch.distributions.TransformedDistribution):
        ends = _transformed(fn)
        if ends is not None:
            return ends
    if region is constraints.real:
        return torch.tensor(-inf), torch.tensor(inf)
    if region is constraints.boolean:
        return torch.tensor(0.0), torch.tensor(1.0)
    low, high = (getattr(region, f"{end}_bound", None) for end in ("lower", "upper"))
    if low is None and high is None:
        return None
    return torch.as_tensor(-inf if low is None else low), torch.as_tensor(
        inf if high is None else high
    )


def _transformed(fn: torch.distributions.TransformedDistribution) -> Ends | None:
    """Returns where the transforms take the ends of the base, `None` where that is not known.

    The distribution's own support is what its last transform could reach from all reals.

    Args:
        fn: A transformed distribution; maps of one number to one, all monotone, are followed.
    """
    ends = _bounds(fn.base_dist, support(fn.base_dist))
    if ends is None or not all(t.bijective and t.domain.event_dim == 0 for t in fn.transforms):
        return None
    low, high = ends
    for transform in fn.transforms:
        low, high = torch.as_tensor(transform(low)), torch.as_tensor(transform(high))
    if low.isnan().any() or high.isnan().any():
        return None
    return torch.minimum(low, high), torch.maximum(low, high)


def _reaches(region: Constraint, fn: Distribution) -> bool:
    """Returns whether draws of fn lie in a support that has no ends to compare.

    Args:
        region: The guide's support.
        fn: The model's distribution, of which 100 draws are made, aside the random streams.
    """
    try:
        with torch.random.fork_rng():
            return bool(torch.as_tensor(region.check(fn.sample((100,)))).all())
    except NotImplementedError:
        return True


def _described(fn: Distribution, region: Constraint, ends: Ends | None) -> str:
    """Returns a distribution and where its values lie, in words.

    Args:
        fn: The distribution.
        region: Its support.
        ends: Those of the support, if it is an interval; of several, the narrowest is told.
    """
    name = type(base(fn)).__name__
    if ends is None:
        return f"{name}, with values in {_words(region)}"
    low, high = ends[0].double().max().item(), ends[1].double().min().item()
    return f"{name}, with values from {low:g} to {high:g}"


def _words(region: Constraint) -> str:
    """Returns a support in words, also where its ends are tensors."""
    region = getattr(region, "known", region)  # of data with gaps
    if region is constraints.boolean:
        return "{0, 1}"
    if isinstance(region, constraints.integer_interval):
        low, high = (torch.as_tensor(end) for end in (region.lower_bound, region.upper_bound))
        return f"{{{low.min():g}, ..., {high.max():g}}}"
    return str(region)
