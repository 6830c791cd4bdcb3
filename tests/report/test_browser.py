"""The page in a real browser: opened, clicked, typed into, printed, looked at."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from factories import make_attribution
from playwright.sync_api import sync_playwright
from toys import tiny_decoder

import iglens
from iglens.report.page import html_page
from iglens.report.page.payload import payload

pytestmark = pytest.mark.slow

SIZES = {"phone": (390, 844), "laptop": (1366, 900), "poster": (2560, 1600)}

MINUS = "\N{MINUS SIGN}"

ATTACKS = (
    "</script><script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "\"' onmouseover=window.hit=1 x=",
    "javascript:window.hit=1",
    "datum.x + (window.hit=1)",
    "\u202eevil\u2066\u200b\x00\x1b[31m",
    "a" + 10_000 * "\N{COMBINING ACUTE ACCENT}",
)


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


class Visit:
    """A page that was opened, and everything it said or asked for."""

    def __init__(self, browser, folder, result, size="laptop", **options):
        width, height = SIZES[size]
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, **options
        )
        self.context.set_offline(True)
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda m: self.said.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        path = folder / "report.html"
        path.write_text(html_page(result), encoding="utf-8")
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready]", timeout=20_000)

    def text(self, selector):
        return " ".join(self.page.inner_text(selector).split())

    def settle(self):
        wait = "new Promise(done => setTimeout(() => requestAnimationFrame(done), 300))"
        self.page.evaluate(wait)

    def table(self, name):
        if self.page.get_attribute(f"#{name}-table", "open") is None:
            self.page.click(f"#{name}-table summary")
        self.page.wait_for_selector(f"#{name}-table table")
        read = "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
        return self.page.eval_on_selector_all(f"#{name}-table tr", read)

    def mark(self, row, segment, n_segments):
        marks = self.page.locator("#map svg .mark-rect").first.locator("path")
        return marks.nth(row * n_segments + segment)


@pytest.fixture
def visit(browser, tmp_path):
    opened = []

    def go(result, size="laptop", **options):
        opened.append(Visit(browser, tmp_path, result, size, **options))
        return opened[-1]

    yield go
    for one in opened:
        one.context.close()
        assert one.said == []
        assert [
            url for url in one.asked if not url.startswith(("file:", "data:"))
        ] == []


def a_result(rows=5, n_layers=6, **but):
    """Rows one after another, each explaining the token that is there."""
    result = make_attribution(
        rows=rows, n_layers=n_layers, texts=(" a", " b"), top=3, **but
    )
    at = np.arange(1, rows + 1)
    texts = tuple(f" t{i}" for i in range(rows + 1))
    targets = tuple(iglens.Target((int(i),), texts[i]) for i in at)
    return replace(
        result,
        positions=at,
        token_ids=np.arange(rows + 1),
        token_texts=texts,
        targets=targets,
        warnings=(),
    )


@pytest.fixture(scope="module")
def opened():
    return iglens.explain(tiny_decoder("llama"), [3, 1, 4, 1], by="source")


def test_the_first_thing_read_answers_the_question(visit):
    levels = np.array([[0.0, 0.0, 0.0, 0.02, 0.3, 0.8]])
    result = a_result(rows=1, n_layers=5)
    result = replace(result, levels=levels, credits=np.diff(levels))
    page = visit(result)
    assert page.text("h1") == "Where did “t1” come from?"
    assert page.text("#says").startswith("' t1' becomes readable at layers 3 to 5 of 5")
    box = page.page.locator("#says").bounding_box()
    assert box["y"] + box["height"] < 400


def test_a_click_on_a_cell_shows_that_token_and_that_layer(visit):
    result = a_result()
    page = visit(result)
    page.mark(3, 2, 6).click(force=True)
    page.settle()
    assert page.text("h1") == "Where did “t4” come from?"
    assert page.text("#cell").startswith("' t4' at 4, layer 3:")
    assert page.page.locator("#strip [aria-pressed=true]").inner_text().strip() == "t4"
    assert "' t4' at position 4" in page.text("#fall-hint")


def test_a_click_on_a_token_shows_its_numbers(visit):
    result = a_result()
    page = visit(result)
    page.page.locator("#strip button").nth(2).click()
    page.settle()
    _, *lines = page.table("waterfall")
    shown = [float(line[2].replace(MINUS, "-")) for line in lines]
    np.testing.assert_allclose(shown, result.credits[2], atol=5.1e-4)
    assert page.page.locator("#waterfall").inner_text().count("+") >= 1


def test_the_bars_of_the_waterfall_go_from_level_to_level(visit):
    result = a_result()
    page = visit(result)
    marks = page.page.locator("#waterfall svg .mark-rect").first.locator("path").all()
    boxes = [mark.bounding_box() for mark in marks]
    whole = boxes[-1]  # from 0 to the final level
    pixels = whole["width"] / result.final[0]
    levels = result.levels[0]
    for box, before, after in zip(boxes[1:-1], levels[:-1], levels[1:], strict=True):
        assert (box["x"] - whole["x"]) / pixels == pytest.approx(
            min(before, after), abs=0.01
        )
        assert box["width"] / pixels == pytest.approx(abs(after - before), abs=0.01)


def test_the_tables_of_map_and_rivals_hold_the_numbers(visit):
    result = a_result()
    page = visit(result)
    head, start, *lines, final = page.table("map")
    assert len(head) == 6
    shown = [[float(c.replace(MINUS, "-")) for c in line[1:]] for line in lines]
    np.testing.assert_allclose(shown, result.credits.T, atol=5.1e-4)
    assert (start[0], final[0]) == ("start: embedding", "= readout")
    _, *points = page.table("rivals")
    shown = [float(line[1]) for line in points]
    np.testing.assert_allclose(shown, result.levels[0], rtol=6e-3)


def test_arrow_keys_move_between_tokens_and_layers(visit):
    page = visit(a_result())
    page.page.focus("#strip button[tabindex='0']")
    page.page.keyboard.press("ArrowRight")
    assert page.text("h1") == "Where did “t2” come from?"
    focused = "document.activeElement.textContent.trim()"
    assert page.page.evaluate(focused) == "t2"
    page.page.keyboard.press("End")
    assert page.text("h1") == "Where did “t5” come from?"
    page.page.focus("#map-box")
    page.page.keyboard.press("Home")
    for _ in range(9):
        page.page.keyboard.press("ArrowUp")
    assert page.text("#cell").startswith("' t1' at 1, layer 1:")
    page.page.keyboard.press("ArrowDown")
    assert page.text("#cell").startswith("' t1' at 1, layer 2:")
    page.settle()


def test_every_control_can_be_reached_with_the_tab_key(visit):
    page = visit(a_result())
    seen = set()
    for _ in range(40):
        page.page.keyboard.press("Tab")
        name = "document.activeElement.id || document.activeElement.className"
        seen.add(page.page.evaluate(name) or page.page.evaluate(
            "document.activeElement.tagName + document.activeElement.parentElement.id"
        ))  # fmt: skip
    assert {"skip", "theme", "map-box", "waterfall-box"} <= seen
    assert "SUMMARYmap-table" in seen


def test_parts_follow_the_token_and_the_layer(visit, opened):
    page = visit(opened)
    heads, *lines = page.table("bars")
    assert heads == ["part", "credit"]
    assert len(lines) > 4
    layers = payload(opened)["inside"]["layers"][0]
    segment = next(iter(layers))
    page.mark(0, segment, len(opened.segments)).click(force=True)
    page.page.click("#scope")
    page.settle()
    _, *own = page.table("bars")
    assert own == [[name, text] for name, _, text in layers[segment]]
    assert own != lines
    assert page.page.is_visible("#heads svg")
    assert page.page.is_visible("#sources svg")
    _, *read = page.table("sources")
    assert len(read) == opened.provenance.model.n_layers


def test_pages_of_a_long_text_are_turned_by_buttons_and_by_keys(visit):
    page = visit(a_result(rows=500, n_layers=80))
    first = page.text("#range")
    assert first.startswith("tokens 1 to")
    assert first.endswith("of 500")
    page.page.click("#next")
    page.settle()
    second = page.text("#range")
    assert second != first
    page.page.focus("#map-box")
    page.page.keyboard.press("End")
    page.settle()
    assert page.text("#range").endswith("to 500 of 500")
    assert page.page.is_disabled("#next")
    page.page.click("#prev")
    page.settle()
    assert not page.text("#range").endswith("to 500 of 500")


def test_a_map_of_500_tokens_and_80_layers_stays_fluid(visit):
    page = visit(a_result(rows=500, n_layers=80))
    page.page.focus("#map-box")
    time = """async press => { const start = performance.now();
      for (let i = 0; i < 10; i++) {
        document.getElementById("map-box").dispatchEvent(new KeyboardEvent("keydown", {key: press}));
        await new Promise(requestAnimationFrame); }
      return (performance.now() - start) / 10; }"""  # noqa: E501
    assert page.page.evaluate(time, "ArrowDown") < 150
    assert page.page.evaluate(time, "ArrowRight") < 600


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen_in_both_dresses(visit, opened, tmp_path, size, scheme):
    page = visit(opened, size, color_scheme=scheme)
    wide = "[document.documentElement.scrollWidth, innerWidth]"
    needed, there = page.page.evaluate(wide)
    assert needed <= there
    colour = "getComputedStyle(document.body).backgroundColor"
    shade = sum(map(int, page.page.evaluate(colour)[4:-1].split(",")))
    assert (shade > 600) == (scheme == "light")
    for box in page.page.locator(".chart:visible").all():
        assert box.bounding_box()["height"] > 60
    for drawn in page.page.locator(".chart:visible svg, .chart:visible canvas").all():
        inner, outer = drawn.bounding_box(), drawn.locator("../../..").bounding_box()
        assert inner["x"] + inner["width"] <= outer["x"] + outer["width"] + 12
    shot = page.page.screenshot(full_page=True)
    assert len(shot) > 20_000


def test_letters_of_charts_grow_with_those_of_the_page(visit):
    sizes = {}
    for size in ("laptop", "poster"):
        page = visit(a_result(), size).page
        sizes[size] = [
            page.evaluate(f"parseFloat(getComputedStyle({what}).fontSize)")
            for what in ("document.body", "document.querySelector('#map svg text')")
        ]
    grown = [sizes["poster"][i] / sizes["laptop"][i] for i in (0, 1)]
    assert grown[0] > 1.3
    assert grown[1] == pytest.approx(grown[0], rel=0.1)


def test_the_button_changes_the_dress(visit):
    page = visit(a_result())
    colour = "getComputedStyle(document.body).backgroundColor"
    before, fill = page.page.evaluate(colour), page.page.inner_html("#map")
    page.page.click("#theme")
    page.settle()
    assert page.page.evaluate(colour) != before
    assert page.page.inner_html("#map") != fill


def test_it_prints(visit, opened):
    page = visit(opened)
    assert page.page.pdf().startswith(b"%PDF")
    page.page.emulate_media(media="print")
    assert not page.page.is_visible("#theme")
    assert page.page.is_visible("#waterfall svg")
    assert page.page.is_visible(".card")


@pytest.mark.parametrize("size", ["phone", "laptop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_about(visit, opened, size, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(opened, size, color_scheme=scheme)
    for name in ("map", "waterfall", "rivals", "bars"):
        if page.page.is_visible(f"#{name}-table"):
            page.table(name)
    found = Axe().run(page.page).response["violations"]
    assert [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found] == []


def test_a_chart_can_be_saved(visit):
    page = visit(a_result())
    with page.page.expect_download() as waiting:
        page.page.click("[data-chart=waterfall] button")
    assert waiting.value.suggested_filename == "waterfall.svg"
    assert "<svg" in waiting.value.path().read_text()


@pytest.mark.parametrize("text", ATTACKS)
def test_hostile_texts_are_shown_and_never_run(visit, text):
    result = make_attribution(rows=3, texts=(text,), top=2, n_layers=4)
    page = visit(replace(result, baseline_kind=text))
    for name in ("map", "waterfall", "rivals"):
        page.table(name)
    page.mark(1, 1, 4).hover(force=True)
    page.settle()
    page.page.keyboard.press("Tab")
    assert page.page.evaluate("window.hit") is None
    assert page.page.locator("img").count() == 0
    shown = page.text("body")
    assert "\u202e" not in shown
    assert shown.count("\N{COMBINING ACUTE ACCENT}") < 500
    if text.isprintable() and len(text) < 60:
        assert " ".join(text.split()) in shown


def test_a_result_of_nothing_says_so(visit):
    page = visit(make_attribution().select([]))
    assert "nothing was explained" in page.text("#says")


def test_through_a_lens_the_table_says_what_the_block_wrote(visit):
    result = a_result(lens="ridge")
    heads, *lines = visit(result).table("waterfall")
    assert heads[4] == "written by the block"
    shown = [float(line[4].replace(MINUS, "-")) for line in lines]
    np.testing.assert_allclose(shown, result.writes[0], atol=5.1e-4)


def test_odd_cells_are_crossed_and_told(visit):
    page = visit(a_result(holes=[(1, 3, np.nan)]))
    assert "\N{MULTIPLICATION SIGN}" in page.page.locator("#map").inner_text()
    page.mark(1, 3, 6).hover(force=True)
    page.page.locator("#strip button").nth(1).click()
    page.page.focus("#map-box")
    for _ in range(6):
        page.page.keyboard.press("ArrowUp")
    for _ in range(2):
        page.page.keyboard.press("ArrowDown")
    page.settle()
    assert "Flagged: non finite level" in page.text("#cell")
    assert "no number" in page.text("#cell")
