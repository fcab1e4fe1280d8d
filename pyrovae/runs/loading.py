"""A run folder read back: its options, its data, and what it learned."""

__all__ = ["Run", "read_run"]

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from pyrovae import data
from pyrovae.data.rows import Rows
from pyrovae.data.sets import Source
from pyrovae.data.splits import Split, Splits
from pyrovae.likelihoods import Column, Columns
from pyrovae.models.base import Model
from pyrovae.registry import names_table
from pyrovae.runs.config import Config, read_config
from pyrovae.runs.saving import Pair, holds_program, load


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        folder: Where it lies.
        config: Its options.
        model: What was trained; `None` where that is a program.
        program: The (model, guide) of a program, made anew; `None` where nobody gave it.
    """

    folder: Path
    config: Config
    model: Model | None
    program: Pair | None = None

    @property
    def pair(self) -> Pair | None:
        """Model and guide; `None` of a program that nobody gave."""
        return (self.model.model, self.model.guide) if self.model else self.program

    def arrays(self, split: Split) -> tuple[Tensor | Rows, ...]:
        """Returns what model and guide take of a split, `(N, ...)` each.

        Args:
            split: Of the data; of a model its `inputs` say what is taken, of a program it is all
                but labels. Where labels of the training data were hidden, a model is told none of
                other data: what is evaluated is log P(X).
        """
        if self.config.get("num_labels"):
            split = data.hide_labels(split, 0)
        return self.model.arrays(split) if self.model else split.arrays

    @property
    def table(self) -> tuple[Column, ...]:
        """The columns of the table that its model is of; none of others."""
        likelihood = getattr(self.model, "likelihood", None)
        return likelihood.columns if isinstance(likelihood, Columns) else ()

    @property
    def columns(self) -> dict[str, object]:
        """What a table's columns are, as `pyrovae.data.load` takes it: as the run has them.

        In its order; those that were set aside, or that it did not have, are set aside. `{}` of
        other data.
        """
        said = self.config.get("columns") or {}
        known = {c.name: asdict(c) for c in self.table}
        aside = {name: kind for name, kind in said.items() if name not in known}
        return {"*": "ignore", **aside, **known} if known else said

    def trained(self, *some: Tensor) -> Pair:
        """Returns model and guide with what was learned, put back where that is a program.

        Args:
            some: A few rows of data, on which a program is run to find its parameters.
        """
        if self.model:
            return self.model.model, self.model.guide
        assert self.program
        return load(self.folder, self.program, *some)

    def splits(
        self,
        source: "Source | None" = None,
        *,
        own: bool = True,
        root: str | None = None,
        binarize: str | None = None,
    ) -> Splits:
        """Returns the run's data, or others, divided as they would be for such a run.

        Args:
            source: The data; `None` for what the options name, which has to be known.
            own: Whether `source` is what the options name, divided as it was.
            root: Folder of the named data sets, where they are no longer where they were.
            binarize: Otherwise than the run.

        Raises:
            DataError: As `pyrovae.data.load`.
        """
        config = self.config
        read = data.load if self.model else data.load_arrays
        source = config["data"] if source is None else source
        return read(
            source,
            root=root or config["root"],
            binarize=binarize or config["binarize"],
            valid_size=config.get("valid_size") if own else None,
            columns=self.columns if names_table(source) else None,
        )


def read_run(folder: str | Path, program: Pair | None = None, device: str = "cpu") -> Run:
    """Returns what a run folder holds.

    Args:
        folder: Of a run.
        program: The (model, guide) of a run of a program, made anew.
        device: Where a model goes.

    Raises:
        StateError: If it holds no run, or one that cannot be read.
    """
    folder = Path(folder)
    without_model = holds_program(folder)
    config = read_config(folder)
    model = None if without_model else load(folder).to(device)
    return Run(folder, config, model, program)
