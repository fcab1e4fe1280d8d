"""Log p of a column given the others, against closed forms and sums over its values."""

from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal

import pyrovae as pv
from pyrovae.checks import nan_is_missing
from pyrovae.posteriors import given_rest as module


@pytest.fixture(scope="module")
def linear():
    """A VAE whose P(X) is normal, and data of its own, some with gaps."""
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 5)
    vae = pv.VAE(5, 2, (8,), pv.likelihoods.make("normal", sigma=0.5), decoder=net)
    x = vae.sample(30, seed=1)
    gone = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    gone[0], gone[1], gone[2] = True, False, torch.arange(5) != 3
    return vae, torch.where(gone, torch.nan, x)


def exact(vae, x):
    """The conditional normal's log density of each number seen, given the others seen."""
    w, b = (p.detach().double() for p in vae.decoder.parameters())
    cov = w @ w.T + 0.25 * torch.eye(5).double()

    def log_p(row, of):
        return MultivariateNormal(b[of], cov[of][:, of]).log_prob(row[of]) if of.any() else 0.0

    found = torch.full(x.shape, torch.nan, dtype=torch.float64)
    for n, row in enumerate(x.double()):
        seen = ~row.isnan()
        for d in seen.nonzero()[:, 0]:
            rest = seen.clone()
            rest[d] = False
            found[n, d] = log_p(row, seen) - log_p(row, rest)
    return found


def test_of_a_normal_it_is_the_conditional_normal(linear):
    vae, x = linear
    for asked, rows in ((pv.Quadrature(), 5), (None, 30), (pv.AIS(10, 16), 8)):
        some = x[:rows]
        truth, seen = exact(vae, some), ~some.isnan()
        found = pv.given_rest(
            vae.model, vae.guide, some, estimator=asked, num_particles=400, seed=0
        )
        assert torch.equal(found.log_p.isnan(), ~seen)
        missing = [[word == "missing" for word in words] for words in found.words]
        assert torch.equal(torch.tensor(missing), ~seen)
        if isinstance(asked, pv.Quadrature):
            assert (found.log_p - truth)[seen].abs().max() < 1e-5
            continue
        off = ((found.log_p - truth) / found.std_error)[seen]
        assert off.abs().max() < 4
        assert 0.5 < off.square().mean().sqrt() < 1.2  # of one estimate's error alone: 1.4
    assert found.verdict[0] == "missing"
    assert found.columns == (0, 1, 2, 3, 4)


def test_some_columns_of_few_rows_at_a_time(linear, monkeypatch):
    vae, x = linear
    whole = pv.given_rest(vae.model, vae.guide, x[:4], estimator=pv.Quadrature())
    monkeypatch.setattr(module, "NUMBERS", 3 * 5 * 3)
    some = pv.given_rest(vae.model, vae.guide, x[:4], columns=[3, 1], estimator=pv.Quadrature())
    assert some.columns == (3, 1)
    torch.testing.assert_close(some.log_p, whole.log_p[:, [3, 1]], equal_nan=True)
    row, least = divmod(int(some.log_p.nan_to_num(torch.inf).argmin()), 2)
    assert f"column {some.columns[least]} of datum {row})" in repr(some)
    number, log_p, _, word = some.oddest(row)[0]
    assert (number, log_p, word) == (some.columns[least], some.log_p[row, least], "ok")
    assert len(some.oddest(row, 1)) == 1
    assert some.oddest(0) == []  # of which all is missing
    none = pv.given_rest(vae.model, vae.guide, x[:1], num_particles=9)
    assert repr(none) == "GivenRest(1 x 5; none is known)"


def test_over_the_values_of_a_column_it_sums_to_one():
    torch.manual_seed(0)
    vae = pv.VAE(6, 1, (4,))
    x = (torch.rand(3, 6) < 0.5).to(torch.get_default_dtype())
    asked = pv.Quadrature()
    log_p = pv.given_rest(vae.model, vae.guide, x, columns=[2], estimator=asked).log_p
    y = x.clone()
    y[:, 2] = 1 - y[:, 2]
    other = pv.given_rest(vae.model, vae.guide, y, columns=[2], estimator=asked).log_p
    torch.testing.assert_close(log_p.exp() + other.exp(), torch.ones_like(log_p))


def test_a_users_program_of_images_on_a_condition():
    """x = y + z + noise, z one number: columns of a row have one covariance with all others."""

    @nan_is_missing("x")
    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            loc = (y + z)[..., None, None].expand(*z.shape, 2, 2)
            p = dist.Normal(loc, 1.0).mask(~x.isnan()).to_event(2)
            pyro.sample("x", p, obs=torch.where(x.isnan(), 0.0, x))

    def guide(x, y):
        with pyro.plate("data", len(x)):
            off = torch.where(x.isnan(), 0.0, x - y[:, None, None])
            pyro.sample("z", dist.Normal(off.sum((1, 2)) / 5, 0.6))

    x, y = torch.randn(9, 2, 2), torch.arange(9.0).to(torch.get_default_dtype())
    x = x + y[:, None, None]
    found = pv.given_rest(model, guide, x, y, seed=0)
    rest = (x.sum((1, 2), keepdim=True) - x - 3 * y[:, None, None]) / 4
    truth = dist.Normal(rest + y[:, None, None], 1.25**0.5).log_prob(x).flatten(1)
    assert ((found.log_p - truth) / found.std_error).abs().max() < 4
    assert (found.log_p - truth).abs().max() < 0.1


@pytest.mark.parametrize(
    ("whole", "rest", "both"),
    [
        ("ok", "ok", "ok"),
        ("not contradicted", "ok", "not contradicted"),
        ("ok", "use ais", "use ais"),
        ("more samples", "not contradicted", "more samples"),
    ],
)
def test_words_are_the_worse_of_both(linear, monkeypatch, whole, rest, both):
    def scored(asked, pair, data, seed, options):
        value = torch.zeros(len(data[0]), dtype=torch.float64)
        words = [whole] + [rest] * (len(value) - 1)
        return SimpleNamespace(value=value, std_error=value, verdict=lambda: words), "log P(X)"

    vae, x = linear
    monkeypatch.setattr(module, "scored", scored)
    found = pv.given_rest(vae.model, vae.guide, x[1:2])
    assert found.words == [[both] * 5]
    assert found.verdict == [both]


def test_a_guide_far_off_says_so_of_each_number(linear):
    vae, x = linear
    few = pv.given_rest(vae.model, vae.guide, x[:4], estimator=pv.Importance(30), seed=0)
    words = set(sum(few.words, []))
    assert words <= {"missing", "more samples", "use ais"}
    assert len(words) > 1
    assert few.verdict[1] in words - {"missing"}
    again = pv.given_rest(vae.model, vae.guide, x[:4], estimator=pv.Importance(30), seed=0)
    assert few == again


def test_what_cannot_be_had_says_so(linear):
    vae, x = linear

    def plain(x):
        return vae.model(x)

    def told(error, match, *data, model=vae.model, guide=vae.guide, **options):
        with pytest.raises(error, match=match):
            pv.given_rest(model, guide, *data, **options)

    told(ValueError, "does not say that NaN is missing", x, model=plain)
    for wrong in ([5], [-1], [], [0.5], [[1]], [True]):
        told(ValueError, "give a list of numbers from 0 to 4", x, columns=wrong)
    told(ValueError, "'elbo' is a bound that lies below log p", x, estimator="elbo")
    told(ValueError, "'iwae' is a bound", x, estimator=pv.IWAE(5, 100))
    told(TypeError, "estimator is 3; give one, such as pv.AIS", x, estimator=3)
    told(ValueError, "plate is None, and scores are each datum's", x, plate=None)
    told(TypeError, "no option 'num_samples'; did you mean num_particles", x, num_samples=3)
    told(TypeError, "x is of torch.int64, which has no NaN", torch.ones(3, 5).long())
    x = x.clone()
    x[3, 1] = torch.inf
    told(ValueError, "inf at row 3, column 1", x)
