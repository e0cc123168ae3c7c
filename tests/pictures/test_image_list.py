"""Lists that papers compare on are known by their names."""

import pathlib

import pytest

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
