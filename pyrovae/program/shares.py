"""Latents common to all data, of which each batch trains its share."""

__all__ = ["shared_out"]

from dataclasses import dataclass
from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from torch import Tensor

from pyrovae.program.binding import Fn
from pyrovae.program.contexts import aside
from pyrovae.program.copies import no_guide
from pyrovae.program.densities import FAILURES
from pyrovae.program.sites import sample_sites


def shared_out(
    model: Fn, guide: Fn | None, batch: tuple[Tensor, ...], num_data: int
) -> tuple[Fn, Fn | None]:
    r"""Returns model and guide in which latents w common to all data count by a batch's share.

    .. math::
        \sum_{i=1}^n \log p(x_i | w) - \frac nN \log \frac{q(w)}{p(w)}

    for n of N rows, so that the batches of an epoch add up to the ELBO of all data. Common is what
    has the same shape, in plates of the same size, where a batch has twice the rows. A program
    that scales sites itself, or takes no other number of rows, stays as it is.

    Args:
        model: A Pyro callable of a batch.
        guide: Another, or `None`.
        batch: Some rows, `(n, ...)` each.
        num_data: N.
    """
    if not batch or len(batch[0]) >= num_data:
        return model, guide
    with aside(), pyro.validation_enabled(False):
        names = _common(model, guide or no_guide, batch)
    if not names:
        return model, guide
    return _Share(model, names, num_data), guide and _Share(guide, names, num_data)


def _common(model: Fn, guide: Fn, batch: tuple[Tensor, ...]) -> frozenset[str]:
    """Returns the names of latents common to all data; none where the program scales its sites.

    Args:
        model: A Pyro callable of a batch.
        guide: Another.
        batch: `(n, ...)` each.
    """
    q, p = _seen(guide, batch), _seen(model, batch)
    if any(s.scaled for s in (*p.values(), *q.values())):
        return frozenset()
    try:
        twice = tuple(torch.cat([d, d]) for d in batch)
        q2, p2 = _seen(guide, twice), _seen(model, twice)
    except FAILURES:
        return frozenset()
    common = {name for name, s in p.items() if s.latent and s == p2.get(name)}
    if p.keys() & q.keys() <= common:  # then what the guide draws beside them can be, too
        common |= {name for name, s in q.items() if name not in p and s == q2.get(name)}
    return frozenset(common)


class _Seen(NamedTuple):
    """What of a site can tell whether it is common to all data.

    Attributes:
        shape: Of its value.
        plates: Names and sizes of those around it.
        latent: Whether it is drawn.
        scaled: Whether the program has scaled it.
    """

    shape: torch.Size
    plates: frozenset[tuple[str, int]]
    latent: bool
    scaled: bool


def _seen(fn: Fn, batch: tuple[Tensor, ...]) -> dict[str, _Seen]:
    """Returns the sites of a run by name; of a plate that draws rows, it says they are scaled.

    Args:
        fn: A model or guide.
        batch: Its arguments.
    """
    trace = poutine.trace(fn).get_trace(*batch)
    return {
        s["name"]: _Seen(
            s["value"].shape,
            frozenset((f.name, f.size) for f in s["cond_indep_stack"]),
            not s["is_observed"],
            bool((torch.as_tensor(trace.nodes[s["name"]].get("scale", 1.0)) != 1).any()),
        )
        for s in sample_sites(trace)
    }


@dataclass(frozen=True)
class _Share:
    """A model or guide in which some sites count by the share n / N that a batch has of the data.

    Attributes:
        fn: It.
        names: Of these sites.
        num_data: N.
    """

    fn: Fn
    names: frozenset[str]
    num_data: int

    def __call__(self, *data: Tensor) -> object:
        """Runs it on n rows."""
        with _Scaled(self.names, len(data[0]) / self.num_data):
            return self.fn(*data)


class _Scaled(Messenger):
    """Scales sites of some names.

    Args:
        names: Theirs.
        share: What their log-densities are multiplied by.
    """

    def __init__(self, names: frozenset[str], share: float) -> None:
        super().__init__()
        self._names, self._share = names, share

    def _pyro_sample(self, msg: Message[..., object]) -> None:
        if msg.get("name") in self._names:
            msg["scale"] = msg.get("scale", 1.0) * self._share
