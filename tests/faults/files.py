"""Broken and hostile files, each with the command that a user would meet it in."""

import io
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray
import yaml

import pyrovae as pv
from faults import SMALL, forked
from pyrovae import storage
from pyrovae.commands.common import guarded
from pyrovae.commands.evidence import main as evidence
from pyrovae.commands.report import main as report
from pyrovae.commands.svi import main as svi
from pyrovae.data import load, load_arrays

MEMORY = 1024  # MiB
SENTENCE = 700  # characters


class Fault(NamedTuple):
    """A file, by the name of its kind, and what is done to it in a folder of its own."""

    kind: str
    name: str
    make: Callable[[Path], None]


def met(fault, good, folder):
    """Returns how a fault is met, and what is wrong with that, or "".

    Args:
        fault: The fault.
        good: A folder of good files, see `good_files`.
        folder: Of its own, not there yet.
    """
    place, read, codes = READERS[fault.kind]
    others = [p.name for p in good.iterdir() if p.is_dir() and not place.startswith(p.name)]
    shutil.copytree(good, folder, ignore=shutil.ignore_patterns(*others))
    fault.make(folder / place)
    outcome = forked(lambda: guarded(lambda: read(folder)), f"{folder}.log")
    lines = [line for line in outcome.said.splitlines() if line.startswith("error: ")]
    wrong = ""
    if outcome.memory > MEMORY:
        wrong = f"took {outcome.memory:.0f} MiB"
    elif outcome.code and outcome.code not in codes:
        wrong = f"ended with {outcome.code}"
    elif outcome.code and (len(lines) != 1 or len(outcome.said) > SENTENCE):
        wrong = "was not told of in one sentence"
    elif (folder / "sprung").exists():
        wrong = "ran code"
    shutil.rmtree(folder)
    return outcome, wrong and f"{fault.kind}, {fault.name}: {wrong}: {outcome.said[:SENTENCE]}"


def good_files(folder):
    """Makes a folder with a good file of every kind: the run that all faults are copies of."""
    x = np.random.default_rng(0).random((40, 16), dtype=np.float32)
    run = folder / "run"
    assert svi([*SMALL, "--out", f"{run}"]) == 0
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x=x, y=np.arange(40) % 3)
    model, guide = program()
    pv.save((model, guide), folder / "program", torch.zeros(3, 2))
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 20)):
        pixels = np.random.default_rng(1).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.zeros(count, np.uint8)))
    processed = folder / "MNIST" / "processed"  # as old versions of torchvision left it
    processed.mkdir()
    torch.save(
        (torch.zeros(20, 28, 28, dtype=torch.uint8), torch.zeros(20)), processed / "test.pt"
    )
    for part in ("train", "valid", "test"):
        rows = "\n".join(" ".join("01"[(i + j) % 2] for j in range(784)) for i in range(5))
        (folder / f"binarized_mnist_{part}.amat").write_text(rows)
    (folder / "options.yaml").write_text("data: x.npy\nz_dim: 2\n")


def idx(array):
    """Returns an array of bytes in the format of MNIST's files."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def program():
    """Returns a program with two parameters."""
    import pyro
    import pyro.distributions as dist

    net = torch.nn.Linear(2, 2)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = pyro.param("loc", torch.zeros(2))
            pyro.sample("z", dist.Normal(loc.expand(len(x), 2), 1.0).to_event(1))

    return model, guide


def _read(read):
    def run(folder):
        read(folder)
        return 0

    return run


def _data(name):
    def run(folder):
        load_arrays(f"{folder / name}")
        load(f"{folder / name}", binarize="none")
        return 0

    return run


READERS = {  # kind: the file, what reads it, and the exit codes that say so
    "npy": ("x.npy", _data("x.npy"), {3}),
    "npz": ("x.npz", _data("x.npz"), {3}),
    "idx": (
        "MNIST/raw/train-images-idx3-ubyte",
        _read(lambda f: load("mnist", root=f, valid_size=10)),
        {3},
    ),
    "idx labels": (
        "MNIST/raw/train-labels-idx1-ubyte",
        _read(lambda f: load("mnist", root=f, valid_size=10)),
        {3},
    ),
    "pt": (
        "MNIST/processed/training.pt",
        _read(lambda f: load("mnist", root=f, valid_size=10)),
        {3},
    ),
    "amat": (
        "binarized_mnist_valid.amat",
        _read(lambda f: load("binarized-mnist", root=f, binarize="none")),
        {3},
    ),
    "mat": (
        "binarized_mnist_valid.mat",
        _read(lambda f: load("binarized-mnist", root=f, binarize="none")),
        {3},
    ),
    "model": ("run/model.safetensors", _read(lambda f: pv.load(f / "run")), {5}),
    "program": (
        "program/model.safetensors",
        _read(lambda f: pv.load(f / "program", program(), torch.zeros(3, 2))),
        {5},
    ),
    "checkpoint": (
        "run/checkpoint.safetensors",
        lambda f: svi([*SMALL, "-n", "4", "--out", f"{f / 'run'}", "--resume"]),
        {5, 2},
    ),
    "config": (
        "run/config.yaml",
        lambda f: evidence([f"{f / 'run'}", "--num-particles", "5", "--estimators", "elbo"]),
        {5, 3, 2},
    ),
    "options": (
        "options.yaml",
        lambda f: svi(["--config", f"{f / 'options.yaml'}", "--data", "no such data"]),
        {2, 3},
    ),
    "evidence": ("run/evidence.nc", lambda f: report([f"{f / 'run'}"]), {5}),
    "metrics": ("run/metrics.jsonl", lambda f: report([f"{f / 'run'}"]), {5}),
    "manifest": ("run/manifest.json", lambda f: report([f"{f / 'run'}"]), {5, 2}),
}


def _bytes(content):
    return lambda path: path.write_bytes(content)


def _text(content):
    return _bytes(content.encode())


def _cut(share):
    def make(path):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return make


def _flipped(seed):
    """Returns a maker that changes some bytes of a good file: flips, cuts, inserts, repeats."""

    def make(path):
        draws = random.Random(seed)
        data = bytearray(path.read_bytes())
        head = draws.random() < 0.5  # where the headers are
        for _ in range(draws.choice([1, 1, 3, 20])):
            at = draws.randrange(min(len(data), 400) if head else len(data)) if data else 0
            match draws.randrange(5):
                case 0:
                    data[at : at + 1] = bytes([draws.randrange(256)])
                case 1:
                    del data[at : at + draws.choice([1, 8, 200])]
                case 2:
                    data[at:at] = draws.randbytes(draws.choice([1, 8, 200]))
                case 3:
                    data[at : at + 8] = draws.choice([b"\xff" * 8, b"\0" * 8, b"99999999", b"-"])
                case 4:
                    data[at:at] = data[at : at + 60]
        path.write_bytes(data)

    return make


def _gone(path):
    path.unlink(missing_ok=True)


def _folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


def _pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _endless(path):
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def _sparse(path):
    """What is there, followed by holes up to 224 GiB."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(224 * 2**30)


def _circular(path):
    path.unlink(missing_ok=True)
    path.symlink_to(path)


CUTS = {"a tenth": _cut(0.1), "half": _cut(0.5), "all but a hundredth": _cut(0.99)}
ANYWHERE = {
    "empty": _bytes(b""),
    "zeros": _bytes(b"\0" * 5000),
    "noise": lambda path: path.write_bytes(random.Random(0).randbytes(5000)),
    "page": _text("<!DOCTYPE html><html><body>404 not found</body></html>"),
    "gone": _gone,
    "a folder": _folder,
    "pipe": _pipe,
    "endless": _endless,
    "holes": _sparse,
    "circular": _circular,
    **CUTS,
    "torch": lambda path: torch.save({"x": Trap(path)}, path),
}


class Trap:
    """What makes a folder where it is unpickled."""

    def __init__(self, path):
        top = path.parent
        while top.name and not (top / "x.npz").exists():
            top = top.parent
        self.path = top / "sprung"

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _header(shape, dtype="<f4", data=b"\0" * 2560, version=b"\x01\x00"):
    """Returns a .npy whose header says what it likes."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (64 - (len(text) + 11) % 64) + b"\n"
    return _bytes(b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data)


def _saved(array):
    return lambda path: np.save(path, array)


def _pickled(path):
    array = np.empty(1, dtype=object)
    array[0] = Trap(path)
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)


def _zipped(**arrays):
    with io.BytesIO() as file:
        np.savez(file, **arrays)
        return file.getvalue()


NPY = {
    "huge": _header((10**15, 16)),
    "over 2^63": _header((2**62, 2**62)),
    "a little more": _header((41, 16)),
    "negative": _header((-1, 16)),
    "of floats": _header((40.0, 16)),
    "no shape": _header("x"),
    "code for a shape": _header("__import__('os').mkdir('sprung')"),
    "no type": _header((40, 16), "nonsense"),
    "bytes for a type": _header((40, 16), "|S4"),
    "void": _header((40, 16), "|V4"),
    "times": _header((40, 8), "<M8[s]"),
    "a version to come": _header((40, 16), version=b"\x09\x00"),
    "objects": _pickled,
    "text": _text("0.1 0.2 0.3\n0.4 0.5 0.6\n"),
    "an archive": lambda path: path.write_bytes(_zipped(x=np.zeros((40, 16)))),
    "nan": _saved(np.full((40, 16), np.nan)),
    "infinite": _saved(np.full((40, 16), np.inf)),
    "no rows": _saved(np.zeros((0, 16))),
    "no columns": _saved(np.zeros((40, 0))),
    "a number": _saved(np.zeros(())),
    "strings": _saved(np.full((40, 16), "a")),
    "records": _saved(np.zeros(40, dtype=[("a", "f4"), ("b", "i4")])),
    "long headers": _bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b" " * 5000),
}


X = np.zeros((40, 16), np.float32)


def _archive(write, compression=zipfile.ZIP_DEFLATED):
    def make(path):
        with zipfile.ZipFile(path, "w", compression) as archive:
            write(archive)

    return make


def _member(array):
    with io.BytesIO() as file:
        np.save(file, array, allow_pickle=True)
        return file.getvalue()


def _bomb(archive):
    """Over a GiB of zeros, in as many thousandths."""
    with archive.open("x.npy", "w", force_zip64=True) as member:
        member.write(_member(X))
        for _ in range(9):
            member.write(b"\0" * 2**27)


def _claiming(path):
    """A good archive whose members say that they unpack to 4 GiB."""
    _over(path, 22, 24, b"\xfe\xff\xff\xff")


def _encrypted(path):
    """A good archive whose members say that they are encrypted."""
    _over(path, 6, 8, b"\x01")


def _over(path, at_member, at_entry, content):
    """Writes over a field of all members of an archive, and over the same of its directory."""
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", at_member), (b"PK\x01\x02", at_entry)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + at : start + at + len(content)] = content
    path.write_bytes(data)


def _corrupt(path):
    data = bytearray(path.read_bytes())
    data[200:260] = b"\xaa" * 60
    path.write_bytes(data)


NPZ = {
    "a bomb": _archive(_bomb),
    "claiming 4 GiB": _claiming,
    "encrypted": _encrypted,
    "corrupt": _corrupt,
    "no members": _archive(lambda a: None),
    "no arrays": _archive(lambda a: a.writestr("x.npy", "no array")),
    "text": _archive(lambda a: a.writestr("x.txt", "no array")),
    "lzma": _archive(lambda a: a.writestr("x.npy", _member(X)), zipfile.ZIP_LZMA),
    "a member cut short": _archive(lambda a: a.writestr("x.npy", _member(X)[:500])),
    "a member that lies": _archive(
        lambda a: a.writestr("x.npy", _member(X).replace(b"(40, 16)", b"(4e9,16)"))
    ),
    "a member too large": _archive(
        lambda a: a.writestr("x.npy", _member(X).replace(b"(40, 16), }", b"(10**9, 99)}"))
    ),
    "a member of 10^12": _archive(
        lambda a: a.writestr("x.npy", _member(X).replace(b"(40, 16), } ", b"(10000000, 99999),}"))
    ),
    "objects": lambda path: _archive(
        lambda a: a.writestr("x.npy", _member(np.array([Trap(path)], dtype=object)))
    )(path),
    "an array": lambda path: path.write_bytes(_member(X)),
    "a way out": _archive(lambda a: a.writestr("../../x.npy", "no array")),
    "labels of floats": lambda path: np.savez(path, x=X, y=np.zeros(40)),
    "labels past 2^63": lambda path: np.savez(path, x=X, y=np.full(40, 2**63, np.uint64)),
    "too few labels": lambda path: np.savez(path, x=X, y=np.zeros(7, int)),
    "labels of two columns": lambda path: np.savez(path, x=X, y=np.zeros((40, 2), int)),
    "x twice as long": lambda path: np.savez(path, x=X, z=np.zeros((80, 2))),
}
IDX = {
    "14 x 14": _bytes(idx(np.zeros((30, 14, 14), np.uint8))),
    "flat": _bytes(idx(np.zeros((30, 784), np.uint8))),
    "fewer images": _bytes(idx(np.zeros((20, 28, 28), np.uint8))),
    "more than there are": _bytes(idx(np.zeros((30, 28, 28), np.uint8))[:-1]),
    "floats": _bytes(b"\0\0\x0d" + idx(np.zeros((30, 28, 28), np.uint8))[3:]),
    "no such type": _bytes(b"\0\0\x77" + idx(np.zeros((30, 28, 28), np.uint8))[3:]),
    "huge": _bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 28, 28) + b"\0" * 800),
}
LABELS = {
    "7 labels": _bytes(idx(np.zeros(7, np.uint8))),
    "a square": _bytes(idx(np.zeros((30, 30), np.uint8))),
}
PT = {
    "tensors of other shapes": lambda path: torch.save((torch.zeros(3), torch.zeros(2)), path),
    "a dictionary": lambda path: torch.save({"x": 1}, path),
    "an object": lambda path: torch.save((Trap(path), torch.zeros(3)), path),
}
AMAT = {
    "783 columns": _text("\n".join(["0 " * 783] * 5)),
    "grey": _text("\n".join(["0.5 " * 784] * 5)),
    "twos": _text("\n".join(["2 " * 784] * 5)),
    "large numbers": _text("\n".join(["300 " * 784] * 5)),
    "a long line": _text("0 " * 10**6),
    "ragged": _text("0 " * 784 + "\n" + "0 " * 700),
}


def _mat(**arrays):
    from scipy.io import savemat

    return lambda path: savemat(path, arrays, do_compression=True)


MAT = {
    "other columns": _mat(x=np.zeros((5, 100))),
    "cells": _mat(x=np.array([{}, {}], dtype=object)),
    "text": _mat(x="no numbers"),
    "struct": _mat(x={"a": 1}),
    "one of 7.3": lambda path: xarray.Dataset({"x": ("n", [1.0])}).to_netcdf(
        path, engine="h5netcdf"
    ),
}


def _state(change):
    """Returns a maker that changes a file of state, and gives it a right checksum."""

    def make(path):
        state = storage.load_state(path)
        change(state)
        storage.save_state(path, state)

    return make


def _put(*keys, value=None):
    def change(state):
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return _state(change)


def _without(*keys):
    def change(state):
        for key in keys[:-1]:
            state = state[key]
        del state[keys[-1]]

    return _state(change)


def _tensor(path):
    """Puts one weight of other type in place of the first."""

    def change(state):
        name = next(iter(state["weights"]))
        state["weights"][name] = state["weights"][name].long()

    _state(change)(path)


def _record(record):
    """Returns a maker of a safetensors file with that record, which is text."""

    def make(path):
        from safetensors.torch import save

        path.write_bytes(save({"a": torch.zeros(2)}, {"pyrovae": record}))

    return make


def _forged(state):
    """Returns a maker of a file of state with that structure and a right checksum."""

    def make(path):
        from safetensors.torch import save

        tensors = {"/a": torch.zeros(2)}
        record = {"format": storage.FORMAT, "sha256": storage._digest(state, tensors)}
        path.write_bytes(save(tensors, {"pyrovae": json.dumps({**record, "state": state})}))

    return make


DEEP = 100_000
STATE = {
    "a record that is a list": _record("[1, 2]"),
    "no record": _record("{}"),
    "no json": _record("{"),
    "deep json": _record("[" * DEEP + "]" * DEEP),
    "a long number": _record("9" * 10_000),
    "many entries": _record("[" + "[]," * 9_000_000 + "[]]"),
    "dangling": _forged({"dict": {"class": {"value": "VAE"}, "weights": {"tensor": "/b"}}}),
    "no state": _forged({"value": 3}),
    "a list": _forged({"list": []}),
    "two kinds": _forged({"value": 3, "list": []}),
    "unhashable": _forged({"tensor": ["/a"]}),
}
MODEL = {
    **STATE,
    "3 x 10^7 latents": _put("config", "z_dim", value=30_000_000),
    "64 GB": _put("config", "hidden_dims", value=[100_000, 100_000]),
    "300,000 layers": _put("config", "hidden_dims", value=[1] * 300_000),
    "no latents": _put("config", "z_dim", value=0),
    "latents of text": _put("config", "z_dim", value="2"),
    "latents of floats": _put("config", "z_dim", value=2.5),
    "layers of text": _put("config", "hidden_dims", value="8"),
    "no layers": _put("config", "hidden_dims", value=None),
    "one layer more": _put("config", "hidden_dims", value=[8, 8]),
    "no config": _without("config"),
    "a config that is a list": _put("config", value=[1, 2]),
    "no weights": _without("weights"),
    "weights of numbers": _put("weights", value={"a": 1.0}),
    "no such likelihood": _put("config", "likelihood", value="os.system"),
    "likelihood of numbers": _put("config", "likelihood", value=3),
    "no such option": _put("config", "likelihood_config", value={"command": "true"}),
    "another class": _put("class", value="Trap"),
    "a class of numbers": _put("class", value=[3]),
    "another name": _put("name", value="os.system"),
    "a name of numbers": _put("name", value=3),
    "of another model": _put("name", value="linear-gaussian"),
    "whole weights": _tensor,
}
PROGRAM = {
    "no parameters": _without("parameters"),
    "parameters that are a list": _put("parameters", value=[torch.zeros(2)]),
    "parameters of others": _put("parameters", value={"a": torch.zeros(2)}),
    "other shapes": _put("parameters", "loc", value=torch.zeros(3)),
    "other types": _put("parameters", "loc", value=torch.zeros(2).long()),
    "buffers of numbers": _put("buffers", value={"a": 2}),
}
CHECKPOINT = {
    **STATE,
    "best epoch 10^9": _put("best_epoch", value=10**9),
    "best epoch 0": _put("best_epoch", value=0),
    "best epoch of text": _put("best_epoch", value="1"),
    "fewer seconds": _put("seconds", value=[]),
    "elbos of text": _put("elbo", value=["a", "b", "c"]),
    "no elbos": _without("elbo"),
    "no optimizer": _without("optimizer"),
    "an empty optimizer": _put("optimizer", value={}),
    "other groups": _put("optimizer", "param_groups", value=[]),
    "no groups": _put("optimizer", "param_groups", value=3),
    "no random streams": _without("random"),
    "other random streams": _put("random", "cpu", value=torch.zeros(3)),
    "random streams of text": _put("random", value="seed"),
    "no parameters": _without("parameters"),
    "no best": _without("best"),
    "best of others": _put("best", value={"a": torch.zeros(2)}),
    "no schedule": _without("schedule"),
    "a schedule of numbers": _put("schedule", value=3),
    "other data": _put("data", "sha256_train", value="0"),
    "data that are a list": _put("data", value=[]),
    "a config of numbers": _put("config", value=3),
    "notes of numbers": _put("notes", value=3),
    "double": _state(
        lambda s: s["parameters"].update({k: v.double() for k, v in s["parameters"].items()})
    ),
    "moments of another shape": _state(
        lambda s: s["optimizer"]["state"]["0"].update(exp_avg=torch.zeros(1))
    ),
}


def _alias_bomb(levels=12):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return _text("\n".join(lines))


def _option(**options):
    def make(path):
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | options))

    return make


YAML = {
    "aliases": _alias_bomb(),
    "deep": _text("data: " + "[" * DEEP + "]" * DEEP),
    "deep blocks": _text("".join(" " * i + "- \n" for i in range(300))),
    "python": _text("data: !!python/object/apply:os.mkdir [sprung]"),
    "a tag": _text("data: !Ref x"),
    "a list": _text("- a\n- b\n"),
    "tabs": _text("data:\n\t- a"),
    "latin-1": _bytes("data: Frey\xe9".encode("latin-1")),
    "a long number": _text("seed: " + "9" * 10_000),
    "many colons": _text("seed: " + "1:" * 30_000 + "1"),
    "2 MB": _text("data: digits\n" * 200_000),
}
CONFIG = {
    **YAML,
    "a number for data": _option(data=3),
    "no such data": _option(data="nowhere"),
    "a list for root": _option(root=["a"]),
    "text for valid size": _option(valid_size="many"),
    "no such binarization": _option(binarize="maybe"),
    "text for a seed": _option(seed="a"),
    "a number for likelihood": _option(likelihood=3),
    "a number for a model": _option(model=3),
    "a model that is code": _option(model="os.system"),
    "a list for a model's options": _option(model_options=["z_dim"]),
}
EVIDENCE = {
    "another file": lambda path: xarray.Dataset({"x": ("n", [1.0])}).to_netcdf(
        path, engine="h5netcdf"
    ),
}


def _dataset(change):
    """Returns a maker that changes the Dataset of a netCDF file."""

    def make(path):
        with xarray.open_dataset(path, engine="h5netcdf") as file:
            dataset = file.load()
        storage.write_dataset(path, change(dataset))

    return make


def _sparse_dataset(path):
    """224 GiB that were never written."""
    import h5netcdf

    with h5netcdf.File(path, "a") as file:
        file.dimensions["large"] = 30 * 2**30
        file.create_variable("value2", ("large",), "f8", chunks=(2**20,))


EVIDENCE |= {
    "sparse": _sparse_dataset,
    "no values": _dataset(lambda d: d.drop_vars("value")),
    "no estimators": _dataset(lambda d: d.drop_vars("estimator")),
    "ten rows": _dataset(lambda d: d.isel(datum=slice(10))),
    "values of text": _dataset(lambda d: d.assign(value=d["verdict"])),
    "values of other dimensions": _dataset(lambda d: d.assign(value=d["seconds"])),
    "whole values": _dataset(lambda d: d.assign(value=d["value"].astype(int))),
    "no such estimator": _dataset(lambda d: d.assign_coords(estimator=["a", "b"])),
    "no protocol": _dataset(lambda d: d.drop_attrs()),
    "a protocol of numbers": _dataset(lambda d: d.assign_attrs(sha256_test=3)),
    "other data": _dataset(lambda d: d.assign_attrs(sha256_test="0")),
}
METRICS = {
    "no json": _text("epoch 1\n"),
    "a list": _text("[1, 2]\n"),
    "text": _text('{"epoch": "one", "elbo": "low"}\n'),
    "null": _text('{"epoch": 1, "elbo": null}\n'),
    "other keys": _text('{"epoch": 1, "elbo": -1.0}\n{"epoch": 2}\n'),
    "deep": _text("[" * DEEP + "]" * DEEP),
    "numbers": _text("1\n2\n"),
    "a long number": _text('{"epoch": ' + "9" * 10_000 + "}\n"),
    "latin-1": _bytes('{"epoch": "\xe9"}'.encode("latin-1")),
}
MANIFEST = {
    "a list": _text("[]"),
    "of others": _text('{"files": ["a"]}'),
    "a way out": _text('{"written by": "pyrovae", "files": ["../x.npy"]}'),
    "from the root": _text('{"written by": "pyrovae", "files": ["/etc/passwd"]}'),
    "names of numbers": _text('{"written by": "pyrovae", "files": [3]}'),
    "deep": _text("[" * DEEP + "]" * DEEP),
    "no name": _text('{"written by": "pyrovae", "files": [""]}'),
}
BY_HAND = {
    "npy": NPY,
    "npz": NPZ,
    "idx": IDX,
    "idx labels": LABELS,
    "pt": PT,
    "amat": AMAT,
    "mat": MAT,
    "model": MODEL,
    "program": PROGRAM,
    "checkpoint": CHECKPOINT,
    "config": CONFIG,
    "options": YAML,
    "evidence": EVIDENCE,
    "metrics": METRICS,
    "manifest": MANIFEST,
}


def corpus():
    """Yields every fault by hand: what may happen to any file, and what to one of its kind."""
    for kind, faults in BY_HAND.items():
        for name, make in {**ANYWHERE, **faults}.items():
            if not (kind in ("mat", "pt") and make in CUTS.values()):  # there is no good one
                yield Fault(kind, name, make)


def fuzzed(seed):
    """Returns a fault of any kind that has a good file, drawn by the seed."""
    kinds = [kind for kind in READERS if kind not in ("mat", "pt")]
    kind = random.Random(seed).choice(kinds)
    return Fault(kind, f"fuzzed {seed}", _flipped(seed))
