"""Discrete latent sites, summed out exactly by parallel enumeration."""

__all__ = ["eliminate", "enumerating"]

from collections import OrderedDict
from collections.abc import Callable, Iterable

from opt_einsum import get_symbol
from pyro import poutine
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.packed import pack, unpack
from pyro.poutine.runtime import InferDict, Message
from torch import Tensor

from pyrovae.program.sites import Site


def enumerating(
    fn: Callable[..., object], names: Iterable[str], dim: int
) -> Callable[..., object]:
    """Returns `fn` with all values of its sites `names` side by side, from dimension `dim` on.

    Args:
        fn: A model or guide.
        names: Of discrete sites; without any, `fn` is returned.
        dim: The first dimension, from the right, that no plate takes, particles included.
    """
    names = frozenset(names)
    if not names:
        return fn

    def config(site: Message[..., object]) -> InferDict:
        return {"enumerate": "parallel"} if site.get("name") in names else {}

    return poutine.enum(poutine.infer_config(fn, config), first_available_dim=dim)


def eliminate(factors: list[tuple[Site, Tensor]]) -> list[tuple[str, Tensor]]:
    r"""Returns log-factors by site name, enumerated values k summed out within their plates.

    .. math::
        \log \sum_k \exp \sum_i \log f_i(k)

    over all sites i that depend on k, by Pyro's message passing, `pyro.ops.contract
    .contract_tensor_tree`: chains of k cost as many terms as they have links, not their product.

    Args:
        factors: Sites of one run and their log-densities, nats, with the plates' dimensions and,
            to their left, one of each enumerated site that they depend on.

    Returns:
        Log-factors with the plates' dimensions alone; in place of those that were summed over, one
        of each group of plates, under the name "enumerated".

    References:
        Tensor variable elimination for plated factor graphs (Obermeyer et al., 2019),
        https://arxiv.org/abs/1902.03210
    """
    enumerated = {i for site, _ in factors for i in site["infer"].get("_dim_to_id", {}).values()}
    if not enumerated:
        return [(site["name"], log_p) for site, log_p in factors]
    plates: dict[str, str] = {}  # symbols of plates are even, those of enumerated sites odd
    dims: dict[str, int] = {}
    sizes: dict[str, int] = {}
    tree: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    for site, log_p in factors:
        symbols = {}
        for frame in (f for f in site["cond_indep_stack"] if f.vectorized):
            symbols[frame.dim] = plates.setdefault(frame.name, get_symbol(2 * len(plates)))
            sizes[symbols[frame.dim]] = frame.size
        ordinal = frozenset(symbols.values())
        for dim, number in site["infer"].get("_dim_to_id", {}).items():
            symbols[dim] = get_symbol(2 * number + 1)
        dims |= {symbol: dim for dim, symbol in symbols.items()}
        tree.setdefault(ordinal, []).append(pack(log_p, symbols))
    summed = contract_tensor_tree(tree, {get_symbol(2 * i + 1) for i in enumerated})
    return [
        ("enumerated", unpack(log_p, dims).expand(_shape({dims[s]: sizes[s] for s in ordinal})))
        for ordinal, log_ps in summed.items()
        for log_p in log_ps
    ]


def _shape(sizes: dict[int, int]) -> list[int]:
    """Returns the shape with these sizes at these dimensions from the right, 1 elsewhere.

    Args:
        sizes: By dimension, negative.
    """
    return [sizes.get(dim, 1) for dim in range(min(sizes, default=0), 0)]
