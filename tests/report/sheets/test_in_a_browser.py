"""Pages without scripts in a real browser: every screen, both dresses, print, axe."""

import os
import shutil
from dataclasses import replace

import pytest
from factories import HOSTILE, make_attribution
from playwright.sync_api import sync_playwright
from toys import tiny_decoder

import iglens
from iglens.auditing import audit
from iglens.records.difference import Difference

pytestmark = pytest.mark.slow

SIZES = {"phone": (390, 844), "laptop": (1366, 900), "poster": (2560, 1600)}
NAMES = ("comparison", "pair", "audited", "gates")
IDS = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get("IGLENS_NEEDS_BROWSER"):
            pytest.fail("no Chromium, but IGLENS_NEEDS_BROWSER is set")
        pytest.skip("no Chromium: install Debian's chromium to run these")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"]
        )
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every page, in one folder."""
    decoder, place = tiny_decoder("llama"), tmp_path_factory.mktemp("pages")
    result = iglens.explain(decoder, IDS, max_new_tokens=2)
    records = {
        "comparison": iglens.compare(decoder, IDS, n_steps=4),
        "pair": iglens.diff(
            result, iglens.explain_like(decoder, [2, 7, *IDS[2:]], result)
        ),
        "audited": audit(decoder, [IDS, [2, 7, 1]], target=[5, 9], gates=True),
        "gates": iglens.gates(decoder, IDS, max_new_tokens=2),
    }
    for name, record in records.items():
        record.save(place / f"{name}.html")
    return place


@pytest.fixture
def visit(browser):
    """Opens a page offline; at the end it must have said and asked for nothing."""
    contexts, said, asked = [], [], []

    def go(path, size="laptop", **options):
        width, height = SIZES[size]
        view = {"width": width, "height": height}
        contexts.append(browser.new_context(viewport=view, offline=True, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_it_fits_every_screen_in_both_dresses(visit, folder, name, size, scheme):
    page = visit(folder / f"{name}.html", size, color_scheme=scheme)
    needed, there = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert needed <= there
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, colour[4:-1].split(","))) > 600) == (scheme == "light")
    for image in page.locator("img").all():
        shown, natural = image.evaluate("i => [i.currentSrc, i.naturalWidth]")
        assert natural > 200
        dark = page.locator("source").first.get_attribute("srcset")
        assert scheme == "light" or shown.startswith("data:")
        light = image.get_attribute("src")
        assert (shown == light) == (scheme == "light")
        assert dark != light
    first = page.locator(".answer").bounding_box()
    assert first["y"] + first["height"] < 420


@pytest.mark.parametrize("name", NAMES)
def test_letters_of_pictures_are_not_cut(visit, folder, name):
    page = visit(folder / f"{name}.html")
    links = page.eval_on_selector_all("img", "all => all.map(i => i.src)")
    read = """() => { const svg = document.querySelector('svg'), box =
      svg.getBoundingClientRect(); return [...svg.querySelectorAll('text')]
      .map(t => t.getBoundingClientRect()).filter(r => r.width)
      .map(r => [r.left - box.left, box.right - r.right]); }"""
    for link in links:
        page.goto(link)
        for left, right in page.evaluate(read):
            assert left >= 0
            assert right >= 0


@pytest.mark.parametrize("name", NAMES)
def test_it_prints_in_light(visit, folder, name):
    page = visit(folder / f"{name}.html", color_scheme="dark")
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="print")
    image = page.locator("img").first
    assert image.evaluate("i => i.currentSrc === i.src")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing_to_complain_about(visit, folder, name, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(folder / f"{name}.html", color_scheme=scheme)
    for one in page.locator("summary").all():
        one.click()
    found = Axe().run(page).response["violations"]
    assert [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found] == []


def test_everything_that_scrolls_can_be_reached_with_the_tab_key(visit, folder):
    page = visit(folder / "pair.html", "phone")
    seen = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.className"))
    assert {"drawn", "scroll"} <= seen


@pytest.mark.parametrize(
    "text",
    [
        *HOSTILE,
        "</script><script>window.hit=1</script>",
        "<img src=x onerror=window.hit=1>",
    ],
)
def test_hostile_texts_are_never_run(visit, tmp_path, text):
    side = make_attribution(rows=2, texts=(text,), n_layers=2)
    origin = replace(side.provenance, prompt=text)
    pair = Difference(side, replace(side, provenance=origin), notes=(text,))
    pair.save(tmp_path / "x.html")
    page = visit(tmp_path / "x.html")
    assert page.evaluate("window.hit") is None
    assert page.locator("img").count() == page.locator(".drawn").count()
