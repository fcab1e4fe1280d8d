"""What the main job is asked for: its data, its model, and what is maximised."""

__all__ = ["Task", "task_of"]

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pyrovae.commands.common import check_device
from pyrovae.commands.named import (
    data_source,
    model_class,
    objective_named,
)
from pyrovae.commands.svi_options import GUIDED, UNGUIDED, Config, kept
from pyrovae.commands.users import check_takes, make_program, program_sha256

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from collections.abc import Callable

    from jsonargparse import Namespace
    from torch import Tensor

    from pyrovae.data import Split, Splits
    from pyrovae.data.rows import Rows
    from pyrovae.models.base import Model
    from pyrovae.program.binding import Pair
    from pyrovae.svi.objectives import Objective


class Task(NamedTuple):
    """What is asked for, with its data, its model and what is maximised.

    Attributes:
        config: What the command line asks for, resolved.
        kept: What of that goes into config.yaml.
        splits: The data.
        model: `None` of a program.
        pair: Model and guide, as callables.
        program: Digest of a program that is no model, else "".
        objective: What is maximised.
        criterion: What chooses the best epoch; `None` for the validation ELBO.
    """

    config: "Namespace"
    kept: Config
    splits: "Splits"
    model: "Model | None"
    pair: "Pair"
    program: str
    objective: "Objective"
    criterion: "Callable[..., Tensor] | None"

    def arrays(self, split: "Split") -> "tuple[Tensor | Rows, ...]":
        """Returns what model and guide take of a split, `(N, ...)` each.

        Where labels of the training data are hidden, a model is told none of the others.
        """
        from pyrovae.data import hide_labels

        if self.config.num_labels and split is not self.splits.train:
            split = hide_labels(split, 0)
        return self.model.arrays(split) if self.model else split.arrays


SHARE = 0.25  # of the rows with labels in a batch, where some are hidden


def task_of(config: "Namespace") -> Task:
    """Returns what is asked for, with nothing trained yet.

    Args:
        config: What is asked for; estimators that it leaves open are settled here.

    Raises:
        DataError: If the data cannot be had, or are not what the model takes.
        ValueError: If there is no such device, model or objective.
    """
    from pyrovae.commands.estimators import criterion_asked

    splits = _splits(config)
    check_device(config.device)
    objective = objective_named(config.objective)
    criterion = criterion_asked(config.criterion, config.plate)
    model = None if config.program else _model(kept(config), splits)
    pair = (model.model, model.guide) if model else _program(config, splits)
    config.estimators = config.estimators or list(GUIDED if pair[1] else UNGUIDED)
    digest = "" if model else program_sha256(pair)
    return Task(config, kept(config), splits, model, pair, digest, objective, criterion)


def _splits(config: "Namespace") -> "Splits":
    """Returns the data, of a program as they stand in the file.

    Args:
        config: What is asked for.

    Raises:
        DataError: If they cannot be had.
        ValueError: If labels are to be hidden of a program, or not evenly.
    """
    import pyrovae as pv
    from pyrovae.data.tables import with_classes
    from pyrovae.registry import names_table

    takes = () if config.program else model_class(config.model).inputs
    if config.num_labels and "y" not in takes:
        what = "a program" if config.program else f"the model {config.model}"
        raise ValueError(
            f"--num-labels is for a model that takes labels, such as semi-supervised-vae, and "
            f"{what} takes none"
        )
    if config.columns and names_table(config.data):
        config.columns = with_classes(config.data, config.columns)
    load = pv.data.load_arrays if config.program else pv.data.load
    splits = load(
        data_source(config.data),
        root=config.root,
        binarize=config.binarize,
        valid_size=config.valid_size,
        download=config.download,
        columns=config.columns,
    )
    if not config.num_labels:
        return splits
    train = pv.data.hide_labels(splits.train, config.num_labels, config.seed, share=SHARE)
    labels = {"num_labels": config.num_labels, "labels_seed": config.seed}
    return replace(splits, train=train, protocol={**splits.protocol, **labels})


def _model(config: Config, splits: "Splits") -> "Model":
    """Returns the model asked for, untrained: its weights are drawn from the run's seed.

    Args:
        config: What is asked for, as config.yaml has it.
        splits: The data, which decide sizes.

    Raises:
        ValueError: If there is no such model, or the data are not what it takes.
    """
    from pyrovae.commands.model_options import options_of
    from pyrovae.rng import seeded

    with seeded(config["seed"]):
        model = model_class(config["model"]).for_data(splits, **options_of(config))
    return model.to(config["device"])


def _program(config: "Namespace", splits: "Splits") -> "Pair":
    """Returns the program asked for, which takes these data.

    Args:
        config: What is asked for.
        splits: The data.

    Raises:
        ProgramError: If there is no such program, or making it fails.
        DataError: If it takes another number of arrays.
    """
    pair = make_program(config.program, config.seed, config.device)
    check_takes(pair, splits.train.arrays, f"--data {config.data}")
    return pair
