"""What the estimators found: the table, its reading in words, and the data behind it."""

__all__ = ["Estimate", "Evidence"]

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isnan, log, sqrt
from textwrap import fill
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.evidence.weights import VERDICTS, annealed_verdicts, thresholds, verdicts
from pyrovae.export import to_xarray

LABELS = {
    "elbo": "ELBO",
    "importance": "importance sampling",
    "jackknife": "the same, jackknife",
    "prior": "naive sampling",
    "ais": "annealing",
    "quadrature": "quadrature",
}
RANKED = "quadrature", "importance", "prior", "ais"  # what can answer the question
EXACT = 1e-3  # nats that quadrature may be off
FEW, MANY = 0.05, 0.5  # shares of data not ok, or for annealing, that trust can bear


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

    @property
    def mean(self) -> float:
        """Mean over data, nats per datum."""
        return self.value.mean().item()

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of `mean` from finitely many samples: what more samples would move.

        On shared draws the data's errors go together. The delta method then asks for the spread of
        the mean over data of w / mean(w), which is taken between batches of draws.
        """
        if self.batches is not None:
            share = (self.batches - self.value).exp().mean(1)
            return share.std().item() / sqrt(len(share)) if len(share) > 1 else torch.nan
        return self.std_error.square().sum().sqrt().item() / len(self.value)

    @property
    def path_error(self) -> Tensor:
        """Standard error of the path's means over data, `(G,)`, as `monte_carlo_error`."""
        apart = self.path_std_error.square().sum(1).sqrt() / self.path.shape[1]
        if self.batches is None:
            return apart
        together = self.monte_carlo_error / (
            self.std_error.square().sum().sqrt() / len(self.value)
        )
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

        Of sampling: "ok", "more samples", "use ais" (see `pyrovae.evidence.weights.verdicts`). Of
        annealing: "ok" where a quarter of the runs count, or "more temperatures". Of quadrature:
        "ok" within 1e-3 nats, or "use ais". The ELBO is "a bound".
        """
        n = len(self.value)
        if self.name == "elbo":
            return ["a bound"] * n
        if self.name == "quadrature":
            return ["ok" if e <= EXACT else "use ais" for e in self.std_error.tolist()]
        if self.name == "ais":
            return annealed_verdicts(self.ess, self.num_draws)
        columns = self.pareto_k, self.ess, self.std_error, self.num_draws, self.tolerance
        return [VERDICTS[i] for i in verdicts(*columns).tolist()]

    def share(self, word: str) -> float:
        """Returns the share of data with this verdict."""
        return self.verdict().count(word) / len(self.value)

    def draws(self) -> str:
        """Returns the number of draws in words: "K = 5,000", or "K = 128 to 40,000"."""
        low, high = int(self.num_draws.min()), int(self.num_draws.max())
        return f"K = {high:,}" if low == high else f"K = {low:,} to {high:,}"


@dataclass(frozen=True, repr=False)
class Evidence:
    """What `evaluate` found; printed, it is the table, its reading and the protocol.

    Attributes:
        estimates: The estimators' results by name.
        num_samples: Numbers of samples, from 1 to K, of the estimates' paths; none under "auto".
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

    def best(self) -> Estimate:
        """Returns the estimate that comes nearest: quadrature, or the highest lower bound.

        Importance sampling comes first where its verdicts trust it, annealing where they do not;
        another one only if it is clearly higher. ELBO and jackknife only stand beside.
        """
        estimates = [self[name] for name in RANKED if name in self.estimates]
        if not estimates:
            return self["elbo"] if "elbo" in self.estimates else self["jackknife"]
        best = estimates[0]
        if best.name == "importance" and best.share("ok") < 1 - FEW:
            best = self.estimates.get("ais", best)
        if best.name != "quadrature":  # all are lower bounds: a clearly higher one is nearer
            for other in estimates:
                gap, error = self._difference(other.name, best.name)
                clearly = 4 if best.share("ok") >= 1 - FEW else 2
                best = other if gap > clearly * error else best
        return best

    def rows(self) -> list[dict[str, Any]]:
        """Returns the table, one dict an estimator: nats per datum, `None` where undefined."""
        return [
            {
                "estimator": e.name,
                "nats": e.mean,
                "monte_carlo_error": _defined(e.monte_carlo_error),
                "data_error": _defined(e.data_error),
                "bits_per_dim": self._bits_per_dim(e),
                "num_draws": int(e.num_draws.double().mean()) or None,
                "median_ess": _defined(e.ess.median().item()),
                "min_ess": _defined(e.ess.min().item()),
                "bad_khat": _defined(e.bad),
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
            "draws": "{:,}",
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
        n = len(next(iter(self.estimates.values())).value)
        estimates = [self[name] for name in RANKED if name in self.estimates]
        if not estimates:
            return (
                "Only the ELBO was asked for: a lower bound of log P(X), by KL(q(z|x) || p(z|x)) "
                f"too low ({n} data)."
            )
        best = self.best()
        lines = [
            f"log P(X) of these {n} data by {LABELS[best.name]}{self._how(best)}: "
            f"{best.mean:.3f} nats per datum, +- {best.monte_carlo_error:.4f} (samples) "
            f"+- {best.data_error:.3f} (data)."
        ]
        if "elbo" in self.estimates:
            gap, error = self._difference(best.name, "elbo")
            lines.append(
                f"The ELBO lies {gap:.3f} +- {error:.3f} nats below it: the mean of "
                "KL(q(z|x) || p(z|x)), the price of the guide, is "
                + ("that." if best.share("ok") >= 1 - FEW else "at least that.")
            )
        lines += [self._beside(other, best) for other in estimates if other is not best]
        return "\n".join([*lines, self._trust(best)])

    def to_csv(self) -> list[str]:
        """Returns the per-datum results as lines of CSV: a datum a row, columns by estimator."""
        columns: dict[str, list[Any]] = {"datum": list(range(len(self.best().value)))}
        for name, e in self.estimates.items():
            for what in ("value", "std_error", "ess", "pareto_k", "num_draws"):
                columns[f"{name}_{what}"] = getattr(e, what).tolist()
            columns[f"{name}_verdict"] = e.verdict()
        return [",".join(map(str, row)) for row in (columns, *zip(*columns.values(), strict=True))]

    def to_xarray(self) -> Any:
        """Returns the per-datum results as an xarray Dataset, the protocol as its attributes."""
        names = list(self.estimates)
        per_datum, per_path = ("estimator", "datum"), ("estimator", "samples", "datum")
        what = {
            "value": (per_datum, "estimate of log p(x), nats"),
            "std_error": (per_datum, "Monte Carlo standard error, nats"),
            "ess": (per_datum, "effective sample size"),
            "num_draws": (per_datum, "draws made"),
            "pareto_k": (per_datum, "Pareto k-hat of the weights"),
            "path": (per_path, "estimate from fewer samples, nats"),
            "path_std_error": (
                per_path,
                "standard error of one estimate from fewer samples, nats",
            ),
        }
        variables: dict[str, tuple[tuple[str, ...], Any, str]] = {
            v: (dims, torch.stack([getattr(self[name], v) for name in names]), text)
            for v, (dims, text) in what.items()
        }
        words = [self[name].verdict() for name in names]
        variables["verdict"] = (per_datum, np.array(words), "what the estimate is worth")
        variables["seconds"] = (
            ("estimator",),
            torch.tensor([self[name].seconds for name in names]),
            "wall time, s",
        )
        variables["tolerance"] = (
            ("estimator",),
            torch.tensor([self[name].tolerance for name in names]),
            "standard error that a verdict asks for, nats",
        )
        for name in names:
            if (batches := self[name].batches) is not None:
                text = "estimate by batch of the draws that all data share, nats"
                variables[f"{name}_batches"] = (("batch", "datum"), batches, text)
        num_data = len(self[names[0]].value)
        coords = {"estimator": names, "samples": list(self.num_samples), "datum": range(num_data)}
        flat = {
            k: json.dumps(v) if isinstance(v, bool) or not isinstance(v, int | float | str) else v
            for k, v in self.protocol.items()
        }
        return to_xarray(variables, coords, flat)

    @classmethod
    def from_xarray(cls, dataset: Any) -> "Evidence":
        """Returns the evidence of which `to_xarray` made this Dataset, as of an `evidence.nc`."""
        fields = "value", "std_error", "ess", "pareto_k", "num_draws", "path", "path_std_error"
        estimates = {}
        for name in dataset["estimator"].values.tolist():
            one = dataset.sel(estimator=name)
            columns = {f: torch.from_numpy(one[f].values.copy()) for f in fields}
            if f"{name}_batches" in dataset:
                columns["batches"] = torch.from_numpy(dataset[f"{name}_batches"].values.copy())
            scalars = {f: one[f].item() for f in ("seconds", "tolerance")}
            estimates[name] = Estimate(name, **columns, **scalars)
        protocol = {k: _plain(v) for k, v in dataset.attrs.items()}
        return cls(estimates, tuple(dataset["samples"].values.tolist()), protocol)

    def _bits_per_dim(self, e: Estimate) -> float | None:
        dims = self.protocol.get("dims")
        return -e.mean / (dims * log(2)) if dims and self.protocol.get("discrete") else None

    def _difference(self, one: str, other: str) -> tuple[float, float]:
        """Returns mean(one - other) and its standard error over data; both saw the same data."""
        d = self[one].value - self[other].value
        return d.mean().item(), d.std().item() / sqrt(len(d)) if len(d) > 1 else torch.nan

    def _how(self, e: Estimate) -> str:
        if e.name == "quadrature":
            return ""
        if e.name == "ais":
            steps = f"{self.protocol['num_temperatures']} temperatures x " if self.protocol else ""
            return f", {steps}{int(e.num_draws.max())} chains"
        return f", {e.draws()}"

    def _beside(self, other: Estimate, best: Estimate) -> str:
        """Returns how another estimator compares with the best."""
        gap, error = self._difference(best.name, other.name)
        short = f"{gap:.3f} +- {error:.3f} nats"
        text = f"{LABELS[other.name].capitalize()}{self._how(other)} " + (
            f"falls {short} short" if gap > 2 * error else f"agrees ({short} below)"
        )
        if other.name in ("ais", "quadrature"):
            return f"{text}."
        return (
            f"{text}; its median ESS is {other.ess.median():.1f}, and its own Monte Carlo error "
            f"says {other.monte_carlo_error:.4f}."
        )

    def _trust(self, best: Estimate) -> str:
        """Returns whether the best estimate can be trusted, and for which data it cannot."""
        words = best.verdict()
        left = "; ".join(f"{w}: {words.count(w)}" for w in dict.fromkeys(words) if w != "ok")
        if best.name == "quadrature":
            worst = f"estimated error at most {best.std_error.max():.1e} nats"
            return (
                f"It is exact: {worst}." if not left else f"It is not exact everywhere ({left})."
            )
        if best.name == "ais":
            facts = f"median ESS {best.ess.median():.1f} of {int(best.num_draws.max())} chains"
            return (
                f"Annealing went well for {words.count('ok')} of {len(words)} data ({facts}); "
                "pv.bdmc tells what gap it leaves on data of the model's own."
            )
        limit = thresholds(best.num_draws).max().item()
        facts = (
            f"k-hat is bad (above {limit:.2f}) for {best.bad:.1%} of the data, median ESS "
            f"{best.ess.median():.0f}, smallest {best.ess.min():.1f}"
        )
        facts += f" (verdicts: ok: {words.count('ok')}{'; ' * bool(left)}{left})"
        if best.share("ok") >= 1 - FEW:
            return f"The estimate can be trusted: {facts}."
        if best.share("use ais") <= MANY:
            return (
                f"Trust it as a lower bound: {facts}; draw more samples, or add the estimator ais."
            )
        return (
            f"It cannot be trusted as more than a lower bound: {facts}; the proposal misses mass, "
            "and the standard error does not notice. Add the estimator ais."
        )


def _plain(value: Any) -> Any:
    """Returns an attribute of a Dataset as it was before `to_xarray` made it fit for netCDF."""
    if isinstance(value, str):
        return json.loads(value) if value in ("true", "false", "null") else value
    return value.item() if isinstance(value, np.generic) else value


def _defined(value: float) -> float | None:
    return None if isnan(value) else value
