"""`palette-jax data check FOLDER`: checks a folder of pictures before training."""

import argparse
import collections
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import UInt8

from palette_jax.config import base
from palette_jax.errors import UserError
from palette_jax.pictures import files, match, resize, sheets, walk
from palette_jax.programs.run import check_training_packages
from palette_jax.restoration import masks

_LISTED = 20  # Lines for each kind of finding.
_TILES = 60  # Pictures on the sheet.
_TILE = 128  # Pixels.


class Finding(NamedTuple):
    """A problem of a file.

    Attributes:
      kind: the heading of the problem.
      text: the file and the problem.
      picture: the position of the picture in the source, None if it is not there.
      hole: of its mask, to show on the picture.
    """

    kind: str
    text: str
    picture: int | None = None
    hole: UInt8[np.ndarray, "h w 1"] | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    commands = parser.add_subparsers(dest="data_command", required=True)
    what = "list the files that training would skip, with the reasons"
    check = commands.add_parser("check", help=what, description=what)
    data = base.get_config().data
    check.add_argument("folder", metavar="FOLDER", help="of pictures, also gs://")
    check.add_argument("--masks", metavar="DIR", help="masks of the same names")
    check.add_argument(
        "--num-eval",
        type=int,
        default=data.num_eval,
        metavar="N",
        help="pictures to hold out, as data.num_eval (default %(default)s)",
    )
    check.add_argument(
        "--min-side",
        type=int,
        default=data.min_side,
        metavar="PIXELS",
        help="smaller pictures are skipped, as data.min_side (default %(default)s)",
    )
    check.add_argument(
        "--out",
        metavar="PNG",
        help="write a sheet of the pictures with findings, and of masks on pictures",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the findings; returns 1 if there are any."""
    if args.out and pathlib.Path(args.out).suffix.lower() != ".png":
        raise UserError(f"expected --out to end in .png, got {args.out}")
    if args.masks and not epath.Path(args.masks).is_dir():
        raise UserError(f"expected --masks to be a folder, got no such: {args.masks}")
    check_training_packages()
    # Needs TensorFlow.
    from palette_jax.data import sources

    source = sources.folder(args.folder)
    walked = walk.walk(epath.Path(args.folder), sources.EXTENSIONS)
    found = [Finding("skipped by extension", name) for name in walked.left_out]
    unnamed = sorted({*walked.names} - {*source.names.tolist()})
    found += [Finding("skipped, name is not UTF-8", n) for n in unnamed]
    hashes, broken = _read(source, args.min_side)
    found += broken
    found += _duplicates(source, hashes, args.num_eval)
    paired: list[Finding] = []
    if args.masks:
        unpaired, paired = _pair(source, {f.picture for f in broken}, args.masks)
        found += unpaired
    total = len(walked.names) + len(walked.left_out)
    usable = len(source) - len(broken)
    print(f"{total} files, of which training uses {usable}")
    if args.masks:
        print(f"{len(paired)} pictures have a mask")
    _print(found)
    if args.out:
        shown = [f for f in (*found, *paired) if f.picture is not None][:_TILES]
        if shown:
            tiles = [
                (_tile(source, finding), _plain(finding.text)) for finding in shown
            ]
            sheet = sheets.labelled(tiles)
            files.write(args.out, sheet, files.Photo(sheet))
            print(f"sheet: {args.out}")
        else:
            print("no sheet: there is no picture with a finding")
    return 1 if found else 0


def _read(source: Any, min_side: int) -> tuple[dict[int, str], list[Finding]]:
    """Returns the hashes of all readable files, and the unusable pictures."""
    import tensorflow as tf

    from palette_jax.data import pictures

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


def _duplicates(source: Any, hashes: dict[int, str], num_eval: int) -> list[Finding]:
    """Returns files of equal bytes, those across the split first."""
    from palette_jax.data import sources

    try:
        held_out = {*sources.hold_out(source, num_eval)[1].names.tolist()}
    except UserError as error:
        return [Finding("no split", str(error)), *_alike(source, hashes, set())]
    return sorted(_alike(source, hashes, held_out), key=lambda found: found.kind)


def _alike(
    source: Any, hashes: dict[int, str], held_out: set[str]
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
    source: Any, broken: set[int | None], folder: str
) -> tuple[list[Finding], list[Finding]]:
    """Returns the problems of the masks of a folder, and the pairs."""
    others = walk.walk(epath.Path(folder), walk.pillow_endings()).names
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


def _photo(source: Any, index: int) -> files.Photo:
    import tensorflow as tf

    encoded = source.read(tf.constant(index, tf.int64))["y"].numpy()
    return files.read(encoded, name=str(source.names[index]))


def _tile(source: Any, finding: Finding) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the central square of a picture, gray if it cannot be read."""
    import tensorflow as tf

    assert finding.picture is not None
    try:
        pixels = _photo(source, finding.picture).pixels
    except (UserError, tf.errors.OpError):
        return np.full((_TILE, _TILE, 3), 128, np.uint8)
    if finding.hole is not None:
        pixels = masks.shown(pixels, finding.hole)
    return resize.center_square(pixels, _TILE)


def _print(found: list[Finding]) -> None:
    kinds = collections.defaultdict(list)
    for finding in found:
        kinds[finding.kind].append(finding.text)
    for kind, texts in kinds.items():
        print(f"\n{kind}: {len(texts)}")
        for text in texts[:_LISTED]:
            print(f"  {_plain(text)}")
        if len(texts) > _LISTED:
            print(f"  and {len(texts) - _LISTED} more")
    if not found:
        print("no file is skipped, and there are no duplicates")


def _plain(text: str) -> str:
    """Returns a text without the bytes of names that are not UTF-8."""
    return text.encode("utf8", "backslashreplace").decode("utf8")
