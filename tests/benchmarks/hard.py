"""Verdicts on models with known log p(x), easy and hard: writes docs/hard.md.

python tests/benchmarks/hard.py            # 4 replicates of 48 data each: some 15 minutes
python tests/benchmarks/hard.py --only PPCA --replicates 1 --out /dev/stdout
"""

import argparse
import sys
import warnings
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import known

import pyrovae as pv

ROUNDING = 1e-6  # nats that a number in float64 may be off without a word
HEAD = (
    "model", "estimator", "mean error", "stated s.e.", "covers", "ok", "not contradicted", "other",
    "ok: covers", "ok: mean error", "ok: s.e.",
)  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicates", type=int, default=4)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", default=str(Path(__file__).parents[2] / "docs" / "hard.md"))
    a = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    lines = []
    for model in known.everything(a.rows):
        if a.only not in model.name:
            continue
        runs = [evaluated(model, seed) for seed in range(a.replicates)]
        for name in model.estimators:
            lines.append(line(model, name, [run[name] for run in runs]))
            print("  ".join(lines[-1]), file=sys.stderr)
    rows = [HEAD, ["---"] * len(HEAD), *lines]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    Path(a.out).write_text(TEXT.format(table=table, rows=a.rows, replicates=a.replicates))


def evaluated(model, seed):
    return pv.evaluate(
        model.model, model.guide, model.x, estimators=model.estimators, num_particles=1000,
        seed=seed, **model.options,
    )  # fmt: skip


def line(model, name, estimates):
    error = torch.stack([e.value - model.truth for e in estimates])
    stated = torch.stack([e.std_error for e in estimates])
    words = [word for e in estimates for word in e.verdict()]
    ok = torch.tensor([w == "ok" for w in words]).reshape(error.shape)
    covers = torch.stack([covered(e, model.truth) for e in estimates]).double()
    count, total = Counter(words), len(words)
    other = ", ".join(
        f"{w} {c / total:.0%}" for w, c in count.items() if w not in ("ok", "not contradicted")
    )
    some = bool(ok.any())
    return [
        model.name,
        name,
        f"{error.mean():.3f}",
        f"{stated.nanmean():.3f}",
        f"{covers.mean():.0%}",
        f"{count['ok'] / total:.0%}",
        f"{count['not contradicted'] / total:.0%}",
        other or "-",
        f"{covers[ok].mean():.0%}" if some else "-",
        f"{error[ok].mean():.3f}" if some else "-",
        f"{stated[ok].mean():.3f}" if some else "-",
    ]


def covered(e, truth):
    """Where the stated 95 % interval holds the truth, but for rounding."""
    low, high = e.interval()
    return (low - ROUNDING <= truth) & (truth <= high + ROUNDING)


TEXT = """# Verdicts on models with known log p(x)

The promise of a verdict: where it says *ok*, the stated 95 % interval covers. Here are models
whose log p(x) is known exactly: the easy ones, on which most data deserve an *ok*, above the hard
ones, which are meant to deceive. Each row is {replicates} runs of `pv.evaluate` on {rows} data
with 1,000 draws, and 100 temperatures x 8 particles where it does not say otherwise; errors are in
nats. `covers` is the share of intervals that hold the truth; the last three columns are of the
data called ok alone. `make hard` makes this page.

Naive sampling scores all data on the same draws, so that its errors go together: its coverage in
{replicates} runs scatters more than that of as many data.

{table}
"""


if __name__ == "__main__":
    main()
