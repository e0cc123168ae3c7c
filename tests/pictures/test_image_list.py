"""Lists that papers compare on are known by their names."""

import pathlib

import pytest

from palette_jax.errors import UserError
from palette_jax.pictures import image_list


@pytest.mark.parametrize("count", [4999, 5000])
def test_the_first_5000_of_imagenets_validation_set_are_val5k(
    tmp_path: pathlib.Path, count: int
) -> None:
    names = [
        f"n0{i % 7}/ILSVRC2012_val_{i:08}.JPEG {i % 1000}" for i in range(1, count + 1)
    ]
    (tmp_path / "mine.txt").write_text("\n".join(reversed(names)))
    found = image_list.read(tmp_path / "mine.txt")
    assert found.protocol == ("val5k" if count == 5000 else "")


def test_ctest10k_is_known(reference_data: pathlib.Path) -> None:
    found = image_list.read(reference_data / "lists" / "ctest10k.txt")
    assert found.protocol == "ctest10k" and len(found.labels) == 10_000


def test_a_list_of_windows_is_read(tmp_path: pathlib.Path) -> None:
    text = "\ufeff# mine\r\na.png 3\r\na.png 3\r\n\r\nphoto 1\r\nphoto 2\r\n"
    (tmp_path / "list.txt").write_bytes(text.encode())
    found = image_list.read(tmp_path / "list.txt")
    assert found.lines == ["a.png 3", "a.png 3", "photo 1", "photo 2"]
    assert found.label("a.png") == 3


def test_two_labels_of_a_picture_are_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "list.txt").write_text("a.png 3\nb.png 3\na.png 4\n")
    with pytest.raises(UserError, match=r"one label for a\.png .* got 3 and 4"):
        image_list.read(tmp_path / "list.txt")
