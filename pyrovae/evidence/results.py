"""What the estimators found: the table, its reading in words, and the data behind it."""

__all__ = ["Evidence"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan, log, sqrt
from textwrap import fill
from typing import Any

import torch

from pyrovae.equality import ByContent
from pyrovae.errors import NoDensity
from pyrovae.evidence.estimate import Estimate
from pyrovae.evidence.stored import from_dataset, to_dataset
from pyrovae.labelled import Dataset
from pyrovae.text import aligned

NONE = "no_log_p"  # under which a protocol says why there are no estimates
FEW, MANY = 0.05, 0.5  # shares of data not ok, or for annealing, that trust can bear


@dataclass(frozen=True, repr=False, eq=False)
class Evidence(ByContent):
    """What `evaluate` found; printed, it is the table, its reading and the protocol.

    Equal are those of equal numbers and protocols, however long they took. Without estimates it
    is that of a program which has no log P(X), and says why.

    Attributes:
        estimates: The estimators' results by name.
        num_samples: The G numbers of particles, from 1 to S, of the estimates' paths; none under
            "auto", which finds S by itself.
        protocol: What the numbers depend on: S, seed, rows, dtype, versions, model hash, and what
            the caller knows of the data.
    """

    estimates: Mapping[str, Estimate]
    num_samples: tuple[int, ...]
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        record = {k: str(v)[:12] if "sha256" in k else v for k, v in self.protocol.items()}
        parts = [self.table()] if self.estimates else []
        record.pop(NONE, None)  # which is the reading
        protocol = "Protocol: " + "; ".join(f"{k} {v}" for k, v in record.items())
        return "\n\n".join([*parts, self.reading(), fill(protocol, 99)])

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates[name]

    @classmethod
    def none(cls, why: NoDensity, protocol: Mapping[str, Any]) -> "Evidence":
        """Returns that of a program which has no log P(X).

        Args:
            why: What the program was refused with.
            protocol: What is on record of data and model.
        """
        text = str(why)
        said = {"factors": ", ".join(why.factors), NONE: f"{text[:1].upper()}{text[1:]}."}
        return cls({}, (), {**protocol, **said})

    def best(self) -> Estimate:
        """Returns the estimate to go by: an exact one, or the lower bound to be trusted most.

        That is the first, by rank, that is ok for nearly all data, else that nothing contradicts,
        else that nothing contradicts for most; else of all that look at the datum the one of the
        last rank, annealing before importance sampling: naive sampling may only have been lucky.
        One trusted as much that is clearly higher contradicts the first. Means of logs, such as
        the ELBO, and what is no bound only stand beside: of bounds alone the highest counts.

        "Nearly all" are 95 % of the data and "most" half of them. "Clearly higher" is by 4
        standard errors over data of the mean difference; by 2 where none is trusted.
        """
        estimates = self.ranked()
        if not estimates:
            bounds = self._means() or list(self.estimates.values())[:1]
            return max(bounds, key=lambda e: e.mean)
        if estimates[0].kind.bound == "exact":
            return estimates[0]
        trusted = _trusted(estimates)
        rivals = trusted or [e for e in reversed(estimates) if not e.kind.blind]
        best = (rivals or estimates)[0]
        for other in rivals:  # all are lower bounds: a clearly higher one is nearer
            gap, error = self._difference(other.name, best.name)
            best = other if gap > (4 if trusted else 2) * error else best
        return best

    def ranked(self) -> list[Estimate]:
        """Returns the estimates that can answer the question, in the order of their ranks.

        Of one rank those that are exact come first.
        """
        able = [e for e in self.estimates.values() if e.kind.bound in ("exact", "lower")]
        return sorted(able, key=lambda e: (e.kind.rank, e.kind.bound != "exact"))

    def _means(self) -> list[Estimate]:
        """Returns the bounds that are means of logs: ELBO and IWAE."""
        return [e for e in self.estimates.values() if e.kind.bound == "mean"]

    @property
    def target(self) -> str:
        """What was estimated, as the model says it: "log P(X)", or "log P(X|Y)"."""
        return str(self.protocol.get("target", "log P(X)"))

    def _divergence(self) -> str:
        """Returns what an ELBO lacks: "KL(q(z|x) || p(z|x))", given y as well where that is."""
        given = self.target.lower().removeprefix("log p(").removesuffix(")").replace("|", ", ")
        return f"KL(q(z|{given}) || p(z|{given}))"

    def count(self) -> str:
        """Returns how many data these are, and of how many where rows were chosen."""
        n = len(next(iter(self.estimates.values())).value)
        there = self.protocol.get("rows_available", n)
        if n != there:
            return f"{n:,} of {there:,} rows"
        return f"{n:,} data" if n > 1 else "1 datum"

    def rows(self) -> list[dict[str, Any]]:
        """Returns the table, one dict an estimator, `None` where a number is undefined.

        "nats" is the mean over data, nats per datum, higher is better, with two errors:
        "monte_carlo_error", what more particles would move, and "data_error", what other data
        would. "bits_per_dim" is -nats / (D log 2), of discrete data. "num_draws" is the mean S,
        "median_ess" and "min_ess" 1 to S, "bad_khat" a share of the data, "seconds" wall time.
        "sandwich" adds how many are "certified", and "lower" and "upper" of their mean, with
        errors.
        """
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
                **e.kind.reading.row(e),
            }
            for e in self.estimates.values()
        ]

    def table(self) -> str:
        """Returns the table as text, one row an estimator: what `rows` says, with "-" for none."""
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
            name, *values = list(row.values())[: len(forms) + 1]
            cells = zip(forms.values(), values, strict=True)
            lines.append(
                [self[name].label, *("-" if v is None else f.format(v) for f, v in cells)]
            )
        return "\n".join(aligned(lines, "<" + ">" * len(forms)))

    def reading(self) -> str:
        """Returns what the table says, in words with its numbers.

        The answer, by the estimate to go by; how far means of logs lie below it; what others say
        beside it; and whether it can be trusted, for how many of the data. Without estimates, why
        there are none.
        """
        if not self.estimates:
            return str(self.protocol.get(NONE, "Nothing was estimated."))
        if not self.ranked():
            return self._only_bounds()
        best = self.best()
        one = len(best.value) == 1
        lines = [
            f"{self.target} of {'this' if one else 'these'} {self.count()} by "
            f"{best.label}{self._spent(best)}: "
            f"{best.mean:.3f} nats per datum, +- {best.monte_carlo_error:.4f} (samples)"
            + ("." if one else f" +- {best.data_error:.3f} (data).")
        ]
        if common := self.protocol.get("common_latents"):
            lines.append(
                "The estimate is the predictive density, given what the guide knows of "
                f"{common}, common to all data; naive sampling draws that from the prior."
            )
        if factors := self.protocol.get("factors"):
            lines.append(
                f"The model has factors beside what it observes ({factors}): where with them it "
                "does not integrate to 1 over x, the numbers are "
                f"{self.target} but for a constant."
            )
        if unseen := self.protocol.get("rows_unseen"):
            lines.append(f"Of {unseen} of them nothing is seen: what is estimated there is 0.")
        for bound in self._means():
            gap, error = self._difference(best.name, bound.name)
            text = f"The {bound.label} lies {gap:.3f} +- {error:.3f} nats below the estimate."
            if bound.name == "elbo":
                least = "" if best.share("ok") >= 1 - FEW else "at least "
                text += f" The guide costs {least}that much: the mean of {self._divergence()}."
            lines.append(text)
        lines += [self._beside(other, best) for other in self.ranked() if other is not best]
        return "\n".join([*lines, self._trust(best)])

    def _only_bounds(self) -> str:
        """Returns what is to be said where nothing but bounds was asked for, or no bounds."""
        if set(self.estimates) == {"elbo"}:
            return (
                f"Only the ELBO was asked for: a lower bound of {self.target}, by "
                f"{self._divergence()} too low ({self.count()})."
            )
        best = self.best()
        bound = f"a lower bound of {self.target}, by an unknown gap"
        what = bound if self._means() else "no bound"
        return f"The {best.label}, {best.mean:.3f} nats per datum, is {what} ({self.count()})."

    def to_csv(self) -> list[str]:
        """Returns the per-datum results as lines of CSV: a datum a row, columns by estimator.

        Columns are "datum", the number of the row from 0, and of each estimator "<name>_value" and
        "<name>_std_error" (nats), "<name>_ess", "<name>_pareto_k", "<name>_num_draws", what else
        it says of a datum, such as "<name>_lower", and "<name>_verdict". The first line names
        them.
        """
        columns: dict[str, list[Any]] = {"datum": list(range(len(self.best().value)))}
        for name, e in self.estimates.items():
            for what in ("value", "std_error", "ess", "pareto_k", "num_draws"):
                columns[f"{name}_{what}"] = getattr(e, what).tolist()
            columns |= {f"{name}_{key}": column.tolist() for key, column in e.extras.items()}
            columns[f"{name}_verdict"] = e.verdict()
        return [",".join(map(str, row)) for row in (columns, *zip(*columns.values(), strict=True))]

    def to_xarray(self) -> Dataset:
        """Returns the per-datum results as an xarray Dataset, the protocol as its attributes."""
        return to_dataset(self.estimates, self.num_samples, self.protocol)

    @classmethod
    def from_xarray(cls, dataset: Dataset) -> "Evidence":
        """Returns the evidence of which `to_xarray` made this Dataset, as of an `evidence.nc`.

        Of an estimator whose module was not imported the results are read as those of plain
        weights; no file has code imported.

        Raises:
            KeyError, ValueError: If it is another: something is missing, or of another kind.
        """
        return cls(*from_dataset(dataset))

    def _bits_per_dim(self, e: Estimate) -> float | None:
        """Returns -nats / (D log 2) of discrete data of D dimensions; `None` of others.

        Of a density the number depends on the unit of x, and would not compare.

        Args:
            e: Results, mean in nats per datum.
        """
        dims = self.protocol.get("dims")
        return -e.mean / (dims * log(2)) if dims and self.protocol.get("discrete") else None

    def _difference(self, one: str, other: str) -> tuple[float, float]:
        r"""Returns mean(one - other) and its standard error, nats: over data, of one of samples.

        .. math::
            \bar d = \tfrac1N \sum_n d_n, \quad \mathrm{se} = \mathrm{std}(d) / \sqrt N

        Both saw the same data, so that the error is mostly far below those of the two means.

        Args:
            one: An estimator's name.
            other: Another's.

        Returns:
            Mean and error; that of one datum is of both estimates' samples.
        """
        d = self[one].value - self[other].value
        if len(d) > 1:
            return d.mean().item(), d.std().item() / sqrt(len(d))
        return d.item(), torch.hypot(self[one].std_error, self[other].std_error).item()

    def budget(self, e: Estimate) -> str:
        """Returns what was spent on each datum: "K = 5,000", "100 temperatures x 8 particles".

        Args:
            e: Results of an estimator, which says it in its own words; "" where it has none.
        """
        return e.budget(self.protocol)

    def _spent(self, e: Estimate) -> str:
        """Returns the same as it follows a label: ", K = 5,000", or "".

        Args:
            e: Results of an estimator.
        """
        budget = self.budget(e)
        return f", {budget}" if budget else ""

    def _beside(self, other: Estimate, best: Estimate) -> str:
        """Returns how another estimator compares with the best, datum by datum.

        Args:
            other: Its results.
            best: Those of the estimate to go by; beyond 2 errors a gap is more than noise.
        """
        gap, error = self._difference(best.name, other.name)
        short = f"{gap:.3f} +- {error:.3f} nats"
        higher = f"lies {-gap:.3f} +- {error:.3f} nats higher"
        spent = self._spent(other)
        text = f"{other.label[:1].upper()}{other.label[1:]}{spent}{',' * bool(spent)} " + (
            f"falls {short} short"
            if gap > 2 * error
            else higher
            if gap < -2 * error
            else f"agrees ({abs(gap):.3f} +- {error:.3f} nats {'below' if gap > 0 else 'above'})"
        )
        told = other.kind.reading.beside(other)
        return f"{text}; {told}." if told else f"{text}."

    def _trust(self, best: Estimate) -> str:
        """Returns whether the best estimate can be trusted, and for which data it cannot.

        Trusted is what is ok for 95 % of the data; as a lower bound, what nothing contradicts for
        as many, or what needs annealing for at most half of them.

        Args:
            best: The estimate to go by.
        """
        words = best.verdict()
        counts = "; ".join(f"{w}: {words.count(w)}" for w in dict.fromkeys(["ok", *words]))
        if best.kind.bound == "exact":
            worst = f"estimated error at most {best.std_error.max():.1e} nats"
            left = set(words) != {"ok"}
            return f"It is not exact everywhere ({counts})." if left else f"It is exact: {worst}."
        facts = f"{best.kind.reading.facts(best)} (verdicts: {counts})"
        asked = best.trusted or not best.confirmation.reason
        second = best.kind.reading.second(best) if asked else ""
        if best.share("ok") >= 1 - FEW:
            text = f"The estimate can be trusted: {facts}."
        elif best.trusted >= 1 - FEW:
            text = f"Nothing contradicts the estimate, as a lower bound: {facts}."
        elif best.share("use ais") <= MANY:
            text = f"Trust it as a lower bound: {facts}; {best.kind.reading.advice}."
        else:
            text = (
                f"It cannot be trusted as more than a lower bound: {facts}; the proposal misses "
                "mass, and the standard error does not notice. Add the estimator ais."
            )
        return f"{text} {second}".rstrip()


def _trusted(estimates: list[Estimate]) -> list[Estimate]:
    """Returns those that are ok for nearly all data, else not contradicted, else mostly so.

    Args:
        estimates: By rank, which stays their order.

    Returns:
        Those that reach the first of these levels that any reaches; none where no level is.
    """
    for least, share in (
        (1 - FEW, lambda e: e.share("ok")),
        (1 - FEW, lambda e: e.trusted),
        (MANY, lambda e: e.trusted),
    ):
        if trusted := [e for e in estimates if share(e) >= least]:
            return trusted
    return []


def _defined(value: float) -> float | None:
    """Returns a number, `None` for NaN: a table has no number there, and JSON has no NaN."""
    return None if isnan(value) else value
