"""The main job and its run folder, as a user meets them."""

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import count

import numpy as np
import pytest
import torch
import xarray
import yaml

import pyrovae as pv
from pyrovae import likelihoods, progress, runs
from pyrovae.__main__ import main as pyrovae_main
from pyrovae.commands.common import guarded
from pyrovae.commands.named import written_names
from pyrovae.commands.svi import main
from pyrovae.commands.svi_options import configured
from pyrovae.evidence.estimators.base import known
from pyrovae.models import base

pytestmark = pytest.mark.usefixtures("float32")
SMALL = "--estimators elbo importance prior --num-epochs 3 --z-dim 2 --hidden-dims 8".split()
SMALL += "--num-particles 20 --no-progress".split()
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
def test_evaluation_is_compiled_too(tmp_path, monkeypatch):
    asked = []

    def uncompiled(fn):
        def run(*args, compile, **options):
            asked.append(compile)
            return fn(*args, **options)

        return run

    monkeypatch.setattr(pv.svi, "fit", uncompiled(pv.svi.fit))
    monkeypatch.setattr(pv, "evaluate", uncompiled(pv.evaluate))
    job("--out", tmp_path / "run", "--compile")
    assert asked == [True, True]


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
    with pytest.raises(ValueError, match="holds a 'Other', not a model"):
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
        (["--data", "http://x.org/a.npy"], 3, "--data http://x.org/a.npy is an address; download"),
        (["--data", "absent.npy"], 3, "there is no file absent.npy"),
        (["--data", "mnist", "--root", "/nowhere"], 3, "searched /nowhere/MNIST/raw"),
        (["--binarize", "none"], 3, "outside {0, 1} but site 'x' is Bernoulli"),
        (["--likelihood", "bernouli"], 2, "did you mean bernoulli"),
        (["--estimators", "elbo", "annealing"], 2, "no estimator named 'annealing'; did you"),
        (["--estimators", "elbo", "imporance"], 2, "did you mean importance"),
        (["--estimators.elbo", "3"], 2, "--estimators.elbo names no estimator; write"),
        (["--estimators.ais.num_leapfrog", "3"], 2, "ais has options, but it is not asked for"),
        (["--estimators.elbo.leap", "3"], 2, "the estimator elbo has no option leap; it takes"),
        (["--sigma", "0.3"], 2, "--sigma is for normal, log-normal and student-t"),
        (["--lr", "-1"], 2, "lr"),
        (["--criterion", "imporance(9)"], 2, "did you mean importance"),
        (["--criterion", "importance(9, k=3)"], 2, "but importance takes num_particles, toleran"),
        (["--criterion", "iwae(128)"], 2, "k is 128, more than the 100 particles"),
        (["--ema", "1"], 2, "--ema is '1'; give a number above 0 and below 1"),
        (["--optimizer", "mun"], 2, "optimizer is 'mun'; did you mean muon?"),
        (["--hidden-dims", str(10**12)], 2, "memory does not hold that ("),
        (["--z-dim", "two"], 2, "--z-dim is 'two'; give a whole number above 0; python -m"),
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


def test_a_step_too_far(tmp_path, capsys):
    far = ["-n", "1", "--lr", "1e30", "--batch-size", "2000", "--out", tmp_path / "run"]
    err = job(*far, code=4, capsys=capsys).err
    assert re.match("error: training diverged: .*validation ELBO is -inf", err)
    assert err.count("\n") == 1


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
    ("args", "binarize"),
    [
        ([], "dynamic"),
        (["--likelihood", "bernoulli"], "dynamic"),
        (["--likelihood", "continuous-bernoulli"], "none"),
        (["--likelihood", "student-t(df=3)"], "none"),
        (["--model", "cvae", "--model.likelihood", "poisson"], "none"),
        (["--model", "hierarchical-vae"], "dynamic"),
        (["--model", "gaussian-mixture", "--model.num_components", "3"], "none"),
        (["--likelihood", "normal", "--binarize", "threshold"], "threshold"),
    ],
)
def test_grey_data_are_made_binary_for_a_bernoulli_alone(args, binarize):
    assert configured(args).binarize == binarize


@pytest.mark.parametrize(
    "args",
    [
        ["--binarize", "none", "--likelihood", "continuous-bernoulli"],
        ["--likelihood", "normal"],
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


@pytest.mark.usefixtures("undrawn")
def test_what_chooses_the_epoch_and_what_is_averaged_stand_in_the_run(tmp_path, capsys):
    folder = tmp_path / "run"
    how = ["--criterion", "iwae(4)", "--criterion-rows", 30, "--ema", 0.9, "--optimizer", "muon"]
    job(*how, "--estimators", "elbo", "--patience", 5, "--out", folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert [config[k] for k in ("criterion", "criterion_rows", "ema", "optimizer")] == [
        "iwae(4)", 30, 0.9, "muon",
    ]  # fmt: skip
    metrics = runs.read_metrics(folder)
    assert len(metrics["criterion"]) == 3
    valid = pv.data.load("digits").valid.x[:30]
    vae = pv.load(folder)  # of the averages, or this would be another number
    values = pv.IWAE(4, num_particles=100).values(vae.model, vae.guide, valid, seed=0)
    assert values.mean().item() == pytest.approx(max(metrics["criterion"]), abs=1e-3)
    state = pv.storage.load_state(folder / runs.CHECKPOINT)
    assert len(state["optimizer"]["param_groups"]) == 2
    page = (folder / runs.REPORT).read_text()
    assert "was kept by iwae(4) of the first 30, parameters averaged by 0.9" in page
    for args in (["--criterion", "elbo"], ["--criterion-rows", 9], ["--optimizer", "adam"]):
        again = [*args, "--out", folder, "--resume", "-n", 4]
        assert main([*map(str, again)]) == 5
        assert "resume with that" in capsys.readouterr().err
    assert main(["--out", str(folder), "--resume", "-n", "4", "--ema", "0.5"]) == 0
    assert runs.read_notes(folder) == ["up to epoch 3: ema 0.9"]


def test_a_command_line_may_be_empty_or_end_in_an_option():
    assert configured([]).data == "digits"
    with pytest.raises(SystemExit):
        configured(["--model"])


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


def test_help(capsys):
    assert pyrovae_main(["--help"]) == 0
    assert "--version" in capsys.readouterr().out
    for name in ("svi", "evidence", "report"):
        assert pyrovae_main([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: python -m pyrovae.{name} ")
        assert text.count(f"\n  python -m pyrovae.{name} ") >= 3  # examples
        assert "--version" in text
        assert "type:" not in text
        assert "<function" not in text
        assert "null" not in text
    assert pyrovae_main(["svi", "--help"]) == 0
    text = capsys.readouterr().out
    assert "bernoulli, continuous-bernoulli, normal, student-t" in " ".join(text.split())
    groups = [
        "data",
        "model",
        "training",
        "validation",
        "evidence",
        "run folder",
        "computing",
        "examples",
    ]
    assert [g for g in groups if f"\n{g}:\n" in text] == groups
    assert pyrovae_main(["svi", "--version"]) == 0
    assert capsys.readouterr().out == f"pyrovae {pv.__version__}\n"


def test_the_help_knows_every_name():
    ours = {n for n, c in likelihoods.families.items() if c.__module__.startswith("pyrovae")}
    assert set(written_names("likelihoods/single.py")) == ours - {"columns"}  # made of a table
    assert {base.named(name).name for name in written_names("models")} >= {"vae", "conv-vae"}
    assert set(written_names("evidence/estimators")) == {
        n for n, cls in known().items() if cls.__module__.startswith("pyrovae")
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--num-epoch 3", "there is no option --num-epoch; did you mean --num-epochs?"),
        ("--nonsense=1", "there is no option --nonsense;"),
        ("stray", "'stray' is one argument too many;"),
        ("--lr", "--lr needs a value;"),
        ("--lr=-1", "--lr is '-1'; give a number above 0;"),
        ("-n 2.5", "--num-epochs is '2.5'; give a whole number above 0;"),
        ("--valid-size x", "--valid-size is 'x'; give a whole number above 0;"),
        ("--seed -1", "--seed is '-1'; give a whole number, 0 or more;"),
        ("--hidden-dims 3 x", "--hidden-dims is '3 x'; give a whole number above 0;"),
        ("--hidden-dims 3,4", "--hidden-dims is '3,4'; put spaces between its values;"),
        ("--lr-schedule one-cycl", "--lr-schedule is 'one-cycl'; did you mean one-cycle?"),
        ("--resume=1", "--resume takes no value;"),
        ("--config no.yaml", "--config: there is no file no.yaml;"),
        ("--config key.yaml", "key.yaml: there is no option zdim; did you mean z_dim?"),
        ("--config value.yaml", "--lr is wrong in value.yaml; give a number above 0;"),
        ("--config .", "--config: there is no file .;"),
        ("--config bytes.yaml", "bytes.yaml is no text"),
        ("--config list.yaml", "list.yaml is no YAML of options"),
    ],
)
def test_a_wrong_option_is_one_sentence(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, text in (("key", "zdim: 3"), ("value", "lr: much"), ("list", "- 3")):
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\x00")
    assert main(words.split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {sentence}")
    assert line.endswith("python -m pyrovae.svi --help says more")


@pytest.mark.usefixtures("undrawn")
def test_interrupted_it_names_the_command_that_goes_on(tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    folder = tmp_path / "a run"
    args = ["--estimators", "elbo", "--out", folder, "--overwrite"]
    monkeypatch.setattr("pyrovae.commands.svi._check_folder", interrupt)
    err = job(*args, code=130, capsys=capsys).err
    assert re.search(rf"{re.escape(str(folder))} .*begins anew: python -m", err)
    assert err.rstrip().endswith(f"--out '{folder}' --overwrite")
    monkeypatch.undo()
    monkeypatch.setattr(runs, "write_metrics", interrupt)
    err = job(*args, code=130, capsys=capsys).err
    before, _, command = err.rstrip().partition(": ")
    assert before.startswith("interrupted")
    assert before.endswith(str(folder))
    assert command.endswith(f" --no-progress --estimators elbo --out '{folder}' --resume")
    python, again = shlex.split(command)[:3], shlex.split(command)[3:]
    assert python == ["python", "-m", "pyrovae.svi"]

    def fitted(task, folder, ranks):
        raise ValueError(f"to be resumed: {task.config.resume}, {folder.path}")

    monkeypatch.setattr("pyrovae.commands.svi._fitted", fitted)
    assert main(again) == 2
    assert f"to be resumed: True, {folder}" in capsys.readouterr().err


def test_where_there_is_no_bar_a_line_is_written_now_and_then(monkeypatch, capsys):
    now = [0.0]

    def run(seconds, progress_asked=None):
        def steps():
            bar = progress.Bar("training", 100, 20, "epoch", progress_asked)
            for _ in range(80):
                now[0] += seconds
                bar.update()
            return 0

        assert guarded(steps) == 0
        return capsys.readouterr().err.splitlines()

    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    assert run(0.3) == []  # 24 s
    said = [re.findall(r"[\d.]+(?:%| min)", line) for line in run(10.0)[:2]]
    assert said == [["23%", "12.8 min"], ["33%", "11.2 min"]]  # soon, then by tenths
    assert len(run(10.0)) == 8
    assert re.match("training: 50%.* 50.0 s", run(1.0)[0])  # every 30 s
    assert len(run(200.0)) == 40  # a tenth takes half an hour, and a line comes every 400 s
    assert run(10.0, False) == []
    assert not logging.getLogger("pyrovae").handlers


@pytest.mark.usefixtures("undrawn")
def test_no_terminal_is_told_in_whole_lines_how_far_training_is(tmp_path, monkeypatch, capsys):
    minutes = count(step=60)
    monkeypatch.setattr(progress, "monotonic", lambda: next(minutes))
    args = [a for a in SMALL if a != "--no-progress"]
    assert main([*args, "-n", "12", "--out", str(tmp_path / "run")]) == 0
    text = "".join(capsys.readouterr())
    lines = [line for line in text.splitlines() if line.startswith("training: ")]
    form = r"training: \d+% done, about [\d.]+ (s|min) left \(elbo=-[\d.]+, valid=-[\d.]+\)"
    assert len(lines) > 4
    assert all(re.fullmatch(form, line) for line in lines), lines
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)  # such as \r, and escape sequences


def test_errors_leave_out_the_shapes_that_pyro_lists(capsys):
    def fails() -> int:
        raise ValueError("x has 7 columns\n Trace Shapes:   \n  Param Sites: ")

    assert guarded(fails) == 2
    assert capsys.readouterr().err == "error: x has 7 columns\n"
