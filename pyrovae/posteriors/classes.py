"""Which class: Bayes' rule over log P(x|y), with calibrated probabilities and "none of these"."""

__all__ = ["classify"]

from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from math import isclose, log
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from pyrovae.checks import check_options, is_at_least, shown
from pyrovae.evidence.estimators.base import Estimator
from pyrovae.posteriors.classified import Classified, labels_of
from pyrovae.posteriors.conformal import check_calibration, mixed
from pyrovae.posteriors.scores import (
    Fn,
    ScoreOptions,
    check_rows,
    held,
    scored,
    scorer,
)
from pyrovae.posteriors.tempering import temperature_of
from pyrovae.program import inspect
from pyrovae.rng import draw_seed, stream_seed
from pyrovae.threads import one_at_a_time

STREAM = 53  # of random numbers, and the one that follows
WIDER = 1.2  # given a class that is not theirs data have posteriors with heavier tails


class ClassOptions(ScoreOptions, total=False):
    """How data are classified.

    Attributes:
        classes: C, of one model of (x, y); `None` for as many as its `y_dim`.
    """

    classes: int | None


class _Programs(NamedTuple):
    """What gives log P(x|c) of each class.

    Attributes:
        pairs: Model and guide of each class.
        labelled: Whether they take (x, y), and are one.
    """

    pairs: list[tuple[Fn, Fn | None]]
    labelled: bool

    def data(self, x: Tensor, c: int) -> tuple[Tensor, ...]:
        """Returns what the programs of a class take, `(N, ...)` each.

        Args:
            x: Data.
            c: The class.
        """
        return (x, torch.full((len(x),), c, device=x.device)) if self.labelled else (x,)


@one_at_a_time
def classify(
    model: Fn | Sequence[Fn],
    guide: Fn | Sequence[Fn | None] | None,
    x: Tensor,
    *,
    prior: Tensor | Sequence[float] | None = None,
    calibration: tuple[Tensor, Tensor] | None = None,
    false_alarms: float = 0.05,
    estimator: Estimator | str | None = None,
    seed: int | None = None,
    **options: Unpack[ClassOptions],
) -> Classified:
    r"""Returns of which class each datum is, by Bayes' rule over log P(x|c), `(N, C)`.

    .. math::
        p(c \mid x) \propto \pi_c \, \hat P(x \mid c)^{1/T}, \quad
        \hat T \text{ maximises } \sum_i \log p_T(y_i \mid x_i)

    The model is one of (x, y), such as a `pv.CVAE`, or a list of models of x, one a class. One of
    log P(x, y), such as `pv.SemiSupervisedVAE`, has the prior inside.

    Calibration data, of which the classes are known and which no model was trained on, nor its
    training stopped by, serve twice. By their labels the temperature T is fitted, without which a
    model that is not right is too sure of its classes. By their log P(x), which knows neither
    labels nor T, a datum is none of these: of data like them at the rate `false_alarms` at most,
    see `anomalies`, for all are scored in one go and in a random order.

    Args:
        model: A Pyro callable of (x, y), or C callables of x.
        guide: Another, or C of them; `None` where none is needed.
        x: Data, `(N, ...)`; NaN where the model takes it for missing.
        prior: pi, `(C,)`, of sum 1, such as the classes' frequencies; `None` for 1 / C each.
        calibration: Other data and their classes, `(n, ...)` and `(n,)`; some of each class.
        false_alarms: Alpha, between 0 and 1; n has to be 1 / alpha - 1 or more.
        estimator: Of log P(x|c): one, such as `pv.AIS()`, or its name; `None` for importance
            sampling from `pv.Laplace(1 + 1.2 / sqrt(d))`, where the model has a gradient, in d
            latent dimensions; its scale is 1.5 at most.
        seed: Fixes draws and order; `None` draws a seed.
        **options: `classes`, C, of a model of (x, y) that has no `y_dim`; `num_particles`, S
            (1,000), of the usual estimator or one that is named; and `plate`, `block_size`,
            `chunk_size`, `compile`, `workers`, `progress`, as of `evaluate`.

    Raises:
        ValueError: If there is one class alone, models and guides are not equally many, the prior
            is none, or calibration data are too few, lack a class, or are those to be judged.
        TypeError: If the model takes no y, or classes are no integers.
        TypeError, ValueError: As `evaluate`.

    References:
        On calibration of modern neural networks (Guo et al., 2017),
        https://arxiv.org/abs/1706.04599
        Algorithmic learning in a random world (Vovk et al., 2005),
        https://doi.org/10.1007/b106715: conformal p-values.

    Example:
        >>> import pyrovae as pv
        >>> cvae, x = pv.CVAE(x_dim=4, y_dim=3, z_dim=2), torch.ones(5, 4)
        >>> classify(cvae.model, cvae.guide, x, num_particles=50, seed=0).probability.shape
        torch.Size([5, 3])
    """
    check_options(options, ClassOptions, classify)
    programs, seed = _programs(model, guide, options.pop("classes", None)), draw_seed(seed)
    x, y = _held(programs, x), None
    others = x[:0]
    if calibration is not None:
        others, y = _calibration(programs, calibration)
        check_calibration([x], [others], false_alarms)
    inside = programs.labelled and _has_prior(programs, x, options)
    log_prior = _log_prior(prior, len(programs.pairs), inside)
    for rows in (others, x):  # errors then name rows of theirs, not of a random order
        for c, pair in enumerate(programs.pairs if len(rows) else ()):
            check_rows(*pair, *programs.data(rows, c), options=options)
    place, (both,) = mixed([others], [x], stream_seed(seed, STREAM))
    found = []
    for c, pair in enumerate(programs.pairs):
        data, own = programs.data(both, c), stream_seed(seed, STREAM + 1, c)
        asked = scorer(estimator, *pair, *data, options=options, wider=WIDER)
        e, _ = scored(asked, pair, data, own, options)
        if e.value.isnan().any():
            raise ValueError(f"estimator {asked.name!r} gives NaN for class {c}; draw more")
        found.append((e.value[place], e.std_error[place], e.verdict()))
    values, errors, verdicts = zip(*found, strict=True)
    words = [[of_class[i] for of_class in verdicts] for i in place.tolist()]
    every = Classified(torch.stack(values, 1), torch.stack(errors, 1), words, log_prior)
    return _divided(replace(every, false_alarms=float(false_alarms)), len(others), y)


def _divided(every: Classified, n: int, y: Tensor | None) -> Classified:
    """Returns what is said of the data, by what it is of the n calibration data before them.

    Args:
        every: Of all n + N.
        n: Of calibration data.
        y: Their classes, `(n,)`; `None` without any.
    """
    new = replace(
        every, log_p=every.log_p[n:], std_error=every.std_error[n:], words=every.words[n:]
    )
    if y is None:
        return new
    fitted = temperature_of(every.log_p[:n], every.log_prior, y)
    return replace(new, temperature=fitted, calibration=-every.log_p_x[:n])


def _programs(
    model: Fn | Sequence[Fn], guide: Fn | Sequence[Fn | None] | None, classes: int | None
) -> _Programs:
    """Returns the programs of each class.

    Args:
        model: One of (x, y), or one a class.
        guide: Likewise; or `None`.
        classes: C; `None` for what the model says.

    Raises:
        ValueError, TypeError: As `classify`.
    """
    if isinstance(model, Sequence):
        guides = [None] * len(model) if guide is None else guide
        if not isinstance(guides, Sequence) or len(guides) != len(model):
            got = len(guides) if isinstance(guides, Sequence) else "one"
            raise ValueError(
                f"there are {len(model)} models and {got} guides; give a guide for each model"
            )
        if classes not in (None, len(model)):
            raise ValueError(f"classes is {shown(classes)}, and there are {len(model)} models")
        return _Programs(_several(list(zip(model, guides, strict=True))), False)
    if isinstance(guide, Sequence):
        raise ValueError(f"there are {len(guide)} guides and one model; give a model for each")
    _check_takes_y(model)
    said = getattr(getattr(model, "__self__", None), "y_dim", None) if classes is None else classes
    if said is None:
        raise ValueError("classes is None, and the model has no y_dim; say how many there are")
    if isinstance(said, bool) or not is_at_least(said, 1) or said != int(said):
        raise ValueError(f"classes is {shown(said)}; give how many there are, 2 or more")
    return _Programs(_several([(model, guide)] * int(said)), True)


def _several(pairs: list[tuple[Fn, Fn | None]]) -> list[tuple[Fn, Fn | None]]:
    """Returns programs of classes; raises ValueError where there are less than two."""
    if len(pairs) < 2:
        raise ValueError(
            f"there is {len(pairs)} class, of which every datum is; give two or more, or ask "
            "pv.anomalies which data are none of it"
        )
    return pairs


def _check_takes_y(model: Fn) -> None:
    """Raises TypeError where a program does not take x and y."""
    try:
        signature(model).bind(0, 0)
    except TypeError:
        raise TypeError(
            f"the model takes {signature(model)}, and log P(x|y) needs (x, y); give such a model, "
            "as pv.CVAE is, or a list of models, one a class"
        ) from None
    except ValueError:  # not every callable tells
        return


def _held(programs: _Programs, x: Tensor, name: str = "") -> Tensor:
    """Returns data in memory, checked by each program as `evaluate` does.

    Args:
        programs: Of the classes.
        x: Data.
        name: Theirs in errors, where there are others.
    """
    for model in dict.fromkeys(model for model, _ in programs.pairs):
        (x,) = held(model, (x,), name)
    return x


def _calibration(programs: _Programs, given: object) -> tuple[Tensor, Tensor]:
    """Returns calibration data and their classes, checked.

    Args:
        programs: Of the classes.
        given: As the user gave them.
    """
    if not isinstance(given, Sequence) or len(given) != 2:
        raise TypeError(f"calibration is {shown(given)}; give data and their classes, (x, y)")
    x, count = _held(programs, given[0], "calibration"), len(programs.pairs)
    y = labels_of(given[1], len(x), count, "calibration: y")
    if missing := sorted(set(range(count)) - set(y.tolist())):
        raise ValueError(
            f"calibration has no datum of class {missing[0]}, whose probability nothing would "
            "then put to the test; give some of each class"
        )
    return x, y


def _has_prior(programs: _Programs, x: Tensor, options: ScoreOptions) -> bool:
    """Returns whether a program of (x, y) observes y: its density is then that of both.

    Args:
        programs: One, of all classes.
        x: Data.
        options: The name of the plate.
    """
    y = torch.arange(len(x), device=x.device) % len(programs.pairs)
    plate = options.get("plate", "data")
    sites = inspect(*programs.pairs[0], x, y, plate=plate).sites.model
    seen = (s["value"] for s in sites if s["is_observed"])
    return any(v.shape == y[: len(v)].shape and bool((v == y[: len(v)]).all()) for v in seen)


def _log_prior(prior: object, count: int, inside: bool) -> Tensor:
    """Returns log pi, `(C,)` of float64; 0 where the model has it inside.

    Args:
        prior: As the user gave it.
        count: C.
        inside: Whether the model's density is that of y, too.

    Raises:
        ValueError: If it is none, or the model has another.
    """
    if inside and prior is not None:
        raise ValueError(
            "prior is given, and the model has one of its own, as it observes y; leave it out"
        )
    if inside:
        return torch.zeros(count, dtype=torch.float64)
    if prior is None:
        return torch.full((count,), -log(count), dtype=torch.float64)
    pi = torch.as_tensor(prior, dtype=torch.float64).cpu()
    total = pi.sum().item()
    if pi.shape != (count,) or not (pi > 0).all() or not isclose(total, 1, abs_tol=1e-5):
        raise ValueError(
            f"prior is {shown(pi.tolist())}, of sum {total:g}; give {count} probabilities above 0 "
            "of sum 1"
        )
    return (pi / total).log()
