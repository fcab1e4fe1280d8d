"""The walls of the house: what may import what, what is light, what is never called."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import pyrovae
from pyrovae import report

ROOT = Path(pyrovae.__file__).parent
ROWS = [  # of packages and modules: each imports from rows above it alone
    {
        "errors",
        "checks",
        "progress",
        "threads",
        "precision",
        "nn",
        "diagnostics",
        "equality",
        "sources",
        "registry",
        "gaps",
        "text",
    },
    {"distributions", "side_by_side"},
    {"arrays", "rng", "likelihoods", "digest", "flows"},
    {"storage", "data"},
    {"priors", "guides"},
    {"labelled", "program", "models"},
    {"svi", "evidence", "plots"},
    {"certificate", "latents", "posteriors"},
    {"runs", "export", "sklearn"},
    {"report"},
    {"commands"},
]
DEEPEST = 7  # modules of one package that stand on each other
MODULES = {
    path: ".".join(path.relative_to(ROOT).with_suffix("").parts)
    .removesuffix("__init__")
    .strip(".")
    for path in sorted(ROOT.rglob("*.py"))
}
NAMES = set(MODULES.values())


@cache
def parsed(path):
    """The syntax tree of a file."""
    return ast.parse(path.read_text())


@cache
def imports(path):
    """Every module that a file imports, wherever in it, with the names taken from it."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def typed(path):
    """Every name that a file imports for type checkers alone."""
    for node in parsed(path).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom), path
                yield from (f"{line.module}.{alias.name}" for alias in line.names)


def imported(path):
    """Every module of the package that a file loads."""
    loads = set(imports(path)) - set(typed(path))
    for name in (i.removeprefix("pyrovae.") for i in loads if i.startswith("pyrovae.")):
        while name and name not in NAMES:
            name = name.rpartition(".")[0]
        if name not in ("", MODULES[path]):
            yield name


def row(name):
    """The number of the row in which a module's package stands."""
    numbers = [i for i, row in enumerate(ROWS) if name.split(".")[0] in row]
    assert len(numbers) == 1, f"{name} stands in no row, or in several"
    return numbers[0]


@pytest.mark.parametrize("path", MODULES, ids=MODULES.values())
def test_imports_point_down(path):
    name = MODULES[path]
    if name.rpartition(".")[2] in ("", "__main__"):  # the commands, handed over to
        assert all(i.startswith("commands.") for i in imported(path))
        return
    for below in imported(path):
        if below.split(".")[0] != name.split(".")[0]:
            assert row(below) < row(name), f"{name} imports {below}"


def test_imports_point_down_inside_a_package():
    inside = {name: set() for name in NAMES}
    for path, name in MODULES.items():
        own = name.split(".")[0]
        inside[name] = {i for i in imported(path) if i.split(".")[0] == own and i != own}
    depths = {}

    def depth(name, above=()):
        assert name not in above, f"a circle: {' -> '.join((*above, name))}"
        if name not in depths:
            depths[name] = 1 + max((depth(i, (*above, name)) for i in inside[name]), default=0)
        return depths[name]

    deepest = max((n for n in NAMES if "." in n), key=depth)
    assert depth(deepest) <= DEEPEST, f"{deepest} stands on {depth(deepest) - 1} others"


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("pyro.poutine", {"program"}),
        ("arviz", {"diagnostics", "export"}),
        ("pandas", {"data"}),
        ("xarray", {"diagnostics", "export", "labelled"}),
        ("matplotlib", {"plots"}),
        ("safetensors", {"storage"}),
        ("torchvision", {"data"}),
        ("pickle", set()),
    ],
)
def test_only_one_home(library, homes):
    for path, name in MODULES.items():
        if name.split(".")[0] not in homes:
            loads = set(imports(path)) - set(typed(path))
            assert not [i for i in loads if i.startswith(library)], name
            assert library != "pyro.poutine" or library not in path.read_text(), name


def test_models_are_not_for_estimators():
    for path, name in MODULES.items():
        if name.startswith(("evidence", "svi.fitting", "program")):
            assert not [i for i in imports(path) if i.startswith("pyrovae.models")], name


def test_nothing_that_unpickles_is_called():
    """ParamStore.load, PyroOptim.load and torch.load can run code from a crafted file."""
    for path, name in MODULES.items():
        for node in ast.walk(parsed(path)):
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


def test_a_users_script_has_every_name():
    """`make lint` holds its types against what they are to be."""
    script = (ROOT.parent / "tests" / "user_script.py").read_text()
    missing = [name for name in pyrovae._NAMES if not re.search(rf"\bpv\.{name}\b", script)]
    assert not missing


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


def test_modules_of_the_evidence_are_there_without_their_import():
    """In a process that has imported nothing of it."""
    code = """
import pyrovae as pv
pv.evidence.weights.LogWeights, pv.evidence.cost.cost, pv.evidence.results.Evidence
pv.evidence.samplers.annealing.ais
pv.evidence.estimators.estimator, pv.evidence.estimators.ais.AIS
"""
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
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and name != "errors":
                bases = {ast.unparse(base).split(".")[-1] for base in node.bases}
                kinds = {b for b in bases if b.endswith(("Error", "Exception", "Warning"))}
                assert not kinds, f"{name}.{node.name} belongs into errors"


BRANCHES = (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler, ast.Assert)
BRANCHES += (ast.comprehension, ast.match_case)
# what is still longer, or branches more, than a function should
LONG: set[str] = set()
BRANCHED: set[str] = set()


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
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[ast.get_docstring(node, clean=False) is not None :]
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                long |= {f"{name}.{node.name}"} if lines > 50 else set()
                branched |= {f"{name}.{node.name}"} if complexity(node) > 14 else set()
    assert long <= LONG, f"longer than 50 lines: {long - LONG}"
    assert branched <= BRANCHED, f"more than 14 ways: {branched - BRANCHED}"


DOCUMENTED = ("program", "svi", "plots", "data", "export", "diagnostics", "rng", "checks")
DOCUMENTED += ("equality", "sources", "evidence", "labelled")


@pytest.mark.parametrize("path", [p for p, n in MODULES.items() if n.startswith(DOCUMENTED)])
def test_arguments_are_described(path):
    """Of public functions and methods with two or more of them that say what they return."""
    tree = parsed(path)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in (n for body in (tree, *classes) for n in body.body):
        doc = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        if doc and not node.name.startswith("_"):
            named = (*node.args.args, *node.args.kwonlyargs, node.args.vararg)
            names = {a.arg for a in named if a} - {"self", "cls"}
            if len(names) > 1:
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
        assert len(code) < 300, f"{name} has {len(code)} lines beside docstrings; split it"
