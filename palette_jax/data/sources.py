"""Sources of pictures: a list of names and random access to each picture."""

import dataclasses
import hashlib
import importlib.util
import io
import os
import pathlib
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from absl import logging
from etils import epath
from PIL import Image

from palette_jax.errors import UserError, some_of
from palette_jax.pictures import image_list, match, walk

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")

# The colour photographs among the samples of two packages, without the right eye's view
# of the motorcycle, drawings, and pictures from telescopes and microscopes.
_SAMPLES = {
    "skimage": [
        "data/astronaut.png",
        "data/chelsea.png",
        "data/coffee.png",
        "data/motorcycle_left.png",
        "data/rocket.jpg",
    ],
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
}
_TILE, _STRIDE = 224, 64


@dataclasses.dataclass(frozen=True)
class Source:
    """Pictures in a fixed order, with random access.

    Attributes:
      names: unique names, for folders the paths below the folder.
      read: returns the encoded files {"y": bytes} for the position of a name, a scalar
        int64 tensor; also "x" for pairs. Consists of graph operations; it may fail.
      groups: for each picture the photograph it was cut from, if pictures overlap.
      file_names: returns the names in image lists, if they differ from `names`; may be
        slow.
      sizes: returns the bytes of each file, if a listing contains them.
    """

    names: np.ndarray
    read: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    groups: np.ndarray | None = None
    file_names: Callable[[], np.ndarray] | None = None
    sizes: Callable[[], np.ndarray] | None = None

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.names)

    def select(self, indices: Sequence[int] | np.ndarray) -> "Source":
        """Returns the source of the pictures at some positions, in that order."""
        indices = np.asarray(indices, np.int64)
        rows = tf.constant(indices)
        groups, file_names, sizes = self.groups, self.file_names, self.sizes
        return Source(
            names=self.names[indices],
            read=lambda index: self.read(rows[index]),
            groups=None if groups is None else groups[indices],
            file_names=None if file_names is None else lambda: file_names()[indices],
            sizes=None if sizes is None else lambda: sizes()[indices],
        )

    def identity(self) -> dict[str, int | str]:
        """Returns the number of pictures and hashes of their names and sizes."""
        found: dict[str, int | str] = {
            "pictures": len(self),
            "names": _hash("\n".join(self.names.tolist())),
        }
        if self.sizes is not None:
            found["sizes"] = _hash(",".join(map(str, self.sizes().tolist())))
        return found


def sample_photos() -> Source:
    """Returns tiles of seven photographs that come inside installed packages."""
    names, tiles = [], []
    for package, paths in _SAMPLES.items():
        # Finds the folder without importing the package, which takes seconds.
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise UserError(
                f"expected the package {package} with its sample photographs, got none;"
                " install scikit-image and scikit-learn"
            )
        for path in paths:
            path = pathlib.Path(spec.origin).parent / path
            with Image.open(path) as photo:
                photo = photo.convert("RGB")
            for place, tile in _tiles(photo):
                names.append(f"{path.stem}/{place}")
                tiles.append(tile)
    encoded = tf.constant(tiles)
    groups = np.array([name.split("/")[0] for name in names])
    return Source(np.array(names), lambda index: {"y": encoded[index]}, groups)


def _tiles(photo: Image.Image) -> list[tuple[str, bytes]]:
    """Returns overlapping squares of a photograph: their position and a PNG file."""
    columns, rows = (
        np.linspace(0, side - _TILE, (side - _TILE) // _STRIDE + 1).astype(int).tolist()
        for side in photo.size
    )
    tiles = []
    for row, top in enumerate(rows):
        for column, left in enumerate(columns):
            file = io.BytesIO()
            tile = photo.crop((left, top, left + _TILE, top + _TILE))
            tile.save(file, "PNG", compress_level=1)
            tiles.append((f"{row}_{column}", file.getvalue()))
    return tiles


def folder(path: str) -> Source:
    """Returns all pictures below a folder, local or gs://, sorted by path."""
    root = epath.Path(path)
    if not root.is_dir():
        raise UserError(f"expected a folder of pictures, got {path}: no folder")
    found = walk.walk(root, EXTENSIONS)
    names = [name for name in found.names if _is_utf8(name)]
    if len(names) < len(found.names):
        logging.warning(
            "%s: left out %d pictures whose names are not UTF-8; rename them",
            path,
            len(found.names) - len(names),
        )
    if not names:
        raise UserError(
            f"expected pictures below {path}, got none with an extension out of"
            f" {', '.join(EXTENSIONS)}; {found.summary()}"
        )
    if found.skipped:
        logging.info("%s: %d pictures, %s", path, len(names), found.summary())
    rows = tf.constant(names)
    prefix = str(root).rstrip("/") + "/"

    def sizes() -> np.ndarray:
        return np.array([_size(prefix + name) for name in names])

    return Source(
        np.array(names),
        lambda index: {"y": tf.io.read_file(prefix + rows[index])},
        sizes=None if "://" in prefix else sizes,  # A bucket needs a request for each.
    )


def paired(source_folder: str, target_folder: str) -> Source:
    """Returns pairs of pictures, matched by path without its extension."""
    x, y = folder(source_folder), folder(target_folder)
    x_index, y_index = _by_stem(x, source_folder), _by_stem(y, target_folder)
    stems = sorted(x_index.keys() & y_index.keys())
    for name, extra in (
        (source_folder, x_index.keys() - y_index.keys()),
        (target_folder, y_index.keys() - x_index.keys()),
    ):
        if extra and stems:
            logging.warning(
                "%d of the pictures in %s have no partner and are left out: %s",
                len(extra),
                name,
                some_of(sorted(extra)),
            )
    if not stems:
        raise UserError(
            "expected pictures with the same path in both folders, except for their"
            f" extensions, got {len(x)} in {source_folder} ({some_of([*x_index])}) and"
            f" {len(y)} in {target_folder} ({some_of([*y_index])}) without a match;"
            " rename them"
        )
    x = x.select([x_index[stem] for stem in stems])
    y = y.select([y_index[stem] for stem in stems])
    return Source(
        y.names, lambda index: {"x": x.read(index)["y"], "y": y.read(index)["y"]}
    )


def _by_stem(source: Source, path: str) -> dict[str, int]:
    """Returns the position of each picture by its path without extension."""
    names = source.names.tolist()
    index = {name: i for i, name in enumerate(names)}
    return {stem: index[name] for stem, name in match.by_stem(names, path).items()}


def restrict(source: Source, list_file: str) -> Source:
    """Returns the pictures that an `image_list` names, in the list's order."""
    lines = image_list.read(list_file).lines
    names = (source.file_names() if source.file_names else source.names).tolist()
    positions = {name: index for index, name in enumerate(names)}
    meant = match.find_listed(lines, names, list_file)
    found = {line: positions[name] for line, name in meant.items()}
    chosen = list(dict.fromkeys(found.values()))  # A picture named twice counts once.
    subset = source.select(chosen)
    return dataclasses.replace(
        subset, names=np.array([names[index] for index in chosen]), file_names=None
    )


def checksums(source: Source) -> dict[str, int]:
    """Returns a CRC-32 of the encoded files of each picture; reads all files."""
    rows = tf.data.Dataset.range(len(source)).map(source.read, tf.data.AUTOTUNE)
    sums = {}
    for name, files in zip(
        source.names.tolist(), rows.as_numpy_iterator(), strict=True
    ):
        sums[name] = 0
        for key in sorted(files):
            sums[name] = zlib.crc32(files[key], sums[name])
    return sums


def held_out_below(source: Source, num_eval: int) -> int:
    """Returns the bound with `num_eval` name hashes below it."""
    hashes = sorted(_name_hashes(source).tolist())
    return hashes[min(num_eval, len(hashes)) - 1] + 1 if num_eval > 0 else 0


def hold_out(source: Source, num_eval: int, *, below: int = 0) -> tuple[Source, Source]:
    """Returns the disjoint sources for training and for evaluation.

    A picture is held out if the hash of its name is below a bound. A run stores its
    bound, so that added or removed files never move another picture from training to
    evaluation. Pictures cut from one photograph share its hash. At most `num_eval` of
    the held-out pictures are evaluated.

    Args:
      source: all pictures.
      num_eval: number of pictures below the bound of a new run.
      below: the bound of an existing run; 0 for a new run.

    Raises:
      UserError: if no picture is left for training or for evaluation.
    """
    hashes = _name_hashes(source)
    is_held_out = hashes < (below or held_out_below(source, num_eval))
    held_out, train = np.flatnonzero(is_held_out), np.flatnonzero(~is_held_out)
    if source.groups is not None:
        names = source.names.tolist()
        key = lambda i: (hashes[i], zlib.crc32(names[i].encode()), names[i])  # noqa: E731
        held_out = np.sort(sorted(held_out.tolist(), key=key)[:num_eval])
    if not 1 <= num_eval <= len(source) or not len(train) or not len(held_out):
        raise UserError(
            f"expected to hold out at least 1 of {len(source)} pictures and to train on"
            f" others, got data.num_eval={num_eval}, which leaves {len(train)} to train"
            f" on and {len(held_out)} held out; change --config.data.num_eval, or add"
            " pictures"
        )
    return source.select(train), source.select(held_out)


def _name_hashes(source: Source) -> np.ndarray:
    groups = source.names if source.groups is None else source.groups
    hashes = [zlib.crc32(group.encode("utf8")) for group in groups.tolist()]
    return np.array(hashes, np.int64)


def _is_utf8(name: str) -> bool:
    return name == name.encode("utf8", "ignore").decode("utf8")


def _size(path: str) -> int:
    """Returns the size of a file in bytes, -1 for a dangling link."""
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf8")).hexdigest()[:16]
