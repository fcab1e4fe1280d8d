"""The pictures of a run: what its evidence, its training and its model show."""

__all__ = ["best_epoch", "of_evidence", "of_run", "overview"]

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from pyrovae import plots
from pyrovae.data.rows import Rows
from pyrovae.data.splits import Splits
from pyrovae.evidence.results import Evidence
from pyrovae.models.base import Decodes, Encodes, HasPrior, Model
from pyrovae.rng import seeded

Figure = Any  # of matplotlib, which plots alone knows
SHOWN = 10_000  # data in the picture of the latent space, at most


def of_evidence(
    evidence: Evidence, x: Tensor | Rows, shape: tuple[int, int] | None
) -> dict[str, Figure]:
    """Returns the pictures of evidence by name, of images also those of the extreme data.

    Args:
        evidence: Of all data.
        x: The data, `(N, D)`.
        shape: Height and width of an image; `None` where data are none.
    """
    best = evidence.best()
    figures = {"histogram": plots.histogram(evidence)}
    if evidence.num_samples:
        figures["evidence"] = plots.convergence(evidence)
    for name in ("importance", "prior"):
        if name in evidence.estimates:
            figures[f"khat_{name}"] = plots.khats(evidence, name)
    bounds = [e for e in evidence.estimates.values() if e.kind.bound == "mean"]
    for e in [e for e in (*evidence.ranked(), *bounds) if e.name != best.name][:1]:
        figures["two_estimates"] = plots.against(evidence, e.name, best.name)
    if shape:
        order = best.value.argsort()
        ten = min(10, len(order))
        rows = [x[order[:ten]].cpu(), x[order.flip(0)[:ten]].cpu()]
        labels = [f"lowest\n{best.value.min():.1f}", f"highest\n{best.value.max():.1f}"]
        title = "Data of lowest and of highest log p(x), nats"
        figures["extremes"] = plots.images(rows, labels, shape, title)
    return figures


def best_epoch(history: Mapping[str, Any]) -> int:
    """Returns the epoch that is kept: of the highest validation ELBO, without any the last."""
    valid = history.get("valid_elbo")
    if not valid:
        return len(history.get("elbo", ()))
    return 1 + max(range(len(valid)), key=lambda i: valid[i] if isfinite(valid[i]) else -inf)


@torch.no_grad()
def overview(
    model: Model | None,
    x: Tensor,
    shape: tuple[int, int] | None,
    history: Mapping[str, Any],
    evidence: Evidence,
) -> dict[str, Any]:
    """Returns the pictures of a run by name, of a model that can decode also those of data x."""
    figures = {}
    if evidence.num_samples:
        figures["evidence"] = plots.convergence(evidence)
    if elbo := history.get("elbo"):
        valid = history.get("valid_elbo") or []
        objective = str(evidence.protocol.get("objective", "elbo"))
        figures["training"] = plots.training(elbo, valid, best_epoch(history), objective)
    if not (shape and isinstance(model, Decodes)):
        return figures
    if isinstance(model, Encodes):
        few = x[:12]
        figures["reconstructions"] = plots.images(
            [few, model.decode(model.encode(few).mean).mean],
            ["X", "E[X|z]"],
            shape,
            "Test data and their reconstructions",
        )
    if isinstance(model, HasPrior):
        with seeded(0):
            z = model.prior(x.new_empty(36, 0)).sample()
        figures["samples"] = plots.images(
            list(model.decode(z).mean.split(12)), [""] * 3, shape, "E[X|z] for z from the prior"
        )
    return figures


@torch.no_grad()
def of_run(
    model: Model | None,
    splits: Splits,
    history: Mapping[str, Any],
    evidence: Evidence,
    device: Any,
) -> dict[str, Figure]:
    """Returns the pictures of a run by name, those that its model can give.

    Args:
        model: `None` of a program.
        splits: Its data.
        history: ELBOs by epoch, see `overview`.
        evidence: Of the test data.
        device: Where the model is.
    """
    test = splits.test
    shown = test.x[:SHOWN].to(device)
    figures = overview(model, shown, splits.image_shape, history, evidence)
    if isinstance(model, Encodes):
        means = model.encode(shown).mean
        y = None if test.y is None else test.y[:SHOWN]
        figures["latent_space"] = plots.latent_space(means, y)
        if splits.image_shape and isinstance(model, Decodes) and means.shape[1] == 2:
            figures["manifold"] = plots.manifold(
                lambda z: model.decode(z.to(means)), splits.image_shape
            )
    return figures
