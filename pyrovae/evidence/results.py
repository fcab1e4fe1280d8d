"""What the estimators found: the table, its reading in words, and the data behind it."""

__all__ = ["Evidence"]

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isnan, log, sqrt
from textwrap import fill
from typing import Any

import numpy as np
import torch

from pyrovae.evidence.confirmed import Confirmation
from pyrovae.evidence.estimate import Estimate
from pyrovae.evidence.estimators.base import kind
from pyrovae.labelled import to_xarray

TABLES = {  # of an estimate in a Dataset: dimensions, and what it is
    "value": (("datum",), "estimate of log p(x), nats"),
    "std_error": (("datum",), "Monte Carlo standard error, nats"),
    "ess": (("datum",), "effective sample size"),
    "num_draws": (("datum",), "draws made"),
    "pareto_k": (("datum",), "Pareto k-hat of the weights"),
    "path": (("samples", "datum"), "estimate from fewer samples, nats"),
    "path_std_error": (
        ("samples", "datum"),
        "standard error of one estimate from fewer samples, nats",
    ),
}
FEW, MANY = 0.05, 0.5  # shares of data not ok, or for annealing, that trust can bear


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
        """Returns the estimate to go by: quadrature, or the lower bound to be trusted most.

        That is the first of importance sampling, annealing and naive sampling that is ok for
        nearly all data, else that nothing contradicts, else that nothing contradicts for most;
        else of annealing and importance sampling the higher: naive sampling may only have been
        lucky. One trusted as much that is clearly higher contradicts the first. ELBO and
        jackknife only stand beside.
        """
        estimates = self.ranked()
        if not estimates:
            bounds = [e for e in self.estimates.values() if e.kind.is_mean]
            return (bounds or list(self.estimates.values()))[0]
        if estimates[0].kind.exact:
            return estimates[0]
        trusted = [e for e in estimates if e.share("ok") >= 1 - FEW]
        for least in (1 - FEW, MANY):
            trusted = trusted or [e for e in estimates if e.trusted >= least]
        rivals = trusted or [e for e in reversed(estimates) if not e.kind.lucky]
        best = (rivals or estimates)[0]
        for other in rivals:  # all are lower bounds: a clearly higher one is nearer
            gap, error = self._difference(other.name, best.name)
            best = other if gap > (4 if trusted else 2) * error else best
        return best

    def ranked(self) -> list[Estimate]:
        """Returns the estimates that can answer the question, in the order of their ranks."""
        able = [e for e in self.estimates.values() if e.kind.rank is not None]
        return sorted(able, key=lambda e: e.kind.rank or 0)

    def count(self) -> str:
        """Returns how many data these are, and of how many where rows were chosen."""
        n = len(next(iter(self.estimates.values())).value)
        there = self.protocol.get("rows_available", n)
        return f"{n:,} data" if n == there else f"{n:,} of {there:,} rows"

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
            lines.append(
                [self[name].label, *("-" if v is None else f.format(v) for f, v in cells)]
            )
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])])
            for cells in lines
        )

    def reading(self) -> str:
        """Returns what the table says, in words with its numbers."""
        estimates = self.ranked()
        if not estimates:
            return (
                "Only the ELBO was asked for: a lower bound of log P(X), by KL(q(z|x) || p(z|x)) "
                f"too low ({self.count()})."
            )
        best = self.best()
        lines = [
            f"log P(X) of these {self.count()} by {best.label}{self.how(best)}: "
            f"{best.mean:.3f} nats per datum, +- {best.monte_carlo_error:.4f} (samples) "
            f"+- {best.data_error:.3f} (data)."
        ]
        if common := self.protocol.get("common_latents"):
            lines.append(
                "The estimate is the predictive density, given what the guide knows of "
                f"{common}, common to all data; naive sampling draws that from the prior."
            )
        if "elbo" in self.estimates:
            gap, error = self._difference(best.name, "elbo")
            least = "" if best.share("ok") >= 1 - FEW else "at least "
            lines.append(
                f"The ELBO lies {gap:.3f} +- {error:.3f} nats below the estimate. The guide costs "
                f"{least}that much: the mean of KL(q(z|x) || p(z|x))."
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
        variables: dict[str, tuple[tuple[str, ...], Any, str]] = {
            v: (
                ("estimator", *dims),
                torch.stack([getattr(self[name], v) for name in names]),
                text,
            )
            for v, (dims, text) in TABLES.items()
        }
        words = [self[name].verdict() for name in names]
        variables["verdict"] = (
            ("estimator", "datum"),
            np.array(words),
            "what the estimate is worth",
        )
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
        for f in fields(Confirmation):
            column = [getattr(self[name].confirmation, f.name) for name in names]
            text = f"of the second way: {f.name.replace('_', ' ')}"
            variables[f"second_{f.name}"] = (("estimator",), np.array(column), text)
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
        """Returns the evidence of which `to_xarray` made this Dataset, as of an `evidence.nc`.

        Raises:
            KeyError, ValueError: If it is another: something is missing, or of another kind.
        """
        estimates = {}
        for name in dataset["estimator"].values.tolist():
            kind(str(name))  # which knows it
            one = dataset.sel(estimator=name)
            for f, (dims, _) in TABLES.items():
                letter = "i" if f == "num_draws" else "f"
                if one[f].dims != dims or one[f].dtype.kind != letter:
                    raise ValueError(f"{f} of {name!r} is {one[f].dtype} over {one[f].dims}")
            columns = {f: torch.from_numpy(one[f].values.copy()) for f in TABLES}
            if f"{name}_batches" in dataset:
                columns["batches"] = torch.from_numpy(dataset[f"{name}_batches"].values.copy())
            scalars = {f: one[f].item() for f in ("seconds", "tolerance")}
            if "second_reason" in dataset:  # evidence of before has none
                second = [f.name for f in fields(Confirmation) if f"second_{f.name}" in dataset]
                kept = {f: one[f"second_{f}"].item() for f in second}
                scalars["confirmation"] = Confirmation(**kept)
            estimates[name] = Estimate(name, **columns, **scalars)
        protocol = {k: _plain(v) for k, v in dataset.attrs.items() if k != "sha256"}
        return cls(estimates, tuple(dataset["samples"].values.tolist()), protocol)

    def _bits_per_dim(self, e: Estimate) -> float | None:
        dims = self.protocol.get("dims")
        return -e.mean / (dims * log(2)) if dims and self.protocol.get("discrete") else None

    def _difference(self, one: str, other: str) -> tuple[float, float]:
        """Returns mean(one - other) and its standard error over data; both saw the same data."""
        d = self[one].value - self[other].value
        return d.mean().item(), d.std().item() / sqrt(len(d)) if len(d) > 1 else torch.nan

    def how(self, e: Estimate) -> str:
        """Returns how an estimate was made, as it follows its label: ", K = 5,000", or ""."""
        how = e.kind.how(e, self.protocol)
        return f", {how}" if how else ""

    def _beside(self, other: Estimate, best: Estimate) -> str:
        """Returns how another estimator compares with the best."""
        gap, error = self._difference(best.name, other.name)
        short = f"{gap:.3f} +- {error:.3f} nats"
        higher = f"lies {-gap:.3f} +- {error:.3f} nats higher"
        how = self.how(other)
        text = f"{other.label.capitalize()}{how}{',' * bool(how)} " + (
            f"falls {short} short"
            if gap > 2 * error
            else higher
            if gap < -2 * error
            else f"agrees ({abs(gap):.3f} +- {error:.3f} nats {'below' if gap > 0 else 'above'})"
        )
        if not other.kind.weighed:
            return f"{text}."
        return (
            f"{text}; its median ESS is {other.ess.median():.1f}, and its own Monte Carlo error "
            f"says {other.monte_carlo_error:.4f}."
        )

    def _trust(self, best: Estimate) -> str:
        """Returns whether the best estimate can be trusted, and for which data it cannot."""
        words = best.verdict()
        counts = "; ".join(f"{w}: {words.count(w)}" for w in dict.fromkeys(["ok", *words]))
        if best.kind.exact:
            worst = f"estimated error at most {best.std_error.max():.1e} nats"
            left = set(words) != {"ok"}
            return f"It is not exact everywhere ({counts})." if left else f"It is exact: {worst}."
        facts = f"{best.kind.facts(best)} (verdicts: {counts})"
        second = f"{best.confirmation}" if best.trusted or not best.confirmation.reason else ""
        if best.share("ok") >= 1 - FEW:
            text = f"The estimate can be trusted: {facts}."
        elif best.trusted >= 1 - FEW:
            text = f"Nothing contradicts the estimate, as a lower bound: {facts}."
        elif best.share("use ais") <= MANY:
            text = f"Trust it as a lower bound: {facts}; {best.kind.advice}."
        else:
            text = (
                f"It cannot be trusted as more than a lower bound: {facts}; the proposal misses "
                "mass, and the standard error does not notice. Add the estimator ais."
            )
        return f"{text} {second}".rstrip()


def _plain(value: Any) -> Any:
    """Returns an attribute of a Dataset as it was before `to_xarray` made it fit for netCDF."""
    if isinstance(value, str):
        return json.loads(value) if value in ("true", "false", "null") else value
    return value.item() if isinstance(value, np.generic) else value


def _defined(value: float) -> float | None:
    return None if isnan(value) else value
