"""A folder of results: only what is ours is touched, and by one process at a time."""

import json
import os
import subprocess
import sys
import threading
from itertools import product

import numpy as np
import pytest

from pyrovae import plots, runs, storage
from pyrovae.__main__ import main
from pyrovae.runs.folder import Folder, worked_in

pytestmark = pytest.mark.usefixtures("float32")
FEW = "--num-particles 20 --estimators importance --no-progress".split()
FIT = [*"svi --num-epochs 1 --z-dim 2 --hidden-dims 8".split(), *FEW]
THEIRS = [
    "figures/training.png",
    "report.html",
    "evidence.csv",
    "config.yaml",
    "checkpoint.safetensors",
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "save", lambda _, path: storage.write_lines(path, ["a picture"]))
    x = np.random.default_rng(0).random((60, 16), dtype=np.float32)
    np.save("x.npy", x)


def svi(*args, code=0):
    assert main([*FIT, "--data", "x.npy", "--out", "out", *args]) == code


def put(path, text="a user's own"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def files(folder):
    return {f"{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("name", "options"),
    [*product(THEIRS, (["--overwrite"],)), (THEIRS[0], []), (THEIRS[-1], ["--resume"])],
)
def test_nothing_of_the_users_is_replaced(name, options, tmp_path, capsys):
    put(tmp_path / "out" / name)
    svi(*options, code=2)
    assert f"out/{name} is there, and manifest.json does not list it" in capsys.readouterr().err
    assert files(tmp_path / "out") == {name: b"a user's own"}


def test_a_model_alone_is_kept(tmp_path, capsys):
    """Whoever removed the rest to save room: nothing goes without --overwrite."""
    svi()
    for name in ("checkpoint.safetensors", "evidence.nc", "report.html"):
        (tmp_path / "out" / name).unlink()
    before = files(tmp_path / "out")
    svi(code=2)
    assert "already holds a run; add --overwrite, or another --out" in capsys.readouterr().err
    assert {k: v for k, v in files(tmp_path / "out").items() if k != "manifest.json"} == {
        k: v for k, v in before.items() if k != "manifest.json"
    }


def test_what_has_other_names_stays_where_it_is(tmp_path):
    theirs = ["figures/mine.png", ".writable", "blocks/mine.txt", "notes.txt"]
    for name in theirs:
        put(tmp_path / "out" / name)
    svi()
    svi("--overwrite")
    assert main(["evidence", "out", *FEW]) == 0
    assert {files(tmp_path / "out")[name] for name in theirs} == {b"a user's own"}
    assert os.listdir(tmp_path / "out" / "blocks") == ["mine.txt"]


def test_no_link_is_followed(tmp_path, capsys):
    put(tmp_path / "elsewhere" / "training.png")
    svi()
    for file in (tmp_path / "out" / "figures").iterdir():
        file.unlink()
    (tmp_path / "out" / "figures").rmdir()
    (tmp_path / "out" / "figures").symlink_to(tmp_path / "elsewhere")
    svi("--overwrite", code=2)
    assert "out/figures is a symbolic link, and none is followed" in capsys.readouterr().err
    assert files(tmp_path / "elsewhere") == {"training.png": b"a user's own"}
    assert "config.yaml" in files(tmp_path / "out")


def test_evidence_keeps_what_is_not_its_own(tmp_path, capsys):
    svi()
    ask = ["evidence", "out", *FEW, "--out", "other"]
    put(tmp_path / "other" / "evidence.csv")
    put(tmp_path / "other" / "blocks" / "mine.txt")
    assert main(ask) == 2
    assert "other/evidence.csv is there" in capsys.readouterr().err
    (tmp_path / "other" / "evidence.csv").unlink()
    assert main(ask) == 0
    assert (tmp_path / "other" / "blocks" / "mine.txt").read_text() == "a user's own"
    assert main(ask) == 0


def test_one_process_at_a_time(tmp_path, capsys):
    svi()
    before = files(tmp_path / "out")
    code = (
        "import sys; from pyrovae.runs.folder import worked_in\n"
        "with worked_in('out'): print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline()
        for command in (
            [*FIT, "--data", "x.npy", "--out", "out", "--overwrite"],
            ["evidence", "out"],
            ["report", "out"],
        ):
            assert main(command) == 5
            assert f"out is in use by process {other.pid} on " in capsys.readouterr().err
        other.kill()
    assert (tmp_path / "out" / ".pyrovae.lock.json").exists()
    assert main(["report", "out"]) == 0
    after = files(tmp_path / "out")
    assert {n: b for n, b in after.items() if n != "report.html"} == {
        n: b for n, b in before.items() if n != "report.html"
    }


def test_one_thread_at_a_time():
    refused = []

    def second():
        try:
            with worked_in("out"):
                pass
        except storage.StateError as e:
            refused.append(f"{e}")

    with worked_in("out"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert f"in use by process {os.getpid()} on" in refused[0]
    second()
    assert len(refused) == 1


def test_where_nothing_came_to_be_nothing_is_left(tmp_path, capsys):
    with pytest.raises(KeyError), worked_in("new/folder"):
        raise KeyError
    svi("--seed", f"{2**64}", code=2)
    svi("--num-particles", "20", "--estimators", "quadrature", "--z-dim", "5", code=2)
    assert "quadrature" in capsys.readouterr().err
    assert main(["report", "absent"]) == 5
    assert os.listdir(tmp_path) == ["x.npy"]
    (tmp_path / "out").mkdir()
    svi("--seed", f"{2**64}", code=2)
    assert os.listdir(tmp_path / "out") == []


def test_what_a_killed_process_left_is_swept(tmp_path):
    svi()
    theirs = tmp_path / "out" / ".notes.txt.123.partial"
    put(theirs)
    left = [".config.yaml.a1b2.partial", "figures/.training.png.xyz.partial"]
    for name in left:
        put(tmp_path / "out" / name)
    with worked_in("out") as folder:
        runs.Blocks(folder, "key")["guide-0"] = {}
        put(tmp_path / "out" / "blocks" / "key" / ".guide-64.safetensors.abc.partial")
    with worked_in("out"):
        found = set(files(tmp_path / "out"))
    assert theirs.exists()
    assert not found & set(left)
    assert {n for n in found if n.startswith("blocks")} == {"blocks/key/guide-0.safetensors"}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"files": []}', '{"written by": "pyrovae", "files": ["../x"]}', "[" * 99999,
     '{"written by": "pyrovae", "files": ["/x"]}', '{"written by": "pyrovae", "files": [1]}',
     '{"written by": "pyrovae", "files": "ab"}', '{"written by": "pyrovae", "files": [""]}'],
)  # fmt: skip
def test_a_manifest_that_is_not_ours(text, tmp_path, capsys):
    put(tmp_path / "out" / "manifest.json", text)
    svi(code=5)
    assert "manifest.json is no manifest of pyrovae's" in capsys.readouterr().err
    assert files(tmp_path / "out") == {"manifest.json": text.encode()}


def test_claims_are_written_before_the_files(tmp_path):
    folder = Folder(tmp_path)
    folder.claim(["a.txt"])
    assert json.loads((tmp_path / "manifest.json").read_text())["files"] == ["a.txt"]
    put(tmp_path / "a.txt")
    put(tmp_path / "b.txt")
    with pytest.raises(ValueError, match=r"b.txt is there"):
        folder.claim(["c.txt", "b.txt"])
    folder.remove(["a.txt", "b.txt"])
    assert sorted(os.listdir(tmp_path)) == ["b.txt", "manifest.json", "x.npy"]
    assert folder.names == []
