"""Effect handlers: what they change at a program's sample sites as it runs."""

__all__ = ["Given", "KeptMasks", "Quantiles", "Replaced", "Subsample", "Unconstrained"]

import math
from collections.abc import Callable, Collection
from functools import reduce
from operator import and_
from typing import cast

import torch
from pyro.distributions import (
    Delta,
    Independent,
    LowRankMultivariateNormal,
    MaskedDistribution,
    MultivariateNormal,
    constraints,
)
from pyro.distributions.util import sum_rightmost
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.program.sites import Distribution, Site, Values, base, bijection, is_subsample


class Subsample(Messenger):
    """Answers the data plate's draw of rows with the rows given.

    Args:
        plate: Name of the data plate.
        index: Numbers of rows, `(n,)`; as many as the plate would draw.
    """

    def __init__(self, plate: str | None, index: Tensor) -> None:
        super().__init__()
        self._plate, self._index = plate, index

    def _pyro_sample(self, msg: Site) -> None:
        if msg["name"] == self._plate and is_subsample(msg):
            msg["value"] = self._index


class KeptMasks(Messenger):
    """Notes masks as they are at their sites: a program may change them in place later.

    Those of distributions, `fn.mask(...)`, become the sites', as of `poutine.mask`: what both
    leave counts. Of latents, masks of parts of an event are taken off.

    Args:
        latents: Names of the model's latent sites.
    """

    def __init__(self, latents: Collection[str]) -> None:
        super().__init__()
        self._latents = latents

    def _pyro_sample(self, msg: Site) -> None:
        masks = [] if msg["mask"] is None else [msg["mask"]]
        while isinstance(msg["fn"], MaskedDistribution):
            masks.append(msg["fn"]._mask)
            msg["fn"] = msg["fn"].base_dist
        if msg["name"] in self._latents and isinstance(msg["fn"], Independent):
            msg["fn"] = _bare(msg["fn"])
        msg["mask"] = reduce(and_, map(torch.as_tensor, masks)).clone() if masks else None


def _bare(fn: Independent) -> Distribution:
    """Returns a latent's distribution without masks of parts of it, which stay what they are.

    Args:
        fn: With batch dimensions that are reinterpreted as an event.
    """
    inner = fn.base_dist
    while isinstance(inner, MaskedDistribution):
        inner = inner.base_dist
    return fn if inner is fn.base_dist else inner.to_event(fn.reinterpreted_batch_ndims)


class Unconstrained(Messenger):
    """Gives sites the values z = T(u), T from the reals onto their support, and log |dz/du|.

    T is `torch.distributions.biject_to(support)`. The sites stay latent; their `log_det`, in the
    shape of their log-densities, is summed over an event's dimensions.

    Args:
        u: Values by site, `(..., event)`, of all reals; sites of other names draw as ever.
    """

    def __init__(self, u: Values) -> None:
        super().__init__()
        self._u = u

    def _pyro_sample(self, msg: Site) -> None:
        if msg["name"] in self._u:
            u, fn = self._u[msg["name"]], msg["fn"]
            transform = bijection(fn)
            msg["value"] = z = cast(Tensor, transform(u))
            log_det = transform.log_abs_det_jacobian(u, z)
            more = fn.event_dim - transform.codomain.event_dim
            msg["log_det"] = cast(Tensor, sum_rightmost(log_det, more))


class Given(Messenger):
    """Gives latent sites values, which stay latent.

    Args:
        values: By site, `(..., event)`; sites of other names draw as ever.
    """

    def __init__(self, values: Values) -> None:
        super().__init__()
        self._values = values

    def _pyro_sample(self, msg: Site) -> None:
        if msg["name"] in self._values:
            msg["value"] = self._values[msg["name"]]


class Replaced(Messenger):
    """Lets latent sites draw from other distributions: `change(name, fn)` for fn.

    Args:
        change: A function of a site's name and distribution that gives the one to draw from, of
            the same shape.
    """

    def __init__(self, change: Callable[[str, Distribution], Distribution]) -> None:
        super().__init__()
        self._change = change

    def _pyro_sample(self, msg: Site) -> None:
        if not msg["is_observed"] and not is_subsample(msg):
            msg["fn"] = self._change(msg["name"], msg["fn"])


class Quantiles(Messenger):
    """Gives latent sites the quantiles of uniform numbers, so that Sobol points become draws.

    A site of distribution function F gets :math:`z = F^{-1}(u)`, number by number, in the order in
    which the sites run; a normal with a covariance, its mean plus the Cholesky factor times normal
    quantiles. Points (Delta) take none.

    Args:
        uniform: Numbers in (0, 1), `(S, n, d)`, float64; `(S, d)` of joint data.
        dim: The data plate's dimension, from the right; `None` of joint data.

    Raises:
        ValueError: At a site whose distribution has no inverse distribution function.
    """

    def __init__(self, uniform: Tensor, dim: int | None) -> None:
        super().__init__()
        self._uniform, self._dim, self._used = uniform, dim, 0

    def _pyro_sample(self, msg: Site) -> None:
        fn = msg["fn"]
        if msg["is_observed"] or is_subsample(msg) or isinstance(base(fn), Delta):
            return
        shape = list(fn.shape())[1:]
        axis = (self._dim or 0) - fn.event_dim
        data = [] if self._dim is None else [shape.pop(axis)]
        columns = slice(self._used, self._used + math.prod(shape))
        u = self._uniform[..., columns].reshape(-1, *data, *shape)
        if data:
            u = u.movedim(1, axis)
        msg["value"] = _quantile(msg["name"], base(fn), u)
        self._used = columns.stop


def _quantile(name: str, fn: Distribution, u: Tensor) -> Tensor:
    """Returns the value of fn below which the share u lies, dimension by dimension.

    u is float64: in float32 the largest of a million points would be 1, and its quantile inf. The
    value has the type of fn's own, and lies inside its support where that has ends.

    Args:
        name: Of the site, for the message.
        fn: Its distribution, without wrappers.
        u: Shares, in the shape of the value.
    """
    if isinstance(fn, MultivariateNormal | LowRankMultivariateNormal):
        normal = torch.special.ndtri(u).to(fn.mean.dtype)
        return fn.mean + (fn.scale_tril @ normal[..., None])[..., 0]
    try:
        # a number without dimensions leaves the type to those that fn has
        dtype = fn.icdf(torch.tensor(0.5, dtype=torch.float32, device=u.device)).dtype
        value = fn.icdf(u).to(dtype)
    except NotImplementedError as e:
        raise ValueError(
            f"site {name!r} is {type(fn).__name__}, which has no inverse distribution function "
            "for quasi-random draws; draw with qmc=False"
        ) from e
    region = fn.support
    if not isinstance(region, constraints.interval | constraints.half_open_interval):
        return value
    ends = region.lower_bound, region.upper_bound
    low, high = (torch.as_tensor(end).to(value) for end in ends)
    return value.maximum(torch.nextafter(low, high)).minimum(torch.nextafter(high, low))
