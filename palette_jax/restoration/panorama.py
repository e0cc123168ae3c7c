"""Panoramas: extends a picture several times."""

import dataclasses
from collections.abc import Iterator, Sequence

from palette_jax.errors import UserError
from palette_jax.pictures.files import MAX_PIXELS, Photo
from palette_jax.restoration.progress import OnProgress, Progress
from palette_jax.restoration.restorer import Restorer
from palette_jax.restoration.result import Result
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import Sides


def turns(
    photo: Photo, sides: Sequence[str], *, repeats: int = 8, share: float = 0.5
) -> list[tuple[str, int]]:
    """Returns the extensions of a photo in order: side and pixels.

    The defaults are the paper's: a square of 256 pixels, extended 8 times by its half
    to both sides, becomes 256 x 2304.

    Raises:
      UserError: if the panorama would have too many pixels.
    """
    height, width = photo.pixels.shape[:2]
    lengths = {"left": width, "right": width, "top": height, "bottom": height}
    added = [(side, max(round(share * lengths[side]), 1)) for side in sides]
    for side, pixels in added:
        if side in ("left", "right"):
            width += repeats * pixels
        else:
            height += repeats * pixels
    if height * width > MAX_PIXELS:
        raise UserError(
            f"expected a panorama of at most {MAX_PIXELS:,} pixels, got {width} x"
            f" {height} after {repeats} repeats; take fewer, or a smaller photo"
        )
    return added * repeats


def extend(
    restorer: Restorer,
    photo: Photo,
    settings: Settings,
    turns: Sequence[tuple[str, int]],
    *,
    on_progress: OnProgress | None = None,
) -> Iterator[Result]:
    """Yields the picture after each extension; later extensions do not change it.

    Ignores task and extension of the settings. `on_progress` gets the steps of all
    turns.
    """
    for turn, (side, pixels) in enumerate(turns):

        def overall(progress: Progress, turn: int = turn) -> bool | None:
            if on_progress is None:
                return None
            total = progress.total
            done = turn * total + progress.done
            return on_progress(Progress(done, total * len(turns), progress.preview))

        height, width = photo.pixels.shape[:2]
        length = width if side in ("left", "right") else height
        result = restorer.restore(
            photo,
            dataclasses.replace(
                settings, task="uncrop", extend=Sides.of(side, pixels / length)
            ),
            on_progress=overall,
        )
        yield result
        photo = result.as_photo()
