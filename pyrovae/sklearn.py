"""A VAE of tables in scikit-learn's manners: density, imputer, outlier detector."""

__all__ = ["VAEAnomaly", "VAEDensity", "VAEImputer"]

import warnings
from collections.abc import Iterator, Mapping, Sequence
from math import ceil, inf, log
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    BaseEstimator,
    DensityMixin,
    OneToOneFeatureMixin,
    OutlierMixin,
    TransformerMixin,
)
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pyrovae.checks import check_sizes
from pyrovae.data.splits import check_seen
from pyrovae.data.tables import TableFile, coded, decoded, filled_in
from pyrovae.distributions import seen
from pyrovae.likelihoods.columns import Column, Columns
from pyrovae.models.table import TableVAE
from pyrovae.program.sites import base
from pyrovae.rng import seeded, stream_seed
from pyrovae.side_by_side import SideBySide
from pyrovae.svi.fitting import fit

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]
STREAM = 61  # of random numbers, and the one that follows
BATCH = 1_024  # rows of a step, at most
AT_ONCE = 2**22  # numbers that are decoded at once
HELD_OUT = 0.2  # of the rows, for a threshold


class Draws(NamedTuple):
    """Draws of a block's posterior, with their weights.

    Attributes:
        given: P(X|z) at each, of batch shape `(S, n, D)`.
        log_w: Their log-weights, `(S, n)`, nats.
    """

    given: SideBySide
    log_w: Tensor


class _OfTables(BaseEstimator):
    """What the three have in common: how they are trained, and how they weigh draws."""

    def __init__(
        self,
        z_dim: int | None = None,
        hidden_dims: Sequence[int] = (32,),
        num_steps: int = 1_500,
        num_particles: int = 1_000,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        self.z_dim = z_dim
        self.hidden_dims = hidden_dims
        self.num_steps = num_steps
        self.num_particles = num_particles
        self.random_state = random_state
        self.verbose = verbose
        self.columns = columns

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        if "model_" in state:  # what Pyro hangs on the parameters does not pickle
            model = TableVAE.from_config(self.model_.config()).double()
            model.load_state_dict(self.model_.state_dict())
            state = {**state, "model_": model}
        return state

    def _checked(self, X: ArrayLike, *, reset: bool = False) -> Tensor:
        """Returns X as float64, `(N, D)`, NaN where it is missing.

        Args:
            X: A table, of mixed columns where `columns` are given.
            reset: Whether it is what is learned from.
        """
        if not reset:
            check_is_fitted(self)
        if self.columns is not None:
            return self._coded(X, reset)
        x = validate_data(
            self,
            X,  # pyright: ignore[reportArgumentType]  # inferred from a default of its own
            reset=reset,
            dtype=np.float64,
            ensure_all_finite="allow-nan",
            ensure_min_samples=2 if reset else 1,
        )
        rows = torch.tensor(x)
        if reset:
            self.columns_ = tuple(Column(str(d), "real") for d in range(rows.shape[1]))
        return rows

    def _coded(self, X: Any, reset: bool) -> Tensor:
        """Returns the numbers of a DataFrame of mixed columns, `(N, D)`, NaN where one is missing.

        Args:
            X: The DataFrame.
            reset: Whether its columns are what is learned from.

        Raises:
            TypeError: If it is none.
        """
        if not hasattr(X, "iloc"):
            raise TypeError(
                f"columns are given, and X is a {type(X).__name__}; give a DataFrame, or leave "
                "columns out"
            )
        validate_data(self, X, reset=reset, skip_check_array=True)
        frame = X.rename(columns=str)
        if reset:
            table = TableFile(frame, self.columns)
            self.columns_, x = table.columns, table.rows.x[:]
        else:
            x = coded(frame, self.columns_, "X")
        return x.double()

    def _fit(self, x: Tensor, random: np.random.RandomState) -> None:
        """Trains `model_` with x `(N, D)`, and draws the noise of all weights.

        Args:
            x: NaN where it is missing.
            random: What the seed is drawn from.

        Raises:
            ValueError: If nothing is known of a column.
        """
        check_seen(~x.isnan().all(0), "X")
        check_sizes(num_steps=self.num_steps, num_particles=self.num_particles)
        seed = int(random.randint(2**31 - 1))
        n, d = x.shape
        z_dim = max(1, min(20, d - 1)) if self.z_dim is None else self.z_dim
        with seeded(seed, STREAM):
            family = Columns(self.columns_)
            model = TableVAE(d, z_dim, self.hidden_dims, family).double().start_at(x)
        batch_size = min(n, BATCH)
        fit(
            model.model,
            model.guide,
            x,
            num_epochs=max(1, round(self.num_steps / ceil(n / batch_size))),
            batch_size=batch_size,
            lr=5e-3,
            lr_schedule="one-cycle",
            # a prior whose strength for each datum falls with their number
            optimizer=f"adamw({500 / max(n, 10)})",
            objective="iwae(5)",
            seed=seed,
            progress=bool(self.verbose),
        )
        self.model_ = model
        points = torch.quasirandom.SobolEngine(z_dim, True, stream_seed(seed, STREAM + 1))
        u = points.draw(self.num_particles, dtype=torch.float64)
        self.noise_ = torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12))

    @torch.no_grad()
    def _blocks(self, x: Tensor) -> Iterator[tuple[Tensor, Draws]]:
        """Yields blocks of rows of x `(N, D)`, with draws of their posterior."""
        model, noise = self.model_, self.noise_.unsqueeze(1)  # (S, 1, z_dim)
        widest = max(x.shape[1], *model.hidden_dims, model.z_dim)
        for rows in x.split(max(1, AT_ONCE // (len(noise) * widest))):
            q = model.encode(rows)
            z = q.loc + (q.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)  # (S, n, z_dim)
            p = model.decode(z)
            log_p = seen(p, rows, model.likelihood.filler).log_prob(rows)
            log_w = model.prior(rows).log_prob(z) + log_p - q.log_prob(z)
            given = base(p)
            assert isinstance(given, SideBySide)
            yield rows, Draws(given, log_w)

    def _log_p(self, x: Tensor) -> Array:
        """Returns the estimate of log P(X) of each row of x `(N, D)`, `(N,)`, nats."""
        size = log(len(self.noise_))
        return torch.cat([d.log_w.logsumexp(0) - size for _, d in self._blocks(x)]).numpy()


class VAEDensity(TransformerMixin, DensityMixin, _OfTables):
    r"""The density of rows of a table, log P(X) in nats, by a `TableVAE`; NaN is missing.

    .. math::
        \log P(x_n) \approx \log \frac{1}{S} \sum_s \frac{P(x_n, z_{ns})}{Q(z_{ns} \mid x_n)},
        \quad z_{ns} = \mu(x_n) + L(x_n) \epsilon_s

    with the same normal S Sobol points :math:`\epsilon` for every row, scrambled once, in `fit`: a
    row's number depends on nothing but the row. Each of the S terms is an unbiased estimate of
    P(x), and the log of their mean too low in expectation, by about half its variance. How large
    its error is, and whether it can be trusted, `pyrovae.evaluate` says:
    `pv.evaluate(d.model_.model, d.model_.guide, torch.tensor(X))`.

    Columns are standardised inside the density, so that nats are those of X as it is given; of
    mixed `columns` each has the family of its kind, see `pyrovae.likelihoods.Columns`. Of a row
    with gaps the density is that of what is there. Numbers are float64, those of mixed columns as
    float32 holds them. A constant column has no scale of its own, and is given the unit 1; no
    column's sigma given z is below 1 % of its standard deviation.

    Args:
        z_dim: Latent dimensions; `None`: D - 1, at least 1 and 20 at most.
        hidden_dims: Hidden widths of the networks.
        num_steps: Steps of the optimizer, about: whole epochs in batches of 1,024 rows at most.
        num_particles: S.
        random_state: Fixes training and points; `None` draws anew in each `fit`.
        verbose: Show a bar while training, where it is not 0.
        columns: What the columns of a DataFrame are, by name, as `pyrovae.data.load` takes it:
            kinds, or "index", "label", "ignore"; what is not named is guessed, `{}`: all. `None`:
            X is rows of numbers.

    Attributes:
        model_: The `TableVAE`, float64.
        columns_: What its columns are, a `pyrovae.likelihoods.Column` each.
        noise_: The points, `(S, z_dim)`.
        n_features_in_: D.
        feature_names_in_: Its columns' names, where `fit` was given such.

    References:
        Importance weighted autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519
        Decoupled weight decay regularization (Loshchilov and Hutter, 2019),
        https://arxiv.org/abs/1711.05101: of 500 / N, so that with more data it counts less.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(40, 3))
        >>> VAEDensity(num_steps=5, random_state=0).fit(x).score_samples(x[:4]).shape
        (4,)
    """

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Trains the model; returns self.

        Args:
            X: `(N, D)`, NaN where it is missing.
            y: Ignored.

        Raises:
            ValueError: If X is no table of finite numbers and NaN, has one row, or a column of
                nothing but NaN.
        """
        self._fit(self._checked(X, reset=True), check_random_state(self.random_state))
        return self

    def score_samples(self, X: ArrayLike) -> Array:
        """Returns log P of each row of X `(N, D)`, `(N,)`, nats."""
        return self._log_p(self._checked(X))

    def score(  # pyright: ignore[reportIncompatibleMethodOverride]  # theirs only shows how
        self, X: ArrayLike, y: object = None
    ) -> float:
        """Returns the mean of log P over the rows, nats per datum.

        Args:
            X: `(N, D)`, NaN where it is missing.
            y: Ignored.
        """
        return float(self.score_samples(X).mean())

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> "Array | DataFrame":
        """Returns rows drawn from the model, `(n_samples, D)`, as `fit` was given such.

        Args:
            n_samples: How many.
            random_state: Fixes them; `None` draws anew.
        """
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        x = self.model_.sample(n_samples, seed=seed)
        return x.numpy() if self.columns is None else decoded(x, self.columns_)

    @torch.no_grad()
    def transform(self, X: ArrayLike) -> Array:
        """Returns the mean of Q(z|X) of each row of X `(N, D)`, `(N, z_dim)`."""
        return self.model_.encode(self._checked(X)).mean.numpy()

    def get_feature_names_out(self, input_features: object = None) -> NDArray[Any]:
        """Returns the names of what `transform` returns: "vae0", "vae1", ...

        Args:
            input_features: Ignored.
        """
        check_is_fitted(self)
        return np.array([f"vae{k}" for k in range(self.model_.z_dim)], dtype=object)


class VAEImputer(OneToOneFeatureMixin, TransformerMixin, _OfTables):
    r"""Fills the gaps of rows, NaN, with what a `TableVAE` expects given the rest.

    .. math::
        E[x_{\text{missing}} \mid x_{\text{seen}}] \approx
        \sum_s \bar w_{ns} E[x_{\text{missing}} \mid z_{ns}], \quad
        \bar w_{ns} \propto P(x_{\text{seen}}, z_{ns}) / Q(z_{ns} \mid x_{\text{seen}})

    with draws as of `VAEDensity`, for values that are missing at random. What `fit` has learned
    serves other rows too. Of classes, in mixed `columns`, it is the most probable. Draws and
    intervals: `pyrovae.impute`.

    Args:
        z_dim: Latent dimensions; `None`: D - 1, at least 1 and 20 at most.
        hidden_dims: Hidden widths of the networks.
        num_steps: Steps of the optimizer, about.
        num_particles: S.
        random_state: Fixes training and points; `None` draws anew in each `fit`.
        verbose: Show a bar while training, where it is not 0.
        columns: What the columns of a DataFrame are, by name, as `pyrovae.data.load` takes it:
            kinds, or "index", "label", "ignore"; what is not named is guessed, `{}`: all. `None`:
            X is rows of numbers.

    Attributes:
        model_: The `TableVAE`, float64.
        columns_: What its columns are, a `pyrovae.likelihoods.Column` each.
        noise_: The points, `(S, z_dim)`.
        n_features_in_: D.
        feature_names_in_: Its columns' names, where `fit` was given such.

    References:
        MIWAE: deep generative modelling and imputation of incomplete data sets (Mattei and
        Frellsen, 2019), https://arxiv.org/abs/1812.02633

    Example:
        >>> x = np.random.default_rng(0).normal(size=(40, 3))
        >>> x[0, 1] = np.nan
        >>> np.isnan(VAEImputer(num_steps=5, random_state=0).fit_transform(x)).sum()
        np.int64(0)
    """

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Trains the model; returns self.

        Args:
            X: `(N, D)`, NaN where it is missing.
            y: Ignored.

        Raises:
            ValueError: As of `VAEDensity`.
        """
        self._fit(self._checked(X, reset=True), check_random_state(self.random_state))
        return self

    def transform(self, X: ArrayLike) -> "Array | DataFrame":
        """Returns X `(N, D)` with its gaps filled in, a DataFrame where `columns` are given."""
        x = self._checked(X)
        parts = []
        for rows, d in self._blocks(x):
            share = d.log_w.softmax(0).unsqueeze(-1)
            best = d.given.told((share * d.given.summary).sum(0))
            parts.append(torch.where(rows.isnan(), best, rows))
        whole = torch.cat(parts)
        if self.columns is None:
            return whole.numpy()
        frame: Any = X
        found = filled_in(frame.rename(columns=str), x.isnan(), whole, self.columns_)
        return found.set_axis(frame.columns, axis=1)


class VAEAnomaly(OutlierMixin, _OfTables):
    r"""Flags rows that a `TableVAE` finds improbable, at a promised rate of false alarms.

    A fifth of the rows is kept from training; a row is flagged where its log P, as of
    `VAEDensity`, is below the l-th lowest of theirs, l = floor(`false_alarms` (n + 1)). Of
    independent draws of what `fit` was given at most that share is flagged, in the mean over
    what is kept, however bad the model is. The rows that were trained on score higher. It is not
    the share of odd rows among those given, which scikit-learn calls contamination.

    Args:
        z_dim: Latent dimensions; `None`: D - 1, at least 1 and 20 at most.
        hidden_dims: Hidden widths of the networks.
        num_steps: Steps of the optimizer, about.
        num_particles: S.
        random_state: Fixes which rows are kept, training and points; `None` draws anew.
        verbose: Show a bar while training, where it is not 0.
        columns: What the columns of a DataFrame are, by name, as `pyrovae.data.load` takes it:
            kinds, or "index", "label", "ignore"; what is not named is guessed, `{}`: all. `None`:
            X is rows of numbers.
        false_alarms: The rate, between 0 and 1; 1 / rate - 1 rows are kept at least, if that
            is no more than half of them. With fewer nothing can be flagged, which is warned of.

    Attributes:
        offset_: The threshold, nats; -inf where nothing is flagged.
        model_: The `TableVAE`, float64.
        noise_: The points, `(S, z_dim)`.
        n_features_in_: D.
        feature_names_in_: Its columns' names, where `fit` was given such.

    References:
        Testing for outliers with conformal p-values (Bates et al., 2023),
        https://arxiv.org/abs/2104.08279

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> VAEAnomaly(num_steps=5, random_state=0).fit(x).predict([[0, 0, 0], [9, 9, 9]])
        array([ 1, -1])
    """

    def __init__(
        self,
        z_dim: int | None = None,
        hidden_dims: Sequence[int] = (32,),
        num_steps: int = 1_500,
        num_particles: int = 1_000,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
        false_alarms: float = 0.05,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        training = hidden_dims, num_steps, num_particles, random_state, verbose
        super().__init__(z_dim, *training, columns)
        self.false_alarms = false_alarms

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Trains the model and finds the threshold; returns self.

        Args:
            X: `(N, D)`, NaN where it is missing.
            y: Ignored.

        Raises:
            ValueError: As of `VAEDensity`, or if `false_alarms` is no rate.
        """
        rate = self.false_alarms
        if not 0 < rate < 1:
            raise ValueError(f"false_alarms is {rate}; give a rate between 0 and 1, such as 0.05")
        x = self._checked(X, reset=True)
        random = check_random_state(self.random_state)
        least = ceil(1 / rate) - 1
        n = min(max(round(HELD_OUT * len(x)), least), len(x) // 2)
        kept, rest = torch.tensor(random.permutation(len(x))).tensor_split([n])
        self._fit(x[rest], random)
        level = int((np.arange(1, n + 1) / (n + 1) <= rate).sum())
        if level == 0:
            warnings.warn(
                f"X has {len(x)} rows, of which {n} are kept from training, too few to flag any "
                f"at false_alarms={rate:g}; give {2 * least} or more",
                stacklevel=2,
            )
        self.offset_ = np.sort(self._log_p(x[kept]))[level - 1].item() if level else -inf
        return self

    def score_samples(self, X: ArrayLike) -> Array:
        """Returns log P of each row of X `(N, D)`, `(N,)`, nats: the lower the odder."""
        return self._log_p(self._checked(X))

    def decision_function(self, X: ArrayLike) -> Array:
        """Returns log P above the threshold of each row of X `(N, D)`, `(N,)`, nats."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Returns -1 of each row of X `(N, D)` that is flagged, else 1, `(N,)`."""
        return np.where(self.decision_function(X) < 0, -1, 1)
