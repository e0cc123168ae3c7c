"""One walk for all: each real picture once, hidden ones never."""

import os
import pathlib

import pytest
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.pictures import files
from palette_jax.pictures.walk import pillow_extensions, walk

ENDINGS = (".jpg", ".png")


def _touch(root: pathlib.Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_links_are_followed_and_loops_are_not(tmp_path: pathlib.Path) -> None:
    root, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    _touch(root, "b/1.png", "a.jpg")
    _touch(elsewhere, "2.png")
    (root / "loop").symlink_to(".")
    (root / "b" / "up").symlink_to("..")
    (root / "class").symlink_to(elsewhere)
    (root / "again").symlink_to(elsewhere)
    (root / "a_link.jpg").symlink_to("a.jpg")
    (root / "other.jpg").symlink_to(elsewhere / "2.png")
    names = walk(root, ENDINGS).names
    assert names == ["a.jpg", "again/2.png", "b/1.png"]


def test_hidden_files_and_thumbnails_are_no_pictures(tmp_path: pathlib.Path) -> None:
    _touch(tmp_path, "a.JPG", ".b.jpg", ".thumbnails/c.jpg", "@eaDir/d.jpg")
    _touch(tmp_path, "x/.ipynb_checkpoints/e.png", "x/f.png", "__MACOSX/g.jpg")
    found = walk(tmp_path, ENDINGS)
    assert found.names == ["a.JPG", "x/f.png"] and found.skipped == []


def test_skipped_files_are_counted_by_extension(tmp_path: pathlib.Path) -> None:
    _touch(tmp_path, "a.heic", "b.HEIC", "c.cr2", "noending", "d.png")
    (tmp_path / "dangling.tif").symlink_to("nowhere.tif")
    found = walk(tmp_path, ENDINGS)
    assert found.names == ["d.png"]
    assert found.summary() == "5 skipped by extension (2 .heic, 1 .cr2, 1 .tif, 1 none)"


def test_a_folder_may_be_the_present_one(tmp_path: pathlib.Path, monkeypatch) -> None:
    _touch(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    assert walk(".", ENDINGS).names == walk(os.fspath(tmp_path), ENDINGS).names


def test_pipes_are_not_read(tmp_path: pathlib.Path) -> None:
    _touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("b.png")
    (tmp_path / "d.png").symlink_to("/dev/zero")
    assert walk(tmp_path, ENDINGS) == (["a.png"], [])
    with pytest.raises(files.PictureError, match="got a pipe or a device"):
        files.read(tmp_path / "c.png")


def test_pictures_of_phones_have_their_own_extension(tmp_path: pathlib.Path) -> None:
    views = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    views[0].save(tmp_path / "a.mpo", save_all=True, append_images=views[1:])
    assert walk(tmp_path, pillow_extensions()).names == ["a.mpo"]
    assert files.read(tmp_path / "a.mpo").pixels[0, 0, 0] > 250


def test_a_folder_without_permission_does_not_stop_the_others(
    tmp_path: pathlib.Path, monkeypatch
) -> None:
    _touch(tmp_path, "private/a.png", "b.png", "c/d.png")
    scandir = os.scandir

    def scan(path: str):  # Root, who may run the tests, may read everything.
        if str(path).rstrip("/").endswith("private"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    found = walk(tmp_path, ENDINGS)
    assert found == (["b.png", "c/d.png"], ["private/"])
    assert found.summary() == "1 skipped by extension (1 folder without permission)"
    with pytest.raises(UserError, match=r"got .*private: no perm"):
        walk(tmp_path / "private", ENDINGS)
