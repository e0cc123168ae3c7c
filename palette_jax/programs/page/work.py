"""A computation for a visitor: checked, watched, stopped, and its files handed over."""

import base64
import io
import json
import pathlib
import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.restoration import files, masks, tasks
from palette_jax.restoration.restorer import Progress, Restorer, Stopped
from palette_jax.restoration.result import Result
from palette_jax.restoration.settings import Settings, Sides

SAMPLERS = ("of the preset", "ddpm", "ddim", "dpmpp_2m")
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


class Shown(NamedTuple):
    """What the page shows, in the order of its outputs."""

    status: Any
    preview: Any
    slider: Any
    results: Any
    again: Any


_NOTHING = Shown(*[gr.skip()] * 5)  # What is shown stays.


def run(
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
            sampler=None if sampler == SAMPLERS[0] else sampler,
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
        text = "Compiling for this size; it can take a while."
        yield tuple(_NOTHING._replace(status=text))
        yield from _watch(restorer, photo, settings, hole, stop, limits)
    except (UserError, KeyError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error


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
    while True:
        item = news.get()
        if isinstance(item, tuple):
            text, picture = item
            yield tuple(_NOTHING._replace(status=text, preview=_inline(picture)))
        elif isinstance(item, Result):
            # Gradio keeps copies until their time is over.
            with tempfile.TemporaryDirectory() as folder:
                seconds = time.monotonic() - began
                yield tuple(_finished(item, seconds, pathlib.Path(folder)))
            return
        elif isinstance(item, Stopped):
            late = "" if stop.is_set() else f" after {limits.max_seconds:.0f} s"
            yield tuple(_NOTHING._replace(status=f"Stopped{late}.", preview=""))
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
