"""In which order data stand by a run's model: python -m pyrovae order RUN --data FILE."""

__all__ = ["main", "parser"]

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.commands.common import check_device, guarded
from pyrovae.commands.named import own_code
from pyrovae.commands.users import blamed

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from collections.abc import Sequence

    from jsonargparse import Namespace
    from torch import Tensor

    from pyrovae.commands.options import Parser
    from pyrovae.posteriors.ordering import Ordered
    from pyrovae.runs.saving import Pair

DOES = "Puts data in order by log P(x), or along a latent, with an interval of each rank."
EXAMPLES = (
    ("runs/a --out order.csv", "the run's own test part by log P(x), the lowest first"),
    ("runs/a --data new.npy --along 0", "along the first dimension of its latents"),
)


def parser() -> "Parser":
    """Returns the command line: a run's folder, data, and what their order is along."""
    from pyrovae.commands.options import COUNT, FACTOR, SEED, Parser, add_common, add_own_code
    from pyrovae.commands.tasks import add_data

    p = Parser(" order", DOES, EXAMPLES, "RUN [--data NAME]")
    p.add_argument("run", metavar="RUN", help="folder of python -m pyrovae.svi")
    add = p.add_argument_group("data and model").add_argument
    add_data(add)
    add_own_code(add)
    add("--plate", type=str | None, help="over the data (default: data)")
    add = p.add_argument_group("order").add_argument
    add(
        "--along",
        default="log_p",
        metavar="log_p|D",
        help="log_p, or the number of a dimension of the latents, from 0: its expectation given x",
    )
    add(
        "--against",
        type=str | None,
        metavar="FILE",
        help="a .npy with a number of each row, by which they stand in another order: how much "
        "both agree",
    )
    add("--prob", type=FACTOR, default=0.95, metavar="X", help="that an interval holds its rank")
    add(
        "--estimator",
        type=str | None,
        metavar="NAME",
        help="of log P(x), with options as in 'ais(100, 16)' (default: importance sampling from "
        "each datum's mode, where the program has a gradient)",
    )
    add("--num-particles", type=COUNT, default=1_000, metavar="S", help="draws per datum")
    add("--seed", type=SEED, default=0, metavar="N", help="of the draws")
    add("--top", type=COUNT, default=10, metavar="N", help="rows shown, evenly along the order")
    add("--out", type=str | None, metavar="FILE", help="for all rows in their order, as CSV")
    add = add_common(p)
    add("--workers", type=COUNT | None, metavar="N", help="processes that share log P(x)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 3 data, 5 run, 130 interrupted.

    Args:
        argv: Without the name of the command; `None` takes the process's own.
    """
    return guarded(lambda: run(parser().parse_args(argv)))


def run(config: "Namespace") -> int:
    """Prints the order, and writes it where a file is named; returns the exit code, 0.

    Args:
        config: The options.

    Raises:
        DataError, StateError, ValueError: If what is asked for is not there, or cannot be.
        ProgramError: If the user's code fails; the line is named.
    """
    import torch

    from pyrovae import storage
    from pyrovae.commands.tasks import check_out, names_of, of_data
    from pyrovae.data.rows import chosen
    from pyrovae.posteriors.ordering import HEADER

    with blamed(*own_code(vars(config))):
        check_device(config.device)
        check_out(config.out, HEADER)
        task = of_data(config, config.data)
        data = [chosen(x, config.rows)[:].to(config.device) for x in task.data]
        names = names_of(config, task).rows or range(len(task.data[0]))
        index = [names[i] for i in chosen(torch.arange(len(names)), config.rows)[:].tolist()]
        hidden = _hidden(config, len(names)) if config.against else None
        found = _ordered(config, task.pair, data, None if task.plate == "none" else task.plate)
        agreed = (
            {}
            if hidden is None
            else {"spearman": found.spearman(hidden), "kendall": found.kendall(hidden)}
        )
    if config.out:
        storage.write_lines(Path(config.out), found.to_csv(index))
    said = f"{task.protocol['data']}, {task.protocol['part']}"
    parts = [f"data: {said}", found.reading(), found.table(config.top, index=index)]
    if agreed:
        told = "Spearman's correlation with {} is {:.3f}, Kendall's tau-b {:.3f}{}."
        sign = "" if config.along == "log_p" else "; along a latent the sign says nothing"
        parts.append(told.format(config.against, *agreed.values(), sign))
    if config.out:
        parts.append(f"file: {config.out}")
    print("\n\n".join(parts), file=sys.stderr if config.json else sys.stdout)
    if config.json:
        named = {"order": [index[i] for i in found.order.tolist()]}
        print(json.dumps({"run": config.run, "data": said, **found.summary(), **agreed, **named}))
    return 0


def _hidden(config: "Namespace", size: int) -> "Tensor":
    """Returns the numbers of `--against` of the rows that are put in order, `(n,)`.

    Args:
        config: The options.
        size: Rows that there are.

    Raises:
        DataError: If the file has no number of each row.
    """
    from pyrovae import data
    from pyrovae.data.rows import chosen

    (hidden, *more) = data.read_tensors(Path(config.against))
    if more or tuple(hidden.shape) != (size,):
        shape = "several arrays" if more else f"shape {tuple(hidden.shape)}"
        raise data.DataError(
            f"{config.against} is of {shape}; give a number of each of the {size:,} rows"
        )
    return chosen(hidden, config.rows)[:]


def _ordered(
    config: "Namespace", pair: "Pair", data: "Sequence[Tensor]", plate: str | None
) -> "Ordered":
    """Returns data in order.

    Args:
        config: The options.
        pair: Model and guide.
        data: As the program takes them.
        plate: Over the data.
    """
    import pyrovae as pv
    from pyrovae.commands.estimators import estimator_asked

    size, asked, along = config.num_particles, config.estimator, config.along
    of_log_p: dict[str, Any] = {}
    if along == "log_p":
        of_log_p = {name: config[name] for name in ("compile", "workers", "progress")}
    elif config.compile or config.workers:
        raise ValueError("--compile and --workers are of log P(x); leave them out along a latent")
    return pv.order(
        *pair,
        *data,
        along=int(along) if along.removeprefix("-").isdecimal() else along,
        prob=config.prob,
        estimator=asked and estimator_asked(asked, "estimator", size),
        seed=config.seed,
        num_particles=size,
        plate=plate,
        **of_log_p,
    )
