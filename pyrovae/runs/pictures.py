"""The pictures of a run: what its evidence, its training and its model show."""

__all__ = [
    "best_epoch",
    "can",
    "conditions",
    "of_evidence",
    "of_run",
    "reconstructions",
    "samples",
    "training",
]

from collections.abc import Mapping, Sequence
from math import inf, isfinite

import torch
from torch import Tensor

from pyrovae import plots
from pyrovae.certificate import Certificate
from pyrovae.data.rows import Rows
from pyrovae.data.splits import Splits
from pyrovae.evidence.results import Evidence
from pyrovae.models.base import Decodes, Encodes, Generates, HasPrior, Model
from pyrovae.plots.figures import Figure
from pyrovae.rng import seeded

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
    for certificate in list(Certificate.all_in(evidence).values())[:1]:
        figures["intervals"] = plots.intervals(certificate)
    bounds = [e for e in evidence.estimates.values() if e.kind.bound == "mean"]
    for e in [e for e in (*evidence.ranked(), *bounds) if e.name != best.name][:1]:
        figures["two_estimates"] = plots.against(evidence, e.name, best.name)
    if shape:
        order = best.value.argsort()
        ten = min(10, len(order))
        rows = [x[order[:ten]].cpu(), x[order.flip(0)[:ten]].cpu()]
        labels = [f"lowest\n{best.value.min():.1f}", f"highest\n{best.value.max():.1f}"]
        title = f"Data of lowest and of highest {evidence.target.lower()}, nats"
        figures["extremes"] = plots.images(rows, labels, shape, title)
    return figures


def best_epoch(history: Mapping[str, Sequence[float]]) -> int:
    """Returns the epoch that is kept: of the highest validation ELBO, without any the last.

    Args:
        history: "valid_elbo" and "elbo", nats per datum, a number an epoch, or the "criterion"
            that chooses it; of those that are not finite none is the highest.

    Returns:
        Its number from 1; 0 where none is done.
    """
    valid = history.get("criterion") or history.get("valid_elbo")
    if not valid:
        return len(history.get("elbo", ()))
    return 1 + max(range(len(valid)), key=lambda i: valid[i] if isfinite(valid[i]) else -inf)


def can(model: Model | None, *protocols: type) -> bool:
    """Returns whether there is a model of x alone that can do all of that, or of x and y.

    Of more than x, Q(z|X) and P(X|z) are conditional, and have no such pictures; what `Generates`
    draws X given y.

    Args:
        model: `None` of a program.
        protocols: Such as `Encodes`.
    """
    inputs = ("x", "y") if Generates in protocols else ("x",)
    fits = model is not None and model.inputs == inputs
    return fits and all(isinstance(model, protocol) for protocol in protocols)


def training(history: Mapping[str, Sequence[float]], evidence: Evidence) -> Figure:
    """Returns the curves of a training, what was maximised by epoch in nats per datum.

    Args:
        history: By name, "elbo", "valid_elbo" and "criterion".
        evidence: Whose record names the objective; without estimates, what validation data are
            judged by as well.
    """
    valid = history.get("valid_elbo") or []
    objective = str(evidence.protocol.get("objective", "elbo"))
    judged = "elbo" if evidence.estimates else str(evidence.protocol.get("factors", "elbo"))
    objective = judged if objective == "elbo" else objective
    criterion, epoch = history.get("criterion") or [], best_epoch(history)
    return plots.training(history["elbo"], valid, epoch, objective, judged, criterion)


@torch.no_grad()
def reconstructions(model: object, x: Tensor, shape: tuple[int, int]) -> Figure:
    """Returns twelve data, and E[X|z] at the mean of Q(z|X).

    Args:
        model: That encodes and decodes.
        x: Data, `(N, D)`.
        shape: Height and width of an image.
    """
    assert isinstance(model, Encodes)
    assert isinstance(model, Decodes)
    few = x[:12]
    means = model.decode(model.encode(few).mean).mean
    title = "Test data and their reconstructions"
    return plots.images([few, means], ["X", "E[X|z]"], shape, title)


@torch.no_grad()
def samples(model: object, x: Tensor, shape: tuple[int, int]) -> Figure:
    """Returns E[X|z] for 36 draws of the prior.

    Args:
        model: That decodes and has a prior.
        x: Data, of which length, type and device count.
        shape: Height and width of an image.
    """
    assert isinstance(model, HasPrior)
    assert isinstance(model, Decodes)
    with seeded(0):
        z = model.prior(x.new_empty(36, 0)).sample()
    rows = list(model.decode(z).mean.split(12))
    return plots.images(rows, [""] * 3, shape, "E[X|z] for z from the prior")


@torch.no_grad()
def conditions(model: object, x: Tensor, y: Tensor, shape: tuple[int, int]) -> Figure:
    """Returns data, and of the Y of each E[X|Y] and three draws of X ~ P(X|Y).

    Of classes it is the first datum of each, at most twelve; of vectors the first twelve data.
    The mean is that of 200 draws.

    Args:
        model: That generates.
        x: Data, `(N, D)`.
        y: Classes, `(N,)`, of which those below 0 are not known, or vectors `(N, y_dim)`.
        shape: Height and width of an image.
    """
    assert isinstance(model, Generates)
    few, names = torch.arange(min(len(y), 12)), ""
    if y.ndim == 1:
        classes = [c for c in y.unique().tolist() if c >= 0][:12]
        few = torch.tensor([int((y == c).nonzero()[0]) for c in classes])
        names = f", Y = {', '.join(f'{c:g}' for c in classes)}"
    given = y[few].to(x.device)
    draws = model.generate(given.repeat(200, *[1] * (y.ndim - 1)), seed=0)
    draws = draws.unflatten(0, (200, len(given)))
    labels = ["X", "E[X|Y]", *["X ~ P(X|Y)"] * 3]
    title = f"Test data, and draws given Y alone{names}"
    return plots.images([x[few], draws.mean(0), *draws[:3]], labels, shape, title)


@torch.no_grad()
def of_run(
    model: Model | None,
    splits: Splits,
    history: Mapping[str, Sequence[float]],
    evidence: Evidence,
    device: str | torch.device | None,
) -> dict[str, Figure]:
    """Returns the pictures of a run by name, those that its model can give.

    Args:
        model: `None` of a program.
        splits: Its data.
        history: ELBOs by epoch, nats per datum.
        evidence: Of the test data.
        device: Where the model is.
    """
    shape, x = splits.image_shape, splits.test.x[:SHOWN].to(device)
    figures = {}
    if evidence.num_samples:
        figures["evidence"] = plots.convergence(evidence)
    if history.get("elbo"):
        figures["training"] = training(history, evidence)
    y = None if splits.test.y is None else splits.test.y[:SHOWN]
    figures |= _of_images(model, x, y, shape) if shape else {}
    if isinstance(model, Encodes) and can(model):
        means = model.encode(x).mean
        figures["latent_space"] = plots.latent_space(means, y)
        decoder = model if isinstance(model, HasPrior) else None
        if shape and isinstance(decoder, Decodes) and means.shape[1] == 2:
            figures["manifold"] = plots.manifold(lambda z: decoder.decode(z.to(means)), shape)
    return figures


def _of_images(
    model: Model | None, x: Tensor, y: Tensor | None, shape: tuple[int, int]
) -> dict[str, Figure]:
    """Returns the pictures of images by name, those that the model can give.

    Args:
        model: `None` of a program.
        x: Data, `(N, D)`.
        y: Labels, or what else x is given, `(N, ...)`.
        shape: Height and width of an image.
    """
    figures = {}
    if can(model, Encodes, Decodes):
        figures["reconstructions"] = reconstructions(model, x, shape)
    if can(model, HasPrior, Decodes):
        figures["samples"] = samples(model, x, shape)
    if y is not None and can(model, Generates):
        figures["conditions"] = conditions(model, x, y, shape)
    return figures
