"""Where tests find the real data and the full golden files, when they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[3] / "shared"


def shared_path(relative: str) -> Path:
    """Returns the path of a shared file beside the checkout; skips the calling test where it is absent."""
    path = _SHARED / relative
    if not path.exists():
        pytest.skip(f"needs ../shared/{relative}, which is not part of the repository")
    return path
