"""Visitors of the page: what each has sent, and whose turn it is.

Nothing of a visitor is kept when the page is closed, and the names of the folders are
secrets, so that nobody can ask the server for the files of another.
"""

import base64
import io
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
from palette_jax.pictures import files
from palette_jax.restoration import canvas, masks

_VIEW_SIZE = 2048  # Of the longer side of what the browser is shown.
_PATIENCE = 5.0  # Seconds in which computations may end, when the server does.


class Limits(NamedTuple):
    """What protects the host.

    Attributes:
      max_pixels: of a picture with all that is added to it, also to sides that are
        shorter than the network's.
      max_side: of a picture; browsers draw no larger ones.
      max_tiles: that the network is given of one picture.
      max_bytes: of a file.
      max_total_bytes: of the files of all visitors.
      max_waiting: visitors that wait for their turn; more are sent away.
      max_seconds: of one computation.
      max_samples: of one picture.
      max_steps: of one result.
      keep_seconds: for so long the files of a visitor are kept who does nothing.
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
        """Raises if a picture is too large for a network of `size`, or for browsers.

        Raises:
          UserError: if it is.
        """
        if max(height, width) > self.max_side:
            raise UserError(
                f"expected sides of at most {self.max_side:,} pixels, got {width:,} x"
                f" {height:,}; cut it in parts"
            )
        canvas.check_size(height, width, size, max_pixels=self.max_pixels)


class Visitor:
    """One page that is open in a browser.

    Attributes:
      folder: of its files; only this visitor learns where it is.
      path: of the picture that it sent.
      stop: set to end its computation.
      ended: says that its computation has ended, if there was one.
      seen: when it last did something.
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
        """Takes a file over that was uploaded; returns what the browser shows of it.

        Args:
          upload: the path of the file.
          name: what its owner calls it.
          limits: of the host.
          image_size: of the network.

        Raises:
          UserError: if it is no picture that can be worked on.
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
        """Reads a mask that was uploaded; returns it opaque where it is painted anew.

        Raises:
          UserError: if it is no picture.
        """
        path = _uploaded(upload)
        try:
            mask = files.read(path, name=_printable(name), max_pixels=limits.max_pixels)
        finally:
            path.unlink(missing_ok=True)
        hole, warnings = masks.to_hole(mask, self.photo(limits).pixels.shape)
        picture = Image.new("L", hole.shape[1::-1], 255)
        picture.putalpha(Image.fromarray(hole[..., 0] * 255))
        return {"name": mask.name, "view": _inline(picture, "PNG"), "notes": warnings}

    def photo(self, limits: Limits) -> files.Photo:
        """Reads the picture that was taken over last.

        Raises:
          UserError: if there is none.
        """
        if not self._name:
            raise UserError("There is no picture yet: drop one into the frame.")
        if not self.path.exists():
            raise UserError("The picture is no longer here: open it again.")
        return files.read(self.path, name=self._name, max_pixels=limits.max_pixels)

    def leave(self) -> None:
        """Ends its computation and deletes its files."""
        self.has_left = True
        self.stop.set()
        shutil.rmtree(self.folder, ignore_errors=True)


class Visitors:
    """All visitors, by the name that gradio gives to an open page."""

    def __init__(self, keep_seconds: float) -> None:
        """Begins with none; who does nothing for `keep_seconds` is forgotten."""
        self._keep_seconds = keep_seconds
        self._visitors: dict[str, Visitor] = {}
        self._lock = threading.Lock()

    def of(self, request: gr.Request) -> Visitor:
        """Returns the visitor who asks."""
        now = time.monotonic()
        with self._lock:
            for session, visitor in list(self._visitors.items()):
                if now - visitor.seen > self._keep_seconds:
                    self._visitors.pop(session).leave()
            session = str(request.session_hash)
            if session not in self._visitors:
                self._visitors[session] = Visitor()
            self._visitors[session].seen = now
            return self._visitors[session]

    def close(self) -> None:
        """Ends all computations, waits a moment for them, and deletes all files."""
        with self._lock:
            everyone = list(self._visitors.values())
            self._visitors.clear()
        for visitor in everyone:
            visitor.stop.set()
        deadline = time.monotonic() + _PATIENCE
        for visitor in everyone:
            if visitor.ended is not None:
                seconds = max(deadline - time.monotonic(), 0)
                visitor.ended.wait(seconds)
            visitor.leave()

    def leave(self, request: gr.Request) -> None:
        """Forgets a visitor whose page was closed."""
        with self._lock:
            visitor = self._visitors.pop(str(request.session_hash), None)
        if visitor is not None:
            visitor.leave()


class WaitingQueue:
    """The queue of computations: one runs at a time, in the order they came."""

    def __init__(self, longest: int) -> None:
        """Begins empty; more than `longest` cannot wait."""
        self._longest = longest
        self._places: list[object] = []
        self._moved = threading.Condition()

    def join(self) -> object:
        """Returns a place at the end.

        Raises:
          UserError: if the queue is full.
        """
        with self._moved:
            if len(self._places) > self._longest:
                raise UserError(
                    f"Too many others are waiting, the queue is full ({self._longest}):"
                    " try again later."
                )
            place = object()
            self._places.append(place)
            return place

    def wait(self, place: object, seconds: float) -> int:
        """Returns how many are in front, as soon as nobody is or the time is over."""
        with self._moved:
            self._moved.wait_for(lambda: self._places[0] is place, seconds)
            return self._places.index(place)

    def leave(self, place: object) -> None:
        """Lets the next one in."""
        with self._moved:
            self._places.remove(place)
            self._moved.notify_all()


def inline(
    pixels: UInt8[np.ndarray, "h w 3"],
    *,
    longest: int,
    alpha: UInt8[np.ndarray, "h w"] | None = None,
) -> str:
    """Returns a picture, made smaller, as an address that holds it whole."""
    image = Image.fromarray(pixels)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    image.thumbnail((longest, longest))
    # JPEG is a tenth of the bytes, where its traces cannot be seen.
    is_small = image.width * image.height <= 256 * 256
    return _inline(image, "PNG" if is_small or alpha is not None else "JPEG")


def forbid_programs() -> None:
    """Keeps Pillow from running Ghostscript on what visitors send."""
    Image.init()
    if "EPS" in Image.ID:
        Image.ID.remove("EPS")


def _uploaded(path: str) -> pathlib.Path:
    """Returns the path of a file that came through the page, and of no other."""
    folder = pathlib.Path(gr.utils.get_upload_folder()).resolve()
    resolved = pathlib.Path(path).resolve()
    if not (resolved.is_relative_to(folder) and resolved.is_file()):
        raise UserError("expected a file that was uploaded; open the picture again")
    return resolved


def _printable(name: str) -> str:
    """Returns the name of a file without what could mean something to a computer."""
    name = "".join(c for c in str(name) if c.isprintable() and c not in '/\\:*?"<>|')
    path = pathlib.Path(name)
    return (path.stem[:80].strip(". ") or "picture") + path.suffix[:8]


def _inline(image: Image.Image, kind: str) -> str:
    encoded = io.BytesIO()
    image.save(encoded, format=kind, quality=90)
    data = base64.b64encode(encoded.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{data}"
