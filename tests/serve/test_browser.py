"""The application in a real browser: typed into, run, cancelled, downloaded."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

import iglens

pytestmark = pytest.mark.slow

SIZES = {"phone": (390, 844), "laptop": (1366, 900), "poster": (2560, 1600)}

ATTACKS = (
    "</script><script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "</textarea><svg onload=window.hit=1>",
    "\"' onmouseover=window.hit=1 x=",
    "javascript:window.hit=1",
    "datum.x + (window.hit=1)",
    "{prompt} {0} %s ${window.hit=1}",
    "\u202eevil\u2066\u200b\x01\x1b[31m",
    "a" + 20 * "\N{COMBINING ACUTE ACCENT}",
)

PROMPT = "The capital of France is"


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
    """A page of a server, and everything it said or asked for."""

    def __init__(self, browser, live, size="laptop", path="/", **options):
        width, height = SIZES[size]
        self.live = live
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, **options
        )
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda m: self.said.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(live.address + path)

    def text(self, selector):
        return " ".join(self.page.inner_text(selector).split())

    def run(self, prompt=None, **fields):
        """Fill in the form, run it, and wait for the answer."""
        self.fill(prompt, **fields)
        self.page.evaluate("document.body.removeAttribute('data-ready')")
        self.page.click("#run")
        self.page.wait_for_selector("body[data-ready]", timeout=30_000)

    def fill(self, prompt=None, **fields):
        if prompt is not None:
            self.page.fill("#prompt", prompt)
        for name, value in fields.items():
            field = self.page.locator(f"#ask [name={name}]")
            if not field.is_visible():
                self.page.click("#choices summary")
            match value:
                case bool():
                    field.set_checked(value)
                case _ if field.evaluate("f => f.tagName") == "SELECT":
                    field.select_option(value)
                case _:
                    field.fill(value)

    def forget(self, *texts):
        """Take expected lines of the console off the list."""
        self.said = [line for line in self.said if not any(t in line for t in texts)]


@pytest.fixture
def visit(browser):
    opened = []

    def go(live, size="laptop", path="/", **options):
        opened.append(Visit(browser, live, size, path, **options))
        return opened[-1]

    yield go
    for one in opened:
        one.context.close()
        assert one.said == []
        own = (one.live.address, "data:", "blob:")
        assert [url for url in one.asked if not url.startswith(own)] == []


def test_somebody_who_comes_for_the_first_time_reads_what_this_is_and_runs_it(
    live, visit
):
    page = visit(live())
    assert page.text("h1") == "At which layer does a word become readable?"
    box = page.page.locator("#run").bounding_box()
    assert box["y"] + box["height"] < 600
    assert page.page.input_value("#prompt") == PROMPT
    page.run()
    assert page.text("h1").startswith("Where did")
    assert re.search(r"layers? \d|embedding", page.text("#says"))
    assert page.page.input_value("#prompt") == PROMPT


def test_another_model_is_chosen(live, visit, fragile, tiny_folder):
    def another():
        return iglens.Decoder.from_pretrained(str(tiny_folder)), {}

    first = fragile.info.id
    choices = {first: lambda: (fragile, {}), tiny_folder.name: another}
    page = visit(live(choices=choices))
    assert page.page.input_value("[name=model]") == first
    page.run("abc", model=tiny_folder.name, max_new_tokens="1")
    assert page.text(".model") == tiny_folder.name
    assert page.page.input_value("[name=model]") == tiny_folder.name


def test_a_single_model_is_no_choice(live, visit):
    assert visit(live()).page.locator("[name=model]").is_hidden()


def test_the_page_shows_the_numbers_of_explain(live, visit, fragile):
    page = visit(live())
    page.run("the tale of a", target=" Paris", by="sublayer", unit="log_odds")
    wanted = iglens.explain(
        fragile, "the tale of a", target=" Paris", by="sublayer", unit="log_odds"
    )
    page.page.click("#waterfall-table summary")
    page.page.wait_for_selector("#waterfall-table table")
    read = "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
    _, *lines = page.page.eval_on_selector_all("#waterfall-table tr", read)
    shown = [float(line[2].replace("\N{MINUS SIGN}", "-")) for line in lines]
    assert shown == pytest.approx(wanted.credits[0].tolist(), abs=6e-3)
    assert page.page.input_value("[name=target]") == " Paris"
    assert page.page.input_value("[name=by]") == "sublayer"


def test_every_field_of_the_form_arrives(live, visit):
    server = live()
    page = visit(server)
    asked = []
    page.page.on(
        "request", lambda r: asked.append(r.post_data) if r.method == "POST" else None
    )
    page.fill(
        "a text",
        by="head",
        max_new_tokens="3",
        chat=True,
        target=" Paris\n Rome|Paris",
        contrast="@rival",
        positions="all",
        system="a",
        unit="log_odds",
        baseline="prompt",
        other="another",
        layers="::2",
        top="4",
        sample=True,
        temperature="0.5",
        top_p="0.25",
        seed="9",
    )
    page.page.click("#run")
    page.page.wait_for_selector("#problem:visible")
    assert json.loads(asked[0]) == {
        "prompt": "a text",
        "by": "head",
        "positions": "all",
        "layers": "::2",
        "lens": "logit",
        "contrast": "@rival",
        "system": "a",
        "unit": "log_odds",
        "max_new_tokens": 3,
        "top": 4,
        "target": [" Paris", " Rome|Paris"],
        "baseline": "prompt:another",
        "chat": True,
        "sample": True,
        "temperature": 0.5,
        "top_p": 0.25,
        "seed": 9,
    }


def test_a_refusal_is_one_line_and_the_form_stays(live, visit):
    page = visit(live())
    page.fill("the", target="no token")
    page.page.click("#run")
    page.page.wait_for_selector("#problem:visible")
    assert page.text("#problem").startswith("Not answered. `target` 'no token' is not")
    assert page.page.input_value("#prompt") == "the"
    assert page.page.evaluate("document.activeElement.id") == "prompt"
    assert page.page.is_enabled("#run")
    assert not page.page.is_visible("#stop")
    page.run("the", target=" Paris")


def test_a_crash_is_told_and_the_next_question_works(live, visit):
    page = visit(live())
    page.fill("the xx", target=" Paris")
    page.page.click("#run")
    page.page.wait_for_selector("#problem:visible")
    assert "broke off inside the server" in page.text("#problem")
    assert "secret" not in page.page.content()
    page.run("the", target=" Paris")


@pytest.mark.parametrize("how", ["button", "key"])
def test_a_running_question_can_be_cancelled(live, visit, wait, how):
    server = live()
    page = visit(server)
    page.fill("the ww", target=" Paris")
    page.page.focus("#prompt")
    page.page.keyboard.press("Control+Enter")
    page.page.wait_for_selector("#stop:visible")
    wait(lambda: server.application.worker.busy[0])
    page.page.wait_for_function("document.getElementById('stage').textContent != ''")
    assert page.page.is_disabled("#run")
    if how == "button":
        page.page.click("#stop")
    else:
        page.page.keyboard.press("Escape")
    page.page.wait_for_selector("#problem:visible")
    assert page.text("#problem").startswith("Cancelled.")
    wait(lambda: server.application.worker.busy == (False, 0), 5)
    page.run("the", target=" Paris")


def test_leaving_the_page_cancels_too(live, visit, wait):
    server = live()
    page = visit(server)
    page.fill("the ww", target=" Paris")
    page.page.click("#run")
    wait(lambda: server.application.worker.busy[0])
    page.page.goto(server.address + "/docs")
    wait(lambda: server.application.worker.busy == (False, 0), 5)


def test_a_server_that_is_gone_is_said_to_be(live, visit):
    page = visit(live())
    page.context.set_offline(True)
    page.page.click("#run")
    page.page.wait_for_selector("#problem:visible")
    assert "cannot be reached" in page.text("#problem")
    page.forget("ERR_INTERNET_DISCONNECTED")


def test_every_format_is_downloaded_by_its_link(live, visit):
    page = visit(live())
    page.run("the", max_new_tokens="2")
    links = page.page.locator(".get a")
    assert links.count() == 9
    for link in links.all():
        with page.page.expect_download() as waiting:
            link.click()
        name = waiting.value.suggested_filename
        assert name.endswith(f".{link.inner_text()}")
        assert Path(waiting.value.path()).stat().st_size > 300
    files = page.page.locator(".get a", has_text="safetensors")
    with page.page.expect_download() as waiting:
        files.click()
    path = Path(waiting.value.path())
    saved = path.with_suffix(".safetensors")
    path.rename(saved)
    assert iglens.Attribution.load(saved).n_rows == 2


def test_history_leads_back_and_can_be_forgotten(live, visit):
    page = visit(live())
    for text in ("the", "a tale"):
        page.run(text, max_new_tokens="1")
    entries = page.page.locator(".history li")
    names = [" ".join(entry.inner_text().split()) for entry in entries.all()]
    assert [name.partition(" “")[0] for name in names] == ["a tale", "the"]
    assert entries.nth(0).locator("a").get_attribute("aria-current") == "page"
    entries.nth(1).locator("a").click()
    page.page.wait_for_selector("body[data-ready]")
    assert page.page.input_value("#prompt") == "the"
    page.page.go_back()
    page.page.wait_for_selector("body[data-ready]")
    assert page.page.input_value("#prompt") == "a tale"
    page.page.click("#forget")
    page.page.wait_for_selector(".history .hint")
    assert page.page.locator(".history li").count() == 0


def test_a_link_opens_on_a_server_that_never_heard_of_it(live, visit):
    page = visit(live())
    page.run("the tale", max_new_tokens="3", sample=True, temperature="3", by="head")
    link, words = page.page.url, page.text("#says")
    path = link.removeprefix(page.live.address)
    assert "#" in path
    other = visit(live(), path=path)
    other.page.wait_for_selector("body[data-ready]", timeout=30_000)
    assert other.text("#says") == words
    assert other.page.url.removeprefix(other.live.address) == path
    assert other.page.input_value("#prompt") == "the tale"
    other.forget("404")
    broken = visit(live(), path="/r/abc#not-a-question")
    broken.page.wait_for_selector("#problem:visible")
    assert "The link is not whole" in broken.text("#problem")
    broken.forget("404")


@pytest.mark.parametrize("text", ATTACKS)
def test_hostile_texts_are_shown_and_never_run(live, visit, text):
    server = live()
    page = visit(server)
    page.run(text + " ", max_new_tokens="1", positions="all", system="")
    page.page.wait_for_timeout(200)
    assert page.page.evaluate("window.hit") is None
    assert page.page.locator("img").count() == 0
    assert page.page.locator("svg[onload]").count() == 0
    assert page.page.input_value("#prompt").rstrip(" ") == text
    assert page.page.locator("script").count() == 4
    shown = page.text("body")
    assert "\u202e" not in shown
    again = visit(server, path=page.page.url.removeprefix(server.address))
    again.page.wait_for_selector("body[data-ready]")
    assert again.page.evaluate("window.hit") is None


def test_a_hostile_refusal_is_text_too(live, visit):
    page = visit(live())
    page.fill("the", target="<img src=x onerror=window.hit=1>")
    page.page.click("#run")
    page.page.wait_for_selector("#problem:visible")
    assert "<img src=x" in page.text("#problem")
    assert page.page.evaluate("window.hit") is None


def test_a_link_made_by_somebody_else_can_only_ask(live, visit):
    import base64

    server = live()
    question = {"prompt": "<img src=x onerror=window.hit=1>", "max_new_tokens": 1}
    code = base64.urlsafe_b64encode(json.dumps(question).encode()).decode().rstrip("=")
    page = visit(server, path=f"/r/x#{code}")
    page.page.wait_for_selector("body[data-ready]", timeout=30_000)
    assert page.page.evaluate("window.hit") is None
    page.forget("404")
    harmful = {"prompt": "a", "lens": "/etc/passwd", "nothing": "<b>"}
    code = base64.urlsafe_b64encode(json.dumps(harmful).encode()).decode().rstrip("=")
    other = visit(server, path=f"/r/y#{code}")
    other.page.wait_for_selector("#problem:visible")
    assert "`nothing` is no part of a question" in other.text("#problem")
    other.forget("404", "422")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen_in_both_dresses(live, visit, tmp_path, size, scheme):
    page = visit(live(), size, color_scheme=scheme)
    wide = "[document.documentElement.scrollWidth, innerWidth]"
    for step in ("home", "choices", "result", "docs"):
        if step == "choices":
            page.page.click("#choices summary")
        if step == "result":
            page.run("the tale of a", by="source", max_new_tokens="4")
        if step == "docs":
            page.page.goto(page.live.address + "/docs")
        needed, there = page.page.evaluate(wide)
        assert needed <= there, step
        colour = "getComputedStyle(document.body).backgroundColor"
        shade = sum(map(int, page.page.evaluate(colour)[4:-1].split(",")))
        assert (shade > 600) == (scheme == "light")
        assert len(page.page.screenshot(full_page=True)) > 10_000


def test_the_dress_that_was_chosen_is_kept(live, visit):
    page = visit(live())
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.page.evaluate(colour)
    page.page.click("#theme")
    after = page.page.evaluate(colour)
    assert after != before
    page.run("the", max_new_tokens="1")
    assert page.page.evaluate(colour) == after
    page.page.click("#theme")
    page.page.goto(page.live.address + "/docs")
    assert page.page.evaluate(colour) == before
    page.page.click("#theme")
    assert page.page.evaluate(colour) == after


def test_everything_is_reached_by_keyboard_alone(live, visit):
    page = visit(live())
    seen = []
    for _ in range(16):
        page.page.keyboard.press("Tab")
        name = "document.activeElement.id || document.activeElement.name || document.activeElement.className || document.activeElement.tagName"  # noqa: E501
        seen.append(page.page.evaluate(name))
    wanted = ["skip", "brand", "A", "theme", "prompt", "by", "max_new_tokens", "chat"]
    assert seen[:9] == [*wanted, "run"]
    assert {"SUMMARY", "try"} <= set(seen)
    page.page.focus("#run")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector("body[data-ready]", timeout=30_000)


@pytest.mark.parametrize("size", ["phone", "laptop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_about(live, visit, size, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(live(), size, color_scheme=scheme)

    def violations():
        found = Axe().run(page.page).response["violations"]
        return [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found]

    page.page.click("#choices summary")
    assert violations() == []
    page.fill("the", target="no token")
    page.page.click("#run")
    page.page.wait_for_selector("#problem:visible")
    assert violations() == []
    page.run("the tale", target="", max_new_tokens="3", by="source")
    assert violations() == []
    page.page.goto(page.live.address + "/docs")
    assert violations() == []


def test_an_example_is_run_by_one_click(live, visit):
    page = visit(live())
    page.page.locator(".try").first.click()
    page.page.wait_for_selector("body[data-ready]", timeout=30_000)
    assert page.page.input_value("#prompt") == "The capital of Japan is"


def test_with_a_token_the_printed_address_lets_in(live, visit):
    from iglens.serve.run import address

    server = live(token="a-token-of-enough-letters")
    out = visit(server)
    assert "needs its token" in out.text("body")
    out.forget("401")
    printed = address("127.0.0.1", server.port, server.access)
    page = visit(server, path=printed.removeprefix(server.address))
    assert "token" not in page.page.url
    page.run("the", max_new_tokens="1")
    with page.page.expect_download() as waiting:
        page.page.click(".get a >> nth=0")
    assert waiting.value.suggested_filename.endswith(".html")


@pytest.mark.embedded
def test_the_embedded_model_says_paris(live, visit, embedded):
    page = visit(live(decoder=embedded))
    page.run(PROMPT, max_new_tokens="1", by="head")
    assert page.text("h1") == "Where did “Paris” come from?"
    assert "0.77" in page.text("#says")
    page.page.goto(page.live.address)
    page.page.locator(".try", has_text="planet").click()
    page.page.wait_for_selector("body[data-ready]", timeout=60_000)
    assert page.page.is_checked("[name=chat]")
    assert "Jupiter" in page.text("#strip")
