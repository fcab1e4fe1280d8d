"""README and docs: what they show runs as it stands, and what they name is there."""

import importlib.util
import re
import shlex
import struct
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from matplotlib import pyplot

import pyrovae
from pyrovae.commands import svi_options
from pyrovae.commands.dotted import without_dotted

ROOT = Path(__file__).parent.parent
PAGES = [*map(ROOT.joinpath, ("README.md", "CONTRIBUTING.md", "notebooks/README.md"))]
PAGES += sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.M)
LONG = {
    "classes",
    "compare",
    "estimators",
    "posterior",
    "regress",
    "speed",
    "tables",
}  # pages that take long however small
SIZES = re.compile(r"(num[_-](?:epochs|particles|temperatures|steps))([ =])(\d[\d_]*)")


def blocks(text):
    return [(m[1], m[2]) for m in FENCE.finditer(text)]


def relative(page):
    return str(page.relative_to(ROOT))


RUN = [p for p in PAGES if any(kind in ("python", "sh") for kind, _ in blocks(p.read_text()))]


def shrunk(text, bits=6):
    """The same with sizes a 64th, in order: a run that goes on still has epochs to do."""

    def less(m):
        return f"{m[1]}{m[2]}{max(2, int(m[3]) >> bits)}"

    return SIZES.sub(less, text)


def commands(block):
    for line in block.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def try_command(words, small):
    """Runs a command of ours in this process; of others, sees that what they name is there."""
    if words[:2] == ["python", "-m"] and words[2].startswith("pyrovae"):
        name, *arguments = words[2:]
        if name == "pyrovae":
            name, arguments = f"pyrovae.{arguments[0]}", arguments[1:]
        command = importlib.import_module(name.replace("pyrovae.", "pyrovae.commands."))
        if small and "--config" not in arguments:
            parser = svi_options.parser if name == "pyrovae.svi" else command.parser
            parser().parse_args(without_dotted(arguments)[0])
        elif not small:
            assert command.main(arguments) == 0, words
    elif words[0] == "torchrun":
        if not small:
            module = [sys.executable, "-m", "torch.distributed.run"]
            done = subprocess.run([*module, *words[1:]], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    elif words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    else:
        assert words[0] == "python", f"nothing tries {words}"
        assert (ROOT / words[1]).is_file(), words


def mnist(folder):
    """A folder in torchvision's layout: 10,100 images for training, 20 for the test."""
    raw = folder / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 10_100), ("t10k", 20)):
        images = np.tile(np.arange(784, dtype=np.uint8), (n, 1))
        for name, array in (
            ("images-idx3", images.reshape(n, 28, 28)),
            ("labels-idx1", np.arange(n) % 10),
        ):
            header = struct.pack(">HBB", 0, 8, array.ndim)
            header += struct.pack(f">{array.ndim}I", *array.shape)
            file = raw / f"{part}-{name}-ubyte"
            file.write_bytes(header + array.astype(np.uint8).tobytes())


class SummaryWriter:
    """What takes the place of TensorBoard's where that is not installed."""

    def __init__(self, folder):
        self.folder = folder

    def add_scalar(self, tag, scalar, step):
        assert isinstance(scalar, float), tag
        assert isinstance(step, int)

    def add_histogram(self, tag, values, step):
        assert isinstance(values, torch.Tensor), tag
        assert isinstance(step, int)


@pytest.fixture
def tensorboard(monkeypatch):
    if not importlib.util.find_spec("tensorboard"):
        stub = ModuleType("torch.utils.tensorboard")
        monkeypatch.setattr(stub, "SummaryWriter", SummaryWriter, raising=False)
        monkeypatch.setitem(sys.modules, stub.__name__, stub)


RUNS = [
    pytest.param(page, True, id=f"{relative(page)}, small")
    for page in RUN
    if page.stem not in LONG
]
SLOW = [pytest.mark.slow]
RUNS += [
    pytest.param(
        page,
        False,
        id=relative(page),
        marks=SLOW if page.stem in LONG else [*SLOW, pytest.mark.long],
    )
    for page in RUN
]


@pytest.mark.parametrize(("page", "small"), RUNS)
@pytest.mark.usefixtures("float32", "tensorboard", "undrawn")
def test_runs(page, small, tmp_path, monkeypatch):
    """The blocks of a page run in order, Python's in one namespace, all from one folder.

    Sizes are a quarter of the page's. Small, Python runs with a 64th, and commands are parsed.
    """
    text = page.read_text()
    if "--data mnist" in text:  # of which nobody waits for a thousand epochs
        mnist(tmp_path)
        text = shrunk(text, bits=8)
    elif not small:
        text = shrunk(text, bits=2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {"__name__": "__main__"}
    for kind, block in blocks(text):
        if kind == "python" and (file := re.match(r"# (\w+)\.py\n", block)):
            Path(f"{file[1]}.py").write_text(block)
            monkeypatch.delitem(sys.modules, file[1], raising=False)
        elif kind == "python":
            exec(compile(shrunk(block) if small else block, relative(page), "exec"), names)
        elif kind == "sh":
            for words in commands(block):
                try_command(words, small)
    pyplot.close("all")


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_blocks_say_what_they_are(page):
    known = {"python", "sh", "text", "{toctree}", "{eval-rst}", "{include} ../README.md"}
    known |= {"{include} ../CHANGELOG.md"}
    assert {kind for kind, _ in blocks(page.read_text())} <= known


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", FENCE.sub("", page.read_text())):
        if not target.startswith("https:"):
            there = page.parent / target
            if target.startswith("notebooks/"):  # the site has a copy of them
                there = ROOT / target
            assert there.is_file() or there.suffix == ".svg", target


def test_all_pages_are_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or f"\n{page.stem}\n" in index, page.stem


def test_readme_is_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def sections(text):
    """The table of an output, {row: numbers in it}, and the words of the rest."""
    header, rows, rest = [], {}, []
    for line in text.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if line.startswith(" " * 10) and "nats/datum" in line:
            header = cells
        elif header and len(cells) == len(header) + 1:
            rows[cells[0]] = dict(zip(header, cells[1:], strict=True))
        elif line.strip():
            rest.append(re.sub(r"-?\d[\d,.]*", "#", line))
    return header, rows, rest


@pytest.mark.slow
@pytest.mark.usefixtures("float32", "undrawn")
def test_readme_shows_what_is_printed(tmp_path, monkeypatch, capsys):
    """Words, columns and rows are the run's own; nats agree within the error of the data."""
    from pyrovae.commands.svi import main

    [shown] = [block for kind, block in blocks((ROOT / "README.md").read_text()) if kind == "text"]
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    header, rows, rest = sections(capsys.readouterr().out)
    shown_header, shown_rows, shown_rest = sections(shown)
    assert shown_header == header
    assert list(shown_rows) == list(rows)
    assert shown_rest == rest[: len(shown_rest)]
    assert rest[len(shown_rest)].startswith("Protocol: ")
    for name, row in rows.items():
        error = float(row["data s.e."])
        assert float(row["nats/datum"]) == pytest.approx(
            float(shown_rows[name]["nats/datum"]), abs=error
        )
        assert row["draws"] == shown_rows[name]["draws"]


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"] == {"path": "pyrovae/__init__.py"}
    for name in ("pyproject.toml", "README.md", "CITATION.cff", "docs/conf.py"):
        assert pyrovae.__version__ not in (ROOT / name).read_text(), name


def test_the_citation_is_of_this_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["title"] == f"{project['name']}: " + re.sub("^V", "v", project["description"])
    assert citation["license"] == project["license"]
    assert "version" not in citation
