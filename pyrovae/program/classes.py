"""Densities of a program for every value of the class that its guide draws."""

__all__ = ["log_weights_by_class"]

from typing import cast

import torch
from pyro import poutine
from pyro.poutine.runtime import InferDict, Message
from torch import Tensor

from pyrovae.program.binding import Fn
from pyrovae.program.sites import Site, sample_sites, summable
from pyrovae.program.sums import log_prob


def log_weights_by_class(model: Fn, guide: Fn, *data: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns log q(c|x) and log-weights given c of each class and datum, `(K, N)`, nats.

    .. math::
        \log w_{kn} = \log p(x_n, c = k, z_{kn}) - \log q(z_{kn} | x_n, c = k), \quad
        z_{kn} \sim q(z | x_n, c = k)

    The guide draws one discrete latent c, whose K values are run side by side, in one run; all its
    other draws are reparameterized, so that gradients flow through them. Masks count, scales do
    not.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another.
        data: A batch, `(N, ...)` each.

    Raises:
        ValueError: If the guide draws no discrete latent, or several, or not all sites stand in
            one plate over the data, the rightmost dimension.
    """

    def config(site: Message[..., object]) -> InferDict:
        return {"enumerate": "parallel"} if summable(cast(Site, site)) else {}

    drawn = poutine.enum(poutine.infer_config(guide, config), first_available_dim=-2)
    guide_trace = poutine.trace(drawn).get_trace(*data)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*data)
    q = [s for s in sample_sites(guide_trace) if not s["is_observed"]]
    p = [s for s in sample_sites(model_trace) if not s["infer"].get("_deterministic")]
    classes = [s for s in q if summable(s)]
    if len(classes) != 1:
        names = ", ".join(repr(s["name"]) for s in classes) or "none"
        raise ValueError(
            f"the guide draws discrete latents {names}; this objective sums one class out: draw "
            "one in the guide, or take the objective 'elbo'"
        )
    shape = torch.Size((len(classes[0]["fn"].enumerate_support(expand=False)), len(data[0])))
    log_q = _placed(classes[0], shape)
    of_model = sum(_placed(s, shape) for s in p)
    of_guide = sum(_placed(s, shape) for s in q if s is not classes[0])
    return log_q, torch.as_tensor(of_model - of_guide)


def _placed(site: Site, shape: torch.Size) -> Tensor:
    """Returns a site's log-density, `(K, N)`, nats; ValueError where it has other dimensions.

    Args:
        site: Of a run with classes side by side.
        shape: `(K, N)`.
    """
    log_p = log_prob(site)
    if log_p.ndim > 2 or log_p.shape[-1:] != shape[-1:]:
        raise ValueError(
            f"site {site['name']!r} gives log-densities of shape {tuple(log_p.shape)}; this "
            f"objective needs all sites in one plate over the {shape[-1]} rows, and no other"
        )
    return log_p.expand(shape)
