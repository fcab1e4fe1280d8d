"""Tables: what columns are taken for, their numbers and back, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.__main__ import main
from pyrovae.data.tables import TableFile, coded, decoded
from pyrovae.errors import DataError


def people(n=120, seed=0):
    """Rows of all kinds, a tenth of the values missing, with names of their own."""
    g = np.random.default_rng(seed)
    z = g.normal(size=n)
    frame = pd.DataFrame(
        {
            "height": 170 + 10 * z + g.normal(size=n),
            "income": np.exp(7 + z + g.normal(size=n) / 4),
            "visits": g.poisson(np.exp(3 + z / 2)),
            "smokes": np.where(z + g.normal(size=n) > 0, "yes", "no"),
            "rooms": np.clip(np.round(3 + z), 1, 6).astype(int),
            "city": g.choice(["Bern", "Oslo", "Rome"], n),
            "change": np.round(30 * z) - 5,
        },
        index=pd.Index([f"p{i}" for i in range(n)], name="who"),
    )
    return frame.mask(g.random(frame.shape) < 0.1)


KINDS = {
    "height": "positive",
    "income": "positive",
    "visits": "count",
    "smokes": "binary",
    "rooms": "ordinal",
    "city": "categorical",
    "change": "real",
}


def test_kinds_are_guessed_of_types_and_values():
    found = {c.name: c for c in TableFile(people(), {"height": "positive"}).columns}
    assert {n: c.kind for n, c in found.items()} == KINDS
    assert found["city"].classes == ("Bern", "Oslo", "Rome")
    assert found["rooms"].classes == (1, 2, 3, 4, 5)
    assert found["smokes"].classes == ("no", "yes")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False, None, True], "binary"),
        ([0.5, 2.5, 0.5, None], "binary"),
        ([3, 1, 2, 2], "ordinal"),
        (list(range(30)), "count"),
        ([-3, *range(30)], "real"),
        (np.random.default_rng(0).normal(size=50), "real"),
        (np.random.default_rng(0).normal(size=50) + 100, "real"),
        (np.exp(2 * np.random.default_rng(0).normal(size=50)), "positive"),
        (pd.Categorical(["m", "s", "l"], ["s", "m", "l"], ordered=True), "ordinal"),
        (pd.Categorical(["m", "s", "l"]), "categorical"),
        (pd.array([1, 2, None, 3], dtype="Int64"), "ordinal"),
    ],
)
def test_a_kind_is_guessed(values, kind):
    (column,) = TableFile(pd.DataFrame({"a": values})).columns
    assert column.kind == kind


def test_an_ordered_column_keeps_its_order():
    frame = pd.DataFrame({"size": pd.Categorical(["m", "s", "l"], ["s", "m", "l"], ordered=True)})
    table = TableFile(frame)
    assert table.columns[0].classes == ("s", "m", "l")
    assert table.rows.x[:, 0].tolist() == [1, 0, 2]
    said = {"size": {"kind": "ordinal", "classes": ["l", "m", "s"]}}
    assert TableFile(frame, said).rows.x[:, 0].tolist() == [1, 2, 0]


def test_numbers_and_back_are_the_table():
    frame = people()
    table = TableFile(frame)
    x = table.rows.x
    assert torch.equal(x.isnan(), torch.tensor(frame.isna().to_numpy()))
    again = decoded(x, table.columns, table.index)
    pd.testing.assert_index_equal(again.index, frame.index)
    for name in frame:
        kept = frame[name].notna()
        assert (again[name].notna() == kept).all()
        if KINDS[name] in ("positive", "real"):
            np.testing.assert_allclose(again[name][kept], frame[name][kept], rtol=1e-6)
        else:
            assert again[name][kept].tolist() == frame[name][kept].tolist()


def test_what_is_set_aside_is_no_part_of_x():
    frame = people().reset_index()
    frame["kind"] = np.where(np.arange(len(frame)) % 3, "old", "new")
    frame["notes"] = [f"see {i}" for i in range(len(frame))]
    table = TableFile(frame, {"who": "index", "kind": "label", "notes": "ignore"})
    assert [c.name for c in table.columns] == list(KINDS)
    assert table.index.tolist() == frame["who"].tolist()
    assert table.labels == ("new", "old")
    assert table.rows.y[:4].tolist() == [0, 1, 1, 0]
    few = TableFile(frame, {"*": "ignore", "visits": "count", "gone": "label"})
    assert [c.name for c in few.columns] == ["visits"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([None, None, None], "column 'a' has no value at all; say a: ignore"),
        ([3, 3, None], "column 'a' is 3 in all rows; say a: ignore"),
        (
            ["2020-01-03", "2021-04-05", "2022-05-06"],
            "column 'a' holds dates, such as '2020-01-03'",
        ),
        (pd.to_datetime(["2020-01-03", "2021-04-05"]), "column 'a' holds dates; give a number"),
        ([f"text {c}" for c in map(chr, range(97, 160))], "column 'a' holds 63 different texts"),
        ([1.5, np.inf, 2.5], "column 'a' is real and holds inf"),
        (
            [16777216.0 + i / 100 for i in range(50)],
            "does not tell apart; subtract what is common",
        ),
    ],
)
def test_columns_that_no_model_has(values, sentence):
    with pytest.raises(DataError, match=sentence) as error:
        TableFile(pd.DataFrame({"a": values}))
    assert "\n" not in str(error.value)


def test_all_such_columns_are_named_at_once():
    frame = people().assign(one=1, none=None)
    with pytest.raises(DataError, match="'one' is 1 in all rows.*; column 'none' has no value"):
        TableFile(frame)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"hieght": "real"}, r"has no column 'hieght'; it has \['height', "),
        ({"height": "reel"}, "is said to be 'reel'; choose of real, positive"),
        ({"city": "count"}, "column 'city' is said to be count and holds '"),
        ({"change": "positive"}, "column 'change' is positive and holds -"),
        ({"height": "count"}, "column 'height' is count and holds 1"),
        ({"height": "index", "city": "index"}, "index is said of height, city; take one"),
        ({"city": {"kind": "categorical", "classes": ["Bern", "Oslo"]}}, "'Rome' in row"),
        ({"*": "ignore"}, "the table has no column to model"),
    ],
)
def test_what_is_said_and_does_not_fit(said, sentence):
    with pytest.raises(DataError, match=sentence):
        TableFile(people(), said)


def test_a_class_never_seen_and_a_column_that_is_gone():
    table = TableFile(people())
    new = people().astype({"city": object})
    new.loc["p7", "city"] = "Paris"
    with pytest.raises(
        DataError, match="column 'city' is 'Paris' in row 7 of new.csv, and is known"
    ):
        coded(new, table.columns, "new.csv")
    with pytest.raises(DataError, match="new.csv has no column 'city'"):
        coded(new.drop(columns="city"), table.columns, "new.csv")


def test_a_table_is_loaded_with_its_record(tmp_path):
    people().to_csv(tmp_path / "people.csv")
    splits = pv.data.load(str(tmp_path / "people.csv"), columns={"who": "index"})
    assert [c.name for c in splits.columns] == list(KINDS)
    assert splits.protocol["columns"].startswith("height ")
    assert splits.protocol["binarize"] == "none"
    assert len(splits.train) == 72
    vae = pv.VAE.for_data(splits, z_dim=2, hidden_dims=(8,))
    assert vae.likelihood.mask
    with pytest.raises(ValueError, match="a table's columns are what they are"):
        pv.data.load(people(), binarize="dynamic")
    with pytest.raises(ValueError, match="columns are of a table"):
        pv.data.load("digits", columns={"a": "real"})


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(DataError, match=r"gone.csv cannot be read as a table"):
        pv.data.load(str(tmp_path / "gone.csv"))
    (tmp_path / "empty.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="holds no rows"):
        pv.data.load(str(tmp_path / "empty.csv"))
    (tmp_path / "twice.csv").write_text('a,b\n1,2\n1,2,3,4\n"')
    with pytest.raises(DataError, match="cannot be read as a table"):
        pv.data.load(str(tmp_path / "twice.csv"))


@pytest.mark.usefixtures("float32")
def test_a_run_of_a_table_reads_others_as_its_own(tmp_path, monkeypatch, capsys):
    """Fitted, evaluated on rows that have other values, other columns, and gaps."""
    monkeypatch.chdir(tmp_path)
    people(200).assign(notes="x").to_csv("people.csv")
    (tmp_path / "columns.yaml").write_text("who: index\nnotes: ignore\nvisits: count\n")
    words = "svi --data people.csv --columns columns.yaml --z-dim 2 --hidden-dims 8 -n 3 --out run"
    words += " --estimators importance --num-particles 50 --json"
    assert main(words.split()) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "rooms ordinal" in found["protocol"]["columns"]
    assert "likelihood: columns" in (tmp_path / "run" / "config.yaml").read_text()
    new = people(30, seed=1)
    new = new[new["rooms"].isna() | (new["rooms"] < 4)].assign(
        more=3
    )  # would be guessed otherwise
    new.to_csv("new.csv")
    again = "evidence run --data new.csv --estimators importance --num-particles 50 --json"
    assert main(again.split()) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["protocol"]["rows_available"] == len(new)
    own = "evidence run --estimators importance --num-particles 50 --json"
    assert main(own.split()) == 0
    turned = new[new.columns[::-1]].assign(visits=np.nan)
    new.assign(visits=np.nan).to_csv("straight.csv")
    turned.to_csv("turned.csv")
    found = []
    for name in ("straight", "turned"):
        words = f"evidence run --data {name}.csv --out {name} --estimators importance"
        assert main([*words.split(), "--num-particles", "50"]) == 0
        found.append((tmp_path / name / "evidence.csv").read_text())
    assert found[0] == found[1]
    new.drop(columns="city").to_csv("less.csv")
    capsys.readouterr()
    assert main("evidence run --data less.csv".split()) == 3
    assert "less.csv has no column 'city'" in capsys.readouterr().err
