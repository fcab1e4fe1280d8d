"""Accuracy, log loss and calibration of `pv.classify`, beside others; prints docs/classes.md's.

python tests/benchmarks/classes.py digits          # some minutes on a core, each
python tests/benchmarks/classes.py breast_cancer --seeds 3
python tests/benchmarks/classes.py left-out        # 0, 1 and 2 in turn
python tests/benchmarks/classes.py digits --epochs 2

scikit-learn's data, stratified: half of the rows train, a tenth says when training stops (and how
strongly logistic regression is held back), a fifth calibrates, a fifth is the test; means over
the seeds. Digits are binary, grey > 0.5; breast_cancer is in units of the training rows.
"""

import argparse
import warnings
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from torch import Tensor

import pyrovae as pv
from pyrovae.likelihoods import Column, Columns

PARTS = {"train": 0.5, "valid": 0.1, "calibration": 0.2, "test": 0.2}


class Part(NamedTuple):
    x: Tensor
    y: Tensor

    def of(self, which):
        return Part(self.x[which], self.y[which])


def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["digits", "breast_cancer", "left-out"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=200)
    a = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if a.what == "left-out":
        return left_out(a)
    print(
        "| | accuracy | log loss | calibration error | T | in doubt |\n|---|---|---|---|---|---|"
    )
    rows = {}
    for seed in range(a.seeds):
        parts = read(a.what, seed)
        for label, found in methods(parts, a, seed):
            rows.setdefault(label, []).append(found)
    for label, found in rows.items():
        accuracy, loss, error, t, doubt = np.mean(found, 0)
        cells = [f"{accuracy:.1%}", f"{loss:.3f}", f"{error:.3f}"]
        cells += ["" if np.isnan(v) else show(v) for v, show in
                  ((t, "{:.2f}".format), (doubt, "{:.0%}".format))]  # fmt: skip
        print(f"| {label} | " + " | ".join(cells) + " |")


def read(what, seed):
    held = load_digits() if what == "digits" else load_breast_cancer()
    x, y = held.data, held.target
    if what == "digits":
        x = (x / 16 > 0.5).astype(float)
    rest, parts = np.arange(len(y)), {}
    for name, share in PARTS.items():
        if name == "test":
            parts[name] = rest
            break
        size = round(share * len(y))
        parts[name], rest = train_test_split(rest, train_size=size, stratify=y[rest],
                                             random_state=seed)  # fmt: skip
    if what != "digits":
        x = (x - x[parts["train"]].mean(0)) / x[parts["train"]].std(0)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    return {name: Part(x[rows], y[rows]) for name, rows in parts.items()}


def methods(parts, a, seed):
    """A label and its numbers, of every way to tell a class."""
    train, valid, test = parts["train"], parts["valid"], parts["test"]
    yield "logistic regression on x", regression(parts, lambda x: x)
    vae = fitted(make(train, "vae", seed), (train.x,), (valid.x,), a.epochs, seed)
    means = regression(parts, lambda x: vae.encode(x).mean.detach())
    yield "logistic regression on a VAE's latent means", means
    cvae = fitted(make(train, "cvae", seed), train, valid, a.epochs, seed)
    yield from ours("`pv.CVAE`", cvae.model, cvae.guide, parts, a, seed)
    each = []
    for c in range(int(train.y.max()) + 1):
        own, held = train.of(train.y == c), valid.of(valid.y == c)
        each.append(fitted(make(own, "vae", seed), (own.x,), (held.x,), a.epochs, seed))
    models, guides = [m.model for m in each], [m.guide for m in each]
    yield from ours("a VAE a class", models, guides, parts, a, seed)
    if a.what == "digits":
        few = pv.SemiSupervisedVAE(64, 10, 8, (128,))
        semi = fitted(few, train, valid, a.epochs // 2, seed, objective="semi-supervised")
        p = semi.classify(test.x).double()
        yield "`pv.SemiSupervisedVAE`, its guide", scores(p.numpy(), test.y)
        if seed == 0:  # all classes are summed over in each of ten evaluations
            yield from ours(
                "`pv.SemiSupervisedVAE`, Bayes' rule", semi.model, semi.guide, parts, a, seed
            )


def make(part, kind, seed):
    torch.manual_seed(seed)
    binary = part.x.shape[1] == 64
    columns = Columns([Column(str(d), "real") for d in range(part.x.shape[1])])
    likelihood = "bernoulli" if binary else columns
    count = 10 if binary else 2
    if kind == "cvae":
        model = pv.CVAE(part.x.shape[1], count, 8, (128,), likelihood)
    elif binary:
        model = pv.VAE(64, 8, (128,))
    else:
        model = pv.TableVAE(part.x.shape[1], 8, likelihood=columns)
    return model.start_at(part.x)


def fitted(model, train, valid, epochs, seed, **options):
    decay = 100 / len(train[0])
    pv.svi.fit(
        model.model, model.guide, tuple(train), valid=tuple(valid), num_epochs=epochs,
        batch_size=64, lr=3e-3, lr_schedule="one-cycle", optimizer=f"adamw({decay})",
        clip_norm=5.0, seed=seed, progress=False, **options,
    )  # fmt: skip
    return model


def ours(label, model, guide, parts, a, seed):
    test, start = parts["test"], perf_counter()
    found = pv.classify(
        model, guide, test.x, calibration=tuple(parts["calibration"]), seed=seed,
        estimator=pv.Importance(1_000, proposal=pv.Laplace(1.5)), progress=False,
    )  # fmt: skip
    print(f"{label}: {perf_counter() - start:.0f} s", flush=True)
    doubt = [w not in ("ok", "not contradicted") for w in found.verdict]
    for name, of in ((f"{label}, T = 1", replace(found, temperature=1.0)), (label, found)):
        numbers = of.accuracy(test.y), of.log_loss(test.y), of.calibration_error(test.y)
        yield name, (*numbers, of.temperature, np.mean(doubt))


def regression(parts, of):
    """Logistic regression, held back as the validation rows have it, on all but the others."""
    train, valid, test = (parts[name] for name in ("train", "valid", "test"))
    x, held, new = (of(p.x).numpy() for p in (train, valid, test))

    def loss(c):
        fit = LogisticRegression(C=c, max_iter=5_000).fit(x, train.y)
        return log_loss(valid.y, fit.predict_proba(held))

    best = min((0.001, 0.01, 0.1, 1.0, 10.0), key=loss)
    fit = LogisticRegression(C=best, max_iter=5_000)
    fit.fit(np.concatenate([x, held]), torch.cat([train.y, valid.y]))
    return scores(fit.predict_proba(new), test.y)


def scores(p, y):
    log_p = torch.tensor(np.log(np.maximum(p, 1e-300)))
    zero = torch.zeros(log_p.shape[1], dtype=torch.float64)
    words = [["ok"] * log_p.shape[1]] * len(log_p)
    found = pv.Classified(log_p, torch.zeros_like(log_p), words, zero)
    return found.accuracy(y), found.log_loss(y), found.calibration_error(y), np.nan, np.nan


def left_out(a):
    """Of a class that no model has seen: AUROC of -log P(x), and how many are none of these."""
    parts = read("digits", 0)
    print("| left out | AUROC, -log P(x) | AUROC, logistic regression | none of these, of it | "
          "of the others |\n|---|---|---|---|---|", flush=True)  # fmt: skip
    rows = []
    for c in range(3):
        kept = {name: part.of(part.y != c) for name, part in parts.items()}
        kept = {n: Part(p.x, p.y - (p.y > c).long()) for n, p in kept.items()}
        train = Part(torch.cat([kept["train"].x, kept["valid"].x]),
                     torch.cat([kept["train"].y, kept["valid"].y]))  # fmt: skip
        cvae = fitted(make(kept["train"], "cvae", c), kept["train"], kept["valid"], a.epochs, c)
        odd = parts["test"].of(parts["test"].y == c).x
        new = torch.cat([kept["test"].x, odd])
        found = pv.classify(
            cvae.model, cvae.guide, new, classes=9, calibration=tuple(kept["calibration"]),
            estimator=pv.Importance(40, proposal=pv.Laplace(1.4)), seed=c, progress=False,
        )  # fmt: skip
        is_odd = torch.arange(len(new)) >= len(new) - len(odd)
        fit = LogisticRegression(C=0.1, max_iter=5_000).fit(train.x, train.y)
        unsure = -fit.predict_proba(new.numpy()).max(1)
        ours, theirs = (roc_auc_score(is_odd, s) for s in (-found.log_p_x, unsure))
        none = found.none.double()
        rows.append((ours, theirs, none[is_odd].mean().item(), none[~is_odd].mean().item()))
        print(line(f"{c}", rows[-1]), flush=True)
    print(line("mean", np.mean(rows, 0)))


def line(label, row):
    return f"| {label} | {row[0]:.3f} | {row[1]:.3f} | {row[2]:.0%} | {row[3]:.1%} |"


if __name__ == "__main__":
    main()
