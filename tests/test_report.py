import html
import json
import re
import shlex
import shutil
from base64 import b64decode
from dataclasses import replace
from datetime import date
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

import pyrovae as pv
from pyrovae import report, runs, storage
from pyrovae.__main__ import main
from pyrovae.data import Split
from pyrovae.likelihoods import Column, Columns

pytestmark = pytest.mark.usefixtures("float32")
EVIL = "</script><script>alert(1)"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run on digits, small; not to be altered."""
    folder = tmp_path_factory.mktemp("run")
    options = "--num-epochs 2 --hidden-dims 8 --num-particles 40 --no-progress".split()
    assert main(["svi", *options, "--z-dim", "3", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(run_folder, tmp_path, undrawn):
    """A copy of it, whose page and pictures are not drawn again."""
    return shutil.copytree(run_folder, tmp_path / "run")


def rendered(z_dim=2, shape=(3, 4), labels=True, binary=True, name="a run"):
    torch.manual_seed(0)
    vae = pv.VAE(12, z_dim, (8,), "bernoulli" if binary else "normal")
    x = torch.rand(30, 12)
    x = x.bernoulli() if binary else x
    evidence = pv.evaluate(vae.model, vae.guide, x, num_particles=50, seed=0)
    y = torch.arange(30) % 3 if labels else None
    page = report.render(vae, Split(x, y), shape, evidence, {}, {"data": EVIL}, name)
    return page, embedded(page), vae, x, evidence


def embedded(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))


def pixels(url):
    picture = Image.open(BytesIO(b64decode(url.partition(",")[2]))).convert("L")
    return np.asarray(picture) / 255


def test_a_run_has_its_page(run_folder):
    page = (run_folder / "report.html").read_text()
    evidence = runs.load_evidence(run_folder)
    assert f"<strong>−{-evidence.best().mean:.3f}</strong>" in page
    first, second, *_ = evidence.reading().splitlines()
    assert first.split(":")[0] not in page  # which is said by the head
    assert second.split(".")[-2] in html.unescape(page)
    day = date.fromtimestamp((run_folder / runs.EVIDENCE).stat().st_mtime)
    heading = re.search("<h1>(.*?)</h1>", page).group(1)
    assert heading.startswith("digits, VAE with 3 latent dimensions, <time datetime=")
    assert f'"{day.isoformat()}">{day.day} {day:%B %Y}<' in heading
    [said] = re.findall(r"A VAE of 64 dimensions \(8 × 8\)[^<]*", page)
    parts = (
        "8 units",
        "3 latent dimensions",
        "bernoulli",
        "1,182 parameters",
        "1,079 rows",
        "digits",
    )
    assert not [p for p in (*parts, "dynamic", "2 epochs", "359", "epoch 2") if p not in said]
    assert evidence.protocol["sha256_test"] in page
    assert len(page) < 5e6
    assert len(embedded(page)["table"]["columns"]["datum"]) == 359
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_the_command_writes_it_anew(run_folder, capsys):
    page = (run_folder / "report.html").read_text()
    (run_folder / "report.html").unlink()
    assert main(["report", str(run_folder)]) == 0
    assert str(run_folder / "report.html") in capsys.readouterr().out
    assert (run_folder / "report.html").read_text() == page


def test_rows_that_were_chosen_are_those_shown(folder):
    options = "--rows 20 --num-particles 30 --estimators elbo importance --no-progress".split()
    assert main(["evidence", str(folder), *options]) == 0
    page = (folder / "report.html").read_text()
    assert "20 of 359 rows" in page
    assert "20 of 359 rows" in runs.load_evidence(folder).reading()
    table = embedded(page)["table"]
    y = pv.data.load("digits").test.y
    assert table["columns"]["label"] == y[torch.arange(20) * 359 // 20].tolist()


def test_the_commands_make_the_numbers_again(folder):
    def shown():
        page = (folder / "report.html").read_text()
        return re.search(r"<pre\b[^>]*>(.*?)</pre>", page, re.DOTALL).group(1).split("\n")[:-1]

    assert main(["report", str(folder)]) == 0  # it is a copy
    assert shown() == [f"python -m pyrovae.svi --config {folder}/config.yaml"]
    options = "--rows 20 --estimators elbo importance --seed 4 --no-progress --num-particles auto "
    options += "--tolerance 0.05 --max-particles 200"
    assert main(["evidence", str(folder), *options.split()]) == 0
    before = runs.load_evidence(folder)
    again = shlex.split(html.unescape(shown()[1]))
    assert again[:3] == ["python", "-m", "pyrovae.evidence"]
    assert main(["evidence", *again[3:], "--no-progress"]) == 0
    after = runs.load_evidence(folder)
    assert dict(after.protocol) == dict(before.protocol)
    assert torch.equal(after["importance"].value, before["importance"].value)


def test_evidence_of_other_data_is_refused(folder, capsys):
    evidence = runs.load_evidence(folder)
    other = evidence.protocol | {"sha256_test": "0" * 64}
    dataset = type(evidence)(evidence.estimates, evidence.num_samples, other).to_xarray()
    storage.write_dataset(folder / runs.EVIDENCE, dataset)
    assert main(["report", str(folder)]) == 5
    assert "other data" in capsys.readouterr().err
    (folder / runs.EVIDENCE).unlink()
    assert main(["report", str(folder)]) == 5
    assert "python -m pyrovae.evidence" in capsys.readouterr().err


def test_words_from_outside_stay_text():
    page, data, *_ = rendered(name=EVIL)
    assert EVIL not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page
    assert page.count("<script") == 2
    assert data["table"]["columns"]["datum"] == list(range(30))


def test_the_explorer_decodes_its_grid():
    _, data, vae, x, _ = rendered()
    [plane] = data["explorer"]["planes"]
    size, low, high = plane["size"], plane["low"], plane["high"]
    sprite = pixels(plane["sprite"])
    assert sprite.shape == (3 * size, 4 * size)
    for row, column in ((0, 0), (size - 1, 0), (3, size - 2)):
        z = torch.tensor([
            low[0] + column / (size - 1) * (high[0] - low[0]),
            high[1] - row / (size - 1) * (high[1] - low[1]),
        ])  # fmt: skip
        tile = sprite[3 * row : 3 * row + 3, 4 * column : 4 * column + 4]
        expected = 1 - vae.decode(z).mean.detach().reshape(3, 4).numpy()
        assert np.abs(tile - expected).max() < 0.05
    means = vae.encode(x).mean
    assert np.allclose(plane["points"], means.detach(), atol=1e-3)
    assert plane["held"] == ""


@pytest.mark.parametrize(("z_dim", "count"), [(1, 1), (2, 1), (5, 2)])
def test_planes_of_any_latent(z_dim, count):
    _, data, vae, x, _ = rendered(z_dim)
    planes = data["explorer"]["planes"]
    assert len(planes) == count
    if z_dim == 5:
        q = vae.encode(x).base_dist
        kl = (q.loc**2 + q.scale**2 - 1).div(2).sub(q.scale.log()).mean(0)
        i, j = kl.topk(2).indices.tolist()
        assert planes[1]["names"][0].startswith(f"z {i + 1} ({kl[i]:.2f} nats)")
        assert np.allclose(planes[1]["points"], q.loc[:, [i, j]].detach(), atol=1e-3)
        means = [f"z {k + 1} = {v:z.2f}".replace("-", "−") for k, v in enumerate(q.loc.mean(0))]
        assert planes[0]["held"].endswith(": " + ", ".join(means) + ".")
        rest = [m for k, m in enumerate(means) if k not in (i, j)]
        assert planes[1]["held"].endswith(": " + ", ".join(rest) + ".")
        z = q.loc.mean(0)  # at which the others are held where the image is decoded
        z[i], z[j] = planes[1]["low"][0], planes[1]["high"][1]
        tile = 1 - vae.decode(z).mean.detach().reshape(3, 4).numpy()
        assert np.abs(pixels(planes[1]["sprite"])[:3, :4] - tile).max() < 0.05


@pytest.mark.usefixtures("undrawn")
def test_numbers_are_told_to_who_does_not_see_them():
    page, *_, evidence = rendered()
    texts = [html.unescape(t) for t in re.findall(r'<img [^>]*alt="([^"]*)"', page)]
    assert len(texts) == 5
    assert f"ELBO −{-evidence['elbo'].mean:.2f}" in texts[0]
    assert "Their labels: 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2." in texts[1]
    few = ", ".join(f"−{-v:.1f}" for v in evidence.best().value[:12])
    assert f"Their log p(x): {few}." in texts[1]
    assert all(re.search(r"\d", t) for t in texts)


@pytest.mark.usefixtures("undrawn")
def test_no_number_has_a_hyphen_for_its_sign():
    page, *_ = rendered(name="a run")
    seen = re.sub(r"<(script|style|pre)\b.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert not re.findall(r"\s\(?-\d.*", seen)
    assert "−" in seen
    assert "+-" not in seen


def test_the_table_is_the_evidence():
    _, data, _, x, evidence = rendered()
    columns = data["table"]["columns"]
    best = evidence.best()
    assert columns["log p(x)"] == [round(v, 3) for v in best.value.tolist()]
    assert columns["verdict"] == best.verdict()
    assert columns["ELBO"] == [round(v, 3) for v in evidence["elbo"].value.tolist()]
    sprite = pixels(data["table"]["sprite"])
    assert np.array_equal(sprite[:, 8:12], 1 - x[2].reshape(3, 4).numpy())


def test_bounds_from_both_sides_are_drawn_and_listed():
    page, shown, vae, x, evidence = rendered()
    assert "between its bounds" not in page
    assert "lower" not in shown["table"]["names"]
    e = evidence["importance"]
    half, none = e.value.new_full((30,), 0.25), 0 * e.value
    code = (half.cumsum(0) > 6) + none
    extras = {
        "lower": e.value - half, "lower_error": half / 2, "upper": e.value + half,
        "upper_error": half / 2, "temperatures": none, "rung": none, "code": code,
    }  # fmt: skip
    both = replace(e, name="sandwich", label="both sides", extras=extras)
    evidence = replace(evidence, estimates={**evidence.estimates, "sandwich": both})
    page = report.render(vae, Split(x), (3, 4), evidence, {}, {}, "a run")
    assert "log p(x) of each datum between its bounds" in page
    assert "of 30 data from both sides: 24 certified to 0.1 nats" in page
    columns = embedded(page)["table"]["columns"]
    np.testing.assert_allclose(columns["lower"], e.value - 0.5, atol=6e-4)
    np.testing.assert_allclose(columns["upper"], e.value + 0.5, atol=6e-4)
    assert embedded(page)["table"]["names"][1:5] == ["log p(x)", "s.e.", "lower", "upper"]


def test_large_data_make_no_large_page(monkeypatch):
    monkeypatch.setattr("pyrovae.report.panel.ROWS", 20)
    monkeypatch.setattr("pyrovae.report.panels.table.THUMBNAILS", 200)
    page, data, *_ = rendered(binary=False)
    table = data["table"]
    assert len(table["columns"]["verdict"]) == 20
    assert table["thumbnails"] < 20
    assert len(data["explorer"]["planes"][0]["points"]) == 20  # any row can be marked
    assert re.search(r"first 20\b.*evidence\.nc", page)


def test_no_more_is_read_of_data_on_disk_than_is_shown(monkeypatch):
    monkeypatch.setattr("pyrovae.report.panel.ROWS", 20)
    _, _, vae, x, evidence = rendered()

    class OnDisk:
        def __getitem__(self, rows):
            assert rows == slice(20)
            return x[rows]

    page = report.render(vae, Split(OnDisk()), (3, 4), evidence, {}, {}, "a run")
    drawn = [b64decode(u).decode() for u in re.findall(r"image/svg\+xml;base64,([^\"]+)", page)]
    assert any("data: N = 30" in svg for svg in drawn)  # and yet the plate counts all


def test_data_without_image_or_label():
    page, data, *_ = rendered(shape=None, labels=False, binary=False)
    assert data["table"]["shape"] == [1, 12]
    assert "label" not in data["table"]["columns"]
    assert "pareto" not in page


def test_rows_of_a_table_are_numbers_and_names_and_no_strips(monkeypatch):
    """What a plane decodes to, by column, and the rows themselves beside their log p(x)."""
    columns = [
        Column("height", "real"),
        Column("verdict", "categorical", ("<b>no", "yes", "maybe")),
        Column("visits", "count"),
    ]
    torch.manual_seed(0)
    x = torch.stack([torch.randn(20), torch.arange(20) % 3, torch.arange(20) % 7], 1)
    x[3, 0] = torch.nan
    vae = pv.TableVAE(3, 2, (4,), Columns(columns)).start_at(x)
    evidence = pv.evaluate(vae.model, vae.guide, x, num_particles=50, seed=0)
    page = report.render(vae, Split(x), None, evidence, {}, {}, "a run")
    data = embedded(page)
    table = data["table"]["columns"]
    assert data["table"]["names"][-3:] == ["height", "verdict (X)", "visits"]
    assert table["height"][:4] == [*(float(f"{v:.5g}") for v in x[:3, 0].tolist()), None]
    assert table["verdict (X)"][:3] == ["<b>no", "yes", "maybe"]
    assert table["visits"][:8] == [0, 1, 2, 3, 4, 5, 6, 0]
    assert data["table"]["thumbnails"] == 0
    (plane,) = data["explorer"]["planes"]
    assert "sprite" not in plane
    assert len(plane["values"]) == plane["size"] ** 2
    low, high = (torch.tensor(plane[k]) for k in ("low", "high"))
    corner = torch.stack([low[0], high[1]])[None]  # the first from the left, at the top
    with torch.no_grad():
        p = vae.decode(corner).base_dist
        told = p.told(p.summary)[0]
    height, verdict, visits = plane["values"][0]
    assert height == pytest.approx(told[0].item(), rel=1e-4)
    assert verdict == columns[1].classes[int(told[1])]
    assert visits == round(told[2].item())
    assert '<td></td></tr><tr><th scope="row">verdict</th>' in page
    assert "reconstructions" not in page
    assert "from the prior: no encoder" not in page
    assert "columns of X the first" not in page
    monkeypatch.setattr(report.panels.table, "CELLS", 45)
    page = report.render(vae, Split(x), None, evidence, {}, {}, "a run")
    assert "Of 3 columns of X the first 2." in page
    assert embedded(page)["table"]["names"][-2:] == ["height", "verdict (X)"]


def test_commands(capsys):
    assert main([]) == main(["--help"]) == 0
    assert "report" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{pv.__version__}\n"
    assert main(["evidnce"]) == 2
    names = "svi, evidence, latent, compare, anomalies, classify, impute, regress, generate, "
    names += "order, report"
    told = f"there is no command 'evidnce'; take {names}"
    assert told in capsys.readouterr().err
    assert main(["report", "nowhere"]) == 5
    assert "nowhere" in capsys.readouterr().err
