"""Folders of pictures of any program: pairs the files and reads their pixels.

Needs no TensorFlow.
"""

import concurrent.futures
import pathlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from palette_jax.errors import MetricError, UserError, some_of
from palette_jax.pictures import files, match, walk
from palette_jax.pictures.image_list import ImageList

_THREADS = 8

Square = Callable[[np.ndarray], np.ndarray]
"""Converts a picture of any size to a square of a given size."""


class Pair(NamedTuple):
    """A result and its reference picture."""

    result: pathlib.Path
    reference: pathlib.Path


def pictures(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the pictures below a folder by their relative path, without extension.

    Raises:
      UserError: if there is none, or two differ only in their extension.
    """
    if not folder.is_dir():
        raise UserError(f"expected a folder of pictures, got {folder}: no folder")
    found = walk.walk(folder, walk.pillow_extensions())
    if not found.names:
        raise UserError(
            f"expected pictures below {folder}, got none with an extension that Pillow"
            f" knows, e.g. .jpg and .png; {found.summary()}"
        )
    by_stem = match.by_stem(found.names, folder)
    return {stem: folder / name for stem, name in sorted(by_stem.items())}


def pair(
    results: pathlib.Path, reference: pathlib.Path, *, names: ImageList | None = None
) -> dict[str, Pair]:
    """Returns the pairs of equal paths, except for the extension, by path.

    Args:
      results: a folder.
      reference: a folder.
      names: a list of the pictures; without it, both folders must have the same names.

    Raises:
      UserError: naming pictures without a partner.
    """
    of_results, of_reference = pictures(results), pictures(reference)
    if names is not None:
        chosen = match.find_listed(
            names.lines, of_reference, f"{names.path}, below {reference}"
        )
        index = match.Names(of_results)
        partners = {name: index.find(name) or "" for name in chosen.values()}
        missing = [name for name, found in partners.items() if not found]
        if missing:
            raise UserError(
                f"expected a result in {results} for each of the {len(partners)} names"
                f" in {names.path}, got none for {len(missing)}: {some_of(missing)}"
            )
        served: dict[str, str] = {}
        for name, found in partners.items():
            if found in served:
                raise UserError(
                    f"expected a result for each name, got {of_results[found]} for both"
                    f" {served[found]} and {name}; keep the results in the folders of"
                    " the originals"
                )
            served[found] = name
        return {
            name: Pair(of_results[found], of_reference[name])
            for name, found in partners.items()
        }
    lonely = sorted(of_results.keys() - of_reference.keys())
    missing = sorted(of_reference.keys() - of_results.keys())
    if lonely or missing:
        problems = []
        if lonely:
            problems.append(
                f"{len(lonely)} results without a reference: {some_of(lonely)}"
            )
        if missing:
            problems.append(
                f"{len(missing)} references without a result: {some_of(missing)}"
            )
        raise UserError(
            f"expected the same names in {results} and {reference}, except for their"
            f" extensions, got {'; '.join(problems)}; rename them, or list the pictures"
            " to compare in a file for --list"
        )
    return {n: Pair(of_results[n], of_reference[n]) for n in sorted(of_results)}


def check_sizes(paths: Sequence[epath.PathLike]) -> tuple[int, int]:
    """Returns height and width of pictures; reads only the headers.

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
    paths: Sequence[epath.PathLike], square: Square | None
) -> UInt8[np.ndarray, "n h w 3"]:
    """Returns the pixels of pictures of one size, each made a `square` if given.

    Raises:
      PictureError: if one is no picture.
    """

    def one(path: epath.PathLike) -> UInt8[np.ndarray, "h w 3"]:
        pixels = _pixels(path)
        return pixels if square is None else square(pixels)

    return np.stack(_in_threads(one, paths))


def checksums(paths: Mapping[str, epath.PathLike]) -> dict[str, int]:
    """Returns a CRC-32 of each file, by name."""
    sums = _in_threads(
        lambda path: zlib.crc32(epath.Path(path).read_bytes()), paths.values()
    )
    return dict(zip(paths, sums, strict=True))


def _size(path: epath.PathLike) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            width, height = image.size
            is_turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
    except Exception:  # `read` raises an error with the reason.
        return _pixels(path).shape[:2]
    return (width, height) if is_turned else (height, width)


def _pixels(path: epath.PathLike) -> UInt8[np.ndarray, "h w 3"]:
    if "://" in str(path):
        return files.read(epath.Path(path).read_bytes(), name=str(path)).pixels
    return files.read(path).pixels


def _in_threads(do: Callable[[Any], Any], of: Iterable[Any]) -> list[Any]:
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(do, of))
