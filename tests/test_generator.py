"""The summary g_cls sees all valid frames and words, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pps_fast.encoder.dropout import number_sites
from pps_fast.encoder.transformer import Context, Keys
from pps_fast.generator import Generator
from tests.support.cases import randomize, small_config
from tests.support.compare import assert_agree

CONFIG = small_config(generator__num_layers=2)
SHARED = {"reconstructor__shares_generator": True, "reconstructor__num_layers": 2}
WIDTH = CONFIG.encoder.hidden_dim


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _inputs() -> dict[str, Tensor]:
    """Two samples: 5 frames and 3 of 5, each with v_cls behind the fifth; 4 words and 2 of 4."""
    return {
        "frames": _draw(2, 6, WIDTH),
        "frame_valid": torch.arange(6) < torch.tensor([[5], [3]]),
        "query": _draw(2, 4, WIDTH, seed=1),
        "word_valid": torch.arange(4) < torch.tensor([[4], [2]]),
        "dropout_key": None,
    }


def _generator() -> Generator:
    generator = randomize(Generator(CONFIG).double())
    number_sites(generator)
    return generator


def _all_rows(generator: Generator, inputs: dict[str, Tensor]) -> Tensor:
    """What the video stack gives for every frame and v_cls: [B, S + 1, D]."""
    keys, dropout = Keys(valid=inputs["word_valid"]), Context(dropout_key=inputs["dropout_key"])
    words = generator.word_stack(inputs["query"], keys, dropout)
    context = Context(memory=words, memory_keys=keys, dropout_key=inputs["dropout_key"])
    return generator.video_stack(inputs["frames"], Keys(valid=inputs["frame_valid"]), context)


def test_the_summary_is_one_vector_per_sample() -> None:
    assert _generator()(**_inputs()).shape == (2, WIDTH)


def test_padding_of_frames_and_words_never_influences_the_summary() -> None:
    generator, inputs = _generator(), _inputs()
    before = generator(**inputs)
    for name, row in (("frames", 3), ("frames", 4), ("query", 2), ("query", 3)):
        changed = inputs[name].clone()
        changed[1, row] += 5
        assert_agree(f"{name} {row}", generator(**inputs | {name: changed}), before)


def test_every_valid_frame_and_word_influences_the_summary() -> None:
    generator, inputs = _generator(), _inputs()
    before = generator(**inputs)
    for name, length in (("frames", 6), ("query", 4)):
        for row in range(length):
            changed = inputs[name].clone()
            changed[0, row] += 1
            moved = (generator(**inputs | {name: changed}) - before).abs().amax(1)
            assert moved[0] > 1e-4, f"{name} {row}"
            assert moved[1] == 0, f"{name} {row} of sample 0 moves sample 1"


def test_v_cls_is_never_a_key() -> None:
    generator, inputs = _generator(), _inputs()
    before, summary = _all_rows(generator, inputs), generator(**inputs)
    inputs["frames"] = inputs["frames"].clone()
    inputs["frames"][:, -1] += 1
    after = _all_rows(generator, inputs)
    assert_agree("frames", after[:, :-1], before[:, :-1])
    assert ((after - before)[:, -1].abs().amax(1) > 1e-3).all()
    assert ((generator(**inputs) - summary).abs().amax(1) > 1e-3).all()


@pytest.mark.parametrize("dropout_key", [None, torch.tensor([5, -7], dtype=torch.int32)], ids=["kept", "dropped"])
def test_the_summary_is_the_last_row_and_the_last_block_computes_no_other(dropout_key: Tensor | None) -> None:
    generator, inputs = _generator(), _inputs() | {"dropout_key": dropout_key}
    expected = _all_rows(generator, inputs)[:, -1]
    rows: list[int] = []
    for block in generator.video_stack.blocks:
        for part in (block.self_norm, block.cross_norm, block.expand, block.ffn_norm):
            part.register_forward_hook(lambda module, args, result: rows.append(result.shape[1]))
    assert_agree("summary", generator(**inputs), expected, atol=1e-12)
    assert rows == [6] * 4 + [1] * 4


def test_dropout_follows_from_the_key_of_each_sample() -> None:
    generator, dropout_key = _generator(), torch.tensor([5, -7], dtype=torch.int32)
    before = generator(**_inputs() | {"dropout_key": dropout_key})
    assert_agree("again", generator(**_inputs() | {"dropout_key": dropout_key}), before)
    assert ((before - generator(**_inputs())).abs().amax(1) > 1e-3).all()
    changed = dropout_key + torch.tensor([1, 0], dtype=torch.int32)
    moved = (generator(**_inputs() | {"dropout_key": changed}) - before).abs().amax(1)
    assert moved[0] > 1e-3 and moved[1] == 0


def test_without_v_cls_the_summary_is_the_row_of_the_last_valid_frame() -> None:
    config = small_config(generator__num_layers=2, encoder__frame_summary="last_frame")
    generator = randomize(Generator(config).double())
    number_sites(generator)
    inputs = _inputs()
    inputs = {**inputs, "frames": inputs["frames"][:, :5], "frame_valid": inputs["frame_valid"][:, :5]}
    rows = _all_rows(generator, inputs)
    assert_agree("summary", generator(**inputs), torch.stack((rows[0, 4], rows[1, 2])), atol=1e-12)


def test_a_generator_that_is_shared_has_weights_for_a_memory_of_words_that_it_does_not_use_itself() -> None:
    shared = randomize(Generator(small_config(generator__num_layers=2, **SHARED)).double())
    assert all(block.cross_attention is not None for block in shared.word_stack.blocks)
    before = shared(**_inputs())
    with torch.no_grad():
        for block in shared.word_stack.blocks:
            block.cross_attention.in_proj_weight.add_(1)
    assert_agree("summary", shared(**_inputs()), before)


def test_only_the_video_stack_has_a_memory() -> None:
    generator = _generator()
    assert [block.cross_attention is None for block in generator.word_stack.blocks] == [True, True]
    assert [block.cross_attention is None for block in generator.video_stack.blocks] == [False, False]
