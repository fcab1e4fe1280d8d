"""One number that makes probabilities of classes honest: a temperature, fitted on labels."""

__all__ = ["tempered", "temperature_of"]

import torch
from scipy.optimize import brentq
from torch import Tensor

LEAST = 1e-6  # of 1 / T: below it a likelihood of 1e4 nats tells nothing any more


def tempered(log_p: Tensor, log_prior: Tensor, temperature: float) -> Tensor:
    r"""Returns log p(c|x) of each class at a temperature, `(N, C)`.

    .. math::
        p(c \mid x) \propto \pi_c \, p(x \mid c)^{1/T}

    The prior alone remains where T is infinite, or no class can have made the datum.

    Args:
        log_p: log p(x|c), `(N, C)`, nats.
        log_prior: log pi_c, `(C,)`.
        temperature: T.
    """
    impossible = log_p.isneginf()
    scaled = torch.where(impossible, log_p, log_p / temperature)
    scaled = torch.where(impossible.all(1, keepdim=True), 0.0, scaled)
    return (log_prior + scaled).log_softmax(1)


def temperature_of(log_p: Tensor, log_prior: Tensor, y: Tensor) -> float:
    r"""Returns the temperature at which data of known classes have the least log loss.

    .. math::
        \hat T \text{ maximises } \sum_n \log p_T(y_n \mid x_n), \quad
        \frac{\partial}{\partial (1/T)} = \sum_n \log p(x_n \mid y_n) - E_{p_T(c|x_n)} \log
        p(x_n \mid c)

    It is a convex problem in 1/T. Where each datum's own class has the highest log p(x|c) the
    likelihood rises for ever as T falls to 0: such data say nothing of how wrong a class may be,
    and 1 is returned.

    Args:
        log_p: log p(x|c), `(n, C)`, nats.
        log_prior: log pi_c, `(C,)`.
        y: Classes, `(n,)`.

    Returns:
        T, 1e6 at most.

    References:
        On calibration of modern neural networks (Guo et al., 2017),
        https://arxiv.org/abs/1706.04599
    """
    own = log_p.gather(1, y[:, None])[:, 0]
    best = log_p.max(1).values
    if bool((own >= best).all()):
        return 1.0
    short = (log_p - best[:, None]).nan_to_num(0.0, neginf=-1 / LEAST)  # no class: all alike

    def slope(sharpness: float) -> float:
        """The derivative of the mean log loss by 1 / T."""
        weight = tempered(short, log_prior, 1 / sharpness).exp()
        return ((weight * short).sum(1) - short.gather(1, y[:, None])[:, 0]).mean().item()

    if slope(LEAST) >= 0:
        return 1 / LEAST
    most = 1.0
    while slope(most) < 0:
        most *= 2
    root = brentq(slope, LEAST, most, xtol=1e-12)
    assert isinstance(root, float)
    return 1 / root
