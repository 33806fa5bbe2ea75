"""Steps are counted as they are: products as torch counts them, our kernels' as their equations', nothing twice."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import count_step
from benchmarks.count_step import Arguments, Counter, distinct_bytes, matmul_gflop, our_flop
from benchmarks.step import build_step, random_batch
from pps_fast.encoder import fused_stack
from pps_fast.ops.registration import is_interpreted

needs_interpreter = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
SAVED = Path(__file__).parents[2] / "benchmarks" / "results" / "step_products_20261126.jsonl"


def test_products_are_counted_as_torch_counts_them_and_inside_a_pass_without_gradients_too() -> None:
    x, weight, square = torch.rand(4, 3, 5), torch.rand(7, 5, requires_grad=True), torch.rand(6, 5, 8)

    def run() -> None:
        y = torch.nn.functional.linear(x, weight)
        with torch.no_grad():
            square.transpose(1, 2) @ square
        y.sum().backward()

    with FlopCounterMode(display=False) as expected:
        run()
    # 12 rows: 2 x 12 x 5 x 7 for the product and as much for the weight's gradient
    assert expected.get_total_flops() == 2 * (2 * 12 * 5 * 7) + 2 * 6 * 8 * 5 * 8
    assert matmul_gflop(run) == expected.get_total_flops() / 1e9


def test_views_and_allocations_are_free_and_broadcast_elements_count_once() -> None:
    x = torch.ones(3, 4)
    with Counter() as counter:
        torch.empty(5).view(5).unsqueeze(0).expand(2, 5)
        x.transpose(0, 1) + x[:1].expand(4, 3, 4)[:, :, 0]
    assert [row["op"] for row in counter.rows] == ["aten::add"]
    assert counter.rows[0]["bytes"] == 4 * (12 + 1 + 12)
    assert distinct_bytes(torch.ones(3, 1).expand(3, 7)) == 12


def test_attention_kernels_count_as_their_equations() -> None:
    query, key = torch.ones(2, 3, 4, 5), torch.ones(2, 3, 6, 5)
    product = 2 * (2 * 3) * 4 * 6 * 5
    inputs = {"query": query, "key": key, "key_bias": torch.ones(2, 7, 6)}
    assert our_flop("masked_attention_fwd", inputs) == 2 * product
    assert our_flop("masked_attention_bwd", inputs) == 4 * product
    assert our_flop("shared_attention_fwd", inputs) == (1 + 7) * product
    assert our_flop("shared_attention_bwd", inputs) == (2 + 2 * 7) * product
    assert our_flop("masked_attention_bwd_into", {"projected": [query, key, key]}) == 4 * product
    row = {"query": torch.ones(3, 2, 5), "memory": torch.ones(2, 6, 5)}
    assert our_flop("row_attention_fwd", row) == 2 * (2 * (2 * 3) * 6 * 5)
    assert our_flop("row_attention_bwd", row) == 4 * (2 * (2 * 3) * 6 * 5)
    # of two samples of up to 3 keys, one behind the other
    ragged = {**row, "memory": torch.ones(1, 5, 5), "key_valid": torch.ones(2, 3), "start": torch.tensor([0, 3, 5])}
    assert our_flop("row_attention_fwd", ragged) == 2 * (2 * (2 * 3) * 3 * 5)
    assert our_flop("push_fwd", {}) == 0
    g_cls, weight, bias = torch.empty(2, 8), torch.empty(3, 8), torch.empty(3)
    heads = [weight, bias, weight[:1], bias[:1]]
    assert our_flop("component_heads_fwd", {"g_cls": g_cls, "parameters": heads}) == 2 * 2 * 8 * (3 + 1)
    assert our_flop("component_heads_bwd", {"g_cls": g_cls, "weights": heads[::2]}) == 2 * 2 * 2 * 8 * (3 + 1)
    assert our_flop("importance_score_fwd", {"x": query}) == 2 * query.numel()
    assert our_flop("importance_score_bwd", {"x": query}) == 4 * query.numel()


def test_the_product_of_a_weight_s_gradient_is_counted_and_is_no_kernel() -> None:
    grad, x, weight = torch.ones(5, 3), torch.ones(5, 4), torch.zeros(3, 4)
    with Counter() as counter:
        torch.ops.pps_fast.weight_gradient(grad, x, weight)
    (row,) = counter.rows
    assert (row["flop"], row["bytes"]) == (2 * 5 * 3 * 4, 4 * (5 * 3 + 5 * 4 + 3 * 4))
    assert count_step.summary_rows([row], "op")[0]["kernels"] == 0
    heads = {"grad": grad.expand(2, 5, 3), "x": x.expand(2, 5, 4)}
    assert our_flop("weight_gradient", heads) == 2 * row["flop"]


def test_a_fake_step_multiplies_and_calls_as_the_real_one(narrow: Any) -> None:
    narrow(count_step, width=32, num_layers=1)
    arguments = Arguments(preset="charades", precision="fp32", path="cpu", batch_size=1)
    sizes, lengths = count_step.sizes_of("charades")
    cpu = torch.device("cpu")
    step, batch = build_step(count_step.config_of(arguments), sizes, cpu), random_batch(sizes, lengths, 1, cpu)
    step(batch)
    with Counter() as counter:
        step(batch)
    rows = count_step.count(arguments)
    assert sum(row["flop"] for row in rows) == sum(row["flop"] for row in counter.rows) > 0
    # some views of gradients become copies without values
    assert len(rows) == pytest.approx(len(counter.rows), rel=0.02)
    assert list(dict.fromkeys(row["phase"] for row in rows)) == ["forward", "losses", "backward", "update"]


def _saved_by_absorption(memory: torch.Tensor, num_heads: int) -> int:
    """Products less in the forward pass of one row's attention to memory [G, T, D], by its equation."""
    num, num_keys, width = memory.shape
    projected = 2 * num_keys * width * 2 * width + 2 * (2 * num_keys * width)
    absorbed = 2 * (2 * width * width) + 2 * (2 * num_heads * num_keys * width)
    return num * (projected - absorbed)


@needs_interpreter
def test_both_paths_of_the_plain_plan_multiply_the_same_but_for_rows(
    narrow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(count_step, width=32, num_layers=1)
    counted, saved = {}, []

    def spy(function: Any, number: int, *args: Any) -> Any:
        saved.append(_saved_by_absorption(args[number], args[5]))
        return function(*args)

    # of each, what is attended to is the argument of this number
    for name, number in (("self_attention_of_row", 0), ("cross_attention_of_row", 1)):
        monkeypatch.setattr(fused_stack, name, partial(spy, getattr(fused_stack, name), number))
    for path in ("gpu", "cpu"):
        rows = count_step.count(Arguments(precision="fp32", plan="plain", path=path, evaluation=True, batch_size=1))
        counted[path] = sum(row["flop"] for row in rows)
        assert any(row["op"].startswith("pps_fast::") for row in rows) == (path == "gpu")
    # the equation of pushing multiplies matrices of 28 x 50, its kernel is not counted; evaluation has no pushing. The
    # learned row of hidden words is projected apart, or with the words
    apart = 2 * count_step.sizes_of("charades")[0].word_dim * 32
    # an evaluation runs twice and is counted once
    assert saved
    assert counted["gpu"] + apart + sum(saved) // 2 == counted["cpu"] > 1e7


@needs_interpreter
@pytest.mark.parametrize("is_evaluation", [False, True])
def test_a_run_prints_tables_and_appends_rows(
    is_evaluation: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], narrow: Any
) -> None:
    narrow(count_step, width=32, num_layers=1)
    out = tmp_path / "rows.jsonl"
    count_step.main(Arguments(preset="activitynet", evaluation=is_evaluation, batch_size=1, most=3, out=out))
    printed = capsys.readouterr().out
    assert "| whole step |" in printed and "GFLOP of products" in printed
    assert "an evaluation step" in printed if is_evaluation else "a training step" in printed
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    phases = [row["phase"] for row in rows if "phase" in row]
    assert phases == (["forward"] if is_evaluation else ["forward", "losses", "backward", "update"])
    for name in ("calls", "bytes", "flop", "kernels"):
        assert sum(row[name] for row in rows if "phase" in row) == sum(row[name] for row in rows if "op" in row) > 0


# of the GPU's path in bf16: calls, GB read and written, GFLOP of products
LIMITS = {
    ("charades", False): (691, 8.16, 692.5),
    ("charades", True): (229, 3.09, 260.7),
    ("activitynet", False): (691, 5.84, 487.4),
    ("activitynet", True): (224, 2.11, 179.5),
}


@needs_interpreter
@pytest.mark.parametrize(("preset", "is_evaluation"), LIMITS)
def test_no_count_of_a_step_grows(preset: Any, is_evaluation: bool) -> None:
    rows = count_step.count(Arguments(preset=preset, evaluation=is_evaluation))
    counted = len(rows), sum(row["bytes"] for row in rows) / 1e9, sum(row["flop"] for row in rows) / 1e9
    for got, limit in zip(counted, LIMITS[preset, is_evaluation], strict=True):
        # a count that shrank is written down, so that it cannot grow back
        assert 0.98 * limit < got <= limit, f"{counted}: if this is meant, write it into the table"


def test_nothing_in_an_evaluation_on_a_cpu_is_larger_than_the_logits() -> None:
    arguments = Arguments(preset="activitynet", path="cpu", evaluation=True)
    sizes, lengths = count_step.sizes_of("activitynet")
    columns = random_batch(sizes, lengths, arguments.batch_size, torch.device("cpu")).words.shape[1]
    num_proposals = count_step.config_of(arguments).proposals.num_proposals
    rows = count_step.count(arguments)
    # the weight of the vocabulary was once copied for every sentence and mask
    assert max(row["values"] for row in rows) == arguments.batch_size * num_proposals * columns * sizes.vocab_size


def test_savings_are_those_of_the_products_in_the_file() -> None:
    rows = [json.loads(line) for line in SAVED.read_text(encoding="utf-8").splitlines()]
    assert {row["preset"] for row in rows} == {"charades_released", "activitynet_released"}
    for row in rows:
        for path in ("gpu", "cpu"):
            for other, name in ((row["gflop_published"], "published"), (row[f"gflop_plain_{path}"], "plain")):
                saved = 100 * (1 - row[f"gflop_shared_{path}"] / other)
                assert row[f"percent_saved_{path}_against_{name}"] == pytest.approx(saved, abs=0.1)
    assert "charades_released, products of a training step" in count_step.savings_table(rows)
