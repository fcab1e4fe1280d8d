"""`python -m pyrovae order` and `generate`, on a run of a table with classes of rows."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.__main__ import main
from pyrovae.data.tables import decoded

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
    smokes = np.where(z > 0.5, "yes", "no")
    people = pd.DataFrame({"id": names, "age": 40 + 9 * z, "height": height, "smokes": smokes})
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


def test_another_order_is_compared_with(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    asked = ["order", "run", "--data", "new.csv", "--rows", "1:8", *FEW, "--against", "hidden.npy"]
    vae = pv.load("run")
    x = pv.data.load_rows("new.csv", columns=pv.runs.read_run("run").columns)[0].x[1:]
    ours = pv.order(vae.model, vae.guide, x, estimator=pv.Importance(50), seed=0)
    hidden = np.array([0.5, *(-ours.value.numpy())])
    hidden[2] = hidden[1:].min() - 1  # one is out of order, unless it was the highest
    np.save("hidden.npy", hidden.astype(np.float32))
    assert main([*asked, "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["spearman"] == pytest.approx(ours.spearman(hidden[1:]))
    assert found["kendall"] == pytest.approx(ours.kendall(hidden[1:]))
    assert found["spearman"] < 0
    assert f"hidden.npy is {found['spearman']:.3f}, Kendall's tau-b" in said.err
    np.save("hidden.npy", hidden[1:])
    assert main(asked) == 3
    assert "hidden.npy is of shape (7,); give a number of each of the 8 rows" in (
        capsys.readouterr().err
    )


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
    assert main(["generate", "--help"]) == 0
    assert "python -m pyrovae generate runs/a --y 3 --out threes.npy" in capsys.readouterr().out
    assert main(["order", "--help"]) == 0
    assert "python -m pyrovae order runs/a --out order.csv" in capsys.readouterr().out


def test_more_rows_are_made_as_the_table_has_them(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    asked = "generate run --num-data 30 --out made.csv --nearest rows.csv --overwrite".split()
    assert main([*asked, "--json"]) == 0
    said = capsys.readouterr()
    run = pv.runs.read_run("run")
    train = run.splits().train.x[:]
    ours = pv.generate(run.model, 30, train=train, seed=0)
    made = pd.read_csv("made.csv")
    pd.testing.assert_frame_equal(made, decoded(ours.x, run.table), check_dtype=False)
    assert set(made["smokes"]) <= {"no", "yes"}
    beside = pd.read_csv("rows.csv")
    assert list(beside) == ["age", "height", "smokes", "distance", "p_value"]
    people = pd.read_csv("people.csv").drop(columns="id")
    assert len(people.merge(beside.round(4), on=["smokes"])) > 0
    assert beside["age"].isin(people["age"].astype("float32").astype(str).astype(float)).all()
    np.testing.assert_allclose(beside["p_value"], ours.p_value)
    summary = json.loads(said.out)
    assert summary["num_copies"] == 0
    assert summary["two_sample"]["auc"] == ours.two_sample(run.splits().test.x[:]).auc
    assert "30 made and 20 real data" in said.err
    assert said.err.splitlines()[-1] == "file: made.csv"

    assert main("generate run --near new.csv --rows 2 --num-data 3 --out near.csv".split()) == 0
    assert capsys.readouterr().out.startswith("6 data were made.")
    assert len(pd.read_csv("near.csv")) == 6
    assert main("generate run --num-data 5 --out few.csv".split()) == 0
    assert "No two-sample test: 5 made data are too few" in capsys.readouterr().out


def test_of_a_class_are_made_by_a_model_that_takes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    y = np.arange(240) % 3
    x = np.random.default_rng(0).random((240, 6), dtype=np.float32) * (1 + y[:, None]) / 3
    np.savez("mine.npz", x=x, y=y)
    small = "svi --model cvae --num-epochs 1 --z-dim 1 --hidden-dims 3 --estimators elbo".split()
    small += "--data mine.npz --num-particles 5 --no-progress --out run".split()  # binary
    assert main(small) == 0
    asked = "generate run --y 1 --num-data 40 --out ones.npy --nearest beside.npy".split()
    assert main(asked) == 0
    ones, beside = np.load("ones.npy"), np.load("beside.npy")
    assert ones.shape == beside.shape == (40, 6)
    assert set(np.unique(beside)) == {0, 1}  # drawn, as in training
    assert np.array_equal(ones, pv.load("run").generate(torch.ones(40), seed=0).numpy())
    number = int((pv.runs.read_run("run").splits().test.y == 1).sum())
    said = capsys.readouterr().out
    assert f"No two-sample test: {number} real data are too few" in said

    def told(*argv):
        assert main(["generate", "run", *argv]) == 2
        return capsys.readouterr().err

    assert "y holds 3, and no training row is of that" in told("--y", "3", "--out", "x.npy")
    assert "CVAE makes data on a condition alone; give y" in told("--out", "x.npy")
    assert "x.csv is no .npy; name one" in told("--y", "1", "--out", "x.csv")
    assert "ones.npy is there already" in told("--y", "1", "--out", "ones.npy")
    assert "is named twice" in told("--y", "1", "--out", "x.npy", "--nearest", "x.npy")
