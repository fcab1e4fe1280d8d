"""Pictures of evidence: estimates of log P(X), how far they are to be trusted, and calibration."""

__all__ = ["against", "calibration", "convergence", "differences", "histogram", "khats"]

from math import isqrt
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from pyrovae.plots.figures import (
    BLACK,
    BLUE,
    GREEN,
    MUTED,
    ORANGE,
    PURPLE,
    YELLOW,
    canvas,
    signed,
    told,
)

if TYPE_CHECKING:
    from pyrovae.evidence.calibration import Calibration
    from pyrovae.evidence.comparison import Comparison
    from pyrovae.evidence.estimate import Estimate
    from pyrovae.evidence.results import Evidence

COLORS = {
    "importance": BLUE,
    "prior": ORANGE,
    "elbo": GREEN,
    "ais": PURPLE,
    "quadrature": BLACK,
}  # of estimators; those of others are MUTED
WORDS = {
    "ok": GREEN,
    "not contradicted": BLUE,
    "more samples": YELLOW,
    "use ais": ORANGE,
    "more temperatures": ORANGE,
    "a bound": BLUE,
}  # of verdicts; those of other estimators are PURPLE


def convergence(evidence: "Evidence") -> Figure:
    r"""Returns the estimate of log P(X) against number of samples by estimator, with the ELBO.

    Bands are two standard errors of one estimate of that many samples, from the samples alone. The
    right panel is the left one's upper end, around the ELBO.

    .. math::
        L_K = E\Big[\log \tfrac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)}\Big], \quad
        \mathrm{ELBO} = L_1 \le L_K \le L_{2K} \le \log p(x)

    So a curve of importance sampling rises from the ELBO and flattens at log p(x), in nats per
    datum; one that still rises at its right end falls short of that.

    Args:
        evidence: What `evaluate` returned.

    References:
        Importance weighted autoencoders (Burda, Grosse and Salakhutdinov, 2015), theorem 1,
        https://arxiv.org/abs/1509.00519
    """
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    whole, near = figure.subplots(1, 2)
    k = np.array(evidence.num_samples)
    shown = _shown(evidence)
    for axes in (whole, near):
        for e, color in shown:
            label = signed(f"{e.label}: {e.mean:.2f}")
            if _has_course(e):
                mean, error = e.path.mean(1).numpy(), 2 * e.path_error.numpy()
                axes.plot(k, mean, color=color, label=label)
                low, high = mean - error, mean + error
                axes.fill_between(k, low, high, color=color, alpha=0.25, linewidth=0)
            else:
                axes.axhline(e.mean, color=color, linestyle="--", label=label)
        axes.set_xscale("log")
        axes.set(
            xlabel="number of samples per datum", ylabel=f"{evidence.target} (nats per datum)"
        )
        axes.spines[["top", "right"]].set_visible(False)
    means = [e.mean for e, _ in shown if not e.kind.blind] or [e.mean for e, _ in shown]
    margin = max(max(means) - min(means), 0.01)
    near.set(
        ylim=(min(means) - margin / 2, max(means) + margin / 2), title="the same, near the ELBO"
    )
    whole.set_title(
        f"Held-out {evidence.target}, mean of "
        f"{len(evidence[next(iter(evidence.estimates))].value):,} data"
    )
    whole.legend(frameon=False, loc="lower right", title="band: 2 Monte Carlo standard errors")
    return told(figure, _courses(evidence))


def _courses(evidence: "Evidence") -> str:
    """Returns where each estimator begins and ends, in words, for who does not see the picture.

    Args:
        evidence: Its estimates, means over data in nats, at the fewest and at the most samples; of
            an estimator without a course the mean alone.
    """
    k, words = evidence.num_samples, []
    for e, _ in _shown(evidence):
        ends = e.path.mean(1)[[0, -1]].tolist() if _has_course(e) else [e.mean]
        words.append(f"{e.label} {' to '.join(f'{v:.2f}' for v in ends)}")
    drawn = f", of {k[0]:,} to {k[-1]:,} samples" if k else ""
    return f"Held-out {evidence.target} in nats per datum{drawn}: {', '.join(words)}."


def _shown(evidence: "Evidence") -> "list[tuple[Estimate, str]]":
    """Returns estimates that answer the question, with colours, those of a course first.

    Left out are those that bound nothing (`kind.bound` is "none"). An estimator of a user's own
    takes the next of ten colours, so that two of them differ.

    Args:
        evidence: With its estimates by name.
    """
    others = iter(MUTED * len(evidence.estimates))
    able = [e for e in evidence.estimates.values() if e.kind.bound != "none"]
    able.sort(key=lambda e: not _has_course(e))
    return [(e, COLORS.get(e.name) or next(others)) for e in able]


def _has_course(e: "Estimate") -> bool:
    """Returns whether it has estimates of fewer draws, and those are not all the same mean.

    A mean of logs, such as the ELBO, does not come nearer with more draws, and is drawn as a line.

    Args:
        e: Whose path is `(G, N)`, nats.
    """
    return len(e.path) > 0 and e.kind.bound != "mean" and bool(e.path[0].isfinite().all())


def against(evidence: "Evidence", one: str, other: str) -> Figure:
    """Returns two estimators' per-datum estimates against each other, coloured by verdict.

    The lower panel is their difference, in nats; bars are two of its Monte Carlo standard errors,
    sqrt(se_one^2 + se_other^2). Of two good estimators these reach 0 for about 95 % of the data.

    Args:
        evidence: What `evaluate` returned.
        one: An estimator's name.
        other: Another's.

    Raises:
        KeyError: If the evidence is of no such estimator.
    """
    a, b = evidence[one], evidence[other]
    figure = Figure(figsize=(6, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    words = np.array(a.verdict())
    gap = (b.value - a.value).numpy()
    error = 2 * (a.std_error.square() + b.std_error.square()).sqrt().numpy()
    for word in dict.fromkeys(words):
        chosen = words == word
        x = a.value.numpy()[chosen]
        style = {"color": WORDS.get(word, PURPLE), "label": f"{word} ({chosen.sum():,})"}
        above.plot(x, b.value.numpy()[chosen], "o", markersize=3, **style)
        bars = {"fmt": "o", "markersize": 3, "elinewidth": 0.5, "color": WORDS.get(word, PURPLE)}
        below.errorbar(x, gap[chosen], error[chosen], **bars)
    ends = [a.value.min().item(), a.value.max().item()]
    above.plot(ends, ends, color=BLACK, linewidth=0.8, zorder=0)
    below.axhline(0, color=BLACK, linewidth=0.8, zorder=0)
    title = f"{evidence.target.lower()} of each datum, two estimates"
    above.set(ylabel=f"{b.label} (nats)", title=title)
    below.set(xlabel=f"{a.label} (nats)", ylabel="difference (nats)")
    above.legend(frameon=False, title=f"verdict on {a.label}")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def histogram(evidence: "Evidence") -> Figure:
    """Returns the histogram of log p(x) over data, by the best estimate, with mean and errors.

    Args:
        evidence: What `evaluate` returned; its estimates are `(N,)`, in nats.
    """
    best = evidence.best()
    figure, axes = canvas(6, 4)
    axes.hist(best.value.numpy(), bins="auto", color=BLUE, alpha=0.7)
    label = signed(f"mean {best.mean:.2f} +- {best.data_error:.2f} (data)")
    axes.axvline(best.mean, color=ORANGE, label=label)
    what = evidence.target.lower()
    axes.set(xlabel=f"{what} by {best.label} (nats)", ylabel="data", title=f"{what} of each datum")
    axes.legend(frameon=False)
    return figure


def differences(comparison: "Comparison") -> Figure:
    """Returns the histogram of the difference of two models, datum by datum, with its mean.

    The band is the mean -+ twice its error, of samples and data together.

    Args:
        comparison: What `pv.compare` returned; differences that are not finite are left out.
    """
    c, what = comparison, comparison.target.lower()
    figure, axes = canvas(6, 4)
    d = c.difference[c.difference.isfinite()].round(decimals=6)  # equal but for rounding: one bin
    bins = min(80, max(10, 2 * isqrt(len(d))))  # however far a few data lie
    axes.hist(d.numpy(), bins=bins, color=BLUE, alpha=0.7)
    axes.axvline(0, color=BLACK, linewidth=0.8)
    numbers = f"{c.mean:.3f} +- {c.error:.3f}"
    label = signed(f"mean {numbers}, band: 2 errors")
    if c.difference.isfinite().all():
        axes.axvline(c.mean, color=ORANGE, label=label)
        axes.axvspan(c.mean - 2 * c.error, c.mean + 2 * c.error, color=ORANGE, alpha=0.25, lw=0)
        axes.legend(frameon=False)
    axes.set(xlabel=f"{what} under a less that under b (nats)", ylabel="data")
    axes.set_title("The difference of two models, datum by datum")
    return told(
        figure,
        f"Difference of {what}, a - b, of {len(c.difference):,} data: mean {numbers} nats; "
        f"above 0 for {c.share:.0%}.",
    )


def khats(evidence: "Evidence", name: str = "importance") -> Figure:
    """Returns each datum's k-hat against its effective sample size, coloured by verdict.

    Weights of k-hat above 0.7 have so heavy a tail that their mean, and its standard error, say
    little; an infinite k-hat stands on the upper edge.

    Args:
        evidence: What `evaluate` returned.
        name: An estimator that has k-hats.

    Raises:
        KeyError: If the evidence is of no such estimator.

    References:
        Pareto smoothed importance sampling (Vehtari et al., 2015), https://arxiv.org/abs/1507.02646
    """
    e = evidence[name]
    figure, axes = canvas(6, 4)
    words, k = np.array(e.verdict()), e.pareto_k.numpy()
    ceiling = max(1.0, k[np.isfinite(k)].max(initial=0.0)) + 0.1
    for word in dict.fromkeys(words):
        chosen = words == word
        height = np.minimum(k[chosen], ceiling)
        label = f"{word} ({chosen.sum():,})"
        axes.plot(
            e.ess.numpy()[chosen],
            height,
            "o",
            markersize=3,
            color=WORDS.get(word, PURPLE),
            label=label,
        )
    for bound, word, style in ((0.7, "use ais", "--"), (0.5, "more samples", ":")):
        label = f"above {bound}: {word}"
        axes.axhline(bound, color=BLACK, linewidth=0.8, linestyle=style, label=label)
    axes.set(
        xscale="log",
        xlabel="effective sample size",
        ylabel="Pareto k-hat",
        title=f"{e.label.capitalize()}: can each datum's estimate be trusted?",
    )
    axes.legend(frameon=False, title="verdict")
    return figure


def calibration(result: "Calibration") -> Figure:
    """Returns each latent dimension's ECDF of ranks minus the uniform one, with the 95 % band.

    Of a guide that is the posterior, ranks of the z that made x among its draws are uniform. A
    curve below 0 and then above it tells of a guide too wide, whose draws leave that z in their
    middle; above and then below, of one too narrow; on one side alone, of one that is shifted.

    Args:
        result: What `calibrate` returned.

    References:
        Validating Bayesian inference algorithms with simulation-based calibration (Talts et al.,
        2018), https://arxiv.org/abs/1804.06788
        Graphical test for discrete uniformity and its applications in goodness-of-fit evaluation
        and multiple sample comparison (Säilynoja et al., 2021), https://arxiv.org/abs/2103.10522
    """
    figure, axes = canvas(6, 4)
    uniform = np.arange(1, result.num_samples + 2) / (result.num_samples + 1)
    low, high = result.band - uniform
    axes.fill_between(uniform, low, high, color=BLACK, alpha=0.12, linewidth=0, label="95 % band")
    for ecdf, out, name in zip(result.ecdf.T, result.outside, result.names, strict=True):
        color, label = (ORANGE, name) if out else (BLUE, None)
        axes.plot(uniform, ecdf - uniform, color=color, label=label, linewidth=1)
    axes.set(
        xlabel="rank of z among the guide's draws, as a share",
        ylabel="ECDF minus uniform",
        title="Simulation-based calibration of the guide",
    )
    if result.outside.sum() <= 8:
        axes.legend(frameon=False)
    return figure
