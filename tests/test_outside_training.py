"""Objectives and models from outside the package, trained by the command: what SVI can train."""

import os
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import HANGS

import pyrovae as pv
from pyrovae import runs
from pyrovae.__main__ import main
from pyrovae.models import base
from pyrovae.svi import objective

pytestmark = pytest.mark.usefixtures("float32", "undrawn")
MODULE = '''
import math

import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv
from pyrovae.nn import Encoder
from pyrovae.program import log_weights


class IWAE(pv.Objective):
    """log mean_s w_s of five draws."""

    name = "test-iwae"

    def per_datum(self, model, guide, *data):
        return log_weights(model, guide, *data, num_particles=5).logsumexp(0) - math.log(5)


class Unmakeable(IWAE):
    name = "test-unmakeable"

    def __init__(self, size):
        pass


class Broken(pv.Objective):
    name = "test-broken"

    def per_datum(self, model, guide, *data):
        return data[3]


class Supervised(pv.Model):
    """X with its label y, of which z may know; both nets are linear."""

    name = "test-supervised"
    inputs = ("x", "y")

    def __init__(self, x_dim: int):
        super().__init__()
        self.x_dim, self.encoder = x_dim, Encoder(x_dim + 1, (), 2)
        self.decoder = torch.nn.Linear(3, x_dim)

    def config(self):
        return {"x_dim": self.x_dim}

    def model(self, x, y):
        self.register(decoder=self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            label = (y.to(z) / 9).expand(*z.shape[:-1])[..., None]
            logits = self.decoder(torch.cat([z, label], -1))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, x, y):
        self.register(encoder=self.encoder)
        with pyro.plate("data", len(x)):
            given = torch.cat([x, (y.to(x) / 9)[:, None]], -1)
            pyro.sample("z", dist.Normal(*self.encoder(given)).to_event(1))


class Mixture(pv.Model):
    """Nothing is left to guess: which of three k it is, is summed out."""

    name = "test-mixture"

    def __init__(self, x_dim: int, num_components: int = 3):
        super().__init__()
        self.kept = {"x_dim": x_dim, "num_components": num_components}
        self.net = torch.nn.Embedding(num_components, x_dim)

    def config(self):
        return self.kept

    def model(self, x):
        self.register(net=self.net)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(self.kept["num_components"])))
            pyro.sample("x", dist.Bernoulli(logits=self.net(k)).to_event(1), obs=x)


class Plain(pv.Model):
    """No latent at all."""

    name = "test-plain"

    def __init__(self, x_dim: int):
        super().__init__()
        self.x_dim, self.net = x_dim, torch.nn.Linear(1, x_dim)

    def config(self):
        return {"x_dim": self.x_dim}

    def model(self, x):
        self.register(net=self.net)
        with pyro.plate("data", len(x)):
            logits = self.net(x.new_ones(len(x), 1))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


class Unguided(pv.Model):
    name = "test-unguided"

    def __init__(self, x_dim: int):
        super().__init__()
        self.x_dim, self.net = x_dim, torch.nn.Linear(2, x_dim)

    def config(self):
        return {"x_dim": self.x_dim}

    def model(self, x):
        self.register(net=self.net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.net(z)).to_event(1), obs=x)
'''
SLOW = pytest.mark.slow
QUICK = "--num-particles 20 --no-progress --num-epochs 2 --batch-size 256".split()
SMALL = "--z-dim 2 --hidden-dims 8 --estimators elbo importance".split()
MINE = ["--objective", "outside_training.IWAE"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the module, where the commands run."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "outside_training.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", ["", *sys.path])
        yield folder
    sys.modules.pop("outside_training", None)
    for known in (base._known, objective.known):
        for name in [n for n, c in known.items() if c.__module__ == "outside_training"]:
            del known[name]


def refused(capsys, *args, code=2):
    assert main(["svi", *args, *QUICK]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


@pytest.mark.slow
def test_an_objective_is_trained_resumed_and_named(place, capsys):
    args = ["svi", *QUICK, *SMALL, "--out"]
    assert main([*args, "iwae", *MINE]) == main([*args, "elbo"]) == 0
    elbo, iwae = (runs.read_metrics(place / name) for name in ("elbo", "iwae"))
    assert iwae["elbo"] != elbo["elbo"]
    config = yaml.safe_load((place / "iwae" / "config.yaml").read_text())
    assert config["objective"] == "outside_training.IWAE"
    evidence = runs.load_evidence(place / "iwae")
    assert evidence.protocol["objective"] == "outside_training.IWAE"
    assert runs.load_evidence(place / "elbo").protocol["objective"] == "elbo"
    again = [*args, "iwae", "--resume", "-n", "3"]
    capsys.readouterr()
    assert main(again) == 2
    assert "name it again: --objective outside_training.IWAE" in capsys.readouterr().err
    assert main([*again, "--objective", "elbo"]) == 5
    assert "--objective is elbo but the run was begun with outside" in capsys.readouterr().err
    assert main([*again, *MINE]) == 0
    assert runs.read_metrics(place / "iwae")["elbo"][:2] == iwae["elbo"]
    page = (place / "iwae" / "report.html").read_text()
    assert "with the objective outside_training.IWAE" in page
    assert "svi --config iwae/config.yaml --objective outside_training.IWAE" in page
    assert main(["evidence", "iwae", "--rows", "9", "--num-particles", "20", *SMALL[-3:]]) == 0
    assert runs.load_evidence(place / "iwae").protocol["objective"] == "outside_training.IWAE"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("elb", "there is no objective named 'elb'; did you mean elbo?"),
        ("nowhere_objectives.IWAE", "there is no module 'nowhere_objectives'"),
        ("outside_training.Mixture", "is no subclass of pyrovae.Objective with a name of its own"),
        ("outside_training.Unmakeable", "Unmakeable cannot be made without arguments"),
        ("outside_training.Broken", "fails in its own code, "),
    ],
)
def test_objectives_that_cannot_be(place, name, words, capsys):
    assert words in refused(capsys, "--objective", name, *SMALL, "--out", "wrong")
    assert not (place / "wrong" / "config.yaml").exists()


@pytest.mark.parametrize(
    "kind", ["Mixture", *(pytest.param(k, marks=SLOW) for k in ("Supervised", "Plain"))]
)
def test_models_of_all_kinds_are_trained(place, kind, capsys):
    binarize = "dynamic" if kind == "Supervised" else "static"
    mine = ["--model", f"outside_training.{kind}", "--binarize", binarize, *MINE]
    assert main(["svi", *mine, *QUICK, "--lr", "0.03", "--out", kind]) == 0
    metrics = runs.read_metrics(place / kind)
    assert metrics["valid_elbo"][1] > metrics["valid_elbo"][0]
    evidence = runs.load_evidence(place / kind)
    if kind == "Supervised":
        return
    assert list(evidence.estimates) == ["exact"]
    splits = pv.data.load("digits", binarize="static")
    with torch.no_grad():
        net = pv.load(place / kind).net
        each = net.weight if kind == "Mixture" else (net.weight[:, 0] + net.bias)[None]
        log_p = -torch.nn.functional.binary_cross_entropy_with_logits(
            each.expand(359, -1, -1), splits.test.x[:, None].expand(-1, len(each), -1),
            reduction="none",
        ).sum(-1)  # fmt: skip
    expected = (log_p.logsumexp(1) - torch.tensor(len(each)).log()).double()
    torch.testing.assert_close(evidence["exact"].value, expected, rtol=1e-4, atol=1e-3)
    assert main(["evidence", kind, *mine[:2], "--estimators", "exact", "--rows", "9"]) == 0
    assert main(["svi", *mine, *QUICK, "-n", "3", "--lr", "0.03", "--out", kind, "--resume"]) == 0


def test_a_model_that_svi_cannot_train(place, capsys):
    err = refused(capsys, "--model", "outside_training.Unguided", "--out", "unguided")
    words = "error: the guide is None; training needs one, a Pyro callable of the data that draws"
    assert err == f"{words} site 'z'\n"


@pytest.mark.slow
def test_two_processes_train_a_model_by_its_import_path(place):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["-m", "pyrovae.svi", "--model", "outside_training.Supervised", *QUICK, *MINE]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    for more in ([], ["--resume", "-n", "3"]):
        done = subprocess.run(
            [*command, "--out", "two", *more],
            env=env,
            capture_output=True,
            text=True,
            timeout=HANGS,
        )
        assert done.returncode == 0, done.stderr
    assert len(runs.read_metrics(place / "two")["elbo"]) == 3
    assert done.stdout.count("run folder: two") == 1
