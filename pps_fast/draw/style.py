"""The common style of all pictures, and their rendering: equal pictures give equal bytes.

Colors are those of Okabe and Ito, which people with any color vision can tell apart.
"""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, GRAY, PALE = "#000000", "#767676", "#e3e3e3"
BLUE, SKY, ORANGE, VERMILLION, GREEN, PURPLE = "#0072b2", "#56b4e9", "#e69f00", "#d55e00", "#009e73", "#cc79a7"
TRUTH, ANSWER, PROPOSAL = PALE, VERMILLION, BLUE
SERIES = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY, BLACK)
"""colors of runs and variants, in their order"""

WIDTH_IN = 9.0
"""width of every picture, inches"""
DPI = 160
"""of png: sharp where a page shows it 900 pixels wide"""

_LINE_LENGTH = 90
"""letters of a title that fit the width"""

# Any: matplotlib's own type lists every name
_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRAY,
    "axes.linewidth": 0.8,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "figure.facecolor": "white",
    # a sentence may hold a dollar sign, which would begin a formula
    "text.parse_math": False,
    "svg.hashsalt": "pps_fast",
}
Format = Literal["png", "svg"]
# without them, files carry the date and the version of matplotlib
_METADATA: dict[Format, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
Parameters = ParamSpec("Parameters")


def require_matplotlib() -> None:
    """Does nothing where matplotlib is installed.

    Raises:
        ValueError: where it is not; the message says how to install it.
    """
    try:
        # an extra that only drawing needs
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            "pictures need the package matplotlib, which is not installed; "
            "install it with `pip install 'pps_fast[plot]'`"
        ) from error


@contextmanager
def _style() -> Iterator[None]:
    """Sets the project's style for the block, whatever matplotlib was configured to do."""
    require_matplotlib()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def in_style(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    """Makes a function draw in the project's style, or raise ValueError where matplotlib is not installed."""

    @functools.wraps(draw)
    def styled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        with _style():
            return draw(*args, **kwargs)

    return styled


def new_figure(height_in: float, heading: str = "") -> Figure:
    """Returns an empty figure of the common width that pyplot does not know; a long heading makes it higher."""
    from matplotlib.figure import Figure

    more_lines = max(len(textwrap.wrap(heading, _LINE_LENGTH)) - 1, 0)
    return Figure(figsize=(WIDTH_IN, height_in + 0.19 * more_lines), layout="constrained")


def render(figure: Figure, kind: Format) -> bytes:
    """Returns the figure as a file's content; equal figures give equal bytes with the same matplotlib."""
    file = io.BytesIO()
    with _style():
        _settle(figure)
        figure.savefig(file, format=kind, dpi=DPI, metadata=_METADATA[kind])
    return file.getvalue()


def _settle(figure: Figure) -> None:
    """Fixes the layout at rounded positions, because the last bits of the layout solver vary between calls."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(value, 5) for value in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))


def title(axes: Axes, first: str, second: str) -> None:
    """Writes a title above the topmost axes, and a quieter line under it."""
    axes.set_title(textwrap.fill(first, _LINE_LENGTH), loc="left", fontsize=11, pad=18)
    above: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(second, (0, 1), (0, 5), **above, ha="left", va="bottom", fontsize=8, color=GRAY)


def legend(figure: Figure, rows: Iterable[Axes]) -> None:
    """Explains below the picture what was drawn with a label, each label once."""
    handles: dict[str, Artist] = {}
    for axes in rows:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles))


def time_axis(axes: Axes, duration_s: float, is_labeled: bool = True) -> None:
    """Makes the horizontal axis that of a video of this length."""
    axes.set_xlim(0, duration_s)
    if is_labeled:
        axes.set_xlabel("time in the video, s")


def bare(axes: Axes) -> None:
    """Removes vertical ticks and the line at the left."""
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
