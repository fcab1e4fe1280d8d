"""What is maximised where a class is known of some data: M2's objective, classes summed out."""

__all__ = ["SemiSupervised"]

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from pyrovae.checks import check_not_negative
from pyrovae.program import log_weights_by_class
from pyrovae.svi.objective import Fn, Objective, risen


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
        warmup: Epochs in which data without a label come to teach the classifier: the weight of
            their gradient in its parameters rises from 0 to 1 in equal steps. Before the decoder
            knows the classes, what it says of them is noise. The value stays what it is.

    Raises:
        ValueError: If alpha or warmup is negative.

    References:
        Semi-supervised learning with deep generative models (Kingma, Mohamed, Rezende and
        Welling, 2014), equations 6 to 9, https://arxiv.org/abs/1406.5298
    """

    name: ClassVar[str] = "semi-supervised"
    alpha: float = 50.0
    warmup: int = 0
    _weight: Tensor = field(
        default_factory=lambda: torch.ones(()), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_not_negative(alpha=self.alpha, warmup=self.warmup)

    def begin(self, epoch: int) -> None:
        """Sets how much data without a label teach the classifier in that epoch.

        Args:
            epoch: Its number, from 0 on.
        """
        self._weight.fill_(risen(epoch, self.warmup))

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
        weight = self._weight.to(log_q)
        log_q = weight * log_q + (1 - weight) * log_q.detach()  # of the gradient alone
        return torch.where(known, labelled, (log_q.exp() * (elbo - log_q)).sum(0))
