"""The only walk over a folder of pictures, local or in a bucket."""

import collections
import functools
import os
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from etils import epath
from PIL import Image

from palette_jax.errors import UserError

# Folders of thumbnails that programs make beside pictures.
_NOT_PICTURES = {"@eadir", "__macosx", "lost+found"}


class Walk(NamedTuple):
    """The files below a folder.

    Attributes:
      names: of the pictures, as paths below the folder with slashes, sorted.
      skipped: of all other files, except hidden ones, and of folders that may not be
        read, with a slash at the end.
    """

    names: list[str]
    skipped: list[str]

    def summary(self) -> str:
        """Returns the number of skipped files by extension, as text."""
        if not self.skipped:
            return "there are no other files"
        counts = by_extension(self.skipped).items()
        listed = ", ".join(f"{count} {what}" for what, count in counts)
        return f"{len(self.skipped)} skipped by extension ({listed})"


def pillow_extensions() -> tuple[str, ...]:
    """Returns the file extensions that Pillow reads, in lower case."""
    known = Image.registered_extensions().items()
    # Pillow's reader of JPEG opens MPO, the files of phones with several pictures.
    readable = {*Image.OPEN, "MPO"}
    return tuple(sorted(end for end, name in known if name in readable))


def extension(name: str) -> str:
    """Returns the extension of a file name in lower case, such as `.jpg`, or empty."""
    return os.path.splitext(name)[1].lower()


def by_extension(names: Iterable[str]) -> dict[str, int]:
    """Returns the number of skipped files of each kind, the most frequent first."""
    return dict(collections.Counter(map(kind, names)).most_common())


def kind(name: str) -> str:
    """Returns the extension of a name of `Walk.skipped`, or what it is instead."""
    is_folder = name[-1:] == "/"
    return "folder without permission" if is_folder else extension(name) or "none"


def stem(name: str) -> str:
    """Returns a path without the extension of a picture; keeps other dots."""
    end = extension(name)
    return name[: -len(end)] if end in _extensions() else name


def key(name: str) -> str:
    """Returns a path for comparisons: its stem, with accents composed.

    macOS stores `é` as two characters, `e` and an accent.
    """
    return unicodedata.normalize("NFC", stem(name))


@functools.cache
def _extensions() -> frozenset[str]:
    return frozenset(pillow_extensions())


def walk(folder: epath.PathLike, extensions: Sequence[str]) -> Walk:
    """Lists the files below a folder, each real file once.

    Skips hidden files and folders, folders of thumbnails, pipes and devices. Follows
    links to folders, but lists each folder only once, also in loops.

    Raises:
      UserError: if the folder may not be read.
    """
    is_local = "://" not in str(folder)
    names = sorted(_local(str(folder)) if is_local else _remote(epath.Path(folder)))
    pictures = [name for name in names if extension(name) in extensions]
    chosen = set(pictures)
    return Walk(pictures, [name for name in names if name not in chosen])


def _local(root: str) -> Iterable[str]:
    """Yields files, first those of real folders, then those of linked folders."""
    seen_folders, seen_files = set(), set()
    folders, links = collections.deque([""]), collections.deque()
    linked_files: list[str] = []
    while folders or links:
        below = folders.popleft() if folders else links.popleft()
        real = os.path.realpath(os.path.join(root, below))
        if real in seen_folders:
            continue
        seen_folders.add(real)
        try:
            with os.scandir(os.path.join(root, below) or ".") as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except PermissionError as error:
            if not below:
                raise UserError(
                    f"expected a folder that can be read, got {root}: no permission;"
                    " change its permissions"
                ) from error
            yield f"{below}/"
            continue
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if _is_hidden(entry.name) or is_special(entry.path):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(name)
            elif entry.is_symlink():
                linked_files.append(name)
            else:
                seen_files.add(os.path.realpath(entry.path))
                yield name
    for name in sorted(linked_files):
        real = os.path.realpath(os.path.join(root, name))
        if real not in seen_files:
            seen_files.add(real)
            yield name


def _remote(root: epath.Path, below: str = "") -> Iterable[str]:
    for path in (root / below if below else root).iterdir():
        name = f"{below}/{path.name}" if below else path.name
        if _is_hidden(path.name):
            continue
        if path.is_dir():
            yield from _remote(root, name)
        else:
            yield name


def is_special(path: str | os.PathLike) -> bool:
    """Returns whether a path is a pipe, a socket or a device; reading it may hang."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NOT_PICTURES
