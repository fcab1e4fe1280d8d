"""What lies in a run folder belongs together: stale blocks, evidence and pictures are not used."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
import xarray
import yaml

import pyrovae as pv
from pyrovae import plots, runs, storage
from pyrovae.__main__ import main
from pyrovae.evidence.blocks import Job
from pyrovae.runs.folder import worked_in

pytestmark = pytest.mark.usefixtures("float32")
FIT = "svi --num-epochs 2 --z-dim 2 --hidden-dims 8 --num-particles 20 --no-progress".split()
FIT += "--estimators elbo importance prior".split()
PROGRAM = """
import pyro, pyro.distributions as dist, torch, own_sizes

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(2)
        self.out = torch.nn.Linear(2, 2)

    def forward(self, x, y):
        loc, raw = self.out(self.norm(torch.stack([x, y], -1))).unbind(-1)
        return loc, torch.nn.functional.softplus(raw) + 0.05

def make():
    net, offset = Net(), torch.zeros(())

    def model(x, y):
        width = pyro.param("width", torch.tensor(0.7), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(y, own_sizes.PRIOR))
            pyro.sample("x", dist.Normal(z + offset, width), obs=x)

    def guide(x, y):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*net(x, y)))

    return model, guide
"""
FITTED = "--program own_program:make --data xy.npz --num-particles 40 --no-progress --lr 0.02"
FITTED = [*FITTED.split(), *"--batch-size 30 --estimators elbo importance prior".split()]


@pytest.fixture(scope="module", autouse=True)
def quick_pictures():
    """Pictures are not looked at here, but for whether they lie there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "save", lambda _, path: storage.write_lines(path, ["a picture"]))
        patch.setattr(plots, "as_url", lambda _: "data:,")
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, quick_pictures):
    """The run of a VAE on sixty binary images of four pixels."""
    folder = tmp_path_factory.mktemp("trained")
    np.save(folder / "x.npy", np.random.default_rng(0).integers(0, 2, (60, 2, 2)))
    job(*FIT, "--data", folder / "x.npy", "--out", folder / "run")
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def job(*args, code=0):
    assert main([*map(str, args)]) == code


def table(folder):
    with xarray.open_dataset(Path(folder) / runs.EVIDENCE, engine="h5netcdf") as ds:
        return ds.load()


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program in two files, and its data; `edit` changes a file and has it imported anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    files = {"own_program.py": PROGRAM, "own_sizes.py": "PRIOR = 1.0\n"}

    def edit(name=None, old="", new=""):
        if name:
            assert old in files[name]
            files[name] = files[name].replace(old, new)
        for file, text in files.items():
            (tmp_path / file).write_text(text)
        for module in ("own_program", "own_sizes"):
            sys.modules.pop(module, None)
        pyro.clear_param_store()
        from pyrovae import sources

        sources.source.cache_clear()

    edit()
    rng = np.random.default_rng(0)
    y = rng.normal(size=100)
    np.savez("xy.npz", x=y + 1.25**0.5 * rng.normal(size=100), y=y)
    yield edit
    edit()
    for module in ("own_program", "own_sizes"):
        sys.modules.pop(module, None)


def test_blocks_of_a_program_that_was_changed_are_not_taken(program, monkeypatch, capsys):
    """Interrupted after its first block, and then a constant is changed."""
    ask = "evidence --program own_program:make --data xy.npz --num-particles 30 --no-progress"
    ask = [*ask.split(), "--estimators", "importance"]
    call, interrupt = Job.__call__, []

    def once(self, *args):
        if interrupt:
            raise KeyboardInterrupt
        interrupt.append(1)
        return call(self, *args)

    def interrupted(out):
        interrupt.clear()
        monkeypatch.setattr(Job, "__call__", once)
        job(*ask, "--out", out, code=130)
        monkeypatch.setattr(Job, "__call__", call)
        capsys.readouterr()

    interrupted("same")
    program()
    job(*ask, "--out", "same")
    assert "going on from 1 finished blocks" in capsys.readouterr().err
    for i, edit in enumerate([
        ("own_sizes.py", "PRIOR = 1.0", "PRIOR = 3.0"),
        ("own_program.py", "torch.zeros(())", "torch.full((), 2.0)"),
    ]):  # fmt: skip
        interrupted(f"{i}")
        program(*edit)
        job(*ask, "--out", f"{i}")
        assert "going on" not in capsys.readouterr().err
        program()
        job(*ask, "--out", f"whole-{i}")
        np.testing.assert_array_equal(table(f"{i}")["value"], table(f"whole-{i}")["value"])


def test_what_cannot_be_compared_is_never_taken_up(program, monkeypatch, capsys):
    program(
        "own_program.py", "def make():", "import threading\nLOCK = threading.Lock()\ndef make():"
    )
    program("own_program.py", "        pyro.module", "        assert LOCK\n        pyro.module")
    ask = "evidence --program own_program:make --data xy.npz --num-particles 30 --no-progress"
    monkeypatch.setattr(runs.Blocks, "discard", lambda self: None)
    for _ in range(2):
        job(*ask.split(), "--estimators", "importance", "--out", "out")
        assert "holds a lock, which cannot be compared" in capsys.readouterr().err
    assert len(os.listdir("out/blocks")) == 2


def test_evidence_of_another_model_is_not_shown(run, capsys):
    (run / runs.REPORT).unlink()
    vae = pv.load(run)
    with torch.no_grad():
        vae.decoder[0].weight.add_(0.1)
    pv.save(vae, run)
    job("report", run, code=5)
    assert "another model" in capsys.readouterr().err
    assert not (run / runs.REPORT).exists()
    splits = pv.data.load(runs.read_config(run)["data"], binarize="dynamic")
    options = {"num_particles": 5, "seed": 0, "protocol": splits.protocol}
    by_hand = pv.evaluate(vae.model, vae.guide, splits.test.x, **options)
    storage.write_dataset(run / runs.EVIDENCE, by_hand.to_xarray())
    job("report", run)
    pv.save(pv.VAE(4, 2, (8,)), run)
    job("report", run, code=5)


def test_new_evidence_leaves_nothing_of_the_old(run):
    ask = ["evidence", run, "--num-particles", 30, "--rows", 6, "--no-progress"]
    job(*ask, "--estimators", "elbo", "importance", "prior")
    (run / "figures" / "mine.png").write_bytes(b"a user's own")
    figures = {p.stem for p in (run / "figures").iterdir()}
    assert {"histogram", "khat_prior", "extremes", "two_estimates", "training"} <= figures
    job(*ask, "--estimators", "importance")
    figures = {p.stem for p in (run / "figures").iterdir()}
    assert "khat_prior" not in figures
    assert "two_estimates" not in figures
    assert {"histogram", "khat_importance", "training", "mine"} <= figures
    job("svi", "--out", run, "--resume", "-n", 3, "--no-progress")
    assert not (run / runs.TABLE).exists()
    figures = {p.stem for p in (run / "figures").iterdir()}
    assert figures == {
        "evidence", "training", "reconstructions", "samples", "latent_space", "manifold", "mine",
    }  # fmt: skip
    assert table(run)["value"].shape == (3, 12)
    page = (run / runs.REPORT).read_text()
    assert runs.load_evidence(run).protocol["model_sha256"] in page
    with worked_in(run) as folder:
        runs.clear(folder)
    assert os.listdir(run) == ["figures"]
    assert os.listdir(run / "figures") == ["mine.png"]


def test_options_of_a_resumed_run(run, capsys):
    again = ["svi", "--out", run, "--resume", "--no-progress"]
    for args, words in (
        (["--lr", 0.1], "--lr would change nothing, as no epoch is left"),
        (["--seed", 5, "-n", 3], "--seed is 5 but the run was begun with 0; resume with that; "),
        (["--likelihood", "continuous-bernoulli", "-n", 3], "--likelihood is continuous"),
        (["-n", 1], "--num-epochs is 1 but the run has 2 epochs"),
        (["--hidden-dims", 9, "-n", 3], "but the run was begun with [8]"),
    ):
        before = (run / runs.CONFIG).read_text()
        job(*again, *args, code=5)
        assert words in capsys.readouterr().err
        assert (run / runs.CONFIG).read_text() == before
    job(*again, "-n", 3, "--lr", 0.25, "--clip-norm", 1)
    state = storage.load_state(run / runs.CHECKPOINT)
    assert state["optimizer"]["param_groups"][0]["lr"] == 0.25
    lines = (run / runs.CONFIG).read_text().splitlines()
    assert lines[0] == "# up to epoch 2: lr 0.001, clip_norm None"
    assert yaml.safe_load("\n".join(lines))["lr"] == 0.25
    assert lines[0] in (run / runs.REPORT).read_text()
    job(*again, "-n", 4, "--batch-size", 64)
    assert runs.read_notes(run) == [lines[0][2:], "up to epoch 3: batch_size 128"]


def test_a_program_is_trained_into_a_run_folder(program, tmp_path):
    run = tmp_path / "run"
    job("svi", *FITTED, "--num-epochs", 4, "--out", run)
    assert sorted(os.listdir(run)) == [
        ".pyrovae.lock", "checkpoint.safetensors", "config.yaml", "evidence.nc", "figures",
        "manifest.json", "metrics.jsonl", "model.safetensors", "report.html",
    ]  # fmt: skip
    assert sorted(os.listdir(run / "figures")) == ["evidence.png", "training.png"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["valid_elbo"] > lines[0]["valid_elbo"]
    trained = table(run)
    assert trained.attrs["program"] == "own_program:make"
    page = (run / "report.html").read_text()
    assert "The program, from what running it shows" in page
    assert 'id="latent"' not in page
    assert f"−{-trained['value'].sel(estimator='importance').mean():.3f}" in page

    program()  # as another process finds it
    ask = ["--num-particles", 40, "--no-progress", "--estimators", "importance", "quadrature"]
    job("evidence", run, "--program", "own_program:make", *ask)
    again = table(run)
    for what in ("model_sha256", "sha256_test", "saved_sha256"):
        assert again.attrs[what] == trained.attrs[what]
    one, other = (ds["value"].sel(estimator="importance") for ds in (trained, again))
    np.testing.assert_array_equal(one, other)
    width = storage.load_state(run / runs.MODEL)["parameters"]["width"].exp()
    test = pv.data.load_arrays("xy.npz").test
    x, y = (a.double() for a in test.arrays)
    exact = torch.distributions.Normal(y, (1 + width.double() ** 2).sqrt()).log_prob(x)
    np.testing.assert_allclose(again["value"].sel(estimator="quadrature"), exact, atol=1e-4)

    program()
    page = (run / "report.html").read_text()
    job("report", run, "--program", "own_program:make")
    assert (run / "report.html").read_text() == page
    program()
    job("report", run)  # imports nothing, and goes without the diagram
    assert "own_program" not in sys.modules
    assert "The program, from what" not in (run / "report.html").read_text()
    np.savez("more.npz", x=np.zeros(7), y=np.zeros(7))
    job("evidence", run, "--program", "own_program:make", "--data", "more.npz", *ask)
    assert table(run / "evidence-more")["value"].shape == (2, 7)


def test_a_programs_run_is_resumed_bit_for_bit(program, tmp_path, monkeypatch, capsys):
    job("svi", *FITTED, "--num-epochs", 4, "--out", tmp_path / "whole")
    write = runs.write_metrics

    def interrupt(folder, history):
        write(folder, history)
        if len(history["elbo"]) == 2:
            raise KeyboardInterrupt

    program()
    monkeypatch.setattr(runs, "write_metrics", interrupt)
    run = tmp_path / "run"
    job("svi", *FITTED, "--num-epochs", 4, "--out", run, code=130)
    monkeypatch.setattr(runs, "write_metrics", write)
    program()
    job("svi", "--out", run, "--resume", code=2)
    assert "no code is imported because a file names it" in capsys.readouterr().err
    assert "own_program" not in sys.modules
    job("svi", "--program", "own_program:make", "--out", run, "--resume", "--no-progress")
    for name in (runs.MODEL, runs.CONFIG):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    np.testing.assert_array_equal(table(run)["value"], table(tmp_path / "whole")["value"])


def test_a_program_that_changed_is_named(program, tmp_path, capsys):
    run = tmp_path / "run"
    job("svi", *FITTED, "--num-epochs", 1, "--out", run)
    page = (run / "report.html").read_bytes()
    program("own_sizes.py", "1.0", "2.0")
    job("report", run, "--program", "own_program:make", code=5)
    assert "own_program:make has changed since the evidence" in capsys.readouterr().err
    assert (run / "report.html").read_bytes() == page
    again = "svi", "--program", "own_program:make", "--out", run, "--resume", "--no-progress"
    job(*again, "--num-epochs", 2)
    [note] = runs.read_notes(run)
    assert re.match("up to epoch 1: the program", note)
    program()
    job("report", run, "--program", "own_program:make")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--z-dim", 3], 2, "--z-dim is for a VAE, not for a program"),
        (["--binarize", "static"], 2, "a program gets the arrays of xy.npz as they are"),
        (["--program", "own_program:absent"], 2, "give package.module:make"),
        (["--data", "absent.npz"], 3, "there is no file absent.npz"),
        (["--plate", "rows"], 2, "has no plate 'rows', only 'data'"),
    ],
)
def test_mistakes_with_a_program(args, code, words, program, tmp_path, capsys):
    job("svi", *FITTED, "--num-epochs", 1, "--out", tmp_path / "run", *args, code=code)
    assert words in capsys.readouterr().err


def test_a_run_of_a_program_asks_for_the_program_and_refuses_another(program, tmp_path, capsys):
    run = tmp_path / "run"
    job("svi", *FITTED, "--num-epochs", 1, "--out", run)
    program()
    job("evidence", run, code=2)
    assert "name it again: --program own_program:make" in capsys.readouterr().err
    assert "own_program" not in sys.modules
    program("own_program.py", "torch.nn.Linear(2, 2)", "torch.nn.Linear(2, 2, bias=False)")
    job("evidence", run, "--program", "own_program:make", "--no-progress", code=5)
    assert r"net$$$out.bias float32 (2,) for none" in capsys.readouterr().err
    job("svi", "--config", run / runs.CONFIG, "--out", tmp_path / "other", code=2)
    assert "name it again: --program own_program:make" in capsys.readouterr().err


def test_the_best_epoch_is_one_with_a_finite_validation_elbo():
    history = {"elbo": [-3.0] * 4, "valid_elbo": [float("nan"), -2.0, -1.0, float("inf")]}
    assert runs.best_epoch(history) == 3
    assert runs.best_epoch({"elbo": [-3.0] * 4}) == 4
