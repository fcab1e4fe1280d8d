"""`python -m pyrovae classify`, by one run of a model of x and y, by a run a class, by a table."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.__main__ import main
from pyrovae.posteriors.classified import HEADER

pytestmark = pytest.mark.usefixtures("float32")
SMALL = "--num-epochs 20 --lr 0.02 --num-particles 20 --estimators elbo --no-progress".split()
SMALL += "--binarize none --likelihood normal --model.z_dim 2 --model.hidden_dims 4".split()
FEW = ["--num-particles", "30", "--no-progress", "--estimator", "importance"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of a CVAE, two of a class each, their data, and others without labels and with."""
    folder, g = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    y = np.arange(200) % 2
    x = (g.normal(size=(200, 3)) + 2 * y[:, None]).astype(np.float32)
    np.savez(folder / "all.npz", x=x, y=y)
    np.savez(folder / "labelled.npz", x=x[:20] + 0.1, y=y[:20])
    new = np.concatenate([x[:6] + 0.2, [[60.0, -60.0, 60.0]]]).astype(np.float32)
    np.save(folder / "new.npy", new)
    runs = {"cvae": "all.npz", "no": "no.npy", "yes": "yes.npy"}
    for name, c in (("no", 0), ("yes", 1)):
        np.save(folder / f"{name}.npy", x[y == c])
    for name, data in runs.items():
        model = ["--model", "cvae" if name == "cvae" else "vae"]
        where = ["--data", str(folder / data), "--out", str(folder / name)]
        assert main(["svi", *model, *SMALL, *where]) == 0
    return folder


def test_a_run_given_y_is_calibrated_on_its_own_test_part(place, tmp_path, capsys):
    out, run, new = tmp_path / "classes.csv", str(place / "cvae"), str(place / "new.npy")
    capsys.readouterr()
    asked = ["classify", run, "--data", new, *FEW, "--out", str(out), "--json"]
    assert main(asked) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["runs"] == [run]
    assert result["num_data"] == 7
    assert result["num_calibration"] == 40
    assert "accuracy" not in result
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert out.read_text().splitlines()[0] == f"{HEADER},p(0),p(1)"
    assert rows[6]["none"] == "1"
    assert "none of these" in said.err

    cvae, x = pv.load(place / "cvae"), torch.from_numpy(np.load(new))
    test = pv.data.load(str(place / "all.npz"), binarize="none").test
    ours = pv.classify(
        cvae.model, cvae.guide, x, calibration=(test.x, test.y), seed=0, num_particles=30,
        estimator="importance",
    )  # fmt: skip
    assert out.read_text().splitlines() == ours.to_csv()

    other = ["--prior", "calibration", "--calibration", str(place / "all.npz")]
    labelled = ["classify", run, "--data", str(place / "labelled.npz"), *other, *FEW, "--json"]
    assert main(labelled) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["accuracy"] > 0.6
    assert {"log_loss", "log_loss_untempered", "calibration_error"} < set(result)


def test_a_run_a_class_is_calibrated_on_all_their_test_parts(place, tmp_path, capsys):
    out, runs = tmp_path / "classes.csv", [str(place / "no"), str(place / "yes")]
    capsys.readouterr()
    asked = ["classify", *runs, "--data", str(place / "new.npy"), *FEW, "--out", str(out)]
    assert main(asked) == 0
    assert "40 labels" in capsys.readouterr().out
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert {row["class"] for row in rows} <= set(runs)
    models = [pv.load(run) for run in runs]
    tests = [pv.data.load(str(place / f"{n}.npy"), binarize="none").test.x for n in ("no", "yes")]
    ours = pv.classify(
        [m.model for m in models], [m.guide for m in models],
        torch.from_numpy(np.load(place / "new.npy")),
        calibration=(torch.cat(tests), torch.arange(2).repeat_interleave(20)), seed=0,
        num_particles=30, estimator="importance",
    )  # fmt: skip
    assert [float(row[f"p({runs[0]})"]) for row in rows] == ours.probability[:, 0].tolist()


def test_a_tables_labels_keep_their_names_and_numbers(tmp_path, capsys, monkeypatch):
    """Those of a file that lacks one are not numbered anew."""
    g, kinds = np.random.default_rng(0), np.array(["ash", "fir", "oak"])
    y = np.arange(150) % 3
    trees = pd.DataFrame({"height": g.normal(size=150) + 3 * y, "width": g.normal(size=150)})
    trees["kind"] = kinds[y]
    monkeypatch.chdir(tmp_path)
    trees.to_csv("trees.csv", index=False)
    trees[y > 0].to_csv("new.csv", index=False)
    trees.drop(columns="kind").head(5).to_csv("unknown.csv", index=False)
    (tmp_path / "columns.yaml").write_text("kind: label\n")
    small = [*SMALL[: SMALL.index("--binarize")], "--model", "cvae", "--likelihood", "columns"]
    small += ["--columns", "columns.yaml", "--model.z_dim", "1"]
    assert main(["svi", *small, "--data", "trees.csv", "--out", "run"]) == 0
    capsys.readouterr()
    for data in ("new.csv", "unknown.csv"):
        assert main(["classify", "run", "--data", data, *FEW, "--out", "o.csv", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["num_classes"] == 3
        lines = (tmp_path / "o.csv").read_text().splitlines()
        assert lines[0] == f"{HEADER},p(ash),p(fir),p(oak)"
        if data == "new.csv":
            found = [row["class"] for row in csv.DictReader(lines)]
            share = np.mean(np.array(found) == kinds[y[y > 0]])
            assert result["accuracy"] == pytest.approx(share)
            assert share > 0
    again = ["svi", "--out", "run", "--resume", "--num-epochs", "21", "--columns", "columns.yaml"]
    assert main([*again, "--estimators", "elbo", "--num-particles", "5"]) == 0
    read = pv.runs.read_run("run")
    rows, *_ = pv.data.load_rows("new.csv", columns=read.columns)
    assert rows.y.tolist() == y[y > 0].tolist()
    (tmp_path / "trees.csv").rename(tmp_path / "elsewhere.csv")
    assert main(["evidence", "run", "--data", "new.csv", "--estimators", "elbo"]) == 0
    trees.assign(kind="elm").to_csv("elms.csv", index=False)
    capsys.readouterr()
    assert main(["evidence", "run", "--data", "elms.csv", "--estimators", "elbo"]) == 3
    assert "elm" in capsys.readouterr().err


def test_what_is_no_task(place, tmp_path, capsys):
    cvae, no, yes = (str(place / name) for name in ("cvae", "no", "yes"))
    new = str(place / "new.npy")
    capsys.readouterr()

    def told(code, *argv):
        assert main(["classify", *map(str, argv), *FEW]) == code
        said = capsys.readouterr().err.strip()
        assert len(said.splitlines()) == 1
        return said

    assert "takes x alone; give one run a class" in told(2, no, "--data", new)
    assert "one a class has to take x alone" in told(2, no, cvae, "--data", new)
    assert "is named twice" in told(2, no, no, "--data", new)
    assert "has no labels" in told(3, cvae, "--data", new, "--calibration", place / "no.npy")
    assert "is no table of this command" in told(2, cvae, "--data", new, "--out", new)
    assert "there is no file" in told(3, cvae, "--data", tmp_path / "none.npy")
    assert "there is no model" in told(5, tmp_path, "--data", new)
    assert "the very data that are to be judged" in told(2, cvae, "--data", place / "all.npz")
    few = ("--calibration", place / "labelled.npz", "--false-alarms", "0.01")
    assert "calibration is of 20 data" in told(2, no, yes, "--data", new, *few)
    assert main(["classify", "--help"]) == 0
    assert "python -m pyrovae classify runs/cvae --data new.npy" in capsys.readouterr().out
