"""A computation for a visitor: checked, watched, stopped, and its files handed over.

What the page shows is a dict that result.js draws; its `state` is waiting, running,
done, stopped or failed.
"""

import base64
import contextlib
import functools
import logging
import pathlib
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from palette_jax import interruptible
from palette_jax.errors import UserError
from palette_jax.page.as_command import as_command
from palette_jax.page.visitors import Limits, Line, Visitor, inline
from palette_jax.pictures import files
from palette_jax.restoration import masks
from palette_jax.restoration.restorer import Progress, Restorer, Stopped
from palette_jax.restoration.result import Result, made_from
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, Sides, colorize, uncrop

_POLL = 0.25  # Seconds after which it is seen that a computation is to stop.
_PREVIEWS_A_SECOND = 3
_PREVIEW_SIZE = 512
_VIEW_SIZE = 2048  # Of an overlay.
_THUMBNAIL_SIZE = 128


def run(
    restorer: Restorer,
    limits: Limits,
    line: Line,
    visitor: Visitor,
    drawn: dict[str, Any] | None,
    choices: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Yields what the page shows while a picture is restored, and at last the files.

    Args:
      restorer: the network.
      limits: of the host.
      line: of those who wait for the device.
      visitor: who asks.
      drawn: what was drawn onto the picture, as `paletteEditor.value()` says it.
      choices: fields of `Settings`.
    """
    visitor.stop.set()  # Whatever else this page has asked for.
    stop = visitor.stop = threading.Event()
    try:
        photo = visitor.photo(limits)
        settings = _settings(photo, drawn or {}, choices, limits, restorer.image_size)
        hole = hints = None
        sent: dict[str, tuple[str, bytes]] = {}
        if TASKS[settings.task].needs_mask:
            sent["mask"] = _drawing(photo, drawn or {}, "mask")
            hole = _hole(photo, _read(sent["mask"], limits))
        if settings.task == "colorize" and (drawn or {}).get("hints"):
            sent["hints"] = _drawing(photo, drawn or {}, "hints")
            hints = _read(sent["hints"], limits)
        about = made_from(visitor.path.read_bytes(), **sent)
        place = line.join()
        thread = None
        try:
            while ahead := line.wait(place, _POLL):
                if stop.is_set():
                    yield {"state": "stopped", "text": "Stopped."}
                    return
                who = "one other is" if ahead == 1 else f"{ahead} others are"
                yield {"state": "waiting", "text": f"Waiting: {who} in front of you."}
            text = "Preparing. The first picture of a size takes longer."
            yield {"state": "running", "text": text}
            news: queue.Queue[Any] = queue.Queue()
            compute = functools.partial(
                _compute,
                restorer,
                photo,
                settings,
                hole,
                hints,
                about,
                visitor,
                limits,
                news,
            )
            leave = functools.partial(line.leave, place)
            thread = interruptible.start(lambda: compute(leave=leave))
            visitor.thread = thread
            yield from _watch(news, stop, limits)
        finally:
            if thread is None:  # Else it leaves the line when it has ended.
                line.leave(place)
    except UserError as error:
        yield {"state": "failed", "text": str(error)}
    except Exception as error:
        logging.exception("A restoration failed.")
        text = "The server failed. Its log says why; another picture may work."
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            text = "The picture needs more memory than there is: take a smaller one."
        yield {"state": "failed", "text": text}
    finally:
        stop.set()


def _compute(
    restorer: Restorer,
    photo: files.Photo,
    settings: Settings,
    hole: UInt8[np.ndarray, "h w 1"] | None,
    hints: files.Photo | None,
    about: dict[str, Any],
    visitor: Visitor,
    limits: Limits,
    news: queue.Queue[Any],
    *,
    leave: Callable[[], None],
) -> None:
    """Restores a picture, and puts what the page shows, or an error, into `news`."""
    stop, began = visitor.stop, time.monotonic()
    first, next_preview = None, 0.0

    def on_progress(progress: Progress) -> bool:
        nonlocal first, next_preview
        now = time.monotonic()
        first = first or (now, progress.done)  # Compiling is over.
        if now >= next_preview:
            news.put(_step(progress, now - first[0], progress.done - first[1]))
            # A preview of a large picture takes a while, too.
            took = time.monotonic() - now
            next_preview = now + max(1 / _PREVIEWS_A_SECOND, 5 * took)
        return not stop.is_set()

    try:
        result = restorer.restore(
            photo,
            settings,
            hole=hole,
            hints=hints,
            max_tiles=limits.max_tiles,
            on_progress=on_progress,
        )
        news.put(_finished(result, about, began, visitor.folder, stop))
    except Stopped:
        pass  # The page was told when it asked for it.
    except BaseException as error:
        news.put(error)
    finally:
        if visitor.has_left:  # And something was written since.
            shutil.rmtree(visitor.folder, ignore_errors=True)
        leave()


def _watch(
    news: queue.Queue[Any], stop: threading.Event, limits: Limits
) -> Iterator[dict[str, Any]]:
    """Yields news until the last, or until the computation is to stop.

    It stops as soon as the device has computed what it was given, which may take a
    while; the page does not wait for that, but whoever is next in the line does.
    """
    deadline = time.monotonic() + limits.max_seconds
    try:
        while True:
            with contextlib.suppress(queue.Empty):
                item = news.get(timeout=_POLL)
                if isinstance(item, BaseException):
                    raise item
                yield item
                if item["state"] != "running":
                    return
            if stop.is_set():
                yield {"state": "stopped", "text": "Stopped."}
                return
            if time.monotonic() > deadline:
                text = f"Stopped after {limits.max_seconds:.0f} s, the longest that is"
                yield {"state": "stopped", "text": f"{text} allowed here."}
                return
    finally:  # Also when the visitor has gone.
        stop.set()


def _step(progress: Progress, seconds: float, steps: float | int) -> dict[str, Any]:
    text = f"Step {int(progress.done)} of {progress.total}"
    if steps:
        left = seconds / steps * (progress.total - progress.done)
        text += f", about {_time(left)} left"
    return {
        "state": "running",
        "text": text,
        "share": progress.done / progress.total,
        "preview": inline(progress.preview()[0][1], longest=_PREVIEW_SIZE),
    }


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _seeds(result: Result) -> str:
    first, *others = result.settings.seeds
    return f"seeds {first} to {others[-1]}" if others else f"seed {first}"


def _finished(
    result: Result,
    about: dict[str, Any],
    began: float,
    visitors_folder: pathlib.Path,
    stop: threading.Event,
) -> dict[str, Any]:
    """Writes the results, and deletes those before.

    Raises:
      Stopped: if it is to.
    """
    before = list(visitors_folder.glob("results*"))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="results", dir=visitors_folder))
    stem = f"{pathlib.Path(result.photo.name).stem}_{result.settings.task}"
    made = []
    for index, settings in enumerate(result.settings.alone()):
        if stop.is_set():
            break
        suffix = f"_{index + 1}" if len(result.pictures) > 1 else ""
        path = folder / f"{stem}{suffix}.png"
        result.save(path, index=index, about=about)
        thumbnail = inline(result.pictures[index], longest=_THUMBNAIL_SIZE)
        made.append(
            {
                "path": str(path),
                "name": path.name,
                "seed": settings.seed,
                "thumbnail": thumbnail,
                "command": as_command(settings, {**result.about, **about}),
            }
        )
    given = Image.fromarray(_before(result))
    if result.alpha is not None:
        given.putalpha(Image.fromarray(result.alpha))
    given.save(folder / "before.png")
    if stop.is_set():
        shutil.rmtree(folder, ignore_errors=True)
        raise Stopped
    for old in before:
        shutil.rmtree(old, ignore_errors=True)
    height, width = result.pictures[0].shape[:2]
    size = f"{width} x {height} pixels"
    seconds = time.monotonic() - began
    return {
        "state": "done",
        "time": time.time(),
        "text": f"Done in {_time(seconds)}: {size}, {_seeds(result)}.",
        "notes": result.warnings,
        "before": str(folder / "before.png"),
        "results": made,
        "deviation": _deviation(result) if len(made) > 1 else None,
    }


def _deviation(result: Result) -> str:
    """Returns how far the results differ, in red: opaque from a deviation of 64 on."""
    opacity = np.minimum(4 * result.deviation, 255).astype(np.uint8)
    red = np.zeros((*opacity.shape, 3), np.uint8)
    red[..., 0] = 255
    return inline(red, longest=_VIEW_SIZE, alpha=opacity)


def _before(result: Result) -> UInt8[np.ndarray, "h w 3"]:
    """Returns what the network was given, at the size of the result."""
    pixels = result.photo.pixels
    if result.settings.task == "colorize":
        return np.repeat(colorize.luma(pixels), 3, -1)
    if result.settings.task == "uncrop":
        edges = uncrop.margins(pixels.shape, result.settings.extend)
        return np.pad(pixels, (*edges, (0, 0)), constant_values=128)
    return pixels


def _settings(
    photo: files.Photo,
    drawn: dict[str, Any],
    choices: dict[str, Any],
    limits: Limits,
    image_size: int,
) -> Settings:
    """Returns the settings, if the host can afford them.

    Raises:
      UserError: if it cannot.
    """
    extend = Sides()
    if choices["task"] == "uncrop":
        asked_for = drawn.get("extend") or {}
        extend = Sides(**{s: float(asked_for.get(s, 0)) for s in Sides._fields})
        if not any(extend):
            raise UserError("No side is extended: drag an edge of the picture outward.")
    height, width = photo.pixels.shape[:2]
    height = round(height * (1 + extend.top + extend.bottom))
    width = round(width * (1 + extend.left + extend.right))
    settings = Settings(**choices, extend=extend)
    scale = TASKS[settings.task].scale
    height, width = scale * height, scale * width
    for asked, most, what in (
        (height * width, limits.max_pixels, "pixels in the result"),
        (settings.num_samples, limits.max_samples, "results"),
        (settings.steps["num_steps"], limits.max_steps, "steps"),
    ):
        if asked > most:
            raise UserError(f"expected at most {most:,} {what}, got {asked:,}")
    limits.check_size(height, width, image_size)
    return settings


def _hole(photo: files.Photo, mask: files.Photo) -> UInt8[np.ndarray, "h w 1"]:
    hole, _ = masks.to_hole(mask, photo.pixels.shape)
    if not hole.any():
        raise UserError(
            "Nothing is painted yet: paint over what is to be replaced, then run."
        )
    return hole


def _drawing(photo: files.Photo, drawn: dict[str, Any], kind: str) -> tuple[str, bytes]:
    """Returns name and content of the mask or the hints that the browser sent.

    They are those of the file that the browser saves.
    """
    _, _, encoded = str(drawn.get(kind) or "").partition(",")
    if not encoded:
        raise UserError(
            f"expected a {kind}, got none; paint over what is to be replaced"
        )
    name = f"{pathlib.Path(photo.name).stem}_{kind}.png"
    return name, base64.b64decode(encoded)


def _read(file: tuple[str, bytes], limits: Limits) -> files.Photo:
    return files.read(file[1], name=file[0], max_pixels=limits.max_pixels)
