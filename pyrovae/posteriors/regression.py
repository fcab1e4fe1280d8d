"""What a number is, given the others of its row: mean, draws, intervals, and their scores."""

__all__ = ["Regressed", "regress"]

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from pyro.ops.stats import crps_empirical
from torch import Tensor

from pyrovae.checks import check_gaps_tell_nothing, shown
from pyrovae.equality import ByContent
from pyrovae.posteriors.draws import PosteriorOptions
from pyrovae.posteriors.imputation import ends, given_seen
from pyrovae.posteriors.scores import doubted, trusted
from pyrovae.storage import line_of_csv
from pyrovae.threads import one_at_a_time


@dataclass(frozen=True, repr=False, eq=False)
class Regressed(ByContent):
    r"""One column of N data, y, as it is predicted by the others: :math:`p(y_n | x_{n, rest})`.

    All numbers are in the column's own unit.

    Attributes:
        mean: :math:`\sum_s \bar w_{sn} E[y | z_{sn}]`, `(N,)`, float64.
        draws: Of p(y | rest), `(L, N)`, float64.
        ess: Effective sample size of the draws of z, `(N,)`.
        verdict: Theirs, of each datum: "not contradicted", or what would help.
    """

    mean: Tensor
    draws: Tensor
    ess: Tensor
    verdict: list[str]

    def __repr__(self) -> str:
        return self.reading()

    @property
    def std(self) -> Tensor:
        """Standard deviation of y given the rest, `(N,)`: how much of it is not known."""
        return self.draws.std(0)

    @property
    def std_error(self) -> Tensor:
        r"""Monte Carlo standard error of the mean, `(N,)`: at most :math:`\mathrm{sd}/\sqrt{ESS}`.

        It is that of ESS draws of y, and the mean is one of means given z, which vary less.
        """
        return self.std / self.ess.sqrt()

    @property
    def trusted(self) -> Tensor:
        """Where nothing speaks against the draws of z, `(N,)`."""
        return trusted(self.verdict)

    def interval(self, prob: float = 0.95) -> tuple[Tensor, Tensor]:
        """Returns both ends of an interval for each y, `(N,)`: quantiles of its draws.

        Args:
            prob: Of holding y, between 0 and 1.

        Raises:
            ValueError: If `prob` is no such number, or there are too few draws for it.
        """
        return ends(self.draws, prob)

    def crps(self, y: Tensor) -> Tensor:
        r"""Returns the continuous ranked probability score of each y, `(N,)`: lower is better.

        .. math::
            \mathrm{CRPS} = E|Y - y| - \tfrac{1}{2} E|Y - Y'|, \quad
            Y, Y' \sim p(y | \text{rest})

        in the unit of y; of a point it is the absolute error. By the L draws, which makes it
        E|Y - Y'| / 2L too high.

        Args:
            y: The true numbers, `(N,)`, NaN where nobody knows.

        Raises:
            ValueError: If it is of another length.

        References:
            Strictly proper scoring rules, prediction, and estimation (Gneiting and Raftery, 2007),
            https://doi.org/10.1198/016214506000001437
        """
        return crps_empirical(self.draws, self._told(y))

    def covered(self, y: Tensor, prob: float = 0.95) -> Tensor:
        """Returns whether each y lies in its interval, `(N,)`, 1 or 0; NaN where nobody knows.

        Args:
            y: The true numbers, `(N,)`.
            prob: As of `interval`; it promises the mean of this over data that are like those of
                the training.

        Raises:
            ValueError: If it is of another length, or as `interval`.
        """
        y, (low, high) = self._told(y), self.interval(prob)
        return torch.where(y.isnan(), y, ((low <= y) & (y <= high)).double())

    def summary(self, y: Tensor | None = None, prob: float = 0.95) -> dict[str, object]:
        """Returns the numbers by name: RMSE, mean absolute error, CRPS and coverage where y is.

        Args:
            y: The true numbers, `(N,)`, NaN where nobody knows; `None` for none.
            prob: Of the intervals.
        """
        found: dict[str, object] = {
            "num_data": len(self.mean),
            "num_not_trusted": int((~self.trusted).sum()),
        }
        known = None if y is None else ~self._told(y).isnan()
        if y is None or known is None or not known.any():
            return found
        off = (self._told(y) - self.mean)[known]
        return found | {
            "num_known": int(known.sum()),
            "rmse": off.square().mean().sqrt().item(),
            "mae": off.abs().mean().item(),
            "crps": self.crps(y)[known].mean().item(),
            "prob": prob,
            "coverage": self.covered(y, prob)[known].mean().item(),
        }

    def reading(self, y: Tensor | None = None, prob: float = 0.95) -> str:
        """Returns what was found, in sentences.

        Args:
            y: The true numbers, `(N,)`, NaN where nobody knows; `None` for none.
            prob: Of the intervals.
        """
        found = self.summary(y, prob)
        lines = [f"{len(self.mean):,} numbers predicted, +- {self.std.mean():.4g} in the mean."]
        if "rmse" in found:
            lines.append(
                f"Of {found['num_known']:,} the truth is known: RMSE {found['rmse']:.4g}, mean "
                f"absolute error {found['mae']:.4g}, CRPS {found['crps']:.4g}; "
                f"{found['coverage']:.1%} lie in their {prob:.0%} intervals."
            )
        count, which = doubted(self.verdict)
        if count:
            lines.append(f"Of {count:,} the draws are not to be trusted ({which}).")
        return "\n".join(lines)

    def to_csv(
        self, index: Sequence[object] | None = None, y: Tensor | None = None, prob: float = 0.95
    ) -> Iterator[str]:
        """Yields a row a datum as lines of CSV; the first line names the columns.

        They are "row", from 0; "value", the mean; "low" and "high"; "std_error", Monte Carlo;
        "verdict"; and of known y "truth" and "crps".

        Args:
            index: Names of the N rows, which stand under "row" in place of numbers.
            y: The true numbers, `(N,)`, NaN where nobody knows; `None` for none.
            prob: Of the intervals.
        """
        numbers = [self.mean, *self.interval(prob), self.std_error]
        truth = [] if y is None or self._told(y).isnan().all() else [self._told(y), self.crps(y)]
        yield "row,value,low,high,std_error,verdict" + (",truth,crps" if truth else "")
        names = range(len(self.mean)) if index is None else index
        rest = zip(*(_cells(t) for t in truth)) if truth else [()] * len(self.mean)  # noqa: B905
        columns = zip(*(t.tolist() for t in numbers), self.verdict, strict=True)
        for name, row, known in zip(names, columns, rest, strict=True):
            yield line_of_csv([name, *row, *known])

    def _told(self, y: Tensor) -> Tensor:
        """Returns true numbers as float64 on the CPU; ValueError where they are of other data."""
        y = torch.as_tensor(y).detach().cpu().double()
        if y.shape != self.mean.shape:
            raise ValueError(
                f"y is of shape {tuple(y.shape)} and {len(self.mean)} numbers were predicted; "
                f"give ({len(self.mean)},)"
            )
        return y


def _cells(numbers: Tensor) -> list[float | None]:
    """Returns numbers, and nothing where they are NaN."""
    return [None if v != v else v for v in numbers.tolist()]


@one_at_a_time
def regress(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: Tensor,
    column: int,
    num_draws: int = 1_000,
    site: str = "x",
    **options: Unpack[PosteriorOptions],
) -> Regressed:
    r"""Returns what a column says is given the others of its row: `(N,)` means, and draws.

    .. math::
        p(y | x_{\text{rest}}) \approx \sum_s \bar w_s \, p(y | z_s), \quad
        \bar w_s \propto p(x_{\text{rest}}, z_s) / q(z_s | x_{\text{rest}})

    of a model of the whole row, in which y is a column like others and NaN is missing: any column
    is predicted by one model, and from rows with gaps. What stands in the column is not looked at.

    Args:
        model: A Pyro callable of `*data` that takes NaN for missing, as those of this package.
        guide: Another; `None` draws from the prior.
        data: As the program takes them; of the first, `(N, D)`, a column is predicted. Of a
            `CVAE` of numbers X given Y it may be the only one.
        column: Its number, from 0.
        num_draws: L, of each y.
        site: Name of the site that observes them.
        **options: As of `posterior`: `num_particles`, `num_temperatures`, `seed`, `plate`,
            `block_size`.

    Raises:
        ValueError: If there is no such column, or it is one of classes; or as `impute`.
        TypeError, ValueError: As `posterior`.

    Example:
        >>> import pyrovae as pv
        >>> vae, x = pv.VAE(x_dim=4, z_dim=2, likelihood="normal"), torch.randn(3, 4)
        >>> found = regress(vae.model, vae.guide, x, column=3, num_particles=50, seed=0)
        >>> found.interval(0.9)[0].shape
        torch.Size([3])
    """
    x = data[0] if data else None
    if not isinstance(x, Tensor) or x.ndim != 2 or not x.is_floating_point():
        raise TypeError(f"x is {shown(x)}; give floats (N, D), of which a column is predicted")
    if isinstance(column, bool) or column not in range(x.shape[1]):
        raise ValueError(f"column is {shown(column)}; give a number from 0 to {x.shape[1] - 1}")
    check_gaps_tell_nothing(model, "a column given the rest")
    x = x.clone()
    x[:, column] = torch.nan
    rest = x, *data[1:]
    d, draws = given_seen(model, guide, *rest, num_draws=num_draws, site=site, **options)
    if d.of_classes(site)[column]:
        raise ValueError(
            f"column {column} is of classes, which are no numbers; pv.impute says the most "
            "probable, pv.given_rest the probability of each"
        )
    mean, draws = d.mean_of(site)[:, column], draws[..., column]
    return Regressed(mean.double(), draws.double(), d.ess(), d.verdict())
