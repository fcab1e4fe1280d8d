"""Density estimators of scikit-learn and ours on its own data sets: writes a table.

python tests/benchmarks/density.py                 # five data sets: some 10 minutes on one core
python tests/benchmarks/density.py iris wine
"""

import argparse
import time
import warnings

import numpy as np
from sklearn import datasets
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

import pyrovae as pv

NAMES = "iris", "wine", "diabetes", "breast_cancer", "digits"
ESTIMATORS = {
    "VAEDensity": pv.sklearn.VAEDensity(random_state=0),
    "GaussianMixture": GridSearchCV(
        GaussianMixture(random_state=0), {"n_components": range(1, 11)}, error_score=-np.inf
    ),
    "KernelDensity": GridSearchCV(
        KernelDensity(), {"bandwidth": np.geomspace(0.05, 2, 25)}
    ),
    "FactorAnalysis": GridSearchCV(FactorAnalysis(), {}),
}  # fmt: skip


def table(name):
    """X of a data set, `(N, D)`; numbers with a density, as far as may be.

    Digits k = 0, ..., 16 become numbers from [k, k + 1), without pixels that never change;
    diabetes is without its column "sex", which has two values.
    """
    x = getattr(datasets, f"load_{name}")().data
    if name == "diabetes":
        x = np.delete(x, 1, 1)
    if name == "digits":
        x = x[:, x.std(0) > 0]
        x = x + np.random.default_rng(0).uniform(size=x.shape)
    return x


def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=NAMES)
    print(f"| data | rows x columns | {' | '.join(ESTIMATORS)} |")
    print("|---" * (2 + len(ESTIMATORS)) + "|")
    for name in parser.parse_args(arguments).names:
        x = table(name)
        train, test = train_test_split(x, test_size=0.3, random_state=0)
        scaler = StandardScaler().fit(train)
        log_scale = np.log(scaler.scale_).sum()  # nats of the raw data are so many fewer
        ESTIMATORS["FactorAnalysis"].param_grid = {
            "n_components": sorted({k for k in (1, 2, 3, 5, 8, 12, 16, 20, 30) if k < x.shape[1]})
        }
        cells = []
        for label, estimator in ESTIMATORS.items():
            ours, start = label == "VAEDensity", time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                warnings.simplefilter("ignore", UserWarning)  # fits of a grid that fail
                estimator.fit(train if ours else scaler.transform(train))
            inner = estimator if ours else estimator.best_estimator_
            log_p = inner.score_samples(test if ours else scaler.transform(test))
            log_p = log_p - (0 if ours else log_scale)
            error = log_p.std() / len(log_p) ** 0.5
            cells.append(f"{log_p.mean():.2f} +- {error:.2f}")
            print(name, label, cells[-1], getattr(estimator, "best_params_", ""),
                  f"{time.perf_counter() - start:.1f} s", flush=True)  # fmt: skip
        print(f"| {name} | {len(x):,} x {x.shape[1]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
