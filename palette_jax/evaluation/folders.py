"""Folders of pictures that any program made: which belongs to which, and their pixels.

Needs no TensorFlow.
"""

import concurrent.futures
import pathlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.evaluation.metrics.errors import MetricError
from palette_jax.evaluation.metrics.pictures import some_of
from palette_jax.pictures import files
from palette_jax.pictures.image_list import ImageList, candidates

_THREADS = 8


class Pair(NamedTuple):
    """A result and the picture that it is compared with."""

    result: pathlib.Path
    reference: pathlib.Path


def pictures(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the pictures below a folder by their path in it, without an ending.

    Raises:
      UserError: if there is none, or two differ only in their ending.
    """
    if not folder.is_dir():
        raise UserError(f"expected a folder of pictures, got {folder}: no folder")
    endings = Image.registered_extensions()
    found: dict[str, pathlib.Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in inside.parts)
        if is_hidden or path.suffix.lower() not in endings or not path.is_file():
            continue
        stem = inside.with_suffix("").as_posix()
        if stem in found:
            raise UserError(
                f"expected one picture for each name, got {found[stem]} and {path};"
                " remove one of them"
            )
        found[stem] = path
    if not found:
        raise UserError(
            f"expected pictures below {folder}, got none; known endings are those of"
            " Pillow, e.g. .jpg and .png"
        )
    return found


def match(
    results: pathlib.Path,
    reference: pathlib.Path,
    *,
    names: ImageList | None = None,
) -> dict[str, Pair]:
    """Returns the pairs of the same path, but for the ending, by that path.

    Args:
      results: a folder.
      reference: a folder.
      names: the pictures that count; without, both folders must hold the same ones.

    Raises:
      UserError: naming those without a partner.
    """
    of_results, of_reference = pictures(results), pictures(reference)
    if names is not None:
        chosen = _listed(names, of_reference, reference)
        by_file = {name.rsplit("/", 1)[-1]: name for name in of_results}
        partner = {
            name: name if name in of_results else by_file.get(name.rsplit("/", 1)[-1])
            for name in chosen
        }
        missing = [name for name, found in partner.items() if found is None]
        if missing:
            raise UserError(
                f"expected a result in {results} for each of the {len(chosen)} names in"
                f" {names.path}, got none for {len(missing)}: {some_of(missing)}"
            )
        return {
            name: Pair(of_results[found], of_reference[name])
            for name, found in partner.items()
            if found is not None
        }
    lonely = sorted(of_results.keys() - of_reference.keys())
    missing = sorted(of_reference.keys() - of_results.keys())
    if lonely or missing:
        said = []
        if lonely:
            said.append(f"{len(lonely)} results without a reference: {some_of(lonely)}")
        if missing:
            said.append(
                f"{len(missing)} references without a result: {some_of(missing)}"
            )
        raise UserError(
            f"expected the same names in {results} and {reference}, but for their"
            f" endings, got {'; '.join(said)}; rename them, or name those that count in"
            " a file for --list"
        )
    return {n: Pair(of_results[n], of_reference[n]) for n in sorted(of_results)}


def check_sizes(paths: Sequence[pathlib.Path]) -> tuple[int, int]:
    """Returns height and width of pictures, of which only the heads are read.

    Raises:
      MetricError: if they differ, naming two.
      PictureError: if one is no picture.
    """
    sizes = _in_threads(_size, paths)
    first = sizes[0]
    for path, size in zip(paths, sizes, strict=True):
        if size != first:
            raise MetricError(
                f"expected pictures of one size, got {paths[0]} with {first[1]} x"
                f" {first[0]} and {path} with {size[1]} x {size[0]}; add --size=256 to"
                " compare their central squares at 256 x 256 pixels"
            )
    return first


def load(
    paths: Sequence[pathlib.Path], size: int | None
) -> UInt8[np.ndarray, "n h w 3"]:
    """Returns the pixels of pictures of one size.

    Args:
      paths: of the pictures.
      size: resizes the central square of each by area (bicubic where that enlarges);
        None leaves them as they are.

    Raises:
      PictureError: if one is no picture.
    """
    return np.stack(_in_threads(lambda path: _square(_pixels(path), size), paths))


def checksums(paths: Mapping[str, pathlib.Path]) -> dict[str, int]:
    """Returns a CRC-32 of each file, by name."""
    sums = _in_threads(lambda path: zlib.crc32(path.read_bytes()), paths.values())
    return dict(zip(paths, sums, strict=True))


def _listed(
    names: ImageList, found: Mapping[str, pathlib.Path], folder: pathlib.Path
) -> list[str]:
    """Returns the names in a folder that a list means, in the order of the list."""
    by_file: dict[str, list[str]] = {}
    for name in found:
        by_file.setdefault(name.rsplit("/", 1)[-1], []).append(name)

    def find(line: str) -> str | None:
        for candidate in candidates(line):
            for name in (without_ending(candidate), candidate):
                namesakes = by_file.get(name.rsplit("/", 1)[-1], [])
                if name in found or len(namesakes) == 1:
                    return name if name in found else namesakes[0]
        return None

    meant = {line: find(line) for line in names.lines}
    missing = [line for line, name in meant.items() if name is None]
    if missing:
        raise UserError(
            f"expected pictures in {folder} for all {len(meant)} names in {names.path},"
            f" got none, or several of the same file name, for {len(missing)}:"
            f" {some_of(missing)}"
        )
    return list(dict.fromkeys(name for name in meant.values() if name is not None))


def without_ending(name: str) -> str:
    """Returns a path without its ending."""
    return pathlib.PurePosixPath(name).with_suffix("").as_posix()


def _size(path: pathlib.Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            width, height = image.size
            is_turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
    except Exception:  # Of what is no picture `read` says in words what it is.
        return _pixels(path).shape[:2]
    return (width, height) if is_turned else (height, width)


def _pixels(path: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    return files.read(path).pixels


def _square(
    pixels: UInt8[np.ndarray, "h w 3"], size: int | None
) -> UInt8[np.ndarray, "height width 3"]:
    if size is None:
        return pixels
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    how = Image.Resampling.BOX if side >= size else Image.Resampling.BICUBIC
    return np.asarray(square.resize((size, size), how))


def _in_threads(do: Callable[[Any], Any], of: Iterable[Any]) -> list[Any]:
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(do, of))
