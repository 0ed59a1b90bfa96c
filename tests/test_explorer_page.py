"""The explorer in a real browser: Debian's chromium, driven by Playwright."""

import re
import shlex
import shutil
import time

import pytest

import patchmosaic as pm
from patchmosaic.cli import main
from patchmosaic.explorer.studio import Studio

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium found: apt-get install chromium, or put one on the PATH"
)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
LIMIT = 300


@pytest.fixture(scope="module")
def address(serve):
    return serve(Studio(pm.load_dataset("digits", limit=LIMIT), pm.load_network()))


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        found.close()


@pytest.fixture(params=[(1280, 800)])
def page(browser, address, request):
    """A fresh page; at the end nothing was complained about, and nothing was asked of anybody else."""
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
    opened, complaints, outside = context.new_page(), [], []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    ours = ("http://127.0.0.1:", "data:", "blob:", "about:")
    opened.on("request", lambda asked: None if asked.url.startswith(ours) else outside.append(asked.url))
    yield opened
    context.close()
    assert [line for line in complaints if "status of 4" not in line] == []
    assert outside == []


def visit(page, address, query=""):
    page.goto(f"{address}/?{query}")
    page.wait_for_selector('body[data-ready="true"]')
    idle(page)


def until(page, condition, seconds=15):
    """Wait for JavaScript to be true; asked from outside, because the page's own rules forbid eval."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"never true: {condition}"
        page.wait_for_timeout(20)


def idle(page):
    page.wait_for_selector('body[data-busy="false"]')


def sources(page, which="first"):
    cards = page.query_selector_all(f"#belief-{which} .source")
    return [(card.get_attribute("data-image"), float(card.get_attribute("data-weight"))) for card in cards]


def picture(page, panel):
    return page.get_attribute(f"#panel-{panel} img", "src")


def click_pixel(page, panel, row, col, size=8):
    box = page.query_selector(f"#panel-{panel} img").bounding_box()
    page.mouse.click(
        box["x"] + (col + 0.5) * box["width"] / size, box["y"] + (row + 0.5) * box["height"] / size
    )
    until(page, f"location.search.includes('row={row}') && location.search.includes('col={col}')")
    idle(page)


def slide(page, step):
    page.eval_on_selector(
        "#step",
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true}));"
        " slider.dispatchEvent(new Event('change', {bubbles: true})); }",
        str(step),
    )
    until(page, f"document.querySelector('#step').value == '{step}'")
    page.wait_for_timeout(400)
    idle(page)


def choose(page, machine):
    page.click(f"label[for=machine-{machine}]")
    until(page, f"location.search.includes('machine={machine}') || '{machine}' == 'bbels'")
    idle(page)


def draw(page, seed):
    page.fill("#seed", str(seed))
    page.click("#run")
    until(page, f"location.search.includes('seed={seed}')")
    idle(page)


def test_a_walk_through_the_flow(page, address):
    visit(page, address)
    choose(page, "els")
    draw(page, 7)
    last = {panel: picture(page, panel) for panel in ("state", "prediction", "sources", "belief")}
    slide(page, 4)
    early = {panel: picture(page, panel) for panel in last}
    assert all(early[panel] != last[panel] for panel in last), "the slider changes every panel"
    click_pixel(page, "prediction", 3, 4)
    there = sources(page)
    assert 1 <= len(there) <= 8
    assert there == sorted(there, key=lambda one: -one[1])
    click_pixel(page, "state", 6, 2)
    assert sources(page) != there, "another pixel, other patches"
    slide(page, 19)
    assert sources(page)[0][1] > sources(page)[-1][1]


def test_the_ideal_machine_lets_one_training_image_win(page, address):
    visit(page, address, "seed=2&row=4&col=4")
    assert sources(page)[0][1] < 0.999
    choose(page, "is")
    best = sources(page)
    assert best[0][1] > 0.999
    for row, col in ((0, 0), (7, 5)):
        click_pixel(page, "prediction", row, col)
        assert sources(page)[0][0] == best[0][0], "the same image for every pixel"


@pytest.mark.parametrize(
    ("query", "outlines", "beyond"),
    [
        ("machine=els", 4, "none"),
        ("machine=ls&padding=circular", 4, "none"),
        ("machine=bbels", 1, ""),
        ("machine=es", 1, "none"),
    ],
)
def test_a_wrapped_window_goes_on_at_the_other_side(page, address, query, outlines, beyond):
    visit(page, address, f"{query}&seed=3&row=0&col=0&locality=5")
    page.wait_for_selector("#belief-first .source")
    assert page.locator("#panel-state .within rect").count() == outlines
    assert page.eval_on_selector("#panel-state .beyond", "rect => rect.style.display") == beyond
    across = float(page.get_attribute("#first-sees image", "width"))
    assert across == (5 if outlines == 4 else 8), "the window with what is beyond, or the whole picture"


def test_another_machine_stands_beside_the_ideal_one(page, address):
    visit(page, address, "row=4&col=4")
    assert page.input_value("#second") == "is"
    choose(page, "is")
    assert page.input_value("#second") == "bbels"
    page.select_option("#second", "els")
    until(page, "location.search.includes('second=els')")
    page.select_option("#second", "bbels")
    until(page, "!location.search.includes('second')")
    choose(page, "ls")
    assert page.input_value("#second") == "is"
    idle(page)


def test_a_link_brings_back_the_same_view(page, address):
    visit(page, address)
    choose(page, "ls")
    draw(page, 11)
    slide(page, 13)
    click_pixel(page, "sources", 2, 5)
    page.click("#tab-pixel")
    seen = {panel: picture(page, panel) for panel in ("state", "prediction", "sources", "belief")}
    believed, link = sources(page), page.url
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector('body[data-ready="true"]')
    page.wait_for_selector("#belief-first .source")
    idle(page)
    assert page.input_value("#step") == "13"
    assert page.is_checked("#machine-ls")
    assert {panel: picture(page, panel) for panel in seen} == seen
    assert sources(page) == believed
    page.reload()
    page.wait_for_selector("#belief-first .source")
    assert page.url == link


@pytest.mark.parametrize("tab", ["pixel", "dial", "network", "draw"])
def test_the_view_is_exported_with_the_command_that_draws_it_again(page, address, tab, tmp_path, monkeypatch):
    visit(page, address, f"machine=els&seed=3&steps=5&step=2&row=0&col=1&tab={tab}")
    with page.expect_download() as waiting:
        page.click("#save-png")
    page.click("#show-command")
    page.wait_for_selector("#dialog[open]")
    command = shlex.split(page.text_content("#command"))
    assert command[:2] == ["patchmosaic", "explore"]
    monkeypatch.chdir(tmp_path)
    assert main([*command[1:], "--limit", str(LIMIT)]) == 0
    assert (tmp_path / "view.png").read_bytes() == waiting.value.path().read_bytes()


def test_windows_from_patches_to_a_copy(page, address):
    visit(page, address, "seed=3")
    page.click("#tab-dial")
    until(page, "document.querySelectorAll('#dial img').length >= 6", seconds=30)
    idle(page)
    shown = page.eval_on_selector_all("#dial img", "images => images.map(image => image.src)")
    assert len(set(shown)) > 3
    assert "whole image" in page.text_content("#dial")


def test_the_dial_may_be_drawn_anew_while_it_is_drawn(page, address):
    visit(page, address, "seed=9&steps=60")
    page.click("#tab-dial")
    page.wait_for_timeout(300)
    page.click("#run-dial")
    page.wait_for_timeout(300)
    page.wait_for_selector('body[data-busy="false"]', timeout=60_000)
    until(page, "document.querySelector('#dial-text').textContent === ''")
    assert "whole image" in page.text_content("#dial")


def test_the_network_beside_theory(page, address):
    visit(page, address, "seed=1&tab=network")
    until(page, "/0[.,]\\d/.test(document.querySelector('#network-r').textContent)", seconds=30)
    assert float(re.search(r"0\.\d+", page.text_content("#network-r"))[0]) > 0.5


def test_a_picture_of_ones_own(page, address, tmp_path):
    from PIL import Image

    Image.linear_gradient("L").save(tmp_path / "mine.png")
    (tmp_path / "words.png").write_text("not a picture")
    visit(page, address, "tab=draw")
    before = picture(page, "prediction")
    page.set_input_files("#upload", str(tmp_path / "words.png"))
    until(page, "/no picture/.test(document.querySelector('#status').textContent)")
    (tmp_path / "huge.png").write_bytes(bytes(50 << 20))
    page.set_input_files("#upload", str(tmp_path / "huge.png"))
    until(page, "/MiB|MB/.test(document.querySelector('#status').textContent)")
    page.set_input_files("#upload", str(tmp_path / "mine.png"))
    page.wait_for_timeout(500)
    page.click("#finish")
    until(page, "location.search.includes('start=')")
    idle(page)
    assert picture(page, "prediction") != before
    assert int(page.get_attribute("#step", "max")) < 19, "the flow begins on the way"


def test_what_is_wrong_is_said_and_nothing_breaks(page, address):
    page.goto(f"{address}/?locality=99")
    until(page, "/larger than the image/.test(document.querySelector('#status').textContent)")
    page.goto(f"{address}/?label=77")
    until(page, "/no training image has label 77/.test(document.querySelector('#status').textContent)")
    for step in ("-1", "1.5", "99", "x"):
        visit(page, address, f"step={step}")
        assert "step 20 of 20" in page.text_content("#step-text")
    visit(page, address, "")
    assert picture(page, "state")


def test_everything_can_be_reached_by_keyboard(page, address):
    visit(page, address, "row=4&col=4")
    page.focus("#panel-prediction")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    until(page, "location.search.includes('row=3') && location.search.includes('col=5')")
    page.focus("#tab-pixel")
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('#tab-dial').getAttribute('aria-selected') === 'true'")
    page.focus("#seed")
    page.keyboard.press("Control+A")
    page.keyboard.type("21")
    page.keyboard.press("Enter")
    until(page, "location.search.includes('seed=21')")
    idle(page)


@pytest.mark.parametrize("page", [(390, 844), (1280, 800)], indirect=True)
@pytest.mark.parametrize("tab", ["pixel", "dial", "network", "draw"])
def test_nothing_is_wider_than_the_screen(page, address, tab):
    visit(page, address, f"row=4&col=4&tab={tab}")
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
