"""Writes an evaluation as one HTML file for any browser, without a network."""

import functools
import html
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from palette_jax.evaluation import blocks, history, plots, summary, table
from palette_jax.evaluation.batch_files import write_whole

_HOW_TO_READ = (
    "Arrows show the better direction. Small numbers are 95% intervals over pictures."
)
_MAX_SAMPLES = 2  # Shown of each picture.


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
        _how(
            results, (r for t in results["tasks"].values() for r in t["rows"].values())
        ),
    ]
    path = out / "report.html"
    write_whole(path, blocks.page(name, body).encode())
    return path


def write_folder(
    out: epath.Path,
    results: Mapping[str, Any],
    show: Callable[[str], Mapping[str, np.ndarray]],
) -> epath.Path:
    """Writes report.html of pictures of another program; returns its path.

    Args:
      out: the folder.
      results: the content of its table.json.
      show: returns the pictures to show of a name, by kind, such as `original`.
    """
    name = f"Evaluation of {results['results']}"
    body = [
        f"<h1>{html.escape(name)}</h1>",
        f"<p class=soft>{_HOW_TO_READ}</p>",
        *_found(results, results["protocol"]),
        blocks.pictures(_psnr(results), show),
        _how(results, results["rows"].values()),
    ]
    path = out / "report.html"
    write_whole(path, blocks.page(name, body).encode())
    return path


def _summary(results: Mapping[str, Any]) -> str:
    protocol = results["protocol"]
    return html.escape(
        f"{protocol['pictures']} pictures, samples of each: {protocol['samples']},"
        f" {protocol['steps']} steps of {protocol['sampler']}, seed {protocol['seed']},"
        f" averaged weights. {_HOW_TO_READ}"
    )


def _task(
    task: str,
    found: Mapping[str, Any],
    results: Mapping[str, Any],
    out: epath.Path,
    past: Mapping[int, Mapping[str, table.Values]],
) -> str:
    parts = [
        f'<h2 id="{task}">{task}</h2>',
        f"<p class=soft>{html.escape(found['degradation'])}</p>",
        *_found(found, results["protocol"]),
    ]
    show = functools.partial(_stored, out / found["folder"])
    parts += [blocks.pictures(_psnr(found), show), _past(past)]
    if found["no_paper"]:
        why = html.escape(found["no_paper"])
        parts.append(f"<p class=soft>The paper's rows are not shown: {why}.</p>")
    return "".join(parts)


def _found(found: Mapping[str, Any], protocol: Mapping[str, Any]) -> list[str]:
    """Returns a table with its warnings."""
    return [
        blocks.results_table(found, protocol),
        *(f'<p class="warning">{html.escape(w)}</p>' for w in found["warnings"]),
    ]


def _psnr(found: Mapping[str, Any]) -> dict[str, float]:
    return {name: each["PSNR"] for name, each in found["each"].items()}


def _past(past: Mapping[int, Mapping[str, table.Values]]) -> str:
    """Returns a chart for each metric against the steps of training."""
    if len(past) < 2:
        return (
            "<p class=soft>Only one checkpoint was evaluated with these settings."
            " Evaluate later checkpoints to see curves here.</p>"
        )
    newest = past[max(past)]
    charts = [_chart(title, past, newest) for title in table.titles([newest["model"]])]
    return f'<h3>By training step</h3><div class="charts">{"".join(charts)}</div>'


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


def _stored(folder: epath.Path, name: str) -> dict[str, np.ndarray]:
    """Returns the saved pictures of a name."""
    samples = sorted(folder.glob("sample_*"), key=lambda p: int(p.name.split("_")[1]))
    kinds = ["given", *(p.name for p in samples[:_MAX_SAMPLES]), "original"]
    shown = {}
    for kind in kinds:
        content = (folder / kind / f"{name}.png").read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            shown[kind.replace("_", " ")] = np.asarray(image)
    return shown


def _losses(losses: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    levels = {tag: points for tag, points in losses.items() if "/" in tag}
    if not levels:
        return "<p class=soft>This folder has no log of the training.</p>"
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
        + "</div><p class=soft>The noisiest levels determine colours and shapes, the"
        " cleanest levels texture. The mean hides levels that lag behind.</p>"
    )


def _level(index: int) -> str:
    ends = {0: " (cleanest)", 9: " (noisiest)"}
    return f"tenth {index + 1}{ends.get(index, '')}"


def _how(results: Mapping[str, Any], rows: Iterable[table.Values]) -> str:
    texts = summary.statement_lines(results["protocol"])
    return (
        '<details id="how"><summary>How it was measured</summary>'
        f"{blocks.plain_table(texts)}{_absent(results['absent'])}{_meanings(rows)}"
        "</details>"
    )


def _absent(absent: Mapping[str, str]) -> str:
    if not absent:
        return ""
    reasons: dict[str, list[str]] = {}
    for title, why in absent.items():
        reasons.setdefault(why, []).append(title)
    texts = {", ".join(titles): why for why, titles in reasons.items()}
    return f"<h3>Absent</h3>{blocks.plain_table(texts)}"


def _meanings(rows: Iterable[table.Values]) -> str:
    titles = table.titles(list(rows))
    texts = {title: table.BY_TITLE[title].meaning for title in titles}
    return f"<h3>The metrics</h3>{blocks.plain_table(texts)}"
