"""The main job and its run folder, as a user meets them."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray
import yaml

import pyrovae as pv
from pyrovae import runs
from pyrovae.commands import guarded
from pyrovae.svi.__main__ import main

pytestmark = pytest.mark.usefixtures("float32")
SMALL = "--num-epochs 3 --z-dim 2 --hidden-dims 8 --num-particles 20 --no-progress".split()
FILES = ["checkpoint.safetensors", "config.yaml", "evidence.nc", "figures", "metrics.jsonl"]
FIGURES = ["evidence", "latent_space", "manifold", "reconstructions", "samples", "training"]


def job(*args, code=0, capsys=None):
    assert main([*SMALL, *map(str, args)]) == code
    return capsys.readouterr() if capsys else None


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert main([*SMALL, "--out", str(folder)]) == 0
    return folder


def test_run_folder(run_folder):
    files = {".pyrovae.lock", "manifest.json", *FILES, "model.safetensors", "report.html"}
    assert set(os.listdir(run_folder)) == files
    listed = json.loads((run_folder / "manifest.json").read_text())["files"]
    there = {f"{p.relative_to(run_folder)}" for p in run_folder.rglob("*") if p.is_file()}
    assert set(listed) == there - {".pyrovae.lock", "manifest.json"}
    figures = sorted(p.name for p in (run_folder / "figures").iterdir())
    assert figures == [f"{name}.png" for name in FIGURES]
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in (run_folder / "figures").iterdir())
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert {"elbo", "valid_elbo", "seconds"} <= set(lines[0])
    with xarray.open_dataset(run_folder / "evidence.nc", engine="h5netcdf") as ds:
        assert ds["value"].shape == (3, 359)
        attrs = ds.attrs
    assert attrs["data"] == "digits"
    assert attrs["binarize"] == "dynamic"
    assert attrs["num_particles"] == 20
    assert attrs["part"] == "test"
    splits = pv.data.load("digits", binarize="dynamic")
    assert attrs["sha256_test"] == splits.protocol["sha256_test"]


@pytest.mark.usefixtures("undrawn")
def test_output(tmp_path, capsys):
    out = job("--out", tmp_path / "run", capsys=capsys).out
    assert "ELBO" in out
    assert "naive sampling" in out
    assert "Protocol: rows 359; dims 64.0; discrete True; num_particles 20; seed 0" in out
    assert "log P(X) of these 359 data by" in out
    assert f"run folder: {tmp_path / 'run'}" in out


@pytest.mark.usefixtures("undrawn")
def test_json_on_stdout_alone(tmp_path, capsys):
    captured = job("--out", tmp_path / "run", "--json", capsys=capsys)
    result = json.loads(captured.out)
    assert [row["estimator"] for row in result["estimators"]] == ["elbo", "importance", "prior"]
    assert result["protocol"]["binarize"] == "dynamic"
    assert "naive sampling" in captured.err


@pytest.mark.usefixtures("undrawn")
def test_config_reproduces_the_run(run_folder, tmp_path):
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert config["hidden_dims"] == [8]
    assert config["lr"] == 1e-3  # a default, resolved
    assert not {"out", "resume", "overwrite", "progress", "json", "config"} & set(config)
    again = tmp_path / "again"
    assert main(["--config", str(run_folder / "config.yaml"), "--out", str(again)]) == 0
    for name in ("model.safetensors", "config.yaml"):
        assert (again / name).read_bytes() == (run_folder / name).read_bytes()
    with (
        xarray.open_dataset(run_folder / "evidence.nc", engine="h5netcdf") as a,
        xarray.open_dataset(again / "evidence.nc", engine="h5netcdf") as b,
    ):
        np.testing.assert_array_equal(a["value"], b["value"])


def test_load(run_folder, tmp_path):
    vae = pv.load(run_folder)
    assert not vae.training
    x = pv.data.load("digits").test.x
    pv.save(vae, tmp_path / "copy")
    again = pv.load(tmp_path / "copy")
    for one, other in ((vae.encode(x).mean, again.encode(x).mean), (vae.sample(3, seed=0),) * 2):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="there is no model.safetensors"):
        pv.load(tmp_path)
    pv.storage.save_state(tmp_path / runs.MODEL, {"class": "Other"})
    with pytest.raises(ValueError, match="holds 'Other', not a VAE"):
        pv.load(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_resume_is_bit_for_bit(run_folder, tmp_path, monkeypatch):
    """Stopped after the first epoch and resumed, the run ends with the same bytes."""
    folder = tmp_path / "run"
    write = runs.write_metrics

    def interrupt(folder, history):
        write(folder, history)
        if len(history["elbo"]) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs, "write_metrics", interrupt)
    job("--out", folder, code=130)
    monkeypatch.undo()
    assert pv.load(folder).z_dim == 2  # what Ctrl-C leaves can be loaded
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    assert main(["--out", str(folder), "--resume", "--no-progress"]) == 0
    for name in ("model.safetensors", "config.yaml"):
        assert (folder / name).read_bytes() == (run_folder / name).read_bytes()
    # going on with more epochs is resuming, too
    assert main(["--out", str(folder), "--resume", "--no-progress", "-n", "4"]) == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_a_real_interrupt_leaves_a_loadable_run(tmp_path, interrupted):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "pyrovae.svi", "--out", str(folder), "-n", "100000"]
    metrics = folder / "metrics.jsonl"
    code, err = interrupted(command, lambda: metrics.exists() and metrics.stat().st_size)
    assert code == 130, err
    assert "--resume" in err
    assert pv.load(folder).x_dim == 64


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--data", "digit"], 3, "did you mean digits"),
        (["--data", "absent.npy"], 3, "there is no file absent.npy"),
        (["--data", "mnist", "--root", "/nowhere"], 3, "searched /nowhere/MNIST/raw"),
        (["--binarize", "none"], 3, "outside {0, 1} but site 'x' is Bernoulli"),
        (["--likelihood", "bernouli"], 2, "did you mean bernoulli"),
        (["--sigma", "0.3"], 2, "--sigma is for the normal likelihood"),
        (["--lr", "-1"], 2, "lr"),
        (["--z-dim", "two"], 2, "z_dim"),
        (["--nonsense", "1"], 2, "nonsense"),
        (["--resume"], 2, "--resume needs the run's folder"),
        (["--out", "/proc/nowhere"], 2, "cannot be written"),
        (["--device", "warp"], 2, "device"),
    ],
)
def test_exit_codes(args, code, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    err = job(*args, code=code, capsys=capsys).err
    assert words in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_holds_a_run(run_folder, tmp_path, capsys):
    before = {p: p.read_bytes() for p in run_folder.iterdir() if p.is_file()}
    assert "already holds a run" in job("--out", run_folder, code=2, capsys=capsys).err
    both = ["--out", run_folder, "--resume", "--overwrite"]
    assert "give one of them" in job(*both, code=2, capsys=capsys).err
    for args, code in (
        (["--data", "digit"], 3),
        (["--binarize", "none"], 3),
        (["--likelihood", "bernouli"], 2),
        (["--sigma", "0.3"], 2),
    ):
        job(*args, "--out", run_folder, "--overwrite", code=code)
    job("--z-dim", 7, "--out", run_folder, "--resume", code=5)
    assert {p: p.read_bytes() for p in run_folder.iterdir() if p.is_file()} == before
    job("--out", tmp_path / "o", "--z-dim", 3)
    job("--out", tmp_path / "o", "--overwrite")
    assert pv.load(tmp_path / "o").z_dim == 2


def test_unknown_key_in_a_config(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("zdim: 3\n")
    assert "zdim" in job("--config", tmp_path / "c.yaml", code=2, capsys=capsys).err


def test_divergence(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    x[:, 0] = 1e30
    np.save(tmp_path / "x.npy", x)
    args = ["--data", tmp_path / "x.npy", "--binarize", "none", "--likelihood", "normal"]
    err = job(*args, "--out", tmp_path / "run", code=4, capsys=capsys).err
    assert "worst gradient" in err
    assert pv.load(tmp_path / "run").x_dim == 4  # the state before that step


@pytest.mark.parametrize("damage", ["truncate", "foreign", "other data", "gone", "other model"])
def test_broken_checkpoints(damage, run_folder, tmp_path, capsys):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    path = folder / runs.CHECKPOINT
    args = ["--out", folder, "--resume"]
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "foreign":
        path.write_bytes((folder / runs.MODEL).read_bytes())
    elif damage == "other data":
        args += ["--binarize", "static"]
    elif damage == "gone":
        path.unlink()
    else:
        args += ["--z-dim", 5]
    job(*args, code=5, capsys=capsys)


def test_nothing_to_resume(tmp_path, capsys):
    args = ["--out", tmp_path / "new", "--resume"]
    assert "there is no run" in job(*args, code=5, capsys=capsys).err


@pytest.mark.parametrize(
    "args",
    [
        ["--binarize", "none", "--likelihood", "continuous-bernoulli"],
        ["--binarize", "none", "--likelihood", "normal"],
        ["--binarize", "none", "--likelihood", "normal", "--sigma", "0.3"],
        ["--binarize", "threshold", "--estimators", "importance"],
        ["--binarize", "static", "--estimators", "prior", "elbo"],
        ["--estimators", "elbo", "--patience", "1", "--clip-norm", "1"],
        ["--lr-schedule", "one-cycle", "--z-dim", "1", "--valid-size", "100"],
        pytest.param(
            ["--estimators", "jackknife", "ais", "quadrature", "--z-dim", "1"],
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_options(args, tmp_path):
    job("--out", tmp_path / "run", *args)
    assert (tmp_path / "run" / "figures" / "evidence.png").exists()


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("own.npy", np.random.default_rng(0).random((40, 6)))
    job("--data", "own.npy")
    [folder] = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("-own")
    assert not (folder / "figures" / "samples.png").exists()  # rows of 6 are no images


def test_help_warns_of_nothing():
    command = [sys.executable, "-W", "error", "-m", "pyrovae.svi", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "--num-particles" in done.stdout


def test_errors_leave_out_the_shapes_that_pyro_lists(capsys):
    def fails() -> int:
        raise ValueError("x has 7 columns\n Trace Shapes:   \n  Param Sites: ")

    assert guarded(fails, "") == 2
    assert capsys.readouterr().err == "error: x has 7 columns\n"
