"""Sources of features as they are named on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pps_fast.prepare.feature_options import FeatureOptions, recorded_options, sources_of, split_name
from pps_fast.prepare.readers.naming import Naming


def _options(*paths: str | Path, **values: tuple[str, ...]) -> FeatureOptions:
    return FeatureOptions(features=tuple(map(Path, paths)), **values)


def test_one_source_takes_every_value_as_it_is() -> None:
    options = _options(
        "a.h5", feature_key=("x:y",), feature_suffix=("_1",), features_format=("hdf5",), video_prefix=("v_",)
    )
    (source,) = sources_of(options)
    assert (source.name, source.path, source.key, source.file_format) == (None, Path("a.h5"), "x:y", "hdf5")
    assert source.naming == Naming(suffix="_1", video_prefix="v_")
    assert recorded_options(options)["feature_key"] == "x:y"


def test_several_sources_take_values_of_their_own_or_one_of_all() -> None:
    options = _options(
        "clip:x/clip", "slowfast:y", feature_suffix=("_1", "slowfast:_2"), feature_key=("clip:image_embeddings",)
    )
    clip, slowfast = sources_of(options)
    assert (clip.name, clip.path, slowfast.name, slowfast.path) == ("clip", Path("x/clip"), "slowfast", Path("y"))
    assert (clip.naming.suffix, slowfast.naming.suffix) == ("_1", "_2")
    assert (clip.key, slowfast.key) == ("image_embeddings", None)
    assert recorded_options(options)["feature_suffix"] == ["_1", "slowfast:_2"]
    assert [source.name for source in sources_of(_options("x/clip", "slow:y"))] == ["clip", "slow"]


def test_without_values_the_record_is_that_of_older_files() -> None:
    record = recorded_options(_options("a.h5"))
    assert record == {"features_format": "auto", "feature_key": None, "feature_group": None, "feature_suffix": ""}


def test_a_colon_in_a_path_that_exists_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert split_name(str(tmp_path / "a:b")) == (None, str(tmp_path / "a:b"))
    assert split_name("clip:a/b") == ("clip", "a/b")
    assert split_name("a/b:c") == (None, "a/b:c") and split_name("clip:") == (None, "clip:")


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (("clip_features", "slowfast_features", "clip_text_features"), ["slowfast", "clip"]),
        (("clip", "slowfast", "clip_text", "pann"), ["clip", "slowfast"]),
        (("clip", "clip_text"), ["clip"]),
        (("other",), [None]),
    ],
)
def test_folders_of_moment_detr_and_lighthouse_are_their_sources(layout, names, tmp_path: Path) -> None:
    for name in layout:
        (tmp_path / name).mkdir()
    sources = sources_of(_options(tmp_path))
    assert [source.name for source in sources] == names
    assert all(source.path.parent == tmp_path or names == [None] for source in sources)
    # a folder with features of its own is these
    (tmp_path / "v.npz").write_bytes(b"")
    assert [source.path for source in sources_of(_options(tmp_path))] == [tmp_path]


@pytest.mark.parametrize(
    ("paths", "values", "message"),
    [
        ((), {}, "--features: none"),
        (("a", "x/a"), {}, "two sources are named 'a'"),
        (("a", "b"), {"feature_key": ("c:k",)}, "--feature-key c:k: no source is named 'c'; they are a, b"),
        (("a", "b"), {"feature_suffix": ("x", "y")}, "--feature-suffix y: a second value for all sources, after x"),
        (("a",), {"features_format": ("csv",)}, "--features-format csv: expected auto or hdf5"),
        (("a", "b"), {"features_format": ("b:csv",)}, "--features-format csv"),
    ],
)
def test_sources_that_cannot_be_meant_are_refused(paths, values, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sources_of(_options(*paths, **values))
