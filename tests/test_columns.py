"""Rows of mixed columns: each family against SciPy's, units, gaps, and what an encoder sees."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import pyrovae as pv
from pyrovae.likelihoods import Column, Columns
from pyrovae.side_by_side import SideBySide

COLUMNS = (
    Column("city", "categorical", ("Rome", "Oslo", "Bern")),
    Column("age", "real"),
    Column("smokes", "binary", ("no", "yes")),
    Column("income", "positive"),
    Column("mark", "ordinal", (1, 2, 3, 4)),
    Column("visits", "count"),
    Column("height", "real"),
)
CITY, AGE, SMOKES, INCOME, MARK, VISITS, HEIGHT = range(7)


def table(n=400, seed=0):
    """Rows of these columns, whose real ones have units far from 1."""
    g = np.random.default_rng(seed)
    z = g.normal(size=n)
    x = np.stack(
        [
            np.where(z > 0, g.integers(0, 2, n), 2),
            1000 + 50 * z + 10 * g.normal(size=n),
            z + g.normal(size=n) > 1,
            np.exp(8 + 0.5 * z + 0.1 * g.normal(size=n)),
            np.digitize(z + g.normal(size=n), [-1, 0, 1.5]),
            g.poisson(np.exp(1 + z)),
            0.01 * g.normal(size=n) - 3,
        ],
        1,
    )
    return torch.tensor(x, dtype=torch.get_default_dtype())


def holes(x, share=0.3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.where(torch.rand(x.shape, generator=g) < share, torch.nan, x)


@pytest.fixture
def likelihood():
    """Fitted to units of a table; its own parameters are anything."""
    torch.manual_seed(0)
    family = Columns(COLUMNS)
    family.scale_to(table())
    with torch.no_grad():
        family.raw_sigma.normal_()
        family.raw_steps.normal_()
    return family


def test_each_column_is_its_family(likelihood):
    """Against SciPy, column by column, from numbers f that are anything."""
    x = table(9, seed=1)
    f = torch.randn(9, likelihood.num_outputs(7))
    got = likelihood(f).base_dist.log_prob(x).detach().numpy()
    a = (f + likelihood.offset).detach().double().numpy()
    m, s = likelihood.loc.double().numpy(), likelihood.scale.double().numpy()
    age, height, income, log_mean, log_r, smokes, mark, *city = a.T
    sigma = torch.nn.functional.softplus(likelihood.raw_sigma).detach().double().numpy() + 0.01
    v = x.double().numpy()
    r = np.exp(log_r)
    first, *more = likelihood.raw_steps.detach().double().numpy()
    theta = np.cumsum([first, *np.log1p(np.exp(more))])
    below = 1 / (1 + np.exp(mark[:, None] - theta))  # P(X <= k)
    marks = np.diff(np.concatenate([np.zeros((9, 1)), below, np.ones((9, 1))], 1))
    rows = np.arange(9)
    logits = np.stack(city, 1)
    true = {
        AGE: stats.norm.logpdf(v[:, AGE], m[AGE] + s[AGE] * age, s[AGE] * sigma[0]),
        HEIGHT: stats.norm.logpdf(
            v[:, HEIGHT], m[HEIGHT] + s[HEIGHT] * height, s[HEIGHT] * sigma[1]
        ),
        INCOME: stats.lognorm.logpdf(
            v[:, INCOME], s[INCOME] * sigma[2], scale=np.exp(m[INCOME] + s[INCOME] * income)
        ),
        VISITS: stats.nbinom.logpmf(v[:, VISITS], r, r / (r + np.exp(log_mean))),
        SMOKES: stats.bernoulli.logpmf(v[:, SMOKES], 1 / (1 + np.exp(-smokes))),
        MARK: np.log(marks[rows, v[:, MARK].astype(int)]),
        CITY: logits[rows, v[:, CITY].astype(int)] - np.log(np.exp(logits).sum(1)),
    }
    for column, log_p in true.items():
        np.testing.assert_allclose(got[:, column], log_p, rtol=2e-4, atol=2e-4)


def test_heavy_tails_are_students():
    """Against SciPy, in units far from 1, for each column's own degrees of freedom."""
    family = Columns(COLUMNS, tails="student-t")
    family.scale_to(table())
    torch.testing.assert_close(family.df, torch.full((2,), 8.0))
    with torch.no_grad():
        family.raw_df.copy_(torch.tensor([-4.0, 1.0]))
        family.raw_sigma.normal_(generator=torch.Generator().manual_seed(0))
    x = table(9, seed=1)
    x[0, AGE] = 1e5
    f = torch.randn(9, family.num_outputs(7))
    got = family(f).base_dist.log_prob(x).detach().numpy()
    m, s = family.loc.double().numpy(), family.scale.double().numpy()
    sigma = torch.nn.functional.softplus(family.raw_sigma).detach().double().numpy() + 0.01
    df = 1 + 99 / (1 + np.exp([4.0, -1.0]))
    for k, d in enumerate((AGE, HEIGHT)):
        loc = m[d] + s[d] * f[:, k].double().numpy()
        true = stats.t.logpdf(x[:, d].double().numpy(), df[k], loc, s[d] * sigma[k])
        np.testing.assert_allclose(got[:, d], true, rtol=2e-4, atol=2e-4)
    normal = Columns(COLUMNS, tails="normal")
    normal.load_state_dict({k: v for k, v in family.state_dict().items() if k != "raw_df"})
    other = normal(f).base_dist.log_prob(x).detach().numpy()
    same = [CITY, SMOKES, INCOME, MARK, VISITS]  # which have no such tails
    np.testing.assert_array_equal(got[:, same], other[:, same])


def test_degrees_of_freedom_are_learned(tmp_path):
    """Of data without structure, to what SciPy's fit of a t says, and about 100 of a normal."""
    draws = np.random.default_rng(0).standard_t(2.5, 4_000)
    x = torch.tensor(np.stack([7 * draws, np.random.default_rng(1).normal(size=4_000)], 1))
    x = x.to(torch.get_default_dtype())
    family = Columns([Column("t", "real"), Column("n", "real")], tails="student-t")
    family.scale_to(x)
    f = torch.nn.Parameter(torch.zeros(2))
    adam = torch.optim.Adam([*family.parameters(), f], lr=0.05)
    for _ in range(300):
        loss = -family(f.expand(4_000, 2)).log_prob(x).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    df, _, _ = stats.t.fit(x[:, 0].double().numpy())
    assert family.df[0].item() == pytest.approx(df, rel=0.02)
    assert family.df[1].item() > 20
    vae = pv.TableVAE(2, 1, (4,), family)
    pv.save(vae, tmp_path)
    again = pv.load(tmp_path).likelihood
    assert again.config() == family.config()
    assert torch.equal(again.df, family.df)


def test_tails_that_are_none():
    with pytest.raises(ValueError, match="tails is 'cauchy'; choose of normal, student-t"):
        Columns(COLUMNS, tails="cauchy")


def test_at_first_each_value_is_as_frequent_as_in_the_data():
    x = table(2_000)
    family = Columns(COLUMNS)
    family.scale_to(x)
    p = family(torch.zeros(1, family.num_outputs(7)))
    mean = p.mean[0].detach()
    for d in (AGE, HEIGHT, VISITS, SMOKES, MARK, CITY):  # half a count aside
        torch.testing.assert_close(mean[d], x[:, d].mean(), rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(mean[INCOME], x[:, INCOME].mean(), rtol=0.05, atol=0)
    spread = p.base_dist.parts[0].stddev[0].detach()  # sigma is 1 at first
    torch.testing.assert_close(spread, x[:, [AGE, HEIGHT]].std(0, correction=0))


def test_nats_are_those_of_the_raw_data():
    """A table in other units has other densities, by the log of the units."""
    x = table()
    y = x.clone()
    y[:, AGE] = 3 * x[:, AGE] - 7
    found = []
    for data in (x, y):
        torch.manual_seed(0)
        vae = pv.VAE(7, 2, (8,), Columns(COLUMNS)).start_at(data)
        pv.svi.fit(vae.model, vae.guide, data, num_epochs=3, seed=0, progress=False)
        w = pv.importance_sampling(vae.model, vae.guide, data, num_particles=20, seed=0)
        found.append(w.log_evidence())
    torch.testing.assert_close(
        found[0] - found[1], torch.full_like(found[0], np.log(3)), rtol=0, atol=2e-2
    )


def test_gaps_are_left_out_and_seen_as_gaps(likelihood):
    x = table(20)
    y = holes(x)
    f = torch.randn(20, likelihood.num_outputs(7), requires_grad=True)
    parts = likelihood(f).base_dist.log_prob(x).masked_fill(y.isnan(), 0).sum(1)
    ours = pv.distributions.seen(likelihood(f), y, likelihood.filler).log_prob(y)
    torch.testing.assert_close(ours, parts)
    ours.sum().backward()
    assert f.grad.isfinite().all()
    masked = Columns(COLUMNS, mask=True)
    masked.load_state_dict(likelihood.state_dict())
    seen, plain = masked.features(y), likelihood.features(x)
    count = likelihood.num_features(7)
    assert seen.shape == (20, count + 7)
    torch.testing.assert_close(seen[:, count:], (~y.isnan()).to(seen))
    at = [AGE, HEIGHT, INCOME, VISITS, SMOKES, MARK, CITY, CITY, CITY]
    gone = y.isnan()[:, at]
    torch.testing.assert_close(seen[:, :count], plain.masked_fill(gone, 0))
    torch.testing.assert_close(plain[:, 6:].sum(1), torch.ones(20).to(plain))
    whole = likelihood.features(table())
    torch.testing.assert_close(whole[:, :6].mean(0), torch.zeros(6).to(whole), atol=1e-4, rtol=0)


def test_what_is_drawn_is_of_the_table(likelihood):
    x = likelihood(torch.zeros(500, likelihood.num_outputs(7))).sample()
    assert set(x[:, CITY].tolist()) == {0, 1, 2}
    assert set(x[:, SMOKES].tolist()) == {0, 1}
    assert set(x[:, MARK].tolist()) <= {0, 1, 2, 3}
    assert (x[:, INCOME] > 0).all()
    assert (x[:, VISITS] == x[:, VISITS].round()).all()
    assert likelihood(torch.zeros(1, likelihood.num_outputs(7))).support.check(x).all()
    x[3, MARK] = 1.5
    vae = pv.VAE(7, 2, (4,), likelihood)
    with pytest.raises(pv.errors.DataError, match="SideBySide: 1.5 at row 3, column 4"):
        pv.evaluate(vae.model, vae.guide, x, num_particles=5)


def test_a_vae_of_a_table_is_fitted_evaluated_saved_and_filled_in(tmp_path):
    x = holes(table(), 0.2)
    torch.manual_seed(0)
    vae = pv.VAE(7, 2, (16,), Columns(COLUMNS, mask=True)).start_at(x)
    result = pv.svi.fit(vae.model, vae.guide, x, num_epochs=40, seed=0, progress=False)
    assert result.elbo[-1] > result.elbo[0] + 0.5
    pv.save(vae, tmp_path)
    again = pv.load(tmp_path)
    assert again.likelihood.columns == COLUMNS
    a, b = (
        pv.importance_sampling(v.model, v.guide, x, num_particles=50, seed=0).log_evidence()
        for v in (vae, again)
    )
    assert torch.equal(a, b)
    filled = pv.impute(vae.model, vae.guide, x, num_particles=100, num_temperatures=0, seed=0)
    assert torch.equal(filled.mean[~filled.gaps], x[~filled.gaps])
    assert not filled.draws.isnan().any()


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ([], "has no columns; give a Column for each"),
        ([Column("a", "real"), Column("a", "count")], "has 'a' twice"),
    ],
)
def test_columns_that_are_none(columns, sentence):
    with pytest.raises(ValueError, match=sentence):
        Columns(columns)


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (("a", "reel"), "is of kind 'reel'; choose of real, positive"),
        (("a", "real", (0, 1)), "is real, which has no classes"),
        (("a", "binary", (0, 1, 2)), "is binary of 3 classes; give two"),
        (("a", "categorical", ("x",)), "is categorical of 1 classes; give two or more"),
    ],
)
def test_a_column_that_is_none(column, sentence):
    with pytest.raises(ValueError, match=sentence):
        Column(*column)


def test_distributions_side_by_side_have_equal_shapes():
    p = SideBySide(
        [dist.Normal(torch.zeros(5, 2), 1.0), dist.Bernoulli(torch.full((5, 1), 0.5))],
        torch.tensor([0, 2, 1]),
    )
    assert (p.batch_shape, p.expand([4, 5, 3]).sample().shape) == ((5, 3), (4, 5, 3))
    assert set(p.sample()[:, 1].tolist()) <= {0.0, 1.0}


def test_a_gap_of_classes_is_filled_with_the_most_probable():
    """Numbers by their mean, under all z together; of a decoder that says something of each z."""
    torch.manual_seed(0)
    vae = pv.VAE(7, 1, (8,), Columns(COLUMNS)).start_at(table())
    with torch.no_grad():
        vae.decoder[-1].weight.normal_(0, 2)
    x = holes(table(6), 0.6)
    d = pv.posterior(vae.model, None, x, num_particles=4_000, num_temperatures=0, seed=0)
    ours = d.best_of("x")
    z = d.resample(4_000)["z"]  # (L, N, 1)
    p = vae.decode(z).base_dist
    for column in (CITY, MARK, SMOKES):
        each = p.parts[{SMOKES: 3, MARK: 4, CITY: 5}[column]]
        shares = each.probs if column == SMOKES else each.probs[..., 0, :]
        shares = torch.cat([1 - shares, shares], -1) if column == SMOKES else shares
        mean, best = shares.mean(0).sort(-1, descending=True)
        clear = mean[:, 0] - mean[:, 1] > 0.1  # both are of draws
        assert clear.any()
        assert torch.equal(ours[clear, column].long(), best[clear, 0])
    mean = p.mean.mean(0).detach().double()
    spread = p.mean.std(0).detach().double() / d.ess().sqrt().unsqueeze(1)
    for column in (AGE, HEIGHT):
        assert ((ours - mean)[:, column].abs() < 5 * spread[:, column]).all()


def test_a_column_that_only_rounding_varies_has_the_unit_1():
    family = Columns([Column("a", "real"), Column("b", "real")])
    family.scale_to(torch.tensor([[0.1, 1e-12], [0.1, 3e-12], [0.1, 2e-12]], dtype=torch.float64))
    assert family.scale[0] == 1
    assert family.scale[1] < 1e-11
