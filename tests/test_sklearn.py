"""Estimators in scikit-learn's manners: its own checks, ours, closed forms."""

import pickle
from math import sqrt

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyrovae as pv
from pyrovae.sklearn import VAEAnomaly, VAEDensity, VAEImputer

FEW = {"num_steps": 2, "num_particles": 16}


@parametrize_with_checks(
    [VAEDensity(**FEW), VAEImputer(**FEW), VAEAnomaly(**FEW, false_alarms=0.3)]
)
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def data():
    """Rows of a linear normal in units of their own, with their density, and a model of them."""
    g = np.random.default_rng(0)
    w = g.normal(size=(4, 2))
    truth = stats.multivariate_normal(100 * np.arange(4), w @ w.T + 0.3 * np.eye(4))
    x = truth.rvs(400, random_state=1)
    return x, truth, VAEDensity(z_dim=2, num_steps=80, random_state=0).fit(x[:300])


def test_log_p_is_that_of_evaluate(data):
    """Gaps or none; draws of its own, and a closed form where the networks are cut off."""
    x, _, density = data
    x = x[300:330].copy()
    x[np.random.default_rng(0).random(x.shape) < 0.3] = np.nan
    x[3] = np.nan
    found = density.score_samples(x)
    vae = density.model_
    theirs = pv.evaluate(
        vae.model, vae.guide, torch.tensor(x), estimators=[pv.Importance(2_000)], seed=0
    )["importance"]
    error = theirs.std_error.numpy() * sqrt(1 + 2_000 / len(density.noise_))
    assert (abs(found - theirs.value.numpy()) <= 4 * error + 1e-9).all()
    assert found[3] == pytest.approx(0, abs=1e-9)


def test_log_p_is_exact_where_the_encoder_is(data):
    """The encoder set to a linear decoder: SciPy's normal, whatever is missing."""
    x, _, density = data
    density = pickle.loads(pickle.dumps(density))
    vae = density.model_
    with torch.no_grad():
        for net in (vae.decoder[0].net, vae.encoder.net):
            net[-1].weight.zero_()
        sigma = torch.nn.functional.softplus(vae.likelihood.raw_sigma) + vae.likelihood.floor
        vae.encoder.directions.copy_(vae.decoder[0].linear.weight)
        vae.encoder.centers.copy_(vae.decoder[1].bias)
        vae.encoder.raw_precision.copy_(sigma.expm1().log())
        a, s = vae.decoder[0].linear.weight, vae.likelihood.scale
        mean = (vae.likelihood.loc + s * vae.decoder[1].bias).numpy()
        cov = (s * (a @ a.T + sigma.square().diag()) * s.unsqueeze(1)).numpy()
    normal = stats.multivariate_normal(mean, cov)
    np.testing.assert_allclose(density.score_samples(x), normal.logpdf(x), rtol=1e-9)
    some = stats.multivariate_normal(mean[1:], cov[1:, 1:])
    x = np.column_stack([np.full(40, np.nan), x[:40, 1:]])
    np.testing.assert_allclose(density.score_samples(x), some.logpdf(x[:, 1:]), rtol=1e-9)
    gain = cov[0, 1:] @ np.linalg.inv(cov[1:, 1:])
    imputer = VAEImputer()
    vars(imputer).update({k: v for k, v in vars(density).items() if k.endswith("_")})
    imputer.noise_ = torch.tensor(stats.norm.ppf((np.arange(1_000) + 0.5) / 1_000))[:, None]
    imputer.noise_ = torch.cat([imputer.noise_, imputer.noise_.roll(383, 0)], 1)
    expected = mean[0] + (x[:, 1:] - mean[1:]) @ gain
    np.testing.assert_allclose(imputer.transform(x)[:, 0], expected, atol=1e-3)
    np.testing.assert_array_equal(imputer.transform(x)[:, 1:], x[:, 1:])
    with torch.no_grad():
        vae.encoder.centers.sub_(a @ torch.full((2,), 0.3))  # of Q(z|x), which weights make good
    points = torch.quasirandom.SobolEngine(2, True, 0).draw(8_192, dtype=torch.float64)
    imputer.noise_ = torch.special.ndtri(points)
    np.testing.assert_allclose(imputer.transform(x)[:, 0], expected, atol=1e-4)


def test_it_learns_the_density(data):
    """Held-out mean below that of the truth by no more than what 300 rows leave open."""
    x, truth, density = data
    short = truth.logpdf(x[300:]) - density.score_samples(x[300:])
    assert -4 * short.std() / 10 < short.mean() < 0.3
    assert density.score(x[300:]) == pytest.approx(density.score_samples(x[300:]).mean())


def test_a_row_counts_alone_whatever_stands_beside_it(data):
    x, _, density = data
    some = x.copy()
    some[::2, 0] = np.nan
    np.testing.assert_allclose(
        density.score_samples(some)[7::-1],
        np.concatenate([density.score_samples(some[k : k + 1]) for k in range(7, -1, -1)]),
        rtol=1e-12,
    )


def test_units_are_those_of_the_data(data):
    """X times c has the density of X, divided by c^D; training is the same but for rounding."""
    x, _, _ = data
    few = VAEDensity(num_steps=20, num_particles=50, random_state=0)
    a, b = (few.fit(c * x).score_samples(c * x).mean() for c in (1, 1024.0))
    assert a - b == pytest.approx(4 * np.log(1024), abs=1e-6)


def test_samples_have_the_moments_of_the_model(data):
    x, truth, density = data
    made = density.sample(4_000, random_state=0)
    assert made.dtype == np.float64
    np.testing.assert_array_equal(made, density.sample(4_000, random_state=0))
    assert (density.sample(5) != density.sample(5)).all()
    error = np.sqrt(np.diag(truth.cov) * (1 / 4_000 + 1 / 300))
    assert (abs(made.mean(0) - truth.mean) < 4 * error).all()
    np.testing.assert_allclose(made.std(0), np.sqrt(np.diag(truth.cov)), rtol=0.15)


def test_it_is_pickled_with_what_it_learned(data):
    x, _, density = data
    vae = density.model_
    pv.importance_sampling(vae.model, vae.guide, torch.tensor(x[:2]), num_particles=2, seed=0)
    again = pickle.loads(pickle.dumps(density))
    np.testing.assert_array_equal(again.score_samples(x), density.score_samples(x))
    np.testing.assert_array_equal(again.sample(3, 0), density.sample(3, 0))


def test_it_works_where_scikit_learn_puts_it(data):
    x, _, _ = data
    pipe = make_pipeline(StandardScaler(), VAEDensity(**FEW, random_state=0))
    assert cross_val_score(pipe, x, cv=3).shape == (3,)
    grid = {"vaedensity__z_dim": [1, 3]}
    search = GridSearchCV(pipe, grid, cv=2).fit(x)
    scores = search.cv_results_["mean_test_score"]
    assert search.best_params_["vaedensity__z_dim"] == [1, 3][scores.argmax()]
    best = search.best_estimator_
    assert best[-1].model_.z_dim == search.best_params_["vaedensity__z_dim"]
    assert best.score_samples(x).shape == (400,)


def test_names_come_in_and_go_out(data):
    x, _, _ = data
    frame = pd.DataFrame(x, columns=list("abcd"), index=range(5, 405))
    density = VAEDensity(z_dim=2, **FEW).set_output(transform="pandas").fit(frame)
    codes = density.transform(frame)
    assert list(density.feature_names_in_) == list("abcd")
    assert list(codes.columns) == ["vae0", "vae1"]
    assert list(codes.index) == list(frame.index)
    with torch.no_grad():
        np.testing.assert_array_equal(codes, density.model_.encode(torch.tensor(x)).mean)
    frame.iloc[0, 1] = np.nan
    whole = VAEImputer(**FEW).set_output(transform="pandas").fit_transform(frame)
    assert list(whole.columns) == list("abcd")
    assert not whole.isna().any(axis=None)


def test_false_alarms_are_as_promised():
    """Over 30 sets of 50 rows, 10 of them kept: the rate is l / (n + 1), however bad the model."""
    g, found = np.random.default_rng(0), []
    for k in range(30):
        x = g.standard_t(3, size=(250, 2))
        odd = VAEAnomaly(num_steps=1, num_particles=8, random_state=k, false_alarms=0.2)
        found.append((odd.fit(x[:50]).predict(x[50:]) < 0).mean())
        kept = np.random.RandomState(k).permutation(50)[:10]
        lowest = np.sort(odd.score_samples(x[kept]))
        assert odd.offset_ == pytest.approx(lowest[1], rel=1e-9)
    mean = np.mean(found)
    promised = 2 / 11  # of 10 kept rows
    assert abs(mean - promised) < 4 * np.std(found) / sqrt(30)


@pytest.mark.parametrize(
    ("estimator", "x", "sentence"),
    [
        (VAEDensity(), [[1.0, np.nan], [2.0, np.nan]], "column 1 of X is missing, NaN, in every"),
        (VAEDensity(), [[1.0, 2.0]], "a minimum of 2 is required"),
        (VAEDensity(z_dim=0), [[1.0], [2.0]], "z_dim is 0; give a positive integer"),
        (VAEDensity(num_steps=0), [[1.0], [2.0]], "num_steps is 0; give a positive integer"),
        (VAEAnomaly(num_particles=0), [[1.0], [2.0]], "num_particles is 0; give a positive"),
        (VAEAnomaly(false_alarms=1), [[1.0], [2.0]], "false_alarms is 1; give a rate between"),
    ],
)
def test_what_cannot_be_fitted(estimator, x, sentence):
    with pytest.raises(ValueError, match=sentence):
        estimator.fit(x)


def test_too_few_rows_to_flag_any():
    x = np.random.default_rng(0).normal(size=(30, 2))
    with pytest.warns(UserWarning, match="30 rows, of which 15 are kept .* give 38 or more"):
        odd = VAEAnomaly(**FEW).fit(x)
    assert odd.offset_ == -np.inf
    assert (odd.predict(100 * x) == 1).all()


@pytest.fixture(scope="module")
def people():
    """A table of mixed columns, one of no use; its rows have names, and a fifth is missing."""
    g = np.random.default_rng(0)
    t = g.normal(size=200)
    table = {
        "height": 170 + 8 * t + 3 * g.normal(size=200),
        "income": np.exp(7 + t / 2 + g.normal(size=200) / 3),
        "visits": g.poisson(np.exp(2 + t / 2)),
        "city": np.where(t + g.normal(size=200) > 0, "Oslo", g.choice(["Bern", "Rome"], 200)),
        "smokes": t > 0,
        "note": "as told",
    }
    whole = pd.DataFrame(table, index=pd.Index([f"p{i}" for i in range(200)], name="who"))
    return whole, whole.mask(g.random(whole.shape) < 0.2)


MIXED = {"num_steps": 60, "num_particles": 4_000, "random_state": 0, "columns": {"note": "ignore"}}


def test_gaps_of_mixed_columns_are_filled_in_by_what_is_expected(people):
    """As `pv.impute` fills them in, by draws of its own; all else stands as it was."""
    _, holes = people
    imputer = VAEImputer(**MIXED).fit(holes)
    kinds = [c.kind for c in imputer.columns_]
    assert kinds == ["real", "positive", "count", "categorical", "binary"]
    found = imputer.transform(holes)
    assert list(found.columns) == list(holes.columns)
    assert found.index.equals(holes.index)
    assert found.drop(columns="note").notna().all(axis=None)
    assert found["note"].equals(holes["note"])
    pd.testing.assert_frame_equal(found.where(holes.notna()), holes, check_dtype=False)

    x = imputer._checked(holes[:80])
    vae = imputer.model_
    options = {"num_particles": 4_000, "num_temperatures": 0, "num_draws": 200, "seed": 0}
    theirs = pv.impute(vae.model, vae.guide, x, **options)
    ours = imputer._checked(found[:80])
    off = ((ours - theirs.mean) / theirs.draws.std(0).clamp(min=1e-9))[theirs.gaps[:, 0], 0]
    assert off.abs().max() < 0.15  # of a posterior standard deviation, of 4,000 draws each
    alike = (ours == theirs.mean)[:, 3:][theirs.gaps[:, 3:]]
    assert alike.double().mean() > 0.95


def test_the_density_of_mixed_columns_is_that_of_importance_sampling(people):
    whole, holes = people
    density = VAEDensity(**MIXED).fit(holes)
    x = density._checked(whole[:40])
    found = density.score_samples(whole[:40])
    vae = density.model_
    table = pv.importance_sampling(vae.model, vae.guide, x, num_particles=4_000, seed=0)
    error = table.std_error().numpy() * sqrt(2)
    assert (abs(found - table.log_evidence().numpy()) < 5 * error + 1e-9).all()
    made = density.sample(5, random_state=0)
    assert list(made.columns) == ["height", "income", "visits", "city", "smokes"]
    assert set(made["city"]) <= {"Bern", "Oslo", "Rome"}
    again = pickle.loads(pickle.dumps(density))
    assert (again.score_samples(whole[:40]) == found).all()
    latents = density.set_output(transform="pandas").transform(whole[:3])
    assert list(latents.index) == ["p0", "p1", "p2"]


def test_odd_rows_of_mixed_columns(people):
    whole, _ = people
    odd = VAEAnomaly(**MIXED).fit(whole)
    other = whole[:1].assign(height=20.0, visits=900)
    assert odd.predict(pd.concat([whole[:1], other])).tolist() == [1, -1]


def test_a_table_of_mixed_columns_that_cannot_be_taken(people):
    whole, holes = people
    imputer = VAEImputer(**MIXED | {"num_steps": 2}).fit(holes)
    with pytest.raises(TypeError, match="X is a ndarray; give a DataFrame, or leave columns out"):
        imputer.transform(whole.to_numpy())
    with pytest.raises(ValueError, match="'city' is 'Paris' in row 0 of X, and is known to be of"):
        imputer.transform(whole.assign(city="Paris"))
    with pytest.raises(ValueError, match="yet now missing:\n- city"):
        imputer.transform(whole.drop(columns="city"))
    with pytest.raises(ValueError, match="'note' is 'as told' in all rows; say note: ignore"):
        VAEImputer(columns={}).fit(whole)
