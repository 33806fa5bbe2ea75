"""The paper's ablations are field overrides, and every row of them trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pps_fast.ablations import ABLATIONS, FULL, Row
from pps_fast.config import PPSConfig
from pps_fast.config_tree import override, to_dict
from pps_fast.data.load import load_data
from pps_fast.data.store import Store
from pps_fast.losses import Objective
from pps_fast.model import PPS
from pps_fast.presets import PRESETS
from pps_fast.proposals.layout import layout_of
from pps_fast.train.optimizer import Adam
from pps_fast.train.step import TrainStep

# one paper table a line: label -> columns of the PDF, copied a second time
PRINTED = {
    "table2": "47.49 33.33 78.23 54.85 / 59.29 37.59 85.54 58.78 / 46.63 31.54 83.65 59.49 / 47.82 32.08 84.09 56.35 / "
    "59.29 37.59 85.54 58.78 / 52.55 34.56 79.67 58.41 / 48.55 32.36 78.96 56.87 / 59.29 37.59 85.54 58.78",
    "table4a": "33.33 54.85 / 35.91 56.27 / 36.58 54.36 / 36.25 49.48 / 37.59 58.78",
    "table4b": "35.41 56.87 / 35.83 58.92 / 37.59 58.78",
    "table5": "45.23 30.98 67.86 47.75 / 55.03 36.79 72.49 51.14 / 45.69 29.83 71.51 49.69 / 23.50 15.96 72.30 44.46 / "
    "23.47 16.38 66.15 38.20 / 41.51 30.23 85.18 60.44 / 49.98 32.46 80.54 55.26 / 59.29 37.59 85.54 58.78",
}
OF_NETWORKS = [name for name, ablation in ABLATIONS.items() if ablation.method == "proposals"]
ROWS = [(name, row) for name in OF_NETWORKS for row in ABLATIONS[name].rows]
TINY = override(PRESETS["tiny"], {"data.planted.num_videos": 10})


@pytest.fixture(scope="module")
def store() -> Store:
    store = Store(load_data(TINY.data))
    store.set_parts(np.zeros(store.data.num_samples, dtype=np.int64))
    return store


def _row(name: str, label: str) -> Row:
    (row,) = [row for row in ABLATIONS[name].rows if row.label == label]
    return row


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{name}-{row.label}" for name, row in ROWS])
def test_every_row_takes_a_training_step(name: str, row: Row, store: Store) -> None:
    config = row.apply(TINY)
    torch.manual_seed(0)
    model = PPS(config, store.sizes).train()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    step = TrainStep(model, Objective(config), Adam(model.parameters(), lr=1e-3, weight_decay=0.0), 10.0, "fp32")
    report = step(store.batch([0, 1, 2, 3], seed=0))
    assert torch.isfinite(report.loss.total) and torch.isfinite(report.grad_norm)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("name", ABLATIONS)
def test_rows_differ_from_each_other_and_the_full_model_is_among_them(name: str) -> None:
    preset = {"alignment": "activitynet_align", "alignment_fit": "alignment"}.get(name, "activitynet")
    ablation, config = ABLATIONS[name], PRESETS[preset]
    ablation.check(config)
    labels = [row.label for row in ablation.rows]
    assert len(set(labels)) == len(labels) and FULL not in set(labels) - {FULL}
    configs = [row.apply(config) for row in ablation.rows]
    others = [other for other in configs if other != config]
    assert len(configs) > len(others), "no row is the full model"
    assert all(others.count(other) == 1 for other in others)


@pytest.mark.parametrize("name", PRINTED)
def test_figures_beside_the_rows_are_the_papers(name: str) -> None:
    printed = [[float(number) for number in row.split()] for row in PRINTED[name].split("/")]
    assert [list(row.paper.values()) for row in ABLATIONS[name].rows] == printed


@pytest.mark.parametrize("name", ["fig3", "fig4"])
def test_figures_of_the_paper_print_no_numbers(name: str) -> None:
    assert not any(row.paper for row in ABLATIONS[name].rows)
    assert "not in the paper's text" in ABLATIONS[name].note


@pytest.mark.parametrize("label", ["single Gaussian", "one center, several widths"])
def test_rows_that_the_paper_trains_without_pull_and_intra_do_so(label: str) -> None:
    losses = _row("table2", label).apply(PPSConfig()).losses
    assert (losses.pull, losses.push_intra) == (0.0, 0.0) and losses.push_inter > 0
    assert all(row.apply(PPSConfig()).losses == PPSConfig().losses for row in ABLATIONS["table2"].rows[3:])


def test_number_of_components_is_that_of_the_label() -> None:
    counts = {row.label: layout_of(row.apply(PPSConfig()).proposals) for row in ABLATIONS["table4a"].rows}
    assert {label: set(layout.components_per_proposal) for label, layout in counts.items() if label != "vary"} == {
        f"fix to {count}": {count} for count in (1, 3, 5, 7)
    }
    assert counts["vary"].components_per_proposal == tuple(range(1, 8))


def test_table_5_has_every_combination_once() -> None:
    on = {
        (losses.pull > 0, losses.push_intra > 0, losses.push_inter > 0): row.label
        for row in ABLATIONS["table5"].rows
        for losses in [row.apply(PPSConfig()).losses]
    }
    assert len(on) == 8
    for (pull, intra, inter), label in on.items():
        assert ("pull" in label, "intra" in label, "inter" in label) == (pull, intra, inter)


def test_weights_are_factors_on_the_presets_own() -> None:
    config = override(PPSConfig(), {"losses.pull": 6.0})
    assert _row("fig4", "alpha_2 x 1/3").apply(config).losses.pull == pytest.approx(2.0)
    assert _row("fig4", "alpha_4 x 10").changes(config) == {"losses.push_inter": 10.0}


def test_rows_change_nothing_but_what_they_speak_of() -> None:
    for name, row in ROWS:
        config = PRESETS["charades_clip_small"]
        changed = override(config, row.changes(config))
        # what the generator sees, and what selects, is what this one is about
        sections = ("data", "train") if name == "alignment" else ("data", "encoder", "inference", "train")
        for section in sections:
            assert to_dict(changed)[section] == to_dict(config)[section], (name, row.label)


def test_a_loss_that_rows_call_on_must_be_on_in_the_preset() -> None:
    with pytest.raises(ValueError, match=r"losses.push_intra = 0.0: expected above 0, since rows of 'losses of the"):
        ABLATIONS["table5"].check(override(PPSConfig(), {"losses.push_intra": 0.0}))


def test_rows_of_another_method_than_the_presets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method = 'proposals': expected 'alignment', which 'closed-form alignment"):
        ABLATIONS["alignment_fit"].check(PPSConfig())
    with pytest.raises(ValueError, match=r"method = 'alignment': expected 'proposals'"):
        ABLATIONS["table2"].check(PRESETS["alignment"])
