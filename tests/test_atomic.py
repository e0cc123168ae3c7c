"""A file under its own name is the old one or the new one, whatever happens."""

import pathlib

import pytest

from palette_jax import atomic


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")
    with atomic.writing(path) as first, atomic.writing(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert path.read_text() == "old"
    assert path.read_text() == "first"  # The last to finish.
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic.writing(path) as part:
        part.write_text("hal")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
