"""Uploads: one commit into a repository that is made where need be; refusals in a sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pps_fast.hub.push import push_folder, require_name
from tests.support.fake_hub import install


def test_a_folder_becomes_one_commit_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = install(monkeypatch, tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}", encoding="utf-8")
    address = push_folder(tmp_path / "model", "me/door", is_private=True, message="first")
    assert address == "folder:me/door" and (hub.root / "me/door/model.json").is_file()
    (create, options), (upload, commit) = hub.asked
    assert (create, options["private"], options["exist_ok"]) == ("create_repo", True, True)
    assert (upload, commit["commit_message"]) == ("upload_folder", "first")


@pytest.mark.parametrize("error", [OSError("401 Unauthorized"), RuntimeError("no route")])
def test_what_the_hub_says_is_told(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = install(monkeypatch, tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(hub, "create_repo", refuse)
    with pytest.raises(ValueError, match=rf"push me/door: the hub did not take it .*{error}.*hf auth login"):
        push_folder(tmp_path, "me/door", is_private=False, message="first")


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ValueError,
        match=r"push me/door: needs the library huggingface_hub; install it with `pip install 'pps-fast\[hub\]'`",
    ):
        push_folder(tmp_path, "me/door", is_private=False, message="first")


@pytest.mark.parametrize("name", ["door", "me/", "/door", "me/door/x", "me/a b", ""])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected USER/NAME"):
        require_name(name)
    require_name("me/door-1.x")
