"""Commands that are killed before their n-th operation on files, and begun again."""

import json
import os
import random
import signal
import sys

import numpy as np
import xarray

from faults import SMALL, forked
from pyrovae.commands.evidence import main as evidence
from pyrovae.commands.svi import main as svi

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.utime"}
ATTEMPTS = 400
MORE = "--num-particles 30 --estimators elbo importance ais --num-temperatures 3 --no-progress"


def trained(folder, kills, seed):
    """Returns how often `svi` was killed, at most `kills` times, until its run was whole."""

    def command():
        there = (folder / "checkpoint.safetensors").exists()
        how = "--resume" if there else "--overwrite"
        return svi([*SMALL, "--out", str(folder), how])

    return _until_whole(command, folder, kills, seed)


def evaluated(folder, kills, seed):
    """Returns how often `evidence` was killed until the evidence of a run was there."""
    return _until_whole(lambda: evidence([str(folder), *MORE.split()]), folder, kills, seed)


def _until_whole(command, folder, kills, seed):
    draws, killed = random.Random(seed), 0
    for _ in range(ATTEMPTS):
        left = draws.randint(1, 60) if killed < kills else 0
        outcome = forked(lambda left=left: _killing(command, folder, left), f"{folder}.log")
        if outcome.code == 0:
            return killed
        assert outcome.code == -signal.SIGKILL, outcome
        killed += 1
    raise AssertionError(f"not whole after {ATTEMPTS} attempts")


def _killing(command, folder, left):
    """Runs a command, and kills it before its operation number `left` in the folder, if any."""
    count = 0

    def watch(event, arguments):
        nonlocal count
        if event in OPERATIONS and str(arguments[0]).startswith(str(folder)):
            count += 1
            if count == left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return command()


def contents(folder):
    """Returns what a run folder says, without the time it took: equal for equal runs."""
    there = {f"{p.relative_to(folder)}" for p in folder.rglob("*") if p.is_file()}
    listed = set(json.loads((folder / "manifest.json").read_text())["files"])
    assert listed == there - {".pyrovae.lock", "manifest.json"}, listed ^ there
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    with xarray.open_dataset(folder / "evidence.nc", engine="h5netcdf") as dataset:
        tables = {n: np.array(v) for n, v in dataset.items() if n != "seconds"}
    return {
        "files": sorted(there),
        "model": (folder / "model.safetensors").read_bytes(),
        "config": (folder / "config.yaml").read_text(),
        "metrics": [{k: v for k, v in line.items() if k != "seconds"} for line in lines],
        "evidence": {name: table.tobytes() for name, table in tables.items()},
    }
