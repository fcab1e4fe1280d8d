"""`python -m pyrovae order`, on a run of a table, of its own data and others."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pyrovae as pv
from pyrovae.__main__ import main

pytestmark = pytest.mark.usefixtures("float32")
SMALL = "--num-epochs 3 --num-particles 20 --estimators elbo --no-progress --z-dim 2".split()
SMALL += "--hidden-dims 4 --model table-vae --columns columns.yaml --data people.csv".split()
FEW = ["--estimator", "importance(50)", "--no-progress"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of a table, and beside it a file of its first rows."""
    place = tmp_path_factory.mktemp("order")
    z = np.random.default_rng(0).normal(size=100)
    height = 170 + 5 * z + np.random.default_rng(1).normal(size=100)
    names = [f"p{i}" for i in range(100)]
    people = pd.DataFrame({"id": names, "age": 40 + 9 * z, "height": height})
    people.to_csv(place / "people.csv", index=False)
    people.head(8).to_csv(place / "new.csv", index=False)
    (place / "columns.yaml").write_text("id: index\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["svi", *SMALL, "--out", "run"]) == 0
    return place


def test_rows_stand_in_their_order_under_their_names(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    asked = ["order", "run", "--data", "new.csv", "--out", "order.csv", "--rows", "1:8", *FEW]
    assert main([*asked, "--json"]) == 0
    said = capsys.readouterr()
    vae = pv.load("run")
    x = pv.data.load_rows("new.csv", columns=pv.runs.read_run("run").columns)[0].x[1:]
    ours = pv.order(vae.model, vae.guide, x, estimator=pv.Importance(50), seed=0)
    names = [f"p{i}" for i in range(1, 8)]
    assert Path("order.csv").read_text().splitlines() == ours.to_csv(names)
    assert json.loads(said.out)["order"] == [names[i] for i in ours.order.tolist()]
    assert json.loads(said.out)["data"] == "new.csv, all"
    assert said.err.splitlines()[-1] == "file: order.csv"

    along = ["--along", "1", "--num-particles", "50", "--no-progress"]
    assert main([*asked[: -len(FEW)], *along]) == 0  # over its own table
    assert "data: new.csv, all\n\n7 data by E[z[1]|X], from " in capsys.readouterr().out
    ours = pv.order(vae.model, vae.guide, x, along=1, num_particles=50, seed=0)
    assert Path("order.csv").read_text().splitlines() == ours.to_csv(names)


def test_what_is_no_task(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)

    def told(code, *argv):
        assert main(["order", *argv]) == code
        said = capsys.readouterr().err.strip()
        assert len(said.splitlines()) == 1
        return said

    assert "along is 2; give 'log_p'" in told(2, "run", "--along", "2")
    assert "along is -1; give 'log_p'" in told(2, "run", "--along", "-1")
    assert "along is 'age'; give 'log_p'" in told(2, "run", "--along", "age")
    assert "--workers are of log P(x)" in told(2, "run", "--along", "0", "--workers", "2")
    assert "is no table of this command" in told(2, "run", "--out", "new.csv")
    assert "'elbo' is a bound" in told(2, "run", "--estimator", "elbo")
    assert "there is no model.safetensors" in told(5, str(folder))


def test_help_is_there(capsys):
    assert main(["order", "--help"]) == 0
    assert "python -m pyrovae order runs/a --out order.csv" in capsys.readouterr().out
