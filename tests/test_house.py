"""The walls of the house: what may import what, what is light, what is never called."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pyrovae

ROOT = Path(pyrovae.__file__).parent
ROWS = [
    {"rows", "errors", "checks", "digest", "progress"},
    {"arrays", "binarization", "splits", "threads"},
    {"rng", "precision", "nn", "likelihoods", "data", "diagnostics", "storage", "evidence.hmc"},
    {"evidence.weights", "program", "models", "folder"},
    {"evidence.proposals", "evidence.tally"},
    {"evidence.drawing", "evidence.search"},
    {"evidence.importance", "evidence.annealing", "evidence.quadrature"},
    {"svi", "export", "plots", "saving", "evidence.calibration", "evidence.blocks"},
    {"evidence.confirmation"},
    {"evidence.estimate"},
    {"evidence.results"},
    {"evidence.planning"},
    {"evidence.evaluate"},
    {"runs", "evidence.cost"},
    {"report.words"},
    {"report", "report.page", "resuming"},
    {"options", "users"},
    {"commands"},
    {"model_options"},
    {"svi.__main__", "evidence.__main__", "report.__main__"},
    {"__main__"},
]
SHOPS = {"", "svi", "evidence", "report"}  # __init__ files that only hand out names
MODULES = {
    path: ".".join(path.relative_to(ROOT).with_suffix("").parts)
    .removesuffix("__init__")
    .strip(".")
    for path in sorted(ROOT.rglob("*.py"))
}


def imports(path):
    """Every module that a file imports, wherever in it, with the names taken from it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def row(name):
    """The row of a dotted name below pyrovae; None for one that is no module."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        for number, modules in enumerate(ROWS):
            if ".".join(parts[:i]) in modules:
                return number
    return None


@pytest.mark.parametrize("path", MODULES, ids=MODULES.values())
def test_imports_point_down(path):
    name = MODULES[path]
    if name in SHOPS:
        assert not [i for i in imports(path) if i.startswith("pyrovae")]
        return
    own = row(name)
    assert own is not None, f"{name} stands in no row"
    for imported in (
        i.removeprefix("pyrovae.") for i in imports(path) if i.startswith("pyrovae.")
    ):
        if name.split(".")[0] not in ("models", "program", "svi", "plots") or row(imported) != own:
            below = row(imported)
            assert below is not None, f"{imported} stands in no row"
            assert below < own, f"{name} (row {own}) imports {imported} (row {below})"


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("pyro.poutine", {"program"}),
        ("arviz", {"diagnostics", "export"}),
        ("xarray", {"diagnostics", "export"}),
        ("matplotlib", {"plots"}),
        ("safetensors", {"storage"}),
        ("torchvision", {"data"}),
        ("pickle", set()),
    ],
)
def test_only_one_home(library, homes):
    for path, name in MODULES.items():
        if name.split(".")[0] not in homes:
            assert not [i for i in imports(path) if i.startswith(library)], name
            assert library != "pyro.poutine" or library not in path.read_text(), name


def test_models_are_not_for_estimators():
    for path, name in MODULES.items():
        if name.startswith(("evidence", "svi.fitting", "program")):
            assert not [i for i in imports(path) if i.startswith("pyrovae.models")], name


def test_nothing_that_unpickles_is_called():
    """ParamStore.load, PyroOptim.load and torch.load can run code from a crafted file."""
    for path, name in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                call = ast.unparse(node.func)
                assert not call.endswith(("param_store().load", "optim.load", "torch.load")), name
                if call == "np.load":
                    assert "allow_pickle=False" in ast.unparse(node), name


def test_import_is_light():
    heavy = "torch pyro matplotlib arviz sklearn torchvision xarray scipy jsonargparse".split()
    code = f"import sys, pyrovae; print([m for m in {heavy} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "command", ["pyrovae", "pyrovae.svi", "pyrovae.evidence", "pyrovae.report"]
)
def test_help_is_light(command):
    arguments = [sys.executable, "-X", "importtime", "-m", command, "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0
    modules = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert not modules & {"torch", "pyro", "matplotlib", "arviz", "sklearn", "joblib", "xarray"}


def test_import_sets_nothing_global():
    code = """
import logging, random, warnings
import numpy, torch, pyro
def state():
    return (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.get_float32_matmul_precision(), torch.distributions.Distribution._validate_args,
            pyro.infer.util.is_validation_enabled(), logging.getLogger().handlers,
            torch.get_rng_state().tolist(), random.getstate(),
            numpy.random.get_state()[1].tolist())
before = state()
import pyrovae as pv
for name in pv.__all__: getattr(pv, name)
assert state() == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_module_is_long():
    for path, name in MODULES.items():
        code = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(code) < 350, f"{name} has {len(code)} lines; split it"
