"""Runs a computation for a session: checks, queue, progress, cancelling and results.

The page shows dicts, which result.js draws; their `state` is waiting, running, done,
stopped or failed.
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
from palette_jax.page import results
from palette_jax.page.sessions import Limits, Session, WaitingQueue, inline
from palette_jax.pictures import files, masks
from palette_jax.restoration.progress import Progress, Stopped
from palette_jax.restoration.restorer import Restorer
from palette_jax.restoration.result import made_from
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, Sides

_POLL = 0.25  # Seconds between checks of the stop flag.
_PREVIEWS_A_SECOND = 3
_PREVIEW_SIZE = 512


def run(
    restorer: Restorer,
    limits: Limits,
    waiting: WaitingQueue,
    session: Session,
    drawn: dict[str, Any] | None,
    choices: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Yields the states of a restoration for the page; the last one has the files.

    `drawn` is the value of `paletteEditor.value()`; `choices` has fields of `Settings`.
    """
    session.stop.set()  # Any earlier computation of this page.
    stop = session.stop = threading.Event()
    try:
        job = _job(restorer, limits, session, drawn or {}, choices)
        place = waiting.join()
        ended = None
        try:
            while ahead := waiting.wait(place, _POLL):
                if stop.is_set():
                    yield {"state": "stopped", "text": "Stopped."}
                    return
                who = "one other is" if ahead == 1 else f"{ahead} others are"
                yield {"state": "waiting", "text": f"Waiting: {who} in front of you."}
            text = "Preparing. The first picture of each size takes longer."
            yield {"state": "running", "text": text}
            news: queue.Queue[Any] = queue.Queue()
            compute = functools.partial(
                _compute, restorer, job, session, stop, limits, news
            )
            leave = functools.partial(waiting.leave, place)
            ended = interruptible.start(lambda: compute(leave=leave))
            session.ended = ended
            yield from _watch(news, stop, limits)
        finally:
            if ended is None:  # Else the computation leaves the queue at its end.
                waiting.leave(place)
    except UserError as error:
        yield {"state": "failed", "text": str(error)}
    except Exception as error:
        logging.exception("A restoration failed.")
        text = "the server failed; see its log for the reason, or try another picture"
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            text = "the picture needs more memory than available; take a smaller one"
        yield {"state": "failed", "text": text}
    finally:
        stop.set()


class _Job(NamedTuple):
    """The inputs of a restoration, and the metadata of its files."""

    photo: files.Photo
    settings: Settings
    hole: UInt8[np.ndarray, "h w 1"] | None
    hints: files.Photo | None
    about: dict[str, Any]


def _job(
    restorer: Restorer,
    limits: Limits,
    session: Session,
    drawn: dict[str, Any],
    choices: dict[str, Any],
) -> _Job:
    photo = session.photo(limits)
    settings = _settings(photo, drawn, choices, limits, restorer.image_size)
    mask = hints = hole = None
    if TASKS[settings.task].needs_mask:
        mask = _drawing(photo, drawn, "mask")
        hole = _hole(photo, _read(mask, limits))
    if settings.task == "colorize" and drawn.get("hints"):
        hints = _drawing(photo, drawn, "hints")
    about = made_from(session.path.read_bytes(), mask=mask, hints=hints)
    strokes = None if hints is None else _read(hints, limits)
    return _Job(photo, settings, hole, strokes, about)


def _compute(
    restorer: Restorer,
    job: _Job,
    session: Session,
    stop: threading.Event,
    limits: Limits,
    news: queue.Queue[Any],
    *,
    leave: Callable[[], None],
) -> None:
    """Restores a picture, and puts states of the page, or an error, into `news`."""
    began = time.monotonic()
    first, next_preview = None, 0.0

    def on_progress(progress: Progress) -> bool:
        nonlocal first, next_preview
        now = time.monotonic()
        first = first or (now, progress.done)  # Compiling is over.
        if now >= next_preview:
            news.put(_step(progress, now - first[0], progress.done - first[1]))
            # A preview of a large picture is slow too.
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
        news.put(results.write(result, job.about, began, session.folder, stop))
    except Stopped:
        pass  # The page shows it already.
    except BaseException as error:
        news.put(error)
    finally:
        if session.has_left:  # Files may have been written since.
            shutil.rmtree(session.folder, ignore_errors=True)
        leave()


def _watch(
    news: queue.Queue[Any], stop: threading.Event, limits: Limits
) -> Iterator[dict[str, Any]]:
    """Yields news until the last, or until the stop flag or the time limit.

    The device still finishes the tiles that it has begun. The page does not wait for
    them, but the next computation in the queue does.
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
                text = f"Stopped after {limits.max_seconds:.0f} s, the time limit."
                yield {"state": "stopped", "text": text}
                return
    finally:  # Also when the page was closed.
        stop.set()


def _step(progress: Progress, seconds: float, steps: float | int) -> dict[str, Any]:
    text = f"Step {int(progress.done)} of {progress.total}"
    if steps:
        left = seconds / steps * (progress.total - progress.done)
        text += f", about {results.in_words(left)} left"
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
    extend = Sides()
    if choices["task"] == "uncrop":
        edges = drawn.get("extend") or {}
        extend = Sides(**{s: float(edges.get(s, 0)) for s in Sides._fields})
        if not any(extend):
            raise UserError(
                "expected a side to extend, got none; drag an edge of the picture"
                " outward"
            )
    is_kept = choices["task"] == "colorize" and choices.get("keep_luminance", False)
    given: dict[str, Any] = {**choices, "keep_luminance": is_kept, "extend": extend}
    settings = Settings(**given)
    height, width = photo.pixels.shape[:2]
    height = round(height * (1 + extend.top + extend.bottom))
    width = round(width * (1 + extend.left + extend.right))
    scale = TASKS[settings.task].scale
    height, width = scale * height, scale * width
    for value, most, unit in (
        (height * width, limits.max_pixels, "pixels in the result"),
        (settings.num_samples, limits.max_samples, "results"),
        (settings.steps["num_steps"], limits.max_steps, "steps"),
    ):
        if value > most:
            raise UserError(f"expected at most {most:,} {unit}, got {value:,}")
    limits.check_size(height, width, image_size)
    return settings


def _hole(photo: files.Photo, mask: files.Photo) -> UInt8[np.ndarray, "h w 1"]:
    hole, _ = masks.to_hole(mask, photo.pixels.shape)
    if not hole.any():
        raise UserError(
            "expected a painted mask, got none; paint over the part to replace, then"
            " run"
        )
    return hole


def _drawing(photo: files.Photo, drawn: dict[str, Any], kind: str) -> tuple[str, bytes]:
    """Returns name and content of the mask or the hints from the browser.

    They equal the file that the browser saves.
    """
    _, _, encoded = str(drawn.get(kind) or "").partition(",")
    if not encoded:
        raise UserError(f"expected a {kind}, got none; paint over the part to replace")
    name = f"{pathlib.Path(photo.name).stem}_{kind}.png"
    return name, base64.b64decode(encoded)


def _read(file: tuple[str, bytes], limits: Limits) -> files.Photo:
    return files.read(file[1], name=file[0], max_pixels=limits.max_pixels)
