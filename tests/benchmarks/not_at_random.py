"""Error of cells that are missing because they are high: `pv.NotMIWAE` beside what people use.

FILE is a table of numbers without a header, such as HI-VAE's data of wine, UCI's: of its rows of
white wine, the first 11 columns, standardised, lose in the first half of the columns what lies
above the mean (Ipsen, Mattei and Frellsen, 2021). RMSE of these; docs/posterior.md.
"""

import argparse
import time

import numpy as np
import torch
from sklearn import impute
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.linear_model import BayesianRidge

import pyrovae as pv


def white(path):
    """White wines, standardised, and what is hidden of them."""
    table = np.loadtxt(path, delimiter=",")
    kinds, counts = np.unique(table[:, -1], return_counts=True)
    x = table[table[:, -1] == kinds[counts.argmax()], :11]  # there are more white ones
    x = (x - x.mean(0)) / x.std(0)
    gaps = np.zeros(x.shape, bool)
    half = x.shape[1] // 2
    gaps[:, :half] = x[:, :half] > x[:, :half].mean(0)
    return x, gaps


def ours(y, seed, cls, z_dim, hidden, steps, decay, **config):
    """Means of what is missing, by weights."""
    x = torch.tensor(y, dtype=torch.float32)
    torch.manual_seed(seed)
    model = cls(x.shape[1], z_dim, (hidden,), **config).start_at(x)
    pv.svi.fit(
        *(model.model, model.guide, x),
        num_epochs=max(1, round(steps / (len(x) / 128))),
        batch_size=128,
        objective=model.objective,
        lr=1e-2,
        lr_schedule="one-cycle",
        optimizer=f"adamw({decay / len(x)})",
        seed=seed,
        progress=False,
    )
    options = {"num_temperatures": 0, "num_particles": 1_000, "seed": seed}
    found = pv.impute(model.model, model.guide, x, num_draws=19, **options)
    return found.mean.double().numpy()


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("path", metavar="FILE")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--steps", type=int, default=3_000)
    p.add_argument("--z-dim", type=int, default=10)
    p.add_argument("--hidden", type=int, default=32)
    p.add_argument("--decay", type=float, default=500)
    p.add_argument("--only", nargs="*", default=[], help="some of ours, as self, alone")
    args = p.parse_args()
    x, gaps = white(args.path)
    y = np.where(gaps, np.nan, x)
    forest = RandomForestRegressor(100, max_features="sqrt", n_jobs=2, random_state=0)
    others = {
        "mean": impute.SimpleImputer(),
        "kNN": impute.KNNImputer(),
        "iterative ridge": impute.IterativeImputer(BayesianRidge(), max_iter=20, random_state=0),
        "missForest": impute.IterativeImputer(forest, max_iter=5, random_state=0),
    }
    for name, method in others.items() if not args.only else ():
        start = time.perf_counter()
        error = np.square(method.fit_transform(y) - x)[gaps].mean() ** 0.5
        print(f"{name:20} {error:.4f}  {time.perf_counter() - start:.0f} s", flush=True)
    made = {"TableVAE": (pv.TableVAE, {})}
    made |= {f"NotMIWAE, {m}": (pv.NotMIWAE, {"mechanism": m}) for m in ("self", "higher")}
    for name, (cls, config) in made.items():
        if not args.seeds or (args.only and name.split()[-1] not in args.only):
            continue
        start, errors = time.perf_counter(), []
        for seed in range(args.seeds):
            sizes = args.z_dim, args.hidden, args.steps, args.decay
            mean = ours(y, seed, cls, *sizes, **config)
            errors.append(np.square(mean - x)[gaps].mean() ** 0.5)
        seconds = (time.perf_counter() - start) / args.seeds
        told = " ".join(f"{e:.4f}" for e in errors)
        print(f"{name:20} {np.mean(errors):.4f}  {seconds:.0f} s  ({told})", flush=True)


if __name__ == "__main__":
    main()
