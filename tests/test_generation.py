"""More data: from where they are drawn, whether copies are found, and what an AUC is worth."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch
from scenarios import LinearGaussian
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

import pyrovae as pv
from pyrovae.errors import NoDensity
from pyrovae.likelihoods import Column, Columns
from pyrovae.posteriors.nearest import among, nearest
from pyrovae.posteriors.two_sample import area, two_sample


@pytest.fixture
def normal():
    return LinearGaussian.make(x_dim=3, z_dim=2, sigma=0.7)


@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_nearest_is_what_it_says(gaps):
    gen = torch.Generator().manual_seed(0)
    x, train = torch.randn(9, 4, generator=gen), 1e4 + torch.randn(30, 4, generator=gen)
    x[:, 1:] += 1e4
    train[torch.rand(30, 4, generator=gen) < gaps] = torch.nan
    train[7] = x[3]
    x, train = x.double(), train.double()
    far = ((x[:, None] - train) ** 2).nanmean(2).mul(4).sqrt().nan_to_num(torch.inf)
    which, distance = nearest(x, train)
    assert which.tolist() == far.argmin(1).tolist()
    torch.testing.assert_close(distance, far.amin(1))
    assert distance[3] == 0  # not what is left of 1e8 - 1e8
    far = ((train[:, None] - train) ** 2).nanmean(2).mul(4).sqrt().nan_to_num(torch.inf)
    far.fill_diagonal_(torch.inf)
    torch.testing.assert_close(among(train, 0).sort().values, far.amin(1).sort().values)


def test_new_data_have_uniform_p_values_and_copies_small_ones(normal):
    train = normal.data(400)
    made = pv.generate(normal.model, 400, train=train, seed=0)
    assert made.p_value.mean().item() == pytest.approx(0.5, abs=4 * sqrt(2 / 12 / 400))
    assert abs(made.summary()["num_near"] - 20) < 4 * sqrt(20 * 2)
    assert made.summary()["num_copies"] == 0
    assert made.distance is not None
    assert made.usual is not None
    tied = replace(made, distance=made.usual[:9])
    share = [(1 + int((made.usual <= u).sum())) / 401 for u in made.usual[:9]]
    assert tied.p_value.tolist() == pytest.approx(share)
    copies = pv.Generated(
        train[:9], *nearest(train[:9].double(), train.double()), made.usual, None, None, 0
    )
    assert copies.nearest.tolist() == list(range(9))
    assert (copies.p_value == 1 / 401).all()
    assert "9 lie as near to one as the nearest 5% of training rows do, where 0.45" in str(copies)
    assert "9 are copies, which 0.0% of the training rows" in str(copies)


def test_a_program_is_drawn_from(normal):
    """Its prior predictive has the covariance W W^T + s^2 I."""
    made = pv.generate(normal.model, 4_000, train=normal.data(50), seed=0)
    cov = normal.weight @ normal.weight.T + 0.49 * torch.eye(3)
    wide = cov.diagonal()[:, None] * cov.diagonal() + cov.square()
    assert ((made.x.T.cov() - cov).abs() < 4 * (wide / 4_000).sqrt()).all()
    assert made == pv.generate(normal.model, 4_000, train=normal.data(50), seed=0)
    assert made.near is made.verdict is None


def test_near_a_datum_draws_are_of_its_posterior_predictive(normal):
    x = normal.data(2)
    made = pv.generate(normal.model, 2_000, near=x, guide=normal.mean_field, seed=0)
    assert made.x.shape == (4_000, 3)
    assert made.near.tolist() == [0] * 2_000 + [1] * 2_000
    assert made.verdict == ["not contradicted"] * 4_000
    mean = normal.posterior_mean(x) @ normal.weight.T + normal.mean
    cov = normal.weight @ normal.cov @ normal.weight.T + 0.49 * torch.eye(3)
    for i in range(2):
        error = (cov.diagonal() / 1_000).sqrt()  # of 1,000 weighted draws of z
        assert ((made.x[made.near == i].mean(0) - mean[i]).abs() < 4 * error).all()
    with pytest.raises(ValueError, match="no training rows were given"):
        _ = made.p_value


def test_models_make_their_own():
    torch.manual_seed(0)
    vae = pv.VAE(4, 2, (3,))
    assert torch.equal(pv.generate(vae.model, 6, seed=3).x, vae.sample(6, seed=3))
    assert torch.equal(pv.generate(vae, 6, seed=3).x, vae.sample(6, seed=3))
    cvae, y = pv.CVAE(4, 2, 1, (3,)), torch.tensor([0, 1, 1])
    assert torch.equal(pv.generate(cvae, 3, y=y, seed=3).x, cvae.generate(y, seed=3))
    assert torch.equal(
        pv.generate(cvae.model, 3, y=1, seed=3).x, cvae.generate(y[[1] * 3], seed=3)
    )
    near = pv.generate(cvae, 3, near=(torch.ones(2, 4), y[:2]), seed=0)
    assert near.x.shape == (6, 4)


def test_in_tables_distances_have_no_units():
    columns = Columns([Column("a", "real"), Column("b", "categorical", ("x", "y", "z"))])
    gen = torch.Generator().manual_seed(0)
    x = torch.stack([torch.randn(60, generator=gen), torch.arange(60.0) % 3], 1)
    x[0, 0] = torch.nan
    found = []
    for unit in (1.0, 1_000.0):
        train = x * torch.tensor([unit, 1.0])
        table = pv.TableVAE(2, 1, likelihood=columns).start_at(train)
        found.append(pv.generate(table, 5, train=train, seed=0).usual)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    assert 0 < found[0].max() < 3


def test_area_is_that_of_the_roc_and_its_error_delongs():
    gen = np.random.default_rng(0)
    ours, theirs = gen.integers(9, size=40) + 2, gen.integers(9, size=70)
    auc, variance = area(ours, theirs)
    y = np.repeat([1, 0], [40, 70])
    assert auc == pytest.approx(roc_auc_score(y, np.r_[ours, theirs]))
    assert auc == pytest.approx(mannwhitneyu(ours, theirs).statistic / 40 / 70)
    many = [area(gen.normal(size=15) + 1, 0.1 * gen.normal(size=150)) for _ in range(1_000)]
    values, variances = np.array(many).T
    assert variances.mean() == pytest.approx(values.var(), rel=0.2)


def test_what_is_of_one_distribution_cannot_be_told_apart(normal):
    """At a known rate; and what is not, can, where all means are the same."""
    x = normal.data(3_000)
    chance = [two_sample(x[i : i + 40], x[i + 40 : i + 80], i) for i in range(0, 1_600, 80)]
    p = torch.tensor([t.p_value for t in chance])
    assert p.mean().item() == pytest.approx(0.5, abs=4 * sqrt(1 / 12 / len(p)))
    assert (p < 0.1).double().mean() < 0.1 + 4 * sqrt(0.09 / len(p))
    spread = torch.tensor([t.auc for t in chance]).std().item()
    assert spread == pytest.approx(np.mean([t.std_error for t in chance]), rel=0.4)
    made = pv.generate(normal.model, 400, train=x, seed=0)
    gen = torch.Generator().manual_seed(0)
    gaps = x[:400].masked_fill(torch.rand(400, 3, generator=gen) < 0.4, torch.nan)
    assert made.two_sample(gaps).p_value > 0.01
    other = normal.mean + x.std(0) * torch.randn(400, 3, generator=gen)  # of independent columns
    bad = made.two_sample(other)
    assert bad.auc > 0.5 + 4 * bad.std_error
    assert bad.p_value < 1e-4
    assert "400 made and 400 real data are told apart: a classifier has" in bad.reading()
    few = two_sample(made.x[:20], 9 + made.x[20:40], 0)  # as few as are taken
    assert few.auc == 1
    assert made.two_sample(other) == bad
    assert made.two_sample(other, seed=5) != bad


def test_what_cannot_be_made_says_so(normal):
    vae, cvae, x = pv.VAE(4, 2, (3,)), pv.CVAE(4, 3, 1, (3,)), torch.ones(9, 4)

    def told(match, *args, error=ValueError, **options):
        with pytest.raises(error, match=match):
            pv.generate(*args, **options)

    told("VAE makes no data on a condition y", vae, 5, y=1)
    told("the program makes no data on a condition y", normal.model, 5, y=1)
    told("CVAE makes data on a condition alone; give y", cvae, 5)
    told("y holds 3, which is no class; this CVAE has 0 to 2", cvae, 5, y=3)
    told("y is of 2 and n is 5; give one for all", cvae, 5, y=[0, 1])
    told("y holds 2, and no training row is of that; they are of", cvae, 2, y=2,
         train=(x, torch.arange(9) % 2))  # fmt: skip
    told(r"near is of shape \(3,\) a datum, and training rows are of \(4,\)", vae, 2,
         near=x[:, :3], train=x)  # fmt: skip
    told("x is torch.float64 of shape", vae, 2, near=x[:, :3])
    told("y and near are both given", cvae, 2, y=1, near=x)
    told("the program has no sample.., and draws in place of data", normal.model, 2)
    told("there is no log P", pv.AutoEncoder(4, 2), 2, train=x, error=NoDensity)
    told("train is of 1 row", vae, 2, train=x[:1])
    told(r"train is of shape \(3,\) a datum", vae, 2, train=x[:, :3])
    told("n is 0", vae, 0)
    made = pv.generate(vae, 20, seed=0)
    with pytest.raises(ValueError, match="19 real data are too few; give 20 or more"):
        made.two_sample(torch.ones(19, 4))
    with pytest.raises(ValueError, match="of width 3 and those made of 4"):
        made.two_sample(torch.ones(20, 3))
