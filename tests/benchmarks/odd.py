"""AUROC of -log P(x) on labelled tables, beside other detectors; prints docs/anomalies.md's table.

python tests/benchmarks/odd.py FOLDER      # of .npz with X and y (1 = outlier); minutes on a core
python tests/benchmarks/odd.py FOLDER --seeds 1 --steps 50 --starts 1

Trained on 70 % of the rows, outliers among them, without labels; units of those rows. Which
setting of `pv.TableVAE` is taken is decided by the log P of a fifth of the training rows that it
was not trained on, mean over all sets and seeds: one setting for all. Labels are not looked at.
The score is then that of the mean density of some starts, each trained on all training rows.
"""

import argparse
import warnings
from math import log
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

import pyrovae as pv
from pyrovae.likelihoods import Column, Columns

# tails of the columns, and decay times the number of rows
SETTINGS = [(tails, decay) for tails in ("normal", "student-t") for decay in (500, 50)]


def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--starts", type=int, default=3)
    a = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    files = sorted(a.folder.glob("*.npz"))
    sets = {(f.stem, seed): read(f, seed) for f in files for seed in range(a.seeds)}
    names = [f.stem for f in files]
    print(line("", names, "mean"), line("---", ["---"] * len(names), "---"), sep="\n")
    for label, detector in BASELINES.items():
        report(label, names, sets, {k: detector(d[0], d[1], k[1]) for k, d in sets.items()})
    held = {}
    for setting in SETTINGS:
        found = {k: tried(d[0], d[1], setting, k[1], a.steps) for k, d in sets.items()}
        held[setting] = np.mean([log_p for log_p, _ in found.values()])
        label = f"{told(setting)}: held-out log P {held[setting]:.3f}"
        report(label, names, sets, {k: score for k, (_, score) in found.items()})
    best = max(held, key=held.__getitem__)
    scores = {
        k: -mixed([density(d[0], best, s, a.steps)(d[1]) for s in range(a.starts)])
        for k, d in sets.items()
    }
    report(f"{told(best)}, {a.starts} starts, all rows", names, sets, scores)


def read(path, seed):
    """Training rows, test rows, labels of the test rows."""
    held = np.load(path)
    x, y = held["X"].astype(float), held["y"].astype(int).ravel()
    train, test, _, y = train_test_split(x, y, test_size=0.3, stratify=y, random_state=seed)
    mean, spread = train.mean(0), train.std(0)
    spread[spread == 0] = 1
    return (train - mean) / spread, (test - mean) / spread, y


def density(train, setting, seed, steps):
    """log P of rows, a function of them, under a net that is trained on others."""
    tails, decay = setting
    n, width = train.shape
    x = torch.tensor(train, dtype=torch.float32)
    torch.manual_seed(seed)
    columns = Columns([Column(str(d), "real") for d in range(width)], tails=tails)
    vae = pv.TableVAE(width, min(20, width - 1), likelihood=columns).start_at(x)
    batch = min(n, 256)
    pv.svi.fit(
        vae.model, vae.guide, x, objective="iwae(5)", num_epochs=max(1, round(steps * batch / n)),
        batch_size=batch, lr=5e-3, lr_schedule="one-cycle", optimizer=f"adamw({decay / n})",
        clip_norm=5.0, seed=seed, progress=False,
    )  # fmt: skip

    def log_p(rows):
        rows = torch.tensor(rows, dtype=torch.float32)
        table = pv.importance_sampling(vae.model, vae.guide, rows, num_particles=1_000, seed=seed)
        return table.log_evidence().numpy()

    return log_p


def tried(train, test, setting, seed, steps):
    """Mean log P of a fifth of the training rows, and -log P of the test rows, of the others."""
    order = np.random.default_rng(seed).permutation(len(train))
    held, rest = np.split(order, [len(order) // 5])
    log_p = density(train[rest], setting, seed, steps)
    return log_p(train[held]).mean(), -log_p(test)


def mixed(log_p):
    return np.logaddexp.reduce(log_p, axis=0) - log(len(log_p))


def told(setting):
    return f"`pv.TableVAE`, {setting[0]} columns, decay {setting[1]} / n"


def report(label, names, sets, scores):
    rocs = {k: roc_auc_score(sets[k][2], score) for k, score in scores.items()}
    means = [np.mean([v for k, v in rocs.items() if k[0] == name]) for name in names]
    cells = [f"{m:.3f}" for m in means]
    print(line(label, cells, f"{np.mean(means):.3f}"), flush=True)


def line(label, cells, last):
    return "| " + " | ".join([label, *cells, last]) + " |"


def fitted(make):
    return lambda train, test, seed: -make(train.shape[1], seed).fit(train).score_samples(test)


def neighbours(train, test, seed):
    return NearestNeighbors(n_neighbors=5).fit(train).kneighbors(test)[0][:, -1]


BASELINES = {
    "isolation forest": fitted(lambda d, seed: IsolationForest(random_state=seed)),
    "distance of the fifth nearest neighbour": neighbours,
    "probabilistic PCA, D/2": fitted(lambda d, seed: PCA(d // 2, svd_solver="full")),
    "factor analysis, D/2": fitted(lambda d, seed: FactorAnalysis(d // 2)),
    "five-component GMM": fitted(
        lambda d, seed: GaussianMixture(5, reg_covar=1e-3, random_state=seed)
    ),
}

if __name__ == "__main__":
    main()
