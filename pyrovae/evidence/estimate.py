"""One estimator's results: what it found for each datum, and what that is worth."""

__all__ = ["Estimate"]

from dataclasses import dataclass
from math import hypot, inf, sqrt

import torch
from torch import Tensor

from pyrovae.evidence.confirmed import Confirmation
from pyrovae.evidence.estimators.base import Estimator, kind
from pyrovae.evidence.weights import VERDICTS, interval, thresholds


@dataclass(frozen=True, repr=False)
class Estimate:
    """One estimator's results, per datum, in nats.

    Attributes:
        name: As `evaluate` knows it.
        value: The estimate for each datum, `(N,)`: in expectation a lower bound of log p(x), but
            for the jackknife, which is no bound, and quadrature, which is exact.
        std_error: Its Monte Carlo standard error, `(N,)`; of quadrature, its error estimate.
        ess: Effective sample size, `(N,)`; NaN where nothing is weighed.
        pareto_k: Pareto k-hat, `(N,)`; NaN likewise, and of fewer than 25 annealing runs.
        num_draws: K, draws made for each datum, `(N,)`.
        path: Estimates with fewer samples, `(G, N)`, as `Evidence.num_samples` lists them: means
            over disjoint subsets of the samples; NaN where there are none.
        path_std_error: Standard error of one such estimate, `(G, N)`.
        seconds: Time for the draws and reductions of its proposal, shared between its estimators.
        tolerance: Standard error that a verdict asks for.
        batches: Estimates by batch of draws, `(B, N)`, where all data were scored on the same
            draws; else `None`.
        confirmation: What a second way says of it.
    """

    name: str
    value: Tensor
    std_error: Tensor
    ess: Tensor
    pareto_k: Tensor
    num_draws: Tensor
    path: Tensor
    path_std_error: Tensor
    seconds: float
    tolerance: float = inf
    batches: Tensor | None = None
    confirmation: Confirmation = Confirmation(reason="no second way was tried")

    @property
    def kind(self) -> type[Estimator]:
        """The class of the estimator."""
        return kind(self.name)

    @property
    def label(self) -> str:
        """What it is called, in words."""
        number = self.name.removeprefix(self.kind.name).replace("_", " ")
        return f"{self.kind.label}{number}"

    @property
    def mean(self) -> float:
        """Mean over data, nats per datum."""
        return self.value.mean().item()

    @property
    def monte_carlo_error(self) -> float:
        """Error of `mean` from finitely many samples: what more samples would move.

        It is sqrt(standard error^2 + bias^2). The log of an unbiased estimate is by about half
        its squared standard error too low, which many data average over, but not out.
        """
        bias = self.std_error.square().mean().item() / 2 if self.kind.biased else 0.0
        return hypot(self._spread, bias)

    @property
    def _spread(self) -> float:
        """Standard error of `mean` over other draws.

        On shared draws the data's errors go together. The delta method then asks for the spread of
        the mean over data of w / mean(w), which is taken between batches of draws.
        """
        if self.batches is not None and self.kind.is_mean:
            return self.std_error.mean().item()  # errors that go together are at most that
        if self.batches is not None:
            share = (self.batches - self.value).exp().mean(1)
            return share.std().item() / sqrt(len(share)) if len(share) > 1 else torch.nan
        return self.std_error.square().sum().sqrt().item() / len(self.value)

    def interval(self, prob: float = 0.95) -> tuple[Tensor, Tensor]:
        """Returns the ends of an interval that is to hold log p(x), `(N,)` each.

        Student's quantile times the standard error to both sides: of the eight runs of annealing
        it is 2.4, of many draws 2. It means what it says where the verdict is ok.
        """
        many = self.num_draws + 1_000 if self.kind.exact else self.num_draws.clamp(min=2)
        return interval(self.value, self.std_error, many, prob)

    @property
    def path_error(self) -> Tensor:
        """Standard error of the path's means over data, `(G,)`."""
        apart = self.path_std_error.square().sum(1).sqrt() / self.path.shape[1]
        if self.batches is None:
            return apart
        together = self._spread / (self.std_error.square().sum().sqrt() / len(self.value))
        return apart * together  # as much as draws in common change the error of all of them

    @property
    def data_error(self) -> float:
        """Standard error of `mean` from finitely many data: what other data would move."""
        return (
            self.value.std().item() / sqrt(len(self.value)) if len(self.value) > 1 else torch.nan
        )

    @property
    def bad(self) -> float:
        """Share of data whose k-hat is bad; NaN where there is none."""
        bad = (self.pareto_k > thresholds(self.num_draws)).double().mean().item()
        return torch.nan if self.pareto_k.isnan().all() else bad

    def verdict(self) -> list[str]:
        """Returns for each datum what its estimate is worth, in words.

        By the datum's own weights it is "not contradicted" at best; else of sampling "more
        samples" or "use ais" (see `pyrovae.evidence.weights.verdicts`), of annealing "more
        temperatures", where less than a quarter of the runs count. What is not contradicted is
        "ok" only where a second, different way agrees with it, see `confirmation`, and was tried
        on such data; and where that contradicts it, "use ais" or "more temperatures". Of
        quadrature: "ok" within 1e-3 nats, or "use ais". The ELBO is "a bound".
        """
        return self.kind.verdict(self)

    def own_verdict(self) -> list[str]:
        """Returns what the weights of each datum say alone, in words: at best not contradicted."""
        return self.kind.own_verdict(self)

    @property
    def good(self) -> Tensor:
        """Where the weights show nothing wrong, `(N,)`."""
        return torch.tensor([word == VERDICTS[0] for word in self.own_verdict()])

    @property
    def trusted(self) -> float:
        """Share of data whose verdict is "ok" or "not contradicted"."""
        return self.share("ok") + self.share(VERDICTS[0])

    def share(self, word: str) -> float:
        """Returns the share of data with this verdict."""
        return self.verdict().count(word) / len(self.value)

    def draws(self) -> str:
        """Returns the number of draws in words: "K = 5,000", or "K = 128 to 40,000"."""
        return Estimator.how(self, {})
