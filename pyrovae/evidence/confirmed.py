"""What a second, different way said of an estimator's numbers."""

__all__ = ["GOOD_NEEDED", "ROUNDING", "Confirmation"]

from dataclasses import dataclass
from math import inf, nan

from torch import Tensor

GOOD_NEEDED = 16  # simulated data with good weights, to say anything
SPREAD = 1.645  # of the gap's standard errors, that it may be larger than it seems
ALLOWED = 0.5  # of the stated error: a bias of half of it takes 3 % off a 95 % interval's coverage
ROUNDING = 1e-4  # nats
ALIKE = 2  # times the largest confirmed error, up to which a datum is like those confirmed


@dataclass(frozen=True)
class Confirmation:
    r"""How an estimator did where more is known: bounds on simulated data, and a longer run.

    A datum x simulated with its z hands over an exact draw of the posterior. Its weight w*, beside
    the S weights of the estimator, bounds log p(x) from above:

    .. math::
        \mathrm{E}[\log \tfrac1S \sum_s w_s] \le \log p(x) \le
        \mathrm{E}[\log \tfrac1{S+1} (w^* + \sum_s w_s)]

    The gap is as small as the squared standard error where the proposal reaches all of the
    posterior, and nats where z* lies in what it misses. Of annealing, w* is the weight of a
    reverse run from z*, as in `pyrovae.bdmc`.

    Attributes:
        num_simulated: Data simulated from the model; 0 where no draw enters the estimate.
        num_tried: Those among them that the estimator was run on.
        num_good: Those among these whose own weights show nothing wrong. Of these:
        gap: Mean of upper less lower bound, nats.
        gap_error: Its standard error.
        std_error: Mean of the standard errors that the estimator states.
        largest: The largest of them.
        num_longer: Real data that were annealed at twice the temperatures.
        longer: What that adds, in the mean, nats.
        longer_error: Its standard error.
        reason: Why nothing could be confirmed; else "".

    References:
        Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse et al., 2015),
        https://arxiv.org/abs/1511.02543
        Importance weighted hierarchical variational inference (Sobolev and Vetrov, 2019),
        https://arxiv.org/abs/1905.03290: the upper bound.
    """

    num_simulated: int = 0
    num_tried: int = 0
    num_good: int = 0
    gap: float = nan
    gap_error: float = nan
    std_error: float = nan
    largest: float = inf
    num_longer: int = 0
    longer: float = 0.0
    longer_error: float = 0.0
    reason: str = ""

    @property
    def exact(self) -> bool:
        """Whether nothing is drawn that a second way could confirm: all latents are summed out."""
        return not (self.num_simulated or self.reason)

    @property
    def allowed(self) -> float:
        """Nats that the gap may have: a share of the stated error."""
        return ALLOWED * self.std_error + ROUNDING

    @property
    def agrees(self) -> bool | None:
        """Whether the second way agrees with the estimator; `None` where it cannot be told."""
        if self.exact:
            return True
        if self.reason or self.num_good < GOOD_NEEDED:
            return None
        gap = self.gap + SPREAD * self.gap_error
        return max(gap, self.longer - 3 * self.longer_error) <= self.allowed

    def speaks_of(self, std_error: Tensor) -> Tensor:
        """Returns of which data it says anything, `(N,)`, by the standard errors they have.

        Data unlike the model's, outliers above all, are harder than any that it simulates, and
        an estimator that does well on those may be nats short on these.
        """
        return ~(std_error > ALIKE * self.largest + ROUNDING)

    def __str__(self) -> str:
        n, tried = self.num_simulated, f"{self.num_tried}"
        if self.num_tried < n:
            tried = f"{tried} of {n}"
        if self.exact:
            return "No draw enters it: it is exact."
        if self.reason:
            return f"Nothing confirms it: {self.reason}."
        if self.agrees is None:
            return (
                f"Nothing confirms it: of {tried} data simulated from the model, only "
                f"{self.num_good} have good weights."
            )
        text = (
            f"on {tried} data simulated from the model, whose exact z is known, upper and lower "
            f"bound lie {self.gap:.4f} +- {self.gap_error:.4f} nats apart"
        )
        if self.num_longer:
            text += (
                f", and twice the temperatures add {self.longer:.4f} +- {self.longer_error:.4f} "
                f"for {self.num_longer} of these data"
            )
        if not self.agrees:
            return f"A second way contradicts it: {text}; its error allows {self.allowed:.4f}."
        return (
            f"A second way confirms it: {text}. What is missed of less than {3 / n:.1%} of such "
            "data would go unseen."
        )
