"""Writes an evaluation as one HTML file for any browser, without a network."""

import functools
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
from etils import epath
from PIL import Image

from palette_jax import atomic
from palette_jax.evaluation import history, plots, summary, table
from palette_jax.pictures import files

_MAX_SAMPLES = 2  # Shown of each picture.
_OF_EACH = 3  # Best, median and worst pictures.
_SMALL = 64  # Pixels; shown enlarged, without smoothing.
_MAX_SIDE = 512  # Larger pictures show only their centre, pixel by pixel.
_AXIS = "steps of training"


class _Figure(NamedTuple):
    """A picture with its caption, as a data URI."""

    kind: str
    uri: str
    is_small: bool


def write(out: epath.Path, workdir: epath.Path) -> epath.Path:
    """Writes report.html beside the table.json of a checkpoint; returns its path."""
    results = json.loads((out / "table.json").read_text())
    protocol = results["protocol"]
    sections = [
        {
            "task": task,
            "found": found,
            "groups": _groups(found, functools.partial(_stored, out / found["folder"])),
            "charts": _past(history.of_task(workdir, task, results)),
        }
        for task, found in results["tasks"].items()
    ]
    return _write(
        out,
        results,
        sections,
        title=f"Evaluation of {workdir.resolve().name}, step {results['step']}",
        about=f"{protocol['pictures']} pictures, samples of each:"
        f" {protocol['samples']}, {protocol['steps']} steps of {protocol['sampler']},"
        f" seed {protocol['seed']}, averaged weights.",
        losses=_losses(history.losses(workdir)),
    )


def write_folder(
    out: epath.Path,
    results: Mapping[str, Any],
    show: Callable[[str], Mapping[str, np.ndarray]],
) -> epath.Path:
    """Writes report.html of pictures of another program; returns its path.

    `show` returns the pictures of a name by kind, such as `original`.
    """
    sections = [{"task": "", "found": results, "groups": _groups(results, show)}]
    title = f"Evaluation of {results['results']}"
    return _write(out, results, sections, title=title)


def _write(
    out: epath.Path,
    results: Mapping[str, Any],
    sections: Sequence[Mapping[str, Any]],
    **texts: Any,
) -> epath.Path:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("palette_jax.evaluation", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    statement = summary.statement_lines(results["protocol"])
    rows = [row for s in sections for row in s["found"]["rows"].values()]
    page = environment.get_template("report.html").render(
        sections=sections,
        protocol=results["protocol"],
        statement=statement,
        statement_text="; ".join(f"{k}: {text}" for k, text in statement.items()),
        absent=summary.absent(results["absent"]),
        meanings={t: table.BY_TITLE[t].meaning for t in table.titles(rows)},
        originals=summary.ORIGINALS,
        table=table,
        **{"about": "", **texts},
    )
    path = out / "report.html"
    atomic.write_text(path, page)
    return path


def _groups(
    found: Mapping[str, Any], show: Callable[[str], Mapping[str, np.ndarray]]
) -> dict[str, list[tuple[str, float, list[_Figure]]]]:
    """Returns the best, the median and the worst pictures, or all if there are few."""
    psnr = {name: each["PSNR"] for name, each in found["each"].items()}
    ordered = sorted(psnr, key=psnr.__getitem__)[::-1]
    middle = (len(ordered) - _OF_EACH) // 2
    groups = {
        "Best": ordered[:_OF_EACH],
        "Median": ordered[middle : middle + _OF_EACH],
        "Worst": ordered[-_OF_EACH:],
    }
    if len(ordered) < 3 * _OF_EACH:
        groups = {"All, best first,": ordered}
    return {
        group: [
            (name, psnr[name], [_figure(*shown) for shown in show(name).items()])
            for name in names
        ]
        for group, names in groups.items()
    }


def _figure(kind: str, picture: np.ndarray) -> _Figure:
    height, width = picture.shape[:2]
    if max(height, width) > _MAX_SIDE:
        top, left = (max(side - _MAX_SIDE, 0) // 2 for side in (height, width))
        picture = picture[top : top + _MAX_SIDE, left : left + _MAX_SIDE]
        kind = f"{kind}, its centre"
    is_small = picture.shape[1] <= _SMALL
    form = "png" if is_small else "webp"
    options = {"optimize": True} if is_small else {"lossless": True}
    uri = files.data_uri(Image.fromarray(picture), form=form, **options)
    return _Figure(kind, uri, is_small)


def _past(past: Mapping[int, Mapping[str, table.Values]]) -> list[str]:
    """Returns a chart for each metric against the steps; none for a single step."""
    if len(past) < 2:
        return []
    newest, charts = past[max(past)], []
    for title in table.titles([newest["model"]]):
        points = [
            (step, rows["model"][title])
            for step, rows in sorted(past.items())
            if title in rows["model"]
        ]
        lines = [plots.Line("model", points)]
        for row in ("trivial baseline", summary.ORIGINALS):
            if title in newest[row]:
                level = [(max(past), newest[row][title])]
                lines.append(plots.Line(row, level, is_level=True))
        better = table.BY_TITLE[title].better
        head = f"{title} ({better} is better)" if better else title
        charts.append(plots.chart(head, lines, x=_AXIS))
    return charts


def _stored(folder: epath.Path, name: str) -> dict[str, np.ndarray]:
    samples = sorted(folder.glob("sample_*"), key=lambda p: int(p.name.split("_")[1]))
    kinds = ["given", *(p.name for p in samples[:_MAX_SAMPLES]), "original"]
    shown = {}
    for kind in kinds:
        content = (folder / kind / f"{name}.png").read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            shown[kind.replace("_", " ")] = np.asarray(image)
    return shown


def _losses(losses: Mapping[str, Sequence[tuple[int, float]]]) -> list[str]:
    """Returns the charts of the losses; none without a log of the training."""
    ends = {0: " (cleanest)", 9: " (noisiest)"}
    levels = []
    for tag, points in sorted(losses.items()):
        _, is_level, index = tag.partition("loss_at_level/")
        if is_level:
            end = ends.get(int(index), "")
            levels.append(plots.Line(f"tenth {int(index) + 1}{end}", points))
    if not levels:
        return []
    whole = [
        plots.Line(name.replace("_", " "), losses[name])
        for name in ("loss", "held_out_loss")
        if losses.get(name)
    ]
    return [
        plots.chart("Loss by noise level", levels, x=_AXIS, log_y=True),
        plots.chart("Loss of all levels", whole, x=_AXIS, log_y=True),
    ]
