"""The page of a run in a browser: make test-browser. It needs Chromium; make test goes without."""

import shutil
from base64 import b64decode
from dataclasses import replace
from functools import cache
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

import pyrovae as pv
from pyrovae import report
from pyrovae.data import Split

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("float32")]
EVIL = "</script><script>alert(1)"


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    names = "chromium", "chromium-browser", "google-chrome"
    path = next(filter(None, map(shutil.which, names)), None)  # or playwright's own
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def path(tmp_path):
    (tmp_path / "report.html").write_text(rendered())
    return tmp_path / "report.html"


@cache
def rendered():
    torch.manual_seed(0)
    vae = pv.VAE(64, 5, (16,))
    x = torch.rand(120, 64).bernoulli()
    evidence = pv.evaluate(vae.model, vae.guide, x, num_particles=2000, seed=0)
    k = torch.where(torch.arange(120) < 50, 0.9, 0.1).double()  # so that verdicts differ
    estimates = {name: replace(e, pareto_k=k) for name, e in evidence.estimates.items()}
    evidence = replace(evidence, estimates=estimates)
    test = Split(x, torch.arange(120) % 4)
    return report.render(vae, test, (8, 8), evidence, {}, {"data": EVIL}, EVIL)


@pytest.fixture
def page(chromium, path):
    """The page, opened from disk; nothing may be asked for, and nothing go wrong."""
    tab, wrong = chromium.new_page(viewport={"width": 1280, "height": 900}), []
    tab.on("console", lambda m: wrong.append(m.text))
    tab.on("pageerror", lambda e: wrong.append(str(e)))
    tab.on("dialog", lambda d: (wrong.append(d.message), d.dismiss()))
    tab.on("request", lambda r: r.url.startswith(("file:", "data:")) or wrong.append(r.url))
    tab.goto(path.as_uri())
    yield tab
    tab.close()
    assert wrong == []


def number(text):
    return float(text.replace("\N{MINUS SIGN}", "-"))


def hovered(page, right, below):
    """What is told with the pointer there, in shares of the plane."""
    page.locator("#latent").scroll_into_view_if_needed()
    box = page.locator("#latent").bounding_box()
    inner = box["width"] - 68, box["height"] - 68  # less the margins
    page.mouse.move(box["x"] + 34 + right * inner[0], box["y"] + 34 + below * inner[1])
    return page.locator("#under").inner_text()


def place(page, datum, plane=0):
    """Where a datum lies, in shares of the plane, and the words that name it."""
    data = page.evaluate("data")
    shown = data["explorer"]["planes"][plane]
    (x, y), low, high = shown["points"][datum], shown["low"], shown["high"]
    columns = data["table"]["columns"]
    words = f"datum {datum}, label {columns['label'][datum]}: log p(x) "
    words += f"\N{MINUS SIGN}{-columns['log p(x)'][datum]:.3f}, {columns['verdict'][datum]}"
    across, up = ((v - a) / (b - a) for v, a, b in ((x, low[0], high[0]), (y, low[1], high[1])))
    return across, 1 - up, words


def decoded(page):
    return page.evaluate("document.getElementById('decoded').toDataURL()")


def column(page, name):
    names = page.locator("#data-table thead th").all_inner_texts()
    index = [n.strip(" \u2191\u2193") for n in names].index(name)
    return page.locator(f"#data-table tbody td:nth-child({index + 1})").all_inner_texts()


def test_the_pointer_moves_through_the_latent_plane(page):
    page.locator("#latent").scroll_into_view_if_needed()
    box = page.locator("#latent").bounding_box()
    seen = set()
    for share in (0.15, 0.5, 0.85):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + share * box["height"])
        seen.add((decoded(page), page.locator("#where").inner_text()))
    assert len({image for image, _ in seen}) == len({where for _, where in seen}) == 3


def test_arrow_keys_do_too(page):
    page.locator("#latent").focus()
    start = decoded(page), page.locator("#where").inner_text()
    for key in ("ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown"):
        before = page.locator("#where").inner_text()
        page.keyboard.press(key)
        assert page.locator("#where").inner_text() != before
    assert (decoded(page), page.locator("#where").inner_text()) == start
    for _ in range(100):
        page.keyboard.press("ArrowRight")  # to the edge and no further
    assert decoded(page) != start[0]


def test_the_other_plane(page):
    before = decoded(page)
    page.locator("#plane").select_option(index=1)
    assert decoded(page) != before


def test_the_datum_under_the_pointer_is_named(page):
    for datum in (0, 7):
        right, below, words = place(page, datum)
        assert hovered(page, right, below) == f"Here lies {words}"
    assert hovered(page, 0, 0) == ""


@pytest.mark.parametrize("keyboard", [False, True])
def test_a_chosen_row_is_marked_in_the_latent_space(page, keyboard):
    line = page.locator("#data-table tbody tr").nth(4)
    datum = int(column(page, "datum")[4])
    before = page.evaluate("document.getElementById('latent').toDataURL()")
    if keyboard:
        line.get_by_role("button").focus()
        page.keyboard.press("Enter")
    else:
        line.locator("td").last.click()
    *_, words = place(page, datum)
    assert page.locator("#marked").inner_text().endswith(f": {words}")
    assert page.locator("#under").inner_text() == f"Here lies {words}"
    assert page.locator("tr[aria-current]").count() == 1
    assert page.locator("#marked .thumb").get_attribute("aria-label") == words
    assert page.evaluate("document.getElementById('latent').toDataURL()") != before
    box = page.locator("#latent").bounding_box()
    assert box["y"] < 900
    page.locator("#plane").select_option(index=1)
    right, below, words = place(page, datum, 1)
    low, high = (page.evaluate("data.explorer.planes[1]")[k] for k in ("low", "high"))
    x, y = (
        page.locator("#marked").inner_text().removeprefix("Marked at ").split(": ")[0].split(", ")
    )
    assert number(x) == pytest.approx(low[0] + right * (high[0] - low[0]), abs=0.006)
    assert number(y) == pytest.approx(high[1] - below * (high[1] - low[1]), abs=0.006)


def test_what_the_other_latents_are_held_at(page):
    for i in (0, 1):
        page.locator("#plane").select_option(index=i)
        assert page.locator("#held").inner_text() == page.evaluate(
            f"data.explorer.planes[{i}].held"
        )
    assert "z " in page.locator("#held").inner_text()


def test_classes_differ_in_shape_and_colour(page):
    marks = page.locator("#legend canvas")
    assert marks.count() == 4
    pictures = [picture(marks.nth(i)) for i in range(4)]
    assert len({tuple((p[..., 3] > 127).ravel()) for p in pictures}) == 4
    assert len({tuple(p[14, 14]) for p in pictures}) == 4
    page.emulate_media(color_scheme="dark")
    for i in range(4):  # told from the paper as WCAG asks it of graphics
        assert contrast(picture(marks.nth(i))[14, 14, :3], (0x16, 0x16, 0x16)) > 3


def picture(canvas):
    url = canvas.evaluate("c => c.toDataURL()")
    return np.asarray(Image.open(BytesIO(b64decode(url.partition(",")[2]))).convert("RGBA"))


def contrast(*colors):
    """The ratio of WCAG."""

    def light(color):
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in color]
        return sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) + 0.05

    high, low = sorted((light([v / 255 for v in c]) for c in colors), reverse=True)
    return high / low


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(page, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.locator("#data-table tbody tr").first.click()
    for summary in page.locator("summary").all():
        summary.click()
    found = Axe().run(page).response
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []
    assert found["passes"]


def test_what_scrolls_is_reached_by_keyboard(page):
    page.set_viewport_size({"width": 390, "height": 900})
    scrolling = """[...document.querySelectorAll('*')].filter(
        e => e.scrollWidth > e.clientWidth && /auto|scroll/.test(getComputedStyle(e).overflowX))
        .map(e => [e.tabIndex, e.getAttribute('role'), e.getAttribute('aria-label')])"""
    found = page.evaluate(scrolling)
    assert len(found) >= 3
    assert all(index == 0 and role == "region" and label for index, role, label in found)


def test_sorting(page):
    shown = [number(v) for v in column(page, "log p(x)")]
    assert shown == sorted(shown)
    page.get_by_role("button", name="log p(x)").click()
    shown = [number(v) for v in column(page, "log p(x)")]
    assert shown == sorted(shown, reverse=True)
    page.get_by_role("button", name="datum").click()
    assert column(page, "datum") == [str(i) for i in range(25)]
    page.get_by_role("button", name="Next").click()
    assert column(page, "datum") == [str(i) for i in range(25, 50)]
    assert page.locator("th[aria-sort]").inner_text().startswith("datum")


def test_filtering(page):
    texts = page.locator("#verdict option").all_inner_texts()
    assert len(texts) > 2
    for i, text in enumerate(texts[1:], 1):
        word, _, count = text.rpartition(" (")
        page.locator("#verdict").select_option(index=i)
        assert page.locator("#count").inner_text() == f"{count.rstrip(')')} of 120 data"
        assert set(column(page, "verdict")) == {word}


def test_words_from_outside_stay_text(page):
    assert page.title() == f"log P(X): {EVIL}"
    page.get_by_text("Configuration").click()
    assert page.locator("dd", has_text=EVIL).is_visible()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_screens_light_and_dark(page, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = page.evaluate(
        "(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))"
    )
    brightness = [sum(map(int, c[4:-1].split(","))) for c in (ink, paper)]
    assert (brightness[0] > brightness[1]) == (scheme == "dark")
    assert all(page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)"))
