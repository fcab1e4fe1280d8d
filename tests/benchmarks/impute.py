"""Mean squared error of hidden cells: `pv.TableVAE` beside what people use; docs/tables.md.

Half of the cells of a standardised table are hidden at random, as the MIWAE notebook does it
(`numpy.random.seed(1234)`, `choice(n * p, n * p // 2, replace=False)`), and filled in by methods
that see the rest.
"""

import argparse
import time

import numpy as np
import torch
from sklearn import datasets, impute
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.linear_model import BayesianRidge

import pyrovae as pv

SETS = "breast_cancer", "wine", "diabetes", "iris", "digits"
STEPS, MOST = 1_500, 1_024  # of training, and rows of one


def hidden(name):
    """The table, standardised, and which half of it is hidden."""
    x = getattr(datasets, f"load_{name}")().data.astype(float)
    x = x[:, x.std(0) > 0]
    x = (x - x.mean(0)) / x.std(0)
    gaps = np.zeros(x.size, bool)
    np.random.seed(1234)  # noqa: NPY002  # the notebook's
    gaps[np.random.choice(x.size, x.size // 2, replace=False)] = True  # noqa: NPY002
    return x, gaps.reshape(x.shape)


def em(y, steps=200, ridge=1e-3):
    """What a normal with full covariance, fitted by EM (Little and Rubin, 1987), expects."""
    seen = ~np.isnan(y)
    mean, cov = np.nanmean(y, 0), np.diag(np.nanvar(y, 0) + ridge)
    for _ in range(steps):
        whole, extra = np.where(seen, y, 0), np.zeros_like(cov)
        for row, s in zip(whole, seen, strict=True):
            m = ~s
            a = np.linalg.solve(cov[np.ix_(s, s)], cov[np.ix_(s, m)])  # regression on what is seen
            row[m] = mean[m] + (row[s] - mean[s]) @ a
            extra[np.ix_(m, m)] += cov[np.ix_(m, m)] - cov[np.ix_(m, s)] @ a
        mean = whole.mean(0)
        d = whole - mean
        cov = (d.T @ d + extra) / len(y) + ridge * np.eye(len(mean))
    return whole


def trained(model, x, seed, steps=STEPS):
    """A model of a table, with the decay that asks for no tuning."""
    size = min(len(x), MOST)
    model.start_at(x)
    pv.svi.fit(
        *(model.model, model.guide, x),
        num_epochs=max(1, round(steps / -(-len(x) // size))),
        batch_size=size,
        objective=model.objective,
        lr=5e-3,
        lr_schedule="one-cycle",
        optimizer=f"adamw({500 / len(x)})",
        seed=seed,
        progress=False,
    )
    return model


def vae(y, seed):
    """Ours: the weighted mean, and a 95 % interval."""
    x = torch.tensor(y, dtype=torch.float32)
    d = x.shape[1]
    torch.manual_seed(seed)
    model = trained(pv.TableVAE(d, max(1, min(20, d - 1))), x, seed)
    found = pv.impute(model.model, model.guide, x, num_draws=199, seed=seed)
    return found.mean.double().numpy(), [v.double().numpy() for v in found.interval(0.95)]


def methods():
    """Those that fill gaps in, by name."""
    forest = RandomForestRegressor(100, max_features="sqrt", n_jobs=2, random_state=0)
    ridge = impute.IterativeImputer(BayesianRidge(), max_iter=20, random_state=0)
    found = {
        "mean": impute.SimpleImputer(),
        "kNN": impute.KNNImputer(),
        "iterative ridge": ridge,
        "missForest": impute.IterativeImputer(forest, max_iter=5, random_state=0),
    }
    return {name: m.fit_transform for name, m in found.items()} | {"normal, EM": em}


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    p.add_argument("--skip", nargs="*", default=[], help="methods, such as missForest")
    p.add_argument("--seeds", type=int, default=3, help="trainings of ours")
    args = p.parse_args()
    for name in args.sets:
        x, gaps = hidden(name)
        y = np.where(gaps, np.nan, x)
        for method, fill in methods().items():
            if method not in args.skip:
                start = time.perf_counter()
                error = np.square(fill(y) - x)[gaps].mean()
                seconds = time.perf_counter() - start
                print(f"{name:14} {method:16} {error:.4f} {seconds:6.0f} s", flush=True)
        if not args.seeds:
            continue
        errors, covered = [], []
        start = time.perf_counter()
        for seed in range(args.seeds):
            mean, (low, high) = vae(y, seed)
            errors.append(np.square(mean - x)[gaps].mean())
            covered.append(((low <= x) & (x <= high))[gaps].mean())
        seconds = (time.perf_counter() - start) / args.seeds
        spread = np.std(errors, ddof=1) if args.seeds > 1 else np.nan
        about = f"s.d. over seeds {spread:.4f}, 95 % intervals cover {np.mean(covered):.1%}"
        print(
            f"{name:14} {'TableVAE':16} {np.mean(errors):.4f} {seconds:6.0f} s  {about}",
            flush=True,
        )


if __name__ == "__main__":
    main()
