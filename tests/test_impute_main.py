"""python -m pyrovae impute and regress: what is missing in files; all else stays."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
from test_tables import people

import pyrovae as pv
from pyrovae.__main__ import main
from pyrovae.data.tables import TableFile

pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a table, hardly trained, and the table with gaps."""
    folder = tmp_path_factory.mktemp("impute")
    frame = people(150).reset_index().assign(notes="a, b")
    frame.to_csv(folder / "holes.csv", index=False)
    said = {"who": "index", "notes": "ignore"}
    (folder / "columns.yaml").write_text("who: index\nnotes: ignore\n")
    words = f"svi --data {folder}/holes.csv --columns {folder}/columns.yaml --model table-vae"
    words += f" --model.z_dim 2 -n 20 --batch-size 128 --lr 0.01 --out {folder}/run"
    assert main([*words.split(), "--estimators", "elbo", "--num-particles", "20"]) == 0
    return folder, frame, TableFile(frame, said)


def test_a_table_without_gaps_is_the_same_elsewhere(run, capsys):
    folder, frame, table = run
    words = f"impute {folder}/run --data {folder}/holes.csv --out {folder}/whole.csv"
    words += f" --gaps {folder}/gaps.csv --draws {folder}/many.csv --num-particles 50"
    words += " --num-temperatures 0"
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    count = int(frame.drop(columns=["who"]).isna().sum().sum())
    assert out.startswith(f"{count} gaps in ")
    holes, whole = (pd.read_csv(folder / f) for f in ("holes.csv", "whole.csv"))
    assert list(whole.columns) == list(holes.columns)
    assert not whole.isna().any().any()
    for name in holes:
        kept = holes[name].notna()
        assert whole[name][kept].tolist() == holes[name][kept].tolist()
    assert set(whole["city"]) == {"Bern", "Oslo", "Rome"}
    assert (whole["visits"] % 1 == 0).all()
    model = pv.load(folder / "run")
    some = table.rows.x.isnan().any(1)
    filled = pv.impute(
        *(model.model, model.guide, table.rows.x[some]),
        **{"num_draws": 20, "num_particles": 50, "num_temperatures": 0, "seed": 0},
    )
    height = [c.name for c in table.columns].index("height")
    ours = whole["height"][some.numpy()].to_numpy()
    np.testing.assert_allclose(ours, filled.mean[:, height].numpy(), rtol=1e-5)
    gaps = pd.read_csv(folder / "gaps.csv")
    assert len(gaps) == count
    first = gaps[gaps.column == "height"].iloc[0]
    low, value, high = (float(first[n]) for n in ("low", "value", "high"))
    assert low < value < high
    assert whole["height"][first.row] == pytest.approx(value, rel=1e-6)
    assert gaps[gaps.column == "city"].low.isna().all()
    many = pd.read_csv(folder / "many.csv")
    assert list(many.columns) == ["draw", *holes.columns]
    assert len(many) == 20 * len(holes)
    assert many[many.draw == 3]["notes"].tolist() == ["a, b"] * len(holes)
    assert main(words.split()) == 2
    assert "whole.csv is there already; name another, or add --over" in capsys.readouterr().err


def test_parquet_goes_in_and_out(run):
    """The same table in both formats has the same rows, and the same values in its gaps."""
    folder, frame, table = run
    frame.to_parquet(folder / "holes.parquet", index=False)
    said = {"who": "index", "notes": "ignore"}
    parts = [pv.data.load(folder / f"holes.{k}", columns=said).train.x for k in ("csv", "parquet")]
    torch.testing.assert_close(*parts, rtol=0, atol=0, equal_nan=True)
    for kind in ("csv", "parquet"):
        words = f"impute {folder}/run --data {folder}/holes.{kind} --out {folder}/out.{kind}"
        words += " --num-particles 50 --num-temperatures 0 --overwrite"
        assert main(words.split()) == 0
    found = pd.read_parquet(folder / "out.parquet")
    assert not found.isna().any(axis=None)
    pd.testing.assert_frame_equal(
        found, pd.read_csv(folder / "out.csv"), check_dtype=False, rtol=1e-6
    )


def test_what_stood_there_stays_to_the_letter(run):
    """Cells that a parser takes for others: zeros in front, "NA" as a name, 2.50, 3 as 3.0."""
    folder, frame, _ = run
    few = frame.head(12).copy()
    few["notes"] = [f"00{i}, NA" for i in range(12)]
    few["code"] = ["007", "NA", "", "2.50"] * 3
    few["rooms"] = few["rooms"].astype("Int64")
    few.to_csv(folder / "few.csv", index=False)
    words = f"impute {folder}/run --data {folder}/few.csv --out {folder}/few_whole.csv"
    assert main([*words.split(), "--num-particles", "20", "--num-temperatures", "0"]) == 0
    files = (folder / name for name in ("few.csv", "few_whole.csv"))
    before, after = (list(csv.reader(file.read_text().splitlines())) for file in files)
    aside = [before[0].index(name) for name in ("who", "notes", "code")]
    for old, new in zip(before, after, strict=True):
        for place, (a, b) in enumerate(zip(old, new, strict=True)):
            assert a == b or (a == "" and b and place not in aside)
    assert all(line[before[0].index("rooms")] in "123456" for line in after[1:])


def test_grey_values_stay_grey_where_the_model_is_given_draws(run):
    folder, _, _ = run
    x = np.random.default_rng(0).random((60, 4)).astype(np.float32)
    x[::3, 1] = np.nan
    np.save(folder / "grey.npy", x)
    words = f"svi --data {folder}/grey.npy --z-dim 2 --hidden-dims 4 -n 2 --out {folder}/binary"
    assert main([*words.split(), "--estimators", "elbo", "--num-particles", "20"]) == 0
    words = f"impute {folder}/binary --data {folder}/grey.npy --out {folder}/grey_whole.npy"
    assert main([*words.split(), "--num-particles", "20", "--num-temperatures", "0"]) == 0
    whole, seen = np.load(folder / "grey_whole.npy"), ~np.isnan(x)
    assert (whole[seen] == x[seen]).all()
    assert ((whole[~seen] > 0) & (whole[~seen] < 1)).all()


def test_an_array_without_gaps(run):
    folder, _, _ = run
    x = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    np.save(folder / "x.npy", x)
    words = f"svi --data {folder}/x.npy --model table-vae --model.z_dim 2 -n 3"
    words += f" --out {folder}/arrays --estimators elbo --num-particles 20"
    assert main(words.split()) == 0
    words = f"impute {folder}/arrays --data {folder}/x.npy --out {folder}/whole.npy --num-draws 3"
    words += f" --draws {folder}/many.npy --num-particles 20 --num-temperatures 0"
    assert main(words.split()) == 0
    whole, many = np.load(folder / "whole.npy"), np.load(folder / "many.npy")
    seen = ~np.isnan(x)
    assert (whole[seen] == x[seen]).all()
    assert not np.isnan(whole).any()
    assert many.shape == (3, 80, 4)
    assert (many[:, seen] == x[seen]).all()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--out whole.npy", "--out whole.npy is no table, .csv or .parquet"),
        ("--out a.csv --gaps a.csv", "a.csv is named twice"),
        ("--out a.csv --gaps ./a.csv", "a.csv is named twice"),
        ("--out a.csv --gaps b.txt", "--gaps b.txt is no table"),
        ("--out a.csv --gaps b.csv --prob 0.95", "--prob 0.95 needs more draws; add --num-draws"),
    ],
)
def test_what_cannot_be(run, words, sentence, capsys, monkeypatch, tmp_path):
    folder, _, _ = run
    monkeypatch.chdir(tmp_path)
    assert main(f"impute {folder}/run --data {folder}/holes.csv {words}".split()) == 2
    assert sentence in capsys.readouterr().err


def test_a_table_without_any(run, capsys):
    folder, frame, _ = run
    frame.dropna().to_csv(folder / "full.csv", index=False)
    words = f"impute {folder}/run --data {folder}/full.csv --out {folder}/none.csv"
    assert main(words.split()) == 3
    assert "full.csv has no gaps, which leaves nothing to fill in" in capsys.readouterr().err
    assert not (folder / "none.csv").exists()
    assert torch.is_grad_enabled()


def test_a_column_of_numbers_is_predicted(run, capsys):
    folder, frame, table = run
    frame.to_csv(folder / "others.csv", index=False)
    words = f"regress {folder}/run --data {folder}/others.csv --num-temperatures 0"
    words += f" --num-particles 50 --column height --out {folder}/heights.csv"
    assert main([*words.split(), "--prob", "0.8"]) == 0
    said = capsys.readouterr().out
    table = pd.read_csv(folder / "heights.csv")
    assert table.columns[-2:].tolist() == ["truth", "crps"]
    assert table["row"].tolist() == frame["who"].tolist()
    np.testing.assert_allclose(table.truth, frame.height, rtol=1e-6)
    inside = (table.low <= table.truth) & (table.truth <= table.high)
    known = table.truth.notna()
    assert f"{inside[known].mean():.1%} lie in their 80% intervals" in said
    assert f"Of {known.sum():,} the truth is known" in said
    rmse = (table.value - table.truth)[known].pow(2).mean() ** 0.5
    assert f"RMSE {rmse:.4g}" in said
    assert main(words.split()) == 2
    assert "is there already" in capsys.readouterr().err
    frame.drop(columns="height").to_csv(folder / "unseen.csv", index=False)
    assert main([*words.replace("others.csv", "unseen.csv").split(), "--overwrite"]) == 0
    assert "the truth" not in capsys.readouterr().out
    again = pd.read_csv(folder / "heights.csv")
    assert again.columns[-1] == "verdict"
    np.testing.assert_allclose(again.value, table.value, rtol=1e-6)
    assert main([*words.split(), "--overwrite", "--rows", "3:30:9"]) == 0
    assert f"{len(range(3, 30, 9))} numbers predicted" in capsys.readouterr().out
    some = pd.read_csv(folder / "heights.csv")
    assert some["row"].tolist() == frame["who"][3:30:9].tolist()
    np.testing.assert_allclose(some.truth, frame.height[3:30:9], rtol=1e-6)
    refused = {"city": "city is categorical, which is no number", "age": "no column 'age'"}
    for name, told in refused.items():
        other = words.replace("--column height", f"--column {name}")
        assert main([*other.split(), "--overwrite"]) == 2
        assert told in capsys.readouterr().err
    words = f"regress {folder}/run --column height --num-particles 20 --json --num-temperatures 0"
    assert main([*words.split(), "--data", f"{folder}/holes.csv"]) == 0
    own = capsys.readouterr()
    assert json.loads(own.out)["num_data"] == 30
    assert "holes.csv, test" in own.err
