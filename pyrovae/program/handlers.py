"""Effect handlers and contexts that programs run in, and what is read off their sites."""

__all__ = [
    "CleanStore",
    "KeptMasks",
    "Parameters",
    "Quantiles",
    "Replaced",
    "Site",
    "Subsample",
    "Unconstrained",
    "Values",
    "aside",
    "base",
    "evaluation",
    "observes_data",
    "reproducible",
    "sample_sites",
    "sha256",
    "vectorized",
]

import hashlib
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, reduce
from operator import and_
from typing import Any, Self

import pyro
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
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to
from torch.nn.modules.module import register_module_forward_pre_hook

from pyrovae.precision import float32_matmul
from pyrovae.rng import seeded

Values = dict[str, Tensor]
Site = dict[str, Any]


@contextmanager
def evaluation() -> Iterator[None]:
    """Runs its body without gradients, in `eval()` mode, at float32 precision; restored after.

    Modules are met by a hook as they are called, so it matters not how the program holds them.
    Entries of Pyro's global store that only mirror modules' parameters are taken out again.
    """
    _keep_freed_memory()
    met: list[torch.nn.Module] = []

    def meet(module: torch.nn.Module, _: object) -> None:
        if module.training:
            module.training = False
            met.append(module)

    hook = register_module_forward_pre_hook(meet)
    try:
        with torch.no_grad(), CleanStore(), float32_matmul():
            yield
    finally:
        hook.remove()
        for module in met:
            module.training = True


@contextmanager
def aside() -> Iterator[None]:
    """Runs its body as `evaluation` does, and leaves the random streams as they were."""
    with torch.random.fork_rng(), evaluation():
        yield


@contextmanager
def reproducible(seed: int | None, *stream: int) -> Iterator[None]:
    """Runs its body as `evaluation` does, on streams of `(seed, *stream)` as `seeded` has them.

    Pyro's own checks are off: `inspect` has run the program with them.

    Args:
        seed: Of the whole computation; `None` draws from the caller's stream.
        stream: Numbers of this part of it; parts with others draw independently.
    """
    with evaluation(), pyro.validation_enabled(False), seeded(seed, *stream):
        yield


@cache
def _keep_freed_memory() -> None:
    """Has the C library keep up to 62 MiB that are free, once and for the process.

    Otherwise glibc hands each chunk's arrays back to the system as they are freed, and the next
    chunk waits for new pages, up to a third of its time. It keeps twice the largest array freed
    so far that was smaller than 32 MiB (mallopt(3), M_MMAP_THRESHOLD); this one is never touched.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


class Parameters(Messenger):
    """Records the parameters of the programs run inside it.

    Where a module is registered under a name that another holds in Pyro's global store, the
    store's tensor and the module's own are both met; the one with a gradient is meant.
    """

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[int, tuple[str, Tensor]] = {}

    def _pyro_post_param(self, msg: Any) -> None:
        for tensor in (_given(msg), _stored(msg)):
            self._found.setdefault(id(tensor), (msg["name"], tensor))

    def forget(self, names: Iterable[str]) -> None:
        """Drops what was recorded under these names, where it is made anew."""
        gone = set(names)
        self._found = {k: v for k, v in self._found.items() if v[0] not in gone}

    def named(self) -> Values:
        """Returns the parameters by name, without the instance numbers of `Model.register`."""
        met = [name for name, _ in self._found.values()]
        found = [
            (k, p) for k, p in self._found.values() if met.count(k) == 1 or p.grad is not None
        ]
        short = [re.sub(r"#\d+", "", name) for name, _ in found]
        named: Values = {}
        for (name, p), s in zip(found, short, strict=True):
            name = s if short.count(s) == 1 else name
            while name in named:
                name += "'"
            named[name] = p
        return named


class CleanStore(Messenger):
    """Takes what only mirrors a module's parameters out of Pyro's global store when it is left.

    Entries that stood there before stay, and so does what `pyro.param` created. Without this,
    every module ever registered would live on in the store.
    """

    def __enter__(self) -> Self:
        self._keep = set(pyro.get_param_store().keys())
        return super().__enter__()

    def _pyro_post_param(self, msg: Any) -> None:
        # a program that hands over a fresh Parameter in every run has it nowhere but in the store
        if "$$$" not in msg["name"] and _given(msg) is not _stored(msg):
            self._keep.add(msg["name"])

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        store = pyro.get_param_store()
        for name, tensor in list(store.named_parameters()):
            if isinstance(tensor, torch.nn.Parameter) and name not in self._keep:
                # Pyro takes out the name, then misses a tensor that two names had in common
                with suppress(KeyError):
                    del store[name]


def _given(msg: Any) -> Tensor:
    """Returns the module's parameter that a `pyro.param` statement was given, or the store's."""
    given = msg["args"][1] if len(msg["args"]) > 1 else None
    return given if isinstance(given, torch.nn.Parameter) else _stored(msg)


def _stored(msg: Any) -> Tensor:
    """Returns the unconstrained tensor behind what a `pyro.param` statement gave back."""
    value = msg["value"]
    return value if isinstance(value, torch.nn.Parameter) else value.unconstrained()


class Subsample(Messenger):
    """Answers the data plate's draw of rows with the rows given."""

    def __init__(self, plate: str | None, index: Tensor) -> None:
        super().__init__()
        self._plate, self._index = plate, index

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self._plate and site_is_subsample(msg):
            msg["value"] = self._index


class KeptMasks(Messenger):
    """Notes masks as they are at their sites: a program may change them in place later.

    Those of distributions, `fn.mask(...)`, become the sites', as of `poutine.mask`; of latents,
    masks of parts of an event are taken off.
    """

    def __init__(self, latents: Collection[str]) -> None:
        super().__init__()
        self._latents = latents

    def _pyro_sample(self, msg: Any) -> None:
        masks = [] if msg["mask"] is None else [msg["mask"]]
        while isinstance(msg["fn"], MaskedDistribution):
            masks.append(msg["fn"]._mask)
            msg["fn"] = msg["fn"].base_dist
        if msg["name"] in self._latents and isinstance(msg["fn"], Independent):
            msg["fn"] = _bare(msg["fn"])
        msg["mask"] = reduce(and_, map(torch.as_tensor, masks)).clone() if masks else None


def _bare(fn: Any) -> Any:
    """Returns a latent's distribution without masks of parts of it, which stay what they are."""
    inner = fn.base_dist
    while isinstance(inner, MaskedDistribution):
        inner = inner.base_dist
    return fn if inner is fn.base_dist else inner.to_event(fn.reinterpreted_batch_ndims)


class Unconstrained(Messenger):
    """Gives sites the values z = T(u), T from the reals onto their support, and log |dz/du|."""

    def __init__(self, u: Values) -> None:
        super().__init__()
        self._u = u

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self._u:
            u, fn = self._u[msg["name"]], msg["fn"]
            transform = biject_to(fn.support)
            msg["value"] = transform(u)
            log_det = transform.log_abs_det_jacobian(u, msg["value"])
            msg["log_det"] = sum_rightmost(log_det, fn.event_dim - transform.codomain.event_dim)


class Replaced(Messenger):
    """Lets latent sites draw from other distributions: `change(name, fn)` for fn."""

    def __init__(self, change: Callable[[str, Any], Any]) -> None:
        super().__init__()
        self._change = change

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            msg["fn"] = self._change(msg["name"], msg["fn"])


class Quantiles(Messenger):
    """Gives latent sites the quantiles of uniform numbers `(S, n, d)`, d in order of the sites.

    Raises ValueError at a site whose distribution has no inverse distribution function.
    """

    def __init__(self, uniform: Tensor, dim: int | None) -> None:
        super().__init__()
        self._uniform, self._dim, self._used = uniform, dim, 0

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if msg["is_observed"] or site_is_subsample(msg) or isinstance(base(fn), Delta):
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


def _quantile(name: str, fn: Any, u: Tensor) -> Tensor:
    """Returns the value of fn below which the share u lies, dimension by dimension.

    u is float64: in float32 the largest of a million points would be 1, and its quantile inf. The
    value has the type of fn's own, and lies inside its support where that has ends.
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


def sample_sites(trace: Any) -> list[Site]:
    """Returns the sample sites of a trace in order, without the draws of subsampling plates."""
    nodes = trace.nodes.values()
    return [s for s in nodes if s["type"] == "sample" and not site_is_subsample(s)]


def vectorized(site: Site) -> list[CondIndepStackFrame]:
    """Returns the frames of the plates around a site that are no loops."""
    return [f for f in site["cond_indep_stack"] if f.vectorized]


def sha256(parameters: Values) -> str:
    """Returns the SHA-256 of parameters, by name."""
    digest = hashlib.sha256()
    for name, p in sorted(parameters.items()):
        digest.update(name.encode() + p.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def observes_data(site: Site) -> bool:
    """Returns whether a site observes data, unlike those of `deterministic` and `factor`."""
    made_up = site["infer"].get("_deterministic") or not site["value"].numel()
    return site["is_observed"] and not made_up


def base(fn: Any) -> Any:
    """Returns a distribution without the wrappers that only reshape or mask it."""
    while type(fn).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        fn = fn.base_dist
    return fn
