"""RMSE, CRPS and coverage of a number given others: `pv.regress` beside what people use.

Five folds of scikit-learn's diabetes, in units of y's standard deviation; docs/regress.md.
"""

import argparse
import time
import warnings

import numpy as np
import torch
from scipy.stats import norm
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import KFold

import pyrovae as pv

LEVELS = np.linspace(0.025, 0.975, 39)
STEPS = 1_500


def of_normals(mean, sd, y):
    """Squared errors, CRPS and whether the 95 % interval holds y, of normals."""
    u = (y - mean) / sd
    crps = sd * (u * (2 * norm.cdf(u) - 1) + 2 * norm.pdf(u) - 1 / np.sqrt(np.pi))
    return (mean - y) ** 2, crps, np.abs(u) < norm.ppf(0.975)


def ridge(x, y, new, seed):
    """A linear normal (Bayesian ridge)."""
    return BayesianRidge().fit(x, y).predict(new, return_std=True)


def process(x, y, new, seed):
    """A Gaussian process with a length for each column."""
    kernel = ConstantKernel() * RBF(np.full(x.shape[1], 3.0), (0.1, 1e4)) + WhiteKernel()
    gp = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=seed)
    return gp.fit(x, y).predict(new, return_std=True)


def boosted(x, y, new, seed):
    """Boosted trees: of the mean, and of 39 quantiles from 2.5 to 97.5 %."""
    options = {"max_iter": 60, "learning_rate": 0.05, "max_leaf_nodes": 8, "random_state": seed}
    mean = HistGradientBoostingRegressor(**options).fit(x, y).predict(new)
    make = HistGradientBoostingRegressor
    found = [make(loss="quantile", quantile=q, **options).fit(x, y).predict(new) for q in LEVELS]
    return mean, np.sort(found, 0)


def whole(x, y, new, seed, decay=500, tails="normal"):
    """Ours: P of the whole row, of which y is a column."""
    rows = torch.tensor(np.column_stack([x, y]), dtype=torch.float32)
    n, d = rows.shape
    torch.manual_seed(seed)
    columns = [{"name": str(i), "kind": "real"} for i in range(d)]
    family = pv.likelihoods.Columns(columns, tails=tails)
    model = pv.TableVAE(d, d - 1, likelihood=family).start_at(rows)
    trained(model, rows, decay / n, seed)
    asked = np.column_stack([new, np.full(len(new), np.nan)])
    asked = torch.tensor(asked, dtype=torch.float32)
    return pv.regress(model.model, model.guide, asked, column=d - 1, seed=seed)


def conditional(x, y, new, seed):
    """Ours: P(y | x) alone, a CVAE of one number."""
    x, y, new = (torch.tensor(a, dtype=torch.float32) for a in (x, y[:, None], new))
    torch.manual_seed(seed)
    family = pv.likelihoods.make("normal")
    model = pv.CVAE(1, x.shape[1], 2, (32,), family).start_at(y)
    trained(model, (y, x), 100 / len(x), seed, 400)
    gap = torch.full((len(new), 1), torch.nan)
    return pv.regress(model.model, model.guide, gap, new, column=0, seed=seed)


def trained(model, data, decay, seed, steps=STEPS):
    """Fits a model in full batches, with weights that shrink."""
    options = {"lr": 5e-3, "lr_schedule": "one-cycle", "optimizer": f"adamw({decay})"}
    fit = {"num_epochs": steps, "batch_size": 10**6, "objective": model.objective}
    pv.svi.fit(model.model, model.guide, data, seed=seed, progress=False, **fit, **options)


METHODS = {
    "Bayesian ridge": ridge,
    "Gaussian process": process,
    "boosted trees": boosted,
    "CVAE of y given x": conditional,
    "TableVAE": whole,
    "TableVAE, decay 50 / n": lambda *a: whole(*a, decay=50),
    "TableVAE, Student's t": lambda *a: whole(*a, tails="student-t"),
}


def scores(found, y):
    """Squared errors, CRPS and coverage of what a method says, `(N,)` each."""
    if isinstance(found, pv.Regressed):
        known = torch.tensor(y)
        parts = (found.mean - known) ** 2, found.crps(known), found.covered(known)
        return [p.numpy() for p in parts]
    mean, rest = found
    if rest.ndim == 1:
        return of_normals(mean, rest, y)
    off = y - rest
    pinball = np.maximum(LEVELS[:, None] * off, (LEVELS[:, None] - 1) * off)
    return (mean - y) ** 2, 2 * pinball.mean(0), (rest[0] <= y) & (y <= rest[-1])


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    p.add_argument("--folds", type=int, default=5)
    args = p.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    x, y = datasets.load_diabetes(return_X_y=True)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    for name in args.methods:
        start, parts = time.perf_counter(), []
        folds = KFold(args.folds, shuffle=True, random_state=0)
        for seed, (train, test) in enumerate(folds.split(x)):
            found = METHODS[name](x[train], y[train], x[test], seed)
            parts.append(scores(found, y[test]))
        square, crps, inside = (np.concatenate(c) for c in zip(*parts, strict=True))
        error = crps.std(ddof=1) / len(crps) ** 0.5
        seconds = (time.perf_counter() - start) / args.folds
        print(
            f"{name:24} RMSE {square.mean() ** 0.5:.4f}  CRPS {crps.mean():.4f} +- {error:.4f}  "
            f"covered {inside.mean():.1%}  {seconds:.0f} s a fold",
            flush=True,
        )


if __name__ == "__main__":
    main()
