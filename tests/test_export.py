"""What ArviZ gets: draws that follow the posterior, named dimensions, a file that comes back."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from scenarios import BernoulliDecoder, LinearGaussian, Mixture, TwoLevels

import pyrovae as pv

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    az = pytest.importorskip("arviz")


@pytest.fixture(scope="module")
def linear():
    torch.set_default_dtype(torch.float64)
    scenario = LinearGaussian.make()
    x = scenario.data(70)
    tree = pv.to_arviz(
        scenario.model, scenario.mean_field, x, num_samples=2000, num_particles=20_000, seed=0
    )
    return scenario, x, tree


def test_groups_and_dimensions(linear):
    _, x, tree = linear
    shapes = {
        "posterior": {"z": ("chain", "draw", "datum", "z_dim_0")},
        "prior": {"z": ("chain", "draw", "datum", "z_dim_0")},
        "posterior_predictive": {"x": ("chain", "draw", "datum", "x_dim_0")},
        "log_likelihood": {"x": ("chain", "draw", "datum")},
        "observed_data": {"x": ("datum", "x_dim_0")},
        "sample_stats": {
            "log_weight": ("chain", "draw", "datum"), "pareto_k": ("datum",), "ess": ("datum",),
            "log_evidence": ("datum",),
        },
    }  # fmt: skip
    for group, variables in shapes.items():
        assert {k: v.dims for k, v in tree[group].data_vars.items()} == variables
    assert tree["posterior"].sizes["draw"] == 2000
    np.testing.assert_array_equal(tree["posterior"]["datum"], np.arange(70))
    np.testing.assert_array_equal(tree["observed_data"]["x"], x)


def test_draws_follow_the_posterior(linear):
    scenario, x, tree = linear
    z = tree["posterior"]["z"].to_numpy()[0]
    error = np.sqrt(scenario.cov.diagonal().numpy() * (1 / 2000 + 1 / 10_000))
    off = (z.mean(0) - scenario.posterior_mean(x).numpy()) / error
    assert np.abs(off).max() < 4.5
    centred = (z - scenario.posterior_mean(x).numpy()).reshape(-1, 2)
    cov = scenario.cov.numpy()
    np.testing.assert_allclose(centred.T @ centred / len(centred), cov, atol=0.02 * cov.max())
    prior = tree["prior"]["z"].to_numpy()
    assert abs(prior.mean()) < 4 / np.sqrt(prior.size)
    assert abs(prior.std() - 1) < 4 / np.sqrt(prior.size)


def test_likelihood_and_predictive(linear):
    scenario, x, tree = linear
    z = torch.from_numpy(tree["posterior"]["z"].to_numpy()[0])
    expected = scenario.likelihood(z).log_prob(x)
    np.testing.assert_allclose(tree["log_likelihood"]["x"].to_numpy()[0], expected, rtol=1e-10)
    residual = (
        tree["posterior_predictive"]["x"].to_numpy()[0] - scenario.likelihood(z).mean.numpy()
    )
    assert abs(residual.mean()) < 4 * 0.5 / np.sqrt(residual.size)
    assert residual.std() == pytest.approx(0.5, rel=0.01)


def test_stats(linear):
    scenario, x, tree = linear
    stats = tree["sample_stats"]
    truth = scenario.log_evidence(x).numpy()
    np.testing.assert_allclose(stats["log_evidence"], truth, atol=0.02)
    assert (stats["pareto_k"] < 0.7).all()
    z = torch.from_numpy(tree["posterior"]["z"].to_numpy()[0])
    log_joint = scenario.prior(70).log_prob(z) + scenario.likelihood(z).log_prob(x)
    scale = 1 / torch.linalg.inv(scenario.cov).diagonal().sqrt()
    log_q = dist.Normal(scenario.posterior_mean(x), scale).to_event(1).log_prob(z)
    np.testing.assert_allclose(stats["log_weight"][0], log_joint - log_q, rtol=1e-8)


def test_plates_are_named():
    scenario = TwoLevels()
    x = scenario.data(70)
    tree = pv.to_arviz(
        scenario.model, scenario.guide, x, num_samples=50, num_particles=500, seed=0
    )
    assert tree["posterior"]["m"].dims == ("chain", "draw", "datum")
    assert tree["posterior"]["t"].dims == ("chain", "draw", "datum", "parts")
    assert tree["posterior_predictive"]["x"].dims == ("chain", "draw", "datum", "parts")
    t = torch.from_numpy(tree["posterior"]["t"].to_numpy()[0])
    expected = dist.Normal(t, 0.5).log_prob(x).sum(-1)
    np.testing.assert_allclose(tree["log_likelihood"]["x"].to_numpy()[0], expected, rtol=1e-10)


def test_discrete_latents_are_left_out():
    scenario = Mixture()
    tree = pv.to_arviz(
        scenario.with_latent, scenario.guide, scenario.data(), num_samples=50, num_particles=100,
        seed=0,
    )  # fmt: skip
    assert list(tree["posterior"].data_vars) == ["z"]
    assert "posterior_predictive" not in tree
    z = torch.from_numpy(tree["posterior"]["z"].to_numpy()[0])
    expected = dist.Normal(z, 0.5).to_event(1).log_prob(scenario.data())
    np.testing.assert_allclose(tree["log_likelihood"]["x"].to_numpy()[0], expected, rtol=1e-8)


def test_arviz_reads_saves_and_plots_it(tmp_path):
    from matplotlib import pyplot

    scenario = BernoulliDecoder()
    tree = pv.to_arviz(
        scenario.model, scenario.guide, scenario.data(3), num_samples=100, num_particles=300,
        seed=0,
    )  # fmt: skip
    assert len(az.summary(tree["posterior"], kind="stats")) == 6
    tree.to_netcdf(str(tmp_path / "tree.nc"))
    with xarray.open_dataset(tmp_path / "tree.nc", group="posterior", engine="h5netcdf") as back:
        np.testing.assert_array_equal(back["z"], tree["posterior"]["z"])
    pyplot.switch_backend("agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if az.__version__.startswith("0"):
            az.plot_posterior(tree, var_names=["z"])
            az.plot_ppc(tree, num_pp_samples=5)
        else:
            az.plot_dist(tree, var_names=["z"])
            az.plot_ppc_dist(tree, num_samples=5)
    pyplot.close("all")


def test_all_data_as_one_have_no_draws_of_each():
    s = LinearGaussian.make()
    with pytest.raises(ValueError, match="plate is None.* name the plate over the data"):
        pv.to_arviz(s.model, s.exact, s.data(3), plate=None)


def test_programs_that_take_particles_as_rows():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.reshape(len(x), 1), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))

    tree = pv.to_arviz(model, guide, torch.ones(2, 1), num_samples=5, num_particles=20, seed=0)
    assert tree["posterior_predictive"]["x"].shape == (1, 5, 2, 1)
