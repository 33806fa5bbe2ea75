"""Rows with tokens are made, projected and differentiated as the embedding does it in parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pps_fast.encoder.dropout import number_sites
from pps_fast.encoder.embedding import Embedding
from pps_fast.ops.dispatch import BackendError
from pps_fast.ops.registration import is_interpreted
from pps_fast.ops.token_rows import project_rows
from pps_fast.train.optimizer import Adam
from tests.support.cases import SIZES, random_batch, randomize, small_config
from tests.support.compare import assert_agree

pytestmark = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
BATCH = random_batch()
HIDDEN = torch.zeros(4, 9, dtype=torch.bool)
HIDDEN[0, 1] = HIDDEN[1, 0] = HIDDEN[1, 6] = HIDDEN[3, 2] = True
ANCESTOR = {"proposals__layout": "uniform", "reconstructor__word_cls": "none", "reconstructor__word_tokens": "reused"}
SCALAR = {"reconstructor__word_cls": "scalar_per_batch_position"}


def _embedding(backend: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Embedding:
    embedding = Embedding(small_config(backend=backend, encoder__dropout=0.5, **changes), SIZES)
    number_sites(embedding)
    return randomize(embedding).to(dtype)


def _results(embedding: Embedding, dtype: torch.dtype, dropout_key: Tensor | None) -> list[Tensor]:
    """Frames, query, hidden query and the gradients of all parameters."""
    batch = BATCH.to(dtype=dtype)
    results = [
        embedding.frames(batch, dropout_key),
        embedding.query(batch, dropout_key),
        embedding.hidden_query(batch, HIDDEN, dropout_key),
    ]
    for seed, each in enumerate(results):
        grad = torch.randn(each.shape, generator=torch.Generator().manual_seed(seed))
        each.backward(grad.to(each.dtype))
    return [*(each.detach() for each in results), *(each.grad for each in embedding.parameters())]


@pytest.mark.parametrize("is_dropping", [False, True], ids=["kept", "dropped"])
@pytest.mark.parametrize("changes", [{}, SCALAR, ANCESTOR, {"encoder__frame_summary": "last_frame"}], ids=str)
def test_rows_and_gradients_are_those_of_float64(
    changes: dict[str, str], is_dropping: bool, poisoned_empty: None
) -> None:
    dropout_key = BATCH.dropout_key if is_dropping else None
    got = _results(_embedding("triton", **changes), torch.float32, dropout_key)
    expected = _results(_embedding("torch", torch.float64, **changes), torch.float64, dropout_key)
    for each, exact in zip(got, expected, strict=True):
        assert_agree("embedding", each.double(), exact, rtol=1e-6)


def test_in_bf16_rows_and_gradients_have_torch_s_dtypes_and_are_near() -> None:
    exact = _results(_embedding("torch", torch.float64), torch.float64, BATCH.dropout_key)
    with torch.autocast("cpu", torch.bfloat16):
        got, plain = (_results(_embedding(name), torch.float32, BATCH.dropout_key) for name in ("triton", "torch"))
    assert [each.dtype for each in got] == [each.dtype for each in plain]
    for each, expected in zip(got, exact, strict=True):
        # the interpreter cuts off where a GPU rounds to bf16
        assert (each.double() - expected).norm() <= 0.02 * expected.norm()


def test_gradients_are_added_where_the_update_reads_them() -> None:
    embedding = _embedding("triton")
    optimizer = Adam(embedding.parameters(), lr=0.0, backend="torch")
    _results(embedding, torch.float32, None)
    optimizer.step()
    memory = [each.grad.data_ptr() for each in embedding.parameters()]
    first = [each.clone() for each in _results(embedding, torch.float32, None)[3:]]
    assert [each.grad.data_ptr() for each in embedding.parameters()] == memory
    for twice, once in zip(_results(embedding, torch.float32, None)[3:], first, strict=True):
        assert_agree("gradient", twice, 2 * once, rtol=1e-6)


def test_features_with_a_gradient_are_projected_by_torch() -> None:
    embedding, batch = _embedding("triton"), BATCH.to(dtype=torch.float32)
    words = batch.words.clone().requires_grad_()
    embedding.embedded_words(words, embedding.query_dropout, None).sum().backward()
    assert (words.grad != 0).any()


def test_tokens_before_and_behind_more_rows_than_a_program_holds(poisoned_empty: None) -> None:
    generator = torch.Generator().manual_seed(0)
    x, token = torch.randn(3, 70, 40, generator=generator), torch.randn(40, generator=generator)
    projection = nn.Linear(40, 40)
    nn.init.eye_(projection.weight)
    nn.init.zeros_(projection.bias)
    before = project_rows(x, token, projection, None, [0, 0], (0, 73))
    zeros = torch.zeros(3, 2, 40)
    assert_agree("before", before.detach(), torch.cat((token.expand(3, 1, -1), x, zeros), 1))
    behind = project_rows(x, token, projection, None, [0, 0], (70, 71))
    assert_agree("behind", behind.detach(), torch.cat((x, token.expand(3, 1, -1)), 1))


def test_a_second_derivative_is_refused() -> None:
    embedding = _embedding("triton")
    rows = embedding.frames(BATCH.to(dtype=torch.float32), None)
    (first,) = torch.autograd.grad(rows.square().sum(), embedding.frame_cls, create_graph=True)
    with pytest.raises(BackendError, match="a projection of rows with a token: the kernel's gradient"):
        first.sum().backward()


def test_the_registered_operators_pass_opcheck() -> None:
    x, tokens, ops = torch.randn(2, 3, 6), [torch.randn(6), torch.randn(6)], torch.ops.pps_fast
    is_hidden = torch.tensor([[True, False, False], [False, False, True]])
    others = (is_hidden, torch.tensor([3, 4], dtype=torch.int32), [2, 6554])
    torch.library.opcheck(ops.token_rows_fwd.default, (x, tokens, *others, [0, 5], torch.bfloat16))
    sums = [torch.zeros(6), torch.zeros(6)]
    torch.library.opcheck(ops.token_rows_bwd.default, (sums, torch.randn(2, 5, 6), *others, 0, 0))
