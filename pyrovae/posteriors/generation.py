"""More data: of the model's own, on a condition, or near given ones; and whether they are new."""

__all__ = ["Generated", "generate"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyrovae.checks import check_sizes, shown
from pyrovae.equality import ByContent
from pyrovae.evidence.samplers.bdmc import simulated
from pyrovae.likelihoods import Likelihood
from pyrovae.models.base import Generates, Model, Samples
from pyrovae.posteriors.draws import posterior
from pyrovae.posteriors.nearest import among, nearest
from pyrovae.posteriors.scores import doubted, held
from pyrovae.posteriors.two_sample import TwoSample, two_sample
from pyrovae.program import inspect, observes_data
from pyrovae.rng import draw_seed, stream_seed
from pyrovae.threads import one_at_a_time

STREAM = 61  # of random numbers, and the one that follows
NEAR = 0.05  # of training rows that lie nearest to others
Fn = Callable[..., object]
Some = Tensor | Sequence[Tensor]


@dataclass(frozen=True, repr=False, eq=False)
class Generated(ByContent):
    r"""n data that a model made, and the training row nearest to each.

    .. math::
        p_i = \frac{1 + \#\{j : u_j \le d_i\}}{M + 1}

    with d the distance of a made datum to the nearest training row, and u that of a training row
    to the nearest other. A datum that is independent of the training rows and like them has a p
    that is uniform, but for the one row that u has the less to choose from; many small ones tell
    of copies.

    Attributes:
        x: `(n, D)`, or what a datum is in the program's data.
        nearest: Number of the nearest training row, `(n,)`; `None` without any.
        distance: Its distance, `(n,)`: Euclidean, in what the model's encoder is given, of tables
            units of their spread and classes 0 or 1; where something is missing, of the rest,
            scaled up.
        usual: Distance of training rows to the nearest other, `(M,)`, of 2,000 of them at most.
        near: Number of the datum that each was made near, `(n,)`; `None` where none was given.
        verdict: Of those made near a datum: what the draws of z given it are worth,
            "not contradicted", or what would help.
        seed: Of the draws.

    References:
        A non-parametric test to detect data-copying in generative models (Meehan et al., 2020),
        https://arxiv.org/abs/2004.05675: distances to the training rows, for a test.
    """

    x: Tensor
    nearest: Tensor | None
    distance: Tensor | None
    usual: Tensor | None
    near: Tensor | None
    verdict: list[str] | None
    seed: int

    @property
    def p_value(self) -> Tensor:
        """Share of training rows that lie as near to another one, `(n,)`, with itself among them.

        Raises:
            ValueError: If no training rows were given.
        """
        distance, usual = self._distances()
        count = torch.searchsorted(usual.sort().values, distance, right=True)
        return (1 + count).double() / (len(usual) + 1)

    def two_sample(self, real: Tensor, *, seed: int | None = None) -> TwoSample:
        """Returns how well a classifier tells these from real data, with AUC 0.5 by chance.

        Take data that the model was not trained on, and of the same classes where there are some.
        What is rounded in real data and not in those made is told apart as well.

        Args:
            real: `(m, D)`, 20 or more, NaN where something is missing.
            seed: Fixes the halves; `None` takes that of the draws.

        Raises:
            ValueError: If they are of another width, or too few.
        """
        return two_sample(self.x, real, stream_seed(self.seed if seed is None else seed, STREAM))

    def summary(self) -> dict[str, object]:
        """Returns the numbers by name."""
        found: dict[str, object] = {"num_data": len(self.x)}
        if self.nearest is not None:
            distance, usual = self._distances()
            found |= {
                "median_distance": distance.median().item(),
                "median_usual": usual.median().item(),
                "num_near": int((self.p_value <= NEAR).sum()),
                "num_copies": int((distance == 0).sum()),
                "share_of_copies_in_train": (usual == 0).double().mean().item(),
            }
        return found

    def __repr__(self) -> str:
        return self.reading()

    def reading(self) -> str:
        """Returns what was made, in sentences, and whether it is new."""
        n = len(self.x)
        lines = [f"{n:,} data were made."]
        if self.nearest is not None:
            distance, usual = self._distances()
            new = f"{NEAR * n:g} are to be expected of new data"
            low, copies = int((self.p_value <= NEAR).sum()), int((distance == 0).sum())
            lines.append(
                f"The nearest training row lies {distance.median():.3f} away in the median, and "
                f"{usual.median():.3f} from another one; {low:,} lie as near to one as the "
                f"nearest {NEAR:.0%} of training rows do, where {new}. {copies:,} are copies, "
                f"which {(usual == 0).double().mean():.1%} of the training rows are of each other."
            )
        count, which = doubted(self.verdict or ())
        if count:
            lines.append(
                f"Of {count:,} the draws of z given their datum are not to be trusted "
                f"({which}): they are new data all the same, but may be far from it."
            )
        return "\n".join(lines)

    def _distances(self) -> tuple[Tensor, Tensor]:
        """Returns distances and what is usual; ValueError where there are no training rows."""
        if self.distance is None or self.usual is None:
            raise ValueError("no training rows were given to be near to; give train")
        return self.distance, self.usual


@one_at_a_time
def generate(
    model: Model | Fn,
    n: int,
    *,
    y: object = None,
    near: Some | None = None,
    guide: Fn | None = None,
    train: Some | None = None,
    seed: int | None = None,
    plate: str = "data",
) -> Generated:
    r"""Returns n data that a model makes, on a condition or near given ones, and how new they are.

    .. math::
        x \sim P(X), \quad x \sim P(X|Y), \quad \text{or} \quad
        x \sim \int P(X|z) P(z|x_{\text{near}}) dz

    Args:
        model: Any model of `pyrovae.models`, or a Pyro callable of data.
        n: How many; near given data, of each of them.
        y: What they are made on the condition of, for a model that has `generate`: one for all, or
            `(n,)` classes, or `(n, y_dim)` vectors.
        near: Data `(m, D)` that they are made near, z drawn from the posterior of each: n of the
            first, n of the second, ... Of a program with covariates as many tensors as it takes.
        guide: For `near`; `None` takes the model's own, and of another program draws from the
            prior.
        train: The training rows `(N, D)`, to which the nearest are looked for, or as many tensors
            as the program takes. A program without `sample` is drawn from in their place, with
            their covariates, one row after another.
        seed: Fixes the draws; `None` draws a seed.
        plate: Name of a program's plate over the data.

    Raises:
        ValueError: If the model cannot make such data, or training rows are too few.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE(x_dim=4, z_dim=2)
        >>> made = generate(vae, 3, train=vae.sample(50, seed=0), seed=1)
        >>> made.x.shape, made.p_value.shape
        (torch.Size([3, 4]), torch.Size([3]))
    """
    check_sizes(n=n)
    seed = draw_seed(seed)
    program, owner = _program(model)
    rows = _tables(train)
    if rows and len(rows[0]) < 2:
        raise ValueError("train is of 1 row, which has no other to be near to; give more")
    source = verdict = None
    if near is not None:
        if y is not None:
            raise ValueError("y and near are both given; of a datum with a condition, near=(x, y)")
        guide = owner.guide if guide is None and owner else guide
        x, words = _near(program, guide, _tables(near), rows, n, seed, plate)
        source = torch.arange(len(words)).repeat_interleave(n)
        verdict = [word for word in words for _ in range(n)]
    elif y is not None:
        x = _on_condition(owner, torch.as_tensor(y), n, rows, seed)
    elif isinstance(owner, Samples):
        x = owner.sample(n, seed=seed)
    else:
        x = _in_place_of(program, owner, rows, n, seed, plate)
    found = Generated(x.detach().cpu(), None, None, None, source, verdict, seed)
    return _beside(found, rows[0], owner) if rows else found


def _beside(found: Generated, train: Tensor, owner: Model | None) -> Generated:
    """Returns what was made with the nearest training rows.

    Args:
        found: Without.
        train: The rows, `(N, ...)`.
        owner: The model, which says what distances are.

    Raises:
        ValueError: If they are of another shape.
    """
    if found.x.shape[1:] != train.shape[1:]:
        raise ValueError(
            f"train is of shape {tuple(train.shape[1:])} a datum, and what is made of "
            f"{tuple(found.x.shape[1:])}; give the rows that the model was trained on"
        )
    ours, theirs = (_measured(t, owner) for t in (found.x, train))
    which, distance = nearest(ours, theirs)
    usual = among(theirs, stream_seed(found.seed, STREAM + 1))
    return replace(found, nearest=which, distance=distance, usual=usual)


def _program(model: Model | Fn) -> tuple[Fn, Model | None]:
    """Returns a Pyro callable, and the model that it is of, if it is of one."""
    if isinstance(model, Model):
        return model.model, model
    owner = getattr(model, "__self__", None)
    return model, owner if isinstance(owner, Model) else None


def _tables(some: Some | None) -> tuple[Tensor, ...]:
    """Returns tensors in memory; none of `None`."""
    if some is None:
        return ()
    return tuple(t[:] for t in ((some,) if isinstance(some, Tensor) else some))


def _near(
    program: Fn,
    guide: Fn | None,
    data: tuple[Tensor, ...],
    rows: tuple[Tensor, ...],
    n: int,
    seed: int,
    plate: str,
) -> tuple[Tensor, list[str]]:
    """Returns n draws of x given z, z given each datum, `(m n, ...)`, and m verdicts.

    Args:
        program: The model.
        guide: Its guide.
        data: As the program takes them, m of them.
        rows: Of the training.
        n: Draws of each.
        seed: Fixes them.
        plate: Over the data.

    Raises:
        ValueError: If data are of another shape than training rows, or the program observes more
            than one site.
    """
    data = held(program, data, "near")
    if rows and data[0].shape[1:] != rows[0].shape[1:]:
        raise ValueError(
            f"near is of shape {tuple(data[0].shape[1:])} a datum, and training rows are of "
            f"{tuple(rows[0].shape[1:])}; give data like those"
        )
    draws = posterior(program, guide, *data, seed=seed, plate=plate)
    sites = [s["name"] for s in draws.program.sites.model if observes_data(s)]
    if len(sites) != 1:
        raise ValueError(
            f"the program observes {', '.join(sites)}, of which x is to be one; draw each of them "
            "by pv.posterior(...).predict(site)"
        )
    x = draws.predict(sites[0], n).transpose(0, 1)  # (m, n, ...)
    return x.reshape(-1, *data[0].shape[1:]).to(data[0].dtype), draws.verdict()


def _on_condition(
    owner: Model | None, y: Tensor, n: int, rows: tuple[Tensor, ...], seed: int
) -> Tensor:
    """Returns a draw of X given each of n conditions.

    Args:
        owner: The model.
        y: One for all, or n of them.
        n: How many.
        rows: Of the training, with their y where there is one.
        seed: Fixes them.

    Raises:
        ValueError: If the model has no such method, y is of another length, or a class is not
            known.
    """
    if not isinstance(owner, Generates):
        name = type(owner).__name__ if owner else "the program"
        raise ValueError(f"{name} makes no data on a condition y; leave it out, or fit a pv.CVAE")
    y = y.expand(n) if y.ndim == 0 else y
    if len(y) != n:
        raise ValueError(f"y is of {len(y)} and n is {n}; give one for all, or one for each")
    if y.ndim == 1 and len(rows) > 1 and rows[1].ndim == 1:
        seen = rows[1].unique().tolist()
        if unseen := [c for c in y.unique().tolist() if c not in seen]:
            raise ValueError(
                f"y holds {unseen[0]}, and no training row is of that; they are of {shown(seen)}"
            )
    return owner.generate(y, seed=seed)


def _in_place_of(
    program: Fn,
    owner: Model | None,
    rows: tuple[Tensor, ...],
    n: int,
    seed: int,
    plate: str,
) -> Tensor:
    """Returns n draws of what a program observes, `(n, ...)`, in place of training rows.

    Args:
        program: The model.
        owner: Whose it is.
        rows: Of the training: their sizes and covariates count.
        n: How many.
        seed: Fixes them.
        plate: Over the data.

    Raises:
        ValueError: If there are no rows, or the model is of data on a condition.
    """
    name = type(owner).__name__ if owner else "the program"
    if isinstance(owner, Generates):
        raise ValueError(f"{name} makes data on a condition alone; give y")
    if not rows:
        raise ValueError(
            f"{name} has no sample(), and draws in place of data of their size; give train"
        )
    some = (t[torch.arange(n) % len(t)] for t in rows)
    known = inspect(program, None, *some, plate=plate)
    return simulated(known, known.block_size, seed)[0].tensors[0]


def _measured(x: Tensor, owner: Model | None) -> Tensor:
    """Returns numbers whose distances count, `(n, M)` float64, NaN where something is missing.

    Args:
        x: `(n, ...)`.
        owner: Whose likelihood says what an encoder is given of them.
    """
    x = x.detach().cpu().flatten(1)
    likelihood = getattr(owner, "likelihood", None)
    if not isinstance(likelihood, Likelihood):
        return x.double()
    device = next(iter(likelihood.buffers()), x).device
    seen = likelihood.seen(x.to(device))
    features = likelihood.features(x.to(device))[:, : seen.shape[1]]  # what follows is the mask
    return features.masked_fill(~seen, torch.nan).cpu().double()
