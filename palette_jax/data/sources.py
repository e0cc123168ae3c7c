"""Sources: where pictures lie, as a list of names and a way to read any one of them."""

import collections
import dataclasses
import importlib.util
import io
import pathlib
import zlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf
from absl import logging
from etils import epath
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.pictures import image_list

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")

# The colour photographs among the samples of two packages. Left out are the right eye's
# view of the motorcycle, drawings, and pictures from telescopes and microscopes.
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
    """Pictures in a fixed order, any of which can be read without those before it.

    Attributes:
      names: unique names, for folders the paths below the folder.
      read: given the position of a name, as a scalar int64 tensor, returns the encoded
        files {"y": bytes}, and "x" where pictures come in pairs. Graph operations; it
        may fail.
      groups: for each picture what it was cut from, if pictures overlap.
      file_names: returns what image lists call the pictures, if that is not `names`;
        it may take long.
    """

    names: np.ndarray
    read: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    groups: np.ndarray | None = None
    file_names: Callable[[], np.ndarray] | None = None

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.names)

    def select(self, indices: Sequence[int] | np.ndarray) -> "Source":
        """Returns the source of the pictures at some positions, in that order."""
        indices = np.asarray(indices, np.int64)
        rows = tf.constant(indices)
        groups, file_names = self.groups, self.file_names
        return Source(
            names=self.names[indices],
            read=lambda index: self.read(rows[index]),
            groups=None if groups is None else groups[indices],
            file_names=None if file_names is None else lambda: file_names()[indices],
        )


def sample_photos() -> Source:
    """Returns tiles of seven photographs that come inside installed packages."""
    names, tiles = [], []
    for package, paths in _SAMPLES.items():
        # Finds the folder without the seconds that importing the package takes.
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise UserError(
                f"Expected the package {package}, of which photographs are samples, got"
                " none; install scikit-image and scikit-learn."
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
    """Returns overlapping squares of a photograph: their place and a PNG file."""
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
        raise UserError(f"Expected a folder of pictures, got {path}: no folder.")
    names = sorted(_list_pictures(str(root)))
    if not names:
        raise UserError(
            f"Expected pictures below {path}, got none; looked in all folders for names"
            f" that end in {', '.join(EXTENSIONS)}."
        )
    rows = tf.constant(names)
    prefix = str(root).rstrip("/") + "/"
    return Source(
        np.array(names), lambda index: {"y": tf.io.read_file(prefix + rows[index])}
    )


def _list_pictures(root: str) -> list[str]:
    """Returns the paths below a folder that end like a picture's."""
    paths = []
    for parent, _, files in tf.io.gfile.walk(root):
        below = parent[len(root) :].strip("/")
        for file in files:
            # A leading dot is how some systems name what is not the picture itself.
            if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                paths.append(f"{below}/{file}" if below else file)
    return paths


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
                _first(sorted(extra)),
            )
    if not stems:
        raise UserError(
            "Expected pictures that have the same path in both folders, extensions"
            f" aside, got {len(x)} in {source_folder} ({_first(x_index)}) and {len(y)}"
            f" in {target_folder} ({_first(y_index)}), none of which match."
        )
    x = x.select([x_index[stem] for stem in stems])
    y = y.select([y_index[stem] for stem in stems])
    return Source(
        y.names, lambda index: {"x": x.read(index)["y"], "y": y.read(index)["y"]}
    )


def _by_stem(source: Source, path: str) -> dict[str, int]:
    """Returns the position of each picture by its path without extension."""
    stems = [name.rsplit(".", 1)[0] for name in source.names.tolist()]
    if len(set(stems)) < len(stems):
        twice = [
            stem for stem, count in collections.Counter(stems).items() if count > 1
        ]
        raise UserError(
            f"Expected one picture for each name in {path}, got several that differ"
            f" only in their extension: {_first(twice)}."
        )
    return {stem: index for index, stem in enumerate(stems)}


def restrict(source: Source, list_file: str) -> Source:
    """Returns the pictures that an `image_list` names, in the list's order."""
    lines = image_list.read(list_file).lines
    names = (source.file_names() if source.file_names else source.names).tolist()
    by_path = {name: index for index, name in enumerate(names)}
    by_file: dict[str, list[int]] = {}
    for name, index in by_path.items():
        by_file.setdefault(name.rsplit("/", 1)[-1], []).append(index)

    def find(line: str) -> int | None:
        # A file name may itself end in a space and a number.
        for path in image_list.candidates(line):
            if path in by_path:
                return by_path[path]
            namesakes = by_file.get(path.rsplit("/", 1)[-1], [])
            if len(namesakes) == 1:
                return namesakes[0]
        return None

    found = {line: find(line) for line in lines}
    missing = [line for line, index in found.items() if index is None]
    if missing:
        raise UserError(
            f"Expected pictures for all {len(lines)} names in {list_file}, got none, or"
            f" several of the same file name, for {len(missing)}: {_first(missing)}."
            f" The source has {_first(names)}."
        )
    chosen = list(dict.fromkeys(found.values()))  # A picture named twice counts once.
    subset = source.select([index for index in chosen if index is not None])
    return dataclasses.replace(
        subset, names=np.array([names[index] for index in chosen]), file_names=None
    )


def checksums(source: Source) -> dict[str, int]:
    """Returns a CRC-32 of the encoded files of each picture, which are all read."""
    rows = tf.data.Dataset.range(len(source)).map(source.read, tf.data.AUTOTUNE)
    sums = {}
    for name, files in zip(
        source.names.tolist(), rows.as_numpy_iterator(), strict=True
    ):
        sums[name] = 0
        for key in sorted(files):
            sums[name] = zlib.crc32(files[key], sums[name])
    return sums


def hold_out(source: Source, num_eval: int) -> tuple[Source, Source]:
    """Returns the sources to train on and to evaluate on, which share no picture.

    Which pictures are held out follows from a hash of their names alone. Pictures cut
    from the same photograph as one of them are left out of training too.
    """
    groups = source.names if source.groups is None else source.groups
    keys = [
        (zlib.crc32(group.encode()), zlib.crc32(name.encode()), name)
        for group, name in zip(groups.tolist(), source.names.tolist(), strict=True)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    held_out = set(groups[order[:num_eval]].tolist())
    train = [i for i, group in enumerate(groups.tolist()) if group not in held_out]
    if not 1 <= num_eval <= len(source) or not train:
        raise UserError(
            f"Expected to hold out at least 1 of {len(source)} pictures and to train on"
            f" others, got num_eval={num_eval}, which leaves {len(train)} to train on."
        )
    return source.select(train), source.select(sorted(order[:num_eval]))


def _first(names: Iterable[str]) -> str:
    """Returns up to five names, for a message."""
    names = list(names)
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
