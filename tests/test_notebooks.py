"""The notebooks run, with small sizes, and are committed as a run in full left them."""

import ast
from pathlib import Path

import nbformat
import pytest
from conftest import HANGS
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


# what a notebook leaves to the next in their kernel
FORGET = """
import pyro, torch
torch.set_default_dtype(torch.float32)
pyro.clear_param_store()
%reset -f
"""


@pytest.fixture(scope="module")
def client():
    """One kernel for all notebooks, as its start is most of a small run's time."""
    client = NotebookClient(
        nbformat.v4.new_notebook(),
        timeout=HANGS,
        resources={"metadata": {"path": NOTEBOOKS[0].parent}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "1")
        with client.setup_kernel():
            yield client


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own libraries
def test_runs(path, client):
    client.nb = nbformat.read(path, 4)
    for i, cell in enumerate([nbformat.v4.new_code_cell(FORGET), *client.nb.cells]):
        client.execute_cell(cell, i)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_is_committed_with_its_outputs(path):
    assert path.stat().st_size < 1e6
    code = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    outputs = [o for c in code for o in c.outputs]
    assert any("image/svg+xml" in o.get("data", {}) for o in outputs)
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_uses_public_names_and_begins_with_its_settings(path):
    code = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    assert code[0].startswith("# Settings\n")
    assert 'small = "CI" in os.environ' in code[0]
    plain = "\n".join(line for c in code for line in c.split("\n") if not line.startswith("%"))
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.ImportFrom):
            assert not node.module.startswith(("pyrovae", "matplotlib")), node.module
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            assert not [n for n in names if n.startswith(("pyrovae.", "matplotlib"))], names
        elif isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_"), node.attr
