import gzip
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae import data
from pyrovae.data import DataError, base, binarize, load, load_arrays

pytestmark = pytest.mark.usefixtures("float32")


def test_digits():
    splits = load("digits", binarize="none")
    assert [len(s) for s in (splits.train, splits.valid, splits.test)] == [1079, 359, 359]
    assert splits.image_shape == (8, 8)
    assert splits.train.x.dtype == torch.float32
    assert splits.train.y.dtype == torch.int64
    everything = torch.cat([s.x for s in (splits.train, splits.valid, splits.test)])
    from sklearn.datasets import load_digits

    theirs = torch.from_numpy(load_digits().data / 16).float()
    assert torch.equal(everything.sort(0).values, theirs.sort(0).values)  # every row once


def test_split_is_fixed_by_its_seed():
    a, b, c = load("digits"), load("digits"), load("digits", seed=1)
    assert a.protocol == b.protocol
    assert torch.equal(a.test.x, b.test.x)
    assert a.protocol["sha256_test"] != c.protocol["sha256_test"]
    assert a.protocol["data_seed"] == 0


def test_binarizations():
    grey = load("digits", binarize="none")
    static, dynamic = load("digits", binarize="static"), load("digits", binarize="dynamic")
    for part in ("train", "valid", "test"):
        assert set(getattr(static, part).x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(dynamic.train.x, grey.train.x)
    assert torch.equal(dynamic.test.x, static.test.x)  # fixed for evaluation
    assert static.transform is None
    torch.manual_seed(0)
    first, second = dynamic.transform(grey.train.x), dynamic.transform(grey.train.x)
    assert not torch.equal(first, second)  # afresh in every call
    assert set(first.unique().tolist()) == {0.0, 1.0}
    threshold = load("digits", binarize="threshold")
    assert torch.equal(threshold.test.x, (grey.test.x > 0.5).float())


def test_binarize_draws_bernoulli():
    x = torch.full((40_000,), 0.3)
    mean = binarize(x, seed=1).mean().item()
    assert abs(mean - 0.3) < 4 * (0.21 / 40_000) ** 0.5
    assert torch.equal(binarize(x, seed=1), binarize(x, seed=1))
    stream = torch.get_rng_state()
    binarize(x, seed=1)
    assert torch.equal(torch.get_rng_state(), stream)
    assert not torch.equal(binarize(x, seed=None), binarize(x, seed=None))


def test_binarize_refuses():
    with pytest.raises(DataError, match=r"holds 3 at row 1, column \[0\], outside \[0, 1\]"):
        binarize(torch.tensor([[0.0], [3.0]]))
    with pytest.raises(ValueError, match="choose static or threshold"):
        binarize(torch.zeros(2), "dynamic")
    with pytest.raises(ValueError, match="choose one of static, dynamic, threshold, none"):
        load("digits", binarize="statik")


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


MNIST = ("{}-images-idx3-ubyte", "{}-labels-idx1-ubyte", ("train", "t10k"))
FILES = {
    "mnist": ("MNIST", *MNIST),
    "fashion-mnist": ("FashionMNIST", *MNIST),
    "kmnist": ("KMNIST", *MNIST),
    "emnist": (
        "EMNIST",
        "emnist-balanced-{}-images-idx3-ubyte",
        "emnist-balanced-{}-labels-idx1-ubyte",
        ("train", "test"),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_torchvision_layout(name, tmp_path):
    folder, images, labels, parts = FILES[name]
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in zip(parts, (12, 5), strict=True):
        arrays[part] = rng.integers(0, 256, (n, 28, 28))
        write_idx(tmp_path / folder / "raw" / images.format(part), arrays[part])
        write_idx(tmp_path / folder / "raw" / labels.format(part), np.arange(n))
    splits = load(name, root=tmp_path, binarize="none", valid_size=4)
    assert [len(s) for s in (splits.train, splits.valid, splits.test)] == [8, 4, 5]
    last = arrays[parts[1]][-1].T if name == "emnist" else arrays[parts[1]][-1]
    np.testing.assert_allclose(splits.test.x[-1].reshape(28, 28), last / 255, rtol=1e-6)
    assert splits.valid.y.tolist() == [8, 9, 10, 11]


def test_qmnist(tmp_path):
    raw = tmp_path / "QMNIST" / "raw"
    rng = np.random.default_rng(0)
    for part, n in (("train", 12), ("test", 5)):
        write_idx(raw / f"qmnist-{part}-images-idx3-ubyte", rng.integers(0, 256, (n, 28, 28)))
        labels = np.zeros((n, 8), dtype=">i4")
        labels[:, 0] = np.arange(n)
        header = struct.pack(">HBB", 0, 12, 2) + struct.pack(">2I", *labels.shape)
        (raw / f"qmnist-{part}-labels-idx2-int").write_bytes(header + labels.tobytes())
        for kind in ("images-idx3-ubyte", "labels-idx2-int"):  # torchvision looks for these
            (raw / f"qmnist-{part}-{kind}.gz").write_bytes(gzip.compress(b""))
    splits = load("qmnist", root=tmp_path, binarize="none", valid_size=4)
    assert splits.test.y.tolist() == [0, 1, 2, 3, 4]


def test_torchvision_beside_a_cpu_torch():
    """Its import dies for want of two operator schemas; its data sets need no operator."""
    code = "from pyrovae.data.mnist import _datasets; print(_datasets().MNIST.__name__)"
    command = [sys.executable, "-W", "error", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "MNIST\n"


def test_missing_set_names_the_folder_and_the_way(tmp_path):
    with pytest.raises(DataError, match=rf"searched {tmp_path}/MNIST/raw .* --download"):
        load("mnist", root=tmp_path)
    with pytest.raises(DataError, match=rf"searched {tmp_path} and {tmp_path}/binarized_mnist"):
        load("binarized-mnist", root=tmp_path)


@pytest.mark.parametrize("kind", ["mat", "amat"])
@pytest.mark.parametrize("below", ["", "binarized_mnist"])
def test_binarized_mnist(kind, below, tmp_path):
    from scipy.io import savemat

    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    arrays = {}
    for part, n in (("train", 9), ("valid", 4), ("test", 3)):
        arrays[part] = np.random.default_rng(n).integers(0, 2, (n, 784))
        path = folder / f"binarized_mnist_{part}.{kind}"
        if kind == "mat":
            savemat(path, {"X": arrays[part].astype(np.uint8)})
        else:
            np.savetxt(path, arrays[part], fmt="%d")
    splits = load("binarized-mnist", root=tmp_path)
    for part, array in arrays.items():
        np.testing.assert_array_equal(getattr(splits, part).x, array)
    assert splits.train.y is None


def test_npy_and_npz(tmp_path):
    x = np.random.default_rng(0).random((50, 4, 5))
    np.save(tmp_path / "a.npy", x)
    splits = load(str(tmp_path / "a.npy"), binarize="none")
    assert splits.train.x.shape == (30, 20)
    assert splits.image_shape == (4, 5)
    np.savez(tmp_path / "b.npz", x=x.reshape(50, 20), y=np.arange(50))
    splits = load(str(tmp_path / "b.npz"), binarize="none")
    row = splits.test.y[3]
    np.testing.assert_allclose(splits.test.x[3], x[row].ravel(), rtol=1e-6)
    assert splits.image_shape is None


def test_only_images_of_bytes_are_scaled_and_it_is_said(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 2, 2)).astype(np.uint8)
    for name, array, scaling in (
        ("images", images, "bytes / 255"),
        ("counts", images.reshape(20, 4), "none"),
        ("integers", images.astype(np.int64), "none"),
        ("binary", images // 128, "none"),
    ):
        path = tmp_path / f"{name}.npy"
        np.save(path, array)
        part, _, protocol = data.load_rows(path)
        expected = array.reshape(20, -1).astype(np.float32) / (255 if scaling != "none" else 1)
        np.testing.assert_allclose(part.x, expected, rtol=1e-6)
        splits = load(str(path), binarize="none")
        assert protocol["scaling"] == splits.protocol["scaling"] == scaling
        rows = {tuple(row) for row in expected.tolist()}
        assert {tuple(row) for row in splits.test.x.tolist()} <= rows
    with pytest.raises(DataError, match="outside .0, 1., so it cannot be binarized; scale it"):
        load(str(tmp_path / "counts.npy"))
    assert load("digits").protocol["scaling"] == "grey levels / 16"


def test_a_programs_arrays_are_split_alike(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3))
    np.savez(tmp_path / "xy.npz", x=x, y=x[:, 0], z=np.arange(50, dtype=np.uint8))
    splits = load_arrays(str(tmp_path / "xy.npz"), valid_size=7)
    assert [len(p) for p in (splits.train, splits.valid, splits.test)] == [33, 7, 10]
    for part in (splits.train, splits.valid, splits.test):
        a, b, c = part.arrays
        assert torch.equal(a[:, 0], b)
        np.testing.assert_allclose(a, x[c], rtol=1e-6)
        assert c.dtype == torch.uint8  # counts stay counts
    assert torch.equal(splits.test.x, load_arrays(str(tmp_path / "xy.npz")).test.x)
    other = x.copy()
    other[0, 1] += 1
    np.savez(tmp_path / "xy.npz", x=x, y=other[:, 0], z=other[:, 1])
    again = load_arrays(str(tmp_path / "xy.npz"), valid_size=7).protocol
    assert again["sha256_train"] != splits.protocol["sha256_train"]
    assert torch.equal(load_arrays("digits", binarize="static").test.x, load("digits").test.x)
    with pytest.raises(ValueError, match="binarize is 'static', but a program gets the arrays"):
        load_arrays(str(tmp_path / "xy.npz"), binarize="static")
    np.savez(tmp_path / "ab.npz", a=x, b=x[:-1])
    with pytest.raises(DataError, match="shapes .50, 3., .49, 3.; give a program arrays of equ"):
        load_arrays(str(tmp_path / "ab.npz"))
    np.save(tmp_path / "s.npy", np.array(["a", "b"]))
    with pytest.raises(DataError, match="x is <U1; give numbers"):
        load_arrays(str(tmp_path / "s.npy"))
    x[3, 1] = np.inf
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match="holds inf"):
        load_arrays(str(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 4)), r"x is float64 of shape \(0, 4\)"),
        (np.zeros(4), "give numbers of shape"),
        (np.array([["a"] * 3] * 3), "give numbers of shape"),
        (np.zeros((5, 4), complex), "give numbers of shape"),
        (np.full((5, 4), 7.0), "outside .0, 1."),
        (np.zeros((2, 4)), "valid part is empty|test part is empty"),
        (np.where(np.eye(20, 4) > 0, np.inf, 0.5), "holds inf at row"),
    ],
)
def test_bad_arrays(array, words, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=words):
        load(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("binarize", ["static", "dynamic", "threshold", "none"])
def test_what_is_missing_stays_missing(binarize, tmp_path):
    """Whatever is drawn of the rest; a program gets it too, and refuses it where it has no use."""
    x = np.where(np.eye(20, 4) > 0, np.nan, 0.5)
    np.save(tmp_path / "a.npy", x)
    splits = load(str(tmp_path / "a.npy"), binarize=binarize)
    parts = [splits.train.x, splits.valid.x, splits.test.x]
    if splits.transform:
        parts[0] = splits.transform(parts[0])
    assert sum(int(p.isnan().sum()) for p in parts) == 4
    if binarize != "none":
        assert all((p[~p.isnan()] % 1 == 0).all() for p in parts)
    (arrays,) = load_arrays(str(tmp_path / "a.npy")).train.arrays
    assert arrays.isnan().any()


def test_bad_files(tmp_path):
    np.savez(tmp_path / "names.npz", data=np.zeros((5, 4)))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "table.csv").write_text("1,2")
    np.save(tmp_path / "pickled.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "labels.npz", x=np.zeros((5, 4)), y=np.zeros(4, int))
    for name, words in {
        "names.npz": "holds data; name the data array 'x'",
        "text.npy": "cannot be read",
        "table.csv": "holds no rows",
        "pickled.npy": "without pickles",
        "labels.npz": r"give integer labels of shape \(5,\)",
        "absent.npy": "there is no file",
    }.items():
        with pytest.raises(DataError, match=words):
            load(str(tmp_path / name))


@pytest.fixture
def known():
    """The registry of data sets, as it was afterwards."""
    before = dict(base.sets)
    yield base.sets
    base.sets.clear()
    base.sets.update(before)


def test_a_set_of_ones_own(known):
    x, y = torch.rand(50, 3, dtype=torch.float64), torch.arange(50)

    class Published(data.DataSet):
        name = "test-published"
        scaling = "metres"
        image_shape = 1, 3

        def read(self, root, download):
            rows = data.Split(x, y)
            return rows if download else (rows, rows)

    def rows():
        return data.Split(x), data.Split(x[:7]), data.Split(x[:4])

    one, two = (load("test-published", binarize="none", download=d) for d in (True, False))
    assert torch.equal(one.train.x[:, 0], x[one.train.y, 0].float())
    assert [len(two.train), len(two.valid), len(two.test)] == [40, 10, 50]
    assert one.image_shape == (1, 3)
    assert one.protocol["scaling"] == "metres"
    assert one.protocol["data"] == "test-published"
    assert one.protocol == load(Published, binarize="none", download=True).protocol
    assert one.protocol == load_arrays(Published(), download=True).protocol
    three = load(rows, binarize="none")
    assert [len(three.train), len(three.valid), len(three.test)] == [50, 7, 4]
    assert three.protocol["data"].endswith("test_a_set_of_ones_own.<locals>.rows")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (lambda: torch.zeros(50, 3), "gives .Tensor.*; give one to three pyrovae.data.Split"),
        (
            lambda: data.Split(torch.zeros(50)),
            r"gives x torch.float32 of shape .30,.; give floats",
        ),
        (lambda: data.Split(torch.zeros(50, 2).long()), "gives x torch.int64 of shape"),
        (lambda: data.Split(torch.zeros(50, 2), torch.zeros(3)), "of equally many rows"),
        (lambda: data.Split(np.zeros((50, 2))), "gives ndarray; give tensors of equally many"),
    ],
)
def test_a_set_that_is_none(rows, said):
    with pytest.raises(DataError, match=said):
        load(rows)


def test_two_sets_of_one_name(known):
    with pytest.raises(TypeError, match="the name 'digits' is that of pyrovae.data.digits.Digits"):
        type("Mine", (data.DataSet,), {"name": "digits"})
    with pytest.raises(TypeError, match="data set is 3; give a name, a path, a DataSet"):
        load(3)


def test_unknown_name():
    with pytest.raises(DataError, match="did you mean mnist"):
        load("mnits")


@pytest.mark.parametrize(
    ("size", "words"), [(0, "hold out at least one"), (5000, "part is empty")]
)
def test_valid_size(size, words):
    with pytest.raises(ValueError, match=words):
        load("digits", valid_size=size)


def test_splits_go_straight_into_fit():
    splits = load("digits")
    vae = pv.VAE(x_dim=64, z_dim=2, hidden_dims=(8,)).start_at(splits.train.x)
    pv.svi.fit(vae.model, vae.guide, splits.train.x, num_epochs=1, progress=False)
