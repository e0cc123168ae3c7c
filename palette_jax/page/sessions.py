"""Sessions of the page, their files, and the queue of computations.

A session is one open page. Its files are deleted when the page is closed. The name of
its folder is secret, so that no session can request the files of another.
"""

import os
import pathlib
import secrets
import shutil
import threading
import time
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.pictures import files, masks
from palette_jax.restoration import canvas

_VIEW_SIZE = 2048  # Longer side of the picture that the browser shows.
_PATIENCE = 5.0  # Seconds that the ending server waits for computations.


class Limits(NamedTuple):
    """Limits that protect the host.

    Attributes:
      max_pixels: of a picture with its extension, and with short sides enlarged to the
        network's size.
      max_side: of a picture; browsers draw no larger ones.
      max_total_bytes: of the files of all sessions.
      max_waiting: length of the queue; further computations are refused.
      keep_seconds: the files of an idle session are deleted after this time.
    """

    max_pixels: int = 16_000_000
    max_side: int = 32_767
    max_tiles: int = 2000
    max_bytes: int = 50_000_000
    max_total_bytes: int = 2_000_000_000
    max_waiting: int = 16
    max_seconds: float = 1800.0
    max_samples: int = 8
    max_steps: int = 2000
    keep_seconds: int = 3600

    def check_size(self, height: int, width: int, size: int) -> None:
        """Checks the size of a picture for a network of `size`, and for browsers.

        Raises:
          UserError: if the picture is too large.
        """
        if max(height, width) > self.max_side:
            raise UserError(
                f"expected sides of at most {self.max_side:,} pixels, got {width:,} x"
                f" {height:,}; cut the picture into parts"
            )
        canvas.check_size(height, width, size, max_pixels=self.max_pixels)


class Session:
    """A session: one open page in a browser.

    Attributes:
      folder: of its files; only this session knows the path.
      stop: set to end its computation.
      ended: set when its computation has ended; None if there was none.
      seen: the time of its last request.
      has_left: whether its files are deleted.
    """

    def __init__(self) -> None:
        """Makes the folder."""
        self.folder = pathlib.Path(
            gr.utils.get_upload_folder(), secrets.token_urlsafe(24)
        )
        self.folder.mkdir(mode=0o700, parents=True)
        self.path = self.folder / "upload"
        self.stop = threading.Event()
        self.ended: threading.Event | None = None
        self.seen = time.monotonic()
        self.has_left = False
        self._name = ""

    def take(
        self, upload: str, name: str, limits: Limits, *, image_size: int
    ) -> dict[str, Any]:
        """Takes over an uploaded picture; returns what the browser shows of it.

        Raises:
          UserError: if the file is no picture, or too large.
        """
        path = _uploaded(upload)
        name = _printable(name)
        try:
            photo = files.read(path, name=name, max_pixels=limits.max_pixels)
            height, width = photo.pixels.shape[:2]
            limits.check_size(height, width, image_size)
            os.replace(path, self.path)
        finally:
            path.unlink(missing_ok=True)
        self._name = name
        return {
            "name": name,
            "width": width,
            "height": height,
            "view": inline(photo.pixels, longest=_VIEW_SIZE, alpha=photo.alpha),
            "notes": list(photo.warnings),
        }

    def take_mask(self, upload: str, name: str, limits: Limits) -> dict[str, Any]:
        """Reads an uploaded mask; returns it with the hole opaque.

        Raises:
          UserError: if the file is no picture.
        """
        path = _uploaded(upload)
        try:
            mask = files.read(path, name=_printable(name), max_pixels=limits.max_pixels)
        finally:
            path.unlink(missing_ok=True)
        hole, warnings = masks.to_hole(mask, self.photo(limits).pixels.shape)
        picture = Image.new("L", hole.shape[1::-1], 255)
        picture.putalpha(Image.fromarray(hole[..., 0] * 255))
        view = files.data_uri(picture)
        return {"name": mask.name, "view": view, "notes": warnings}

    def photo(self, limits: Limits) -> files.Photo:
        """Reads the current picture.

        Raises:
          UserError: if there is none.
        """
        if not self._name:
            raise UserError("expected a picture, got none; drop one into the frame")
        if not self.path.exists():
            raise UserError(
                "expected the picture on the server, got none; open it again"
            )
        return files.read(self.path, name=self._name, max_pixels=limits.max_pixels)

    def leave(self) -> None:
        """Stops the computation and deletes the files."""
        self.has_left = True
        self.stop.set()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """All sessions, by gradio's hash of an open page."""

    def __init__(self, keep_seconds: float) -> None:
        """Starts without sessions; idle sessions end after `keep_seconds`."""
        self._keep_seconds = keep_seconds
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def of(self, request: gr.Request) -> Session:
        """Returns the session of a request."""
        now = time.monotonic()
        with self._lock:
            for name, session in list(self._sessions.items()):
                if now - session.seen > self._keep_seconds:
                    self._sessions.pop(name).leave()
            name = str(request.session_hash)
            if name not in self._sessions:
                self._sessions[name] = Session()
            self._sessions[name].seen = now
            return self._sessions[name]

    def close(self) -> None:
        """Stops all computations, waits briefly for them, and deletes all files."""
        with self._lock:
            everyone = list(self._sessions.values())
            self._sessions.clear()
        for session in everyone:
            session.stop.set()
        deadline = time.monotonic() + _PATIENCE
        for session in everyone:
            if session.ended is not None:
                seconds = max(deadline - time.monotonic(), 0)
                session.ended.wait(seconds)
            session.leave()

    def leave(self, request: gr.Request) -> None:
        """Ends the session of a closed page."""
        with self._lock:
            session = self._sessions.pop(str(request.session_hash), None)
        if session is not None:
            session.leave()


class WaitingQueue:
    """The queue of computations, which run one at a time in order of arrival."""

    def __init__(self, longest: int) -> None:
        """Starts empty; at most `longest` computations wait."""
        self._longest = longest
        self._places: list[object] = []
        self._moved = threading.Condition()

    def join(self) -> object:
        """Appends a place to the queue.

        Raises:
          UserError: if the queue is full.
        """
        with self._moved:
            if len(self._places) > self._longest:
                raise UserError(
                    f"expected at most {self._longest} waiting computations, got a full"
                    " queue; try again later"
                )
            place = object()
            self._places.append(place)
            return place

    def wait(self, place: object, seconds: float) -> int:
        """Returns the number of places in front, at once if 0, else after `seconds`."""
        with self._moved:
            self._moved.wait_for(lambda: self._places[0] is place, seconds)
            return self._places.index(place)

    def leave(self, place: object) -> None:
        """Removes a place from the queue."""
        with self._moved:
            self._places.remove(place)
            self._moved.notify_all()


def inline(
    pixels: UInt8[np.ndarray, "h w 3"],
    *,
    longest: int,
    alpha: UInt8[np.ndarray, "h w"] | None = None,
) -> str:
    """Returns a shrunk picture as a data URI."""
    image = Image.fromarray(pixels)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    image.thumbnail((longest, longest))
    # JPEG takes a tenth of the bytes; on large pictures its artefacts are invisible.
    is_small = image.width * image.height <= 256 * 256
    form = "png" if is_small or alpha is not None else "jpeg"
    return files.data_uri(image, form=form, quality=90)


def forbid_programs() -> None:
    """Keeps Pillow from running Ghostscript on uploaded files."""
    Image.init()
    if "EPS" in Image.ID:
        Image.ID.remove("EPS")


def _uploaded(path: str) -> pathlib.Path:
    """Returns the path of an uploaded file; refuses any other path."""
    folder = pathlib.Path(gr.utils.get_upload_folder()).resolve()
    resolved = pathlib.Path(path).resolve()
    if not (resolved.is_relative_to(folder) and resolved.is_file()):
        raise UserError("expected an uploaded file, got none; open the picture again")
    return resolved


def _printable(name: str) -> str:
    """Returns a file name without characters that are special in paths or shells."""
    name = "".join(c for c in str(name) if c.isprintable() and c not in '/\\:*?"<>|')
    path = pathlib.Path(name)
    # Names of files have 255 bytes; the results' are longer than the picture's.
    stem = path.stem[:80].encode()[:160].decode(errors="ignore")
    return (stem.strip(". ") or "picture") + path.suffix[:8]
