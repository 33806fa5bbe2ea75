"""Dropout sites: each decides by its number, and the same way every time it is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pps_fast.encoder.dropout import Dropout, DropoutSite, ResidualNorm, number_sites
from pps_fast.model import PPS
from pps_fast.randomness import SITES, dropout_keys, mask_keys, mix
from tests.support.cases import SIZES, random_batch, randomize, small_config, take
from tests.support.compare import assert_agree
from tests.support.keep_mask import keep_mask

CONFIG = small_config(encoder__dropout=0.3)
WIDTH = CONFIG.encoder.hidden_dim


def _keys(number: int) -> Tensor:
    return torch.from_numpy(dropout_keys(8, 0, np.arange(number)))


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_site_of_a_model_has_another_number() -> None:
    model = PPS(small_config(reconstructor__num_layers=3), SIZES)
    sites = [module.site for module in model.modules() if isinstance(module, DropoutSite)]
    assert sites == list(range(len(sites))) and len(sites) > 20
    number_sites(model)
    assert sites == [module.site for module in model.modules() if isinstance(module, DropoutSite)]


def test_no_module_of_torch_drops_or_normalizes() -> None:
    model = PPS(CONFIG, SIZES)
    assert not [module for module in model.modules() if isinstance(module, (nn.Dropout, nn.LayerNorm))]


def test_a_site_drops_what_its_number_says() -> None:
    site, x = Dropout(CONFIG), _draw(5, 3, 7)
    site.site = 4
    got, kept = site(x, _keys(5)), keep_mask(mix(_keys(5), 4), (3, 7), 0.3)
    assert torch.equal(got != 0, kept)
    site.site = 5
    assert not torch.equal(site(x, _keys(5)) != 0, kept)
    assert site(x, None) is x


def test_the_norm_of_a_sub_layer_normalizes_and_drops_its_branch_only() -> None:
    norm = randomize(ResidualNorm(CONFIG).double())
    norm.site = 4
    x, branch, dropout_key = _draw(5, 3, WIDTH), _draw(5, 3, WIDTH, seed=1), _keys(5)
    kept = keep_mask(mix(dropout_key, 4), (3, WIDTH), 0.3).double() / (1 - round(0.3 * 65536) / 65536)
    for key_or_none, summed in ((None, x + branch), (dropout_key, x + branch * kept)):
        expected = nn.functional.layer_norm(summed, (WIDTH,), norm.weight, norm.bias, 1e-5)
        assert_agree("norm", norm(x, branch, key_or_none), expected, atol=1e-13)
    row = torch.tensor([2, 0, 1, 1, 2])
    pick = (torch.arange(5), row)
    part = norm(x[pick].unsqueeze(1), branch[pick].unsqueeze(1), dropout_key, row)
    assert_agree("row", part.squeeze(1), norm(x, branch, dropout_key)[pick], atol=1e-13)


def test_more_sites_than_the_stream_has_counters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.ModuleList(Dropout(CONFIG) for _ in range(4))
    monkeypatch.setattr("pps_fast.encoder.dropout.SITES", SITES[:3])
    with pytest.raises(ValueError, match="4 dropout sites in a model: expected at most 3"):
        number_sites(model)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_masks_and_sites_of_a_sample_are_uncorrelated(rate: float) -> None:
    dropped = round(rate * 65536) / 65536
    keys = mask_keys(_keys(128), 30)
    sets = [keep_mask(mix(keys[:, mask], site), (8, 256), rate) for mask in range(0, 30, 3) for site in (0, 1, 17)]
    sets += [keep_mask(mix(_keys(128), site), (8, 256), rate) for site in (0, 1, 17)]
    normal = (torch.stack(sets).flatten(1).double() - (1 - dropped)) / (dropped * (1 - dropped)) ** 0.5
    first, second = torch.triu_indices(len(sets), len(sets), 1)
    errors = (normal @ normal.T / normal.shape[1] ** 0.5)[first, second]
    assert errors.abs().max() < 5 and 0.9 < errors.std() < 1.1


def test_a_sample_is_trained_on_as_if_it_were_alone() -> None:
    config = small_config(encoder__dropout=0.3, proposals__num_proposals=2)
    model, batch = randomize(PPS(config, SIZES).double().train()), random_batch(dtype=torch.float64)
    together, alone = model(batch), model(take(batch, [2]))
    assert_agree("nll", alone.positive_nll, together.positive_nll[2:3], rtol=1e-12)
    others = model(replace(batch, dropout_key=batch.dropout_key.flip(0)))
    assert (others.positive_nll - together.positive_nll).abs().min() > 1e-6


def test_training_draws_nothing_from_torchs_generators_and_evaluation_reads_no_key() -> None:
    model, batch = randomize(PPS(CONFIG, SIZES).double().train()), random_batch(dtype=torch.float64)
    state = torch.get_rng_state()
    first = model(batch)
    first.best_nll.sum().backward()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert_agree("again", model(batch).positive_nll, first.positive_nll)
    model.eval()
    other = replace(batch, dropout_key=batch.dropout_key + 1)
    assert_agree("eval", model(other).positive_nll, model(batch).positive_nll)
