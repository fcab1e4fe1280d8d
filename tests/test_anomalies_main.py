"""`python -m pyrovae anomalies`, on a run, on a run of a program, and on what is none."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.__main__ import main
from pyrovae.posteriors.anomalies import HEADER

pytestmark = pytest.mark.usefixtures("float32")
SMALL = "--num-epochs 3 --num-particles 20 --estimators elbo --no-progress --z-dim 2".split()
SMALL += "--hidden-dims 8 --binarize threshold".split()
FEW = ["--num-particles", "50", "--no-progress"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of digits, and beside it a file of some of which the third is turned inside out."""
    place = tmp_path_factory.mktemp("anomalies")
    assert main(["svi", *SMALL, "--out", str(place / "run")]) == 0
    x = pv.data.load("digits", binarize="none").test.x[:6].clone()
    x[2] = 1 - x[2]
    np.save(place / "new.npy", x.numpy())
    return place


def test_rows_are_judged_by_the_runs_own_test_part(folder, tmp_path, capsys):
    out, new = tmp_path / "odd.csv", str(folder / "new.npy")
    asked = ["anomalies", str(folder / "run"), "--data", new, "--top", "2", *FEW]
    assert main([*asked, "--out", str(out), "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["run"] == str(folder / "run")
    assert result["calibration"] == "digits, test"
    assert result["data"] == f"{new}, all"
    assert result["num_calibration"] == 359
    assert result["flagged"][0]["row"] == 2
    lines = said.err.splitlines()
    table = next(i for i, line in enumerate(lines) if "columns, -log p" in line)
    assert lines[table + 1].split()[0] == "2"
    assert " +- " in lines[table + 1]
    assert lines[table + 3 :] == ["", f"file: {out}"]
    assert out.read_text().splitlines()[0] == HEADER
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["row"] for row in rows] == list("012345")
    assert [row["flagged"] for row in rows] == ["1" if i == 2 else "0" for i in range(6)]

    vae = pv.load(folder / "run")
    splits = pv.data.load("digits", binarize="threshold")
    x = (torch.from_numpy(np.load(new)) > 0.5).float()
    ours = pv.anomalies(
        vae.model, vae.guide, x, calibration=splits.test.x, num_particles=50, seed=0, columns=2
    )
    assert [float(row["score"]) for row in rows] == ours.score.tolist()
    assert out.read_text().splitlines() == ours.to_csv()

    assert main([*asked, "--out", str(out), "--estimator", "importance(30)",
                 "--false-alarms", "0.2"]) == 0  # fmt: skip
    assert "are flagged in the mean; the 359 of this one make it 20.0%" in capsys.readouterr().out


def test_what_is_no_task(folder, tmp_path, capsys):
    run, new = str(folder / "run"), str(folder / "new.npy")

    def told(code, *argv):
        assert main(["anomalies", *map(str, argv)]) == code
        said = capsys.readouterr().err.strip()
        assert len(said.splitlines()) == 1
        return said

    assert "the very data that are to be judged" in told(2, run, "--data", "digits", *FEW)
    few = told(2, run, "--data", "digits", "--calibration", new, *FEW)
    assert "calibration is of 6 data, whose least p-value is 1/7" in few
    assert "is no table of this command" in told(2, run, "--data", new, "--out", new)
    assert "--false-alarms is '2'; give a number above 0 and below 1" in told(
        2, run, "--data", new, "--false-alarms", "2"
    )
    assert "there is no file" in told(3, run, "--data", tmp_path / "none.npy")
    assert "config.yaml" in told(5, tmp_path, "--data", new)
    assert "'elbo' is a bound" in told(2, run, "--data", new, "--estimator", "elbo")
    assert "importance takes num_particles" in told(
        2, run, "--data", new, "--estimator", "importance(particles=3)"
    )


def test_a_file_that_the_run_was_trained_on_calibrates_by_its_test_part(
    tmp_path, capsys, monkeypatch
):
    x = (np.random.default_rng(0).random((150, 9)) < 0.3).astype(np.float32)
    np.save(tmp_path / "mine.npy", x)
    np.save(tmp_path / "new.npy", 1 - x[:5])
    monkeypatch.chdir(tmp_path)
    assert main(["svi", *SMALL, "--data", "mine.npy", "--out", "run"]) == 0
    own = ["--calibration", str(tmp_path / "mine.npy")]
    found = []
    for calibration in ([], own):
        asked = ["run", "--data", "new.npy", *calibration, *FEW, "--json"]
        assert main(["anomalies", *asked]) == 0
        found.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert found[0] == found[1]
    assert found[0]["num_calibration"] == 30


def test_a_table_keeps_its_names(tmp_path, capsys, monkeypatch):
    """Of columns and rows in what is said, of rows in the CSV, in their order."""
    g = np.random.default_rng(0)
    z = g.normal(size=200)
    people = pd.DataFrame(
        {
            "id": [f'p{i}, "x"' for i in range(200)],
            "age": 40 + 9 * z,
            "height": 170 + 5 * z + g.normal(size=200),
            "smokes": np.where(z + g.normal(size=200) > 0, "yes", "no"),
        }
    )
    monkeypatch.chdir(tmp_path)
    people.to_csv("people.csv", index=False)
    (tmp_path / "columns.yaml").write_text("id: index\n")
    new = people.head(4).copy()
    new.loc[2, "height"] = 400.0
    new.to_csv("new.csv", index=False)
    small = [*SMALL[: SMALL.index("--binarize")], "--model", "table-vae", "--out", "run"]
    small += ["--likelihood", "columns(tails='student-t')", "--columns", "columns.yaml"]
    assert main(["svi", *small, "--data", "people.csv"]) == 0
    assert pv.load("run").likelihood.tails == "student-t"
    capsys.readouterr()
    asked = ["run", "--data", "new.csv", "--out", "odd.csv", *FEW, "--json"]
    assert main(["anomalies", *asked]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["flagged"][0]["row"] == 2
    line = next(x for x in said.err.splitlines() if x.startswith('p2, "x"'))
    assert "height: " in line
    rows = list(csv.DictReader((tmp_path / "odd.csv").read_text().splitlines()))
    assert [row["row"] for row in rows] == [f'p{i}, "x"' for i in range(4)]
    assert rows[2]["flagged"] == "1"


def test_help_is_there(capsys):
    assert main(["anomalies", "--help"]) == 0
    assert "python -m pyrovae anomalies runs/a --data new.npy" in capsys.readouterr().out
