"""Colors and matplotlib settings of every figure, and the way a figure becomes part of a page."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

__all__ = ["COLORS", "GRID", "INK", "MUTED", "figure", "group_colors", "require_matplotlib", "to_data_uri"]

INK = "#24292f"
MUTED = "#6e7781"
GRID = "#e4e7ea"

# Okabe and Ito's palette: told apart with any common color vision, and in print.
COLORS = {
    "MtM": "#0072B2",
    "ridge": "#D55E00",
    "reduced rank": "#CC79A7",
    "GLM": "#009E73",
    "PSTH": "#E69F00",
    "unit mean": "#8c959f",
    "time course": "#E69F00",
    "truth": INK,
    "target": "#f0b48c",
    "unseen": "#c9d1d9",
}
_QUALITATIVE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7A5195", "#4D4D4D")
_WIDTH = 9.6  # inches; with 100 points per inch the width of the page's column

_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 6,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "neurokern",  # the same figure gives the same bytes
}


def require_matplotlib() -> None:
    """Raise ImportError with the remedy where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError(
            "the report needs matplotlib; install it with: pip install 'neurokern[report]'"
        ) from None


@contextlib.contextmanager
def figure(height: float, *, width: float = _WIDTH, **grid: Any) -> Iterator[tuple[MatplotlibFigure, Any]]:
    """Give ``(figure, axes)`` in the house style; ``axes`` is a 2-d array as of ``Figure.subplots``.

    Works without a display and leaves the user's matplotlib settings and open figures alone.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure

    with rc_context(_SETTINGS):
        fig = MatplotlibFigure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(fig)
        yield fig, fig.subplots(squeeze=False, **grid)


def group_colors(names: Sequence[str], *, ordered: bool = False) -> dict[str, Any]:
    """Return a color for each name: shades of one scale where the names are ordered, else distinct hues.

    Beyond eight distinct names the hues repeat; the figures also label each group in words.
    """
    if not ordered:
        return {name: _QUALITATIVE[index % len(_QUALITATIVE)] for index, name in enumerate(names)}
    require_matplotlib()
    from matplotlib import colormaps

    scale = colormaps["viridis"]
    last = max(len(names) - 1, 1)
    return {name: scale(0.02 + 0.7 * index / last) for index, name in enumerate(names)}


def to_data_uri(fig: MatplotlibFigure) -> str:
    """Return the figure as an SVG ``data:`` address; rasterized marks are pixels at 200 dpi within it."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
