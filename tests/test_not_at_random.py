"""Values missing not at random: log P(X, S) by quadrature, and what an imputation makes of S."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import pyrovae as pv


def linear(mechanism="self", d=2):
    """A linear model with a mechanism that is not flat."""
    torch.manual_seed(0)
    model = pv.NotMIWAE(d, 1, (4,), mechanism=mechanism)
    with torch.no_grad():
        model.decoder[0].net[-1].weight.zero_()
        model.decoder[0].linear.weight[:, 0] = torch.linspace(1.0, -0.5, d)
        model.mechanism.bias.copy_(torch.linspace(-0.5, 0.3, d))
        model.mechanism.weight.copy_(torch.randn(model.mechanism.weight.shape))
    return model.to(torch.get_default_dtype())


def given_other(model, x1):
    """Mean and sd of X_0 given X_1 = x1, and log p of that."""
    w = model.decoder[0].linear.weight[:, 0].detach().double().numpy()
    noise = model.likelihood(torch.zeros(1, 2)).base_dist.parts[0].variance[0].detach()
    cov = np.outer(w, w) + np.diag(noise)
    mean, var = cov[0, 1] / cov[1, 1] * x1, cov[0, 0] - cov[0, 1] ** 2 / cov[1, 1]
    return mean, var**0.5, stats.norm(0, cov[1, 1] ** 0.5).logpdf(x1)


@pytest.mark.parametrize("mechanism", ["self", "higher", "lower", "linear"])
def test_log_p_and_means_are_those_of_quadrature(mechanism):
    model = linear(mechanism)
    x = torch.tensor([[torch.nan, 0.7], [torch.nan, -1.2]])

    def density(v, x1, mean, sd):
        u = model.mechanism(torch.tensor([v, x1]))
        log_s = torch.nn.functional.logsigmoid(u * torch.tensor([1.0, -1.0])).sum()
        return stats.norm(mean, sd).pdf(v) * log_s.exp().item()

    w = pv.importance_sampling(model.model, model.guide, x, num_particles=20_000, seed=0)
    options = {"num_draws": 3_000, "num_particles": 20_000, "num_temperatures": 0, "seed": 0}
    filled = pv.impute(model.model, model.guide, x, **options)
    for n, x1 in enumerate(x[:, 1].tolist()):
        mean, sd, log_p1 = given_other(model, x1)
        about = (x1, mean, sd)
        z = integrate.quad(density, -9, 9, about)[0]
        moment = integrate.quad(lambda v, about=about: v * density(v, *about), -9, 9)[0] / z
        off = w.log_evidence()[n].item() - (log_p1 + np.log(z))
        assert abs(off) < 4 * w.std_error()[n].item()
        error = 1.1 * sd / w.ess()[n].item() ** 0.5
        assert abs(filled.mean[n, 0].item() - moment) < 4 * error
        assert abs(filled.draws[:, n, 0].mean().item() - moment) < 4 * (error + sd / 3_000**0.5)
        assert filled.mean[n, 1] == x1


def test_what_is_missing_above_the_mean_is_filled_in_above_it():
    """Columns of one factor, of which two lose what lies above their mean."""
    torch.manual_seed(0)
    z = torch.randn(400, 1)
    whole = z * torch.tensor([1.0, 1.0, 1.0, 1.0]) + 0.3 * torch.randn(400, 4)
    gaps = torch.zeros(400, 4, dtype=torch.bool)
    gaps[:, :2] = whole[:, :2] > 0
    x = torch.where(gaps, torch.nan, whole)
    errors = {}
    for cls, config in ((pv.TableVAE, {}), (pv.NotMIWAE, {"mechanism": "higher"})):
        torch.manual_seed(0)
        model = cls(4, 1, (4,), **config).start_at(x)
        options = {"num_epochs": 80, "batch_size": 400, "lr": 0.05, "seed": 0, "progress": False}
        pv.svi.fit(model.model, model.guide, x, objective=model.objective, **options)
        some = {"num_particles": 200, "num_temperatures": 0, "seed": 0}
        filled = pv.impute(model.model, model.guide, x, **some)
        errors[cls.name] = (filled.mean - whole)[gaps].square().mean().sqrt().item()
    assert errors["not-miwae"] < 0.6 * errors["table-vae"]


def test_what_a_gap_would_tell_is_not_asked_for(tmp_path):
    model, x = linear(), torch.tensor([[torch.nan, 0.7], [1.0, -1.2]])
    for ask in (
        lambda: pv.given_rest(model.model, model.guide, x),
        lambda: pv.regress(model.model, model.guide, x, column=0),
    ):
        with pytest.raises(ValueError, match="gaps tell of what is missing"):
            ask()
    others = torch.randn(30, 2)
    odd = pv.anomalies(model.model, model.guide, x, calibration=others, seed=0, num_particles=50)
    assert odd.given_rest is None
    pv.save(model, tmp_path / "run")
    again = pv.load(tmp_path / "run")
    assert again.mechanism.kind == "self"
    assert torch.equal(again.mechanism.weight, model.mechanism.weight)
    evidence = pv.evaluate(model.model, model.guide, x, estimators="importance", seed=0)
    assert "log P(X, S)" in repr(evidence)
    assert set(evidence["importance"].verdict()) <= {"not contradicted", "more samples"}


def test_what_it_is_not_made_for():
    with pytest.raises(ValueError, match="mechanism is 'own'; choose of self, higher"):
        pv.NotMIWAE(3, 1, mechanism="own")
    model = pv.NotMIWAE(3, 1, likelihood="bernoulli")
    with pytest.raises(ValueError, match="likelihood 'bernoulli' is of what has no gradient"):
        model.model(torch.ones(2, 3))
