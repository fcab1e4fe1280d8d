"""What an estimator is: it holds its options, does its own work, and says what that is worth."""

__all__ = [
    "FIELDS",
    "Columns",
    "Estimator",
    "Guide",
    "Inspected",
    "Probe",
    "Results",
    "Work",
    "found",
    "kind",
    "kinds",
    "made",
    "no_path",
    "path_grid",
    "table",
]

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import log10
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from pyrovae.checks import shown
from pyrovae.evidence.confirmed import Confirmation
from pyrovae.evidence.samplers.chunks import at_once
from pyrovae.evidence.weights import VERDICTS, thresholds, verdicts
from pyrovae.program import Program

Guide = Callable[..., Any] | None
Inspected = Callable[[Guide], Program]
Columns = tuple[Tensor, ...]  # in the order of FIELDS
FIELDS = "value", "std_error", "ess", "pareto_k", "num_draws", "path", "path_std_error"
kinds: "dict[str, type[Estimator]]" = {}


@dataclass(frozen=True)
class Work:
    """What a block is computed with: nothing else but the program and its rows decides it.

    Attributes:
        seed: Fixes the draws.
        start: When the evaluation began, by the clock.
        chunk: Particles x data decoded at once.
        grid: Numbers of draws, S, at which the path of the estimate is taken down.
        once: What `Estimator.prepared` returned.
    """

    seed: int
    start: float = 0.0
    chunk: int = 4096
    grid: tuple[int, ...] = ()
    once: Any = None


class Results(Protocol):
    """What a verdict is read from: an `Estimate`, per datum."""

    @property
    def name(self) -> str: ...  # noqa: D102, as `Estimate` says
    @property
    def value(self) -> Tensor: ...  # noqa: D102
    @property
    def std_error(self) -> Tensor: ...  # noqa: D102
    @property
    def ess(self) -> Tensor: ...  # noqa: D102
    @property
    def pareto_k(self) -> Tensor: ...  # noqa: D102
    @property
    def num_draws(self) -> Tensor: ...  # noqa: D102
    @property
    def tolerance(self) -> float: ...  # noqa: D102
    @property
    def confirmation(self) -> Confirmation: ...  # noqa: D102
    @property
    def bad(self) -> float: ...  # noqa: D102


class Probe(NamedTuple):
    """What a block takes, how much longer its first run does, and a draw or temperature of it."""

    seconds: float
    first: float
    slope: float


@dataclass(frozen=True)
class Estimator:
    """An estimator of log p(x) with its options: `evaluate` asks it for all that it does.

    One of your own is a frozen dataclass that has a `name` and `weights`; by default it is read as
    the log of the mean weight, and confirmed by nothing. It is known by its name once its module
    is imported.

    Attributes:
        name: What it is called in results and on command lines.
        label: The same in words.
        needs_guide: Whether it draws from the guide, or starts there.
        rank: Its place among those that answer the question, the first one 0; `None` for those
            that only stand beside.
        biased: Whether it is the log of an unbiased estimate of p(x): in expectation a lower
            bound, by about half its squared standard error.
        exact: Whether its error is numerical, not one of draws.
        is_mean: Whether it is the mean of log-weights, such as the ELBO.
        lucky: Whether it may only be lucky where nothing is trusted.
        confirmed: Whether a second way decides if it is ok.
        weighed: Whether ESS and own error are worth a sentence beside another.
        worse: Its verdict where the second way contradicts it.
        advice: What to do where it is no more than a lower bound.
        few: How much of its `amount` a probe of its cost begins with.
        flat: Its options, by the names that they go by where all estimators share one list.
    """

    name: ClassVar[str] = ""
    label: ClassVar[str] = ""
    needs_guide: ClassVar[bool] = False
    rank: ClassVar[int | None] = None
    biased: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    is_mean: ClassVar[bool] = False
    lucky: ClassVar[bool] = False
    confirmed: ClassVar[bool] = True
    weighed: ClassVar[bool] = True
    worse: ClassVar[str] = "use ais"
    advice: ClassVar[str] = "draw more samples, or add the estimator ais"
    few: ClassVar[int] = 4
    flat: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        """Makes the class known by its name."""
        if cls.name:
            kinds[cls.name] = cls
            cls.label = cls.label or cls.name

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> Self:
        """Returns the estimator with those of the shared options that are its own."""
        return cls(**{own: options[name] for name, own in cls.flat.items() if name in options})

    def __call__(
        self,
        model: Callable[..., Any],
        guide: Guide,
        *data: Tensor,
        seed: int | None = None,
        plate: str | None = "data",
    ) -> Any:
        """Returns its own table of weights, or values, of all data: as the function of its name.

        Args:
            model: Any Pyro callable of `*data`.
            guide: Another; `None` where it needs none.
            data: Tensors of equal length N, as the program takes them.
            seed: Fixes the draws; `None` draws a seed.
            plate: Name of the plate over the data; `None` for all data as one.

        Raises:
            TypeError, ValueError: As `evaluate`.
        """
        return self.alone(model, guide, *data, seed=seed, plate=plate)

    def alone(self, model: Callable[..., Any], guide: Guide, *data: Tensor, **how: Any) -> Any:
        """Returns what calling it does; `how` are seed and plate."""
        raise NotImplementedError(f"{type(self).__name__} has no table of its own; see evaluate")

    @property
    def source(self) -> "Estimator":
        """The estimator whose weights it reads: equal ones are computed once."""
        return self

    @property
    def draws_from(self) -> str:
        """A word for where its weights come from, which names blocks of them."""
        return self.name

    @property
    def sizes(self) -> int | None:
        """How many draws it makes, for the path of the estimate; `None` where it has none."""
        return None

    @property
    def tolerance_asked(self) -> float:
        """Standard error that its verdict asks for, nats."""
        return torch.inf

    def options(self) -> dict[str, Any]:
        """Returns what of its options its numbers depend on, for the protocol."""
        return {name: getattr(self, own) for name, own in self.flat.items()}

    def block_size(self, asked: int) -> int:
        """Returns how many data it takes at once, where so many are asked for."""
        return asked

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the program that it runs, checked, of the guide given or none.

        Args:
            guide: That of the evaluation.
            inspected: Returns the program of the evaluation's model and data with a guide.
        """
        return inspected(guide if self.needs_guide else None)

    def chunk(self, program: Program, threads: int) -> int:
        """Returns how many particles x data it decodes at once."""
        return at_once(program, threads)

    def prepared(self, program: Program, seed: int) -> Any:
        """Returns what is done once, before all blocks."""
        return None

    def weights(self, program: Program, rows: range, work: Work) -> Any:
        """Returns the weights of a block, which `columns` reads."""
        raise NotImplementedError(f"{type(self).__name__} has no weights; define them")

    def columns(self, weights: Any, grid: tuple[int, ...]) -> Columns:
        """Returns what it reads of a block's weights, by datum, in the order of `FIELDS`."""
        return (*found(weights), *no_path(weights.log_evidence(), grid))

    def batches(self, program: Program, weights: Any) -> Tensor | None:
        """Returns estimates by batch of draws `(B, n)`, where data share these; else `None`."""
        return None

    def confirm(self, program: Program, e: Results, good: Tensor, work: Work) -> Confirmation:
        """Returns what a second, different way says of its results, of which some look good."""
        return Confirmation(reason=f"no second way is known of {self.label}")

    @classmethod
    def own_verdict(cls, e: Results) -> list[str]:
        """Returns what the weights of each datum say alone, in words: at best not contradicted."""
        columns = e.pareto_k, e.ess, e.std_error, e.num_draws, e.tolerance
        return [VERDICTS[i] for i in verdicts(*columns).tolist()]

    @classmethod
    def verdict(cls, e: Results) -> list[str]:
        """Returns for each datum what its estimate is worth, in words."""
        words = cls.own_verdict(e)
        if e.confirmation.exact:
            return ["ok"] * len(words)
        if (agrees := e.confirmation.agrees) is None:
            return words
        known = e.confirmation.speaks_of(e.std_error).tolist()
        return [
            (("ok" if k else w) if agrees else cls.worse) if w == VERDICTS[0] else w
            for w, k in zip(words, known, strict=True)
        ]

    @classmethod
    def how(cls, e: Results, protocol: Mapping[str, Any]) -> str:
        """Returns how its numbers were made, in words: "K = 5,000", or "K = 128 to 40,000"."""
        low, high = int(e.num_draws.min()), int(e.num_draws.max())
        return f"K = {high:,}" if low == high else f"K = {low:,} to {high:,}"

    @classmethod
    def facts(cls, e: Results) -> str:
        """Returns in words what speaks for its results, or against them."""
        limit = thresholds(e.num_draws).max().item()
        return (
            f"k-hat is bad (above {limit:.2f}) for {e.bad:.1%} of the data, median ESS "
            f"{e.ess.median():.0f}, smallest {e.ess.min():.1f}"
        )

    # what it costs

    def amount(self, rows: range) -> int:
        """Returns how much there is to do for a block, in the unit of `smaller`."""
        return 1

    def smaller(self, amount: int, rows: range, work: Work) -> "tuple[Estimator, range, Work]":
        """Returns what does so much of a block's work."""
        return self, rows, work

    def counted(self, program: Program, num_blocks: int) -> tuple[str, float]:
        """Returns what is counted of its work, "" where nobody knows, and how much there is."""
        return "", 0.0

    def second_seconds(
        self, program: Program, rows: range, probe: Probe, again: Callable[..., Probe]
    ) -> float:
        """Returns the seconds that its second way takes at most, by what a block of it took.

        Args:
            program: That of all data.
            rows: Of the block.
            probe: What that took.
            again: Probes a block of another program.
        """
        return 0.0


def kind(name: str) -> type[Estimator]:
    """Returns the class of an estimator by its name, or by that of the second of its kind.

    Raises:
        ValueError: If there is none; the nearest are named.
    """
    name = re.sub(r"_\d+$", "", name)
    if name in kinds:
        return kinds[name]
    near = get_close_matches(name, kinds, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"choose from {_listed()}"
    raise ValueError(f"there is no estimator {name!r}; {hint}")


def made(estimators: Iterable[Any], options: Mapping[str, Any]) -> dict[str, Estimator]:
    """Returns estimators by name, of objects and of names, which stand for objects.

    Those of names take the options that are theirs. The second of a kind is called by its name
    and a number: "importance_2".

    Raises:
        TypeError: If it is no list of such, or an option is no estimator's.
        ValueError: If there is no such estimator, or none at all.
    """
    given = _given(estimators)
    known = {option for cls in kinds.values() for option in cls.flat}
    if other := [name for name in options if name not in known]:
        near = get_close_matches(other[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(sorted(known))}"
        raise TypeError(f"there is no option {other[0]!r}; {hint}")
    for cls in kinds.values():
        cls.of_options(options)  # which checks them, of those too that are not asked for
    named: dict[str, Estimator] = {}
    for e in given:
        e = kind(e).of_options(options) if isinstance(e, str) else e
        count = sum(other.name == e.name for other in named.values())
        named[f"{e.name}_{count + 1}" if count else e.name] = e
    return named


def _given(estimators: Any) -> list[Any]:
    """Returns estimators that are asked for, each once; TypeError or ValueError if none are."""
    listed = isinstance(estimators, Iterable) and not isinstance(estimators, str)
    given = list(dict.fromkeys(estimators)) if listed else []
    if not listed or not all(isinstance(e, str | Estimator) for e in given):
        raise TypeError(
            f"estimators is {shown(estimators)}; give a list of names, such as ['elbo', 'ais'], "
            "or of objects, such as [pv.AIS()]"
        )
    if not given:
        raise ValueError(f"no estimator was asked for; choose from {_listed()}")
    return given


def _listed() -> str:
    """Returns all names, first of those that only stand beside."""
    return ", ".join(
        sorted(kinds, key=lambda name: -1 if (rank := kinds[name].rank) is None else rank)
    )


def found(weights: Any) -> Columns:
    """Returns the estimate of log p(x), its error, ESS, k-hat and number of draws, `(n,)` each."""
    value, error = weights.log_evidence(), weights.std_error()
    return value, error, weights.ess(), weights.pareto_k(), weights.num_draws


def no_path(value: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Returns a path of NaN, and its errors, `(G, n)` each."""
    path = torch.full((len(grid), len(value)), torch.nan, dtype=torch.float64)
    return path, path


def table(log_w: Tensor) -> Tensor:
    """Returns log-weights `(S, n)`; joint ones `(S,)` are those of one datum."""
    return log_w if log_w.ndim > 1 else log_w[:, None]


def path_grid(num_particles: int) -> tuple[int, ...]:
    """Returns about five numbers of draws a decade, from 1 to S."""
    points = max(2, round(5 * log10(num_particles)) + 1) if num_particles > 1 else 1
    return tuple(
        dict.fromkeys(round(num_particles ** (i / max(1, points - 1))) for i in range(points))
    )
