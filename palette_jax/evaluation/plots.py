"""Line charts as SVG texts."""

import html
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

_WIDTH, _HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 40
# From the cleanest to the noisiest of an ordered family.
_ORDERED = (
    *("#440154", "#482878", "#3e4a89", "#31688e", "#26828e"),
    *("#1f9e89", "#35b779", "#6ece58", "#b5bd1f", "#e0a800"),
)


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
      name: of the line.
      points: x and y of each; values that are not finite are left out.
      is_level: whether it is a constant level for comparison, drawn dashed.
    """

    name: str
    points: Sequence[tuple[int, float]]
    is_level: bool = False


def chart(title: str, lines: Sequence[Line], *, x: str, log_y: bool = False) -> str:
    """Returns a chart with its legend as HTML.

    Args:
      title: of the chart.
      lines: their order determines their colours.
      x: the label of the horizontal axis.
      log_y: whether the vertical axis is logarithmic; values must then be positive.
    """
    lines = [line._replace(points=_drawable(line.points, log_y)) for line in lines]
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    values = [math.log10(y) if log_y else y for line in lines for _, y in line.points]
    moving = [line for line in lines if not line.is_level] or lines
    steps = [float(step) for line in moving for step, _ in line.points]
    x_range, y_range = _padded(steps, 0.02), _padded(values, 0.06)

    def place(step: float, value: float) -> tuple[float, float]:
        value = math.log10(value) if log_y else value
        across = (step - x_range[0]) / (x_range[1] - x_range[0])
        up = (value - y_range[0]) / (y_range[1] - y_range[0])
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [_grid(x_range, y_range, log_y), _line_titles(x)]
    legend = []
    for index, line in enumerate(lines):
        color = _color(index, len(lines))
        parts.append(_path(line, color, place, x_range))
        dash = "dashed" if line.is_level else "solid"
        legend.append(
            f'<li><i style="border-top:3px {dash} {color}"></i>'
            f"{html.escape(line.name)}</li>"
        )
    label = html.escape(f"{title}: {', '.join(line.name for line in lines)}")
    return (
        f'<figure class="chart"><figcaption>{html.escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg><ul class=legend>{''.join(legend)}</ul></figure>"
    )


def _drawable(
    points: Sequence[tuple[int, float]], log_y: bool
) -> list[tuple[int, float]]:
    good = [(s, v) for s, v in points if math.isfinite(v) and (v > 0 or not log_y)]
    every = -(-len(good) // 400) or 1  # More points than pixels are invisible.
    return good[::every]


def _padded(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * share or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _color(index: int, count: int) -> str:
    if count == 1:
        return _ORDERED[3]
    return _ORDERED[round(index * (len(_ORDERED) - 1) / (count - 1))]


def _path(
    line: Line,
    color: str,
    place: Callable[[float, float], tuple[float, float]],
    x_range: tuple[float, float],
) -> str:
    points = [(float(step), value) for step, value in line.points]
    if line.is_level:
        points = [(edge, points[0][1]) for edge in x_range]
    places = [place(*point) for point in points]
    dash = ' stroke-dasharray="5 4"' if line.is_level else ""
    drawn = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    parts = [
        f'<polyline points="{drawn}" fill="none" stroke="{color}"'
        f' stroke-width="1.8"{dash}/>'
    ]
    if not line.is_level and len(places) <= 40:
        for (across, down), (step, value) in zip(places, points, strict=True):
            parts.append(
                f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{color}">'
                f"<title>{html.escape(line.name)}, {step:g}: {value:.4g}</title>"
                "</circle>"
            )
    return "".join(parts)


def _grid(
    x_range: tuple[float, float], y_range: tuple[float, float], log_y: bool
) -> str:
    parts = []
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for tick in (_log_ticks if log_y else _ticks)(*y_range):
        up = (tick - y_range[0]) / (y_range[1] - y_range[0])
        at = bottom - up * (bottom - _TOP)
        text = f"{10**tick:.3g}" if log_y else f"{tick:g}"
        parts.append(
            f'<line x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"'
            ' class="grid"/>'
            f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{text}</text>'
        )
    for tick in _ticks(*x_range):
        across = (tick - x_range[0]) / (x_range[1] - x_range[0])
        at = _LEFT + across * (right - _LEFT)
        parts.append(
            f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{_short(tick)}</text>"
        )
    return "".join(parts)


def _line_titles(x: str) -> str:
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return (
        f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{html.escape(x)}</text>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Returns three to seven round numbers between two bounds."""
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns the logarithms of round numbers between two logarithms."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [d + math.log10(f) for d in decades for f in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            return ticks
    return [math.log10(float(f"{10**at:.3g}")) for at in (low, high)]


def _short(number: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"
