"""The page: a picture, what to do with it, and what came of it."""

import base64
import io
import json
import pathlib
import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.restoration import files, masks, tasks
from palette_jax.restoration.restorer import Progress, Restorer, Stopped
from palette_jax.restoration.result import Result
from palette_jax.restoration.settings import QUALITY_PRESETS, Settings, Sides

_SAMPLERS = ("of the preset", "ddpm", "ddim", "dpmpp_2m")
_LABELS = {
    "colorize": "Colorize",
    "inpaint": "Inpaint",
    "uncrop": "Extend",
    "jpeg": "Restore a JPEG",
    "paired": "Restore",
}
# The editor's value is read in the browser, at the moment of the click.
_READ_EDITOR = "(_, ...rest) => [window.paletteEditor?.value() ?? '', ...rest]"
_PREVIEWS_A_SECOND = 3


class Limits(NamedTuple):
    """What protects the host.

    Attributes:
      max_pixels: of a picture with all that is added to it.
      max_bytes: of a file.
      max_waiting: visitors that wait for their turn; more are sent away.
      max_seconds: of one computation.
      max_samples: of one picture.
      keep_seconds: for so long the files of a visitor are kept.
    """

    max_pixels: int = 16_000_000
    max_bytes: int = 50_000_000
    max_waiting: int = 16
    max_seconds: float = 1800.0
    max_samples: int = 8
    keep_seconds: int = 3600


def make_page(restorer: Restorer, limits: Limits) -> gr.Blocks:
    """Lays the page out; `launch` it with `launch_options`."""
    running: dict[str, threading.Event] = {}

    def run(request: gr.Request, *args: Any) -> Iterator[tuple]:
        stop = running[request.session_hash] = threading.Event()
        try:
            yield from _run(restorer, limits, stop, *args)
        finally:  # Also when the visitor has gone.
            stop.set()
            running.pop(request.session_hash, None)

    def cancel(request: gr.Request) -> None:
        if request.session_hash in running:
            running[request.session_hash].set()

    keep = limits.keep_seconds
    with gr.Blocks(title="palette_jax", delete_cache=(keep, keep)) as page:
        gr.Markdown(
            f"# palette_jax\nA model for {', '.join(restorer.task_names)}, trained on"
            f" pictures of {restorer.image_size} x {restorer.image_size} pixels. Larger"
            " ones are restored in tiles, or small and enlarged."
        )
        with gr.Row():
            with gr.Column(scale=3):
                gr.HTML(
                    html_template=_asset("editor.html"),
                    css_template=_asset("editor.css"),
                    js_on_load=_asset("editor.js"),
                    task=restorer.task_names[0],
                    elem_id="editor",
                )
            with gr.Column(scale=2, min_width=280):
                task = gr.Radio(
                    [(_LABELS[name], name) for name in restorer.task_names],
                    value=restorer.task_names[0],
                    label="Task",
                    elem_id="task",
                )
                quality = gr.Radio(list(QUALITY_PRESETS), value="fast", label="Quality")
                num_samples = gr.Slider(
                    1, limits.max_samples, 1, step=1, label="Number of results"
                )
                seed = gr.Number(0, precision=0, minimum=0, label="Seed")
                with gr.Accordion("More", open=False):
                    sampler = gr.Dropdown(
                        _SAMPLERS, value=_SAMPLERS[0], label="Sampler"
                    )
                    num_steps = gr.Number(
                        0, precision=0, minimum=0, label="Steps (0: of the preset)"
                    )
                    shrink = gr.Checkbox(
                        label="Large pictures: restore small, and enlarge"
                    )
                    luma = gr.Checkbox(label="Colorize: keep the brightness exactly")
                with gr.Row():
                    start = gr.Button("Run", variant="primary", elem_id="run")
                    stop = gr.Button("Cancel", elem_id="cancel")
        status = gr.Markdown(elem_id="status")
        preview = gr.HTML(elem_id="preview")
        slider = gr.ImageSlider(
            label="Before and after", type="filepath", visible=False, elem_id="compare"
        )
        results = gr.File(
            label="Results",
            file_count="multiple",
            interactive=False,
            visible=False,
            elem_id="results",
        )
        again = gr.Button("Use the result as input", visible=False, elem_id="again")
        told = gr.Textbox(visible=False)
        gr.on(
            [start.click],
            run,
            [
                told,
                task,
                quality,
                num_samples,
                seed,
                sampler,
                num_steps,
                shrink,
                luma,
            ],
            [status, preview, slider, results, again],
            js=_READ_EDITOR,
            concurrency_limit=1,
            concurrency_id="device",
        )
        stop.click(cancel, queue=False)
        task.change(None, [task], js="task => { window.paletteEditor?.show(task); }")
        again.click(
            None,
            [results],
            js="files => { const f = files && files[0];"
            " f && window.paletteEditor.open(f.url, f.orig_name); }",
        )
    page.queue(max_size=limits.max_waiting, default_concurrency_limit=4)
    return page


def launch_options(limits: Limits) -> dict[str, Any]:
    """Returns what `Blocks.launch` takes: no fonts from elsewhere, no large files."""
    system = ["system-ui", "sans-serif"]
    return {
        "theme": gr.themes.Default(font=system, font_mono=["monospace"]),
        "max_file_size": limits.max_bytes,
        "footer_links": [],
        "show_error": True,
    }


def _run(
    restorer: Restorer,
    limits: Limits,
    stop: threading.Event,
    told: str,
    task: str,
    quality: str,
    num_samples: int,
    seed: int,
    sampler: str,
    num_steps: int,
    shrink: bool,
    luma: bool,
) -> Iterator[tuple]:
    """Yields what the page shows while a picture is restored, and at last the files."""
    try:
        drawn = json.loads(told or "null")
        if not drawn:
            raise UserError("expected a picture, got none; drop one into the frame")
        photo = files.read(
            _uploaded(drawn["path"]), name=drawn["name"], max_pixels=limits.max_pixels
        )
        extend = Sides(**{side: float(drawn["extend"][side]) for side in Sides._fields})
        settings = Settings(
            task=task,
            quality=quality,
            num_samples=int(num_samples),
            seed=int(seed),
            sampler=None if sampler == _SAMPLERS[0] else sampler,
            num_steps=int(num_steps) or None,
            extend=extend if task == "uncrop" else Sides(),
            keep_luminance=luma,
            large="shrink" if shrink else "tiles",
        )
        _check(photo, settings, limits)
        hole = None
        if task == "inpaint":
            drawn_mask = files.read(
                base64.b64decode(drawn["mask"].split(",", 1)[1]),
                max_pixels=limits.max_pixels,
            )
            hole, _ = masks.to_hole(drawn_mask, photo.pixels.shape)
            if not hole.any():
                raise UserError(
                    "expected a painted mask, got none; paint over the hole"
                )
        shown = Shown(gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip())
        yield tuple(
            shown._replace(status="Compiling for this size; it can take a while.")
        )
        yield from _watch(restorer, photo, settings, hole, stop, limits)
    except (UserError, KeyError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error


class Shown(NamedTuple):
    """What the page shows, in the order of its outputs."""

    status: Any
    preview: Any
    slider: Any
    results: Any
    again: Any


def _watch(
    restorer: Restorer,
    photo: files.Photo,
    settings: Settings,
    hole: np.ndarray | None,
    stop: threading.Event,
    limits: Limits,
) -> Iterator[tuple]:
    """Restores in a thread of its own, which ends soon after `stop` is set."""
    news: queue.Queue[Any] = queue.Queue()
    began, first, last = time.monotonic(), [0.0, 0], [0.0]

    def on_progress(progress: Progress) -> bool:
        now = time.monotonic()
        if not first[0]:  # Compiling is over.
            first[:] = [now, progress.done]
        if now - last[0] > 1 / _PREVIEWS_A_SECOND:
            last[0] = now
            pace = (now - first[0]) / max(progress.done - first[1], 1)
            left = pace * (progress.total - progress.done)
            text = f"Step {progress.done} of {progress.total}, about {left:.0f} s left"
            news.put((text, progress.preview()[0][1]))
        return not stop.is_set() and now - began < limits.max_seconds

    def work() -> None:
        try:
            news.put(
                restorer.restore(photo, settings, hole=hole, on_progress=on_progress)
            )
        except BaseException as error:
            news.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    nothing = Shown(gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip())
    while True:
        item = news.get()
        if isinstance(item, tuple):
            text, picture = item
            yield tuple(nothing._replace(status=text, preview=_inline(picture)))
        elif isinstance(item, Result):
            # Gradio keeps copies until their time is over.
            with tempfile.TemporaryDirectory() as folder:
                seconds = time.monotonic() - began
                yield tuple(_finished(item, seconds, pathlib.Path(folder)))
            return
        elif isinstance(item, Stopped):
            late = "" if stop.is_set() else f" after {limits.max_seconds:.0f} s"
            yield tuple(nothing._replace(status=f"Stopped{late}.", preview=""))
            return
        else:
            raise item


def _finished(result: Result, seconds: float, folder: pathlib.Path) -> Shown:
    stem = pathlib.Path(result.photo.name).stem or "picture"
    paths = []
    for index, _ in enumerate(result.pictures):
        suffix = f"_{index}" if len(result.pictures) > 1 else ""
        paths.append(str(folder / f"{stem}_{result.settings.task}{suffix}.png"))
        result.save(paths[-1], index=index)
    before = str(folder / f"{stem}_before.png")
    Image.fromarray(_before(result)).save(before)
    seeds = ", ".join(map(str, result.settings.seeds))
    notes = "".join(f"\n- {text}" for text in result.warnings)
    return Shown(
        f"Done in {seconds:.1f} s with seed {seeds}.{notes}",
        "",
        gr.ImageSlider(value=(before, paths[0]), visible=True),
        gr.File(value=paths, visible=True),
        gr.Button(visible=True),
    )


def _before(result: Result) -> np.ndarray:
    """Returns the input at the size of the result, gray where there was nothing."""
    if result.settings.task != "uncrop":
        return result.photo.pixels
    edges = tasks.margins(result.photo.pixels.shape, result.settings.extend)
    return np.pad(result.photo.pixels, (*edges, (0, 0)), constant_values=128)


def _check(photo: files.Photo, settings: Settings, limits: Limits) -> None:
    height, width = photo.pixels.shape[:2]
    left, right, top, bottom = settings.extend
    pixels = height * (1 + top + bottom) * width * (1 + left + right)
    if pixels > limits.max_pixels:
        raise UserError(
            f"expected at most {limits.max_pixels:,} pixels, got {pixels:,.0f}; take a"
            " smaller picture, or extend it less"
        )
    if settings.num_samples > limits.max_samples:
        raise UserError(
            f"expected at most {limits.max_samples} results, got {settings.num_samples}"
        )


def _uploaded(path: str) -> pathlib.Path:
    """Returns the path of a file that came through the page, and of no other."""
    folder = pathlib.Path(gr.utils.get_upload_folder()).resolve()
    resolved = pathlib.Path(path).resolve()
    if not resolved.is_relative_to(folder):
        raise UserError("expected a file that was uploaded; open the picture again")
    return resolved


def _inline(picture: np.ndarray) -> str:
    """Returns a picture as part of the page, so that no file of it is left."""
    image = Image.fromarray(picture)
    image.thumbnail((512, 512))
    if max(image.size) < 256:
        factor = 256 // max(image.size)
        image = image.resize([factor * n for n in image.size], Image.Resampling.NEAREST)
    encoded = io.BytesIO()
    image.save(encoded, format="PNG")
    data = base64.b64encode(encoded.getvalue()).decode()
    return f'<img alt="so far" src="data:image/png;base64,{data}">'


def _asset(name: str) -> str:
    return resources.files("palette_jax.programs.page").joinpath(name).read_text()
