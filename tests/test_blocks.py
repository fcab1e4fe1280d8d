"""Blocks of data over processes: the same bytes whoever computes them."""

import threading

import joblib
import pyro
import pyro.distributions as dist
import pytest
import torch
from scenarios import BernoulliDecoder, LinearGaussian

import pyrovae as pv

OPTIONS = dict(
    estimators=("elbo", "importance", "jackknife", "prior", "ais", "quadrature"),
    num_particles=100, num_temperatures=5, num_chains=4, seed=0, block_size=4,
)  # fmt: skip
FIELDS = "value", "std_error", "ess", "pareto_k", "num_draws", "path", "path_std_error"


def equal(one, other):
    for name in one.estimates:
        for field in FIELDS:
            a, b = (getattr(e[name], field) for e in (one, other))
            assert a.numpy().tobytes() == b.numpy().tobytes(), (name, field)


@pytest.mark.slow
def test_bytes_are_the_same_for_any_number_of_workers():
    scenario = BernoulliDecoder()
    x = scenario.data(10)
    runs = [
        pv.evaluate(scenario.model, scenario.guide, x, **OPTIONS, workers=n) for n in (1, 2, 3)
    ]
    equal(runs[0], runs[1])
    equal(runs[0], runs[2])


@pytest.mark.slow
def test_bytes_are_the_same_where_draws_come_in_several_passes():
    """A pass takes 2**20 numbers of a block's data and latent dimensions: 69,905 draws here."""
    oracle = LinearGaussian.make(z_dim=3)
    options = dict(estimators=("importance",), num_particles=100_000, seed=0, block_size=5)
    here, there = (
        pv.evaluate(oracle.model, oracle.mean_field, oracle.data(10), **options, workers=n)
        for n in (1, 2)
    )
    equal(here, there)


def test_a_vae_and_learned_pyro_parameters_travel():
    vae = pv.VAE(x_dim=6, z_dim=2, hidden_dims=(5,))
    pyro.param("width", torch.tensor(0.5), constraint=dist.constraints.positive)

    def guide(x):
        vae.register(encoder=vae.encoder)
        with pyro.plate("data", len(x)):
            loc, _ = vae.encoder(x)
            pyro.sample("z", dist.Normal(loc, pyro.param("width")).to_event(1))

    x = torch.bernoulli(torch.full((9, 6), 0.5))
    options = dict(estimators=("importance",), num_particles=50, seed=0, block_size=4)
    here = pv.evaluate(vae.model, guide, x, **options, workers=1)
    pyro.get_param_store()["width"] = torch.tensor(0.7)
    wider = pv.evaluate(vae.model, guide, x, **options, workers=2)
    assert not torch.equal(here["importance"].value, wider["importance"].value)
    equal(wider, pv.evaluate(vae.model, guide, x, **options, workers=1))
    pyro.get_param_store()["width"] = torch.tensor(0.5)
    equal(here, pv.evaluate(vae.model, guide, x, **options, workers=2))
    pyro.get_param_store()["width"] = torch.tensor(0.7)  # what the workers have kept since
    equal(wider, pv.evaluate(vae.model, guide, x, **options, workers=2))


def test_finished_blocks_are_taken_as_they_are():
    scenario = BernoulliDecoder()
    x, blocks = scenario.data(10), {}
    whole = pv.evaluate(scenario.model, scenario.guide, x, **OPTIONS, workers=2, blocks=blocks)
    for name in ("guide-4", "ais-0"):
        del blocks[name]
    equal(
        whole, pv.evaluate(scenario.model, scenario.guide, x, **OPTIONS, workers=2, blocks=blocks)
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the cluster's own
def test_a_dask_cluster_is_one_line():
    from dask.distributed import Client, LocalCluster

    scenario = BernoulliDecoder()
    x = scenario.data(10)
    options = OPTIONS | {"estimators": ("importance", "prior")}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        there = pv.evaluate(scenario.model, scenario.guide, x, **options)
    equal(there, pv.evaluate(scenario.model, scenario.guide, x, **options, workers=1))


def test_without_workers_all_threads_compute():
    oracle, seen = LinearGaussian.make(), set()

    def model(x):
        seen.add(torch.get_num_threads())
        oracle.model(x)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        pv.evaluate(model, oracle.exact, oracle.data(4), num_particles=10)
        assert seen == {2}
        pv.evaluate(model, oracle.exact, oracle.data(4), num_particles=10, workers=1)
        assert seen == {1, 2}
    finally:
        torch.set_num_threads(before)


def test_threads_are_refused():
    oracle = LinearGaussian.make()
    with (
        joblib.parallel_config(backend="threading", n_jobs=2),
        pytest.raises(ValueError, match="runs threads, and those share torch's random numbers"),
    ):
        pv.evaluate(oracle.model, oracle.exact, oracle.data(4), num_particles=10)


@pytest.mark.filterwarnings("ignore")  # of the cluster's own
def test_threads_of_a_cluster_are_refused():
    from dask.distributed import Client

    oracle = LinearGaussian.make()
    here = {"processes": False, "n_workers": 1, "threads_per_worker": 2}
    with (
        Client(**here, dashboard_address=None),
        joblib.parallel_config(backend="dask"),
        pytest.raises(ValueError, match="are threads of this very process, and those share"),
    ):
        pv.evaluate(oracle.model, oracle.exact, oracle.data(4), num_particles=10)


def test_what_cannot_be_sent_is_named():
    oracle, lock = LinearGaussian.make(), threading.Lock()

    def model(x):
        with lock:
            oracle.model(x)

    with pytest.raises(ValueError, match="'lock' of the model, a lock, cannot be sent"):
        pv.evaluate(model, oracle.exact, oracle.data(4), num_particles=10, workers=2)


def test_a_workers_error_is_the_users():
    oracle = LinearGaussian.make()

    def guide(x):
        with pyro.plate("data", len(x)):
            scale = torch.where(x[:, :2] > 0, 1.0, torch.nan)
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), scale).to_event(1))

    x = oracle.data(8)
    x[6] = -1
    x[:6] = 1
    with pytest.raises(ValueError, match="datum 6"):
        pv.evaluate(oracle.model, guide, x, num_particles=10, block_size=4, workers=2)


@pytest.mark.parametrize("workers", [0, -1, 1.5])
def test_workers_are_counted(workers):
    oracle = LinearGaussian.make()
    with pytest.raises(ValueError, match="workers is .*; give a positive integer"):
        pv.evaluate(oracle.model, oracle.exact, oracle.data(4), num_particles=10, workers=workers)
