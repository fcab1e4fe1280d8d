"""The negative ELBO of a program, as a function of tensors alone."""

__all__ = ["negative_elbo"]

from collections.abc import Callable

from pyro import poutine
from torch import Tensor

from pyrovae.program.handlers import base, sample_sites


def negative_elbo(
    model: Callable[..., object], guide: Callable[..., object], *data: Tensor
) -> Tensor:
    r"""Returns the loss of Pyro's `Trace_ELBO`, one particle, summed over the data, in nats.

    .. math::
        \log q(z|x) - \log p(x, z), \quad z \sim q(z|x)

    scaled and masked as the program says. `Trace_ELBO` itself reads each term with `.item()`, so
    that no graph can be had of it.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another.
        data: A batch, `(n, ...)` each.

    Raises:
        ValueError: If a latent site's draws have no gradient (it is not reparameterized): the
            surrogate loss that `Trace_ELBO` has for them is not this.
    """
    guide_trace = poutine.trace(guide).get_trace(*data)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*data)
    terms = []
    for trace, sign in ((guide_trace, 1.0), (model_trace, -1.0)):
        trace.compute_log_prob()
        for site in sample_sites(trace):
            if trace is guide_trace and not site["fn"].has_rsample:
                raise ValueError(
                    f"site {site['name']!r} is {type(base(site['fn'])).__name__}, whose draws "
                    "have no gradient"
                )
            terms.append(sign * site["log_prob_sum"])
    return sum(terms[1:], terms[0])
