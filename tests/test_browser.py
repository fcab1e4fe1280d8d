"""The page of a run in a browser: make test-browser. It needs Chromium; make test goes without."""

import shutil
from dataclasses import replace

import pytest
import torch

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
    torch.manual_seed(0)
    vae = pv.VAE(64, 5, (16,))
    x = torch.rand(120, 64).bernoulli()
    evidence = pv.evaluate(vae.model, vae.guide, x, num_particles=2000, seed=0)
    k = torch.where(torch.arange(120) < 50, 0.9, 0.1).double()  # so that verdicts differ
    estimates = {name: replace(e, pareto_k=k) for name, e in evidence.estimates.items()}
    evidence = replace(evidence, estimates=estimates)
    test = Split(x, torch.arange(120) % 4)
    page = report.render(vae, test, (8, 8), evidence, {}, {"data": EVIL}, EVIL)
    (tmp_path / "report.html").write_text(page)
    return tmp_path / "report.html"


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


def test_sorting(page):
    shown = [float(v) for v in column(page, "log p(x)")]
    assert shown == sorted(shown)
    page.get_by_role("button", name="log p(x)").click()
    shown = [float(v) for v in column(page, "log p(x)")]
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
