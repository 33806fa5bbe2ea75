"""`python -m pps_fast.published` from the outside."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from pps_fast.config_tree import differences, override, to_dict
from pps_fast.data.load import load_data
from pps_fast.data.prepared import write_prepared
from pps_fast.eval.__main__ import main as evaluate
from pps_fast.model import PPS
from pps_fast.presets import PRESETS
from pps_fast.published.__main__ import main
from pps_fast.published.weights import export_released
from pps_fast.runs.checkpoint import find_checkpoint, load_model
from pps_fast.runs.model_folder import read_words
from tests.golden_check import check_file
from tests.support.golden_model import Golden
from tests.support.published_files import GOLDEN, write_published, write_vocabulary

CONFIG = PRESETS["cpl_demo"]
DATA = load_data(CONFIG.data)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    torch.save({"model_parameters": export_released(PPS(CONFIG, DATA.sizes))}, folder / "cpl.pt")
    write_prepared(folder / "data.h5", DATA)
    return folder


def test_weights_come_in_are_evaluated_and_go_out(published: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    options = ["--preset", "cpl_demo", "--data", str(published / "data.h5"), "--out", str(run)]
    assert main(["import", str(published / "cpl.pt"), *options]) == 0
    assert f"python -m pps_fast.eval --model {run}\n" in capsys.readouterr().out
    assert evaluate(["--checkpoint", str(run), "--device", "cpu"]) == 0
    assert "note:" not in capsys.readouterr().err
    assert main(["export", str(run), "--out", str(tmp_path / "again.pt")]) == 0
    first, again = (torch.load(path, weights_only=True) for path in (published / "cpl.pt", tmp_path / "again.pt"))
    for name, value in first["model_parameters"].items():
        assert torch.equal(again["model_parameters"][name], value), name


@pytest.mark.parametrize("name", ["tiny_topk2", "cpl_tiny_gamma0", "cnm_tiny"])
def test_an_imported_checkpoint_computes_what_the_published_code_recorded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden, run = Golden(GOLDEN / f"{name}.npz"), tmp_path / "run"
    source = write_published(tmp_path / "model.pt", golden)
    vocabulary = write_vocabulary(tmp_path / "glove.pkl", 25, golden["in/words_feat"].shape[2])
    assert main(["import", str(source), "--vocabulary", str(vocabulary), "--out", str(run)]) == 0
    loaded, settings, sizes = load_model(run)
    words, _ = read_words(find_checkpoint(run))
    assert words == ["<pad>", *(f"word{number}" for number in range(sizes.vocab_size - 1))]

    def imported(file: Golden, dtype: torch.dtype, config=None) -> PPS:
        # the schedule, or another reading of the targets, that the comparison asks for
        changes = {} if config is None else differences(file.config(), config)
        model = PPS(override(settings, changes), sizes)
        model.load_state_dict(loaded.state_dict())
        return model.to(dtype).eval()

    for room in ("golden_model", "golden_ancestors"):
        monkeypatch.setattr(f"tests.support.{room}.model_of", imported)
    checks = check_file(GOLDEN / f"{name}.npz")
    assert len(checks) > 50 and all(check.is_ok for check in checks)


def test_an_imported_model_is_evaluated_on_data_by_the_names_of_its_words(tmp_path: Path, capsys) -> None:
    """The same weights twice, with the data's classes and with classes in reverse, told by the vocabulary alone."""
    torch.manual_seed(0)
    config = override(CONFIG, {"data.planted.num_videos": 10, "inference.num_bootstrap": 20})
    data = load_data(config.data)
    write_prepared(tmp_path / "data.h5", data)
    weights = export_released(PPS(config, data.sizes))
    order = [0, *range(data.sizes.vocab_size - 1, 0, -1)]
    words = [data.words[index] for index in order]
    content = {
        "w2id": {word: row for row, word in enumerate(words)},
        "id2vec": list(data.word_vectors[order]),
        "counter": dict.fromkeys(words[1:], 1),
    }
    (tmp_path / "glove.pkl").write_bytes(pickle.dumps(content))
    turned = {name: value[order] if name.startswith("fc_comp.") else value for name, value in weights.items()}
    settings = {**to_dict(config), "sizes": to_dict(data.sizes)}
    rows = []
    for name, state, option in (
        ("known", weights, ["--data", str(tmp_path / "data.h5")]),
        ("named", turned, ["--vocabulary", str(tmp_path / "glove.pkl")]),
    ):
        torch.save({"model_parameters": state, "config": settings}, tmp_path / f"{name}.pt")
        run = tmp_path / name
        assert main(["import", str(tmp_path / f"{name}.pt"), *option, "--out", str(run)]) == 0
        assert evaluate(["--model", str(run), "--data", str(tmp_path / "data.h5"), "--device", "cpu"]) == 0
        rows.append(json.loads((run / "evaluation_test.json").read_text())["rows"]["model"]["R@1 mIoU"]["value"])
    assert "its words are matched by name" in capsys.readouterr().err
    assert rows[1] == pytest.approx(rows[0], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["import", "nowhere.pt", "--out", "x"], "--vocabulary and --data: give one of them"),
        (["import", "nowhere.pt", "--out", "x", "--data", "y", "--vocabulary", "z"], "give one of them"),
        (["import", "nowhere.pt", "--out", "x", "--data", "nowhere.h5"], "nowhere.h5: no such file"),
        (["import", "nowhere.pt", "--out", "x", "--vocabulary", "v.pkl"], "nowhere.pt: no such file"),
        (["export", "nowhere.pt", "--out", "no/such/folder/x.pt"], "expected a file in a folder that exists"),
        (["export", "nowhere.pt", "--out", "x.pt"], "nowhere.pt: no checkpoint here"),
    ],
)
def test_errors_are_one_line_and_status_two(options, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(options) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "texts"), [([], ("import", "export")), (["import"], ("SOURCE", "--vocabulary"))])
def test_help_says_which_way_takes_what(command: list[str], texts: tuple[str, ...], capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in texts) and "PICTURE" not in printed
