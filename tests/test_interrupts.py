"""Interrupted, terminated or killed: an exit code, a sentence, and no process left behind."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import HANGS

from pyrovae.commands.common import guarded

SLOW = pytest.mark.slow
SVI = ["-m", "pyrovae.svi", "--data", "x.npy", "--out", "out", "--no-progress"]


def heard():
    """To be heard also where a shell had the tests ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).random((60, 16), dtype=np.float32))


@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=SLOW)])
@pytest.mark.parametrize(
    "imported",
    ["torch._C", *(pytest.param(m, marks=SLOW) for m in ("jsonargparse", "pyro.infer"))],
)
def test_while_it_imports(imported, sent):
    """At the moment that a module has been imported, as `-X importtime` says it."""
    command = [sys.executable, "-X", "importtime", *SVI]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as run:
        said = []
        for line in run.stderr:
            if not line.startswith("import time:"):
                said.append(line)
            elif line.split("|")[-1].strip() == imported:
                run.send_signal(sent)
    assert run.returncode == 130, said
    assert "Traceback" not in "".join(said)
    assert not os.path.exists("out")


def test_terminated_is_interrupted(capsys):
    def run():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    assert guarded(run) == 130
    assert capsys.readouterr().err == "interrupted; nothing was changed\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_nobody_foresaw(capsys):
    def run():
        raise KeyError("a defect\nof two lines")

    assert guarded(run) == 70
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: KeyError where none was expected")
    path = line.split("the traceback is in ")[1].split(": ")[0]
    with open(path) as file:
        assert 'raise KeyError("a defect' in file.read()
    os.unlink(path)


def children(pid):
    """Process ids of the descendants of a process."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout
    parents = dict(map(int, line.split()) for line in listed.splitlines())
    found = [c for c, p in parents.items() if p == pid]
    return found + [d for c in found for d in children(c)]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc"), reason="processes are looked up in /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "held.py").write_text(
        "import pyro, pyro.distributions as dist, torch, pathlib, time\n"
        "def make():\n"
        "    def model(x):\n"
        "        if pathlib.Path('hold').exists(): pathlib.Path('held').touch(); time.sleep(60)\n"
        "        with pyro.plate('data', len(x)):\n"
        "            z = pyro.sample('z', dist.Normal(torch.zeros(len(x)), 1.0))\n"
        "            pyro.sample('x', dist.Normal(z, 1.0), obs=x)\n"
        "    return model, None\n"
    )
    np.savez("x.npz", x=np.zeros(300, dtype=np.float32))
    args = "--program held:make --data x.npz --out out --estimators prior --workers 2"
    command = [sys.executable, "-m", "pyrovae.evidence", *args.split(), "--no-progress"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + HANGS
        while len(workers := children(run.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        (tmp_path / "hold").touch()
        run.kill()
    assert len(workers) >= 3
    while any(os.path.exists(f"/proc/{pid}") for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]
