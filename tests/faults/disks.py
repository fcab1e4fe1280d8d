"""Disks that are full, and disks that are slow."""

import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from faults import SMALL, forked
from pyrovae import storage
from pyrovae.commands.svi import main as svi

CHUNK, DELAY = 20_000, 0.02  # bytes, seconds


@contextmanager
def small_disk(folder):
    """Mounts a file system of 4 MiB there; gives whether it could be."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", f"{folder}"]
    there = shutil.which("mount") and not subprocess.run(mount, capture_output=True).returncode
    try:
        yield bool(there)
    finally:
        if there:
            subprocess.run(["umount", f"{folder}"], check=True)


def on_a_full_disk(disk):
    """Trains where there is ever more room, but too little, and at last enough."""
    command = [sys.executable, "-m", "pyrovae.svi", *SMALL, "--out", f"{disk / 'run'}"]
    for room in (30, 200, 500):
        (disk / "fill").write_bytes(b"0" * (4096 - room) * 1024)
        there = (disk / "run" / "checkpoint.safetensors").exists()
        how = "--resume" if there else "--overwrite"
        done = subprocess.run([*command, how], capture_output=True, text=True)
        assert done.returncode == 2, (room, done.stderr)
        assert "cannot be written: No space left on device" in done.stderr
        assert len(done.stderr.splitlines()) <= 2
    (disk / "fill").unlink()
    assert (disk / "run" / "checkpoint.safetensors").exists()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def on_a_slow_disk(run, log):
    """Replaces a run where writing takes its time, and reads it all the while.

    Returns how often the model was read, each time whole, and how often it was not there.
    """
    going, ended = log.with_suffix(".going"), []
    going.touch()

    def slowly():
        Path.write_bytes = _write_slowly
        try:
            return svi([*SMALL, "--out", f"{run}", "--overwrite"])
        finally:
            going.unlink()

    writer = Thread(target=lambda: ended.append(forked(slowly, log)))
    writer.start()
    read, not_read = 0, []
    while going.exists() and writer.is_alive():
        try:
            storage.load_state(run / "model.safetensors")
            read += 1
        except storage.StateError as e:
            not_read.append(str(e))
    writer.join()
    assert ended[0].code == 0, ended
    broken = [e for e in not_read if not ("there is no" in e or "No such file" in e)]
    assert not broken, broken
    return read, len(not_read)


def _write_slowly(path, data):
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), CHUNK):
            time.sleep(DELAY)
            file.write(data[start : start + CHUNK])
