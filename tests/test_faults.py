"""A sample of the faults of tests/faults; `make faults` runs all."""

import shutil

import pytest
from faults import disks, files, kills

pytestmark = pytest.mark.usefixtures("float32", "undrawn")
STEP = 12  # of the faults by hand, in the quick tests


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "good"
    folder.mkdir()
    files.good_files(folder)
    return folder


SLOW = [pytest.param(first, marks=pytest.mark.slow) for first in range(1, STEP)]


@pytest.mark.parametrize("first", [0, *SLOW])
def test_files_by_hand(first, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    faults = list(files.corpus())
    assert len(faults) > 300
    for number, fault in enumerate(faults[first::STEP]):
        _, wrong = files.met(fault, good, tmp_path / f"{number}")
        assert not wrong


@pytest.mark.slow
def test_fuzzed_files(good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in range(200):
        _, wrong = files.met(files.fuzzed(seed), good, tmp_path / f"{seed}")
        assert not wrong


def test_a_run_that_is_killed_goes_on_to_the_same_end(good, tmp_path):
    assert kills.trained(tmp_path / "run", 20, seed=0) >= 10
    assert kills.contents(tmp_path / "run") == kills.contents(good / "run")


@pytest.mark.slow
def test_an_evaluation_that_is_killed_goes_on_to_the_same_end(good, tmp_path):
    for name in ("whole", "killed"):
        shutil.copytree(good / "run", tmp_path / name)
    assert kills.evaluated(tmp_path / "whole", 0, seed=0) == 0
    assert kills.evaluated(tmp_path / "killed", 20, seed=0) >= 10
    assert kills.contents(tmp_path / "killed") == kills.contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(tmp_path):
    with disks.small_disk(tmp_path / "disk") as there:
        if not there:
            pytest.skip("no file system can be mounted here")
        disks.on_a_full_disk(tmp_path / "disk")


@pytest.mark.slow
def test_on_a_slow_disk_a_file_is_whole_or_not_there(good, tmp_path):
    shutil.copytree(good / "run", tmp_path / "run")
    read, _ = disks.on_a_slow_disk(tmp_path / "run", tmp_path / "log")
    assert read > 10
