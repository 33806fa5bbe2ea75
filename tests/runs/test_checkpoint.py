"""Checkpoints: complete or absent, whole or refused by name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pps_fast.files import FullDiskError
from pps_fast.model import PPS
from pps_fast.runs.checkpoint import (
    Header,
    describe_data,
    find_checkpoint,
    load_model,
    read_header,
    read_newest,
    restore,
    save_checkpoint,
)
from pps_fast.runs.model_folder import sealed
from pps_fast.runs.pointers import point, prune, read_pointer
from pps_fast.train.optimizer import Adam
from pps_fast.train.state import load_training_state, training_state
from tests.support.model_folders import as_older_version, reseal
from tests.support.train_runs import run_small, small_config, small_input


def _header(step: int) -> Header:
    config = small_config()
    store, _ = small_input(config)
    data = describe_data(store.data)
    position = {"step": step, "epoch": 0, "batch": step, "elapsed_s": 1.5, "device": "cpu"}
    return Header(config=config, sizes=store.sizes, data=data, **position)


def _trained(seed: int, num_optimizers: int = 1) -> tuple[PPS, list[Adam]]:
    """A model and optimizers, each over some of its parameters, after one update without the last parameter."""
    torch.manual_seed(seed)
    header = _header(0)
    model = PPS(header.config, header.sizes)
    parameters = list(model.parameters())
    optimizers = [Adam(parameters[n::num_optimizers], lr=0.1) for n in range(num_optimizers)]
    for parameter in parameters[:-1]:
        parameter.grad = torch.randn_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    return model, optimizers


def _save_state(run: Path, model: PPS, optimizers: list[Adam], step: int) -> Path:
    return save_checkpoint(run, model, training_state(model, optimizers), _header(step))


def _restore(checkpoint: Path, model: PPS, optimizers: list[Adam]) -> None:
    load_training_state(model, optimizers, restore(checkpoint, model))


def _save(run: Path, step: int, seed: int) -> Path:
    checkpoint = _save_state(run, *_trained(seed), step)
    point(run, "latest", checkpoint, step=step)
    prune(run)
    return checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    run_small(small_config(train__max_steps=2), run)
    return run


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    """A run directory that the test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def test_header_comes_back_as_written(tmp_path):
    assert read_header(_save(tmp_path, 3, seed=0)) == _header(3)


@pytest.mark.parametrize("num_optimizers", [1, 2])
def test_model_and_optimizers_come_back(num_optimizers, tmp_path):
    model, optimizers = _trained(0, num_optimizers)
    checkpoint = _save_state(tmp_path, model, optimizers, 1)
    assert not [name for name in load_file(checkpoint / "training.safetensors") if name.startswith("rng")]
    other_model, others = _trained(1, num_optimizers)
    _restore(checkpoint, other_model, others)
    for n, (ours, theirs) in enumerate(zip(model.parameters(), other_model.parameters(), strict=True)):
        mine, other = (
            optimizer_list[n % num_optimizers].state[p] for optimizer_list, p in ((optimizers, ours), (others, theirs))
        )
        assert torch.equal(ours, theirs)
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[name], other[name]) for name in mine)
    assert [other.param_groups[0]["update"].item() for other in others] == [1] * num_optimizers


def test_model_loads_from_the_run_and_from_one_checkpoint(run):
    for path in (run, str(run), find_checkpoint(run)):
        model, config, sizes = load_model(path)
        assert config == small_config(train__max_steps=2) and sizes == _header(0).sizes
        assert not model.training
        expected = load_file(find_checkpoint(run) / "model.safetensors")
        assert model.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_best_checkpoint_is_taken_where_there_is_one(tmp_path):
    best = _save(tmp_path, 1, seed=1)
    point(tmp_path, "best", best, mIoU=0.5)
    latest = _save(tmp_path, 2, seed=2)
    assert (find_checkpoint(tmp_path), find_checkpoint(tmp_path, "latest")) == (best, latest)
    weights = [next(load_model(tmp_path, which=which)[0].parameters()) for which in ("best", "latest")]
    assert not torch.equal(*weights)


def test_what_is_no_checkpoint_but_has_its_name_is_refused_and_stays(tmp_path):
    _save(tmp_path / "other", 2, seed=0)
    run = tmp_path / "run"
    _save(run, 1, seed=0)
    name = run / "checkpoints" / "step_000002"
    name.mkdir()
    (name / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="step_000002: somebody else's"):
        _save(run, 2, seed=0)
    assert (name / "notes.txt").read_text() == "mine"
    (name / "notes.txt").unlink()
    name.rmdir()
    name.symlink_to(tmp_path / "other" / "checkpoints" / "step_000002")
    with pytest.raises(ValueError, match="step_000002: somebody else's"):
        _save(run, 2, seed=0)


def test_stop_at_any_moment_of_saving_leaves_a_complete_checkpoint(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    first = tmp_path / "first"
    _save(first, 1, seed=1)
    seen, moment, was_killed = set(), 0, True
    while was_killed:
        moment += 1
        run = Path(shutil.copytree(first, tmp_path / str(moment)))
        left = [moment]

        def count(call, left=left):
            def counted(*arguments, **options):
                left[0] -= 1
                if left[0] == 0:
                    raise Killed
                return call(*arguments, **options)

            return counted

        with monkeypatch.context() as patch:
            for name in ("open", "fsync", "rename", "replace", "unlink", "mkdir", "rmdir"):
                patch.setattr(os, name, count(getattr(os, name)))
            try:
                _save(run, 2, seed=2)
                was_killed = False
            except Killed:
                was_killed = True
        step = read_pointer(run, "latest")["step"]
        seen.add(step)
        # whatever the moment: a whole checkpoint, the old or the new one, from which saving again succeeds
        _restore(find_checkpoint(run, "latest"), *_trained(0))
        assert read_header(find_checkpoint(run, "latest")).step == step
        prune(run)
        _save(run, 3, seed=3)
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000003"]
    assert seen == {1, 2} and moment > 10


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "model.json"])
def test_missing_file_is_refused_by_name(name, run):
    checkpoint = find_checkpoint(run)
    (checkpoint / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: missing"):
        read_header(checkpoint)
        _restore(checkpoint, *_trained(0))


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors"])
@pytest.mark.parametrize("length", [0, 5, 1000, -1])
def test_truncated_tensors_are_refused_by_name(name, length, run):
    path = find_checkpoint(run) / name
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=f"{name}: truncated or damaged"):
        _restore(path.parent, *_trained(0))


def test_tensors_that_do_not_fit_are_named_with_their_shapes(run):
    path = find_checkpoint(run) / "model.safetensors"
    tensors = load_file(path)
    names = sorted(tensors)
    expected = tensors[names[1]].shape
    tensors["stranger"] = tensors.pop(names[0])
    tensors[names[1]] = torch.zeros(3, 1, 4)
    save_file(tensors, path)
    reseal(path.parent)
    with pytest.raises(ValueError) as caught:
        load_model(run)
    shapes = f"{names[1]} has shape [3, 1, 4], the model {list(expected)}"
    for part in (f"no tensor {names[0]}", "unknown tensor stranger", shapes):
        assert part in str(caught.value)


def test_random_numbers_of_older_checkpoints_are_left_alone(run):
    path = find_checkpoint(run) / "training.safetensors"
    state = torch.get_rng_state()
    save_file({**load_file(path), "rng.cpu": torch.zeros_like(state)}, path)
    reseal(path.parent)
    (model, optimizer), (other_model, other) = _trained(0), _trained(1)
    torch.set_rng_state(state)
    for one in ((model, optimizer), (other_model, other)):
        _restore(path.parent, *one)
    assert torch.equal(torch.get_rng_state(), state)
    for ours, theirs in zip(model.parameters(), other_model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 99}, "version 99; this pps_fast reads"),
        ({"format": "other"}, "format 'other'"),
        ({"sizes": {"depth": 1}}, "sizes has no field depth"),
        ({"config": {"color": 1}}, "config has no field color; it was written by another version"),
        ({"config": {"losses": {"pull": -1.0}}}, "losses.pull = -1.0"),
    ],
)
def test_header_of_another_kind_is_refused(changes, message, run):
    path = find_checkpoint(run) / "model.json"
    path.write_text(json.dumps(sealed({**json.loads(path.read_text()), **changes})))
    with pytest.raises(ValueError, match=message):
        load_model(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sizes": {"frame_dim": 10**12, "word_dim": 16, "vocab_size": 45, "num_segments": 64}},
            "does not fit the config",
        ),
        ({"step": -1}, "model.json: step = -1: expected a count"),
        ({"data": {"name": "x"}}, "model.json: the field sha256 is missing in data"),
        ({"environment": 3}, "the record.environment = 3: expected an object"),
        ({"device": None}, "the record.device = None: expected str"),
        ({"elapsed_s": float("inf")}, "elapsed_s = inf: expected a finite number"),
    ],
)
def test_sealed_headers_with_other_values_are_refused_before_anything_is_allocated(changes, message, run):
    path = find_checkpoint(run) / "model.json"
    path.write_text(json.dumps(sealed({**json.loads(path.read_text()), **changes})))
    with pytest.raises(ValueError, match=message):
        load_model(run)


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_no_part(run, tmp_path, monkeypatch):
    def fail(path: Path, content: bytes) -> None:
        raise FullDiskError(f"{path}: not written, because the disk is full; make room")

    model, _, _ = load_model(run)
    header = read_header(find_checkpoint(run))
    monkeypatch.setattr("pps_fast.runs.model_folder.replace_bytes", fail)
    with pytest.raises(FullDiskError, match="model.safetensors: not written"):
        save_checkpoint(tmp_path / "new", model, {}, header)
    assert not list((tmp_path / "new" / "checkpoints").iterdir())


def test_a_checkpoint_that_a_running_training_deletes_is_read_as_its_successor(run):
    newer = run / "checkpoints" / "step_000009"
    read: list[str] = []

    def read_late(folder: Path) -> str:
        read.append(folder.name)
        if folder.name == "step_000002":
            # what the training does between the pointer and the reading
            shutil.copytree(folder, newer)
            point(run, "latest", newer)
            shutil.rmtree(folder)
        return str(read_header(folder).step)

    assert read_newest(run, "latest", read_late) == "2" and read == ["step_000002", "step_000009"]
    (newer / "model.json").write_text("{")
    with pytest.raises(ValueError, match="model.json: not complete JSON"):
        read_newest(run, "latest", read_header)


def test_header_without_a_field_is_refused_by_name(run):
    path = find_checkpoint(run) / "model.json"
    values = json.loads(path.read_text())
    del values["sizes"]
    path.write_text(json.dumps(sealed(values)))
    with pytest.raises(ValueError, match="the field sizes is missing"):
        load_model(run)


def test_directory_without_checkpoint_and_pointer_to_nowhere_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint here"):
        load_model(tmp_path / "nothing")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ValueError, match="step_000002 is named by the run's pointer but missing"):
        load_model(run)


def test_a_run_of_an_older_version_loads_and_continues_to_the_same_bits(tmp_path):
    config = small_config(train__max_steps=4)
    run_small(config, tmp_path / "whole")
    run_small(small_config(train__max_steps=2), tmp_path / "old")
    store, _ = small_input(config)
    as_older_version(find_checkpoint(tmp_path / "old"), describe_data(store.data))
    model, loaded, sizes = load_model(tmp_path / "old")
    assert loaded == small_config(train__max_steps=2) and sizes == store.sizes
    run_small(config, tmp_path / "old", resume=True)
    expected, continued = (
        load_file(find_checkpoint(tmp_path / name) / "model.safetensors") for name in ("whole", "old")
    )
    assert all(torch.equal(value, continued[name]) for name, value in expected.items())
    assert any(not torch.equal(value, expected[name]) for name, value in model.state_dict().items())
