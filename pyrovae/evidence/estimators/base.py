"""What an estimator is: it holds its options, does its own work, and says what that is worth."""

__all__ = [
    "Bound",
    "Effort",
    "Estimator",
    "check_guide",
    "inspecting",
    "known",
    "path_grid",
    "unnumbered",
]

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import log10
from time import time
from typing import ClassVar, Generic, Literal, Self, TypeVar

import torch
from torch import Tensor

from pyrovae.evidence.confirmed import Confirmation
from pyrovae.evidence.estimators.reading import Exactness, Looseness, Reading, Results
from pyrovae.evidence.estimators.work import Columns, Guide, Inspected, Probe, Target, Work
from pyrovae.evidence.reductions import Reductions
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import Program, check_density, inspect
from pyrovae.registry import enter, import_all
from pyrovae.rng import draw_seed
from pyrovae.threads import one_at_a_time

Model = Callable[..., object]
Bound = Literal["exact", "lower", "mean", "none"]
READINGS = {"exact": Exactness(), "mean": Looseness()}  # of others it is that of weights
W = TypeVar("W")  # what an estimator computes of a block, and reads
kinds: "dict[str, type[Estimator]]" = {}  # by name, as they are defined; see `known`


@dataclass(frozen=True)
class Effort:
    """How much there is to do for a block, and how to do less, for a prediction of its cost.

    Attributes:
        amount: Units of work: particles, temperatures or data.
        part: Returns estimator, rows and work that do so many units.
        least: Units of the shortest probe.
        unit: What is counted, such as "decodes"; "" where nobody knows.
        count: How many of these.
        confirmation: Returns the seconds that `Estimator.confirm` takes at most, of the probe of
            the block, and a function that probes a block of another program.
        given: What a prediction by it takes for granted, in words, or "".
    """

    amount: int
    part: "Callable[[int], tuple[Estimator, range, Work]]"
    least: int = 4
    unit: str = ""
    count: float = 0.0
    confirmation: Callable[[Probe, Callable[[Program, range], Probe]], float] = lambda *_: 0.0
    given: str = ""


@dataclass(frozen=True)
class Estimator(Generic[W]):
    r"""An estimator of log p(x) with its options, a frozen dataclass; `evaluate` asks it for all.

    One of your own has a `name` and `weights`. By default these are log-weights, `(S, n)`, read as

    .. math::
        \log \hat p(x_n) = \log \tfrac1S \sum_s w_{sn}

    with the verdict of importance sampling, and confirmed by no second way. The methods stand in
    the order in which they are called; those from `program` on are rarely worth a definition.

    Attributes:
        name: What it is called in results and on command lines.
        label: The same in words.
        needs_guide: Whether it draws from the guide, or starts there.
        bound: What its value is: "exact", log p(x) but for a numerical error; "lower", the log of
            an unbiased estimate of p(x), in expectation too low by about half its squared standard
            error; "mean", a mean of such logs, lower by more than its error tells; "none".
        rank: Its place among those that are "exact" or "lower": that of the first one is 0.
        blind: Whether it proposes without a look at the datum, so that a high value may be luck.
        reading: How its results are put in words; by default as its bound asks.
        draws_from: The word for where its weights come from, which names blocks of them.
        keywords: Its options by the names that they go by in calls that name several estimators.
    """

    name: ClassVar[str]
    label: ClassVar[str] = ""
    needs_guide: ClassVar[bool] = False
    bound: ClassVar[Bound] = "lower"
    rank: ClassVar[int] = 4
    blind: ClassVar[bool] = False
    reading: ClassVar[Reading] = Reading()
    draws_from: ClassVar[str] = ""
    keywords: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        """Makes the class known by the name that it has of its own, and read as its bound is.

        Raises:
            TypeError: If another class has that name.
        """
        super().__init_subclass__()
        enter(kinds, cls)
        if "name" in vars(cls):
            cls.label = vars(cls).get("label", cls.name)
            cls.draws_from = vars(cls).get("draws_from", cls.name)
        if "bound" in vars(cls) and "reading" not in vars(cls):
            cls.reading = READINGS.get(cls.bound, Reading())

    @classmethod
    def of(cls, shared: Mapping[str, object], own: Mapping[str, object] | None = None) -> Self:
        """Returns the estimator with those of shared options that are its own.

        Args:
            shared: By the names in `keywords`; others are left out.
            own: By the names of its fields; they go before.
        """
        mine = {field: shared[word] for word, field in cls.keywords.items() if word in shared}
        return cls(**{**mine, **(own or {})})

    @one_at_a_time
    def __call__(
        self,
        model: Model,
        guide: Guide,
        *data: Tensor,
        seed: int | None = None,
        plate: str | None = "data",
    ) -> LogWeights | Tensor:
        """Returns the table of log-weights of all data, `(S, N)`, nats.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another; `None` where it needs none.
            data: Tensors of equal length N, as the program takes them.
            seed: Fixes the draws; `None` draws a seed.
            plate: Name of the plate over the data; `None` for all data as one.

        Raises:
            TypeError, ValueError: As `evaluate`.
        """
        return self.joined(list(self._blocks(model, guide, data, seed, plate)))

    @one_at_a_time
    def values(
        self,
        model: Model,
        guide: Guide,
        *data: Tensor,
        seed: int | None = None,
        plate: str | None = "data",
    ) -> Tensor:
        """Returns its estimate of log p(x) of each datum, `(N,)`, nats, float64, and no more.

        That is `pv.evaluate(..., estimators=[self])[name].value` without its error and verdict, in
        less time: a criterion for `pv.svi.fit(..., criterion=self)`.

        Args:
            model: A Pyro callable of `*data`.
            guide: Another; `None` where it needs none.
            data: Tensors of equal length N, as the program takes them.
            seed: Fixes the draws; `None` draws a seed.
            plate: Name of the plate over the data; `None` for all data as one, `(1,)`.

        Raises:
            TypeError, ValueError: As `evaluate`.
        """
        blocks = self._blocks(model, guide, data, seed, plate)
        return torch.cat([self.columns(block, ()).value for block in blocks])

    def _blocks(
        self,
        model: Model,
        guide: Guide,
        data: Sequence[Tensor],
        seed: int | None,
        plate: str | None,
    ) -> Iterator[W]:
        """Yields what `weights` returns of all blocks, in order."""
        check_guide([self], model, guide, data, plate)
        size = self.block_size(64)
        program = self.program(guide, inspecting(model, data, plate, size))
        seed, group = draw_seed(seed), self.target.group_size
        groups = () if group is None else (group,)
        work = Work(seed, time(), group_sizes=groups, prepared=self.prepared(program, seed))
        return (self.weights(program, rows, work) for rows in program.blocks(size))

    def joined(self, blocks: Sequence[W]) -> LogWeights | Tensor:
        """Returns what it computed of all blocks as a call returns it: their table, `(S, N)`.

        Args:
            blocks: What `weights` returned, in order.

        Raises:
            TypeError: If that is no `LogWeights`.
        """
        tables = [block.log_w for block in blocks if isinstance(block, LogWeights)]
        if len(tables) < len(blocks):
            raise TypeError(
                f"{type(self).__name__} makes no table of log-weights; see pv.evaluate"
            )
        return LogWeights(torch.cat(tables, dim=-1))

    def weights(self, program: Program, rows: range, work: Work) -> W:
        """Returns what it computes of a block of n data: as a rule `LogWeights`, `(S, n)`, nats.

        Args:
            program: What `program` returned, as functions of tensors: see `pyrovae.program`.
            rows: The block's rows, by number.
            work: The seed above all; a block is to depend on nothing but these three.
        """
        raise NotImplementedError(f"{type(self).__name__} has no weights; define them")

    def columns(self, weights: W, grid: tuple[int, ...]) -> Columns:
        """Returns what is read of a block's weights, by datum, nats.

        Args:
            weights: What `weights` returned.
            grid: Numbers of particles at which a path is asked for.
        """
        w = self._by_datum(weights)
        found = w.log_evidence(), w.std_error(), w.num_draws, grid
        return Columns.of(*found, ess=w.ess(), pareto_k=w.pareto_k())

    def extras(self, weights: W) -> dict[str, Tensor]:
        """Returns what else is read of a block's weights, by name, `(n,)` each, float64.

        Args:
            weights: What `weights` returned.
        """
        return {}

    def program(self, guide: Guide, inspected: Inspected) -> Program:
        """Returns the program that it runs, checked, of the guide given or none.

        Args:
            guide: That of the evaluation.
            inspected: Returns the program of the evaluation's model and data with a guide.
        """
        return inspected(guide if self.needs_guide else None)

    def prepared(self, program: Program, seed: int) -> object:
        """Returns what is done once, before all blocks, which find it in their `Work`.

        Args:
            program: What `program` returned.
            seed: Of the evaluation; take random streams of your own.
        """
        return None

    def confirm(self, program: Program, e: Results, good: Tensor, work: Work) -> Confirmation:
        """Returns what a second, different way says of the results.

        Args:
            program: What `program` returned.
            e: The results of all N data.
            good: Which of them their weights do not contradict, `(N,)`.
            work: What blocks were computed with.
        """
        return Confirmation(reason=f"no second way is known of {self.label}")

    def effort(self, program: Program, rows: range, work: Work) -> Effort:
        """Returns what there is to do for a block, of which a prediction of the cost is made.

        Args:
            program: That of all data.
            rows: Of the block.
            work: What it is computed with.
        """
        return Effort(1, lambda amount: (self, rows, work))

    def options(self) -> dict[str, object]:
        """Returns the options that the protocol is to name: where they are no default."""
        words = {own: word for word, own in self.keywords.items()}
        found = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        return {
            words.get(name, f"{self.name}_{name}"): value
            for name, (value, default) in found.items()
            if name in words or value != default
        }

    @property
    def title(self) -> str:
        """Its label, with the option that tells it from others of its kind."""
        return self.label

    @property
    def source(self) -> "Estimator":
        """The estimator whose weights it reads: those of equal ones are computed once."""
        return self

    @property
    def target(self) -> Target:
        """What it aims at with its particles."""
        return Target()

    def block_size(self, asked: int) -> int:
        """Returns how many data it takes at once, where so many are asked for."""
        return asked

    def check_guide(self, guide: Guide) -> None:
        """Raises ValueError where it needs a guide and none is given."""
        if guide is None and self.needs_guide:
            raise ValueError(
                f"estimator {self.name!r} needs a guide; pass one, or ask for 'prior' alone"
            )

    def _by_datum(self, weights: W) -> Reductions:
        """Returns weights to be reduced; those of all data as one, `(S,)`, as a column."""
        if isinstance(weights, LogWeights) and weights.log_w.ndim == 1:
            return LogWeights(weights.log_w[:, None])
        if isinstance(weights, Reductions):
            return weights
        raise TypeError(
            f"the weights of {type(self).__name__} are a {type(weights).__name__}; return "
            "pv.LogWeights, or define columns, too"
        )


def check_guide(
    estimators: Iterable[Estimator],
    model: Model,
    guide: Guide,
    data: Sequence[object],
    plate: str | None,
) -> None:
    """Raises ValueError where estimators need a guide and none is given, or nobody needs any.

    Args:
        estimators: That are asked for.
        model: A Pyro callable of `*data`; one without a log P(X) needs no guide either.
        guide: Another; or `None`.
        data: As `pyrovae.program.inspect` takes them.
        plate: Name of the plate over the data; `None` for all data as one.
    """
    try:
        for e in estimators:
            e.check_guide(guide)
    except ValueError:
        check_density(model, *data, plate=plate)
        raise


def inspecting(
    model: Model, data: Sequence[object], plate: str | None, block_size: int
) -> Inspected:
    """Returns what makes the checked program of a model and its data with a guide.

    Args:
        model: A Pyro callable of `*data`.
        data: As `pyrovae.program.inspect` takes them.
        plate: Name of the plate over the data; `None` for all data as one.
        block_size: Data per block.
    """

    def inspected(guide: Guide) -> Program:
        return inspect(model, guide, *data, plate=plate, block_size=block_size)

    return inspected


def known() -> dict[str, type[Estimator]]:
    """Returns all classes by name, first those that only stand beside, then by their rank."""
    import_all("pyrovae.evidence.estimators")
    beside = {name: cls.bound in ("mean", "none") for name, cls in kinds.items()}
    order = sorted(kinds, key=lambda name: -1 if beside[name] else kinds[name].rank)
    return {name: kinds[name] for name in order}


def unnumbered(name: str) -> str:
    """Returns the name of which "importance_2" is the second."""
    return re.sub(r"_\d+$", "", name)


def path_grid(num_particles: int) -> tuple[int, ...]:
    """Returns about five numbers of particles a decade, from 1 to S.

    Example:
        >>> path_grid(10)
        (1, 2, 3, 4, 6, 10)
    """
    points = max(2, round(5 * log10(num_particles)) + 1) if num_particles > 1 else 1
    return tuple(
        dict.fromkeys(round(num_particles ** (i / max(1, points - 1))) for i in range(points))
    )
