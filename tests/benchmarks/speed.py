"""Our time beside the peers', in turn, in one process: make bench ARGS="--root FOLDER --full".

Prints a table and writes bench.json. Every ratio is of medians of runs in turn (ours, theirs,
ours, ...), all on the same threads. Without --root the images are random, of MNIST's shape; --full
runs the long jobs at their full size, where the rest extrapolates: a quarter of an hour more.
"""

import argparse
import json
import math
import platform
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression, median

import peers
import pyro
import torch
from peers import seconds

import pyrovae as pv
from pyrovae.data import binarize
from pyrovae.evidence.samplers import importance
from pyrovae.precision import float32_matmul
from pyrovae.svi import gradients, objectives


@dataclass
class Row:
    """One comparison: seconds (or what `unit` says) of ours and theirs, and theirs / ours."""

    what: str
    ours: float
    theirs: float
    bound: float
    unit: str = "s"

    @property
    def ratio(self):
        return self.theirs / self.ours

    def __str__(self):
        met = "met" if self.ratio >= self.bound else "NOT met"
        return (
            f"{self.what:<66} {self.ours:>10.4g} {self.theirs:>10.4g} {self.unit:<8} "
            f"{self.ratio:>7.2f}x  (at least {self.bound:g}: {met})"
        )


def paired(ours, theirs, rounds, warm=3):
    """Medians of seconds, in turn."""
    for call in (ours, theirs):
        for _ in range(warm):
            call()
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    return median(t[0] for t in times), median(t[1] for t in times)


def make(hidden=(400,)):
    torch.manual_seed(0)
    vae = pv.VAE(x_dim=784, z_dim=peers.LATENT, hidden_dims=hidden)
    for net in (vae.encoder.net, vae.decoder):  # as in Pyro's own VAE example
        for i in range(1, len(net), 2):
            net[i] = torch.nn.Softplus()
    return vae


def our_step(vae, x, compiled):
    """What `fit` does with a batch."""
    params = list(vae.parameters())
    optim = torch.optim.Adam(params, lr=1e-3, fused=True)
    make = gradients.compiled_gradients if compiled else gradients.gradients
    step = make(objectives.ELBO(), vae.model, vae.guide, params)

    def run():
        with pyro.validation_enabled(False):
            loss, grads = step(x)
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad
        norm = torch.nn.utils.get_total_norm(grads)
        assert (loss + norm).isfinite()
        optim.step()
        return loss.item()

    return run


def steps(x):
    batch = x[:256].bernoulli()
    compiled, eager = our_step(make(), batch, True), our_step(make(), batch, False)
    plain, fast = peers.hand_written(batch, False), peers.hand_written(batch, True)
    svi, vae = peers.pyro_svi(v := make()), v
    assert vae is v
    with pyro.validation_enabled(False):
        yield Row(
            "SVI step, compiled / PyTorch as written", *paired(compiled, plain, 200, 20), 1.7
        )
        with float32_matmul():
            row = paired(compiled, fast, 200, 20)
        yield Row("SVI step, compiled / PyTorch compiled, fast products", *row, 0.95)
        pair = paired(compiled, lambda: svi.step(batch), 200, 20)
        yield Row("SVI step, compiled / Pyro's SVI.step", *pair, 2.0)
        with float32_matmul():
            row = paired(eager, plain, 200, 20)
        yield Row("SVI step, eager / PyTorch as written, same products", *row, 0.8)


def epochs(x):
    vae = make()
    options = dict(batch_size=256, transform=binarize, compile=True, progress=False)

    def ours(count=5):
        fit = pv.svi.fit(vae.model, vae.guide, x, num_epochs=count, seed=0, **options)
        return median(fit.seconds[1:])

    ours(2)
    theirs = peers.pyro_epoch(make(), x)
    with pyro.validation_enabled(False):
        times = [(ours(3), seconds(theirs)) for _ in range(3)]
    ratio = median(t[0] for t in times), median(t[1] for t in times)
    yield Row("epoch of 60,000, dynamic binarization / Pyro's example", *ratio, 4.0)
    theirs = peers.numpyro_epoch(x)
    theirs()
    times = [(ours(3), seconds(theirs)) for _ in range(3)]
    ratio = median(t[0] for t in times), median(t[1] for t in times)
    yield Row("the same / numpyro's example", *ratio, 1.0)


def sampling(x):
    vae, data = make(), x[:256].bernoulli()
    chunks = 64

    def elapsed(num_particles):
        evidence = pv.evaluate(
            vae.model, vae.guide, data, estimators=["importance"], num_particles=num_particles,
            seed=0, compile=True, progress=False,
        )  # fmt: skip
        return evidence["importance"].seconds

    def ours(few=4_096, many=24_576):  # what lies between them: the graph is made in both
        return (elapsed(many) - elapsed(few)) / ((many - few) * len(data)) * 1e6

    theirs, few = peers.pythae_nll(vae), data[:2]

    def pythae():
        with torch.no_grad():
            return seconds(lambda: theirs.get_nll(few, 2000, 100)) / (2 * 2000) * 1e6

    ours(), pythae()
    times = [(ours(), pythae()) for _ in range(3)]
    pair = median(t[0] for t in times), median(t[1] for t in times)
    yield Row("importance sampling / pythae's get_nll", *pair, 4.5, "us/decode")
    alone = peers.products_alone(vae, 4096, chunks)
    with float32_matmul():
        alone()
        times = [(ours(), seconds(alone) / (chunks * 4096) * 1e6) for _ in range(3)]
    pair = median(t[0] for t in times), median(t[1] for t in times)
    yield Row("importance sampling / its matrix products alone", *pair, 0.75, "us/decode")


def annealing(x, full):
    vae = make((200, 200))
    data = x.bernoulli()

    def run(n, compile):
        evidence = pv.evaluate(
            vae.model, vae.guide, data[:n], estimators=["ais"], num_temperatures=100, num_chains=8,
            seed=0, compile=compile, progress=False,
        )  # fmt: skip
        return evidence["ais"].seconds / n * 1e3

    run(256, True)
    times = [(run(2_048, True), run(2_048, False)) for _ in range(3)]
    pair = median(t[0] for t in times), median(t[1] for t in times)
    yield Row("AIS from the guide, compiled / eager", *pair, 1.5, "ms/image")
    n = 10_000 if full else 1_000
    elapsed = seconds(lambda: run(n, True)) * 10_000 / n
    yield Row(
        f"AIS of 10,000 images{'' if full else ' (from 1,000)'} / 4 minutes", elapsed, 240, 1
    )


def naive(x, full):
    vae, data = make(), x[:10_000].bernoulli()
    k = 1_000_000 if full else 100_000

    def shared(num_particles):
        return seconds(lambda: pv.evaluate(
            vae.model, None, data, estimators=["prior"], num_particles=num_particles, seed=0,
            progress=False,
        ))  # fmt: skip

    elapsed = shared(k) * 1_000_000 / k
    note = "" if full else " (from K = 100,000)"
    yield Row(f"naive sampling, 10,000 images, K = 1,000,000{note} / 5 minutes", elapsed, 300, 1)
    plain, importance.shares_latents = importance.shares_latents, lambda program: False
    try:
        unshared = shared(64) - shared(1)  # less what does not depend on K
    finally:
        importance.shares_latents = plain
    yield Row("the same / not shared, from K = 64", elapsed, unshared / 63 * 1_000_000, 100)


SIZES = """
import re, sys, time, torch, pyrovae as pv
k, n, threads, workers = map(int, sys.argv[1:])
torch.set_num_threads(threads)
torch.manual_seed(0)
vae = pv.VAE(x_dim=64, z_dim=8, hidden_dims=(32,))
x = torch.bernoulli(torch.full((n, 64), 0.4))
options = dict(estimators=["elbo", "importance"], num_particles=k, seed=0, progress=False)
pv.evaluate(vae.model, vae.guide, x[:64], **options | {"num_particles": 50})  # what comes once
start = time.perf_counter()
evidence = pv.evaluate(vae.model, vae.guide, x, **options, workers=workers or None)
elapsed = time.perf_counter() - start
result = sum(
    t.nbytes for e in evidence.estimates.values() for t in vars(e).values() if hasattr(t, "nbytes")
)
# not ru_maxrss, which begins with the peak of the process that started this one
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)
print(int(peak) * 1024 - 2 * result - x.nbytes, elapsed)
"""


def at_size(k, n, threads=0, workers=0):
    """Peak memory beyond the result and the data, and seconds, of `evaluate` on its own."""
    command = [sys.executable, "-c", SIZES, k, n, threads or torch.get_num_threads(), workers]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return tuple(map(float, done.stdout.split()))


def growth():
    base = at_size(1_000, 1_000)[0] / 2**20
    for what, k, n in (
        ("K from 1,000 to 100,000", 100_000, 1_000),
        ("N to 10,000", 1_000, 10_000),
    ):
        peak = at_size(k, n)[0] / 2**20
        yield Row(f"peak memory, {what}: no more than 1.1 times", peak, base * 1.1, 1, "MiB")


def slope():
    """Of the log-log fit above the smallest size, where what comes once for a block counts.

    The sizes take turns, so that other load meets all of them, and span a factor of 16, so that
    10 % more time for one of them moves the slope by less than 0.04.
    """
    for what, sizes in (
        ("K", [(k, 256) for k in (20_000, 80_000, 320_000)]),
        ("N", [(2_000, n) for n in (2_048, 8_192, 32_768)]),
    ):
        rounds = [[at_size(*size)[1] for size in sizes] for _ in range(3)]
        x = [math.log(k * n) for k, n in sizes]
        y = [math.log(median(times)) for times in zip(*rounds, strict=True)]
        value = linear_regression(x, y).slope
        yield Row(
            f"time against {what}: slope {value:.3f}, 0.05 about 1", abs(value - 1), 0.05, 1, ""
        )


def two_workers():
    sizes = 80_000, 2_048, 1
    times = [(at_size(*sizes, 2)[1], at_size(*sizes, 1)[1]) for _ in range(3)]
    pair = median(t[0] for t in times), median(t[1] for t in times)
    yield Row("two evidence workers / one, 164 million decodes", *pair, 1.7)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="folder of MNIST, as torchvision lays it out")
    parser.add_argument("--full", action="store_true", help="the long jobs at their full size")
    parser.add_argument("--only", nargs="+", help="groups of rows, by name")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers'

    torch.manual_seed(0)
    x = torch.rand(60_000, 784) * (torch.rand(60_000, 784) < 0.2)
    if options.root:
        splits = pv.data.load("mnist", root=options.root, binarize="none")
        x = torch.cat([splits.train.x, splits.valid.x])
    groups = {
        "steps": lambda: steps(x),
        "epochs": lambda: epochs(x),
        "sampling": lambda: sampling(x),
        "annealing": lambda: annealing(x, options.full),
        "naive": lambda: naive(x, options.full),
        "growth": growth,
        "slope": slope,
        "workers": two_workers,
    }
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")
    print(f"{'':<66} {'ours':>10} {'theirs':>10}")
    rows = []
    for name, group in groups.items():
        if not options.only or name in options.only:
            for row in group():
                rows.append(asdict(row) | {"ratio": row.ratio, "met": row.ratio >= row.bound})
                print(row, flush=True)
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    options.out.write_text(json.dumps({**facts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
