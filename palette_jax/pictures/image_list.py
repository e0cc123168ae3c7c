"""Lists of pictures for evaluation: ctest10k, places10k, or the user's own."""

import collections
import dataclasses
import functools
import hashlib
import re

from etils import epath

from palette_jax.errors import UserError
from palette_jax.pictures import walk

_LABEL = re.compile(r"\s+(\d+)$")
# Of the sorted file names of ctest10k (Larsson et al. 2016).
_CTEST10K = "1432ea606a518001"
_VAL5K = [f"ILSVRC2012_val_{number:08}" for number in range(1, 5001)]
_PLACES_CLASSES, _PLACES_OF_EACH = 365, 30


@dataclasses.dataclass(frozen=True)
class ImageList:
    """Names of pictures and their classes.

    A line is a path, or a unique file name. It may start with a slash and end in a
    space and an integer label, as in the lists of ImageNet. Empty lines and lines that
    start with '#' are skipped.

    Attributes:
      lines: without slash, with their labels.
      labels: the class by path, for lines with a label.
    """

    path: str
    lines: list[str]
    labels: dict[str, int]

    def label(self, name: str) -> int:
        """Returns the class of a picture, by its path or file name; -1 for none.

        The name may lack its extension.
        """
        stem = walk.key(name)
        file = stem.rsplit("/", 1)[-1]
        return self._by_stem.get(stem, self._by_stem.get(f"*/{file}", -1))

    @functools.cached_property
    def _by_stem(self) -> dict[str, int]:
        stems = {walk.key(path): label for path, label in self.labels.items()}
        files = {f"*/{stem.rsplit('/', 1)[-1]}": v for stem, v in stems.items()}
        return files | stems

    @property
    def protocol(self) -> str:
        """The established name of the list: ctest10k, places10k, val5k, or empty.

        val5k has the first 5,000 pictures of ImageNet's validation set. The paper does
        not publish the names of places10k, 30 pictures in each of 365 classes, so that
        list is recognized by its file name and its counts.
        """
        names = sorted(_without_label(line).rsplit("/", 1)[-1] for line in self.lines)
        if hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] == _CTEST10K:
            return "ctest10k"
        if [name.split(".")[0] for name in names] == _VAL5K:
            return "val5k"
        counts = collections.Counter(self.labels.values())
        is_even = set(counts.values()) == {_PLACES_OF_EACH}
        is_named = epath.Path(self.path).stem == "places10k"
        if is_named and is_even and len(counts) == _PLACES_CLASSES:
            return "places10k"
        return ""


def read(path: epath.PathLike) -> ImageList:
    """Reads a list.

    Raises:
      UserError: if the file does not exist, is empty, or has two labels for a name.
    """
    try:
        # Windows' editors begin a file with a mark.
        text = epath.Path(path).read_text().removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list of pictures {path}: {error}") from error
    lines = [line.strip().lstrip("/") for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise UserError(f"expected names of pictures in {path}, got none")
    matches = {line: _LABEL.search(line) for line in lines}
    labels: dict[str, int] = {}
    for line, found in matches.items():
        name = _without_label(line)
        label = int(found[1]) if found else None
        # Without an extension, `photo 1` and `photo 2` may be names.
        is_name = walk.stem(name) != name
        if label is None:
            continue
        if is_name and labels.get(name, label) != label:
            raise UserError(
                f"expected one label for {name} in {path}, got {labels[name]} and"
                f" {label}; remove one of the lines"
            )
        labels[name] = label
    return ImageList(str(path), lines, labels)


def candidates(line: str) -> tuple[str, str]:
    """Returns the names that a line may mean: the line, then without its label."""
    return line, _without_label(line)


def _without_label(line: str) -> str:
    return _LABEL.sub("", line)
