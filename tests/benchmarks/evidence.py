"""Annealing against importance sampling on a trained run: python tests/benchmarks/evidence.py RUN.

Prints, for 100 evenly spaced test images: AIS from the guide (100 temperatures x 8 particles) and
importance sampling with K = 20,000, in turn, twice; and BDMC on data of the model's own. Before
that, AIS of the whole test part, and the peak of memory. MNIST on two cores: 6 minutes.
"""

import argparse
import resource
import time
from pathlib import Path

import pyrovae as pv
from pyrovae import runs


def timed(what, call):
    start = time.perf_counter()
    result = call()
    print(f"{what:<42} {time.perf_counter() - start:6.1f} s  {result}", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", help="folder of the named data sets; default: the run's own")
    options = parser.parse_args()

    config = runs.read_config(options.run)
    vae = pv.load(options.run)
    x = pv.data.load(
        config["data"],
        root=options.root or config["root"],
        binarize=config["binarize"],
        valid_size=config["valid_size"],
    ).test.x
    few = x[:: max(1, len(x) // 100)].contiguous()
    annealed = {"guide": vae.guide, "num_temperatures": 100, "num_particles": 8, "seed": 0}

    timed(f"AIS of all {len(x):,}", lambda: pv.ais(vae.model, x, **annealed))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak of memory so far {peak:.2f} GiB")
    for _ in range(2):
        ais = timed(f"AIS of {len(few)}", lambda: pv.ais(vae.model, few, **annealed))
        post = timed(
            f"importance sampling of {len(few)}, K = 20,000",
            lambda: pv.importance_sampling(
                vae.model, vae.guide, few, num_particles=20_000, seed=0
            ),
        )
    gap = ais.log_evidence() - post.log_evidence()
    print(f"AIS is {gap.mean():.3f} +- {gap.std() / len(gap) ** 0.5:.3f} nats higher")
    print(f"k-hat of importance sampling is bad for {post.bad().double().mean():.0%}")
    for temperatures in (100, 500):
        timed(
            f"BDMC, {temperatures} temperatures",
            lambda t=temperatures: pv.bdmc(vae.model, few, **{**annealed, "num_temperatures": t}),
        )


if __name__ == "__main__":
    main()
