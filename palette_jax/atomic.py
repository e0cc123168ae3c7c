"""Atomic writing of files, used everywhere in the package."""

import contextlib
import os
import secrets
from collections.abc import Iterator

from etils import epath


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[epath.Path]:
    """Yields a new path in the same folder, whose file then replaces `path`.

    Creates the folder.

    Two processes may write the same file: each has its own path, and the last one to
    finish wins. If the block raises, no file remains.

    Args:
      path: local, or in a bucket, where every write is atomic.
    """
    path = epath.Path(path)
    if "://" in str(path):
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short, since the longest file names leave no room for more.
    part = path.parent / f".{secrets.token_hex(6)}.part"
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Writes a file atomically."""
    with writing(path) as part:
        part.write_bytes(data)


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a text in UTF-8 atomically."""
    write_bytes(path, text.encode("utf8"))
