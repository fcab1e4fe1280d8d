"""`python -m pyrovae compare`, on two runs and on what is none."""

import json
from dataclasses import replace

import pytest

from pyrovae import runs, storage
from pyrovae.__main__ import main

pytestmark = pytest.mark.usefixtures("float32")
ONE = "--num-epochs 1 --num-particles 20 --estimators elbo importance --no-progress".split()
SMALL = [*ONE, *"--hidden-dims 8 --z-dim 2".split()]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run, and evidence of one whose log P(X) is a nat lower."""
    one, other = (tmp_path_factory.mktemp("compare") / name for name in ("one", "other"))
    assert main(["svi", *SMALL, "--out", str(one)]) == 0
    found = runs.load_evidence(one)
    less = {name: replace(e, value=e.value - 1) for name, e in found.estimates.items()}
    other.mkdir()
    storage.write_dataset(other / runs.EVIDENCE, replace(found, estimates=less).to_xarray())
    return [str(one), str(other)]


def test_two_runs(folders, tmp_path, capsys):
    out = tmp_path / "both"
    assert main(["compare", *folders, "--out", str(out), "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["difference"] == pytest.approx(1)
    assert [result["a"], result["b"]] == folders
    assert result["num_data"] == 359
    assert f"a: {folders[0]}\nb: {folders[1]}" in said.err
    assert "a is better for" in said.err
    names, *rows = (out / "comparison.csv").read_text().splitlines()
    assert names.startswith("datum,difference,")
    assert len(rows) == 359
    assert (out / "comparison.png").stat().st_size > 10_000
    page = (out / "comparison.html").read_text()
    assert "<strong>+1.000</strong> nats per datum" in page
    assert "Which model is better cannot be told: b, not ok for " in page
    assert page.count('<th scope="row">') == 3 + 10 + 10
    assert page.count("src=") == page.count('src="data:') == 1
    again = ["compare", *folders, "--estimator-b", "elbo", "--out", str(out)]
    assert main(again) == 0
    assert "ELBO" in capsys.readouterr().out
    assert (out / "comparison.csv").read_text().splitlines()[1].endswith("a bound")


def test_what_is_no_pair_of_runs(folders, tmp_path, capsys):
    one, other = folders

    def told(code, *argv):
        assert main(["compare", *map(str, argv)]) == code
        said = capsys.readouterr().err.strip()
        assert len(said.splitlines()) == 1
        return said

    assert "is no folder; give that of a run" in told(5, one, tmp_path / "none")
    assert f"python -m pyrovae.evidence {tmp_path} makes it" in told(5, tmp_path, one)
    assert "estimator_a is 'ais'; a has elbo, importance" in told(
        2, one, other, "--estimator-a", "ais"
    )
    (tmp_path / "comparison.csv").touch()  # somebody's own
    assert "does not list it" in told(2, one, other, "--out", tmp_path)
    assert "is one of both runs" in told(2, one, other, "--out", other)
    other_rows = tmp_path / "rows"
    asked = ["--estimators", "elbo", "--num-particles", "5", "--no-progress", "--rows", "0:50"]
    assert main(["evidence", one, *asked, "--out", str(other_rows)]) == 0
    capsys.readouterr()
    assert "a is of 359 data and b of 50" in told(2, one, other_rows)


def test_help_is_there(capsys):
    assert main(["compare", "--help"]) == 0
    assert "python -m pyrovae compare runs/a runs/b" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "  compare   which of two runs" in capsys.readouterr().out
