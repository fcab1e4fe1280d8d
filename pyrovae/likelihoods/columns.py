"""Rows of a table, whose columns are of mixed kinds: numbers, counts, classes."""

__all__ = ["CLASSES", "KINDS", "Column", "Columns"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import expm1, log

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from pyrovae import distributions
from pyrovae.checks import check_positive
from pyrovae.gaps import filled
from pyrovae.likelihoods.base import Config, Likelihood
from pyrovae.side_by_side import SideBySide

KINDS = "real", "positive", "count", "binary", "ordinal", "categorical"
CLASSES = "binary", "ordinal", "categorical"
TAILS = "normal", "student-t"
MOST = 100.0  # degrees of freedom: near a normal, and the log of Gamma keeps its digits
FIRST = 8.0  # degrees of freedom at first
CONSTANT = 1e-9  # of a column's mean: what varies less is rounding
LEAST = 1e-3  # mean of a count, of what a log is taken; r is between it and 1 / LEAST at first


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: The user's own.
        kind: Of `KINDS`.
        classes: The values that stand for 0, 1, ... in X, of a kind that has classes; of an
            ordinal column in their order.

    Raises:
        ValueError: If there is no such kind, or it has not the classes that it needs.

    Example:
        >>> Column("smokes", "binary", ("no", "yes"))
        Column(name='smokes', kind='binary', classes=('no', 'yes'))
    """

    name: str
    kind: str
    classes: tuple[str | int | float | bool, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.kind not in KINDS:
            raise ValueError(
                f"column {self.name!r} is of kind {self.kind!r}; choose of {', '.join(KINDS)}"
            )
        count = len(self.classes)
        if self.kind not in CLASSES and count:
            raise ValueError(f"column {self.name!r} is {self.kind}, which has no classes")
        if self.kind in CLASSES and (count != 2 if self.kind == "binary" else count < 2):
            needs = "two" if self.kind == "binary" else "two or more"
            raise ValueError(
                f"column {self.name!r} is {self.kind} of {count} classes; give {needs}"
            )


class Columns(Likelihood):
    r"""P(X|z) of a row with columns of mixed kinds, one family each; in nats of the raw data.

    .. math::
        \log P(X \mid z) = \sum_d \log p_d(X_d; f_d(z))

    with m and s mean and standard deviation of a column in the training data, f of its own, and
    sigma, r and theta learned for it:

    - real: N(m + s f, (s sigma)^2), sigma never below `floor`; under `tails="student-t"` Student's
      t of that location and scale, with nu degrees of freedom, learned too, between 1 and 100;
    - positive: log X is that, m and s of log X;
    - count: negative binomial of mean exp(m + f_1), m the log of the mean, and r = exp(f_2);
    - binary: Bernoulli of logit f;
    - ordinal: P(X <= k) = 1 / (1 + exp(f - theta_k)), theta growing with k;
    - categorical: softmax of K numbers f.

    f = 0 everywhere says how often each value was in the training data, and each column's mean.
    An encoder is given real, positive and count columns (log(1 + X)) standardised, ordinal ones
    likewise, of the others a number 0 or 1 for each class; 0 for what is missing, and under
    `mask` also which were seen.

    Args:
        columns: A `Column` each, or what makes one, as a mapping.
        mask: Whether an encoder is told what is missing.
        floor: Smallest learned sigma.
        tails: Of real columns: "normal", or "student-t", under which a row far from all others
            costs some nats instead of bending the decoder towards it.

    Raises:
        ValueError: If there are none, or two of one name, or no such tails.

    References:
        Handling incomplete heterogeneous data using VAEs (Nazabal et al., 2018),
        https://arxiv.org/abs/1807.03653
        Regression models for ordinal data (McCullagh, 1980), https://www.jstor.org/stable/2984952
        Robust statistical modeling using the t distribution (Lange, Little and Taylor, 1989),
        https://doi.org/10.1080/01621459.1989.10478852
    """

    name = "columns"

    def __init__(
        self,
        columns: Sequence[Column | Mapping[str, object]] = (),
        mask: bool = False,
        floor: float = 0.01,
        tails: str = "normal",
    ) -> None:
        super().__init__()
        check_positive(floor=floor)
        if tails not in TAILS:
            raise ValueError(f"tails is {tails!r}; choose of {', '.join(TAILS)}")
        made, self.tails = _made(columns), tails
        self.columns, self.mask, self.floor = made, mask, floor
        places = {k: [i for i, c in enumerate(made) if c.kind == k] for k in KINDS}
        self.counts = [len(made[i].classes) for i in places["categorical"]]
        self.levels = [len(made[i].classes) for i in places["ordinal"]]
        real, positive, count, binary, ordinal, _ = map(len, places.values())
        self.sizes = real, positive, 2 * count, binary, ordinal, sum(self.counts)
        for name, index in _indices(made, places).items():
            self.register_buffer(name, torch.tensor(index, dtype=torch.long), persistent=False)
        self.register_buffer("loc", torch.zeros(len(made)))
        self.register_buffer("scale", torch.ones(len(made)))
        self.register_buffer("offset", torch.zeros(sum(self.sizes)))
        self._learn("raw_sigma", torch.full((real + positive,), log(expm1(1 - floor))))
        heavy = real if tails == "student-t" else 0
        self._learn("raw_df", torch.full((heavy,), log((FIRST - 1) / (MOST - FIRST))))
        self._learn("raw_steps", torch.zeros(sum(self.levels) - ordinal))

    def _learn(self, name: str, start: Tensor) -> None:
        """Makes numbers a parameter, if there are any: of none there would be no gradient."""
        if len(start):
            self.register_parameter(name, torch.nn.Parameter(start))
        else:
            self.register_buffer(name, start, persistent=False)

    raw_sigma: Tensor
    raw_df: Tensor
    raw_steps: Tensor
    loc: Tensor
    scale: Tensor
    offset: Tensor
    back: Tensor
    of_feature: Tensor

    @property
    def df(self) -> Tensor:
        """Degrees of freedom of each real column, `(real,)`; of normal tails there are none."""
        return 1 + (MOST - 1) * self.raw_df.sigmoid()

    def config(self) -> Config:
        """Returns the columns, whether there is a mask, the floor, and the tails."""
        return {
            "columns": [asdict(c) | {"classes": list(c.classes)} for c in self.columns],
            "mask": self.mask,
            "floor": self.floor,
            "tails": self.tails,
        }

    def num_outputs(self, x_dim: int) -> int:
        """Returns how many numbers f(z) has: K of a categorical column, 2 of a count, else 1."""
        self._check(x_dim)
        return sum(self.sizes)

    def num_features(self, x_dim: int) -> int:
        """Returns how many numbers an encoder is given."""
        self._check(x_dim)
        plain = len(self.columns) - len(self.counts)
        return plain + sum(self.counts) + self.mask * x_dim

    def features(self, x: Tensor) -> Tensor:
        """Returns what an encoder is given for X `(N, D)`, NaN where it is missing."""
        seen, parts = ~x.isnan(), []
        for kind, at in self._groups():
            part = x[:, at]
            if kind == "categorical":
                parts += [_one_hot(u, k) for u, k in zip(part.unbind(1), self.counts, strict=True)]
                continue
            parts.append(filled((_in_logs(part, kind) - self.loc[at]) / self.scale[at]))
        return torch.cat([*parts, seen.to(x)] if self.mask else parts, -1)

    def seen(self, x: Tensor) -> Tensor:
        """Returns which of the features are of what is not missing, but for those of the mask."""
        return ~x.isnan()[:, self.of_feature]

    @torch.no_grad()
    def scale_to(self, x: Tensor) -> None:
        """Takes m, s and how often each value is from training data.

        Args:
            x: `(N, D)`, NaN where it is missing.
        """
        self._check(x.shape[1])
        x, offset, steps = x.double(), [], []
        for kind, at in self._groups():
            part = x[:, at]
            mean, spread = _moments(_in_logs(part, kind))
            self.loc[at] = mean.to(self.loc)
            varies = spread > CONSTANT * mean.abs()
            self.scale[at] = torch.where(varies, spread, 1.0).to(self.scale)
            if kind == "count":
                offset += _log_count(*_moments(part))
            elif kind not in CLASSES:
                offset.append(torch.zeros_like(mean))
            for u, i in zip(part.T, at.tolist(), strict=True):
                p = _shares(u, len(self.columns[i].classes))
                if kind == "binary":
                    offset.append(torch.logit(p[1:]))
                elif kind == "categorical":
                    offset.append(p.log())
                elif kind == "ordinal":
                    offset.append(p.new_zeros(1))
                    steps.append(_steps(p))
        self.offset.copy_(torch.cat(offset))
        if steps:
            self.raw_steps.copy_(torch.cat(steps))

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns P(X|z) for f `(..., num_outputs)`: event shape `(D,)`."""
        groups = (f + self.offset).split(self.sizes, -1)
        f_of: dict[str, Tensor] = dict(zip(KINDS, groups, strict=True))
        sigma = softplus(self.raw_sigma) + self.floor
        parts: list[TorchDistribution] = []
        for kind, at in self._groups():
            u, m, s = f_of[kind], self.loc[at], self.scale[at]
            if kind == "real":
                loc, width = m + s * u, s * sigma[: len(at)]
                heavy = self.tails == "student-t"
                parts.append(
                    dist.StudentT(self.df, loc, width) if heavy else dist.Normal(loc, width)
                )
            elif kind == "positive":
                parts.append(dist.LogNormal(m + s * u, s * sigma[-len(at) :]))
            elif kind == "count":
                log_mean, log_r = u.chunk(2, -1)
                parts.append(dist.NegativeBinomial(log_r.exp(), logits=log_mean - log_r))
            elif kind == "binary":
                parts.append(dist.Bernoulli(logits=u))
            else:
                log_p = self._ordered(u) if kind == "ordinal" else u.split(self.counts, -1)
                parts += [distributions.Categorical(logits=k.unsqueeze(-2)) for k in log_p]
        return SideBySide(parts, self.back).to_event(1)

    def _ordered(self, f: Tensor) -> list[Tensor]:
        """Returns log P of the classes of each ordinal column, `(..., K)`.

        Args:
            f: Of these columns, `(..., ordinal)`.
        """
        found = []
        raw = self.raw_steps.split([k - 1 for k in self.levels])
        for u, steps in zip(f.unbind(-1), raw, strict=True):
            theta = torch.cat([steps[:1], softplus(steps[1:])]).cumsum(0)
            a = theta - u.unsqueeze(-1)  # logit of P(X <= k), k = 0, ..., K - 2
            high, low = a[..., 1:], a[..., :-1]
            between = logsigmoid(high) + logsigmoid(-low) + (-torch.expm1(low - high)).log()
            found.append(
                torch.cat([logsigmoid(a[..., :1]), between, logsigmoid(-a[..., -1:])], -1)
            )
        return found

    def _groups(self) -> list[tuple[str, Tensor]]:
        """Returns the kinds that there are, with the numbers of their columns."""
        return [(kind, at) for kind in KINDS if len(at := getattr(self, f"at_{kind}"))]

    def _check(self, x_dim: int) -> None:
        """Raises ValueError unless X has so many columns."""
        if x_dim != len(self.columns):
            raise ValueError(f"x has {x_dim} columns and the likelihood {len(self.columns)}")


def _made(columns: Sequence[Column | Mapping[str, object]]) -> tuple[Column, ...]:
    """Returns columns; ValueError if there are none, or two of one name."""
    made = tuple(c if isinstance(c, Column) else Column(**c) for c in columns)  # pyright: ignore[reportArgumentType]
    names = [c.name for c in made]
    if not made:
        raise ValueError(
            "the likelihood 'columns' is of a table and has no columns; give a Column for each, "
            "or the table itself as data"
        )
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise ValueError(f"columns has {twice!r} twice; give each a name of its own")
    return made


def _indices(
    columns: Sequence[Column], places: Mapping[str, Sequence[int]]
) -> dict[str, list[int]]:
    """Returns where things stand, by the name of a buffer.

    Args:
        columns: D of them.
        places: The columns of each kind, by number.

    Returns:
        `at_<kind>`: its columns; `back`: where in the kinds' groups, one after another, each
        column stands, `(D,)`; `of_feature`: the column of each feature.
    """
    order = [i for at in places.values() for i in at]
    widths = [len(c.classes) if c.kind == "categorical" else 1 for c in columns]
    found = {f"at_{kind}": list(at) for kind, at in places.items()}
    found["back"] = sorted(range(len(order)), key=order.__getitem__)
    return found | {"of_feature": [i for i in order for _ in range(widths[i])]}


def _in_logs(x: Tensor, kind: str) -> Tensor:
    """Returns log x of positive columns, log(1 + x) of counts, and others as they are.

    Args:
        x: Of columns of one kind, `(N, n)`.
        kind: Theirs.
    """
    return {"positive": torch.log, "count": torch.log1p}.get(kind, torch.positive)(x)


def _one_hot(code: Tensor, num_classes: int) -> Tensor:
    """Returns a number 0 or 1 for each class, `(N, K)`, all 0 where the class is missing.

    Args:
        code: `(N,)`, of 0, ..., K - 1, or NaN.
        num_classes: K.
    """
    return (code.unsqueeze(-1) == torch.arange(num_classes).to(code)).to(code)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of the columns of x, `(D,)`, of what is there."""
    mean = x.nanmean(0).nan_to_num()
    return mean, (x - mean).square().nanmean(0).sqrt().nan_to_num()


def _log_count(mean: Tensor, spread: Tensor) -> list[Tensor]:
    """Returns log mu and log r of a negative binomial of this mean and spread, `(D,)` each."""
    excess = (spread.square() - mean).clamp(min=mean / 100)
    r = (mean.square() / excess).nan_to_num(1.0).clamp(LEAST, 1 / LEAST)
    return [mean.clamp(min=LEAST).log(), r.log()]


def _shares(code: Tensor, num_classes: int) -> Tensor:
    """Returns how often each class is, `(K,)`, counted from 1/2 on, so that none is 0.

    Args:
        code: `(N,)`, of 0, ..., K - 1, or NaN.
        num_classes: K.
    """
    count = _one_hot(code, num_classes).sum(0) + 0.5
    return count / count.sum()


def _steps(share: Tensor) -> Tensor:
    """Returns the first threshold and what softplus makes the others' distances of, `(K - 1,)`."""
    theta = torch.logit(share.cumsum(0)[:-1])
    return torch.cat([theta[:1], theta.diff().expm1().log()])
