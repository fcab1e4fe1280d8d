"""The VAE of tables: exact where its decoder is linear, for every pattern of gaps."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import pyrovae as pv
from pyrovae.likelihoods import Column, Columns


def linear(x_dim=5, z_dim=2, seed=0):
    """A model whose networks are 0, its encoder set to its decoder, in units of its own."""
    torch.manual_seed(seed)
    vae = pv.TableVAE(x_dim, z_dim, (4,))
    with torch.no_grad():
        for net in (vae.decoder[0].net, vae.encoder.net):
            net[-1].weight.zero_()
        vae.likelihood.loc.copy_(10 * torch.randn(x_dim))
        vae.likelihood.scale.copy_(1 + torch.rand(x_dim))
        vae.likelihood.raw_sigma.normal_()
        vae.decoder[0].linear.weight.normal_()
        vae.decoder[1].bias.normal_()
        sigma = torch.nn.functional.softplus(vae.likelihood.raw_sigma) + vae.likelihood.floor
        vae.encoder.directions.copy_(vae.decoder[0].linear.weight)
        vae.encoder.centers.copy_(vae.decoder[1].bias)
        vae.encoder.raw_precision.copy_(sigma.expm1().log())
    return vae, sigma


def test_every_weight_is_the_evidence_whatever_is_missing():
    """log p(x_seen) of the normal in closed form, by SciPy; each draw of Q(z|x) gives it."""
    vae, sigma = linear()
    x = vae.sample(40, seed=0)
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.5] = torch.nan
    x[3] = torch.nan
    w = pv.importance_sampling(vae.model, vae.guide, x, num_particles=7, seed=0).log_w
    a, s = vae.decoder[0].linear.weight.double(), vae.likelihood.scale.double()
    mean = vae.likelihood.loc.double() + s * vae.decoder[1].bias.double()
    cov = s * (a @ a.T + sigma.double().square().diag()) * s.unsqueeze(1)
    for n, row in enumerate(x.double()):
        at = (~row.isnan()).nonzero()[:, 0]
        truth = 0.0
        if len(at):
            truth = stats.multivariate_normal.logpdf(
                row[at].numpy(), mean[at].detach().numpy(), cov[at][:, at].detach().numpy()
            )
        np.testing.assert_allclose(w[:, n].numpy(), truth, atol=2e-3)


def test_of_nothing_seen_the_posterior_is_the_prior():
    vae = pv.TableVAE(4, 3)
    q = vae.encode(torch.full((2, 4), torch.nan))
    torch.testing.assert_close(q.covariance_matrix, torch.eye(3).expand(2, 3, 3))


@pytest.mark.slow
def test_it_learns_gaps_from_few_rows(tmp_path):
    """Of a curve in six dimensions, half of it hidden, a linear model explains less."""
    g = np.random.default_rng(0)
    t = g.uniform(-2, 2, 300)
    whole = np.stack([t, t**2, np.sin(2 * t), t**3 / 4, np.cos(t), -t], 1)
    whole = torch.tensor(whole + 0.1 * g.normal(size=whole.shape)).to(torch.get_default_dtype())
    x = torch.where(torch.tensor(g.random(whole.shape) < 0.5), torch.nan, whole)
    torch.manual_seed(0)
    vae = pv.TableVAE(6, 2, (16,)).start_at(x)
    options = {"lr": 0.01, "lr_schedule": "one-cycle", "objective": "iwae(5)", "batch_size": 300}
    pv.svi.fit(
        *(vae.model, vae.guide, x),
        **(options | {"num_epochs": 600, "optimizer": "adamw(0.1)", "seed": 0, "progress": False}),
    )
    filled = pv.impute(vae.model, vae.guide, x, num_particles=200, num_temperatures=0, seed=0)
    gaps = x.isnan()
    error = (filled.mean - whole)[gaps].square().mean() / whole[gaps].var()
    seen = x.double().numpy()
    mean = np.nanmean(seen, 0)
    cov = np.ma.cov(np.ma.masked_invalid(seen), rowvar=False).filled(0) + 0.05 * np.eye(6)
    theirs = seen.copy()
    for row in theirs:  # what a normal of the same moments expects
        o, m = np.isfinite(row), ~np.isfinite(row)
        row[m] = mean[m] + cov[np.ix_(m, o)] @ np.linalg.solve(cov[np.ix_(o, o)], row[o] - mean[o])
    normal = (torch.tensor(theirs) - whole)[gaps].square().mean() / whole[gaps].var()
    assert error < 0.7 * normal
    pv.save(vae, tmp_path)
    again = pv.load(tmp_path)
    assert isinstance(again, pv.TableVAE)
    torch.testing.assert_close(again.encode(x).mean, vae.encode(x).mean, rtol=0, atol=0)


def test_it_is_had_for_tables_and_for_arrays():
    splits = pv.data.load("digits", binarize="none")
    vae = pv.TableVAE.for_data(splits, z_dim=3)
    assert isinstance(vae.likelihood, Columns)
    assert vae.likelihood.columns[5] == Column("5", "real")
    assert pv.TableVAE.for_data(splits, z_dim=3, likelihood="poisson").likelihood.name == "poisson"
    with pytest.raises(ValueError, match="x_dim is 0; give a positive integer"):
        pv.TableVAE(0, 2)


def test_only_matrices_shrink():
    weight, bias = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    optim = pv.svi.optimizers.optimizer_of("adamw(0.5)")([bias, weight], lr=0.1)
    for p in (weight, bias):
        p.grad = torch.zeros_like(p)
    optim.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 1 - 0.1 * 0.5))
    torch.testing.assert_close(bias.detach(), torch.ones(2))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("adamw(-1)", "weight_decay is -1; give a number, 0 or more"),
        ("sgd", "optimizer is 'sgd'; choose of adam, adamw, muon"),
        ("adamw(decay=1)", r"optimizer 'adamw\(decay=1\)' cannot be had"),
    ],
)
def test_optimizers_that_are_none(name, sentence):
    vae = pv.TableVAE(4, 2)
    with pytest.raises(ValueError, match=sentence):
        pv.svi.fit(vae.model, vae.guide, torch.rand(9, 4), num_epochs=1, optimizer=name)


def test_of_a_table_with_gaps_it_is_the_prior_where_nothing_is_seen():
    """A mask among the features would be data to the sums: every row would be seen in part."""
    g = np.random.default_rng(0)
    frame = pd.DataFrame(g.normal(size=(60, 3)), columns=list("abc"))
    frame["d"] = g.choice(["u", "v", "w"], 60)
    splits = pv.data.load(frame.mask(g.random(frame.shape) < 0.2))
    vae = pv.TableVAE.for_data(splits, z_dim=2)
    x = splits.test.x[:4].to(torch.get_default_dtype())
    x[2] = torch.nan
    w = pv.importance_sampling(vae.model, vae.guide, x, num_particles=5, seed=0).log_w
    assert w[:, 2].abs().max() < 1e-5
    assert w[:, 1].std() > 1e-3
    with pytest.raises(ValueError, match="the columns have a mask"):
        pv.TableVAE(4, 2, likelihood=Columns(splits.columns, mask=True))
