"""Blocks of an offline HTML page: tables and pictures."""

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from palette_jax import evaluation
from palette_jax.evaluation import summary, table

_OF_EACH = 3  # Best, median and worst pictures.
_SMALL = 64  # Pixels; shown enlarged, without smoothing.
_MAX_SIDE = 512  # Larger pictures show only their centre, pixel by pixel.


def page(title: str, body: Iterable[str]) -> str:
    """Returns a complete HTML page."""
    style = resources.files(evaluation).joinpath("report.css").read_text()
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>"
    )


def results_table(found: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    """Returns the table with a line for each metric, and a table of the paper's rows.

    Args:
      found: the content of table.json for a task.
      protocol: of all numbers; the tooltip of a number shows it.
    """
    rows, intervals = found["rows"], found["intervals"]
    beside = html.escape(
        "; ".join(
            f"{k}: {what}" for k, what in summary.statement_lines(protocol).items()
        )
    )
    lines = []
    for title in table.titles(list(rows.values())):
        cells = []
        for name, values in rows.items():
            interval = intervals[name].get(title)
            sure = ""
            if interval and name != summary.ORIGINALS:
                low, high = (table.number(title, bound) for bound in interval)
                sure = f"<small>{low} to {high}</small>"
            number = table.number(title, values.get(title))
            kind = " class=model" if name == _main(rows) else ""
            cells.append(f'<td{kind} title="{beside}">{number}{sure}</td>')
        lines.append(f"<tr>{_metric(title)}{''.join(cells)}</tr>")
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in rows)
    return (
        f'<table class="results"><thead><tr><th scope="col">protocol'
        f" {html.escape(protocol.get('name', 'paper'))}</th>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>{_paper_table(found['paper'])}"
    )


def _main(rows: Mapping[str, Any]) -> str:
    """Returns the name of the most important row."""
    return "model" if "model" in rows else list(rows)[-1]


def _metric(title: str) -> str:
    metric = table.BY_TITLE[title]
    arrow = {"lower": " ↓", "higher": " ↑", "": ""}[metric.better]
    meaning = html.escape(metric.meaning)
    return f'<th scope="row" title="{meaning}">{title}{arrow}</th>'


def _paper_table(expected: Mapping[str, Any] | None) -> str:
    if not expected:
        return ""
    titles = table.titles(list(expected["rows"].values()))
    tooltip = 'title="the paper, not measured here"'
    lines = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td {tooltip}>{table.number(t, row.get(t))}</td>" for t in titles)
        + "</tr>"
        for name, row in expected["rows"].items()
    )
    return (
        f"<p class=soft>The paper's own figures ({expected['source']}), not measured"
        f" here: {html.escape(expected['note'])}.</p>"
        '<table class="results paper"><thead><tr><th scope="col"></th>'
        f"{''.join(map(_metric, titles))}</tr></thead><tbody>{lines}</tbody></table>"
    )


def pictures(
    psnr: Mapping[str, float], show: Callable[[str], Mapping[str, np.ndarray]]
) -> str:
    """Returns the best, the median and the worst pictures, or all if there are few.

    Args:
      psnr: of each name.
      show: returns the pictures of a name, by kind, such as `original`.
    """
    ordered = sorted(psnr, key=psnr.__getitem__)[::-1]
    middle = (len(ordered) - _OF_EACH) // 2
    groups = {
        "Best": ordered[:_OF_EACH],
        "Median": ordered[middle : middle + _OF_EACH],
        "Worst": ordered[-_OF_EACH:],
    }
    if len(ordered) < 3 * _OF_EACH:
        groups = {"All, best first,": ordered}
    parts = []
    for group, names in groups.items():
        parts.append(f"<h3>{group} by PSNR</h3>")
        for name in names:
            shown = "".join(_figure(p, k, name) for k, p in show(name).items())
            parts.append(
                f'<p class="named">{html.escape(name)} · {psnr[name]:.2f} dB</p>'
                f'<div class="row">{shown}</div>'
            )
    return "".join(parts)


def _figure(picture: np.ndarray, kind: str, name: str) -> str:
    height, width = picture.shape[:2]
    if max(height, width) > _MAX_SIDE:
        top, left = (max(side - _MAX_SIDE, 0) // 2 for side in (height, width))
        picture = picture[top : top + _MAX_SIDE, left : left + _MAX_SIDE]
        kind = f"{kind}, its centre"
    small = ' class="small"' if picture.shape[1] <= _SMALL else ""
    alt = html.escape(f"{kind} of {name}")
    return (
        f'<figure><img{small} src="{_data_uri(picture)}" alt="{alt}">'
        f"<figcaption>{kind}</figcaption></figure>"
    )


def _data_uri(picture: np.ndarray) -> str:
    """Returns a picture as a data URI."""
    file = io.BytesIO()
    kind = "png" if picture.shape[1] <= _SMALL else "webp"
    options = {"optimize": True} if kind == "png" else {"lossless": True}
    Image.fromarray(picture).save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def plain_table(texts: Mapping[str, str]) -> str:
    """Returns a table of names and texts."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(what)}</td></tr>'
        for name, what in texts.items()
    )
    return f'<table class="plain"><tbody>{rows}</tbody></table>'
