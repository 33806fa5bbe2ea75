"""Kernels that read ragged rows compute bit for bit what they compute of padded rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

# registers its operators
import pps_fast.ops.row_attention  # noqa: F401
from pps_fast.ops.ragged_rows import ragged_rows
from pps_fast.ops.registration import is_interpreted
from pps_fast.ragged import Ragged

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# with a GPU the compiled kernels are meant, and `-m gpu` runs these tests too
on_cpu = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
pytestmark = pytest.mark.gpu if DEVICE == "cuda" else on_cpu
_ops: Any = torch.ops.pps_fast
NUM_MASKS, HEADS, WIDTH, NUM_KEYS = 3, 2, 6, 5
NUM_WORDS = torch.tensor([3, 1, 4, 2], device=DEVICE)


@pytest.fixture(autouse=True)
def _on_the_device() -> Iterator[None]:
    with torch.device(DEVICE):
        yield


def _rows(longest: int = 4) -> Ragged:
    """Places of sentences of 3, 1, 4 and 2 rows and one more."""
    ragged = ragged_rows(NUM_WORDS, longest, 0, 11)
    assert ragged is not None
    return ragged


def _random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, device="cpu").to(DEVICE, dtype)


def _to_ragged(x: Tensor, ragged: Ragged) -> Tensor:
    """[B * N, n, ...] -> [N, R, ...]."""
    by_mask = x.unflatten(0, (len(NUM_WORDS), -1)).transpose(0, 1)  # [N, B, n, ...]
    return by_mask.flatten(1, 2).index_select(1, ragged.index)


def _existing(x: Tensor, ragged: Ragged) -> Tensor:
    """0 in the rows [B * N, n, ...] that are not among the ragged ones."""
    exists = torch.zeros(len(NUM_WORDS) * ragged.longest, dtype=torch.bool)
    exists[ragged.index] = True
    exists = exists.view(-1, 1, ragged.longest).expand(-1, len(x) // len(NUM_WORDS), -1).flatten(0, 1)
    return torch.where(exists[..., None], x, 0.0)


def _heads(x: Tensor, num_parts: int) -> list[Tensor]:
    """Views of packed rows [G, n, parts * H * h], each [G, H, n, h]."""
    return [part.transpose(1, 2) for part in x.unflatten(-1, (num_parts, HEADS, -1)).unbind(2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("longest", [4, 70])
def test_attention_of_sentences_to_themselves(longest: int, dtype: torch.dtype) -> None:
    ragged, num = _rows(longest), len(NUM_WORDS) * NUM_MASKS
    packed = _random(num, longest, 3 * HEADS * WIDTH, dtype=dtype)
    # a sentence's own keys alone, as rows of padding have none in the ragged layout
    valid = torch.arange(longest) < (ragged.start.diff()).unsqueeze(1)
    out, lse = _ops.masked_attention_fwd(*_heads(packed, 3), None, valid, True, False)
    packed_ragged = _to_ragged(packed, ragged)
    got = _ops.masked_attention_fwd(*_heads(packed_ragged, 3), None, valid, True, False, ragged.start, longest)
    assert torch.equal(got[0].transpose(1, 2), _to_ragged(out.transpose(1, 2), ragged))
    grad = _existing(_random(num, longest, HEADS * WIDTH, dtype=dtype, seed=1), ragged)
    into = [torch.full_like(x, float("nan")) for x in (packed, packed_ragged)]
    sums = [torch.zeros(3 * HEADS * WIDTH) for _ in range(2)]
    nothing, flags = torch.empty(0), [True, False, False]
    results = [grad.unflatten(-1, (HEADS, -1)).transpose(1, 2), out, lse]
    _ops.masked_attention_bwd_into(
        [*_heads(into[0], 3), nothing], results, _heads(packed, 3), None, valid, flags, sums[0]
    )
    results = [_to_ragged(grad, ragged).unflatten(-1, (HEADS, -1)).transpose(1, 2), *got]
    others = (None, valid, flags, sums[1], ragged.start)
    _ops.masked_attention_bwd_into([*_heads(into[1], 3), nothing], results, _heads(packed_ragged, 3), *others)
    assert torch.equal(into[1], _to_ragged(into[0], ragged)) and into[1].abs().max() > 0
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("longest", [4, 70])
def test_attention_of_sentences_to_a_memory(longest: int) -> None:
    ragged, num = _rows(longest), len(NUM_WORDS) * NUM_MASKS
    query, packed = _random(num, longest, HEADS * WIDTH), _random(num, NUM_KEYS, 2 * HEADS * WIDTH, seed=1)
    bias, valid = _random(num, NUM_KEYS, seed=2), torch.arange(NUM_KEYS) < torch.tensor([[5], [4], [1], [3]])
    out, lse = _ops.masked_attention_fwd(*_heads(query, 1), *_heads(packed, 2), bias, valid, False, False)
    of_ragged = (*_heads(_to_ragged(query, ragged), 1), *_heads(packed, 2))
    got = _ops.masked_attention_fwd(*of_ragged, bias, valid, False, False, ragged.start, longest)
    assert torch.equal(got[0].transpose(1, 2), _to_ragged(out.transpose(1, 2), ragged))
    grad = _existing(_random(num, longest, HEADS * WIDTH, seed=3), ragged)
    results = []
    for start, rows, of_out, kept in ((None, query, grad, (out, lse)), (ragged.start, None, None, got)):
        rows = _to_ragged(query, ragged) if rows is None else rows
        of_out = _to_ragged(grad, ragged) if of_out is None else of_out
        grads = [torch.full_like(x, float("nan")) for x in (rows, packed)]
        grads += [torch.ones(num, HEADS, NUM_KEYS), torch.zeros(3 * HEADS * WIDTH)]
        parts = [*_heads(grads[0], 1), *_heads(grads[1], 2), grads[2]]
        projected = [*_heads(rows, 1), *_heads(packed, 2)]
        of_out = of_out.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        _ops.masked_attention_bwd_into(
            parts, [of_out, *kept], projected, bias, valid, [False, False, True], grads[3], start
        )
        results.append(grads)
    padded, ragged_grads = results
    assert torch.equal(ragged_grads[0], _to_ragged(padded[0], ragged))
    for got_grad, expected in zip(ragged_grads[1:], padded[1:], strict=True):
        torch.testing.assert_close(got_grad, expected, rtol=1e-5, atol=1e-5)
        assert expected.abs().max() > 0


def test_attention_of_one_row_to_its_sentence() -> None:
    ragged, num = _rows(), len(NUM_WORDS) * NUM_MASKS
    query, memory = _random(HEADS, num, 8), _random(num, 4, 8, seed=1)
    valid = torch.arange(4) < NUM_WORDS.unsqueeze(1)
    out, lse = _ops.row_attention_fwd(query, memory, None, valid, 0.3)
    rows = _to_ragged(memory, ragged)
    got = _ops.row_attention_fwd(query, rows, None, valid, 0.3, ragged.start)
    assert torch.equal(got[0], out) and torch.equal(got[1], lse)
    grad = _random(HEADS, num, 8, seed=2)
    expected = _ops.row_attention_bwd([grad, lse], query, memory, None, valid, 0.3, torch.float32)
    got = _ops.row_attention_bwd([grad, lse], query, rows, None, valid, 0.3, torch.float32, ragged.start)
    assert torch.equal(got[0], expected[0]) and torch.equal(got[1], _to_ragged(expected[1], ragged))
    assert got[1].abs().max() > 0


@pytest.mark.parametrize("is_repeated", [False, True])
def test_the_end_of_a_sub_layer(is_repeated: bool) -> None:
    ragged, num = _rows(), len(NUM_WORDS) * NUM_MASKS
    x, branch, weight, bias = (
        _random(*shape, seed=seed) for seed, shape in enumerate(((num, 4, 8),) * 2 + ((8,),) * 2)
    )
    if is_repeated:
        x, branch = (each.view(len(NUM_WORDS), NUM_MASKS, 4, 8)[:, 0].contiguous() for each in (x, branch))
    keys = torch.arange(100, 100 + num, dtype=torch.int32)
    dropping = [5, 20000]
    out, *left = _ops.residual_norm_fwd(x, branch, weight, bias, keys, dropping, None, 1e-5, num)
    rows = [_to_ragged(each, ragged) for each in (x, branch)]
    got, *got_left = _ops.residual_norm_fwd(*rows, weight, bias, keys, dropping, ragged.place, 1e-5, NUM_MASKS)
    assert torch.equal(got, _to_ragged(out, ragged))
    grad = _existing(_random(num, 4, 8, seed=9), ragged)
    sums, got_sums = ([torch.zeros(8) for _ in range(3)] for _ in range(2))
    expected = _ops.residual_norm_bwd_into(sums, grad, weight, keys, dropping, None, left, x.dtype)
    rows = (_to_ragged(grad, ragged), weight, keys, dropping, ragged.place, got_left, x.dtype)
    for got_grad, each in zip(_ops.residual_norm_bwd_into(got_sums, *rows), expected, strict=True):
        assert torch.equal(got_grad, _to_ragged(each, ragged))
    # a share of about 0.3 is dropped
    assert 0 < (expected[1][:, 0] == 0).sum() < expected[1][:, 0].numel()
    for got_sum, each in zip(got_sums, sums, strict=True):
        torch.testing.assert_close(got_sum, each, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_classes", [7, 300])
def test_the_loss_of_words(num_classes: int) -> None:
    ragged = _rows()
    logits = _random(len(NUM_WORDS), NUM_MASKS, 4, num_classes)
    targets = torch.arange(16).view(4, 4) % num_classes
    is_target = torch.arange(4) < NUM_WORDS.unsqueeze(1)
    nll, *left = _ops.reconstruction_nll_fwd(logits, targets, is_target, 0.1)
    of_ragged = _to_ragged(logits.flatten(0, 1), ragged)
    got, *got_left = _ops.reconstruction_nll_fwd(of_ragged, targets, is_target, 0.1, ragged.start)
    assert torch.equal(got, nll)
    grad = _random(len(NUM_WORDS), NUM_MASKS, seed=1)
    expected = _ops.reconstruction_nll_bwd(grad, logits, targets, is_target, 0.1, *left)
    got = _ops.reconstruction_nll_bwd(grad, of_ragged, targets, is_target, 0.1, *got_left, ragged.start)
    assert torch.equal(got, _to_ragged(expected.flatten(0, 1), ragged)) and got.abs().max() > 0


def test_a_target_without_a_row_makes_its_sentence_nan_and_no_other() -> None:
    ragged = ragged_rows(NUM_WORDS, 4, 0, 9)  # the last sentence lacks a row
    assert ragged is not None
    logits, targets = _random(NUM_MASKS, 9, 7), torch.ones(4, 4, dtype=torch.int64)
    is_target = torch.arange(4) < NUM_WORDS.unsqueeze(1)
    nll, peak, log_sum = _ops.reconstruction_nll_fwd(logits, targets, is_target, 0.0, ragged.start)
    assert nll.isnan().all(1).tolist() == [False, False, False, True] and nll[:3].isfinite().all()
    grad = _ops.reconstruction_nll_bwd(
        torch.ones_like(nll), logits, targets, is_target, 0.0, peak, log_sum, ragged.start
    )
    assert grad.isfinite().all()


def test_the_registered_operators_pass_opcheck() -> None:
    # no sentence is shorter than another, because nothing is written to the lse of a row that does not exist
    ragged, check = ragged_rows(NUM_WORDS, 4, 0, 16), torch.library.opcheck
    assert ragged is not None
    packed = _random(NUM_MASKS, 16, 3 * HEADS * WIDTH)
    check(_ops.masked_attention_fwd.default, (*_heads(packed, 3), None, None, True, False, ragged.start, 4))
    logits, targets = _random(NUM_MASKS, 16, 7), torch.ones(4, 4, dtype=torch.int64)
    check(_ops.reconstruction_nll_fwd.default, (logits, targets, targets > 0, 0.1, ragged.start))
