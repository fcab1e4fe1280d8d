"""What depends on what in a program: the facts that a plate diagram shows."""

__all__ = ["Node", "Relations", "relations"]

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from typing import cast

import pyro
import torch
from pyro import poutine
from pyro.infer.inspect import is_sample_site
from pyro.ops.provenance import ProvenanceTensor, detach_provenance, get_provenance
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyrovae.program.contexts import aside
from pyrovae.program.densities import Program
from pyrovae.program.first import first_run
from pyrovae.program.inspection import check_sites
from pyrovae.program.sites import Site, Values, base, is_factor
from pyrovae.threads import one_at_a_time

Sources = frozenset[str | int]  # sites by name and arguments by number


@dataclass(frozen=True)
class Node:
    """A random variable of a program, or data that it is given.

    Attributes:
        name: Of its site, or of the argument that it is.
        kind: "latent", "observed" or "given" (an argument of the program).
        fn: Name of its distribution; "factor" of a `pyro.factor`, "" for what is given.
        plates: Names of the plates around it, the outermost first.
        parents: Names of the nodes that its distribution depends on directly.
        parameters: Names of the parameters that its distribution depends on directly.
    """

    name: str
    kind: str
    fn: str
    plates: tuple[str, ...]
    parents: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relations:
    """The nodes of model and guide, and what both have in common.

    Attributes:
        model, guide: Nodes in the order in which they are sampled; data that are given come first.
        sizes: Elements of each plate, by its name; of the data plate, N.
        numbers: How many numbers each parameter has, by its name.
    """

    model: tuple[Node, ...]
    guide: tuple[Node, ...]
    sizes: dict[str, int]
    numbers: dict[str, int]


@one_at_a_time
def relations(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: Tensor,
    plate: str | None = "data",
) -> Relations:
    """Returns what depends on what in a model and guide, found by running them.

    Values carry the names of the sites and arguments that they were made of (Pyro's provenance);
    on which parameters a site depends, gradients of its log-density say. Deterministic and Delta
    sites are passed through, as `pyro.infer.inspect` does.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another, or `None`.
        data: Tensors of equal length N, `(N, ...)`.
        plate: Name of the plate over the data; `None` for a program with global latents.

    Returns:
        The facts of a plate diagram; `pv.plots.plates` draws it.

    Raises:
        TypeError, ValueError: As `inspect`, for a program that pyrovae cannot use.

    References:
        Operations for learning with graphical models (Buntine, 1994),
        https://arxiv.org/abs/cs/9412102, for plates and what a diagram of them says
    """
    held: dict[str | int, list[Node]] = {}  # observed sites, by the number of the argument in them
    with aside():
        first_run(model, guide, data, plate)  # in which Pyro's autoguides make their parameters,
        program = first_run(model, guide, data, plate)  # and tell of them from now on
        check_sites(program)
        sizes = {plate: len(program)} if plate else {}
        found = _nodes(program, model, held, sizes)
        proposed = _nodes(program, guide, held, sizes) if guide else ()
    numbers = {name: p.numel() for name, p in program.parameters.items()}
    return Relations(found, proposed, sizes, numbers)


class _Tracking(Messenger):
    """Cuts values loose from what they were made of, and marks them with their site's name.

    So a site's distribution depends on its parents alone, not on theirs.

    Attributes:
        sites: Each sample site, and what its value was made of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[tuple[Site, Sources]] = []

    def _pyro_post_sample(self, msg: Site) -> None:
        if is_sample_site(cast(Message, msg)):
            self.sites.append((msg, get_provenance(msg["value"])))
            value = detach_provenance(msg["value"]).detach()
            msg["value"] = ProvenanceTensor(value, frozenset({msg["name"]}))


class _Likeness(TorchFunctionMode):
    """Lets `x.new_zeros`, `zeros_like(x)` and their like depend on x's shape alone.

    Otherwise a prior written as `zeros_like(x)` would have x for a parent.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        name = getattr(func, "__name__", "")
        if name.startswith("new_") or name.endswith("_like"):
            bare = detach_provenance(cast(Tensor, (args, kwargs or {})))  # any tree of tensors
            args, kwargs = cast(tuple[tuple[object, ...], dict[str, object]], bare)
        return func(*args, **(kwargs or {}))


def _nodes(
    program: Program,
    fn: Callable[..., object],
    held: dict[str | int, list[Node]],
    sizes: dict[str, int],
) -> tuple[Node, ...]:
    """Returns the nodes of one of the two callables; the model's run fills in `held`.

    Args:
        program: As its first run has shown it.
        fn: The model, then the guide.
        held: Observed sites, by the number of the argument that they observe.
        sizes: Elements of each plate by name, added to as plates are met.
    """
    rows = program.block_size if program.selects_rows else len(program)
    data = [ProvenanceTensor(d[:rows].clone(), frozenset({i})) for i, d in enumerate(program.data)]
    tracking = _Tracking()
    with torch.enable_grad(), pyro.validation_enabled(False), tracking, _Likeness():
        poutine.trace(fn).get_trace(*data)
        densities = [site["fn"].log_prob(site["value"]) for site, _ in tracking.sites]

    made: list[tuple[Node, Sources]] = []
    for (site, source), log_p in zip(tracking.sites, densities, strict=True):
        frames = [f for f in site["cond_indep_stack"] if f.vectorized]
        for f in frames:
            sizes.setdefault(f.name, f.full_size or f.size)
        # the data plate first, the others as the program enters them
        plates = sorted((f.name for f in frames), key=list(sizes).index)
        node = Node(
            site["name"],
            "observed" if site["is_observed"] else "latent",
            "factor" if is_factor(site) else type(base(site["fn"])).__name__,
            tuple(plates),
            parameters=_shaping(detach_provenance(log_p), program.parameters),
        )
        made.append((node, get_provenance(log_p)))
        if site["is_observed"]:
            for i in source:
                held.setdefault(i, []).append(node)
    return _connected(
        made, held, _names(fn, len(data)), {f for f, n in sizes.items() if n == len(program)}
    )


def _shaping(log_p: Tensor, parameters: Values) -> tuple[str, ...]:
    """Returns the names of the parameters that a log-density has gradients for.

    Args:
        log_p: Of a site, in the shape of its batch.
        parameters: By name; those that take no gradient are never among them.
    """
    leaves = {name: p for name, p in parameters.items() if p.requires_grad}
    if not leaves or not log_p.requires_grad:
        return ()
    ones = torch.ones_like(log_p)
    grads = torch.autograd.grad(
        log_p, list(leaves.values()), ones, retain_graph=True, allow_unused=True
    )
    return tuple(name for name, g in zip(leaves, grads, strict=True) if g is not None)


def _names(fn: Callable[..., object], count: int) -> list[str]:
    """Returns the names of a program's arguments, "data[i]" where it tells none.

    Args:
        fn: The program.
        count: How many it is called with.
    """
    try:
        named = [p.name for p in signature(fn).parameters.values() if p.kind != p.VAR_POSITIONAL]
    except (TypeError, ValueError):  # not every callable tells
        named = []
    return [named[i] if i < len(named) else f"data[{i}]" for i in range(count)]


def _connected(
    made: list[tuple[Node, Sources]],
    held: dict[str | int, list[Node]],
    arguments: list[str],
    around: set[str],
) -> tuple[Node, ...]:
    """Returns nodes with their parents; data they depend on that no site observes are given.

    Args:
        made: Nodes with the names of what they depend on; arguments by number.
        held: Observed sites, by the number of the argument that they observe.
        arguments: Names of all arguments.
        around: Plates of the data's length, around what is given if around what depends on it.
    """
    own = {node.name for node, _ in made}
    given: dict[str, Node] = {}
    nodes: list[Node] = []
    for node, sources in made:
        parents = [name for name in own if name in sources]
        for i in sorted(s for s in sources if isinstance(s, int)):
            plates = tuple(p for p in node.plates[:1] if p in around)
            bare = Node(arguments[i], "given", "", plates)
            for data in held.get(i, [bare]):
                parents.append(data.name)
                if data.name not in own:
                    given[data.name] = Node(data.name, "given", "", data.plates)
        parents = sorted(set(parents) - {node.name})
        nodes.append(replace(node, parents=tuple(parents)))
    return (*given.values(), *nodes)
