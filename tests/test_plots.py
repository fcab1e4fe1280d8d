import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scenarios import BernoulliDecoder, LinearGaussian
from scipy.stats import norm
from sklearn.decomposition import PCA

import pyrovae as pv
from pyrovae import plots
from pyrovae.plots.figures import signed


def test_convergence_shows_every_estimator_and_the_elbo():
    scenario = BernoulliDecoder()
    evidence = pv.evaluate(
        scenario.model, scenario.guide, scenario.data(10), num_particles=100, seed=0
    )
    figure = plots.convergence(evidence)
    whole, near = figure.axes
    for axes in (whole, near):
        assert axes.get_xscale() == "log"
        assert "nats per datum" in axes.get_ylabel()
        importance, prior, elbo = axes.get_lines()
        assert importance.get_xdata()[[0, -1]].tolist() == [1, 100]
        assert importance.get_ydata()[-1] == pytest.approx(evidence["importance"].mean)
        assert prior.get_ydata()[-1] == pytest.approx(evidence["prior"].mean)
        assert elbo.get_ydata()[0] == pytest.approx(evidence["elbo"].mean)
        assert len(axes.collections) == 2  # the bands
    first = evidence["importance"].path[0].mean()
    assert f"importance sampling {first:.2f} to ".replace("-", "−") in figure.get_label()
    assert f"ELBO {evidence['elbo'].mean:.2f}".replace("-", "−") in figure.get_label()
    assert "-" not in "".join(t.get_text() for t in whole.get_legend().get_texts())
    low, high = near.get_ylim()
    assert low < evidence["elbo"].mean < evidence["importance"].mean < high


def test_convergence_of_one_estimator():
    scenario = BernoulliDecoder()
    for name in ("elbo", "importance", "prior"):
        evidence = pv.evaluate(
            scenario.model, scenario.guide, scenario.data(3), num_particles=1, seed=0,
            estimators=[name],
        )  # fmt: skip
        assert isinstance(plots.convergence(evidence), Figure)


def test_convergence_of_as_many_draws_as_it_takes():
    scenario = BernoulliDecoder()
    evidence = pv.evaluate(
        scenario.model, scenario.guide, scenario.data(3), num_particles="auto", tolerance=0.1,
        estimators=["importance"], seed=0,
    )  # fmt: skip
    text = f"per datum: importance sampling {evidence['importance'].mean:.2f}."
    assert text.replace("-", "−") in plots.convergence(evidence).get_label()


def test_training():
    [axes] = plots.training([-3.0, -2.0, -1.5], [-3.1, -1.9, -2.0], 2).axes
    said = axes.figure.get_label()
    numbers = [float(n.replace("−", "-")) for n in re.findall(r"−?\d+(?:\.\d+)?", said)]
    assert numbers == [1, 3, -3.0, -1.5, -3.1, -2.0, -1.9, 2]  # epochs, courses, kept
    assert said.startswith("ELBO in nats per datum")
    train, valid, best = axes.get_lines()
    assert train.get_ydata().tolist() == [-3.0, -2.0, -1.5]
    assert valid.get_ydata().tolist() == [-3.1, -1.9, -2.0]
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (2, -1.9)
    low, high = axes.get_ylim()
    assert low < -3.1
    assert high > -1.5
    assert len(plots.training([-1.0], [], 1).axes[0].get_lines()) == 1
    [axes] = plots.training([-3.0, -2.0], [-math.inf, -2.5], 2, "iwae").axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0].startswith("iwae, training")
    assert labels[1].startswith("ELBO, validation")
    assert axes.get_ylabel() == "nats per datum"
    [axes] = plots.training([-3.0, -2.0], [-2.5, -2.6], 2, criterion=[-2.4, -2.2]).axes
    assert (axes.get_lines()[-1].get_xdata()[0], axes.get_lines()[-1].get_ydata()[0]) == (2, -2.2)
    assert "highest −2.500, their criterion from −2.40" in axes.figure.get_label()


def test_notes_stand_below_their_images():
    rows = [torch.rand(3, 6), torch.rand(2, 6)]
    figure = plots.images(rows, ["a", "b"], (2, 3), "", [[7, -1, "x"], [0, 9]])
    [axes] = figure.axes
    assert [t.get_text() for t in axes.texts] == ["7", "\N{MINUS SIGN}1", "x", "0", "9"]
    tops = [image.get_extent()[2] for image in axes.images]  # of y, which grows downwards
    below = [t.get_position()[1] for t in axes.texts]
    assert all(low > bottom for low, bottom in zip(below, tops, strict=True))
    assert below[0] < axes.images[3].get_extent()[3]


def test_latent_space():
    z, y = torch.randn(20, 2), torch.arange(20) % 3
    [axes] = plots.latent_space(z, y).axes
    assert len(axes.collections) == 3
    shown = np.concatenate([c.get_offsets() for c in axes.collections])
    assert {tuple(p) for p in shown.round(6)} == {tuple(p) for p in z.numpy().round(6)}
    assert plots.latent_space(z[:, :1], None).axes[0].get_xlabel() == "z 1"


def test_latent_space_of_many_dimensions_is_its_principal_components():
    z = torch.randn(500, 5) * torch.tensor([0.1, 3.0, 0.1, 1.0, 0.1]) + 7
    [axes] = plots.latent_space(z, None).axes
    points = axes.collections[0].get_offsets()
    np.testing.assert_allclose(points.std(0), z[:, [1, 3]].std(0), rtol=0.05)
    assert axes.get_xlabel() == "principal component 1 (90% of the variance)"


def test_a_manifold_of_a_decoder_in_float64(float32):
    vae = pv.VAE(x_dim=4, z_dim=2, hidden_dims=(3,)).double()
    for decode, dtype in ((vae.decode, None), (lambda z: vae.decode(z), torch.float64)):
        figure = plots.manifold(decode, (2, 2), size=3, dtype=dtype)
        assert figure.axes[0].images[0].get_array().count() == 9 * 4


def test_manifold_runs_right_in_z1_and_up_in_z2():
    class Delta:
        def __init__(self, mean):
            self.mean = mean

    figure = plots.manifold(lambda z: Delta(z[:, :1]), (1, 1), size=3)
    tiles = figure.axes[0].images[0].get_array()
    assert tiles.mask[1::2].all()  # gaps between rows of tiles, and columns
    assert tiles.mask[:, 1::2].all()
    q = norm.ppf([0.05, 0.5, 0.95])
    np.testing.assert_allclose(tiles[::2, ::2], np.tile(q, (3, 1)), atol=1e-6)
    figure = plots.manifold(lambda z: Delta(z[:, 1:]), (1, 1), size=3)
    tiles = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(tiles[::2, ::2], np.tile(q[::-1, None], (1, 3)), atol=1e-6)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["−1.64", "0.00", "1.64"]


def test_images():
    rows = [torch.rand(3, 6), torch.rand(2, 6)]
    figure = plots.images(rows, ["X", ""], (2, 3), "title")
    [axes] = figure.axes
    drawn = {tuple(i.get_extent()): i.get_array() for i in axes.images}
    assert len(drawn) == 5
    tops = sorted({top for _, _, _, top in drawn})  # downwards, as y runs
    for row, top in zip(rows, tops, strict=True):
        shown = [drawn[place] for place in sorted(drawn) if place[3] == top]
        np.testing.assert_allclose(np.stack(shown), row.reshape(-1, 2, 3))
    assert [t.get_text() for t in axes.get_yticklabels()] == ["X", ""]
    means = (f"{r.mean():.2f}" for r in rows)
    text = "title. X: 3 images of mean {}; row 2: 2 images of mean {}."
    assert figure.get_label() == text.format(*means)
    low, high = axes.get_ylim()
    for left, right, bottom, top in drawn:
        assert (right - left, bottom - top) == pytest.approx((3, 2))
        assert axes.get_xlim()[0] < left < right < axes.get_xlim()[1]
        assert high < top < bottom < low


def test_no_image_is_cut_off_at_white_or_black():
    for rows, limits in (([torch.rand(3, 6)], (0, 1)), ([torch.tensor([[-2.0, 3.0]])], (-2, 3))):
        figure = plots.images(rows, ["X"], (1, rows[0].shape[1]), "title")
        assert {i.get_clim() for i in figure.axes[0].images} == {limits}


def test_a_strip_is_as_high_as_can_be_seen():
    [axes] = plots.images([torch.rand(2, 40)], ["X"], (1, 40), "title").axes
    assert {i.get_extent()[2] - i.get_extent()[3] for i in axes.images} == {10}


def test_save_is_a_png(tmp_path):
    plots.save(plots.training([-1.0, -0.5], [], 2), tmp_path / "deep" / "a.png")
    assert (tmp_path / "deep" / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def evidence():
    scenario = BernoulliDecoder()
    return pv.evaluate(
        scenario.model, scenario.guide, scenario.data(40), num_particles=200, seed=0,
        estimators=["elbo", "importance", "prior", "ais", "quadrature"], num_temperatures=5,
    )  # fmt: skip


def test_two_estimates_against_each_other(evidence):
    above, below = plots.against(evidence, "prior", "quadrature").axes
    points = np.concatenate([line.get_xydata() for line in above.get_lines()[:-1]])
    expected = np.stack([evidence["prior"].value, evidence["quadrature"].value], 1)
    assert np.array_equal(np.sort(points, 0), np.sort(expected, 0))
    assert below.get_ylabel() == "difference (nats)"
    words = [text.get_text() for text in above.get_legend().get_texts()]
    assert sum(int(word.split("(")[1].rstrip(")")) for word in words) == 40


def test_histogram_is_of_the_best_estimate(evidence):
    [axes] = plots.histogram(evidence).axes
    assert axes.get_xlabel() == "log p(x) by quadrature (nats)"
    assert sum(patch.get_height() for patch in axes.patches) == 40


def test_differences_of_two_models(evidence):
    c = pv.compare(evidence, evidence, estimator_a="quadrature", estimator_b="elbo")
    figure = plots.differences(c)
    [axes] = figure.axes
    bars, band = axes.patches[:-1], axes.patches[-1]
    assert sum(bar.get_height() for bar in bars) == 40
    middle = sum(b.get_height() * (b.get_x() + b.get_width() / 2) for b in bars) / 40
    assert middle == pytest.approx(c.mean, abs=bars[0].get_width() / 2)
    assert band.get_x() == pytest.approx(c.mean - 2 * c.error)
    assert band.get_width() == pytest.approx(4 * c.error)
    assert f"mean {c.mean:.3f}" in figure.get_label()


def test_khats_stand_on_the_page(evidence):
    [axes] = plots.khats(evidence).axes
    points = np.concatenate([line.get_xydata() for line in axes.get_lines()[:-2]])
    assert len(points) == 40
    assert np.isfinite(points).all()
    assert axes.get_xscale() == "log"


def test_convergence_draws_a_line_for_annealing_and_quadrature(evidence):
    whole, _ = plots.convergence(evidence).axes
    labels = [text.get_text().split(":")[0] for text in whole.get_legend().get_texts()]
    assert labels == ["importance sampling", "naive sampling", "ELBO", "annealing", "quadrature"]


def test_calibration_shows_what_leaves_the_band():
    scenario = LinearGaussian.make()
    result = pv.calibrate(
        scenario.model, lambda x: scenario.mean_field(x, 0.6), torch.zeros(200, 5), seed=0,
        num_temperatures=2,
    )  # fmt: skip
    [axes] = plots.calibration(result).axes
    assert len(axes.get_lines()) == 2
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["95 % band", "z[0]", "z[1]"]


def a_certificate(n):
    """Of n data whose bounds are multiples of 1/8, unordered; each fourth is not certified."""
    index = torch.arange(n, dtype=torch.float64)
    value = -((index * 7) % n)
    fine = index.long() % 4 > 0
    half = torch.where(fine, 0.0625, 1.0) * (1 + index % 3)  # of the gap
    error = half / 4
    words = tuple("certified" if f else "chains do not meet" for f in fine.tolist())
    sides = {"lower": value - half, "upper": value + half}
    return pv.Certificate(
        value, error, lower_error=error, upper_error=error, certified=fine, reasons=words,
        temperatures=index.long(), num_draws=index.long(), tolerance=0.5, seconds=1.0, **sides,
    )  # fmt: skip


def segments(axes):
    """Ends of the lines of each collection, (places, 2, x and y), in the order of their places."""
    found = [np.array(c.get_segments()) for c in axes.collections]
    return [lines[lines[:, 0, 0].argsort()] for lines in found]


def test_intervals_are_those_of_all_data_in_their_order():
    c = a_certificate(20)
    left, right = plots.intervals(c).axes
    order = c.value.argsort()
    lines = segments(left)  # let out and bare, of what is certified and of what is not
    for chosen, (outer, inner) in ((c.certified, lines[:2]), (~c.certified, lines[2:])):
        kept = order[chosen[order]]
        places = 1 + torch.nonzero(chosen[order])[:, 0]
        assert inner[:, 0, 0].tolist() == places.tolist()
        np.testing.assert_array_equal(inner[:, :, 1], torch.stack([c.lower, c.upper], 1)[kept])
        np.testing.assert_array_equal(outer[:, :, 1], torch.stack(c.interval(2), 1)[kept])
    marks = left.get_lines()
    assert len({m.get_marker() for m in marks}) == len({m.get_color() for m in marks}) == 2
    words = [text.get_text() for text in left.get_legend().get_texts()]
    assert words == ["certified (15)", "not certified (5)"]
    assert left.get_ylabel() == "log p(x) (nats)"
    certified, others, tolerance, twice = right.get_lines()
    assert certified.get_ydata().max() == c.gap[c.certified].max()
    assert sorted(others.get_ydata()) == c.gap[~c.certified].sort().values.tolist()
    points = np.concatenate([certified.get_xydata(), others.get_xydata()])
    heights = points[points[:, 0].argsort(), 1]
    assert (np.diff(heights) >= 0).all()
    assert (tolerance.get_ydata()[0], twice.get_ydata()[0]) == (0.5, 1.0)
    assert right.get_yscale() == "log"
    outer = segments(right)[1][:, :, 1]
    np.testing.assert_allclose(outer[:, 1], 1.5 * outer[:, 0])  # errors of half the gap
    text = plots.intervals(c).get_label()
    assert "15 certified to 0.5 nats" in text
    assert "5 not certified (5 chains do not meet)" in text


def test_intervals_of_many_data_are_no_large_file():
    for n in (500, 501, 5_000):
        figure = plots.intervals(a_certificate(n))
        assert all(m.get_rasterized() == (n > 500) for m in figure.axes[0].get_lines())
    assert len(plots.as_url(figure)) < 300_000


def test_intervals_that_have_no_end_or_no_width():
    c = a_certificate(8)
    low = c.lower.clone()
    low[0], low[4] = -torch.inf, -1e6  # not certified
    left, _ = plots.intervals(replace(c, lower=low)).axes
    assert left.get_ylim()[0] > -30  # the others are still told apart
    none = torch.full_like(low, -torch.inf)
    plots.as_url(plots.intervals(replace(c, value=none, lower=none, upper=none)))
    zero = torch.zeros_like(low)
    exact = replace(c, lower=c.value, upper=c.value, lower_error=zero, upper_error=zero)
    _, right = plots.intervals(exact).axes
    assert right.get_lines()[0].get_ydata().tolist() == [0.0005] * 6
    for fine in (zero > 0, zero == 0):
        words = tuple("certified" if f else "chains do not meet" for f in fine.tolist())
        text = plots.intervals(replace(c, certified=fine, reasons=words)).get_label()
        assert ("not certified" in text, "their mean" in text) == (not fine.all(), fine.all())


def test_lines():
    values = {"a": [1.0, 2.0, 4.0], "b": torch.tensor([0.0, 0.0, 1.0])}
    words = {"xlabel": "dimensions", "ylabel": "nats per datum", "title": "t"}
    [axes] = plots.lines(
        [1, 10, 100], values, errors={"a": [0.1, 0.2, 0.5]}, log_x=True, **words
    ).axes
    a, b = axes.get_lines()
    assert a.get_ydata().tolist() == [1, 2, 4]
    assert b.get_ydata().tolist() == [0, 0, 1]
    [band] = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.8, 5.0)  # two standard errors each way
    assert axes.get_xscale() == "log"
    assert axes.get_legend().get_title().get_text() == "band: 2 standard errors"
    [bare] = plots.lines([1, 2, 3], values, **words).axes
    assert not bare.collections
    assert bare.get_legend().get_title().get_text() == ""


def test_histograms_share_their_bins_and_each_adds_up_to_one():
    values = {"few": torch.zeros(3), "many": torch.linspace(-1, 1, 1000)}
    [axes] = plots.histograms(values, xlabel="nats", title="t", marks={"truth": 0.5}, bins=10).axes
    few, many = axes.containers
    assert [bar.get_x() for bar in few] == [bar.get_x() for bar in many]
    for bars in (few, many):
        assert sum(bar.get_height() for bar in bars) == pytest.approx(1)
    assert axes.get_lines()[0].get_xdata()[0] == 0.5


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("-2.5 +- 0.1 nats, k-hat", "−2.5 ± 0.1 nats, k-hat"),
        ("log p (-1.2e-05), rows 3-7, x)-1", "log p (−1.2e−05), rows 3-7, x)-1"),
        ("lowest\n-35.7", "lowest\n−35.7"),
    ],
)
def test_minus_signs_are_those_of_numbers(text, read):
    assert signed(text) == read


def test_bars():
    [axes] = plots.bars({str(i): i / 2 for i in range(20)}, ylabel="nats", title="t").axes
    assert [bar.get_height() for bar in axes.containers[0]] == [i / 2 for i in range(20)]


def test_bars_may_begin_elsewhere_than_at_0():
    heights = {"a": -1.0, "b": -3.0}
    [axes] = plots.bars(heights, bottoms={"a": -2.0}, ylabel="nats", title="t").axes
    drawn = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.containers[0]]
    assert drawn == [(-2, -1), (0, -3)]


def test_contours_hold_their_share_of_the_mass():
    def normal(z):
        return -0.5 * (z / torch.tensor([1.0, 0.5])).square().sum(1) + 7  # not normalised

    points = {"b": torch.randn(9, 2)}
    figure = plots.planes({"a": normal, "b": normal}, points=points, box=(-5, 5, -5, 5), title="t")
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    [lines] = figure.axes[0].collections
    for mass, path in zip((0.95, 0.8, 0.5, 0.2), lines.get_paths(), strict=True):
        radius = np.hypot(path.vertices[:, 0], path.vertices[:, 1] / 0.5)
        assert radius == pytest.approx(np.sqrt(-2 * np.log(1 - mass)), abs=0.1)
    assert len(figure.axes[1].collections[0].get_offsets()) == 9
    with pytest.raises(ValueError, match="no panel 'c'; there are a"):
        plots.planes({"a": normal}, shades={"c": normal}, box=(-1, 1, -1, 1), title="t")


def test_few_points_are_told_apart_by_their_labels():
    z, y = torch.randn(30, 2), torch.arange(30) % 3
    [axes] = plots.latent_space(z, y).axes
    assert len(axes.collections) == 3
    paths = [c.get_paths()[0].vertices for c in axes.collections]
    assert not any(
        a.shape == b.shape and np.allclose(a, b) for a, b in zip(paths, paths[1:], strict=False)
    )


def test_principal_axes_are_those_of_sklearn():
    z = torch.randn(50, 4) @ torch.randn(4, 4) + 3
    axes, share = plots.principal_axes(z)
    reference = PCA(2).fit(z.numpy())
    assert np.allclose(share.numpy(), reference.explained_variance_ratio_)
    assert np.allclose(np.abs(np.sum(axes.numpy() * reference.components_, axis=1)), 1)


def test_a_figure_as_a_url_is_the_same_every_time():
    one, two = (plots.as_url(plots.bars({"a": 1}, ylabel="y", title="t")) for _ in range(2))
    assert one == two
    assert one.startswith("data:image/svg+xml;base64,")
