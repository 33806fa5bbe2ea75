"""Text of tables without the spaces that align their columns."""

from __future__ import annotations

import re
from collections.abc import Sequence


def squeeze(text: str | Sequence[str]) -> str:
    """Returns a text, or lines joined, with runs of spaces as one."""
    return re.sub(" +", " ", text if isinstance(text, str) else "\n".join(text))
