"""The summary g_cls sees all valid frames and words, and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from pps_fast.generator.generator import Generator
from tests.cases import randomize, small_config
from tests.compare import assert_agree

CONFIG = small_config(generator__num_layers=2)
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
    }


def _generator() -> Generator:
    return randomize(Generator(CONFIG).double().eval())


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
    rows: list[Tensor] = []
    generator.video_stack.register_forward_hook(lambda module, given, result: rows.append(result))
    generator(**inputs)
    inputs["frames"] = inputs["frames"].clone()
    inputs["frames"][:, -1] += 1
    generator(**inputs)
    assert_agree("frames", rows[1][:, :-1], rows[0][:, :-1])
    assert ((rows[1] - rows[0])[:, -1].abs().amax(1) > 1e-3).all()


def test_only_the_video_stack_has_a_memory() -> None:
    generator = _generator()
    assert [block.cross_attention is None for block in generator.word_stack.blocks] == [True, True]
    assert [block.cross_attention is None for block in generator.video_stack.blocks] == [False, False]
