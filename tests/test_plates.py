import re
from io import BytesIO
from pathlib import Path

import diagrams
import pyro
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Ellipse, FancyArrowPatch
from pyro import distributions as dist

import pyrovae as pv
from pyrovae.plots.layout import arrange
from pyrovae.program import Node

PICTURES = Path(__file__).parent / "pictures"


def described(figure):
    """All that is drawn and where, in points, line by line; whatever draws the lines and letters.

    Arrows by the names of the nodes that they join, a node by the text in it or a dot's beside it.
    """
    [axes] = figure.axes
    width, height = 72 * figure.get_size_inches()
    assert axes.get_position().bounds == (0, 0, 1, 1)
    assert (*axes.get_xlim(), *axes.get_ylim()) == pytest.approx((0, width, 0, height))
    nodes = {a: named(a, axes.texts) for a in axes.patches if isinstance(a, Ellipse)}
    lines = [f"{width:.0f} x {height:.0f}"]
    for a in axes.patches:
        face = to_hex(a.get_facecolor(), keep_alpha=True)
        if isinstance(a, FancyArrowPatch):
            bend = a.get_connectionstyle().rad
            lines.append(
                f"{nodes[a.patchA]} -> {nodes[a.patchB]}" + f", bent by {bend}" * bool(bend)
            )
        elif a in nodes:
            size = f"{a.width:.0f} x {a.height:.0f}"
            lines.append(f"{nodes[a]} at {point(a.center)}, {size} in {face}")
        else:
            x, y = a.get_x(), a.get_y()
            corner = point((x + a.get_width(), y + a.get_height()))
            lines.append(f"frame from {point((x, y))} to {corner} in {face}")
    for t in axes.texts:
        how = f"{t.get_ha()} {t.get_va()}, size {t.get_fontsize():.0f} in {to_hex(t.get_color())}"
        lines.append(f"{t.get_text()!r} at {point(t.get_position())}, {how}")
    return "\n".join(lines) + "\n"


def point(place):
    return "({:.0f}, {:.0f})".format(*place)


def named(node, texts):
    """The text in the middle of a node, or on the left of a dot."""
    x, y = node.center
    dot = node.width < 10
    return next(
        t.get_text()
        for t in texts
        if t.get_position() == (x - 8 * dot, y) and t.get_ha() == ("right" if dot else "center")
    )


@pytest.mark.parametrize("program", diagrams.ALL, ids=lambda p: p.__name__)
def test_looks_as_it_did(program):
    """Pictures that were looked at; `described(figure)` written there makes them anew."""
    model, guide, data, plate = program()
    figure = pv.plots.plates(model, guide, *data, plate=plate)
    assert described(figure) == (PICTURES / f"{program.__name__}.txt").read_text()
    figure.savefig(BytesIO(), format="svg")


def test_says_what_it_shows():
    vae = pv.VAE(4, 2, (3,))
    said = pv.plots.plates(vae.model, vae.guide, torch.zeros(5, 4)).get_label()
    model, guide = re.match(r"model (.*) guide (.*)", said).groups()
    for half, parts in (
        (model, ("P(z) P(x|z)", "θ: VAE.decoder", "25 numbers", "shapes x")),
        (guide, ("Q(z|x)", "φ: VAE.encoder", "31 numbers", "shapes z", "N = 5")),
    ):
        assert not [p for p in parts if p not in half]


def boxes(diagram):
    for s in diagram.spots.values():
        yield s.node, (s.x - s.width, s.y - s.height, s.x + s.width, s.y + s.height)
        if s.label:
            yield s.node, (s.label.left, s.label.bottom, s.label.right, s.label.top)


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def many():
    """Global and local latents, two plates beside each other, one in another, long names."""
    plain = [
        Node("mu", "latent", "Normal", ()),
        Node("covariance", "latent", "LKJCholesky", ()),
        Node("z", "latent", "MultivariateNormal", ("data",), ("mu", "covariance")),
        Node("a rather long name", "latent", "RelaxedOneHotCategorical", ("data",)),
        Node("word", "observed", "Categorical", ("data", "words"), ("z", "a rather long name")),
        Node("pixel", "observed", "Bernoulli", ("data", "pixels"), ("z", "mu")),
        Node("loose", "observed", "Normal", ("others",), ("covariance",)),
        Node("y", "observed", "Normal", ("data",), ("z", "word")),
    ]
    return [Node("θ", "parameter", "", ()), *plain], ("data", "words", "pixels", "others")


@pytest.mark.parametrize("upwards", [False, True])
def test_nothing_overlaps(upwards):
    nodes, plates = many()
    nodes[-1] = Node("y", "observed", "Normal", ("data",), ("z", "word", "θ"))
    diagram = arrange(nodes, {p: f"{p}: 10" for p in plates}, upwards=upwards)
    placed = list(boxes(diagram))
    for i, (_, a) in enumerate(placed):
        assert min(a) >= 0
        assert a[2] <= diagram.width
        assert a[3] <= diagram.height
        assert not [n.name for n, b in placed[:i] if overlap(a, b)]
    for frame in diagram.plates:
        name = frame.text.partition(":")[0]
        edges = frame.left, frame.bottom, frame.right, frame.top
        for node, b in placed:
            inside = edges[0] < b[0] and b[2] < edges[2] and edges[1] < b[1] and b[3] < edges[3]
            assert inside if name in node.plates else not overlap(edges, b), (name, node.name)


def test_parents_stand_above_in_the_model_and_below_in_the_guide():
    nodes, plates = many()
    nodes = nodes[1:]
    for upwards in (False, True):
        spots = arrange(nodes, dict.fromkeys(plates, ""), upwards=upwards).spots
        for n in nodes:
            for p in n.parents:
                assert (spots[p].y < spots[n.name].y) == upwards


def test_an_arrow_bends_around_a_node_in_its_way():
    chain = [
        Node("a", "latent", "", ()),
        Node("b", "latent", "", (), ("a",)),
        Node("c", "latent", "", (), ("a", "b")),
    ]
    bends = {(a.start, a.end): a.bend for a in arrange(chain, {}).arrows}
    assert bends["a", "b"] == bends["b", "c"] == 0
    assert bends["a", "c"] != 0


def test_an_arrow_bends_around_what_is_written_in_a_plate():
    nodes = [
        Node("mu", "latent", "Normal", ("components",)),
        Node("c", "latent", "Categorical", ("data",)),
        Node("x", "observed", "Normal", ("data",), ("c", "mu")),
    ]
    for said, bends in (("components: 5", True), ("", False)):
        arrows = arrange(nodes, {"components": said, "data": "data: N = 100"}).arrows
        [bend] = [a.bend for a in arrows if (a.start, a.end) == ("mu", "x")]
        assert bool(bend) == bends, said


def test_mermaid_says_the_same():
    model, guide, data, _ = diagrams.vae()
    text = pv.plots.mermaid(model, guide, *data)
    assert text.startswith("flowchart LR\n")
    assert 'subgraph m_0["data: N = 359"]' in text
    assert '(("z<br/>Normal")):::open' in text
    assert '(("x<br/>Bernoulli")):::shaded' in text
    assert text.count("-->") == 4  # z and theta to x, x and phi to z


def test_mermaid_takes_any_name():
    def model(x):
        with pyro.plate('the "data"', len(x)):
            z = pyro.sample("z</script>", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("end;", dist.Normal(z, 1.0), obs=x)

    text = pv.plots.mermaid(model, None, torch.randn(5), plate='the "data"')
    assert "the #34;data#34;: N = 5" in text
    assert "z#60;#47;script#62;" in text
    assert "guide" not in text


def test_a_site_may_be_called_theta():
    def model(x):
        scale = pyro.param("scale", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("θ", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z * scale, 1.0), obs=x)

    text = pv.plots.mermaid(model, None, torch.randn(5))
    assert '["θ#39;"]' in text
    assert text.count("-->") == 2
    [axes] = pv.plots.plates(model, None, torch.randn(5)).axes
    words = [t.get_text() for t in axes.texts]
    assert words.count("θ") == words.count("θ'") == 1


def test_many_parameters_make_no_long_caption():
    def model(x):
        shift = sum(pyro.param(f"p{i}", torch.tensor(0.0)) for i in range(9))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z + shift, 1.0), obs=x)

    [axes] = pv.plots.plates(model, None, torch.randn(5)).axes
    caption = [t.get_text() for t in axes.texts if "shapes" in t.get_text()]
    assert caption == [f"θ: p{i}, 1 number, shapes x" for i in range(5)]
    assert "and 4 more" in [t.get_text() for t in axes.texts]
