"""Ops one after another, as the model calls them: from centers and widths to attention, and compiled by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pps_fast.ops.attentive_pooling import importance, mixture, peak_mixture
from pps_fast.ops.dispatch import Op
from pps_fast.ops.gaussian_mask import gaussian_mask, gaussian_peak_mask, laplace_mask
from pps_fast.ops.masked_attention import masked_attention
from pps_fast.ops.pull_push import push
from tests.support.cases import LAYOUTS, to_tensors
from tests.support.compare import assert_agree, assert_close
from tests.support.op_check import HALF

# torch's own, about what torch.compile does with torch.autograd.Function
COMPILES = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
LAYOUT = LAYOUTS["ramp3"]
GROUP, NUM_GROUPS, POSITIONS, SIGMA = torch.tensor(LAYOUT.group), LAYOUT.num_proposals, 50, 9.0
# f / (f + 1e-10) times d exponent / dc in units of 1 / s, and times d exponent / ds, for each of the shapes at most
STEEPEST_CENTER, STEEPEST_WIDTH = 12.0, 60.0
Inputs = dict[str, Tensor]


def _inputs(dtype: torch.dtype, causal: bool) -> Inputs:
    """Centers, widths and scores of a sample in fp32, as heads make them, and queries, keys and values as `dtype`."""
    rng = np.random.default_rng(7)
    shape, queries = (1, LAYOUT.num_components), POSITIONS if causal else 5
    narrow = {
        "center": rng.uniform(0.1, 0.9, shape),
        # the mask is 1e-10 at half the width from the center
        "width": rng.uniform(0.1, 0.3, shape),
        "score": rng.normal(size=shape),
    }
    drawn = {name: rng.normal(size=(1, 1, POSITIONS, 4)) for name in ("key", "value")}
    drawn["query"] = rng.normal(size=(1, 1, queries, 4))
    tensors = to_tensors(narrow, torch.float32) | to_tensors(drawn, dtype)
    return {name: x.requires_grad_() for name, x in tensors.items()}


def _attend(log_masks: Tensor, inputs: Inputs, causal: bool, backend: str) -> Tensor:
    """[B, N, T] logs -> attention of every one of them, as the reconstructor passes them."""
    number = log_masks.shape[1]
    repeated = {name: inputs[name].repeat_interleave(number, 0) for name in ("query", "key", "value")}
    return masked_attention(**repeated, key_bias=log_masks.flatten(0, 1), causal=causal, backend=backend)


def _alone(mask: Op) -> Callable[..., Tensor]:
    def run(inputs: Inputs, causal: bool, backend: str) -> tuple[Tensor, Tensor]:
        masks, logs = mask(inputs["center"], inputs["width"], SIGMA, POSITIONS, backend=backend)
        return logs, _attend(logs, inputs, causal, backend)

    return run


def _mixed(inputs: Inputs, causal: bool, backend: str) -> tuple[Tensor, Tensor]:
    masks, logs = gaussian_mask(inputs["center"], inputs["width"], SIGMA, POSITIONS, backend=backend)
    weights = importance(inputs["score"], GROUP, NUM_GROUPS, backend=backend)
    _, log = mixture(masks, logs, weights, GROUP, NUM_GROUPS, backend=backend)
    return log, _attend(log, inputs, causal, backend)


def _summed(inputs: Inputs, causal: bool, backend: str) -> tuple[Tensor, Tensor]:
    masks, _ = gaussian_peak_mask(inputs["center"], inputs["width"], SIGMA, POSITIONS, backend=backend)
    _, log = peak_mixture(masks, GROUP, NUM_GROUPS, backend=backend)
    return log, _attend(log, inputs, causal, backend)


CHAINS = {
    "gaussian": _alone(gaussian_mask),
    "gaussian_peak": _alone(gaussian_peak_mask),
    "laplace": _alone(laplace_mask),
    "mixture": _mixed,
    "peak_mixture": _summed,
}


def _results(chain: str, inputs: Inputs, causal: bool, backend: str) -> Inputs:
    """The attention, and gradients of the log masks and of all that the chain reads."""
    log, out = CHAINS[chain](inputs, causal, backend)
    grad = torch.linspace(-1.3, 1.7, out.numel(), dtype=torch.float64).reshape(out.shape).to(out.dtype)
    read = {name: x for name, x in inputs.items() if name != "score" or chain == "mixture"}
    grads = torch.autograd.grad(out, [log, *read.values()], grad)
    return {"out": out.detach()} | dict(zip(["log", *read], grads, strict=True))


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "cross"])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
@pytest.mark.parametrize("chain", CHAINS)
def test_gradients_through_masks_that_vanish_nearly_everywhere_agree_with_float64(
    chain: str, dtype: torch.dtype, causal: bool, backend: str, poisoned_empty: None
) -> None:
    inputs = _inputs(dtype, causal)
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    got, reference = _results(chain, inputs, causal, backend), _results(chain, inputs, causal, "torch")
    for name, oracle in _results(chain, exact, causal, "torch").items():
        # the cap is that of the activations, also for what is kept in fp32
        assert_close("masked_attention", got[name].to(dtype), reference[name].to(dtype), oracle)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("chain", CHAINS)
def test_what_a_mask_sends_back_is_bounded_by_what_its_log_receives(chain: str, backend: str) -> None:
    """No 1 / (f + 1e-10) is left over: a gradient of order 1 gives one of order 1 / s."""
    inputs = _inputs(torch.float32, causal=True)
    grads = _results(chain, inputs, True, backend)
    # a row of weights sums to 1, and so do its changes; every query has at most twice the largest value
    largest = 2 * 1.7 * inputs["value"].detach().abs().sum(-1).max()
    received = grads["log"].abs().sum(-1)
    assert received.max() < POSITIONS * largest
    if chain in ("mixture", "peak_mixture"):
        received = received[:, GROUP]
    std = inputs["width"].detach() / SIGMA
    # sums over their peak pass the gradient of the peak on, too
    times = 3 if chain == "peak_mixture" else 1
    assert (grads["center"].abs() <= times * STEEPEST_CENTER * received / std).all()
    assert (grads["width"].abs() <= times * STEEPEST_WIDTH * received / (std * SIGMA)).all()


def test_the_masks_of_these_chains_vanish_over_most_positions() -> None:
    inputs = _inputs(torch.float32, causal=True)
    logs = {chain: run(inputs, True, "torch")[0] for chain, run in CHAINS.items()}
    for chain in ("gaussian", "gaussian_peak", "mixture"):
        assert (logs[chain] < np.log(2e-10)).float().mean() > 0.5, chain


# --- torch.compile --------------------------------------------------------------------------------


def _compiled(run: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
    """What a function returns compiled, without a break of the graph, and as it is."""
    torch._dynamo.reset()
    return torch.compile(run, fullgraph=True, backend="eager")(*arguments), run(*arguments)


@COMPILES
@pytest.mark.parametrize("chain", ["gaussian", "mixture", "peak_mixture"])
def test_the_kernels_are_compiled_into_one_graph(chain: str) -> None:
    inputs = _inputs(torch.float32, causal=True)

    def run(inputs: Inputs) -> Tensor:
        return CHAINS[chain](inputs, True, "triton")[1]

    grads = []
    for out in _compiled(run, inputs):
        read = [x for name, x in inputs.items() if name != "score" or chain == "mixture"]
        grads.append([out.detach(), *torch.autograd.grad(out.square().sum(), read)])
    for got, expected in zip(*grads, strict=True):
        assert_agree(chain, got, expected)


@COMPILES
@pytest.mark.parametrize("normalize", [True, False])
def test_the_pushing_loss_is_compiled_into_one_graph(normalize: bool) -> None:
    masks = torch.rand(2, LAYOUT.num_components, 9, requires_grad=True)

    def run(masks: Tensor) -> Tensor:
        return push(masks, GROUP, 0.15, normalize=normalize, backend="triton")

    grads = [(loss.detach(), *torch.autograd.grad(loss, masks)) for loss in _compiled(run, masks)]
    for got, expected in zip(*grads, strict=True):
        assert_agree("push", got, expected)


@COMPILES
def test_a_compiled_graph_follows_the_precision_of_products(matmul_precision: None) -> None:
    graphs, x = [], torch.rand(1, 1, 3, 4)

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    run = torch.compile(lambda x: masked_attention(x, x, x, backend="triton"), fullgraph=True, backend=keep)
    for precision in ("highest", "high", "medium"):
        torch.set_float32_matmul_precision(precision)
        run(x)
        (call,) = [node for node in _calls(graphs[-1]) if "masked_attention_fwd" in str(node.target)]
        assert call.args[-1] is (precision != "highest")
    assert len(graphs) > 1


def _calls(graph: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """Calls of functions in a graph and in the graphs that it calls."""
    parts = [part for part in graph.modules() if isinstance(part, torch.fx.GraphModule)]
    return [node for part in parts for node in part.graph.nodes if node.op == "call_function"]
