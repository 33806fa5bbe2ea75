"""Absurd sizes are refused by name before anything is allocated."""

from __future__ import annotations

import re
import typing

import pytest

from pps_fast.config import PPSConfig
from pps_fast.config_limits import LARGEST
from pps_fast.config_tree import flatten, override, to_dict
from pps_fast.presets import PRESETS
from tests.test_config import FIELDS


def test_every_whole_number_has_a_limit_far_above_every_preset() -> None:
    assert LARGEST.keys() == {path for path, hint in FIELDS.items() if int in (hint, *typing.get_args(hint))}
    values = [flatten(to_dict(preset)) for preset in PRESETS.values()]
    assert all(10 * (value[path] or 0) <= most for path, most in LARGEST.items() for value in values)


@pytest.mark.parametrize("path", LARGEST)
def test_a_value_above_the_limit_is_refused_by_name(path: str) -> None:
    most = LARGEST[path]
    for value in (most + 1, 10**30):
        with pytest.raises(ValueError, match="^" + re.escape(f"{path} = {value}: expected at most {most:,}") + "$"):
            override(PPSConfig(), {path: value})
