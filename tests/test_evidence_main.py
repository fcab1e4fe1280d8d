"""The evidence of a run or a program from the command line, as a user meets it."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray

import pyrovae as pv
from pyrovae import runs
from pyrovae.commands.evidence import main
from pyrovae.commands.svi import main as fit_main
from pyrovae.runs.folder import Folder

pytestmark = pytest.mark.usefixtures("float32", "undrawn")
QUICK = "--num-particles 40 --num-temperatures 3 --num-chains 2 --rows 30 --no-progress".split()
PROGRAM = """
import pyro, pyro.distributions as dist, torch

def model(x, y):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(y, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)

def guide(x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.8 * x + 0.2 * y, 0.5))

def make():
    return model, guide

def nothing():
    return None
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    fit = "--num-epochs 3 --z-dim 2 --hidden-dims 8 --num-particles 20 --no-progress".split()
    assert fit_main([*fit, "--estimators", "elbo", "--out", str(folder)]) == 0
    return folder


def job(*args, code=0, capsys=None):
    assert main([*QUICK, *map(str, args)]) == code
    return capsys.readouterr() if capsys else None


def table(folder):
    with xarray.open_dataset(folder / runs.EVIDENCE, engine="h5netcdf") as ds:
        return ds.load()


def test_own_test_part(run_folder, tmp_path, capsys):
    captured = job(run_folder, "--out", tmp_path, capsys=capsys)
    assert "30 of 359 rows" in captured.out
    assert "the cheapest way" in captured.out
    splits = pv.data.load("digits", binarize="dynamic")
    assert table(tmp_path).attrs["sha256_test"] == splits.protocol["sha256_test"]
    assert table(tmp_path).attrs["rows_chosen"] == "30"
    figures = {p.stem for p in (tmp_path / "figures").iterdir()}
    assert figures == {
        "evidence", "extremes", "histogram", "khat_importance", "khat_prior", "two_estimates",
    }  # fmt: skip
    assert not (tmp_path / runs.BLOCKS).exists()
    vae = pv.load(run_folder)
    x = splits.test.x[np.arange(30) * 359 // 30]
    direct = pv.importance_sampling(vae.model, vae.guide, x, num_particles=40, seed=0)
    values = table(tmp_path)["value"].sel(estimator="importance").to_numpy()
    np.testing.assert_allclose(values, direct.log_evidence().numpy(), rtol=1e-6)


def test_csv_and_netcdf_say_the_same(run_folder, tmp_path):
    job(run_folder, "--out", tmp_path, "--estimators", "elbo", "importance", "quadrature")
    with (tmp_path / runs.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    ds = table(tmp_path)
    assert len(rows) == 30
    assert {row["quadrature_verdict"] for row in rows} == {"ok"}
    for name in ("elbo", "importance", "quadrature"):
        for what in ("value", "std_error", "num_draws"):
            column = [float(row[f"{name}_{what}"]) for row in rows]
            np.testing.assert_allclose(column, ds[what].sel(estimator=name))
        verdicts = [row[f"{name}_verdict"] for row in rows]
        assert verdicts == ds["verdict"].sel(estimator=name).to_numpy().tolist()


@pytest.mark.slow
def test_both_sides(run_folder, tmp_path, capsys):
    options = ["--rows", "12", "--estimators", "importance", "sandwich", "--out", tmp_path]
    options += ["--estimators.sandwich.tolerance", "0.25"]
    options += ["--estimators.sandwich.max_temperatures", "1"]
    captured = job(run_folder, *options, "--workers", "2", "--json", capsys=capsys)
    said, row = captured.err, json.loads(captured.out)["estimators"][1]
    assert "both sides, to 0.25 nats" in said
    assert "sandwich_tolerance 0.25; sandwich_max_temperatures 1" in " ".join(said.split())
    assert (tmp_path / "figures" / "intervals.png").exists()
    evidence = runs.load_evidence(tmp_path)
    [c] = pv.Certificate.all_in(evidence).values()
    assert c.tolerance == 0.25
    assert row["certified"] == c.certified.sum()
    sides = row["lower"], row["lower_error"], row["upper"], row["upper_error"]
    assert sides == pytest.approx(c.mean())
    with (tmp_path / runs.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["sandwich_lower"]) for row in rows] == c.lower.tolist()
    job(run_folder, "--out", tmp_path, "--rows", "3", "--estimators", "elbo")
    assert not (tmp_path / "figures" / "intervals.png").exists()


def test_json(run_folder, tmp_path, capsys):
    args = ["--json", "--num-particles", "auto", "--tolerance", "0.2", "--out", tmp_path]
    captured = job(run_folder, *args, capsys=capsys)
    result = json.loads(captured.out)
    names = [row["estimator"] for row in result["estimators"]]
    assert names == ["elbo", "importance", "prior", "best"]
    assert result["protocol"]["num_particles"] == "auto"
    assert result["protocol"]["tolerance"] == 0.2
    assert "log P(X) of these" in captured.err
    assert not (tmp_path / "figures" / "evidence.png").exists()  # K differs between data


def test_default_folder_is_the_runs(run_folder, tmp_path):
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).random((12, 64)))
    before = (run_folder / runs.MODEL).read_bytes()
    few = ["--estimators", "elbo", "importance"]
    job(run_folder, *few)
    assert table(run_folder)["value"].shape == (2, 30)
    job(run_folder, *few, "--data", tmp_path / "mine.npy", "--rows", 12)
    other = table(run_folder / "evidence-mine")
    assert other["value"].shape == (2, 12)
    assert other.attrs["part"] == "all"
    assert other.attrs["binarize"] == "dynamic"
    assert table(run_folder)["value"].shape == (2, 30)
    assert (run_folder / runs.MODEL).read_bytes() == before


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_program.py").write_text(PROGRAM)
    rng = np.random.default_rng(0)
    y = rng.normal(size=50)
    np.savez("xy.npz", x=y + 1.25**0.5 * rng.normal(size=50), y=y)
    yield tmp_path
    for name in ("mine_program", "held_program", "own"):
        sys.modules.pop(name, None)


def test_a_program_of_ones_own(program):
    args = ["--program", "mine_program:make", "--data", "xy.npz", "--rows", "0:50:1"]
    job(*args, "--estimators", "importance", "quadrature", "--out", "out", "--num-particles", 4000)
    ds = table(program / "out")
    arrays = np.load("xy.npz")
    truth = -0.5 * (np.log(2 * np.pi * 1.25) + (arrays["x"] - arrays["y"]) ** 2 / 1.25)
    np.testing.assert_allclose(ds["value"].sel(estimator="quadrature"), truth, atol=1e-4)
    np.testing.assert_allclose(ds["value"].sel(estimator="importance"), truth, atol=0.1)
    assert ds.attrs["program"] == "mine_program:make"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ([], 2, "give a run folder, or --program"),
        (["runs/none"], 5, "there is no model.safetensors"),
        (["RUN", "--program", "a:b"], 2, "one of them"),
        (["RUN", "--rows", "x"], 2, "--rows is 'x'; give 100, or start:stop"),
        (["RUN", "--rows", "1:2:3:4"], 2, "--rows is '1:2:3:4'; give 100, or start:stop"),
        (["RUN", "--rows", "-5:"], 2, "--rows needs a value; write --rows=-5:"),
        (["RUN", "--num-particles", str(2**63)], 2, "give a positive integer below 2^63"),
        (["RUN", "--device", "meta"], 2, "--device meta is not there"),
        (["RUN", "--rows", "900:"], 2, "leaves none of the 359 rows"),
        (["RUN", "--rows", "5:3"], 2, "leaves none of the 359 rows"),
        (["RUN", "--rows", "-3"], 2, "leaves none of the 359 rows"),
        (["RUN", "--rows", "360"], 2, "--rows is 360, but there are 359; give at most that"),
        (["RUN", "--num-particles", "many"], 2, "give a whole number above 0, or auto"),
        (["RUN", "--data", "digit"], 3, "there is no data set 'digit'"),
        (["RUN", "--data", "s3://a/b.npy"], 3, "--data s3://a/b.npy is an address; download it"),
        (["RUN", "--data", "mnist"], 3, "mnist is not there"),
        (["RUN", "--device", "cuda:7"], 2, "use cpu"),
        (["RUN", "--estimators", "annealing"], 2, "annealing"),
        (
            ["RUN", "--estimators", "sandwich", "--estimators.sandwich.tolerance", "0"],
            2,
            "tolerance is 0; give a positive number",
        ),
        (["--program", "mine_program:make"], 2, "--program needs --data"),
        (["--program", "mine_program:mk", "--data", "xy.npz"], 2, "has no 'mk'; did you mean mak"),
        (["--program", "no_such:make", "--data", "xy.npz"], 2, "cannot be had"),
        (["--program", "mine_program:nothing", "--data", "xy.npz"], 2, "not (model, guide)"),
        (["--program", "mine_program:make", "--data", "none.npz"], 3, "there is no file none.npz"),
    ],
)
def test_mistakes(args, code, words, run_folder, program, capsys):
    args = [run_folder if a == "RUN" else a for a in args]
    err = job(*args, code=code, capsys=capsys).err
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("\n1 / 0", "own.py, line 2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit()", "own.py, line 2: SystemExit"),
        ("exit('so long')", "own.py, line 1: SystemExit: so long"),
        ("def f(): f()\nf()", "own.py, line 1: RecursionError: maximum recursion depth exceeded"),
        ("def make(:", "own.py, line 1: SyntaxError: invalid syntax"),
        ("import no_such_thing", "own.py, line 1: ModuleNotFoundError: No module named 'no_such"),
        ("def make():\n raise KeyError(3)", "own.py, line 2: KeyError: 3"),
        ("def make(x): pass", "--program own:make takes (x), but is given nothing; give"),
        ("make = 3", "--program own:make is of type int; give package.module:make"),
        ("def make(): return 1, 2, 3", "own:make returned a tuple of 3, not (model, guide)"),
        ("def make(): return 1, 2", "own:make returned a model of type int; give"),
    ],
)
def test_a_program_that_fails_is_named_with_its_line(code, said, program, capsys):
    (program / "own.py").write_text(code)
    err = job("--program", "own:make", "--data", "xy.npz", code=2, capsys=capsys).err
    [line] = err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("{}['mean']", "line 6: KeyError: 'mean'"),
        ("exit(3)", "line 6: SystemExit: 3"),
        ("(f := lambda: f())()", "line 6: RecursionError: maximum recursion depth exceeded"),
        ("dist.Normal(y, -y.abs())", "line 6: ValueError: Expected parameter scale"),
    ],
)
def test_a_model_that_fails_is_named_with_its_line(wrong, said, program, capsys):
    (program / "own.py").write_text(PROGRAM.replace("        z =", f"        {wrong}; z =", 1))
    args = ["--program", "own:make", "--data", "xy.npz", "--estimators", "importance"]
    for run, more in ((main, QUICK), (fit_main, ["-n", "1", "--out", "fit"])):
        assert run([*more, *args]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: own:make fails in its own code, {program}/own.py, {said}")


def test_names_that_are_no_program(program, capsys):
    for name, said in (
        ("mine_program", "names no function; give package.module:make"),
        (":make", "names no function; give package.module:make"),
        ("sub/mine_program.py:make", "is a path; give a module that python finds from here, such"),
    ):
        assert said in job("--program", name, "--data", "xy.npz", code=2, capsys=capsys).err


def test_data_that_a_program_does_not_take(program, capsys):
    np.save("x.npy", np.zeros(50))
    for run in (main, fit_main):
        assert run(["--program", "mine_program:make", "--data", "x.npy"]) == 3
        err = capsys.readouterr().err
        assert re.search(r"x\.npy gives 1 array.*the model takes \(x, y\)", err)
    (program / "own.py").write_text(f"{PROGRAM}\nprior = lambda: (model, None)")
    args = ["--program", "own:prior", "--data", "xy.npz", "--estimators", "prior"]
    assert fit_main([*args, "--out", "fit"]) == 2
    assert "the guide is None; training needs one" in capsys.readouterr().err


def test_interrupted_it_names_the_command_that_goes_on(run_folder, tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.Blocks, "__setitem__", interrupt)
    out = tmp_path / "an evaluation"
    asked = [*QUICK, f"{run_folder}", "--estimators", "importance"]
    err = job(*asked[len(QUICK) :], "--out", out, code=130, capsys=capsys).err
    assert f"{out}/blocks: python -m pyrovae" in err
    assert err.rstrip().endswith(f".evidence {shlex.join(asked)} --out '{out}'")


def test_too_many_dimensions_for_quadrature(tmp_path, capsys):
    fit = "--num-epochs 1 --z-dim 4 --hidden-dims 8 --num-particles 20 --no-progress".split()
    assert fit_main([*fit, "--estimators", "elbo", "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    err = job(tmp_path / "run", "--estimators", "quadrature", code=2, capsys=capsys).err
    assert re.search("4 continuous dimensions; quadrature .* 1 to 3", err)


HELD = (
    PROGRAM
    + """
import os, time
from pathlib import Path

def held(x, y):
    folder = os.environ.get("HOLD")
    while folder and len(list(Path(folder).glob("*/*.safetensors"))) == 2:
        time.sleep(0.01)  # until it is interrupted
    model(x, y)

def make():
    return held, guide
"""
)


@pytest.mark.slow
def test_interrupted_it_goes_on_from_its_blocks(program, interrupted, monkeypatch):
    (program / "held_program.py").write_text(HELD)
    rng = np.random.default_rng(0)
    np.savez("many.npz", x=rng.normal(size=300), y=rng.normal(size=300))
    args = ["--program", "held_program:make", "--data", "many.npz", "--num-particles", "100"]
    args += ["--no-progress", "--estimators", "importance", "prior", "--out"]
    blocks = program / "out" / runs.BLOCKS
    monkeypatch.setenv("HOLD", str(blocks))
    command = [sys.executable, "-W", "ignore", "-m", "pyrovae.evidence", *args, "out"]
    code, err = interrupted(command, lambda: len(list(blocks.glob("*/*.safetensors"))) == 2)
    assert code == 130, err
    assert "goes on from the blocks already done" in err
    assert not (program / "out" / runs.EVIDENCE).exists()
    assert len(list(blocks.glob("*/*.safetensors"))) == 2
    monkeypatch.delenv("HOLD")
    done = subprocess.run([*command], capture_output=True, text=True)  # by another process
    assert done.returncode == 0, done.stderr
    assert "going on from 2 finished blocks" in done.stderr
    assert not blocks.exists()
    assert main([*args, "whole"]) == 0
    for name in ("value", "std_error", "pareto_k", "path"):
        np.testing.assert_array_equal(table(program / "out")[name], table(program / "whole")[name])


def test_a_block_that_was_altered_is_computed_again(tmp_path):
    blocks = runs.Blocks(Folder(tmp_path), "key")
    blocks["guide-0"] = {"value": torch.arange(100.0)}
    path = tmp_path / "blocks" / "key" / "guide-0.safetensors"
    whole = path.read_bytes()
    assert "guide-0" in blocks
    path.write_bytes(whole[:-50])
    assert "guide-0" not in blocks
    path.write_bytes(whole[:-4] + b"\x00\x00\x00\x00")
    assert "guide-0" not in blocks
    with pytest.raises(KeyError):
        blocks["guide-0"]


def test_workers_are_counted(run_folder, capsys):
    assert main([str(run_folder), "--workers", "0"]) == 2
    assert "workers" in capsys.readouterr().err


def test_blocks_of_other_options_are_not_taken(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(runs.Blocks, "discard", lambda self: None)
    for other in ((), ("--seed", 1), ("--rows", 29), ()):
        job(run_folder, "--out", tmp_path, "--estimators", "importance", *other)
    assert len(os.listdir(tmp_path / runs.BLOCKS)) == 3


def test_help_warns_of_nothing():
    command = [sys.executable, "-W", "error", "-m", "pyrovae.evidence", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "--program" in done.stdout
    assert "<function" not in done.stdout
