"""Checks a folder of pictures: skipped files, duplicates and masks."""

import collections
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from etils import epath
from jaxtyping import UInt8

from palette_jax.data import pictures, sources
from palette_jax.data.sources import Source
from palette_jax.errors import UserError
from palette_jax.pictures import files, masks, match, resize, walk

_TILES = 60  # Pictures to show, at most.
_TILE = 128  # Pixels.


class Finding(NamedTuple):
    """A problem of a file, under the heading `kind`.

    Attributes:
      picture: its position in the source, None if it is not there.
      hole: of its mask, to show on the picture.
    """

    kind: str
    text: str
    picture: int | None = None
    hole: UInt8[np.ndarray, "h w 1"] | None = None


class Checked(NamedTuple):
    """A checked folder.

    Attributes:
      total: number of its files.
      usable: number of pictures that training uses.
      paired: the pictures with a mask.
    """

    source: Source
    total: int
    usable: int
    findings: list[Finding]
    paired: list[Finding]

    def tiles(self) -> list[tuple[UInt8[np.ndarray, "h w 3"], str]]:
        """Returns squares with labels: pictures with findings, masks on pictures."""
        shown = [f for f in (*self.findings, *self.paired) if f.picture is not None]
        return [(_tile(self.source, f), plain(f.text)) for f in shown[:_TILES]]


def check(
    folder: str, *, num_eval: int, min_side: int, masks_folder: str | None
) -> Checked:
    """Reads all files of a folder and lists the problems."""
    source = sources.folder(folder)
    walked = walk.walk(epath.Path(folder), sources.EXTENSIONS)
    found = [Finding("skipped by extension", name) for name in walked.skipped]
    unnamed = sorted({*walked.names} - {*source.names.tolist()})
    found += [Finding("skipped, name is not UTF-8", name) for name in unnamed]
    hashes, broken = _read(source, min_side)
    found += [*broken, *_duplicates(source, hashes, num_eval)]
    paired: list[Finding] = []
    if masks_folder:
        unpaired, paired = _pair(source, {f.picture for f in broken}, masks_folder)
        found += unpaired
    total = len(walked.names) + len(walked.skipped)
    return Checked(source, total, len(source) - len(broken), found, paired)


def plain(text: str) -> str:
    """Returns a text without the bytes of names that are not UTF-8."""
    return text.encode("utf8", "backslashreplace").decode("utf8")


def _read(source: Source, min_side: int) -> tuple[dict[int, str], list[Finding]]:
    """Returns the hashes of all readable files, and the unusable pictures."""
    hashes, broken = {}, []
    for index, name in enumerate(source.names.tolist()):
        reason = pictures.diagnose(source, index, min_side)
        if reason is not None:
            broken.append(Finding("skipped", f"{name}: {reason}", index))
        try:
            encoded = source.read(tf.constant(index, tf.int64))["y"].numpy()
        except tf.errors.OpError:
            continue
        hashes[index] = hashlib.sha256(encoded).hexdigest()
    return hashes, broken


def _duplicates(source: Source, hashes: dict[int, str], num_eval: int) -> list[Finding]:
    """Returns files of equal bytes, those across the split first."""
    try:
        held_out = {*sources.hold_out(source, num_eval)[1].names.tolist()}
    except UserError as error:
        return [Finding("no split", str(error)), *_alike(source, hashes, set())]
    return sorted(_alike(source, hashes, held_out), key=lambda found: found.kind)


def _alike(
    source: Source, hashes: dict[int, str], held_out: set[str]
) -> Iterator[Finding]:
    groups = collections.defaultdict(list)
    for index, digest in hashes.items():
        groups[digest].append(index)
    names = source.names.tolist()
    for group in groups.values():
        first = group[0]
        for other in group[1:]:
            sides = [names[i] in held_out for i in (first, other)]
            across = sides[0] != sides[1]
            where = [" (held out)" if side else "" for side in sides]
            yield Finding(
                "equal bytes in training and held out" if across else "equal bytes",
                f"{names[other]}{where[1]} = {names[first]}{where[0]}",
                other,
            )


def _pair(
    source: Source, broken: set[int | None], folder: str
) -> tuple[list[Finding], list[Finding]]:
    """Returns the problems of the masks of a folder, and the pairs."""
    others = walk.walk(epath.Path(folder), walk.pillow_extensions()).names
    by_stem = collections.defaultdict(list)
    for other in others:
        by_stem[walk.key(other)].append(other)
    wrong, paired, used = [], [], set()
    for index, name in enumerate(source.names.tolist()):
        candidates = by_stem[walk.key(name)]
        try:
            mask = match.partner(name, candidates)
        except match.AmbiguousError as error:
            used |= {*candidates}
            wrong.append(Finding("masks", str(error), index))
            continue
        if mask is None:
            wrong.append(Finding("masks", f"{name}: no mask", index))
            continue
        used.add(mask)
        if index in broken:
            continue
        try:
            photo = _photo(source, index)
            encoded = (epath.Path(folder) / mask).read_bytes()
            hole, warnings = masks.to_hole(
                files.read(encoded, name=mask), photo.pixels.shape
            )
        except (UserError, OSError) as error:
            wrong.append(Finding("masks", f"{name}: {error}", index))
            continue
        wrong += [Finding("masks", f"{name}: {text}", index, hole) for text in warnings]
        paired.append(Finding("paired", f"{name}: {mask}", index, hole))
    unused = [other for other in others if other not in used]
    wrong += [
        Finding("masks", f"{other}: a mask without a picture") for other in unused
    ]
    return wrong, paired


def _photo(source: Source, index: int) -> files.Photo:
    encoded = source.read(tf.constant(index, tf.int64))["y"].numpy()
    return files.read(encoded, name=str(source.names[index]))


def _tile(source: Source, finding: Finding) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the central square of a picture, gray if it cannot be read."""
    assert finding.picture is not None
    try:
        pixels = _photo(source, finding.picture).pixels
    except (UserError, tf.errors.OpError):
        return np.full((_TILE, _TILE, 3), 128, np.uint8)
    if finding.hole is not None:
        pixels = masks.shown(pixels, finding.hole)
    return resize.center_square(pixels, _TILE)
