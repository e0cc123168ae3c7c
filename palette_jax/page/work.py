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
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from palette_jax import interruptible
from palette_jax.errors import UserError
from palette_jax.page import handover
from palette_jax.page.visitors import Limits, Visitor, WaitingQueue, inline
from palette_jax.pictures import files
from palette_jax.restoration import masks
from palette_jax.restoration.progress import Progress, Stopped
from palette_jax.restoration.restorer import Restorer
from palette_jax.restoration.result import made_from
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, Sides

_POLL = 0.25  # Seconds after which it is seen that a computation is to stop.
_PREVIEWS_A_SECOND = 3
_PREVIEW_SIZE = 512


def run(
    restorer: Restorer,
    limits: Limits,
    waiting: WaitingQueue,
    visitor: Visitor,
    drawn: dict[str, Any] | None,
    choices: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Yields what the page shows while a picture is restored, and at last the files.

    Args:
      restorer: the network.
      limits: of the host.
      waiting: the queue of those who wait for the device.
      visitor: who asks.
      drawn: what was drawn onto the picture, as `paletteEditor.value()` says it.
      choices: fields of `Settings`.
    """
    visitor.stop.set()  # Whatever else this page has asked for.
    stop = visitor.stop = threading.Event()
    try:
        job = _job(restorer, limits, visitor, drawn or {}, choices)
        place = waiting.join()
        ended = None
        try:
            while ahead := waiting.wait(place, _POLL):
                if stop.is_set():
                    yield {"state": "stopped", "text": "Stopped."}
                    return
                who = "one other is" if ahead == 1 else f"{ahead} others are"
                yield {"state": "waiting", "text": f"Waiting: {who} in front of you."}
            text = "Preparing. The first picture of a size takes longer."
            yield {"state": "running", "text": text}
            news: queue.Queue[Any] = queue.Queue()
            compute = functools.partial(
                _compute, restorer, job, visitor, stop, limits, news
            )
            leave = functools.partial(waiting.leave, place)
            ended = interruptible.start(lambda: compute(leave=leave))
            visitor.ended = ended
            yield from _watch(news, stop, limits)
        finally:
            if ended is None:  # Else it leaves the queue when it has ended.
                waiting.leave(place)
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


class _Job(NamedTuple):
    """What is restored, and what its files say of themselves."""

    photo: files.Photo
    settings: Settings
    hole: UInt8[np.ndarray, "h w 1"] | None
    hints: files.Photo | None
    about: dict[str, Any]


def _job(
    restorer: Restorer,
    limits: Limits,
    visitor: Visitor,
    drawn: dict[str, Any],
    choices: dict[str, Any],
) -> _Job:
    """Returns what a visitor asks for.

    Raises:
      UserError: if it is not whole, or more than the host can afford.
    """
    photo = visitor.photo(limits)
    settings = _settings(photo, drawn, choices, limits, restorer.image_size)
    mask = hints = hole = None
    if TASKS[settings.task].needs_mask:
        mask = _drawing(photo, drawn, "mask")
        hole = _hole(photo, _read(mask, limits))
    if settings.task == "colorize" and drawn.get("hints"):
        hints = _drawing(photo, drawn, "hints")
    about = made_from(visitor.path.read_bytes(), mask=mask, hints=hints)
    strokes = None if hints is None else _read(hints, limits)
    return _Job(photo, settings, hole, strokes, about)


def _compute(
    restorer: Restorer,
    job: _Job,
    visitor: Visitor,
    stop: threading.Event,
    limits: Limits,
    news: queue.Queue[Any],
    *,
    leave: Callable[[], None],
) -> None:
    """Restores a picture, and puts what the page shows, or an error, into `news`."""
    began = time.monotonic()
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
            job.photo,
            job.settings,
            hole=job.hole,
            hints=job.hints,
            max_tiles=limits.max_tiles,
            on_progress=on_progress,
        )
        news.put(handover.write(result, job.about, began, visitor.folder, stop))
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
    while; the page does not wait for that, but whoever is next in the queue does.
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
        text += f", about {handover.in_words(left)} left"
    return {
        "state": "running",
        "text": text,
        "share": progress.done / progress.total,
        "preview": inline(progress.preview()[0][1], longest=_PREVIEW_SIZE),
    }


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
    settings = Settings(**choices, extend=extend)
    height, width = photo.pixels.shape[:2]
    height = round(height * (1 + extend.top + extend.bottom))
    width = round(width * (1 + extend.left + extend.right))
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
