"""Files of the published code become runs that can be evaluated, and runs become such files again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pps_fast.config_tree import override
from pps_fast.data.load import load_data
from pps_fast.model import PPS
from pps_fast.pipeline import evaluate_checkpoint
from pps_fast.presets import PRESETS
from pps_fast.published.convert import UNKNOWN_DATA, export_checkpoint, import_checkpoint, read_published
from pps_fast.published.weights import export_released
from pps_fast.runs.checkpoint import load_model, read_header

SMALL = {"encoder.hidden_dim": 16, "inference.num_bootstrap": 20}
CONFIGS = {
    name: override(PRESETS[name], {**SMALL, "data.path": None, "data.planted.num_videos": 10})
    for name in ("charades_released", "cpl", "cnm")
}
DATA = load_data(CONFIGS["cpl"].data)


def _published(name: str) -> tuple[PPS, dict[str, Any]]:
    """A model, and what the published code would save of it."""
    torch.manual_seed(0)
    model = PPS(CONFIGS[name], DATA.sizes)
    return model, {"num_updates": 7, "config": {"model": {"name": name}}, "model_parameters": export_released(model)}


@pytest.mark.parametrize("name", CONFIGS)
def test_imported_model_is_the_published_one_and_goes_out_again(name, tmp_path):
    model, content = _published(name)
    torch.save(content, tmp_path / "in.pt")
    out = tmp_path / "run"
    checkpoint = import_checkpoint(tmp_path / "in.pt", out, CONFIGS[name], DATA.sizes, DATA)
    assert checkpoint.name == "step_000007"
    loaded, config, sizes = load_model(out)
    assert (config, sizes) == (CONFIGS[name], DATA.sizes)
    for name_, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name_], value), name_
    export_checkpoint(out, tmp_path / "out.pt")
    state, step = read_published(tmp_path / "out.pt")
    assert step == 7 and state.keys() == content["model_parameters"].keys()
    assert all(torch.equal(state[name], value) for name, value in content["model_parameters"].items())


def test_imported_model_can_be_evaluated_and_says_whether_its_data_are_known(tmp_path):
    torch.save(_published("cpl")[1]["model_parameters"], tmp_path / "in.pt")
    import_checkpoint(tmp_path / "in.pt", tmp_path / "known", CONFIGS["cpl"], DATA.sizes, DATA)
    checkpoint = import_checkpoint(tmp_path / "in.pt", tmp_path / "unknown", CONFIGS["cpl"], DATA.sizes)
    assert read_header(checkpoint).data == UNKNOWN_DATA and read_header(checkpoint).step == 0
    known, unknown = (evaluate_checkpoint(tmp_path / name, {}, device="cpu") for name in ("known", "unknown"))
    assert known.note is None and "trained on another data set" in unknown.note
    assert known.report.rows == unknown.report.rows


def test_place_that_is_not_empty_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        import_checkpoint(tmp_path / "nowhere.pt", tmp_path, CONFIGS["cpl"], DATA.sizes)


class _Code:
    """An object that a pickle would have to run code for."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a file of torch", "in.pt: "),
        ({"model_parameters": _Code()}, "not only tensors and plain values"),
        ([torch.zeros(1)], "holds a list, expected a dict with model_parameters"),
        ({"num_updates": 3, "config": {}}, "no model_parameters, and as a state dict it holds num_updates, config"),
        ({}, "as a state dict it holds nothing"),
        ({"model_parameters": {"word_fc.weight": torch.zeros(1)}}, "in.pt: the published state dict has no"),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_name(content, message, tmp_path: Path):
    path = tmp_path / "in.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(path, tmp_path / "run", CONFIGS["cpl"], DATA.sizes)
    assert not (tmp_path / "run").exists()


def test_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.pt: no such file"):
        read_published(tmp_path / "nowhere.pt")
