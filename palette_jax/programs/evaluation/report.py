"""An evaluation as one HTML file, which is read in any browser, without a network."""

import base64
import functools
import html
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from palette_jax.programs import evaluation
from palette_jax.programs.evaluation import history, plots, table, words
from palette_jax.programs.evaluation.parts import write_whole

_OF_EACH = 3  # Best, median and worst pictures.
_MAX_SAMPLES = 4  # Shown of each picture.
_LOSSLESS_SIDE = 64  # Larger pictures would make a page of many megabytes.


def write(out: epath.Path, workdir: epath.Path) -> epath.Path:
    """Writes report.html beside the table.json of a checkpoint; returns its path.

    Args:
      out: the folder of the checkpoint's evaluation.
      workdir: of the run, for its other evaluations and its log.
    """
    results = json.loads((out / "table.json").read_text())
    name = f"Evaluation of {workdir.resolve().name}, step {results['step']}"
    losses = history.losses(workdir)
    sections = [
        _task(task, found, results, out, history.of_task(workdir, task, results))
        for task, found in results["tasks"].items()
    ]
    tasks = [(task, task) for task in results["tasks"]]
    links = [*tasks, ("training", "training"), ("how", "how it was measured")]
    body = [
        f"<h1>{html.escape(name)}</h1>",
        f"<p class=soft>{_summary(results)}</p>",
        "<nav>" + "".join(f'<a href="#{a}">{text}</a>' for a, text in links) + "</nav>",
        *sections,
        '<h2 id="training">Training</h2>',
        _losses(losses),
        '<h2 id="how">How it was measured</h2>',
        _protocol(results["protocol"]),
        _absent(results["absent"]),
        _meanings(r for t in results["tasks"].values() for r in t["rows"].values()),
    ]
    path = out / "report.html"
    write_whole(path, page(name, body).encode())
    return path


def write_pictures(
    out: epath.Path,
    results: Mapping[str, Any],
    show: Callable[[str], Mapping[str, np.ndarray]],
) -> epath.Path:
    """Writes report.html of pictures that another program made; returns its path.

    Args:
      out: the folder.
      results: what its table.json holds.
      show: returns the pictures to show of a name, by what they are.
    """
    name = f"Evaluation of {results['results']}"
    said = words.protocol_lines(results["protocol"])
    beside = "; ".join(f"{key}: {what}" for key, what in said.items())
    body = [
        f"<h1>{html.escape(name)}</h1>",
        "<p class=soft>Arrows say which way is better.</p>",
        results_table(results["rows"], results["paper"], beside=beside),
        *(f'<p class="warning">{html.escape(w)}</p>' for w in results["warnings"]),
        _pictures(results["psnr"], show),
        "<h2>How it was measured</h2>",
        _plain(said),
        _absent(results["absent"]),
        _meanings(results["rows"].values()),
    ]
    path = out / "report.html"
    write_whole(path, page(name, body).encode())
    return path


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


def data_uri(picture: np.ndarray) -> str:
    """Returns a picture as an address that holds it."""
    file = io.BytesIO()
    if picture.shape[1] <= _LOSSLESS_SIDE:
        Image.fromarray(picture).save(file, "PNG", optimize=True)
        kind = "png"
    else:
        Image.fromarray(picture).save(file, "WEBP", quality=92)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _summary(results: Mapping[str, Any]) -> str:
    told = results["protocol"]
    return html.escape(
        f"{told['pictures']} pictures, samples of each: {told['samples']},"
        f" {told['steps']} steps of {told['sampler']}, seed {told['seed']}, averaged"
        " weights. Arrows say which way is better."
    )


def _task(
    task: str,
    found: Mapping[str, Any],
    results: Mapping[str, Any],
    out: epath.Path,
    past: Mapping[int, Mapping[str, table.Values]],
) -> str:
    said = words.protocol_lines(results["protocol"])
    beside = "; ".join(f"{name}: {what}" for name, what in said.items())
    parts = [
        f'<h2 id="{task}">{task}</h2>',
        f"<p class=soft>{html.escape(found['degradation'])}</p>",
        results_table(found["rows"], found["paper"], beside=beside),
        *(f'<p class="warning">{html.escape(w)}</p>' for w in found["warnings"]),
    ]
    if found["no_paper"]:
        why = html.escape(found["no_paper"])
        parts.append(f"<p class=soft>The paper's rows are not shown: {why}.</p>")
    show = functools.partial(_stored, out / found["folder"])
    parts += [_past(past), _pictures(found["psnr"], show)]
    return "".join(parts)


def _past(past: Mapping[int, Mapping[str, table.Values]]) -> str:
    """Returns a chart for each metric against the steps of training."""
    if len(past) < 2:
        return (
            "<p class=soft>One checkpoint of this run has been evaluated like this."
            " Evaluate again as training goes on to see curves here.</p>"
        )
    newest = past[max(past)]
    charts = [_chart(title, past, newest) for title in table.titles([newest["model"]])]
    return (
        "<h3>Against the steps of training</h3>"
        f'<div class="charts">{"".join(charts)}</div>'
    )


def _chart(
    title: str,
    past: Mapping[int, Mapping[str, table.Values]],
    newest: Mapping[str, table.Values],
) -> str:
    points = [
        (step, past[step]["model"][title])
        for step in sorted(past)
        if title in past[step]["model"]
    ]
    lines = [plots.Line("model", points)]
    for row in ("trivial baseline", "original pictures"):
        if title in newest[row]:
            level = [(max(past), newest[row][title])]
            lines.append(plots.Line(row, level, is_level=True))
    better = table.BY_TITLE[title].better
    head = f"{title} ({better} is better)" if better else title
    return plots.chart(head, lines, x="steps of training")


def _pictures(
    psnr: Mapping[str, float], show: Callable[[str], Mapping[str, np.ndarray]]
) -> str:
    """Returns the best, the median and the worst pictures."""
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


def _stored(folder: epath.Path, name: str) -> dict[str, np.ndarray]:
    """Returns the pictures that an evaluation kept under a name."""
    samples = sorted(folder.glob("sample_*"), key=lambda p: int(p.name.split("_")[1]))
    kinds = ["given", *(p.name for p in samples[:_MAX_SAMPLES]), "original"]
    shown = {}
    for kind in kinds:
        content = (folder / kind / f"{name}.png").read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            shown[kind.replace("_", " ")] = np.asarray(image)
    return shown


def _figure(picture: np.ndarray, kind: str, name: str) -> str:
    small = ' class="small"' if picture.shape[1] <= _LOSSLESS_SIDE else ""
    alt = html.escape(f"{kind} of {name}")
    return (
        f'<figure><img{small} src="{data_uri(picture)}" alt="{alt}">'
        f"<figcaption>{kind}</figcaption></figure>"
    )


def _losses(losses: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    levels = {tag: points for tag, points in losses.items() if "/" in tag}
    if not levels:
        return "<p class=soft>There is no log of the training in this folder.</p>"
    lines = [
        plots.Line(_level(int(tag.rsplit("/", 1)[1])), points)
        for tag, points in sorted(levels.items(), key=lambda item: item[0])
    ]
    whole = [
        plots.Line(name.replace("_", " "), losses[name])
        for name in ("loss", "held_out_loss")
        if losses.get(name)
    ]
    chart = functools.partial(plots.chart, x="steps of training", log_y=True)
    return (
        '<div class="charts">'
        + chart("Loss by noise level", lines)
        + chart("Loss of all levels", whole)
        + "</div><p class=soft>The noisiest levels decide on colours and shapes, the"
        " cleanest on texture. The mean of all hides which of them lag behind.</p>"
    )


def _level(index: int) -> str:
    ends = {0: " (cleanest)", 9: " (noisiest)"}
    return f"tenth {index + 1}{ends.get(index, '')}"


def _protocol(protocol: Mapping[str, Any]) -> str:
    return _plain(words.protocol_lines(protocol))


def _absent(absent: Mapping[str, str]) -> str:
    if not absent:
        return ""
    reasons: dict[str, list[str]] = {}
    for title, why in absent.items():
        reasons.setdefault(why, []).append(title)
    said = {", ".join(titles): why for why, titles in reasons.items()}
    return f"<h3>Absent</h3>{_plain(said)}"


def _meanings(rows: Iterable[table.Values]) -> str:
    titles = table.titles(list(rows))
    said = {title: table.BY_TITLE[title].meaning for title in titles}
    return f"<h3>The metrics</h3>{_plain(said)}"


def _plain(said: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(what)}</td></tr>'
        for name, what in said.items()
    )
    return f'<table class="plain"><tbody>{rows}</tbody></table>'
