"""The one way to write a file: never half written under its own name."""

import contextlib
import os
import secrets
from collections.abc import Iterator

from etils import epath


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[epath.Path]:
    """Yields a new path in the same folder, whose file then takes the place of `path`.

    Two processes may write the same file: each has a path of its own, and the last one
    to finish wins. If the block raises, nothing is left.

    Args:
      path: local, or in a bucket, where a write is whole by itself.
    """
    path = epath.Path(path)
    if "://" in str(path):
        yield path
        return
    # Short, since the longest file names leave no room for more.
    part = path.parent / f".{secrets.token_hex(6)}.part"
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Writes a file, which is whole or not there."""
    with writing(path) as part:
        part.write_bytes(data)


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a text in UTF-8, which is whole or not there."""
    write_bytes(path, text.encode("utf8"))
