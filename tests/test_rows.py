"""Data that stay on disk, or come from a DataLoader: the numbers of data in memory."""

import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pyrovae as pv
from pyrovae.commands.evidence import main as evidence_main
from pyrovae.commands.svi import main as fit_main
from pyrovae.data import DataError
from pyrovae.data import files as data_module
from pyrovae.data.rows import Rows, in_chunks, spooled

pytestmark = pytest.mark.usefixtures("float32")


def grey(n=300, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4)).astype(np.uint8)


def vae(seed=0):
    torch.manual_seed(seed)
    return pv.VAE(x_dim=16, z_dim=2, hidden_dims=(8,))


@pytest.fixture
def on_disk(monkeypatch):
    monkeypatch.setattr(data_module, "fits_memory", lambda num_bytes: False)


@pytest.mark.parametrize("binarize", ["static", "dynamic", "threshold", "none"])
@pytest.mark.parametrize("kind", [np.uint8, ">f4", np.float64])
def test_a_npy_on_disk_is_split_and_binarized_as_in_memory(tmp_path, monkeypatch, kind, binarize):
    x = grey() if kind is np.uint8 else (grey() / 255).astype(kind)
    np.save(tmp_path / "x.npy", x)
    path = str(tmp_path / "x.npy")
    held = pv.data.load(path, binarize=binarize, seed=3)
    monkeypatch.setattr(data_module, "fits_memory", lambda num_bytes: False)
    stored = pv.data.load(path, binarize=binarize, seed=3)
    assert held.protocol == stored.protocol
    assert held.image_shape == stored.image_shape == (4, 4)
    for part in ("train", "valid", "test"):
        theirs, ours = getattr(held, part).x, getattr(stored, part).x
        assert isinstance(ours, Rows)
        assert ours.shape == theirs.shape
        assert torch.equal(ours[:], theirs)
        assert torch.equal(ours[2:20:3], theirs[2:20:3])
        some = torch.tensor([5, 0, 5])
        assert torch.equal(ours[some], theirs[some])
        assert torch.equal(ours.take(some)[1:], theirs[some][1:])
        assert torch.allclose(ours.mean(0), theirs.mean(0))


def test_rows_are_checked_wherever_they_lie(tmp_path, on_disk, monkeypatch):
    monkeypatch.setattr("pyrovae.data.rows.CHUNK", 64)  # four rows
    x = np.full((50, 16), 0.5, dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    rows = pv.data.read_tensors(tmp_path / "x.npy")[0]
    assert [len(c) for _, c in in_chunks(rows)] == [4] * 12 + [2]
    assert len(rows) == 50
    x[41, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    assert pv.data.load_rows(tmp_path / "x.npy")[0].x[41:42][0, 3].isnan()
    with pytest.raises(DataError, match="nan at row 41, column 3"):  # bytes have no NaN
        pv.data.load_rows(tmp_path / "x.npy", "static")
    gaps = pv.data.read_tensors(tmp_path / "x.npy")[0]
    assert torch.equal(gaps.mean(0), torch.full((16,), 0.5))
    x[41, 3] = 1.5
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match="1.5 at row 41"):
        pv.data.load_rows(tmp_path / "x.npy", "static")


def test_what_fits_is_held(tmp_path):
    np.save(tmp_path / "x.npy", grey())
    assert isinstance(pv.data.load(str(tmp_path / "x.npy")).train.x, torch.Tensor)


@pytest.mark.slow
def test_training_and_evidence_read_from_disk_what_memory_would_give(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", grey())
    path = str(tmp_path / "x.npy")
    held = pv.data.load(path)
    monkeypatch.setattr(data_module, "fits_memory", lambda num_bytes: False)
    stored = pv.data.load(path)
    results = []
    for splits in (held, stored):
        v = vae().start_at(splits.train.x)
        options = {"valid": splits.valid.x, "num_epochs": 3, "batch_size": 32, "seed": 1}
        fit = pv.svi.fit(v.model, v.guide, splits.train.x, **options, progress=False)
        names = ["importance", "prior", "ais", "quadrature"]
        few = {"num_particles": 64, "num_temperatures": 5, "num_chains": 2, "seed": 0}
        evidence = pv.evaluate(v.model, v.guide, splits.test.x, estimators=names, **few)
        results.append((fit.elbo, fit.valid_elbo, [evidence[n].value for n in names]))
    (elbo, valid, values), (elbo2, valid2, values2) = results
    assert elbo == pytest.approx(elbo2, rel=1e-5)  # the first bias, by sums in another order
    assert valid == pytest.approx(valid2, rel=1e-5)
    for a, b in zip(values, values2, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_same_model_gets_the_same_bytes(tmp_path, on_disk):
    x = (grey(150).reshape(150, 16) > 127).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    (stored,) = pv.data.read_tensors(tmp_path / "x.npy")
    v, tensor = vae(), torch.from_numpy(x)
    few = {"num_particles": 64, "num_temperatures": 5, "num_chains": 2, "seed": 0}
    names = ["elbo", "importance", "prior", "ais"]
    for workers in (None, 2):
        runs = [
            pv.evaluate(v.model, v.guide, d, estimators=names, workers=workers, **few)
            for d in (tensor, stored, DataLoader(TensorDataset(tensor), batch_size=37))
        ]
        for name in names:
            for other in runs[1:]:
                assert torch.equal(runs[0][name].value, other[name].value)
    assert pv.check(v.model, v.guide, stored).ok
    bounds = [pv.bdmc(v.model, d, guide=v.guide, num_temperatures=3, num_particles=2, seed=0)
              for d in (tensor, stored)]  # fmt: skip
    assert torch.equal(bounds[0].gap, bounds[1].gap)


def test_a_program_of_fixed_size_reads_all_rows(tmp_path, on_disk):
    np.save(tmp_path / "x.npy", np.zeros((40, 1), dtype=np.float32))
    (x,) = pv.data.read_tensors(tmp_path / "x.npy")

    def model(x):
        with pyro.plate("data", 40, subsample_size=10) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(10), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[i, 0])

    evidence = pv.evaluate(
        model, None, x, estimators=["prior"], num_particles=2_000, seed=0, progress=False
    )
    truth = dist.Normal(0.0, 2**0.5).log_prob(torch.tensor(0.0)).item()
    assert evidence["prior"].value.mean().item() == pytest.approx(truth, abs=0.02)


class Steps(IterableDataset):
    """Rows that come in order, of a number unknown beforehand."""

    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x)


def still(x):
    """A program whose loss is the same for all draws."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        mean = pyro.param("mean", torch.zeros(16)) + 0 * z[:, None]
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


def still_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_fit_takes_a_data_loader(schedule):
    x = torch.from_numpy(grey(200).reshape(200, 16) / 255).float()
    run = {"num_epochs": 3, "seed": 0, "progress": False, "lr_schedule": schedule}
    fits = []
    for data, size in ((x, 200), (DataLoader(TensorDataset(x), batch_size=200), 7)):
        pyro.clear_param_store()
        fits.append(pv.svi.fit(still, still_guide, data, valid=data, batch_size=size, **run))
        fits.append(pyro.param("mean").detach().clone())
    assert fits[0].elbo == fits[2].elbo
    assert fits[0].valid_elbo == pytest.approx(fits[2].valid_elbo)
    assert torch.equal(fits[1], fits[3])
    # of a number of rows that nobody knows beforehand, with a short last batch: 60, 60, 60, 20
    v, loader, states = vae(), DataLoader(Steps(x.round()), batch_size=60), []
    fit = pv.svi.fit(v.model, v.guide, loader, callback=states.append, **run)
    assert len(fit.elbo) == 3
    step = states[-1]["optimizer"]["state"][0]["step"]
    assert step == 3 * 4
    assert states[-1]["schedule"].get("total_steps", 13) == 13


def test_a_shuffling_loader_follows_the_seed_and_is_resumed():
    x = torch.from_numpy((grey(200).reshape(200, 16) > 127).astype(np.float32))
    loader = DataLoader(TensorDataset(x), batch_size=32, shuffle=True)

    def run(epochs, resume=None):
        v, states = vae(), []
        fit = pv.svi.fit(v.model, v.guide, loader, num_epochs=epochs, seed=3, progress=False,
                         callback=states.append, resume=resume)  # fmt: skip
        return fit.elbo, states[-1]

    elbo, _ = run(4)
    stream = torch.get_rng_state()
    assert run(4)[0] == elbo
    assert torch.equal(torch.get_rng_state(), stream)
    assert run(4, resume=run(2)[1])[0] == elbo
    v = vae()
    other = pv.svi.fit(v.model, v.guide, loader, num_epochs=4, seed=4, progress=False)
    assert other.elbo != elbo


@pytest.mark.usefixtures("compiler")
def test_a_compiled_step_and_a_transform_take_a_loader():
    x = torch.from_numpy(grey(128).reshape(128, 16) / 255).float()
    v = vae()
    fit = pv.svi.fit(
        v.model, v.guide, DataLoader(x, batch_size=50), transform=pv.data.binarize, compile=True,
        num_epochs=2, seed=0, progress=False,
    )  # fmt: skip
    plain = vae()
    other = pv.svi.fit(
        plain.model, plain.guide, DataLoader(x, batch_size=50), transform=pv.data.binarize,
        num_epochs=2, seed=0, progress=False,
    )  # fmt: skip
    assert fit.elbo == pytest.approx(other.elbo, rel=1e-5)


class Fresh(Dataset):
    """Images that are binarized afresh whenever one is asked for."""

    asked = 0

    def __len__(self):
        return 100

    def __getitem__(self, i):
        self.asked += 1
        return torch.full((16,), 0.5).bernoulli()


@pytest.mark.slow
def test_all_estimators_see_the_same_of_a_loader_that_draws():
    v, loader = vae(), DataLoader(Fresh(), batch_size=30)
    few = {"estimators": ["importance", "prior", "quadrature"], "num_particles": 40, "seed": 0}
    stream = torch.get_rng_state()
    evidence = pv.evaluate(v.model, v.guide, loader, **few)
    assert torch.equal(torch.get_rng_state(), stream)
    assert loader.dataset.asked == 100  # each once
    again = pv.evaluate(v.model, v.guide, loader, **few)
    assert torch.equal(again["prior"].value, evidence["prior"].value)


@pytest.mark.parametrize(
    ("loader", "error", "words"),
    [
        (DataLoader([{"x": 1.0}]), TypeError, "gives dict"),
        (DataLoader([("a", 1)]), TypeError, "hold tuple|hold str"),
        (DataLoader(Steps([])), ValueError, "no rows"),
        (
            DataLoader(torch.tensor([[0.0] * 15 + [torch.inf]] * 3)),
            DataError,
            "holds inf at row 0",
        ),
        (DataLoader(torch.tensor([[0.0] * 16, [0.5] * 16])), DataError, "0.5 at row 1"),
    ],
)
def test_bad_loaders_are_named(loader, error, words):
    v = vae()
    with pytest.raises(error, match=words):
        pv.svi.fit(v.model, v.guide, loader, progress=False)
    with pytest.raises(error, match=words):
        pv.evaluate(v.model, v.guide, loader, num_particles=2)


def test_a_loader_stands_alone_and_in_one_shape():
    v, x = vae(), torch.zeros(4, 16)
    with pytest.raises(TypeError, match="one whose batches hold them all"):
        pv.evaluate(v.model, v.guide, DataLoader(x), x)
    with pytest.raises(ValueError, match="after 4 rows"):
        spooled([x, torch.zeros(2, 15)])


def test_temporary_files_go_with_their_rows():
    (rows,) = spooled([torch.arange(6.0).reshape(3, 2)])
    part = rows.take(torch.tensor([2]))
    file = weakref.ref(rows.file)
    del rows
    assert torch.equal(part[:], torch.tensor([[4.0, 5.0]]))
    del part
    gc.collect()
    assert file() is None


def test_a_file_cut_short_meanwhile_is_told(tmp_path, on_disk):
    np.save(tmp_path / "x.npy", np.zeros((10, 3), dtype=np.float32))
    (rows,) = pv.data.read_tensors(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-20])
    assert len(rows[:8]) == 8
    with pytest.raises(OSError, match="shorter than it was"):
        rows[torch.tensor([9])]


PEAK = """
import re, sys, torch, numpy as np, pyrovae as pv
from pyrovae import data
from torch.utils.data import DataLoader, Dataset
data.files.fits_memory = lambda num_bytes: False
class Rows(Dataset):
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return torch.full((4096,), 0.5)
    def __getitems__(self, rows): return torch.full((len(rows), 4096), 0.5)
def load(kind, n):
    if kind == "loader":
        return DataLoader(Rows(n), batch_size=100, collate_fn=lambda rows: rows)
    return pv.data.load(f"{sys.argv[2]}/{n}.npy", binarize="none").train.x
def peak(n):
    x = load(sys.argv[1], n)
    v = pv.VAE(x_dim=4096, z_dim=2, hidden_dims=(4,), likelihood="normal")
    pv.svi.fit(v.model, v.guide, x, num_epochs=1, batch_size=100, progress=False)
    options = {"num_particles": 2, "block_size": 512, "estimators": ["importance"]}
    pv.evaluate(v.model, v.guide, x, **options, progress=False)
    # not ru_maxrss, which begins with the peak of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024
few = peak(1_000)
print(peak(6_000) - few)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "loader"])
def test_peak_memory_does_not_grow_with_the_data(tmp_path, kind):
    """5,000 rows more are 82 MB more."""
    for n in (1_000, 6_000) if kind == "npy" else ():
        table = np.lib.format.open_memmap(tmp_path / f"{n}.npy", "w+", np.float32, (n, 4096))
        table[:] = 0.5
        del table
    command = [sys.executable, "-c", PEAK, kind, str(tmp_path)]
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "100000"}  # what is freed is given back
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 20  # MB


@pytest.mark.usefixtures("undrawn", "on_disk")
def test_the_commands_take_a_npy_on_disk(tmp_path, capsys):
    np.save(tmp_path / "x.npy", grey(150))
    run = ["--data", str(tmp_path / "x.npy"), "--out", str(tmp_path / "run"), "-n", "2"]
    small = ["--hidden-dims", "8", "--z-dim", "2", "--estimators", "importance"]
    small += ["--num-particles", "20", "--no-progress"]
    assert fit_main([*run, *small]) == 0, capsys.readouterr().err
    for more in ([], ["--rows", "5"], ["--rows", "3:20:2", "--data", str(tmp_path / "x.npy")]):
        options = ["--num-particles", "20", "--estimators", "importance", "--no-progress"]
        code = evidence_main([str(tmp_path / "run"), *options, *more])
        assert code == 0, capsys.readouterr().err
