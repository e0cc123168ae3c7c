"""`palette-jax verify RESULT PHOTO`: compares known pixels and repeats the rest."""

import argparse
import pathlib
import sys
import tempfile
import zlib
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from palette_jax import interruptible
from palette_jax.config.build_restorer import SHIPPED, load_restorer
from palette_jax.errors import UserError
from palette_jax.pictures import files
from palette_jax.pictures.files import Photo
from palette_jax.restoration import masks
from palette_jax.restoration.result import Result
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, Given


def run(args: argparse.Namespace) -> int:
    """Prints whether known and repeated pixels are equal; returns 1 if not."""
    about = files.read_about(args.source)
    if about is None or "settings" not in about:
        raise UserError(
            f"expected a result of `palette-jax restore`, got {args.source} without"
            " settings; use the original file"
        )
    settings = Settings.from_json(about["settings"])
    if settings.num_samples > 1 or "extensions" in about:
        raise UserError(
            f"expected one restored picture, got {args.source}, a grid, a deviation or"
            " a panorama; use a file of one seed"
        )
    photo, result = files.read(args.photo), files.read(args.source)
    if about.get("input_crc32") not in (None, _crc32(args.photo)):
        print(f"{args.photo} is another file than the result was made from")
    hole = _hole(args, about, settings, photo)
    same = _print_kept(args.source, photo, result, settings, hole)
    return 0 if _print_again(args, about, settings, photo, result, hole) and same else 1


def _crc32(path: str) -> int:
    return zlib.crc32(pathlib.Path(path).read_bytes())


def _hole(
    args: argparse.Namespace, about: dict[str, Any], settings: Settings, photo: Photo
) -> UInt8[np.ndarray, "h w 1"] | None:
    """Returns the hole from the result, or from a mask."""
    shape = photo.pixels.shape
    if not TASKS[settings.task].needs_mask:
        return None
    if args.mask:
        invert = about.get("invert", False)
        return masks.to_hole(files.read(args.mask), shape, invert=invert)[0]
    if "hole" not in about:
        raise UserError(
            f"expected the hole in {args.source}, got none, because it is a JPEG or of"
            " an earlier version; add --mask=FILE"
        )
    return masks.unpack(about["hole"], shape)


def _print_kept(
    name: str,
    photo: Photo,
    result: Photo,
    settings: Settings,
    hole: UInt8[np.ndarray, "h w 1"] | None,
) -> bool:
    """Prints how many known pixels have the photo's bits; returns whether all have."""
    degraded = TASKS[settings.task].degrade(photo.pixels, Given(hole, settings.extend))
    known = degraded.hole[..., 0] == 0
    if known.all():
        print(f"kept: no pixels; {settings.task} has no known pixels")
        return True
    expected = Result(photo, settings, [degraded.x], degraded.hole, [], {}).as_photo()
    differs = _differs(expected, result, name) & known
    count, total = int(known.sum()), int(differs.sum())
    share = f"{count:,} known pixels ({count / known.size:.1%} of the picture)"
    if not total:
        print(f"kept: all {share} have the bits of the photo")
        return True
    row, column = np.argwhere(differs)[0]
    print(
        f"not kept: {total:,} of {share} differ from the photo, the first in row {row},"
        f" column {column}"
    )
    return False


def _print_again(
    args: argparse.Namespace,
    about: dict[str, Any],
    settings: Settings,
    photo: Photo,
    result: Photo,
    hole: UInt8[np.ndarray, "h w 1"] | None,
) -> bool:
    """Restores the photo again; prints and returns whether the bits are the same."""
    for flag in ("checkpoint", "hints"):
        if about.get(flag) and not getattr(args, flag):
            print(
                f"not regenerated: expected --{flag}, because the result was made with"
                f" one named {about[flag]}; add --{flag}=PATH",
                file=sys.stderr,
            )
            return False
    # A file name alone: a result of a stranger does not choose other files.
    shipped = SHIPPED / pathlib.Path(str(about.get("weights"))).name
    if not args.checkpoint and not shipped.is_file():
        print(
            f"not regenerated: this package has no weights {about.get('weights')!r};"
            " add --checkpoint=PATH",
            file=sys.stderr,
        )
        return False
    restorer = load_restorer(args.checkpoint or shipped)
    if restorer.about["weights_crc32"] != about.get("weights_crc32"):
        print("not regenerated: these are other weights than those of the result")
        return False
    again = interruptible.call(
        lambda: restorer.restore(photo, settings, hole=hole, hints=args.hints)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "again").with_suffix(
            pathlib.Path(args.source).suffix
        )
        again.save(path)
        regenerated = files.read(path)
    differs = _differs(regenerated, result, args.source)
    if not differs.any():
        print("regenerated: every pixel has the same bits")
        return True
    by = np.abs(regenerated.pixels.astype(int) - result.pixels).max()
    print(
        f"not regenerated: {differs.mean():.1%} of the pixels differ, by up to {by} of"
        " 255; another device, number of devices or version of JAX rounds differently"
    )
    return False


def _differs(expected: Photo, result: Photo, name: str) -> Bool[np.ndarray, "h w"]:
    """Returns where two pictures differ, in their opacity and 16 bits, too."""
    if expected.pixels.shape != result.pixels.shape:
        height, width = expected.pixels.shape[:2]
        raise UserError(
            f"expected {width} x {height} pixels in {name}, got"
            f" {result.pixels.shape[1]} x {result.pixels.shape[0]}; name the photo of"
            " the result"
        )
    differs = (expected.pixels != result.pixels).any(-1)
    for layer in ("alpha", "deep"):
        one, other = getattr(expected, layer), getattr(result, layer)
        if one is not None or other is not None:
            differs |= True if one is None or other is None else one != other
    return differs
