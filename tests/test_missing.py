"""Data with gaps: NaN is what is missing, and log P is that of the rest, exactly."""

import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.utils.data import DataLoader, TensorDataset

import pyrovae as pv


@pytest.fixture
def linear():
    """A VAE whose decoder is linear: P(X) is normal, and so is that of any of its dimensions."""
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 5)
    return pv.VAE(5, 2, (8,), pv.likelihoods.make("normal", sigma=0.5), decoder=net)


def holes(x, share=0.5, seed=0):
    """x with that share of its cells missing; in row 0 all are, in row 1 none."""
    gone = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < share
    gone[0], gone[1] = True, False
    return torch.where(gone, torch.nan, x)


def exact(vae, x):
    """log P of what is seen of each row, in closed form."""
    w, b = (p.detach().double() for p in vae.decoder.parameters())
    values = []
    for row in x.double():
        seen = ~row.isnan()
        cov = w[seen] @ w[seen].T + 0.25 * torch.eye(int(seen.sum())).double()
        some = bool(seen.any())
        values.append(
            MultivariateNormal(b[seen], cov).log_prob(row[seen]) if some else w.sum() * 0
        )
    return torch.stack(values)


def test_log_p_of_what_is_seen_is_exact(linear):
    x = holes(linear.sample(40, seed=1))
    truth = exact(linear, x)
    off = pv.quadrature(linear.model, x) - truth
    assert off.abs().max() < 1e-5
    w = pv.importance_sampling(linear.model, linear.guide, x, num_particles=4_000, seed=0)
    good = torch.tensor([v == "not contradicted" for v in w.verdict()])
    assert good.sum() > 20
    assert ((w.log_evidence() - truth) / w.std_error())[good].abs().max() < 4
    a = pv.ais(linear.model, x, guide=linear.guide, num_particles=16, seed=0)
    assert (a.log_evidence() - truth).mean().abs() < 4 * a.std_error().square().mean().sqrt()


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_estimators_agree_compiled_and_not(linear, compiled):
    """The first blocks are whole, so that graphs made of them are none for the others."""
    x = linear.sample(100, seed=1)
    x[40:] = holes(x[40:])
    asked = [pv.Importance(4_000), pv.Naive(4_000)]
    found = pv.evaluate(
        linear.model, linear.guide, x, estimators=asked, seed=0, block_size=20, compile=compiled
    )
    truth = exact(linear, x)
    for name in ("importance", "prior"):
        e = found[name]
        good = (e.ess > 200) & (e.pareto_k < 0.5)
        assert good.sum() > 30
        assert ((e.value - truth) / e.std_error)[good].abs().max() < 4.5


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_training_raises_log_p_of_what_is_seen(linear, compiled):
    x = holes(linear.sample(600, seed=1))
    before = exact(linear, x).mean()
    start = [p.clone() for p in linear.decoder.parameters()]
    for p in linear.decoder.parameters():
        torch.nn.init.normal_(p, std=0.1)
    options = {"num_epochs": 60, "lr": 0.01, "batch_size": 100, "compile": compiled}
    pv.svi.fit(linear.model, linear.guide, x, seed=0, progress=False, **options)
    assert all(p.isfinite().all() for p in linear.parameters())
    assert exact(linear, x).mean() > before - 0.1  # the truth's own
    assert not torch.equal(start[0], linear.decoder.weight)


@pytest.mark.parametrize("name", sorted(set(pv.likelihoods.families) - {"columns"}))
def test_every_likelihood_leaves_out_what_is_missing(name):
    """Its gradient too: a filler outside the support would make that NaN."""
    torch.manual_seed(0)
    vae = pv.VAE(6, 2, (4,), likelihood=name)
    x = vae.sample(8, seed=0)
    y = holes(x)
    z = torch.randn(8, 2)
    p = vae.decode(z).base_dist
    parts = p.log_prob(x).masked_fill(y.isnan(), 0).sum(1)
    with torch.no_grad():
        ours = pv.distributions.seen(vae.decode(z), y, vae.likelihood.filler).log_prob(y)
    torch.testing.assert_close(ours, parts.detach())
    pv.distributions.seen(vae.decode(z), y, vae.likelihood.filler).log_prob(y).sum().backward()
    assert all(p.grad.isfinite().all() for p in vae.decoder.parameters())


def test_of_whole_data_nothing_changes(linear):
    x = linear.sample(9, seed=1)
    p = linear.decode(torch.zeros(9, 2))
    assert pv.distributions.seen(p, x) is p


@pytest.mark.parametrize("kind", [pv.VAE, pv.ConvVAE])
def test_priors_made_of_data_with_gaps_are_numbers(kind):
    x = holes((torch.rand(30, 16) < 0.5).float().to(torch.get_default_dtype()))
    shape = 16 if kind is pv.VAE else (1, 4, 4)
    vae = kind(shape, 2, (4,), prior="vamp(5)").start_at(x)
    assert all(p.isfinite().all() for p in vae.parameters())
    w = pv.importance_sampling(vae.model, vae.guide, x, num_particles=9, seed=0)
    assert w.log_w.isfinite().all()


def test_infinities_are_refused_still(linear):
    x = linear.sample(5, seed=1)
    x[3, 1] = torch.inf
    with pytest.raises(ValueError, match="inf at row 3, column 1"):
        pv.importance_sampling(linear.model, linear.guide, x, num_particles=2)


def test_evidence_tells_of_what_is_missing(linear):
    """Bits are of the dimensions that are seen; of a row without any it is said that it is 0."""
    x = linear.sample(20, seed=0)
    whole = pv.evaluate(linear.model, linear.guide, x, num_particles=50, seed=0)
    assert "missing" not in whole.protocol
    x[:, 0] = torch.nan
    x[3] = torch.nan
    e = pv.evaluate(linear.model, linear.guide, x, num_particles=50, seed=0)
    dims = whole.protocol["dims"]
    assert e.protocol["dims"] == pytest.approx(19 * (dims - 1) / 20)
    assert e.protocol["missing"] == f"{(19 + dims) / (20 * dims):.1%}"
    assert e.protocol["rows_unseen"] == 1
    assert e["importance"].value[3] == pytest.approx(0, abs=1e-6)
    assert "Of 1 of them nothing is seen: what is estimated there is 0." in e.reading()


def test_batches_tell_of_what_is_missing_as_tensors_do(linear):
    x = linear.sample(20, seed=0)
    x[4:9, 0] = torch.nan
    batches = DataLoader(TensorDataset(x), batch_size=6)
    found = [
        pv.evaluate(linear.model, linear.guide, data, num_particles=20, seed=0)
        for data in (x, batches)
    ]
    one, other = (e.protocol for e in found)
    assert one["missing"] == other["missing"]
    assert one["dims"] == other["dims"]


@pytest.mark.parametrize("loaded", [False, True])
def test_a_column_of_which_nothing_is_known_cannot_be_trained_on(linear, loaded):
    """In data to be evaluated or filled in it may well be missing everywhere."""
    vae = pv.TableVAE(4, 2)
    x = torch.randn(20, 4)
    x[:, 2] = torch.nan
    data = DataLoader(x, batch_size=8) if loaded else x
    with pytest.raises(ValueError, match="column 2 of x is missing, NaN, in every row, so that"):
        pv.svi.fit(vae.model, vae.guide, data, valid=x, num_epochs=1, progress=False)
    x[19, 2] = 0.5
    pv.svi.fit(vae.model, vae.guide, data, num_epochs=1, progress=False)
    x[:, 2] = torch.nan
    assert pv.impute(vae.model, vae.guide, x[:3], num_particles=20, seed=0).mean.isfinite().all()


def test_labels_may_all_be_missing():
    m = pv.SemiSupervisedVAE(4, 3, 2, (3,))
    x, y = (torch.rand(20, 4) < 0.5).to(torch.get_default_dtype()), torch.full((20,), torch.nan)
    found = pv.svi.fit(m.model, m.guide, (x, y), num_epochs=1, seed=0, progress=False)
    assert torch.tensor(found.elbo).isfinite().all()
