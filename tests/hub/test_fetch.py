"""Models by name: a folder that is there, the cache, the hub; whole or refused in a sentence."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from pps_fast.hub.fetch import PATTERNS, locate_model
from pps_fast.prepare.readers import encoder_folder
from tests.support.fake_hub import install


def _repository(root: Path, name: str, *files: str) -> None:
    (root / name).mkdir(parents=True)
    for file in files:
        (root / name / file).write_text("{}", encoding="utf-8")


@pytest.mark.parametrize("name", ["runs/charades", "./x/y", "one", "/a/b/c", "a/b/c"])
def test_a_folder_that_is_there_and_what_is_no_name_of_the_hub_are_not_looked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = install(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("runs/charades").mkdir(parents=True)
    assert locate_model(name) == Path(name) and not hub.asked


def test_a_model_is_fetched_once_and_then_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = install(monkeypatch, tmp_path)
    _repository(hub.root, "me/door", "model.json", "model.safetensors", "run.py", "weights.bin")
    folder = locate_model("me/door")
    # nothing that could be run as code, and no pickle
    assert sorted(file.name for file in folder.iterdir()) == ["model.json", "model.safetensors"]
    assert hub.asked[-1][1]["allow_patterns"] == list(PATTERNS)
    assert locate_model("me/door") == folder and hub.asked[-1][1]["local_files_only"]
    locate_model("me/door@v1")
    assert hub.asked[-1][1]["revision"] == "v1"


def test_what_is_no_model_or_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = install(monkeypatch, tmp_path)
    _repository(hub.root, "me/other", "config.json")
    with pytest.raises(ValueError, match=r"no model of pps_fast, it has config\.json; name another"):
        locate_model("me/other")
    with pytest.raises(ValueError, match=r"model me/none: no folder of that name.*no repository me/none"):
        locate_model("me/none")


def test_without_the_library_or_a_network_a_sentence_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = install(monkeypatch, tmp_path)
    monkeypatch.setattr(encoder_folder, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(hub, "model_info", lambda *_, **__: time.sleep(60))
    began = time.perf_counter()
    with pytest.raises(ValueError, match="cannot be reached"):
        locate_model("me/door")
    assert time.perf_counter() - began < 5
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"model me/door: no folder .* huggingface_hub; .*'pps-fast\[hub\]'"):
        locate_model("me/door")
