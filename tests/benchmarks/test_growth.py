"""The folders of the table are what it says they are, and a row tells its process."""

import pathlib

import pytest

from benchmarks import growth
from palette_jax.pictures import walk


def test_a_folder_of_many_names_has_few_files_and_all_are_listed(
    tmp_path: pathlib.Path,
) -> None:
    folder = tmp_path / "photos"
    growth.make_folder(folder, 150, width=40, height=30)
    assert len(walk.walk(folder, (".jpg",)).names) == 150
    assert len({path.stat().st_ino for path in folder.iterdir()}) == 64


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cores", "evaluate"])
def test_a_row_is_of_a_process_of_its_own(name: str, tmp_path: pathlib.Path) -> None:
    count = 1 if name == "cores" else 4
    row = growth.measure(name, count, str(tmp_path))
    assert row["work"] == count and row["s"] > 0 and row["a second"] > 0
    assert 0 < row["CPU-ms each"] / 1e3 < row["CPU-s of the process"]
    assert 50 < row["peak MiB"] < 5000
    growth.write_charts(tmp_path / "growth.html", [row])
    assert (tmp_path / "growth.html").read_text().count("<svg") == 2
