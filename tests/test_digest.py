"""What a digest has to know of a program: whatever changes what calling it gives."""

import functools
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import pyrovae as pv
from pyrovae.digest import Reached

FILES = {
    "own_constants.py": "SIGMA = 0.5\nOTHER = 1\n",
    "own_helper.py": "import own_constants\ndef scale():\n    return own_constants.SIGMA\n",
    "own_base.py": "class Base:\n    width = 3\n    def of(self, x): return x + self.width\n",
    "own_program.py": """
import functools, os, torch, own_helper
from own_base import Base

FACTOR, TABLE = 2.0, {"a": torch.ones(3)}
class Part(Base):
    bias = 0.25
    @property
    def twice(self):
        return 2 * self.bias
PART = Part()
def middle(x, shift=0.0):
    return x * FACTOR + shift + TABLE["a"].sum() + PART.twice
def late():
    from own_late import LATE
    return LATE
def make(kind="plain"):
    held = torch.zeros(2)
    def model(x):
        return middle(x) + own_helper.scale() + held.sum() + late()
    return model, functools.partial(middle, shift=1.0)
""",
    "own_late.py": "LATE = 7\n",
}
RUN = """
import own_program
from pyrovae.digest import Reached
model, guide = own_program.make()
model(1.0)
reached = Reached(model, guide)
print(reached.unknown, reached.sha256)
"""
EDITS = [
    ("own_program.py", "FACTOR, TABLE = 2.0", "FACTOR, TABLE = 3.0"),
    ("own_program.py", "torch.ones(3)", "torch.ones(4)"),
    ("own_program.py", "torch.zeros(2)", "torch.full((2,), 1e-6)"),
    ("own_program.py", "bias = 0.25", "bias = 0.5"),
    ("own_program.py", "return 2 * self.bias", "return 3 * self.bias"),
    ("own_program.py", "shift=0.0", "shift=0.1"),
    ("own_program.py", "shift=1.0", "shift=1.1"),
    ("own_base.py", "width = 3", "width = 4"),
    ("own_base.py", "x + self.width", "x - self.width"),
    ("own_constants.py", "SIGMA = 0.5", "SIGMA = 0.6"),
    ("own_helper.py", "return own", "return 2 * own"),
    ("own_late.py", "LATE = 7", "LATE = 8"),
]


@pytest.fixture
def digest(tmp_path):
    """The digest of the files as they lie there, in a process of its own each time."""

    def run():
        command = [sys.executable, "-B", "-c", RUN]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        unknown, sha256 = done.stdout.split()
        assert unknown == "[]"
        return sha256

    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return run


@pytest.mark.slow
def test_it_is_the_same_in_every_process_and_another_after_an_edit(digest, tmp_path):
    before = {digest(), digest()}
    assert len(before) == 1
    seen = set(before)
    for name, old, new in [EDITS[0], EDITS[9], EDITS[11]]:
        text = (tmp_path / name).read_text()
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new))
        seen.add(digest())
        (tmp_path / name).write_text(text)
    assert len(seen) == 4
    assert digest() in before


@pytest.mark.parametrize(("name", "old", "new"), EDITS)
def test_every_edit_tells(name, old, new, tmp_path, monkeypatch):
    """As above, all edits, in this process: modules are imported anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    from pyrovae import sources

    def run(edit):
        for file, text in FILES.items():
            (tmp_path / file).write_text(text.replace(old, new) if edit and file == name else text)
        for module in [m for m in sys.modules if m.startswith("own_")]:
            del sys.modules[module]
        sources.source.cache_clear()
        import own_program

        model, guide = own_program.make()
        model(1.0)
        return Reached(model, guide).sha256

    assert run(False) == run(False) != run(True)


def test_it_does_not_matter_what_is_imported_already():
    code = """
import sys
from pyrovae.digest import Reached
def model(x):
    import colorsys, jinja2.sandbox
    from pyrovae.export import to_arviz
    return x
assert not {"colorsys", "jinja2.sandbox", "pyrovae.export"} & set(sys.modules)
before = Reached(model)
model(1.0)
after = Reached(model)
assert "jinja2.sandbox" in sys.modules
assert before.unknown == after.unknown == [], before.unknown
assert before.sha256 == after.sha256 != Reached(lambda x: x).sha256
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_bytecode_counts_where_there_is_no_source():
    def made(text, name="f"):
        scope = {"__name__": "nowhere", "torch": torch}
        exec(compile(text, "<cell>", "exec"), scope)
        return Reached(scope[name])

    one = made("A = 2\ndef f(x):\n    return x + A * 3")
    assert one.unknown == []
    assert one.sha256 == made("A = 2\ndef f(x):\n    return x + A * 3").sha256
    for other in (
        "A = 2\ndef f(x):\n    return x + A * 4",
        "A = 1\ndef f(x):\n    return x + A * 3",
    ):
        assert one.sha256 != made(other).sha256


def changes(value, change):
    before = Reached(lambda: value)
    assert not before.unknown, before.unknown
    again = Reached(lambda: value)
    change(value)
    return before.sha256 != Reached(lambda: value).sha256 and again.sha256 != ""


@dataclass
class Options:
    scale: float = 1.0
    names: tuple = ("a", "b")


class Custom:
    __slots__ = ("held",)

    def __init__(self):
        self.held = [1, {"deep": np.arange(3)}]


def batch_norm():
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (torch.zeros(3), lambda v: v.add_(1e-7)),
        (torch.zeros(3, dtype=torch.cfloat).conj(), lambda v: v.add_(1)),
        (np.zeros(3), lambda v: v.__setitem__(1, 1e-12)),
        (np.array([1, "a", None], dtype=object), lambda v: v.__setitem__(1, "b")),
        ({"a": [1, (2, [3])]}, lambda v: v["a"][1][1].append(4)),
        ({1, "a", (2, 3)}, lambda v: v.add("b")),
        (OrderedDict(a=1, b=2), lambda v: v.move_to_end("a")),
        (SimpleNamespace(a=1), lambda v: setattr(v, "a", 1.0)),
        (Options(), lambda v: setattr(v, "scale", 2.0)),
        (Custom(), lambda v: v.held[1]["deep"].__setitem__(0, 5)),
        (batch_norm(), lambda v: v[1].running_mean.add_(1)),
        (batch_norm(), lambda v: v.eval()),
        (torch.nn.Dropout(0.1), lambda v: setattr(v, "p", 0.2)),
        (batch_norm(), lambda v: v[0].register_forward_hook(lambda *a: None)),
        (torch.Generator().manual_seed(0), lambda v: v.manual_seed(1)),
        (functools.partial(max, [1]), lambda v: v.args[0].append(2)),
        (dist.Normal(torch.zeros(2), 1.0), lambda v: v.loc.add_(1)),
        (pv.VAE(3, 1, (2,)), lambda v: setattr(v, "likelihood", pv.likelihoods.make("normal"))),
    ],
)
def test_every_value_counts(value, change):
    assert changes(value, change)


def test_sets_in_any_order_and_cycles_are_no_trouble():
    a, b = {"x", "y", "z", 1}, {1, "z", "y", "x"}
    assert Reached([a]).sha256 == Reached([b]).sha256
    loop = []
    loop.append(loop)
    assert Reached(loop).unknown == []
    deep = []
    for _ in range(5_000):
        deep = [deep]
    assert Reached(deep).unknown == []


def test_what_cannot_be_digested_is_named():
    lock = threading.Lock()
    generator = (i for i in range(3))
    assert Reached(lambda: lock).unknown == ["lock"]
    assert Reached(lambda: [1, {"a": generator}]).unknown == ["generator"]
    held = torch.zeros(2)
    assert Reached(weakref.ref(held)).unknown == []

    def late():
        import no_such_module_of_mine

        return no_such_module_of_mine

    assert Reached(late).unknown == ["module no_such_module_of_mine, not yet imported"]


def test_pyros_own_things_are_digested():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with torch.random.fork_rng():
        guide = AutoNormal(model)
        guide(torch.zeros(3))
    reached = Reached(model, guide)
    assert reached.unknown == []
    assert guide in reached.modules
    with torch.no_grad():
        guide.locs.z.add_(1)
    assert Reached(model, guide).sha256 != reached.sha256
    vae = pv.VAE(3, 1, (2,))
    assert Reached(vae.model).modules[0] is vae
    assert Reached(vae.model, read=False).modules == Reached(vae.model).modules
