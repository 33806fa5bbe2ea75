"""This package against recorded results of the published code: the files in tests/golden, and others where they exist.

tests/golden/README.md says what each file is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.golden_check import check_file, main, summarize
from tests.support.golden_outputs import SHARED
from tests.support.golden_report import compare
from tests.support.shared import shared_path

GOLDEN = Path(__file__).parent / "golden"
SHIPPED = sorted(path.stem for path in GOLDEN.glob("*.npz"))
# most bytes of the shipped files together
_MOST_BYTES = 3_000_000
# PPS files exist as published, and with its two repairs as NAME_fixed
_PPS = (
    "tiny",
    "tiny_varframes",
    "charades_small",
    "anet_small",
    "tiny_laplace_linvneg",
    "tiny_neg_gaussian",
    "tiny_neg_inverse",
    "tiny_neg_saturated",
    "tiny_noattn",
    "tiny_topk2",
)
ALL = [f"{name}{suffix}" for name in _PPS for suffix in ("", "_fixed")]
ALL += ["cpl_tiny", "cpl_tiny_gamma0", "cnm_tiny", "kernels_f64"]


def _assert_all_ok(path: Path) -> None:
    checks = check_file(path)
    assert checks
    failed = [f"{check.name}: {check.error:.1e}" for check in checks if not check.is_ok]
    assert not failed, "\n".join(failed + summarize(checks))


@pytest.mark.parametrize("name", SHIPPED)
def test_equal_to_the_published_code(name: str) -> None:
    _assert_all_ok(GOLDEN / f"{name}.npz")


@pytest.mark.parametrize("name", [name for name in ALL if name not in SHIPPED])
def test_equal_to_the_published_code_on_every_shared_file(name: str) -> None:
    _assert_all_ok(shared_path(f"golden/{name}.npz"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_is_the_shared_one(name: str) -> None:
    assert (GOLDEN / f"{name}.npz").read_bytes() == shared_path(f"golden/{name}.npz").read_bytes()


def test_the_shipped_files_cover_every_model_and_are_small() -> None:
    assert {"tiny_varframes", "cpl_tiny_gamma0", "cnm_tiny", "kernels_f64"} <= set(SHIPPED) <= set(ALL)
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) <= _MOST_BYTES
    readme = (GOLDEN / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)\.npz` \|", readme, re.MULTILINE)) == SHIPPED


@pytest.mark.parametrize("name", ["tiny_topk2", "tiny_varframes"])
def test_nothing_the_published_code_computed_is_left_out(name: str) -> None:
    """Left out are inputs, logged numbers (some are wrong), and metrics as arrays (they are compared one by one)."""
    path = GOLDEN / f"{name}.npz"
    compared = {check.name for check in check_file(path)}
    not_results = re.compile(r"meta/|state/|in/|.*/official_log/|f32/eval/(duration|gt_.*)|.*/metric_(names|values)")
    with np.load(path) as archive:
        left_out = [name for name in archive.files if name not in compared and not not_results.match(name)]
    assert left_out == []


def test_the_shared_schedule_leaves_out_nothing_but_what_the_losses_do_not_read() -> None:
    """It scores the easy negatives of the best positives only; everything else is compared under both schedules."""
    names = [check.name for check in check_file(GOLDEN / "tiny_topk2.npz")]
    plain, shared = (
        {name.removesuffix(SHARED) for name in names if name.endswith(SHARED) == is_shared}
        for is_shared in (False, True)
    )
    missing = {re.sub("^f(32|64)/", "", name) for name in plain - shared}
    alternatives = {f"loss/{reading}/C_eneg" for reading in ("alt_exactlen", "alt_eosall")}
    assert missing == {"out/neg_words_logits", "loss/C_eneg"} | alternatives
    assert {f"{tag}/{name}@best" for tag in ("f64", "f32") for name in ("loss/C_eneg", "loss/C_pos")} <= shared
    assert "f64/out/neg_words_logits@best" in shared


def _perturbed(tmp_path: Path, source: str, array: str) -> Path:
    """Copies a file with one array 1 % larger."""
    with np.load(GOLDEN / source) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays[array] = arrays[array] * 1.01
    path = tmp_path / source
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("source", "array", "group"),
    [
        ("kernels_f64.npz", "mask/06_paper/mask", "kernels"),
        ("kernels_f64.npz", "attention/cross/grad_g", "kernel gradients"),
        ("tiny_topk2.npz", "f64/out/gen_h", "outputs"),
        ("tiny_topk2.npz", "f64/loss/pull", "losses"),
        ("tiny_topk2.npz", "f64/grad/word_fc.weight", "gradients"),
    ],
)
def test_a_change_of_one_percent_is_seen(tmp_path: Path, source: str, array: str, group: str) -> None:
    checks = check_file(_perturbed(tmp_path, source, array))
    schedules = [array] if source.startswith("kernels") else [array, array + SHARED]
    assert [(check.group, check.name) for check in checks if not check.is_ok] == [(group, name) for name in schedules]


def test_a_difference_is_as_uncertain_as_what_was_subtracted() -> None:
    # 5.0001 - 4.9 against 5.0 - 4.9: the terms agree to 2e-5, the difference to 1e-3
    got, expected = np.array(5.0001 - 4.9), np.array(5.0 - 4.9)
    assert compare("losses fp32", "hinge", got, expected).error == pytest.approx(1e-3)
    assert compare("losses fp32", "hinge", got, expected, scale=5.0).error == pytest.approx(2e-5)
    assert compare("losses", "hinge", got, expected, scale=5.0).error == pytest.approx(1e-4), "absolute"


@pytest.mark.parametrize("array", ["f32/loss/hinge_hneg", "f32/loss/ivc_unweighted", "f32/loss/C_pos"])
def test_a_change_of_one_percent_is_seen_in_single_precision(tmp_path: Path, array: str) -> None:
    failed = {check.name for check in check_file(_perturbed(tmp_path, "tiny_topk2.npz", array)) if not check.is_ok}
    assert {array, array + SHARED} <= failed


def test_a_changed_weight_changes_outputs_losses_and_gradients(tmp_path: Path) -> None:
    checks = check_file(_perturbed(tmp_path, "tiny_topk2.npz", "state/word_fc.weight"))
    for is_shared in (False, True):
        failed = {check.group for check in checks if not check.is_ok and check.name.endswith(SHARED) == is_shared}
        assert {"outputs", "losses", "gradients"} <= failed


def test_the_script_prints_a_line_per_group_and_fails_on_a_difference(tmp_path: Path) -> None:
    script = str(Path(__file__).parent / "golden_check.py")
    good = subprocess.run(
        [sys.executable, script, str(GOLDEN / "kernels_f64.npz")], capture_output=True, text=True, cwd=tmp_path
    )
    assert good.returncode == 0, good.stderr
    assert "kernel gradients" in good.stdout and "FAILED" not in good.stdout
    assert main([str(_perturbed(tmp_path, "kernels_f64.npz", "c_loss/C"))]) == 1


@pytest.mark.parametrize("name", ["cpl_tiny_gamma0", "cpl_tiny", "cnm_tiny"])
def test_of_the_ancestors_nothing_is_left_out(name: str) -> None:
    """Left out are CPL's `official_log/ivc_loss` and the like, copies of `loss/...`, and CNM's attention weights."""
    path = GOLDEN / f"{name}.npz" if name in SHIPPED else shared_path(f"golden/{name}.npz")
    compared = {check.name.removesuffix(SHARED) for check in check_file(path)}
    again = "final_loss|nll_loss|ref_nll_loss|neg_nll_loss|ivc_loss"
    not_results = re.compile(rf"meta/|state/|in/|.*/official_log/({again})$|.*/out/attn_weight")
    with np.load(path) as archive:
        left_out = [array for array in archive.files if array not in compared and not not_results.match(array)]
    # losses of negatives are compared for the best positives only
    assert {f"{array}@best" for array in left_out} <= compared


@pytest.mark.parametrize("array", ["f64/out/gauss_weight", "f64/loss/ivc", "f64/grad/fc_gauss.weight"])
def test_a_change_of_one_percent_is_seen_in_an_ancestor(tmp_path: Path, array: str) -> None:
    checks = check_file(_perturbed(tmp_path, "cpl_tiny_gamma0.npz", array))
    assert [check.name for check in checks if not check.is_ok] == [array, array + SHARED]


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scn.npz"
    with np.load(GOLDEN / "tiny_topk2.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["meta/config_json"] = np.array(str(arrays["meta/config_json"]).replace('"PPS"', '"SCN"'))
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="golden file of SCN; expected PPS, CPL, CNM"):
        check_file(path)
