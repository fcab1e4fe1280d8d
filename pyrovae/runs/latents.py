"""The pictures of a run's latent space: its dimensions, and ways through it."""

__all__ = ["along_annealing", "dimensions", "of_latent", "of_sweep"]

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrovae import plots
from pyrovae.evidence.samplers.distortion import RateDistortion
from pyrovae.latents.summary import Codes, Latent
from pyrovae.latents.sweeps import Trained
from pyrovae.latents.walks import spherical, straight, traversals
from pyrovae.models.base import Decodes, Encodes, Model
from pyrovae.plots.figures import Figure, told
from pyrovae.runs.pictures import can

STEPS, SHOWN, MOST = 11, 8, 40  # points of a way, dimensions walked along, and drawn


@torch.no_grad()
def of_latent(
    found: Latent, model: Model | None, x: Tensor, shape: tuple[int, int] | None
) -> dict[str, Figure]:
    """Returns the pictures of a latent space by name, those that the model can give.

    Args:
        found: Of the test data.
        model: What was trained; `None` of a program.
        x: Test data, `(N, D)`, two or more.
        shape: Height and width of an image; `None` where data are none.
    """
    figures = {"latent_kl": dimensions(found)}
    first = next(iter(found.codes.values()))
    if first.mean.shape[1] > 1 and not first.mean.isnan().any():
        figures["latent_components"] = components(first)
    if shape and can(model, Encodes, Decodes):
        assert isinstance(model, Encodes)
        assert isinstance(model, Decodes)
        figures["traversals"] = traversed(model, first, x, shape)
        figures["interpolation"] = interpolated(model, x, shape)
    return figures


def dimensions(found: Latent) -> Figure:
    """Returns the KL of the dimensions of all sites, from the largest on, nats; 40 at most.

    Args:
        found: Of the data.
    """
    every = {
        f"{name} {k + 1}": v
        for name, c in found.codes.items()
        for k, v in enumerate(c.kl.tolist())
    }
    largest = dict(sorted(every.items(), key=lambda item: -item[1])[:MOST])
    rate, error = found.rate()
    active = sum(int(c.active.sum()) for c in found.codes.values())
    size = sum(c.mean.shape[1] for c in found.codes.values())
    title = f"{active} of {size} dimensions are active: {rate:.2f} nats per datum"
    figure = plots.bars(largest, ylabel="KL(q(z|x) || p(z)) (nats)", title=title)
    words = "; ".join(f"{name} {v:.2f}" for name, v in largest.items())
    return told(figure, f"{title}, +- {error:.2f}. KL from the prior: {words}.")


def components(codes: Codes) -> Figure:
    """Returns which share of the variance of the means their first principal components have.

    Args:
        codes: Of a site of two or more dimensions.
    """
    shares = codes.components()[1].cumsum(0)
    number = [float(i) for i in range(1, len(shares) + 1)]
    enough = int((shares < 0.95).sum()) + 1
    title = f"{enough} principal components have 95% of the variance of the means"
    figure = plots.lines(
        number,
        {"share of the variance, added up": shares},
        xlabel="principal components",
        ylabel="share",
        title=title,
    )
    return told(figure, f"{title}; the first has {shares[0]:.0%}.")


def traversed(model: Model, codes: Codes, x: Tensor, shape: tuple[int, int]) -> Figure:
    """Returns E[X|z] where one dimension at a time goes from its least mean to its largest.

    The dimensions are those of largest KL, where each has its own, else the first; the others
    stay at the code of the first datum.

    Args:
        model: That encodes and decodes.
        codes: Of the data.
        x: The data, `(N, D)`.
        shape: Height and width of an image.
    """
    assert isinstance(model, Encodes)
    assert isinstance(model, Decodes)
    z = model.encode(x[:1]).mean[0]
    own = len(codes.kl) == len(z)
    dims = codes.kl.topk(min(SHOWN, len(z))).indices if own else torch.arange(min(SHOWN, len(z)))
    low, high = (end.to(z) for end in (codes.mean.amin(0), codes.mean.amax(0)))
    rows = [model.decode(way).mean for way in traversals(z, dims, low, high, STEPS)]
    labels = [f"z {k + 1}" + f"\n{codes.kl[k]:.2f}" * own for k in dims.tolist()]
    title = "One dimension at a time, from its least mean to its largest" + " (KL, nats)" * own
    return plots.images(rows, labels, shape, title)


def interpolated(model: Model, x: Tensor, shape: tuple[int, int]) -> Figure:
    """Returns E[X|z] on the way from the first datum to the one whose code is farthest from it.

    Args:
        model: That encodes and decodes.
        x: The data, `(N, D)`.
        shape: Height and width of an image.
    """
    assert isinstance(model, Encodes)
    assert isinstance(model, Decodes)
    z = model.encode(x).mean
    a, b = z[0], z[(z - z[0]).norm(dim=1).argmax()]
    ways = {"straight": straight(a, b, STEPS), "spherical": spherical(a, b, STEPS)}
    rows = [model.decode(way).mean for way in ways.values()]
    labels = [f"{name}\nlength {w[len(w) // 2].norm():.1f}" for name, w in ways.items()]
    title = f"From one datum to another: codes of length {a.norm():.1f} and {b.norm():.1f}"
    return plots.images(rows, labels, shape, title)


def of_sweep(option: str, trained: Sequence[Trained]) -> Figure:
    """Returns what was found where one option varied: log P(X) and ELBO, or rate and distortion.

    Args:
        option: "z_dim", or "beta".
        trained: In the order of its values.
    """
    if option == "beta":
        return _rate_distortion(trained)
    best = max(trained, key=lambda t: t.log_p.value)
    title = f"log P(X) of held-out data is highest at {option} = {best.value:g}"
    figure = plots.lines(
        [t.value for t in trained],
        {"log P(X)": [t.log_p.value for t in trained], "ELBO": [t.elbo.value for t in trained]},
        errors={
            "log P(X)": [t.log_p.error for t in trained],
            "ELBO": [t.elbo.error for t in trained],
        },
        xlabel=option,
        ylabel="nats per datum",
        title=title,
    )
    words = "; ".join(
        f"{t.value:g}: {t.log_p.value:.2f} +- {t.log_p.error:.2f}, ELBO {t.elbo.value:.2f}"
        for t in trained
    )
    return told(figure, f"{title}. {words}.")


def along_annealing(curve: RateDistortion) -> Figure:
    """Returns the distortion against the rate of the best codes of one decoder, nats per datum.

    Args:
        curve: Of some data.
    """
    rate, distortion = curve.rate.mean(1), curve.distortion.mean(1)
    title = f"What this decoder's best codes cost and leave out ({curve.rate.shape[1]} data)"
    figure = plots.lines(
        rate.tolist(),
        {"from the prior to the posterior": distortion},
        errors={"from the prior to the posterior": curve.errors()[1]},
        xlabel="rate, KL(q_b || p(z)) (nats per datum)",
        ylabel="distortion, -E log P(X|z) (nats per datum)",
        title=title,
    )
    return told(figure, f"{title}: {curve!r}.")


def _rate_distortion(trained: Sequence[Trained]) -> Figure:
    """Returns the distortion against the rate of trainings by beta, nats per datum.

    Args:
        trained: Each by its beta.
    """
    order = sorted(trained, key=lambda t: t.rate.value)
    title = "What a code costs, and what it leaves out, by beta"
    figure = plots.lines(
        [t.rate.value for t in order],
        {"held-out data": [t.distortion.value for t in order]},
        errors={"held-out data": [t.distortion.error for t in order]},
        xlabel="rate, KL(q(z|x) || p(z)) (nats per datum)",
        ylabel="distortion, -E log P(X|z) (nats per datum)",
        title=title,
    )
    axes = figure.axes[0]
    for t in order:
        axes.annotate(f" {t.value:g}", (t.rate.value, t.distortion.value))
    words = "; ".join(
        f"beta {t.value:g}: rate {t.rate.value:.2f}, distortion {t.distortion.value:.2f}"
        for t in order
    )
    return told(figure, f"{title}. {words}.")
