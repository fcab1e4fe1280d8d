"""The walls of the house: what may import what, what is light, what is never called."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyrovae
from pyrovae import report

ROOT = Path(pyrovae.__file__).parent
ROWS = [
    {"rows", "errors", "checks", "digest", "progress"},
    {"arrays", "binarization", "splits", "threads"},
    {"rng", "precision", "nn", "likelihoods", "data", "diagnostics", "storage", "evidence.hmc"},
    {"evidence.weights", "program", "models", "folder"},
    {"evidence.proposals", "evidence.tally"},
    {"evidence.drawing", "evidence.search"},
    {"evidence.importance", "evidence.annealing", "evidence.quadrature"},
    {"svi", "export", "plots", "saving", "evidence.calibration"},
    {"evidence.confirmation"},
    {"evidence.estimators.base"},
    {"evidence.estimators.importance"},
    {"evidence.estimators"},
    {"evidence.estimate", "evidence.blocks"},
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
SHOPS = {
    "",
    "svi",
    "evidence",
    "evidence.estimators",
    "report",
}  # __init__ files that only hand out names
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


def typed(path):
    """Every name that a file imports for type checkers alone."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom), path
                yield from (f"{line.module}.{alias.name}" for alias in line.names)


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
        loaded = set(imports(path)) - set(typed(path))
        assert not [i for i in loaded if i.startswith("pyrovae")]
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


def test_names_are_typed_as_they_are_loaded():
    """Type checkers read other lines than Python does."""
    assert set(typed(ROOT / "__init__.py")) == {
        *(f"pyrovae.{name}" for name in pyrovae._MODULES),
        *(f"pyrovae.{module}.{name}" for name, module in pyrovae._NAMES.items()),
    }
    for package in (pyrovae.svi, report):
        names = {name.rpartition(".")[2] for name in typed(Path(package.__file__))}
        assert names == set(package.__all__)


def test_models_are_there_without_their_import():
    code = "import pyrovae as pv; pv.models.vae.VAE; pv.models.linear.LinearGaussian"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


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


def test_exceptions_have_one_home():
    for path, name in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and name != "errors":
                bases = {ast.unparse(base).split(".")[-1] for base in node.bases}
                kinds = {b for b in bases if b.endswith(("Error", "Exception", "Warning"))}
                assert not kinds, f"{name}.{node.name} belongs into errors"


BRANCHES = (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler, ast.Assert)
BRANCHES += (ast.comprehension, ast.match_case)
# what is still longer, or branches more, than a function should
LONG = {"svi.__main__.parser", "evidence.__main__.parser", "evidence.__main__._run"}
BRANCHED = {"evidence.__main__._run", "evidence.__main__._of_run"}
BRANCHED |= {"evidence.evaluate.evaluate", "evidence.planning.plan", "evidence.results.best"}


def complexity(node):
    """One, and one for each place where a function's way parts."""
    ways = (
        len(n.values) - 1 if isinstance(n, ast.BoolOp) else isinstance(n, BRANCHES)
        for n in ast.walk(node)
    )
    return 1 + sum(ways)


def test_no_function_is_long_or_tangled():
    long, branched = set(), set()
    for path, name in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[ast.get_docstring(node, clean=False) is not None :]
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                long |= {f"{name}.{node.name}"} if lines > 50 else set()
                branched |= {f"{name}.{node.name}"} if complexity(node) > 14 else set()
    assert long <= LONG, f"longer than 50 lines: {long - LONG}"
    assert branched <= BRANCHED, f"more than 14 ways: {branched - BRANCHED}"


DOCUMENTED = ("program", "svi", "plots", "data", "rows", "export", "diagnostics")


@pytest.mark.parametrize("path", [p for p, n in MODULES.items() if n.startswith(DOCUMENTED)])
def test_arguments_are_described(path):
    """Of public functions and methods with two or more of them that say what they return."""
    tree = ast.parse(path.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in (n for body in (tree, *classes) for n in body.body):
        doc = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        if doc and not node.name.startswith("_"):
            named = (*node.args.args, *node.args.kwonlyargs, node.args.vararg)
            names = {a.arg for a in named if a} - {"self", "cls"}
            if len(names) > 1 and "__main__" not in path.name:
                missing = [n for n in names if not re.search(rf"^ .*\b{n}\b.*: ", doc, re.M)]
                assert not missing, f"{node.name} does not describe {missing}"


def test_no_module_is_long():
    for path, name in MODULES.items():
        text = path.read_text()
        docs = set()
        for node in ast.walk(ast.parse(text)):
            kinds = ast.Module | ast.ClassDef | ast.FunctionDef
            if isinstance(node, kinds) and ast.get_docstring(node) is not None:
                docs |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        lines = enumerate(text.splitlines(), 1)
        code = [line for number, line in lines if line.strip() and number not in docs]
        limit = 340 if name == "svi.__main__" else 300
        assert len(code) < limit, f"{name} has {len(code)} lines beside docstrings; split it"
