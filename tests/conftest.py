"""A stricter world than a user's: float64, an empty store, guards on global state."""

import os
import signal
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other on a busy machine

import pyro
import pytest
import torch
from matplotlib.figure import Figure
from torch.distributions import Distribution

HANGS = 600  # seconds after which something will never end, however busy the machine is


def pytest_addoption(parser):
    parser.addoption("--dtype", default="float64", help="default floating type of the tests")
    parser.addoption("--device", default="cpu", help="device of the tests that take one")


@pytest.fixture(autouse=True)
def world(request):
    """Sets the default dtype, and fails a test after which global state is not as it was."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, request.config.getoption("dtype")))
    before = _globals()
    yield
    after = _globals()
    torch.set_default_dtype(torch.float32)
    assert after == before


@pytest.fixture
def float32():
    """The default dtype of a user."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def interrupted():
    """Runs a command until it is `ready()`, and then interrupts it: its exit code and stderr."""

    def run(command, ready):
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # to be heard also where a shell had the tests ignore it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            give_up = time.monotonic() + HANGS
            while not ready():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < give_up
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=HANGS)
        finally:
            process.kill()
        return process.returncode, err

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures are made but not drawn, which takes most of a small run's time."""

    def savefig(figure, file, **options):
        with open(file, "wb") if isinstance(file, Path) else nullcontext(file) as f:
            f.write(b"\x89PNG")

    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture(params=["graph", pytest.param("compiled", marks=pytest.mark.slow)])
def compiler(request, monkeypatch):
    """Graphs run as they were captured, and, slow, as the compiler makes them."""
    if request.param == "graph":
        monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)


@pytest.fixture
def device(request):
    return request.config.getoption("device")


def _globals():
    return {
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "validate": (Distribution._validate_args, pyro.infer.util.is_validation_enabled()),
        "matmul": torch.get_float32_matmul_precision(),
        "backends": [getattr(torch.backends, b).matmul.fp32_precision for b in ("mkldnn", "cuda")],
        "hooks": len(torch.nn.modules.module._global_forward_pre_hooks),
        "stack": len(pyro.poutine.runtime._PYRO_STACK),
    }
