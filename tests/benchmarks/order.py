"""Hidden orders found again along one latent, beside PCA and Isomap; docs/order.md's table.

python tests/benchmarks/order.py FRAMES.npy   # of uint8 (N, D) in film order; half an hour
python tests/benchmarks/order.py              # rotated digits alone
python tests/benchmarks/order.py --epochs 10 --spans 90

Classes of scikit-learn's digits, 16 x 16, each image rotated by a hidden angle, uniform on
0 to 90 or 180 degrees: half of them are trained on, and the others are put in order. Of the film
all frames are trained on and put in order. Nobody is told the order or the angles; |Spearman| and
|Kendall|, for the direction is arbitrary, are means over seeds, and of digits over classes.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import rotate, zoom
from scipy.stats import kendalltau, spearmanr
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import Isomap

import pyrovae as pv

CLASSES = 1, 2, 3, 4, 5, 6, 7, 9  # half a turn leaves 0 and 8 as they are


def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("film", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--spans", type=int, nargs="*", default=[90, 180])
    a = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| data | way | Spearman | Kendall |", "|---|---|---|---|", sep="\n")
    digits = [(c, s) for c in CLASSES for s in range(a.seeds)]
    for span in a.spans:
        report(f"digits, {span} degrees", [(*rotated(c, span, s), s) for c, s in digits], a.epochs)
    if a.film:
        x = np.load(a.film, allow_pickle=False).astype(float) / 255
        film = np.arange(len(x))
        report("film", [(x, x, film, s) for s in range(a.seeds)], max(1, a.epochs // 5))


def rotated(label, span, seed):
    """Images to train on, those to be put in order, and the angles of these."""
    rng, digits = np.random.default_rng(seed), load_digits()
    images = digits.images[digits.target == label] / 16
    angles = rng.uniform(0, span, len(images))
    x = np.stack(
        [
            rotate(np.pad(zoom(i, 1.5, order=1), 2), angle, reshape=False, order=1)
            for i, angle in zip(images, angles, strict=True)
        ]
    ).reshape(len(images), -1)
    order = rng.permutation(len(x))
    train, test = order[: len(x) // 2], order[len(x) // 2 :]
    return x[train], x[test], angles[test]


def report(name, sets, epochs):
    for way, ordered in WAYS.items():
        found = [
            correlations(ordered(train, test, seed, epochs), hidden)
            for train, test, hidden, seed in sets
        ]
        means, spread = np.mean(found, 0), np.std(found, 0)
        cells = [f"{m:.3f} (sd {s:.3f})" for m, s in zip(means, spread, strict=True)]
        print(f"| {name} | {way} | {cells[0]} | {cells[1]} |", flush=True)


def correlations(values, hidden):
    return abs(spearmanr(values, hidden).statistic), abs(kendalltau(values, hidden).statistic)


def along_latent(sigma):
    def values(train, test, seed, epochs):
        train, test = (torch.tensor(x, dtype=torch.float32) for x in (train, test))
        torch.manual_seed(seed)
        normal = pv.likelihoods.make("normal", sigma=sigma)
        vae = pv.VAE(train.shape[1], 1, (128, 64), likelihood=normal).start_at(train)
        pv.svi.fit(
            vae.model, vae.guide, train, num_epochs=epochs, batch_size=64, lr=3e-3,
            lr_schedule="one-cycle", clip_norm=10.0, seed=seed, progress=False,
        )  # fmt: skip
        return pv.order(vae.model, vae.guide, test, along=0, seed=seed).value.numpy()

    return values


WAYS = {
    "first principal component": lambda train, test, *_: PCA(1).fit(train).transform(test)[:, 0],
    "Isomap": lambda train, test, *_: Isomap(n_components=1).fit(train).transform(test)[:, 0],
    "`pv.VAE` of one latent, noise learned": along_latent(None),
    "`pv.VAE` of one latent, noise 0.25": along_latent(0.25),
}

if __name__ == "__main__":
    main()
