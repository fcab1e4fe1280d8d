"""The script that writes docs/family.md: what it counts, and that it runs."""

import importlib
from pathlib import Path

import pytest
import torch

from pyrovae.latents.summary import Codes


@pytest.fixture
def family(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "benchmarks"))
    return importlib.import_module("family")


def test_active_units_are_those_whose_mean_varies(family):
    """Errors of the means add to their variance, 1, 0.04, 0.0025 and 0; a class has no mean."""
    torch.manual_seed(0)
    mean = torch.randn(500, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0]) + 0.14 * torch.randn(500, 4)
    classes = torch.full((500, 3), torch.nan)
    assert family.units([codes(mean, 0.14), codes(classes)]) == {"active": 2, "units": 4}


def codes(mean, error=0.0):
    return Codes(mean, mean, torch.full_like(mean, error), mean, torch.ones(mean.shape[1]))


def test_differences_are_paired_and_know_of_training_noise(family):
    def runs(*values):
        return [family.Result(list(v), error=0.03, elbo=-9.0, units=4) for v in values]

    plain, other = runs((-3.0, -5.0), (-3.2, -5.2)), runs((-2.0, -4.0), (-2.0, -4.0))
    found = {"VAE": plain, "VAE, full Q": other}
    rows = [family.line(label, r, plain) for label, r in found.items()]
    numbers = dict(zip(family.HEAD, rows[1], strict=True))
    assert numbers["log P(X)"] == "-3.000"
    assert numbers["MC s.e."] == "0.0212"  # 0.03 / sqrt(2)
    assert numbers["data s.e."] == "1.000"
    assert numbers["beyond the VAE"] == "+1.100 +- 0.100"  # 0.1414 / sqrt(2); the data agree
    assert rows[0][family.HEAD.index("beyond the VAE")] == "-"
    assert family.cell(found, "normal", "full") == "-3.000 (-9.000)"
    assert family.cell(found, "vamp", "full") == "-"


@pytest.mark.slow
def test_it_runs(family, tmp_path):
    arguments = "--only HierarchicalVAE --seeds 1 --epochs 1 --rows 6 --workers 1"
    for _ in range(2):  # the second time from what is kept
        paths = ["--out", str(tmp_path / "page.md"), "--keep", str(tmp_path / "kept")]
        family.main([*arguments.split(), *paths])
    assert len((tmp_path / "kept").read_text().splitlines()) == 2
    page = (tmp_path / "page.md").read_text()
    for direction in ("ladder", "bottom-up"):
        [row] = [k for k in page.splitlines() if k.startswith(f"| HierarchicalVAE, {direction}")]
        assert -60 < float(row.split("|")[2]) < -20
