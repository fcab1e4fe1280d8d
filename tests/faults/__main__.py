"""Runs all faults, and says what became of them: `make faults`."""

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from faults import disks, files, kills

RUNS, KILLS = 12, 20  # runs and evaluations that are killed, and how often each


def main():
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--fuzz", type=float, default=0, help="minutes of fuzzed files after that")
    parser.add_argument("--seed", type=int, default=0, help="of the first fuzzed file")
    args = parser.parse_args()
    failed = 0
    with TemporaryDirectory() as temporary:
        top = Path(temporary)
        os.chdir(top)
        (top / "good").mkdir()
        files.good_files(top / "good")
        failed += met(files.corpus(), top, "by hand")
        failed += met(fuzz(args.seed, 60 * args.fuzz), top, "fuzzed")
        count = 0
        whole = kills.contents(top / "good" / "run")
        for seed in range(RUNS):
            run = top / f"killed{seed}"
            count += kills.trained(run, KILLS, seed)
            failed += kills.contents(run) != whole
        print(f"training: killed {count} times, {failed} files or runs not as they should be")
        kills.evaluated(top / "good" / "run", 0, 0)
        whole, count = kills.contents(top / "good" / "run"), 0
        for seed in range(RUNS):
            run = top / f"killed{seed}"
            count += kills.evaluated(run, KILLS, seed)
            failed += kills.contents(run) != whole
        print(f"evaluation: killed {count} times, {failed} not as they should be")
        with disks.small_disk(top / "disk") as there:
            if there:
                disks.on_a_full_disk(top / "disk")
        print("full disk: " + ("went on when there was room" if there else "could not be mounted"))
        read, absent = disks.on_a_slow_disk(run, top / "slow.log")
        print(f"slow disk: read {read} times, whole, and {absent} times not there")
    return bool(failed)


def fuzz(seed, seconds):
    """Yields fuzzed files for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield files.fuzzed(seed)
        seed += 1


def met(faults, top, what):
    """Reads faulty files, prints how many were refused, and returns how many went wrong."""
    outcomes, wrong, longest, most = Counter(), 0, 0.0, 0.0
    for number, fault in enumerate(faults):
        outcome, why = files.met(fault, top / "good", top / f"{what} {number}")
        outcomes["refused" if outcome.code else "read, as nothing in it is wrong"] += 1
        longest, most = max(longest, outcome.seconds), max(most, outcome.memory)
        wrong += bool(why)
        if why:
            print(why)
    counts = ", ".join(f"{count} {name}" for name, count in outcomes.items())
    print(
        f"{outcomes.total()} files {what}: {counts}, {wrong} survived otherwise; at most "
        f"{longest:.1f} s and {most:.0f} MiB"
    )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
