"""Training over two processes of torchrun: one batch, one writer, and no hanging."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from conftest import HANGS

import pyrovae as pv

pytestmark = pytest.mark.slow
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
PROGRAM = '''
import sys
import numpy as np, pyro, pyro.distributions as dist, torch
import pyrovae as pv
from pyrovae.svi.distributed import joined

torch.set_default_dtype(torch.float64)

def make():
    """A program without noise, of a net and of a parameter of Pyro's own."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)

    def model(x):
        s = pyro.param("s", torch.tensor(0.7), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True) * x, s).to_event(1), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(net(x)).to_event(1))

    return model, guide, net

def data():
    return torch.randn(7, 3, generator=torch.Generator().manual_seed(1))

def criterion(model, guide, x, seed):
    return -(pyro.param("s") - 0.9).abs().expand(len(x))

def train(batch_size, num_epochs, loader=False, **options):
    model, guide, net = make()
    x = data()
    if loader:
        x = torch.utils.data.DataLoader(x, batch_size=batch_size, shuffle=True)
    fit = pv.svi.fit(model, guide, x, num_epochs=num_epochs, batch_size=batch_size, lr=0.1,
                     seed=0, progress=False, **{"optimizer": torch.optim.SGD, **options})
    learned = torch.cat([*(p.detach().flatten() for p in net.parameters()), pyro.param("s")[None]])
    return learned.detach().numpy(), fit
'''


def run(folder, script, **kwargs):
    """What torchrun does with a script that knows PROGRAM, as (exit code, output)."""
    path = folder / "script.py"
    path.write_text(PROGRAM + script)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*TORCHRUN, str(path), str(folder)], env=env, capture_output=True, text=True, timeout=HANGS
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What either rank of one job learned, with seven data, in batches that leave one idle."""
    folder = tmp_path_factory.mktemp("ranks")
    code, output = run(
        folder,
        """
with joined("cpu") as (ranks, _):
    learned, fit = train(batch_size=7, num_epochs=1)
    later, _ = train(batch_size=3, num_epochs=4)
    loaded, _ = train(batch_size=7, num_epochs=1, loader=True)
    loaded_later, _ = train(batch_size=3, num_epochs=4, loader=True)
    chosen, by = train(batch_size=7, num_epochs=3, optimizer="muon", ema=0.5, valid=data(),
                       criterion=criterion)
    order = ranks.order(10, 0, 1)
    np.savez(f"{sys.argv[1]}/{ranks.rank}.npz", learned=learned, later=later, elbo=fit.elbo,
             loaded=loaded, loaded_later=loaded_later, chosen=chosen, criterion=by.criterion,
             order=order, noise=torch.randn(3))
""",
    )
    assert code == 0, output
    return [np.load(folder / f"{rank}.npz", allow_pickle=False) for rank in (0, 1)]


@pytest.fixture
def alone():
    """What one process learns in a step of all data."""
    space = {}
    exec(PROGRAM, space)
    return space["train"](7, 1)


def test_gradients_are_those_of_one_process_and_the_batch(ranks, alone):
    """A step of SGD is its gradient."""
    (zero, one), (learned, fit) = ranks, alone
    assert np.array_equal(zero["learned"], one["learned"])
    assert np.array_equal(zero["later"], one["later"])
    torch.manual_seed(0)
    start = torch.cat([p.detach().flatten() for p in torch.nn.Linear(3, 2).parameters()]).numpy()
    steps = zero["learned"][:-1] - start, learned[:-1] - start
    np.testing.assert_allclose(*steps, rtol=1e-6)
    np.testing.assert_allclose(zero["learned"][-1], learned[-1], rtol=1e-6)
    np.testing.assert_allclose(zero["elbo"], fit.elbo, rtol=1e-6)
    assert not np.allclose(zero["later"], zero["learned"])


def test_ranks_agree_on_averages_criterion_and_epoch(ranks):
    """As one process has them, whose steps are the same; rank 0 scores for all."""
    space = {}
    exec(PROGRAM, space)
    learned, fit = space["train"](
        7, 3, optimizer="muon", ema=0.5, valid=space["data"](), criterion=space["criterion"]
    )
    zero, one = ranks
    assert np.array_equal(zero["chosen"], one["chosen"])
    assert np.array_equal(zero["criterion"], one["criterion"])
    np.testing.assert_allclose(zero["chosen"], learned, rtol=1e-3)  # bfloat16 rounds inside
    np.testing.assert_allclose(zero["criterion"], fit.criterion, rtol=1e-3)


def test_ranks_share_the_batches_of_a_loader(ranks, alone):
    """Each goes through all of it, in the one order, and takes its part of every batch."""
    zero, one = ranks
    assert np.array_equal(zero["loaded"], one["loaded"])
    assert np.array_equal(zero["loaded_later"], one["loaded_later"])
    # the gradient of all seven data, whatever their order
    np.testing.assert_allclose(zero["loaded"], alone[0], rtol=1e-6)


def test_ranks_draw_noise_of_their_own(ranks):
    zero, one = ranks
    assert np.array_equal(zero["order"], one["order"])
    assert not np.allclose(zero["noise"], one["noise"])


def test_a_rank_with_other_data_is_named(tmp_path):
    code, output = run(
        tmp_path,
        """
with joined("cpu") as (ranks, _):
    honest = data
    data = lambda: honest() + ranks.rank
    train(batch_size=7, num_epochs=1)
""",
    )
    assert code != 0
    assert "rank 1 holds other data than rank 0 (sha256" in output


def test_the_main_job_over_two_ranks_dies_with_one_and_goes_on(tmp_path):
    """Killed in the middle, it ends by itself and not well; the checkpoint is whole."""
    folder = tmp_path / "run"
    command = [*TORCHRUN, "-m", "pyrovae.svi", "--num-particles", "20", "--hidden-dims", "16"]
    command += ["--out", str(folder), "--estimators", "elbo", "importance"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(
        [*command, "-n", "100000"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + HANGS
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline
        assert job.poll() is None, job.stdout.read()
        time.sleep(0.1)
    psutil.Process(job.pid).children()[-1].kill()
    assert job.wait(timeout=HANGS) != 0
    job.stdout.close()
    done = len((folder / "metrics.jsonl").read_text().splitlines())
    again = subprocess.run(
        [*command, "-n", str(done + 2), "--resume", "--json"],
        env=env, capture_output=True, text=True, timeout=HANGS,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert len((folder / "metrics.jsonl").read_text().splitlines()) in (done + 2, done + 3)
    assert json.loads(again.stdout)["run"] == str(folder)  # one rank prints, and writes
    assert pv.load(folder).z_dim == 16
