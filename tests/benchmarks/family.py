"""The family on one data set with one protocol: writes docs/family.md.

python tests/benchmarks/family.py      # 17 models, 2 seeds: some 10 minutes on two cores
python tests/benchmarks/family.py --only ConvVAE --seeds 1 --epochs 9 --rows 9 --out /dev/stdout
"""

import argparse
import json
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from math import hypot, nan, sqrt
from multiprocessing import get_context
from pathlib import Path
from time import process_time

import torch

import pyrovae as pv
from pyrovae.latents.summary import Codes

PRIORS = {"normal": "normal", "mixture": "mixture(100)", "vamp": "vamp(100)", "flow": "flow"}
POSTERIORS = "diagonal", "full", "flow"
# of which annealing is dear, as classes are summed out, or hard, as the layers' scales are narrow
SAMPLED = "SemiSupervisedVAE", "HierarchicalVAE, ladder"
LABELS = 100  # that the semi-supervised model is told


@dataclass(frozen=True)
class Row:
    label: str
    cls: type[pv.Model]
    options: dict = field(default_factory=dict)
    objective: str = "elbo"


def vae(prior, posterior):
    parts = [f"prior {prior}"] * (prior != "normal") + [f"{posterior} Q"] * (
        posterior != "diagonal"
    )
    options = {"z_dim": 8, "prior": PRIORS[prior], "posterior": posterior}
    return Row(", ".join(["VAE", *parts]), pv.VAE, options)


# of a VampPrior Q(z|u) has to be normal with independent dimensions
GRID = {
    (p, q): vae(p, q) for p in PRIORS for q in POSTERIORS if p != "vamp" or q == "diagonal"
}  # fmt: skip
FAMILY = [
    Row("AutoEncoder", pv.AutoEncoder, {"z_dim": 8}),
    *(GRID[p, "diagonal"] for p in PRIORS),
    *(GRID["normal", q] for q in POSTERIORS[1:]),
    Row("VAE, by IWAE of 8", pv.VAE, {"z_dim": 8}, "iwae(8)"),
    Row("ConvVAE", pv.ConvVAE, {"z_dim": 8}),
    Row("HierarchicalVAE, ladder", pv.HierarchicalVAE, {"z_dims": (8, 4)}),
    Row("HierarchicalVAE, bottom-up", pv.HierarchicalVAE,
        {"z_dims": (8, 4), "direction": "bottom-up"}),
    Row("SemiSupervisedVAE", pv.SemiSupervisedVAE, {"z_dim": 8}, "semi-supervised"),
    Row("CVAE", pv.CVAE, {"z_dim": 8}),
]  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What a model, trained with one seed, came to; nats, (N,) lists of the test data."""

    value: list = field(default_factory=list)
    error: float = 0.0  # Monte Carlo, of the mean
    elbo: float = 0.0  # of an autoencoder, how well data come back
    not_ok: int = 0
    active: int = 0
    units: int = 0
    epoch: int = 0
    seconds: float = 0.0
    accuracy: float = 0.0


def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=359)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="part of a model's label")
    parser.add_argument("--keep", type=Path, help="what is done: a file read, and gone on with")
    parser.add_argument("--out", default=str(Path(__file__).parents[2] / "docs" / "family.md"))
    a = parser.parse_args(arguments)
    rows = {r.label: r for r in [*FAMILY, *GRID.values()] if a.only in r.label}
    runs = {}
    if a.keep and a.keep.exists():
        runs = {(d.pop("label"), d.pop("seed")): Result(**d) for d in read(a.keep)}
    todo = [(r, s) for s in range(a.seeds) for r in rows.values() if (r.label, s) not in runs]
    with ProcessPoolExecutor(a.workers, get_context("spawn")) as pool:
        jobs = [pool.submit(run, row, seed, a.epochs, a.rows) for row, seed in todo]
        for (row, seed), job in zip(todo, jobs, strict=True):
            found = runs[row.label, seed] = job.result()
            print(f"{row.label}, seed {seed}: {told(found)}", file=sys.stderr, flush=True)
            if a.keep:
                with a.keep.open("a") as file:
                    print(
                        json.dumps({"label": row.label, "seed": seed, **asdict(found)}), file=file
                    )
    found = {k: [runs[k, s] for s in range(a.seeds)] for k in rows}
    Path(a.out).write_text(page(found, a))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def told(r):
    return f"{mean(r.value) if r.value else r.elbo:.3f} nats, epoch {r.epoch}, {r.seconds:.0f} s"


def run(row, seed, epochs, rows):
    """Trains a model and evaluates it on the first test data."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    splits = pv.data.load("digits")
    if row.cls is pv.SemiSupervisedVAE:
        hidden = {"train": LABELS, "valid": 0, "test": 0}
        parts = {k: pv.data.hide_labels(getattr(splits, k), n) for k, n in hidden.items()}
        splits = replace(splits, **parts)
    torch.manual_seed(seed)
    model = row.cls.for_data(splits, **row.options)
    train, valid, test = (model.arrays(s) for s in (splits.train, splits.valid, splits.test))
    start = process_time()
    fit = pv.svi.fit(
        model.model, model.guide, train, valid=valid, objective=row.objective,
        num_epochs=epochs, lr=3e-3, lr_schedule="one-cycle", clip_norm=2.0, seed=seed,
        criterion=None if model.guide is None else pv.Importance(8), progress=False,
    )  # fmt: skip
    common = {"epoch": fit.best_epoch, "seconds": process_time() - start}
    test = [part[:rows] for part in test]
    if model.guide is None:
        with torch.no_grad():
            back = model.reconstruction(*test).mean().item()
            code = model.code(*test)
        exact = Codes(code, *[torch.zeros_like(code)] * 3, torch.ones_like(code[0]))
        return Result(elbo=back, **common, **units([exact]))
    semi = isinstance(model, pv.SemiSupervisedVAE)
    best = pv.Importance(5_000) if row.label in SAMPLED else pv.Best()
    evidence = pv.evaluate(
        model.model, model.guide, *test, estimators=[pv.ELBO(1_000), best], seed=seed,
        progress=False,
    )  # fmt: skip
    best = evidence[best.name]
    if semi:
        right = model.classify(test[0]).argmax(1) == pv.data.load("digits").test.y[:rows]
        common["accuracy"] = right.double().mean().item()
    latent = pv.latent(model.model, model.guide, *test, num_particles=200, seed=0)
    return Result(
        best.value.tolist(), best.monte_carlo_error, evidence["elbo"].mean,
        len(best.value) - best.verdict().count("ok"), **common, **units(latent.codes.values()),
    )  # fmt: skip


def units(codes):
    """How many dimensions of z are active, and how many there are; a class has no mean."""
    active = [c.active for c in codes if not c.mean.isnan().any()]
    return {"active": int(sum(a.sum() for a in active)), "units": sum(a.numel() for a in active)}


def mean(numbers):
    return sum(numbers) / len(numbers)


def spread(numbers):
    return torch.tensor(numbers).std().item() if len(numbers) > 1 else nan


def page(found, a):
    reference = found.get("VAE")
    family = [line(r.label, found[r.label], reference) for r in FAMILY if r.label in found]
    noise = [spread([mean(r.value) for r in runs]) for runs in found.values() if runs[0].value]
    grid = [[p, *(cell(found, p, q) for q in POSTERIORS)] for p in PRIORS]
    words = {
        "accuracy": ("SemiSupervisedVAE", "accuracy", "{:.1%}"),
        "back": ("AutoEncoder", "elbo", "{:.2f}"),
    }
    words = {
        key: form.format(mean([getattr(r, name) for r in found[label]])) if label in found else "-"
        for key, (label, name, form) in words.items()
    }
    return TEXT.format(
        family=table(HEAD, family),
        grid=table(["P(z)", *POSTERIORS], grid),
        error=f"{max(r.error for runs in found.values() for r in runs):.3f}",
        noise=f"{sqrt(mean([s * s for s in noise])):.3f}" if noise else "-",
        seeds=a.seeds, last=a.seeds - 1, epochs=a.epochs, rows=a.rows, labels=LABELS, **words,
    )  # fmt: skip


def table(head, lines):
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *lines])


def line(label, runs, reference):
    units = f"{mean([r.active for r in runs]):.0f} of {runs[0].units}"
    seconds = f"{mean([r.seconds for r in runs]):.1f}"
    if not runs[0].value:
        return [label, "none", "-", "-", "-", "-", "-", units, "-", seconds]
    means = [mean(r.value) for r in runs]
    values = torch.tensor([r.value for r in runs]).mean(0)
    bits = [
        f"{mean(means):.3f}",
        f"{sqrt(sum(r.error**2 for r in runs)) / len(runs):.4f}",
        f"{values.std() / sqrt(len(values)):.3f}",
        f"{spread(means):.3f}" if len(runs) > 1 else "-",
        "-",
        f"{mean([r.elbo for r in runs]):.3f}",
        units,
        str(sum(r.not_ok for r in runs)),
        seconds,
    ]
    if reference and reference is not runs and label != "CVAE":
        d = values - torch.tensor([r.value for r in reference]).mean(0)
        noise = hypot(spread(means), spread([mean(r.value) for r in reference])) / sqrt(len(runs))
        noise = noise if len(runs) > 1 else 0.0
        bits[4] = f"{d.mean():+.3f} +- {hypot(d.std() / sqrt(len(d)), noise):.3f}"
    return [f"{label}: log P(X\\|Y)" if label == "CVAE" else label, *bits]


def cell(found, prior, posterior):
    row = GRID.get((prior, posterior))
    if row is None or row.label not in found:
        return "-"
    runs = found[row.label]
    return f"{mean([mean(r.value) for r in runs]):.3f} ({mean([r.elbo for r in runs]):.3f})"


HEAD = [
    "model", "log P(X)", "MC s.e.", "data s.e.", "over seeds", "beyond the VAE", "ELBO",
    "active units", "not ok", "seconds",
]  # fmt: skip
TEXT = """# The family, in nats

What does each model of the family buy? All are trained on the same digits by the same rule, and
judged by log P(X) of {rows} test digits, nats per datum, higher is better. `make family` makes
this page, of {seeds} trainings of each model, in some 10 minutes on two cores.

{family}

- **log P(X)** is the trusted estimate, [each datum's cheapest way](estimators.md) (`pv.Best`);
  *not ok* counts data of all trainings that its verdict does not call ok. Two are by importance
  sampling with 5,000 draws: `SemiSupervisedVAE`, whose classes annealing would have to sum out,
  and the ladder, whose lower layer is too narrow for it. Read these as lower bounds: of the
  ladder, data simulated from the model say that it is a hundredth or two of a nat short, which
  is more than its error allows, and so none of it is called ok.
- **Errors**: *MC s.e.* is what more draws would move, *data s.e.* what other digits would. *Over
  seeds* is the standard deviation between trainings, {noise} on average (root mean square). Two
  models that are not further apart than a few times that cannot be told by so few trainings.
- **Beyond the VAE** is the mean difference from it on the same data, with the error of the data
  and of the trainings. That of the digits alone cancels, which is why it is so much smaller than
  the data s.e.
- The **ELBO** is lower by what the guide costs, the mean of KL(Q(z|X) || P(z|X)). By the ELBO
  alone one would mistake a better guide for a better model.
- **Active units** are the latent dimensions whose mean of Q(z|X) varies over the data by more
  than 0.01 of the variance under P(z) (Burda et al., 2015; `pv.latent`), of all layers together;
  of an `AutoEncoder`, which has no P(z), by more than 0.01. In lower layers, and in a CVAE, a
  P(z) that moves with what is above, or with Y, counts as well.
- **Seconds** are of one core, for the training with its validation.

An `AutoEncoder` has no log P(X): its reconstruction, log P(X|c(X)), is {back} nats and is no
log-density of X. A `CVAE` is told the label: log P(X|Y) is another number, not to be compared
with the others. `SemiSupervisedVAE` was told {labels} of the 1,078 labels, none of the test
data's; it finds {accuracy} of those. `GaussianMixture`, `BayesianGaussianMixture` and
`LinearGaussian` have densities of real numbers, which are no probabilities of 0 and 1: they stand
in no table of nats beside the others.

## Priors and guides

The `VAE` again, P(z) by rows and the family of Q(z|X) by columns: log P(X), and the ELBO in
parentheses.

{grid}

A better prior raises both, the VampPrior log P(X) by far more than the ELBO, which ranks it
behind mixture and flow. With N(0, I) a better guide buys hardly more than another start of the
training does; with a mixture a flow buys more. There is no VampPrior of other guides: it is a
mixture of Q(z|u), of normals with independent dimensions.

## Protocol

Digits of scikit-learn (8 x 8, 1,797), binarized once, P(X = 1) = grey level; 1,078 for training,
359 for validation, 359 for the test, by `pv.data.load("digits")`. Eight latent dimensions; in
the hierarchical model four more above them. Nets with one hidden layer of 256, tanh, but for
`ConvVAE`, which has 16 and 32 channels. Mixture and VampPrior have 100 components, flows four
couplings. Adam, {epochs} epochs of batches of 128, one cycle of learning rates up to 0.003,
gradients clipped at a norm of 2. Each keeps the epoch with the highest log-mean-exp of 8 weights
of the validation data (the autoencoder: the best reconstruction), for the ELBO would favour what
was trained by it. Seeds 0 to {last} fix start, batches and draws; the data are the same. Monte
Carlo errors of a training are at most {error} nats.
"""


if __name__ == "__main__":
    main()
