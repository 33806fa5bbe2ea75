"""The page in a real browser: an answer is clicked and the player stands at its start. Slow: it starts chromium."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pps_fast.ground.page import write_page
from tests.support.browser import Browser, require_chromium
from tests.support.pages import HOSTILE, address_of, asked, write_brightening

pytestmark = pytest.mark.slow
_FRAME_S = 0.1


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require_chromium()
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with two sentences about three videos: an mp4, a webm and one whose file is not known."""
    folder = tmp_path_factory.mktemp("page with blanks & signs")
    files = {name: write_brightening(folder / f"{name} #1.{kind}") for name, kind in (("a", "mp4"), ("b", "webm"))}
    grounder, videos, answers = asked(("a", "b", "c"), top=6, sentences=2)
    write_page(folder / "page.html", grounder, videos, answers, video_files=files)
    return folder / "page.html"


def _open(browser: Browser, page: Path) -> None:
    browser.open(address_of(page))
    browser.wait("player.readyState >= 1")


def _answers(browser: Browser) -> list[dict]:
    return browser.run(
        "answers.map(a => ({start: +a.dataset.start, end: +a.dataset.end, src: a.closest('.card').dataset.src ?? null,"
        " video: a.closest('.card').dataset.video, bar: a.dataset.bar}))"
    )


def _choose(browser: Browser, bar: str) -> None:
    browser.click(f"[data-bar='{bar}']")


def test_a_clicked_answer_brings_the_player_to_its_start(browser: Browser, page: Path) -> None:
    _open(browser, page)
    answers = _answers(browser)
    assert len(answers) == 12 and len({answer["src"] for answer in answers}) == 3
    for answer in answers:
        _choose(browser, answer["bar"])
        assert browser.run("document.activeElement.dataset.bar") == answer["bar"]
        assert browser.run("[...document.querySelectorAll('[aria-current]')].map(a => a.dataset.bar)") == [
            answer["bar"]
        ]
        if answer["src"] is None:
            assert browser.run("player.hidden") and "no video file is known" in browser.run("told.textContent")
            continue
        browser.wait("player.readyState >= 2 && !player.seeking")
        assert not browser.run("player.hidden") and browser.run("player.paused")
        assert browser.run("player.getAttribute('src')") == answer["src"]
        assert browser.run("player.currentTime") == pytest.approx(8 * answer["start"], abs=1e-3)
        # what is seen is that moment, too: the made video becomes lighter with time
        assert _gray_of_player(browser) == pytest.approx(answer["start"], abs=0.05)
        cursor = f"+cards.find(c => c.dataset.video === '{answer['video']}').style.getPropertyValue('--at')"
        assert browser.run(cursor) == pytest.approx(answer["start"], abs=1e-3)
    assert browser.complaints() == []
    assert {address.split(":")[0] for address in browser.requests()} <= {"file", "data"}


def test_chosen_again_an_answer_is_played_to_its_end_and_the_cursor_moves(browser: Browser, page: Path) -> None:
    _open(browser, page)
    answer = min((a for a in _answers(browser) if a["src"]), key=lambda a: a["end"] - a["start"])
    for _ in range(2):
        _choose(browser, answer["bar"])
    browser.wait("!player.paused")
    browser.wait("player.paused", 20)
    assert browser.run("player.currentTime") == pytest.approx(8 * answer["end"], abs=3 * _FRAME_S + 0.2)
    cursor = f"+cards.find(c => c.dataset.video === '{answer['video']}').style.getPropertyValue('--at')"
    assert browser.run(cursor) == pytest.approx(answer["end"], abs=0.06)


def test_the_page_is_used_by_keyboard_alone(browser: Browser, page: Path) -> None:
    _open(browser, page)
    walked = []
    for _ in range(40):
        browser.press("Tab")
        walked.append(
            browser.run(
                "(e => e.dataset.bar ?? e.getAttribute('href') ?? e.type ?? e.localName)(document.activeElement)"
            )
        )
        if walked[-1] == "bar-1-1":
            break
    assert walked[:2] == ["#sentence-1", "#sentence-2"] and walked[-1] == "bar-1-1"
    outline = (
        "getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth"
    )
    assert browser.run(outline) == "solid3px"
    order = [answer["bar"] for answer in _answers(browser)]
    browser.press("ArrowDown")
    assert browser.run("document.activeElement.dataset.bar") == order[1]
    browser.press("ArrowUp")
    browser.press("ArrowDown")
    browser.press("Enter")
    assert browser.run("document.querySelector('[aria-current]').dataset.bar") == order[1]
    # the slider is the next stop after the answers of its card
    browser.run("cards[0].querySelector('input').focus()")
    before = browser.run("+document.activeElement.value")
    for _ in range(3):
        browser.press("ArrowRight")
    after = browser.run("+document.activeElement.value")
    assert after == pytest.approx(before + 0.03, abs=0.002)
    assert browser.run("document.activeElement.getAttribute('aria-valuetext')") == f"0:{8 * after:04.1f}"
    browser.wait("!player.seeking")
    assert browser.run("player.currentTime") == pytest.approx(8 * after, abs=1e-3)


def test_a_click_in_a_timeline_goes_there(browser: Browser, page: Path) -> None:
    _open(browser, page)
    browser.click(".card[data-src] .plot")
    browser.wait("!player.seeking && player.currentTime > 0")
    assert browser.run("player.currentTime") == pytest.approx(4, abs=0.05)


def test_dark_narrow_and_printed_pages_keep_their_contrast_and_width(browser: Browser, page: Path) -> None:
    _open(browser, page)
    light, dark = [], []
    for scheme, colors in (("light", light), ("dark", dark)):
        browser.emulate(prefers_color_scheme=scheme)
        for selector in ("h2", ".soft", ".answer", ".label", ".note"):
            if browser.run(f"document.querySelector('{selector}') !== null"):
                colors.append(_contrast(browser, selector))
    assert len(light) == len(dark) >= 4 and min(light) >= 4.5 and min(dark) >= 4.5
    browser.emulate(media="print")
    assert browser.run("getComputedStyle(document.querySelector('.player')).display") == "none"
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.querySelectorAll('details:not([open])').length") == 0
    browser.run("dispatchEvent(new Event('afterprint'))")
    browser.emulate()
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    browser.call("Emulation.clearDeviceMetricsOverride")


def test_a_file_that_is_gone_is_told_and_the_timeline_goes_on(browser: Browser, tmp_path: Path) -> None:
    grounder, videos, answers = asked(("a",))
    write_page(tmp_path / "page.html", grounder, videos, answers, video_files={"a": tmp_path / "gone.mp4"})
    browser.open(address_of(tmp_path / "page.html"))
    browser.wait("told.textContent.includes('This file cannot be played: it is gone')")
    browser.click(".answer")
    assert browser.run("told.textContent").endswith("; this file cannot be played")
    browser.click(".plot")
    assert browser.run("+cards[0].querySelector('input').value") == pytest.approx(0.5, abs=0.01)


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    grounder, videos, answers = asked(HOSTILE, top=len(HOSTILE))
    files = {name: tmp_path / "no.mp4" for name in HOSTILE}
    write_page(tmp_path / "page.html", grounder, videos, answers, video_files=files, about=HOSTILE[0])
    browser.open(address_of(tmp_path / "page.html"))
    title = browser.run("document.title")
    names = browser.run("[...document.querySelectorAll('h3 bdi')].map(e => e.textContent)")
    expected = [str(moment.video).replace("\0", "").replace("\udcff", "?") for moment in answers[0]]
    assert names == expected
    for answer in _answers(browser):
        _choose(browser, answer["bar"])
    time.sleep(0.2)
    assert browser.run("document.title") == title and title != "1"
    assert browser.run("document.scripts.length") == 1
    assert not [text for text in browser.complaints() if "Content Security Policy" in text]


def test_no_other_script_runs_even_if_it_stood_on_the_page(browser: Browser, page: Path) -> None:
    spoiled = page.with_name("spoiled.html")
    spoiled.write_text(page.read_text().replace("</body>", "<script>document.title = 'run'</script></body>"))
    browser.open(address_of(spoiled))
    assert browser.run("document.title") != "run"
    assert any("Content Security Policy" in text for text in browser.complaints())


def _gray_of_player(browser: Browser) -> float:
    """Returns how light the middle of the player is, from 0 to 1."""
    image = pytest.importorskip("PIL.Image", reason="needs the video extra")
    browser.wait("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
    x, y = browser.run("(b => [b.x + b.width / 2, b.y + b.height / 4])(player.getBoundingClientRect())")
    clip = {"x": x + browser.run("scrollX"), "y": y + browser.run("scrollY"), "width": 4, "height": 4, "scale": 1}
    data = browser.call("Page.captureScreenshot", clip=clip)["data"]
    return image.open(io.BytesIO(base64.b64decode(data))).convert("L").getpixel((2, 2)) / 255


def _contrast(browser: Browser, selector: str) -> float:
    """Returns the ratio of luminances of an element's text and what lies behind it, by WCAG 2."""
    script = """(() => {
        const e = document.querySelector(SELECTOR);
        const behind = (n) => { const c = getComputedStyle(n).backgroundColor;
            return c === 'rgba(0, 0, 0, 0)' && n.parentElement ? behind(n.parentElement) : c; };
        return [getComputedStyle(e).color, behind(e)].map(c => c.match(/[\\d.]+/g).slice(0, 3).map(Number));
    })()""".replace("SELECTOR", repr(selector))
    first, second = (_luminance(color) for color in browser.run(script))
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)


def _luminance(color: list[float]) -> float:
    parts = [value / 255 for value in color]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
