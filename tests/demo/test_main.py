"""python -m pps_fast.demo: refusals, and the demo itself in a browser, from a sentence to the player at its answer."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pps_fast.demo.__main__ import main
from tests.support.browser import Browser, require_chromium
from tests.support.eval_fakes import DATA
from tests.support.grounders import color_run
from tests.support.pages import write_brightening

ROOT = Path(__file__).resolve().parents[2]
_FRAME = "document.querySelector('#answer iframe').contentDocument"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--videos", "no"], "--videos no: no folder"),
        (["--videos", ".", "--zero-shot", "clip"], "--model and --zero-shot: give one of them"),
        (["--videos", ".", "--top", "0"], "--top 0: expected 1 to 1,000"),
        (["--videos", ".", "--segment-seconds", "0"], "--segment-seconds 0.0: expected a number above 0"),
        (["--videos", ".", "--min-match", "50"], "--min-match 50.0: expected a probability, 0 to 1"),
        (["--videos", ".", "--port", "0"], "--port 0: expected 1 to 65,535"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", "no", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a demo in a process of its own, and its folder of videos."""
    # not imported: it opens sockets, and the demo has a process of its own
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("needs the demo extra")
    require_chromium()
    folder = tmp_path_factory.mktemp("demo")
    (folder / "videos").mkdir()
    (folder / "secret.mp4").write_text("secret")
    for name in ("first", "second"):
        write_brightening(folder / "videos" / f"{name}.mp4")
    command = [sys.executable, "-m", "pps_fast.demo", "--model", str(color_run(folder / "run")), "--cache"]
    command += ["--videos", str(folder / "videos")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_TEMP_DIR": str(folder / "temporary")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
    try:
        line = process.stdout.readline()
        yield re.search(r"http://127\.0\.0\.1:\d+/", line).group(), folder / "videos"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _ask(browser: Browser, sentence: str) -> None:
    browser.wait("document.querySelector('#sentence textarea, #sentence input') !== null")
    browser.run(
        "(box => { box.focus(); box.select(); })(document.querySelector('#sentence textarea, #sentence input'))"
    )
    browser.call("Input.insertText", text=sentence)
    browser.press("Enter")


@pytest.mark.slow
def test_a_typed_sentence_is_answered_and_an_answer_takes_the_player_to_its_start(demo: tuple[str, Path]) -> None:
    hostile = "<img src=x onerror=top.document.title=1> ${document.title=1} {{x}}"
    with Browser(1280, 1000) as browser:
        browser.open(demo[0])
        _ask(browser, f"{DATA.sentences[0]} {hostile}")
        browser.wait(f"document.querySelector('#answer iframe') !== null && {_FRAME}.querySelector('.answer') !== null")
        assert browser.run(f"{_FRAME}.querySelector('h2').textContent") == f"“{DATA.sentences[0]} {hostile}”"
        assert browser.run("document.title") == "When does it happen?"
        names = browser.run(f"[...{_FRAME}.querySelectorAll('h3 bdi')].map(e => e.textContent)")
        assert sorted(names) == ["first", "second"]
        for card in range(2):
            chosen = browser.run(
                f"(a => {{ a.click(); return +a.dataset.start; }})({_FRAME}.querySelectorAll('.card')[{card}]"
                ".querySelector('.answer'))"
            )
            player = f"{_FRAME}.querySelector('#player')"
            browser.wait(f"{player}.readyState >= 2 && !{player}.seeking")
            assert browser.run(f"{player}.currentTime") == pytest.approx(8 * chosen, abs=1e-3)
            assert names[card] in browser.run(f"{player}.getAttribute('src')")
        assert (demo[1] / "first.mp4.features.npz").is_file()
        # nothing is asked of anybody but this machine
        hosts = {re.match(r"(\w+):(//[^/:]+)?", address).group() for address in browser.requests()}
        assert hosts <= {"http://127.0.0.1", "data:", "blob:", "about:"}
        browser.run("document.querySelector('#answer iframe').remove()")
        _ask(browser, "yak")
        browser.wait("document.querySelector('#answer .note')?.textContent.includes('no word that the model knows')")


@pytest.mark.slow
def test_a_dropped_video_is_offered_encoded_and_played(demo: tuple[str, Path], tmp_path: Path) -> None:
    dropped = write_brightening(tmp_path / "mine.mp4")
    with Browser(1280, 1000) as browser:
        browser.open(demo[0])
        browser.wait("document.querySelector('input[type=file]') !== null")
        root = browser.call("DOM.getDocument")["root"]["nodeId"]
        node = browser.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
        browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(dropped)])
        browser.wait("[...document.querySelectorAll('input')].some(e => e.value === 'mine')")
        _ask(browser, DATA.sentences[1])
        browser.wait(f"document.querySelector('#answer iframe') !== null && {_FRAME}.querySelector('.answer') !== null")
        assert browser.run(f"[...{_FRAME}.querySelectorAll('h3 bdi')].map(e => e.textContent)") == ["mine"]
        player = f"{_FRAME}.querySelector('#player')"
        browser.run(f"{_FRAME}.querySelector('.answer').click()")
        browser.wait(f"{player}.readyState >= 2 && !{player}.seeking")
        start = browser.run(f"+{_FRAME}.querySelector('.answer').dataset.start")
        assert browser.run(f"{player}.currentTime") == pytest.approx(8 * start, abs=1e-3)
    # only of the folder's own videos something is kept
    assert not list(demo[1].parent.glob("temporary/**/*.features.npz"))


@pytest.mark.slow
def test_only_the_videos_can_be_read(demo: tuple[str, Path]) -> None:
    address, videos = demo
    served = f"{address}gradio_api/file="
    request = urllib.request.Request(f"{served}{videos / 'first.mp4'}", headers={"Range": "bytes=4-7"})
    with urllib.request.urlopen(request) as answer:
        assert (answer.status, answer.read()) == (206, b"ftyp")
    for path in (videos.parent / "secret.mp4", "/etc/passwd", f"{videos}/../secret.mp4", ROOT / "setup.py"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{served}{path}")
        refused.value.close()
        assert refused.value.code in (403, 404)
    with urllib.request.urlopen(f"{address}config") as answer:
        config = json.load(answer)
    # the telemetry of the library is off
    assert config["analytics_enabled"] is False
    (choice,) = [part["props"] for part in config["components"] if part["type"] == "dropdown"]
    assert [value for _, value in choice["choices"]] == ["all videos", "first", "second"]
