"""What an evaluation will cost: counted by hand, and scheduled by hand."""

import json

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.commands.evidence import main
from pyrovae.evidence import cost as module
from pyrovae.evidence.cost import Cost, Part, cost
from pyrovae.evidence.samplers.streaming import StreamedWeights

pytestmark = pytest.mark.usefixtures("float32")
PROBE, START = module.PROBE, module._start


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Probes as short as they can be, and no process to see how long one takes to start."""
    monkeypatch.setattr(module, "PROBE", 0.01)
    monkeypatch.setattr(module, "_start", lambda: 1.0)


def vae_and_data(n=100):
    torch.manual_seed(0)
    return pv.VAE(x_dim=12, z_dim=3, hidden_dims=(8,)), (torch.rand(n, 12) < 0.4).float()


def test_operations_are_those_of_the_matrix_products():
    vae, x = vae_and_data()
    expected = cost(vae.model, vae.guide, x, num_particles=70, seed=0)
    guide, prior = expected.parts["guide"], expected.parts["prior"]
    encode, decode = 2 * (12 * 8 + 8 * 6), 2 * (3 * 8 + 8 * 12)
    assert (guide.unit, guide.count) == ("decodes", 7_000)
    assert guide.flops == 100 * (encode + 71 * decode)  # one to check the data
    assert prior.count == 70  # each for all data
    more = cost(vae.model, None, x, estimators=["prior"], num_particles=170, seed=0)
    # a run to draw, a run to decode, and a product with all data
    assert more.parts["prior"].flops - prior.flops == 100 * (2 * decode + 2 * 12 * 100)
    assert not expected.bound
    annealed = cost(
        vae.model, vae.guide, x, estimators=["ais"], num_temperatures=10, num_chains=4, seed=0
    ).parts["ais"]
    assert (annealed.unit, annealed.count) == ("gradients", 100 * 4 * (9 * 2 + 1))
    # forward, and back to z through the last layer's input
    assert annealed.flops == pytest.approx(annealed.count * 2 * decode, rel=0.2)


def test_seconds_are_those_of_the_busiest_worker():
    parts = {
        "guide": Part("decodes", 1, 1, [1.0] * 10, 6.0),
        "ais": Part("gradients", 1, 1, [4.0], 3.0),
    }
    c = Cost(parts, 2.0, 0.5, 1e9, False)
    assert c.seconds() == 0.5 + 9
    assert c.seconds(1) == 0.5 + 14
    assert c.seconds(2) == 0.5 + 2 + 5 + 4
    assert c.seconds(4) == 0.5 + 2 + 2 + 4
    assert c.seconds(64, 2) == 0.5 + 2 * 32 + 5 + 4  # and all of them import on two cores
    assert c.seconds(64) == 0.5 + 2 + 4
    assert "at most" not in str(c)
    assert str(Cost(parts, 2.0, 0.5, 1e9, True)).count("at most 9.5 s") == 1


@pytest.mark.parametrize(
    "options",
    [
        {"estimators": ["importance"], "num_particles": 3000},
        {"estimators": ["prior"], "num_particles": 20_000},
        {"estimators": ["ais"], "num_temperatures": 30, "num_chains": 4},
    ],
    ids=lambda options: options["estimators"][0],
)
def test_what_it_says_is_what_happens(options, monkeypatch):
    """By a clock that decoding moves on, 10 microseconds each, and k-hat: none is as regular."""
    vae, x = vae_and_data(300)
    now = [0.0]

    def tick(decoder, inputs, output):
        now[0] += 1e-5 * inputs[0].numel() / 3

    khat = StreamedWeights.pareto_k

    def tock(weights):  # as long as the probe has time, and however many the draws
        now[0] += 0.5
        return khat(weights)

    vae.decoder.register_forward_hook(tick)
    monkeypatch.setattr(StreamedWeights, "pareto_k", tock)
    monkeypatch.setattr(module, "PROBE", PROBE)
    monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    expected = cost(vae.model, vae.guide, x, **options, seed=0)
    assert expected.seconds(1) == pytest.approx(expected.seconds())
    start = now[0]
    pv.evaluate(vae.model, vae.guide, x, **options, seed=0)
    took, most = now[0] - start, expected.seconds() + expected.second
    assert 0.95 * expected.seconds() < took < 1.05 * most


@pytest.mark.slow
def test_of_auto_a_bound_is_told_and_of_quadrature_no_count():
    vae, x = vae_and_data(20)
    run = {"estimators": ["importance", "quadrature"], "max_particles": 400}
    expected = cost(vae.model, vae.guide, x, num_particles="auto", **run, seed=0)
    assert expected.bound
    assert expected.parts["guide"].count == 20 * 400
    assert expected.parts["quadrature"].unit == ""
    assert expected.parts["quadrature"].seconds > 0


@pytest.mark.slow
def test_of_both_sides_it_says_what_it_takes_for_granted():
    vae, x = vae_and_data(20)
    ways = [pv.Sandwich(max_temperatures=1)]
    text = str(cost(vae.model, vae.guide, x, estimators=["importance", *ways], seed=0))
    guide, sandwich, *_ = text.splitlines()
    assert sandwich.endswith(" s, if all data are as hard as the first of them")
    assert guide.endswith(" s")


def test_a_dry_run_computes_nothing_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "_start", START)
    vae, _ = vae_and_data()
    torch.manual_seed(0)
    vae = pv.VAE(x_dim=64, z_dim=2, hidden_dims=(8,))
    pv.save(vae, tmp_path / "run")
    before = sorted(p.name for p in (tmp_path / "run").iterdir())
    (tmp_path / "program.py").write_text("make = None")
    x = (torch.rand(30, 64) < 0.5).float().numpy()
    import numpy as np

    np.save(tmp_path / "x.npy", x)
    options = ["--program", "test_cost:make", "--data", str(tmp_path / "x.npy"), "--dry-run"]
    options += ["--out", str(tmp_path / "out"), "--num-particles", "50"]
    assert main([*options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["decodes"] > 0
    assert set(told["seconds_of_workers"]) == {"1", "2", "4", "8", "16", "32", "64"}
    assert told["memory"] > 2**26
    monkeypatch.setattr(module, "_start", lambda: 1.0)
    assert main([*options, "--estimators", "importance"]) == 0
    out = capsys.readouterr().out
    assert "workers" in out
    assert "GiB a process" in out
    assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == before


def make():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z @ torch.ones(2, 64)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))

    return model, guide
