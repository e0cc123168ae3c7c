"""Packs the pictures of folders as JPEG bytes in one file, to train on other machines.

    python -m benchmarks.pack_pictures PHOTOS MORE_PHOTOS --out=pictures.zip

The file is a ZIP archive without compression; `benchmarks.train_from_arrays` trains
from it without TensorFlow. Upright and small JPEGs are copied; other pictures are
shrunk and encoded. Pictures beyond `--max-mib` are left out by the hash of their name,
so that every folder loses the same share.
"""

import argparse
import io
import pathlib
import sys
import zipfile
import zlib

from PIL import Image

from palette_jax import atomic
from palette_jax.errors import UserError
from palette_jax.pictures import files, resize, walk

_ORIENTATION = 0x0112


def encode(path: pathlib.Path, short_side: int) -> bytes:
    """Returns a picture as the bytes of a JPEG, upright and in sRGB.

    Args:
      path: of a picture that Pillow opens.
      short_side: of larger pictures after shrinking.

    Raises:
      PictureError: if the picture cannot be read.
    """
    data = path.read_bytes()
    photo = files.in_colour(files.read(data, name=str(path)))
    with Image.open(io.BytesIO(data)) as image:
        is_as_wanted = (
            image.format == "JPEG"
            and image.mode == "RGB"
            and min(image.size) <= short_side
            and image.getexif().get(_ORIENTATION, 1) == 1
            and not image.info.get("icc_profile")
        )
    if is_as_wanted:
        return data
    height, width = photo.pixels.shape[:2]
    scale = min(short_side / min(height, width), 1.0)
    pixels = resize.resize(photo.pixels, round(height * scale), round(width * scale))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def pack(
    folders: list[pathlib.Path], out: pathlib.Path, *, short_side: int, max_bytes: int
) -> list[str]:
    """Writes the file; returns the skipped pictures with the reasons.

    Raises:
      UserError: if there are no pictures, or two with the same name.
    """
    found: dict[str, pathlib.Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"expected a folder of pictures, got {folder}: no folder")
        for name in walk.walk(folder, walk.pillow_extensions()).names:
            if name in found:
                raise UserError(
                    f"expected pictures of different names, got {name} in"
                    f" {found[name]} and {folder}; pack the folder that both are in"
                )
            found[name] = folder / name
    left_out, total, packed = [], 0, 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic.writing(out) as part, zipfile.ZipFile(str(part), "w") as archive:
        for name in sorted(found, key=lambda name: (zlib.crc32(name.encode()), name)):
            try:
                data = encode(found[name], short_side)
            except files.PictureError as error:
                left_out.append(str(error))
                continue
            size = len(data) + 2 * len(name.encode()) + 200  # And its two headers.
            if total + size > max_bytes:
                left_out.append(f"{found[name]}: no room in {max_bytes:,} bytes")
                continue
            archive.writestr(name, data)
            total, packed = total + size, packed + 1
        if not packed:
            raise UserError(
                "expected pictures that can be read, got none in"
                f" {', '.join(map(str, folders))}; name folders of photographs"
            )
    return left_out


def main() -> None:
    """Writes the file and prints its content."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="FILE")
    parser.add_argument("--short-side", type=int, default=256, help="in pixels")
    parser.add_argument("--max-mib", type=float, default=40.0, help="of the file")
    args = parser.parse_args()
    left_out = pack(
        args.folders,
        args.out,
        short_side=args.short_side,
        max_bytes=int(args.max_mib * 2**20),
    )
    with zipfile.ZipFile(args.out) as archive:
        count = len(archive.namelist())
    for line in left_out[:20]:
        print(f"left out: {line}")
    if len(left_out) > 20:
        print(f"left out: {len(left_out) - 20} more")
    size = args.out.stat().st_size / 2**20
    print(f"{args.out}: {count} pictures, {size:.1f} MiB; {len(left_out)} left out")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
