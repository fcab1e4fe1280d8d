"""Error of hidden cells by kind of column, tables of mixed columns: `pv.TableVAE` beside others.

FOLDER is one of HI-VAE's: data.csv without names, data_types.csv with a kind for each column, and
which cells are hidden, Missing20_1.csv and Missing50_1.csv, row and column from 1. Errors are
those of Nazabal et al. (2018): of numbers the root of the mean square, of ordinal columns the
mean distance of levels, both as a share of the column's range; of others the share that is wrong.
Means over the columns of a kind; docs/tables.md.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from impute import trained
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import BayesianRidge, LogisticRegression
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import pyrovae as pv
from pyrovae.data.tables import TableFile
from pyrovae.likelihoods import Columns

KINDS = {"count": "numbers", "pos": "numbers", "real": "numbers"}
CLASSES = {"cat": "categorical", "ordinal": "ordinal"}


def read(folder, share):
    """The table, its kinds, and where it is hidden."""
    frame = pd.read_csv(folder / "data.csv", header=None)
    kinds = pd.read_csv(folder / "data_types.csv")["type"].tolist()
    gaps = np.zeros(frame.shape, bool)
    rows = np.loadtxt(folder / f"Missing{share}_1.csv", delimiter=",", dtype=int) - 1
    gaps[rows[:, 0], rows[:, 1]] = True
    return frame.astype(float), kinds, gaps


def errors(found, frame, kinds, gaps):
    """Mean error of each kind of column."""
    by_kind = {}
    for d, kind in enumerate(kinds):
        x = frame.iloc[:, d].to_numpy()
        off = (found[:, d] - x)[gaps[:, d]]
        spread = np.ptp(x)
        if kind == "cat":
            error = (np.round(off) != 0).mean()
        elif kind == "ordinal":
            error = np.abs(off).mean() / spread
        else:
            error = np.square(off).mean() ** 0.5 / spread
        by_kind.setdefault(KINDS.get(kind, kind), []).append(error)
    return {kind: np.mean(e) for kind, e in by_kind.items()}


def mean_or_mode(y, kinds):
    whole = y.copy()
    for d, kind in enumerate(kinds):
        there = pd.Series(y[:, d]).dropna()
        fill = there.mean() if kind in KINDS else there.mode()[0]
        whole[np.isnan(y[:, d]), d] = fill
    return whole


def chained(regressor, classifier, one_hot):
    """Each column by the others, classes by a classifier, in rounds (van Buuren, 2007).

    scikit-learn's IterativeImputer has one estimator for all columns, and classes are no numbers.
    """

    def fill(y, kinds, rounds=5):
        gaps, whole = np.isnan(y), mean_or_mode(y, kinds)
        for _ in range(rounds):
            for d in np.argsort(gaps.sum(0)):
                gap, others = gaps[:, d], [k for k in range(len(kinds)) if k != d]
                if not gap.any():
                    continue
                hot = [k for k in others if kinds[k] == "cat"] if one_hot else []
                encode = ColumnTransformer(
                    [("classes", OneHotEncoder(sparse_output=False), hot)],
                    remainder=StandardScaler(),
                )
                x = encode.fit_transform(np.where(np.arange(len(kinds)) == d, 0, whole))
                method = (regressor if kinds[d] in KINDS else classifier).fit(x[~gap], y[~gap, d])
                whole[gap, d] = method.predict(x[gap])
        return whole

    return fill


FOREST = {"max_features": "sqrt", "n_jobs": -1, "random_state": 0}
OTHERS = {
    "mean or mode": mean_or_mode,
    "chained ridge": chained(BayesianRidge(), LogisticRegression(max_iter=500), one_hot=True),
    "missForest": chained(
        RandomForestRegressor(100, **FOREST), RandomForestClassifier(100, **FOREST), one_hot=False
    ),
}


def ours(y, kinds, seed, steps):
    """Numbers are what they are guessed to be: a positive column may hold a 0."""
    frame = pd.DataFrame(y).rename(columns=str)
    told = {str(d): CLASSES[kind] for d, kind in enumerate(kinds) if kind in CLASSES}
    data = TableFile(frame, told)
    x, d = data.rows.x, frame.shape[1]
    torch.manual_seed(seed)
    family = Columns(data.columns)
    model = trained(pv.TableVAE(d, min(20, d - 1), likelihood=family), x, seed, steps)
    options = {"num_temperatures": 0, "num_particles": 300, "block_size": 512, "seed": seed}
    found = pv.impute(model.model, model.guide, x, num_draws=1, **options)
    numbers = found.mean.double().numpy()
    for k, column in enumerate(data.columns):
        if column.classes:
            numbers[:, k] = np.array(column.classes)[numbers[:, k].round().astype(int)]
    return numbers


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("folder", metavar="FOLDER", type=Path)
    p.add_argument("--shares", type=int, nargs="+", default=[20, 50], help="percent hidden")
    p.add_argument("--skip", nargs="*", default=[], help="methods, such as missForest")
    p.add_argument("--seeds", type=int, default=2, help="trainings of ours")
    p.add_argument("--steps", type=int, default=1_500)
    args = p.parse_args()
    methods = OTHERS | {
        f"TableVAE, seed {s}": lambda y, kinds, s=s: ours(y, kinds, s, args.steps)
        for s in range(args.seeds)
    }
    for share in args.shares:
        frame, kinds, gaps = read(args.folder, share)
        y = frame.mask(gaps).to_numpy()
        for name, fill in methods.items():
            if name in args.skip:
                continue
            start = time.perf_counter()
            found = errors(fill(y, kinds), frame, kinds, gaps)
            told = "  ".join(f"{kind} {e:.4f}" for kind, e in found.items())
            seconds = time.perf_counter() - start
            print(f"{args.folder.name} {share} %  {name:18} {told}  {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
