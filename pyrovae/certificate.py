"""Certifies log p(x) on the data themselves, from both sides."""

__all__ = ["Certificate", "certify"]

from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt
from typing import NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor

from pyrovae.checks import check_options
from pyrovae.equality import ByContent
from pyrovae.evidence.estimate import Estimate
from pyrovae.evidence.estimators.sandwich import Certified, Sandwich
from pyrovae.evidence.evaluate import Blocks, evaluate
from pyrovae.evidence.planning import Data
from pyrovae.evidence.results import Evidence
from pyrovae.evidence.samplers.paths import PathProposal
from pyrovae.evidence.samplers.sides import CERTIFIED, ERRORS, WORDS
from pyrovae.threads import one_at_a_time


class CertifyOptions(TypedDict, total=False):
    """How a certificate is made.

    Attributes:
        max_temperatures: Of annealing; 1 leaves importance sampling alone.
        max_seconds: Time after which no block takes another way; `None` for no limit.
        proposal: Where the first ways begin; `None` for `pv.Laplace()`.
        plate: Name of the plate over the data; `None` for all data as one.
        compile: Run gradients as compiled graphs.
        workers: Processes that share the blocks; `None` for none.
        progress: Show a bar; `None` does so on a terminal.
        blocks: Results of finished blocks of the same call, by name; see `evaluate`.
    """

    max_temperatures: int
    max_seconds: float | None
    proposal: PathProposal | None
    plate: str | None
    compile: bool
    workers: int | None
    progress: bool | None
    blocks: Blocks | None


class Interval(NamedTuple):
    """A mean over data between its bounds, nats.

    Attributes:
        lower: Mean of the lower bounds.
        lower_error: Its standard error.
        upper: Mean of the upper bounds.
        upper_error: Its standard error.
    """

    lower: float
    lower_error: float
    upper: float
    upper_error: float


@dataclass(frozen=True, repr=False, eq=False)
class Certificate(ByContent):
    r"""Both sides of log p(x) for each of N data, in nats, and which of them are certified.

    A datum is certified where all of these hold:

    - upper - lower is at most the tolerance, and both together with two of their standard errors
      at most twice that;
    - neither the weights nor weights times their logs have a heavy tail (k-hat at most 0.7), and
      coupled chains meet;
    - the runs reach where annealing from the prior ends;
    - on data simulated from the model, the same way's upper bound agrees with the exact one.

    Attributes:
        value: log of the mean over all runs: the estimate, `(N,)`.
        std_error: Its standard error, `(N,)`.
        lower: In expectation a lower bound of log p(x), `(N,)`.
        lower_error: Its standard error, `(N,)`.
        upper: In expectation an upper bound, `(N,)`.
        upper_error: Its standard error, `(N,)`.
        certified: Whether it is certified, `(N,)`.
        reasons: Why not, in words, or "certified".
        temperatures: Of the annealing that was needed, `(N,)`; 1 is importance sampling.
        num_draws: Particles of all runs, `(N,)`.
        tolerance: Nats.
        seconds: Time that it took.
    """

    value: Tensor
    std_error: Tensor
    lower: Tensor
    lower_error: Tensor
    upper: Tensor
    upper_error: Tensor
    certified: Tensor
    reasons: tuple[str, ...]
    temperatures: Tensor
    num_draws: Tensor
    tolerance: float
    seconds: float = field(compare=False)

    @classmethod
    def of(cls, e: Estimate, tolerance: float) -> "Certificate":
        """Returns the certificate that an estimate by `pv.Sandwich` holds.

        Args:
            e: As `evaluate` returns it.
            tolerance: That of the estimator, nats.

        Raises:
            ValueError: If the estimate is another's.
        """
        if "code" not in e.extras:
            raise ValueError(f"{e.name} knows no upper bound; evaluate pv.Sandwich()")
        sides = {k: e.extras[k] for k in ("lower", "lower_error", "upper", "upper_error")}
        codes = e.extras["code"].long()
        return cls(
            e.value,
            e.std_error,
            **sides,
            certified=codes == CERTIFIED,
            reasons=tuple(WORDS[c] for c in codes.tolist()),
            temperatures=e.extras["temperatures"].long(),
            num_draws=e.num_draws,
            tolerance=tolerance,
            seconds=e.seconds,
        )

    @classmethod
    def all_in(cls, evidence: Evidence) -> "dict[str, Certificate]":
        """Returns the certificates that an evaluation made, by their estimators' names.

        Args:
            evidence: Whose protocol names their tolerances.
        """
        return {
            name: cls.of(e, e.kind.reading.tolerance(e, evidence.protocol))
            for name, e in evidence.estimates.items()
            if isinstance(e.kind.reading, Certified)
        }

    @property
    def gap(self) -> Tensor:
        """Returns upper - lower, `(N,)`, nats."""
        return self.upper - self.lower

    def interval(self, errors: float = ERRORS) -> tuple[Tensor, Tensor]:
        """Returns both bounds, let out by so many of their standard errors, `(N,)` each, nats.

        Args:
            errors: Standard errors.
        """
        return self.lower - errors * self.lower_error, self.upper + errors * self.upper_error

    def mean(self) -> Interval:
        """Returns bounds of the mean over the certified data; NaN where there are none."""
        fine, n = self.certified, int(self.certified.sum())
        error = lambda e: e[fine].square().sum().sqrt().item() / max(n, 1)  # noqa: E731
        low, high = self.lower[fine].mean().item(), self.upper[fine].mean().item()
        return Interval(low, error(self.lower_error), high, error(self.upper_error))

    def __repr__(self) -> str:
        n, fine = len(self.value), int(self.certified.sum())
        low, low_error, high, high_error = self.mean()
        text = f"Certificate: log p(x) of {fine:,} of {n:,} data is known to {self.tolerance} nats"
        if fine:
            data = self.value[self.certified].std().item() / sqrt(fine) if fine > 1 else torch.nan
            text += (
                f"; their mean lies between {low:.4f} +- {low_error:.4f} and {high:.4f} +- "
                f"{high_error:.4f} nats per datum (+- {data:.3f} for other data)"
            )
        words = [w for w in WORDS[1:] if w in self.reasons]
        rest = "; ".join(f"{w}: {self.reasons.count(w):,}" for w in words)
        ways = "; ".join(
            f"{'importance sampling' if t == 1 else f'{t} temperatures'}: {k:,}"
            for t, k in self._ways().items()
        )
        lines = [f"{text}.", f"Certified by {ways}." if fine else ""]
        lines.append(f"Not certified: {rest}." if rest else "")
        return "\n".join(filter(None, lines))

    def _ways(self) -> dict[int, int]:
        """Returns how many data were certified by how many temperatures."""
        used = self.temperatures[self.certified].tolist()
        return {t: used.count(t) for t in sorted(set(used))}

    def to_csv(self) -> list[str]:
        """Returns lines of CSV, a datum each, after one with the names of the columns."""
        tables = {
            name: getattr(self, name).tolist()
            for name in (
                "value", "std_error", "lower", "lower_error", "upper", "upper_error",
                "temperatures", "num_draws",
            )
        }  # fmt: skip
        columns = {"datum": range(len(self.value)), **tables, "reason": self.reasons}
        return [",".join(map(str, row)) for row in (columns, *zip(*columns.values(), strict=True))]


@one_at_a_time
def certify(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: Data,
    tolerance: float = 0.1,
    seed: int | None = None,
    **options: Unpack[CertifyOptions],
) -> Certificate:
    r"""Returns bounds of log p(x) from both sides for each datum, and which of them are certified.

    M independent runs of annealing, or of importance sampling, give unbiased estimates
    :math:`\hat w` of p(x), and both sides:

    .. math::
        \mathrm{E}[\log \hat w] \le \log p(x) \le
        \mathrm{E}_\pi[\log \hat w], \quad \pi(\hat w) \propto \hat w \, q(\hat w)

    The law pi is that which reverse annealing from an exact draw of the posterior has, as in
    `bdmc`; on real data there is no such draw, but particle-independent Metropolis-Hastings keeps
    pi, and coupled chains take off the bias of its start. Each datum goes up a ladder, from
    importance sampling at a normal with the posterior's mode and curvature (`pv.Laplace`) over
    annealing from there to annealing from the guide, until it is certified, see `Certificate`.

    What no run and no start reaches, and the model's own data do not have, no certificate sees.

    Args:
        model: Any Pyro callable of `*data`, differentiable in its latents.
        guide: Another, or `None`.
        data: As `evaluate` takes them.
        tolerance: Nats, within which log p(x) of a datum is to be known.
        seed: Fixes the draws; `None` draws a seed.
        **options: How it is done:

            - `max_temperatures`: of annealing (512); 1 leaves importance sampling alone.
            - `max_seconds`: time after which no block of data takes another way (no limit); what
              is certified then depends on the machine.
            - `proposal`: where the first ways begin (`pv.Laplace()`).
            - `plate`, `compile`, `workers`, `progress`, `blocks`: as of `evaluate`.

    Raises:
        TypeError, ValueError: As `evaluate`; also for a latent without a gradient.

    References:
        Unbiased smoothing using particle independent Metropolis-Hastings (Middleton et al., 2019),
        https://arxiv.org/abs/1902.01781
        Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse et al., 2015),
        https://arxiv.org/abs/1511.02543
    """
    check_options(options, CertifyOptions, certify)
    most = options.pop("max_temperatures", Sandwich.max_temperatures)
    proposal, seconds = options.pop("proposal", None), options.pop("max_seconds", None)
    estimator = Sandwich(tolerance, most, proposal, seconds)
    found = evaluate(model, guide, *data, estimators=[estimator], seed=seed, **options)
    return Certificate.of(found[estimator.name], tolerance)
