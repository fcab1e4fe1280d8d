import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from pyrovae import storage
from pyrovae.storage import StateError, load_state, save_state, write_atomic, write_lines

STATE = {
    "a": torch.arange(6.0).reshape(2, 3).T,
    "nested": {"b": [torch.ones((), dtype=torch.int64), 1.5, None, "text", {"c": True}]},
    "bytes": torch.get_rng_state(),
    "empty": {},
    "none": torch.zeros(0, 3),
}


def test_round_trip(tmp_path):
    save_state(tmp_path / "deep" / "s", STATE)
    back = load_state(tmp_path / "deep" / "s")
    assert back.keys() == STATE.keys()
    for key in ("a", "bytes", "none"):
        assert torch.equal(back[key], STATE[key])
        assert back[key].dtype == STATE[key].dtype
    assert back["nested"]["b"][1:] == STATE["nested"]["b"][1:]
    assert back["empty"] == {}


def test_equal_states_are_equal_bytes(tmp_path):
    for name in "st":
        save_state(tmp_path / name, STATE)
    assert (tmp_path / "s").read_bytes() == (tmp_path / "t").read_bytes()


def test_tensors_that_share_memory_come_back_apart(tmp_path):
    x = torch.zeros(3)
    save_state(tmp_path / "s", {"x": x, "y": x})
    back = load_state(tmp_path / "s")
    back["x"] += 1
    assert back["y"].sum() == 0


def test_truncated_altered_foreign_missing(tmp_path):
    path = tmp_path / "s"
    save_state(path, STATE)
    whole = path.read_bytes()
    for size in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(StateError, match="truncated"):
            load_state(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StateError, match="altered"):
        load_state(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(StateError, match="not written by this pyrovae"):
        load_state(path)
    with pytest.raises(StateError, match=f"there is no t in {tmp_path}"):
        load_state(tmp_path / "t")


def test_a_pickle_is_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"params": Trap()}, tmp_path / "s")
    with pytest.raises(StateError, match="no safetensors file"):
        load_state(tmp_path / "s")
    assert not (tmp_path / "sprung").exists()


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f"
    write_lines(path, ["old"])

    def fail(p):
        p.write_text("half of the ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, fail)
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["f"]


def test_files_get_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_lines(tmp_path / "ours", ["x"])
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert storage.FORMAT.startswith("pyrovae")


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files there")
def test_where_there_is_no_room_what_was_there_stays(tmp_path):
    """A limit on the size of files, which stands for a full disk; HDF5 alone would crash."""
    (tmp_path / "e.nc").write_text("what was there")
    code = (
        "import resource, signal, sys, numpy, xarray\n"
        "from pathlib import Path; from pyrovae import storage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "table = xarray.Dataset({'x': ('n', numpy.random.rand(5000))})\n"
        "for name, call in (('e.nc', lambda p: storage.write_dataset(p, table)),\n"
        "                   ('s', lambda p: storage.write_lines(p, ['a' * 5000]))):\n"
        "    try: call(Path(name))\n"
        "    except OSError as e: print(e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "e.nc cannot be written",
        "s cannot be written",
    ]
    assert os.listdir(tmp_path) == ["e.nc"]
    assert (tmp_path / "e.nc").read_text() == "what was there"


def test_what_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    """safetensors opens a file twice, and may find one's header and another's tensors."""
    path = tmp_path / "s"
    save_state(path, {"a": torch.zeros(3)})

    def replaced(structure, tensors):
        monkeypatch.undo()
        save_state(path, {"a": torch.ones(3)})
        return "that of neither"

    monkeypatch.setattr(storage, "_digest", replaced)
    assert torch.equal(load_state(path)["a"], torch.ones(3))
