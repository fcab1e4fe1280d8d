"""What is maximised where a class is known of some data: M2's objective, classes summed out."""

__all__ = ["SemiSupervised"]

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pyrovae.checks import is_at_least
from pyrovae.program import log_weights_by_class
from pyrovae.svi.objective import Fn, Objective


@dataclass(frozen=True)
class SemiSupervised(Objective):
    r"""The ELBO with the class summed out, and the classifier's log q(y|x) of data with a label.

    .. math::
        \mathcal{J}(x, y) = \mathcal{L}(x, y) + \alpha \log q(y \mid x), \quad
        \mathcal{J}(x) = \sum_k q(k \mid x) [\mathcal{L}(x, k) - \log q(k \mid x)]

    of a datum with a label, and of one without, where :math:`\mathcal{L}(x, k)` is the ELBO of
    log p(x, c = k), by one draw of z; `(N,)`, nats. Without the classifier's term it is, in
    expectation, at most log p(x, y) or log p(x); with it it is no bound.

    The program is one of data `(..., y)`, the labels last, -1 or NaN where they are missing, whose
    guide draws one discrete latent, the class, as that of `pyrovae.SemiSupervisedVAE` does. It is
    run once a step, as if all labels were missing, with all K classes side by side; so a step
    costs K decodes a datum.

    Attributes:
        alpha: Weight of log q(y|x) of each datum with a label. The paper's 0.1 N / N_labelled is
            for batches as the data come; where labelled rows are repeated, less does it.

    Raises:
        ValueError: If alpha is no number, 0 or more.

    References:
        Semi-supervised learning with deep generative models (Kingma, Mohamed, Rezende and
        Welling, 2014), equations 6 to 9, https://arxiv.org/abs/1406.5298
    """

    name: ClassVar[str] = "semi-supervised"
    alpha: float = 50.0

    def __post_init__(self) -> None:
        if not is_at_least(self.alpha, 0):
            raise ValueError(f"alpha is {self.alpha!r}; give a number, 0 or more")

    def per_datum(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        """Returns the objective of each datum, `(N,)`, nats, by one draw of z for each class.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another, which draws the class.
            data: A batch, `(N, ...)` each, the labels last.

        Raises:
            TypeError: If there is no guide.
            ValueError: If it draws no class, or sites stand in other plates.
        """
        if guide is None:
            raise TypeError("the guide is None; this objective needs one that draws the class")
        *rest, y = data
        log_q, elbo = log_weights_by_class(model, guide, *rest, torch.full_like(y, -1))  # (K, N)
        known = y >= 0
        at = torch.where(known, y, 0).long()[None]
        labelled = elbo.gather(0, at)[0] + self.alpha * log_q.gather(0, at)[0]
        return torch.where(known, labelled, (log_q.exp() * (elbo - log_q)).sum(0))
