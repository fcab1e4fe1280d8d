"""What the estimators found: the table, its reading in words, and the data behind it."""

__all__ = ["Estimate", "Evidence"]

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan, log, sqrt
from textwrap import fill
from typing import Any

import torch
from torch import Tensor

from pyrovae.diagnostics import khat_threshold
from pyrovae.export import to_xarray

LABELS = {"elbo": "ELBO", "importance": "importance sampling", "prior": "naive sampling"}
FEW, MANY = 0.05, 0.5  # shares of data with a bad k-hat, between which trust is partial


@dataclass(frozen=True, repr=False)
class Estimate:
    """One estimator's results, per datum, in nats.

    Attributes:
        name: "elbo", "importance" or "prior".
        value: The estimate for each datum, `(N,)`: in expectation a lower bound of log p(x).
        std_error: Its Monte Carlo standard error, `(N,)`.
        ess: Effective sample size, `(N,)`; NaN for the ELBO, which weighs nothing.
        pareto_k: Pareto k-hat, `(N,)`; NaN likewise.
        path: Estimates with fewer samples, `(G, N)`, as `Evidence.num_samples` lists them: means
            over disjoint subsets of the samples.
        path_std_error: Standard error of one such estimate, `(G, N)`.
        seconds: Time for the draws (shared between rows of one proposal) and the reductions.
    """

    name: str
    value: Tensor
    std_error: Tensor
    ess: Tensor
    pareto_k: Tensor
    path: Tensor
    path_std_error: Tensor
    seconds: float

    @property
    def mean(self) -> float:
        """Mean over data, nats per datum."""
        return self.value.mean().item()

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of `mean` from finitely many samples: what more samples would move."""
        return self.std_error.square().sum().sqrt().item() / len(self.value)

    @property
    def data_error(self) -> float:
        """Standard error of `mean` from finitely many data: what other data would move."""
        return (
            self.value.std().item() / sqrt(len(self.value)) if len(self.value) > 1 else torch.nan
        )

    def bad(self, num_particles: int) -> float:
        """Share of data whose k-hat is bad; NaN for the ELBO."""
        bad = (self.pareto_k > khat_threshold(num_particles)).double().mean().item()
        return torch.nan if self.pareto_k.isnan().all() else bad


@dataclass(frozen=True, repr=False)
class Evidence:
    """What `evaluate` found; printed, it is the table, its reading and the protocol.

    Attributes:
        estimates: The estimators' results by name.
        num_samples: Numbers of samples, from 1 to K, of the estimates' paths.
        protocol: What the numbers depend on: K, seed, rows, dtype, versions, model hash, and what
            the caller knows of the data.
    """

    estimates: Mapping[str, Estimate]
    num_samples: tuple[int, ...]
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        record = ((k, str(v)[:12] if "sha256" in k else v) for k, v in self.protocol.items())
        protocol = "Protocol: " + "; ".join(f"{k} {v}" for k, v in record)
        return f"{self.table()}\n\n{self.reading()}\n\n{fill(protocol, 99)}"

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates[name]

    def rows(self) -> list[dict[str, Any]]:
        """Returns the table, one dict an estimator: nats per datum, `None` where undefined."""
        return [
            {
                "estimator": e.name,
                "nats": e.mean,
                "monte_carlo_error": _defined(e.monte_carlo_error),
                "data_error": _defined(e.data_error),
                "bits_per_dim": self._bits_per_dim(e),
                "median_ess": _defined(e.ess.median().item()),
                "min_ess": _defined(e.ess.min().item()),
                "bad_khat": _defined(e.bad(self.num_particles)),
                "seconds": e.seconds,
            }
            for e in self.estimates.values()
        ]

    def table(self) -> str:
        """Returns the table as text: one row an estimator, nats per datum."""
        forms = {
            "nats/datum": "{:.3f}",
            "MC s.e.": "{:.4f}",
            "data s.e.": "{:.3f}",
            "bits/dim": "{:.4f}",
            "median ESS": "{:.1f}",
            "min ESS": "{:.1f}",
            "bad k-hat": "{:.1%}",
            "seconds": "{:.1f}",
        }
        lines = [["", *forms]]
        for row in self.rows():
            name, *values = row.values()
            cells = zip(forms.values(), values, strict=True)
            lines.append([LABELS[name], *("-" if v is None else f.format(v) for f, v in cells)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])])
            for cells in lines
        )

    def reading(self) -> str:
        """Returns what the table says, in words with its numbers."""
        sampled = [self[name] for name in ("importance", "prior") if name in self.estimates]
        n, k = len(next(iter(self.estimates.values())).value), self.num_particles
        if not sampled:
            return (
                "Only the ELBO was asked for: a lower bound of log P(X), by KL(q(z|x) || p(z|x)) "
                f"too low ({n} data)."
            )
        best, *others = sampled
        for other in others:  # each is a lower bound in expectation: the higher one is nearer
            gap, error = self._difference(other.name, best.name)
            if gap > 2 * error:
                best, others = other, [best]
        lines = [
            f"log P(X) of these {n} data by {LABELS[best.name]}, K = {k:,}: "
            f"{best.mean:.3f} nats per datum, +- {best.monte_carlo_error:.4f} (samples) "
            f"+- {best.data_error:.3f} (data)."
        ]
        if "elbo" in self.estimates:
            gap, error = self._difference(best.name, "elbo")
            lines.append(
                f"The ELBO lies {gap:.3f} +- {error:.3f} nats below it: the mean of "
                "KL(q(z|x) || p(z|x)), the price of the guide, is "
                + ("that." if best.bad(k) <= FEW else "at least that.")
            )
        for other in others:
            gap, error = self._difference(best.name, other.name)
            short = f"{gap:.3f} +- {error:.3f} nats"
            lines.append(
                f"{LABELS[other.name].capitalize()} with as many samples "
                + (f"falls {short} short" if gap > 2 * error else f"agrees ({short} below)")
                + f"; its median ESS is {other.ess.median():.1f} of {k:,}, and its own "
                f"Monte Carlo error says {other.monte_carlo_error:.4f}."
            )
        return "\n".join([*lines, self._verdict(best)])

    def to_xarray(self) -> Any:
        """Returns the per-datum results as an xarray Dataset, the protocol as its attributes."""
        names = list(self.estimates)
        per_datum, per_path = ("estimator", "datum"), ("estimator", "samples", "datum")
        what = {
            "value": (per_datum, "estimate of log p(x), nats"),
            "std_error": (per_datum, "Monte Carlo standard error, nats"),
            "ess": (per_datum, "effective sample size"),
            "pareto_k": (per_datum, "Pareto k-hat of the weights"),
            "path": (per_path, "estimate from fewer samples, nats"),
            "path_std_error": (
                per_path,
                "standard error of one estimate from fewer samples, nats",
            ),
        }
        variables = {
            v: (dims, torch.stack([getattr(self[name], v) for name in names]), text)
            for v, (dims, text) in what.items()
        }
        variables["seconds"] = (
            ("estimator",),
            torch.tensor([self[name].seconds for name in names]),
            "wall time, s",
        )
        num_data = len(self[names[0]].value)
        coords = {"estimator": names, "samples": list(self.num_samples), "datum": range(num_data)}
        flat = {
            k: json.dumps(v) if isinstance(v, bool) or not isinstance(v, int | float | str) else v
            for k, v in self.protocol.items()
        }
        return to_xarray(variables, coords, flat)

    @property
    def num_particles(self) -> int:
        """K, the number of samples per datum."""
        return self.num_samples[-1]

    def _bits_per_dim(self, e: Estimate) -> float | None:
        dims = self.protocol.get("dims")
        return -e.mean / (dims * log(2)) if dims and self.protocol.get("discrete") else None

    def _difference(self, one: str, other: str) -> tuple[float, float]:
        """Returns mean(one - other) and its standard error over data; both saw the same data."""
        d = self[one].value - self[other].value
        return d.mean().item(), d.std().item() / sqrt(len(d)) if len(d) > 1 else torch.nan

    def _verdict(self, best: Estimate) -> str:
        bad = best.bad(self.num_particles)
        threshold = khat_threshold(self.num_particles)
        k_hat = f"k-hat is bad (above {threshold:.2f}) for {bad:.1%} of the data"
        facts = f"{k_hat}, median ESS {best.ess.median():.0f}, smallest {best.ess.min():.1f}"
        if bad <= FEW:
            return f"The estimate can be trusted: {facts}."
        if bad <= MANY:
            return f"Trust it as a lower bound: {facts}; draw more samples or train a wider guide."
        return (
            f"It cannot be trusted as more than a lower bound: {facts}; the proposal misses mass, "
            "and the standard error does not notice."
        )


def _defined(value: float) -> float | None:
    return None if isnan(value) else value
