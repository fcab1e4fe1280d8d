"""One estimator's results: what it found for each datum, and what that is worth."""

__all__ = ["Estimate", "contradicted"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import hypot, inf, sqrt

import torch
from torch import Tensor

from pyrovae.equality import ByContent
from pyrovae.evidence.confirmed import ROUNDING, Confirmation
from pyrovae.evidence.estimators.base import Estimator, known, unnumbered
from pyrovae.evidence.reductions import VERDICTS, interval, thresholds


@dataclass(frozen=True, repr=False, eq=False)
class Estimate(ByContent):
    """One estimator's results for N data, in nats.

    Equal are those of equal names and numbers, NaN to NaN, however long they took.

    Attributes:
        name: As `evaluate` knows it.
        value: The estimate for each datum, `(N,)`: in expectation a lower bound of log p(x), but
            for the jackknife, which is no bound, and quadrature, which is exact.
        std_error: Its Monte Carlo standard error, `(N,)`; of quadrature, its error estimate.
        ess: Effective sample size, `(N,)`, 1 to S; NaN where nothing is weighed.
        pareto_k: Pareto k-hat, `(N,)`; NaN likewise, and of fewer than 25 annealing runs.
        num_draws: S, particles of each datum, `(N,)`; 0 where nothing is drawn.
        path: Estimates of fewer particles, `(G, N)`, as `Evidence.num_samples` lists them: means
            over disjoint groups of particles; NaN where there are none.
        path_std_error: Standard error of one such estimate, `(G, N)`.
        seconds: Time for the particles and their reductions, shared between those that read them.
        tolerance: Standard error that a verdict asks for, nats.
        batches: Estimates by batch of particles, `(B, N)`, where all data were scored on the same
            ones; else `None`.
        confirmation: What a second way says of it.
        label: What it is called in words; by default as its kind is.
        extras: What else the estimator says of each datum, by name, `(N,)`.
    """

    name: str
    value: Tensor
    std_error: Tensor
    ess: Tensor
    pareto_k: Tensor
    num_draws: Tensor
    path: Tensor
    path_std_error: Tensor
    seconds: float = field(compare=False)
    tolerance: float = inf
    batches: Tensor | None = None
    confirmation: Confirmation = Confirmation(reason="no second way was tried")
    label: str = ""
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.label:
            own = unnumbered(self.name)
            number = self.name.removeprefix(own).replace("_", " ")
            object.__setattr__(self, "label", f"{self.kind.label or own}{number}")

    @property
    def kind(self) -> type[Estimator]:
        """The class of the estimator; the plain `Estimator` where its module was not imported."""
        return known().get(unnumbered(self.name), Estimator)

    @property
    def mean(self) -> float:
        """Mean over data, nats per datum."""
        return self.value.mean().item()

    @property
    def monte_carlo_error(self) -> float:
        r"""Error of `mean` from finitely many particles: what more of them would move, nats.

        .. math::
            \sqrt{\mathrm{se}^2 + \mathrm{bias}^2}, \quad
            \mathrm{bias} = \tfrac12 \tfrac1N \sum_n \mathrm{se}_n^2

        The log of an unbiased estimate is by about half its squared standard error too low, which
        many data average over, but not out. Of others the bias is 0.
        """
        return hypot(self._spread, self.bias if self.kind.bound == "lower" else 0.0)

    @property
    def bias(self) -> float:
        """How much `mean` is too low in expectation, about, where weights are averaged, nats.

        Half the squared standard errors; of one above 2 nats, which says how far short a datum
        falls, itself.
        """
        return torch.minimum(self.std_error.square() / 2, self.std_error).mean().item()

    @property
    def _spread(self) -> float:
        """Standard error of `mean` over other particles, nats.

        On shared particles the data's errors go together. The delta method then asks for the
        spread of the mean over data of w / mean(w), which is taken between batches of them.
        """
        if self.batches is not None and self.kind.bound == "mean":
            return self.std_error.mean().item()  # errors that go together are at most that
        if self.batches is not None:
            share = (self.batches - self.value).exp().mean(1)  # (B,)
            return share.std().item() / sqrt(len(share)) if len(share) > 1 else torch.nan
        return self._apart

    @property
    def _apart(self) -> float:
        """Standard error of `mean` if each datum had particles of its own, nats."""
        return self.std_error.square().sum().sqrt().item() / len(self.value)

    def interval(self, prob: float = 0.95) -> tuple[Tensor, Tensor]:
        """Returns the ends of an interval that is to hold log p(x), `(N,)` each.

        Student's quantile times the standard error to both sides: of the eight runs of annealing
        it is 2.4, of many particles 2. It means what it says where the verdict is ok.
        """
        exact = self.kind.bound == "exact"
        many = self.num_draws + 1_000 if exact else self.num_draws.clamp(min=2)
        return interval(self.value, self.std_error, many, prob)

    @property
    def path_error(self) -> Tensor:
        """Standard error of the path's means over data, `(G,)`, nats."""
        apart = self.path_std_error.square().sum(1).sqrt() / self.path.shape[1]
        if self.batches is None:
            return apart
        return apart * (self._spread / self._apart)  # as much as shared particles change it at S

    @property
    def data_error(self) -> float:
        """Standard error of `mean` from finitely many data: what other data would move, nats."""
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
        temperatures", where less than a quarter of the particles count. What is not contradicted
        is "ok" only where a second, different way agrees with it, see `confirmation`, and was
        tried on such data; and where that contradicts it, "use ais" or "more temperatures". Of
        quadrature: "ok" within 1e-3 nats, or "use ais". ELBO and IWAE are "a bound".
        """
        return self.kind.reading.verdict(self)

    def own_verdict(self) -> list[str]:
        """Returns what the weights of each datum say alone, in words: at best not contradicted."""
        return self.kind.reading.of_weights(self)

    def budget(self, protocol: Mapping[str, object]) -> str:
        """Returns what was spent on each datum, "K = 5,000", by an evaluation's protocol."""
        return self.kind.reading.budget(self, protocol)

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


def contradicted(e: Estimate, others: Iterable[Estimate]) -> Estimate:
    r"""Returns an estimate with what lies beyond it as its error, where something does.

    An unbiased estimate of p(x) is above it by chance less often than by 4 of its standard errors:

    .. math::
        \log \hat p(x) + \log(1 - 4 \, \mathrm{se}) > \log p(x) + \mathrm{error}

    The error is that of quadrature; of an estimate in which particles are weighed it is
    log(1 + 4 se) and rounding, and only data that are "ok" are held against others: they have lost
    a mode that another way found. How far they fall short is among the extras, as "short", nats.

    Args:
        e: One that is exact but for a mode that it may have missed, or weighs particles.
        others: All estimates of the same data.
    """
    value, exact = e.value, e.kind.bound == "exact"
    rounding = ROUNDING * (1 + value.abs())
    most = value + (e.std_error if exact else (4 * e.std_error).log1p() + rounding)
    short = torch.zeros_like(value)
    for other in others:
        if other.kind.bound == "lower":
            least = other.value + (1 - 4 * other.std_error).clamp(min=0).log()
            short = torch.where(least > most, torch.maximum(short, other.value - value), short)
    if not exact:
        ok = torch.tensor([word == "ok" for word in e.verdict()])
        short = torch.where(ok, short, 0.0)
        if not short.any():
            return e
        e = replace(e, extras={**e.extras, "short": short})
    return replace(e, std_error=torch.where(short > 0, short, e.std_error))
