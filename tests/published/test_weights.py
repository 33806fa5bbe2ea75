"""Weights and settings of the published code, in and out."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from pps_fast.config_tree import override
from pps_fast.model import PPS
from pps_fast.presets import PRESETS
from pps_fast.published.weights import export_released, import_released, released_config, released_gradients
from tests.support.golden_model import Golden, model_of

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = ("tiny_topk2", "tiny_varframes", "tiny_neg_inverse_fixed")


@pytest.fixture(params=FILES)
def golden(request) -> Golden:
    return Golden(GOLDEN / f"{request.param}.npz")


def _dead(golden: Golden) -> set[str]:
    return set(golden["meta/grad_none"].tolist())


def test_export_after_import_is_the_published_state_dict(golden):
    exported, state = export_released(model_of(golden, torch.float64)), golden.state()
    assert exported.keys() == state.keys()
    for name, value in state.items():
        assert exported[name].shape == value.shape, name
        expected = torch.zeros_like(value) if name in _dead(golden) else value
        assert torch.equal(exported[name].float(), expected), name


def test_import_after_export_is_the_model(golden):
    model = model_of(golden, torch.float64)
    twin = PPS(model.config, model.sizes).double()
    import_released(twin, export_released(model))
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_dead_weights_do_not_matter(golden):
    state = golden.state()
    for name in _dead(golden):
        state[name] = torch.randn_like(state[name])
    model = model_of(golden, torch.float64)
    twin = copy.deepcopy(model)
    import_released(twin, state)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_missing_weight_is_named(golden):
    state = golden.state()
    del state["word_fc.weight"]
    with pytest.raises(ValueError, match=r"no word_fc.weight, which embed.word_projection.weight needs"):
        import_released(model_of(golden, torch.float32), state)


def test_a_weight_of_another_shape_is_named(golden):
    state = golden.state()
    state["fc_comp.weight"] = state["fc_comp.weight"][:-1]
    with pytest.raises(ValueError, match=r"reconstruct.vocabulary.weight has shape \(20, 16\).* \(19, 16\)"):
        import_released(model_of(golden, torch.float32), state)


def test_gradients_come_under_the_published_names(golden):
    model = model_of(golden, torch.float64)
    model.embed.word_projection.weight.grad = torch.full_like(model.embed.word_projection.weight, 3.0)
    gradients = released_gradients(model)
    assert torch.equal(gradients["word_fc.weight"], model.embed.word_projection.weight.grad)
    assert not gradients["frame_fc.weight"].any()


def test_settings_of_the_published_code_become_the_released_presets():
    transformer = {"d_model": 256, "num_heads": 4, "num_decoder_layers1": 3, "num_decoder_layers2": 3, "dropout": 0.1}
    model = {
        "mask_type": "gaussian",
        "num_props": 7,
        "sigma_gauss": 9,
        "sigma_laplace": 9,
        "num_neg_mask": 3,
        "sigma_neg_inv_gauss": 1,
        "sigma_neg_gauss": 9,
        "use_attn": True,
        "pred_gamma": 0,
        "neg_type": "learnable_gaussian",
        "hidden_dim": 256,
        "masked_words_ratio": 3,
        "dropout": 0.1,
        "DualTransformer": transformer,
    }
    loss = {
        "margin_hneg": 0.1,
        "margin_eneg": 0.15,
        "lambda_inter_push": 0.15,
        "lambda_intra_push": 0.15,
        "alpha_ivc": 3,
        "alpha_pull": 5,
        "alpha_inter_push": 1,
        "alpha_intra_push": 0.001,
        "num_train_prop": 1,
    }
    assert released_config(model, loss) == PRESETS["charades_released"]
    repaired = override(
        PRESETS["charades_released"], {"generator.width_source": "first", "reconstructor.word_cls": "vector"}
    )
    assert released_config(model, loss, repaired=True) == repaired
    with pytest.raises(ValueError, match="neg_type = 'other': expected one of learnable_gaussian"):
        released_config({**model, "neg_type": "other"}, loss)
    shallow = released_config({**model, "DualTransformer": {**transformer, "num_decoder_layers2": 2}}, loss)
    assert (shallow.generator.num_layers, shallow.generator.num_word_layers) == (3, 2)


def test_stacks_of_two_depths_go_out_and_in():
    golden = Golden(GOLDEN / "tiny_topk2.npz")
    deeper = {"generator.num_word_layers": 2, "reconstructor.num_word_layers": 3}
    model = PPS(override(golden.config(), deeper), model_of(golden, torch.float32).sizes)
    exported = export_released(model)
    layers = {
        name.split("decoder_layers.")[0] + name.split("decoder_layers.")[1][0] for name in exported if "layers" in name
    }
    for stack in ("trans_mask_generator.gauss.decoder2.", "trans_mask_generator.l_gauss.decoder2."):
        assert f"{stack}1" in layers and f"{stack}2" not in layers
    assert "trans_reconstructor.decoder2.2" in layers and "trans_reconstructor.decoder1.1" not in layers
    twin = PPS(model.config, model.sizes)
    import_released(twin, exported)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_model_of_the_paper_cannot_be_exported():
    """One width per proposal has no place in the published heads."""
    golden = Golden(GOLDEN / "tiny_topk2.npz")
    config = override(golden.config(), {"generator.width_source": "per_proposal"})
    model = PPS(config, model_of(golden, torch.float32).sizes)
    with pytest.raises(ValueError, match="generator.width_source = 'per_proposal'"):
        export_released(model)


def test_a_model_of_standardized_features_cannot_be_exported():
    golden = Golden(GOLDEN / "tiny_topk2.npz")
    model = PPS(override(golden.config(), {"encoder.frames": "standardized"}), model_of(golden, torch.float32).sizes)
    with pytest.raises(ValueError, match="encoder.frames = 'standardized': the published code takes features as they"):
        export_released(model)
