"""By which estimator data are scored that a guide may not know: odd ones, and such with gaps."""

__all__ = [
    "MISSING",
    "TRUSTED",
    "ScoreOptions",
    "badness",
    "check_rows",
    "doubted",
    "held",
    "scored",
    "scorer",
    "trusted",
]

from collections import Counter
from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from pyrovae.checks import may_be_missing, shown
from pyrovae.errors import GuideError
from pyrovae.evidence.estimate import Estimate
from pyrovae.evidence.estimators.base import Estimator, inspecting
from pyrovae.evidence.estimators.best import Best
from pyrovae.evidence.estimators.exact import Exact
from pyrovae.evidence.estimators.importance import Importance
from pyrovae.evidence.estimators.names import estimator
from pyrovae.evidence.evaluate import evaluate
from pyrovae.evidence.samplers.laplace import Laplace
from pyrovae.evidence.samplers.options import RunOptions
from pyrovae.program import check_data, inspect, reproducible

Fn = Callable[..., object]
Asked = Estimator | str | None
WIDEST = 1.5  # scale of the usual normal; of few dimensions more would only cost draws
MISSING = "missing"
TRUSTED = "ok", "not contradicted"  # verdicts, in this order; all others are worse


class ScoreOptions(RunOptions, total=False):
    """How data are scored.

    Attributes:
        num_particles: S, of the usual estimator, and of one that is named.
        workers: Processes that share the blocks; `None` for none.
        progress: Show a bar; `None` does so on a terminal.
    """

    num_particles: int
    workers: int | None
    progress: bool | None


def held(model: Fn, data: Sequence[Tensor], name: str = "") -> tuple[Tensor, ...]:
    """Returns data in memory, of which the first is checked as `evaluate` checks it.

    Args:
        model: Says in which of them NaN is missing.
        data: Tables of equal length.
        name: Theirs in errors, where there are others.

    Raises:
        TypeError: If they are no tensors.
        DataError: If they are of unequal lengths, or a number is not finite; it is named.
    """
    try:
        check_data(data, missing=may_be_missing(model))
    except (TypeError, ValueError) as e:
        raise type(e)(f"{name}: {e}" if name else f"{e}") from e
    return tuple(d[:] for d in data)


def check_rows(model: Fn, guide: Fn | None, *data: Tensor, options: ScoreOptions) -> None:
    """Raises as `evaluate` does where a program cannot be evaluated on a row, and names that.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; or `None`.
        data: As the program takes them.
        options: The name of the plate.
    """
    program = inspect(model, guide, *data, plate=options.get("plate", "data"))
    for rows in program.blocks(program.block_size)[1:]:
        program.check_observed(rows)


def scorer(
    asked: Asked,
    model: Fn,
    guide: Fn | None,
    *data: Tensor,
    options: ScoreOptions,
    wider: float = 0.0,
) -> Estimator:
    r"""Returns the estimator that is asked for, or the usual one.

    The usual one is importance sampling from a normal at each datum's posterior mode,
    `pv.Laplace()`: where data are odd, guides extrapolate. Of a program without a gradient it
    draws from the guide. Without a guide latents are summed out, where they can be; else it is
    `pv.Best()`.

    Args:
        asked: An estimator, its name, or `None`.
        model: A Pyro callable of `*data`.
        guide: Another; or `None`.
        data: As the program takes them.
        options: S, and the name of the plate.
        wider: Of the usual normal, whose scale is 1 + wider / sqrt(d) in d latent dimensions, from
            1.1 to 1.5: width guards against heavy tails, and costs draws by the dimension.

    Raises:
        TypeError: If it is no estimator.
        ValueError: If it is a mean of logs, such as the ELBO, or the program is refused.
    """
    size, plate = options.get("num_particles", 1_000), options.get("plate", "data")
    if plate is None:
        raise ValueError("plate is None, and scores are each datum's; name the plate of the data")
    if isinstance(asked, str):
        asked = estimator(asked, num_particles=size)
    if asked is None:
        return _usual(model, guide, data, size, plate, wider)
    if not isinstance(asked, Estimator):
        raise TypeError(f"estimator is {shown(asked)}; give one, such as pv.AIS(), or its name")
    if asked.bound == "mean":
        raise ValueError(
            f"estimator {asked.name!r} is a bound that lies below log p(x) by an unknown gap, "
            "another for each datum; take 'importance', 'ais' or 'best'"
        )
    return asked


def scored(
    asked: Estimator,
    pair: tuple[Fn, Fn | None],
    data: Sequence[Tensor],
    seed: int,
    options: ScoreOptions,
) -> tuple[Estimate, str]:
    """Returns an estimator's results of data, and what they are of, such as "log P(X)".

    Args:
        asked: The estimator.
        pair: Model and guide.
        data: As the program takes them.
        seed: Fixes the draws.
        options: How it is done; S is the estimator's own.
    """
    run: dict[str, Any] = {k: v for k, v in options.items() if k != "num_particles"}
    found = evaluate(*pair, *data, estimators=[asked], seed=seed, **run)
    return found[asked.name], found.target


def trusted(words: Sequence[str]) -> Tensor:
    """Returns which verdicts say that nothing speaks against a number, `(N,)`."""
    return torch.tensor([word in TRUSTED for word in words])


def doubted(words: Sequence[str]) -> tuple[int, str]:
    """Returns how many verdicts speak against a number, and which: "use ais: 2; a bound: 1"."""
    found = Counter(word for word in words if word not in TRUSTED)
    return found.total(), "; ".join(f"{word}: {count:,}" for word, count in found.items())


def badness(word: str) -> float:
    """Returns the rank of a verdict, the higher the worse; what is missing comes first."""
    if word == MISSING:
        return -1
    return TRUSTED.index(word) if word in TRUSTED else len(TRUSTED)


def _usual(
    model: Fn,
    guide: Fn | None,
    data: Sequence[Tensor],
    num_particles: int,
    plate: str,
    wider: float,
) -> Estimator:
    """Returns the usual estimator of a program.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; or `None`.
        data: As the program takes them.
        num_particles: S.
        plate: Name of the plate over the data.
        wider: As of `scorer`.
    """
    if guide is None:
        try:
            Exact().program(None, inspecting(model, data, plate, 64))
        except GuideError:
            return Best()
        return Exact()
    program = inspect(model, guide, *data, plate=plate)
    try:
        with reproducible(0):
            Laplace().path(program, program.blocks(1)[0])
    except ValueError:  # no gradient, or no latent left; what else is wrong is met again
        return Importance(num_particles)
    scale = 1 + wider / sqrt(max(1, program.latent_size))
    scale = min(max(scale, Laplace.scale), WIDEST)
    return Importance(num_particles, proposal=Laplace(scale))
