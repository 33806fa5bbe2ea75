"""Folders of encoders: whole or refused, quickly where there is no network; weights as plain tensors alone."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pps_fast.prepare.readers import encoder_folder
from pps_fast.prepare.readers.encoder_folder import Kind, locate_folder, name_of, require_whole

KIND = Kind(
    what="sentence encoder",
    extra="encoder",
    files=("*.json",),
    parts=(("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt")),
    part="its tokenizer",
)


def _files(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


def _hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Puts a hub in place whose cache is empty, and that does what `answer` does when it is asked."""
    hub = ModuleType("huggingface_hub")

    def snapshot_download(**options: Any) -> str:
        raise FileNotFoundError("not in the cache" if options.get("local_files_only") else "no file")

    class HfApi:
        def model_info(self, *_: Any, **__: Any) -> Any:
            return answer()

    hub.snapshot_download, hub.HfApi = snapshot_download, HfApi  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


def test_without_a_network_a_name_is_refused_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    _hub(monkeypatch, lambda: time.sleep(60))
    monkeypatch.setattr(encoder_folder, "_PATIENCE_S", 0.2)
    began = time.perf_counter()
    with pytest.raises(ValueError, match=r"sentence encoder some/name: no folder .* cannot be reached .TimeoutError"):
        locate_folder("some/name", KIND)
    assert time.perf_counter() - began < 5


def test_what_the_hub_says_and_a_broken_download_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("no such repository")

    _hub(monkeypatch, refuse)
    with pytest.raises(ValueError, match="does not have it or cannot be reached .OSError: no such repository"):
        locate_folder("some/name@1", KIND)
    _hub(monkeypatch, lambda: None)
    with pytest.raises(ValueError, match="sentence encoder some/name: not fetched whole .FileNotFoundError"):
        locate_folder("some/name", KIND)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "lacks config.json, model.safetensors"),
        (("config.json", "tokenizer.json"), "lacks model.safetensors"),
        (("config.json", "model.safetensors"), "lacks its tokenizer"),
        (("config.json", "model.safetensors", "vocab.json"), "lacks its tokenizer"),
        (("config.json", "pytorch_model.bin", "tokenizer.json"), "lacks model.safetensors"),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused(names, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        require_whole(_files(tmp_path / "e", *names), KIND)


def test_weights_in_parts_are_whole_when_every_part_is_there(tmp_path: Path) -> None:
    folder = _files(tmp_path / "e", "config.json", "vocab.txt", "a.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match="lacks b.safetensors"):
        require_whole(folder, KIND)
    require_whole(_files(folder, "b.safetensors"), KIND)


def test_weights_that_are_no_safetensors_count_where_the_kind_takes_them(tmp_path: Path) -> None:
    folder = _files(tmp_path / "e", "config.json", "pytorch_model.bin", "vocab.txt")
    require_whole(folder, replace(KIND, takes_plain=True))
    before = name_of(folder)
    (folder / "pytorch_model.bin").write_text("{ }", encoding="utf-8")
    assert before.startswith("e@") and name_of(folder) != before


@pytest.mark.parametrize(
    ("files", "takes_plain", "pattern"),
    [
        (["pytorch_model.bin"], True, "pytorch_model*.bin"),
        (["pytorch_model.bin", "model.safetensors"], True, "*.safetensors"),
        (["pytorch_model.bin"], False, "*.safetensors"),
    ],
)
def test_weights_are_fetched_once(files, takes_plain, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    hub = ModuleType("huggingface_hub")

    def snapshot_download(**options: Any) -> str:
        asked.append(options.get("allow_patterns"))
        raise FileNotFoundError("nothing")

    class File:
        def __init__(self, name: str) -> None:
            self.rfilename = name

    class HfApi:
        def model_info(self, *_: Any, **__: Any) -> Any:
            info = ModuleType("info")
            info.siblings = [File(name) for name in files]  # type: ignore[attr-defined]
            return info

    hub.snapshot_download, hub.HfApi = snapshot_download, HfApi  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(ValueError, match="not fetched whole"):
        locate_folder("some/name", replace(KIND, takes_plain=takes_plain))
    assert asked == [None, ["*.json", pattern]]
