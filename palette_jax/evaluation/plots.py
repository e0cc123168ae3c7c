"""Line charts as SVG."""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

_MOST_POINTS = 400  # More points than pixels are invisible.
_FEW_POINTS = 40  # So few are marked.
_GRAY = "#808a94"  # Legible on light and on dark pages.
_STYLE = {
    "axes.edgecolor": _GRAY,
    "axes.labelcolor": _GRAY,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "none",  # Text stays text.
    "svg.hashsalt": "palette_jax",  # The same chart is the same file.
    "text.color": _GRAY,
    "xtick.color": _GRAY,
    "ytick.color": _GRAY,
}
# Such as addresses; the page must need no network.
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
      points: x and y of each; values that are not finite are left out.
      is_level: whether it is a constant level for comparison, drawn dashed.
    """

    name: str
    points: Sequence[tuple[int, float]]
    is_level: bool = False


def chart(title: str, lines: Sequence[Line], *, x: str, log_y: bool = False) -> str:
    """Returns a chart with its legend as an SVG element; empty without points.

    Args:
      title: of the chart.
      lines: their order determines their colours.
      x: the label of the horizontal axis.
      log_y: whether the vertical axis is logarithmic; values must then be positive.
    """
    drawn = [line._replace(points=_drawable(line.points, log_y)) for line in lines]
    drawn = [line for line in drawn if line.points]
    if not drawn:
        return ""
    # From the cleanest to the noisiest of an ordered family.
    colors = matplotlib.colormaps["viridis"](np.linspace(0.2, 0.9, len(drawn)))
    file = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure((5, 3.4), layout="constrained")
        axes = figure.subplots()
        for line, color in zip(drawn, colors, strict=True):
            steps, values = zip(*line.points, strict=True)
            if line.is_level:
                axes.axhline(values[0], color=color, label=line.name, dashes=(5, 4))
            else:
                marker = "." if len(values) <= _FEW_POINTS else ""
                axes.plot(steps, values, color=color, label=line.name, marker=marker)
        axes.set_title(title, loc="left")
        axes.set(xlabel=x, yscale="log" if log_y else "linear")
        axes.grid(axis="y")
        figure.legend(loc="outside lower left", ncols=3, fontsize="small")
        figure.savefig(file, format="svg", transparent=True, metadata=_NO_METADATA)
    return file.getvalue()[file.getvalue().index("<svg") :]


def _drawable(
    points: Sequence[tuple[int, float]], log_y: bool
) -> list[tuple[int, float]]:
    good = [(s, v) for s, v in points if math.isfinite(v) and (v > 0 or not log_y)]
    return good[:: -(-len(good) // _MOST_POINTS) or 1]
