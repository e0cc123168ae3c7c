"""Pieces of a page that needs nothing but a browser: tables and pictures."""

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from palette_jax import evaluation
from palette_jax.evaluation import table

_OF_EACH = 3  # Best, median and worst pictures.
_LOSSLESS_SIDE = 64  # Larger pictures would make a page of many megabytes.


def page(title: str, body: Iterable[str]) -> str:
    """Returns a whole page."""
    style = resources.files(evaluation).joinpath("report.css").read_text()
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>"
    )


def results_table(
    rows: Mapping[str, table.Values],
    expected: Mapping[str, Any] | None,
    *,
    beside: str,
) -> str:
    """Returns measured rows and below them, apart, the paper's.

    Args:
      rows: measured ones.
      expected: the paper's table, if it is of the same protocol.
      beside: what is said where the pointer rests on a number.
    """
    everything = [*rows.values(), *(expected["rows"].values() if expected else ())]
    titles = table.titles(everything)
    arrows = {"lower": " ↓", "higher": " ↑", "": ""}
    head = "".join(
        f'<th scope="col" title="{html.escape(table.BY_TITLE[t].meaning)}">'
        f"{t.replace(' between', '<br>between')}"
        f"{arrows[table.BY_TITLE[t].better]}</th>"
        for t in titles
    )

    def lines(of: Mapping[str, table.Values], told: str) -> str:
        return "".join(
            f'<tr{" class=model" if name == "model" else ""}><th scope="row">'
            f"{html.escape(name)}</th>"
            + "".join(
                f'<td title="{html.escape(told)}">{table.number(t, values.get(t))}</td>'
                for t in titles
            )
            + "</tr>"
            for name, values in of.items()
        )

    body = f"<tbody>{lines(rows, beside)}</tbody>"
    if expected:
        body += (
            '<tbody class="paper"><tr class="head">'
            f'<th colspan="{len(titles) + 1}">The paper\'s own figures'
            f" ({expected['source']}), not measured here: {expected['note']}.</th></tr>"
            f"{lines(expected['rows'], 'the paper, not measured here')}</tbody>"
        )
    return (
        '<div class="scroll"><table><thead><tr><th scope="col"></th>'
        f"{head}</tr></thead>"
        f"{body}</table></div>"
    )


def pictures(
    psnr: Mapping[str, float], show: Callable[[str], Mapping[str, np.ndarray]]
) -> str:
    """Returns the best, the median and the worst pictures.

    Args:
      psnr: of each name.
      show: returns the pictures of a name, by what they are.
    """
    ordered = sorted(psnr, key=psnr.__getitem__)
    each = min(_OF_EACH, len(ordered))
    middle = (len(ordered) - each) // 2
    groups = {
        "Best": ordered[::-1][:each],
        "Median": ordered[middle : middle + each],
        "Worst": ordered[:each],
    }
    parts = []
    for group, names in groups.items():
        parts.append(f'<h3>{group} by PSNR</h3><div class="gallery">')
        for name in names:
            shown = "".join(_figure(p, k, name) for k, p in show(name).items())
            parts.append(
                f'<div><p class="named">{html.escape(name)} · {psnr[name]:.2f} dB</p>'
                f'<div class="row">{shown}</div></div>'
            )
        parts.append("</div>")
    return "".join(parts)


def _figure(picture: np.ndarray, kind: str, name: str) -> str:
    small = ' class="small"' if picture.shape[1] <= _LOSSLESS_SIDE else ""
    alt = html.escape(f"{kind} of {name}")
    return (
        f'<figure><img{small} src="{_data_uri(picture)}" alt="{alt}">'
        f"<figcaption>{kind}</figcaption></figure>"
    )


def _data_uri(picture: np.ndarray) -> str:
    """Returns a picture as an address that holds it."""
    file = io.BytesIO()
    if picture.shape[1] <= _LOSSLESS_SIDE:
        Image.fromarray(picture).save(file, "PNG", optimize=True)
        kind = "png"
    else:
        Image.fromarray(picture).save(file, "WEBP", quality=92)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def plain_table(said: Mapping[str, str]) -> str:
    """Returns a table of texts, by what they say."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(what)}</td></tr>'
        for name, what in said.items()
    )
    return f'<table class="plain"><tbody>{rows}</tbody></table>'
