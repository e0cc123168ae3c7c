"""Writes the result files of a session, and the dict that the page shows of them."""

import pathlib
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from palette_jax.page.sessions import inline
from palette_jax.restoration.progress import Stopped
from palette_jax.restoration.result import Result
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import colorize, uncrop

_VIEW_SIZE = 2048  # Of an overlay.
_THUMBNAIL_SIZE = 128


def write(
    result: Result,
    about: dict[str, Any],
    began: float,
    session_folder: pathlib.Path,
    stop: threading.Event,
) -> dict[str, Any]:
    """Writes the results, and deletes the previous ones.

    Raises:
      Stopped: if `stop` is set.
    """
    before = list(session_folder.glob("results*"))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="results", dir=session_folder))
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
                "command": as_command(
                    result.photo.name, settings, {**result.about, **about}
                ),
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
        "text": f"Done in {in_words(seconds)}: {size}, {_seeds(result)}.",
        "notes": result.warnings,
        "before": str(folder / "before.png"),
        "results": made,
        "deviation": _deviation(result) if len(made) > 1 else None,
    }


def _deviation(result: Result) -> str:
    """Returns the deviation of the results in red, opaque from 64 of 255 on."""
    opacity = np.minimum(4 * result.deviation, 255).astype(np.uint8)
    red = np.zeros((*opacity.shape, 3), np.uint8)
    red[..., 0] = 255
    return inline(red, longest=_VIEW_SIZE, alpha=opacity)


def _before(result: Result) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the input of the network, at the size of the result."""
    pixels = result.photo.pixels
    if result.settings.task == "colorize":
        return np.repeat(colorize.luma(pixels), 3, -1)
    if result.settings.task == "uncrop":
        edges = uncrop.margins(pixels.shape, result.settings.extend)
        return np.pad(pixels, (*edges, (0, 0)), constant_values=128)
    return pixels


def as_command(name: str, settings: Settings, about: Mapping[str, Any]) -> str:
    """Returns the `palette-jax restore` command that writes the same file."""
    given = {
        "task": settings.task,
        "checkpoint": about.get("checkpoint"),
        "mask": about.get("mask"),
        "hints": about.get("hints"),
        "quality-preset": settings.quality,
        "sampler": settings.sampler,
        "num-steps": settings.num_steps,
        "seed": settings.seed or None,
        "extend": ",".join(
            f"{side}={share!r}"
            for side, share in settings.extend._asdict().items()
            if share
        ),
        "large": None if settings.large == "auto" else settings.large,
    }
    flags = [f"--{flag}={value}" for flag, value in given.items() if value]
    if settings.keep_luminance:
        flags.append("--keep-luminance")
    photo = f"./{name}" if name.startswith("-") else name
    return shlex.join(["palette-jax", "restore", photo, *flags])


def in_words(seconds: float) -> str:
    """Returns a time in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _seeds(result: Result) -> str:
    first, *others = result.settings.seeds
    return f"seeds {first} to {others[-1]}" if others else f"seed {first}"
