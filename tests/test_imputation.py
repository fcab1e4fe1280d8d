"""Gaps filled in, against the exact conditional normal."""

import pytest
import torch

import pyrovae as pv


@pytest.fixture(scope="module")
def found():
    """A VAE whose P(X) is normal, fitted to data with gaps; these data, whole and not."""
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 5)
    vae = pv.VAE(5, 2, (16,), pv.likelihoods.make("normal", sigma=0.5), decoder=net)
    x = vae.sample(200, seed=1)
    gen = torch.Generator().manual_seed(0)
    holes = torch.where(torch.rand(x.shape, generator=gen) < 0.4, torch.nan, x)
    holes[0], holes[1] = torch.nan, x[1]
    fit = {"num_epochs": 40, "lr": 0.003, "seed": 0, "progress": False}
    pv.svi.fit(vae.model, vae.guide, holes, **fit)
    return vae, x, holes


def exact(vae, row):
    """Mean and variance of what is missing of a row, given the rest."""
    w, b = (p.detach().double() for p in vae.decoder.parameters())
    cov = w @ w.T + 0.25 * torch.eye(5).double()
    gone, seen = row.isnan(), ~row.isnan()
    solved = torch.linalg.solve(cov[seen][:, seen], cov[seen][:, gone])
    mean = b[gone] + solved.T @ (row.double() - b)[seen]
    return mean, (cov[gone][:, gone] - cov[gone][:, seen] @ solved).diagonal()


def test_means_draws_and_intervals_of_gaps(found):
    vae, x, holes = found
    gaps = holes.isnan()
    whole = pv.impute(vae.model, vae.guide, holes, num_draws=400, num_particles=2_000, seed=0)
    assert torch.equal(whole.gaps, gaps)
    assert torch.equal(whole.mean[~gaps], x[~gaps])
    assert (whole.draws[:, ~gaps] == x[~gaps]).all()
    truth = [exact(vae, row) for row in holes]
    mean, var = (torch.cat([t[i] for t in truth]) for i in range(2))
    off = (whole.mean[gaps] - mean) / var.sqrt()
    assert off.square().mean().sqrt() < 0.06  # 0.13 and more if draws are not weighted
    spread = whole.draws.double().var(0)[gaps] / var
    assert spread.mean() == pytest.approx(1, abs=0.05)
    low, high = whole.interval(0.9)
    share = ((low <= x) & (x <= high))[gaps].double().mean().item()
    assert share == pytest.approx(0.9, abs=4 * (0.09 / int(gaps.sum())) ** 0.5)
    assert (low[~gaps] == high[~gaps]).all()
    assert "filled in, 400 draws" in repr(whole)


def test_what_cannot_be_filled_in_says_so(found):
    vae, x, holes = found

    def model(x):
        vae.model(x)

    with pytest.raises(ValueError, match="the model does not say that NaN is missing"):
        pv.impute(model, vae.guide, x[:5])
    with pytest.raises(
        ValueError, match=r"site 'z' is of shape \(5, 2\) and the data are of \(5, 5"
    ):
        pv.impute(vae.model, vae.guide, x[:5], site="z", num_particles=9, seed=0)
    few = pv.impute(vae.model, vae.guide, holes[:5], num_draws=20, num_particles=99, seed=0)
    with pytest.raises(ValueError, match="give num_draws of 40 or more"):
        few.interval(0.95)
    family = pv.VAE(5, 2, (4,), "student-t(df=0.5)")
    few = holes[:5].to(torch.get_default_dtype())
    with pytest.raises(ValueError, match="site 'x' is StudentT, which has no mean"):
        pv.impute(family.model, family.guide, few, num_particles=9, seed=0)
