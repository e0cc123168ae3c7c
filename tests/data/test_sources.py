"""Tests that sources find the pictures, by stable names, and read the right ones."""

import io
import shutil
import zlib

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image

from palette_jax.config import build_data
from palette_jax.configs import inpaint
from palette_jax.data import images, sources
from palette_jax.errors import UserError


def decode(source: sources.Source, index: int, key: str = "y") -> np.ndarray:
    return images.decode(source.read(tf.constant(index, tf.int64))[key]).numpy()


def test_sample_photos_are_tiles_of_seven_photographs():
    source = sources.sample_photos()
    assert set(source.groups) == {
        "astronaut",
        "chelsea",
        "china",
        "coffee",
        "flower",
        "motorcycle_left",
        "rocket",
    }
    assert len(source) >= 150 and len(set(source.names)) == len(source)
    for index in (0, 70, len(source) - 1):
        assert decode(source, index).shape == (224, 224, 3)
    # Neighbours overlap.
    first, second = (list(source.names).index(f"chelsea/0_{i}") for i in (0, 1))
    left, right = decode(source, first), decode(source, second)
    shifts = [s for s in range(1, 224) if np.array_equal(left[:, s:], right[:, :-s])]
    assert len(shifts) == 1 and 56 <= shifts[0] <= 90


def test_a_folder_has_all_pictures_of_all_depths_in_order(tmp_path, make_photo):
    names = ["b.JPG", "a/z.png", "a/b/c.Webp", "d e/f.bmp", "g.gif", "a.jpeg"]
    for i, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make_photo(i).save(path)
    for name in ("notes.txt", "._b.jpg", "jpg", "a/list.csv"):
        (tmp_path / name).write_text("no picture")
    for path in (str(tmp_path), f"{tmp_path}/"):
        source = sources.folder(path)
        assert source.names.tolist() == sorted(names)
        for i, name in enumerate(source.names):
            expected = Image.open(tmp_path / name).convert("RGB")
            np.testing.assert_array_equal(decode(source, i), expected)


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        sources.folder(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=rf"{tmp_path.name}.*\.jpg, \.jpeg"):
        sources.folder(str(tmp_path))


def test_a_selection_reads_what_it_names(photos):
    source = sources.folder(str(photos))
    selected = source.select([5, 1, 9]).select([2, 0])
    assert selected.names.tolist() == source.names[[9, 5]].tolist()
    np.testing.assert_array_equal(decode(selected, 0), decode(source, 9))
    np.testing.assert_array_equal(decode(selected, 1), decode(source, 5))
    sizes = [(photos / name).stat().st_size for name in selected.names]
    assert selected.sizes().tolist() == sizes


def test_the_identity_of_pictures_is_of_all_names_and_sizes(photos, tmp_path):
    def identity() -> dict:
        return sources.folder(str(tmp_path / "p")).identity()

    shutil.copytree(photos, tmp_path / "p")
    first, last = identity(), tmp_path / "p/class 2/20.png"
    last.write_bytes(last.read_bytes() + b" ")
    larger = identity()
    assert {key for key in first if larger[key] != first[key]} == {"sizes"}
    last.rename(last.with_stem("20b"))
    assert {key for key in first if identity()[key] != larger[key]} == {"names"}


def make_pair(tmp_path, make_photo, x_names, y_names) -> tuple[str, str]:
    for side, names in (("x", x_names), ("y", y_names)):
        for name in names:
            path = tmp_path / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            make_photo(sum(map(ord, side + name))).save(path)
    return str(tmp_path / "x"), str(tmp_path / "y")


def test_pairs_are_matched_by_path_whatever_the_extension(tmp_path, make_photo, caplog):
    logging.use_python_logging(quiet=True)
    x, y = make_pair(
        tmp_path,
        make_photo,
        ["a/1.png", "a/2.png", "b/1.png", "alone.png"],
        ["b/1.bmp", "a/1.png", "a/2.webp", "other.png"],
    )
    source = sources.paired(x, y)
    assert source.names.tolist() == ["a/1.png", "a/2.webp", "b/1.bmp"]
    for index, stem in enumerate(["a/1", "a/2", "b/1"]):
        expected = Image.open(tmp_path / "x" / f"{stem}.png")
        np.testing.assert_array_equal(decode(source, index, "x"), expected)
    expected = Image.open(tmp_path / "y" / "b/1.bmp")
    np.testing.assert_array_equal(decode(source, 2, "y"), expected)
    assert "alone" in caplog.text and "other" in caplog.text
    both = b"".join((tmp_path / side / "a/1.png").read_bytes() for side in "xy")
    assert sources.checksums(source)["a/1.png"] == zlib.crc32(both)


def test_pairs_that_do_not_match_are_named(tmp_path, make_photo):
    x, y = make_pair(tmp_path, make_photo, ["1.png", "2.png"], ["01.png"])
    with pytest.raises(ValueError, match=r"2 in .*\(1, 2\) and 1 in .*\(01\)"):
        sources.paired(x, y)
    x, y = make_pair(tmp_path, make_photo, ["01.bmp", "01.png"], [])
    with pytest.raises(ValueError, match=r"01\.bmp and 01\.png"):
        sources.paired(x, y)


def write_list(tmp_path, text: str) -> str:
    path = tmp_path / "list.txt"
    path.write_text(text)
    return str(path)


def test_an_image_list_restricts_and_orders(photos, tmp_path):
    source = sources.folder(str(photos))
    lines = "# two\n\nclass 2/05.png\n  00.png \r\n/class 1/04.png 63\n05.png 7\n"
    restricted = sources.restrict(source, write_list(tmp_path, lines))
    names = ["class 2/05.png", "class 0/00.png", "class 1/04.png"]
    assert restricted.names.tolist() == names
    expected = Image.open(photos / "class 1/04.png")
    np.testing.assert_array_equal(decode(restricted, 2), expected)


def test_names_that_are_not_there_or_not_unique_are_counted(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "p")
    shutil.copy(tmp_path / "p/class 0/00.png", tmp_path / "p/class 1/00.png")
    source = sources.folder(str(tmp_path / "p"))
    lines = "01.png\n00.png\n" + "\n".join(f"no {i}.png" for i in range(9))
    with pytest.raises(ValueError, match=r"'00\.png', got class 0/00\.png, class 1"):
        sources.restrict(source, write_list(tmp_path, lines))
    lines = lines.replace("00.png\n", "")
    with pytest.raises(ValueError, match=r"for 9: no 0\.png, no 1.* and 4 more"):
        sources.restrict(source, write_list(tmp_path, lines))
    with pytest.raises(ValueError, match="got none"):
        sources.restrict(source, write_list(tmp_path, "# nothing\n"))


def test_a_name_may_end_in_a_number(tmp_path):
    names = np.array(["a 1", "a", "b.JPEG"])
    source = sources.Source(names, lambda index: {"y": tf.as_string(index)})
    lines = write_list(tmp_path, "/b.JPEG 5\na 1\na 2")
    assert sources.restrict(source, lines).names.tolist() == ["b.JPEG", "a 1", "a"]


def test_the_list_of_the_colorization_split_is_read(reference_data):
    path = reference_data / "lists" / "ctest10k.txt"
    files = [line.split()[0].strip("/") for line in path.read_text().splitlines()]
    read = lambda index: {"y": tf.as_string(index)}  # noqa: E731
    by_path = sources.Source(np.array([*files[::-1], "n0/other.JPEG"]), read)
    assert sources.restrict(by_path, str(path)).names.tolist() == files
    by_file = sources.Source(np.array([f.split("/")[1] for f in files[::-1]]), read)
    restricted = sources.restrict(by_file, str(path))
    assert restricted.read(tf.constant(0, tf.int64))["y"] == b"9999"


def test_what_is_held_out_is_not_trained_on_and_depends_on_names_only(photos):
    source = sources.folder(str(photos))
    train, held_out = sources.hold_out(source, 5)
    assert len(held_out) == 5
    assert sorted([*train.names, *held_out.names]) == source.names.tolist()
    shuffled = source.select(np.random.default_rng(0).permutation(len(source)))
    assert set(sources.hold_out(shuffled, 5)[1].names) == set(held_out.names)
    assert set(held_out.names) < set(sources.hold_out(source, 6)[1].names)
    # With the bound of a run, a held-out picture that is gone moves no other over.
    bound = sources.held_out_below(source, 5)
    fewer = source.select(np.flatnonzero(source.names != held_out.names[0]))
    found = sources.hold_out(fewer, 5, below=bound)
    assert [len(part) for part in found] == [18, 4]
    assert set(found[0].names) == set(train.names)
    # A picture that is gone moves at most one other over.
    fewer = source.select(np.flatnonzero(source.names != train.names[0]))
    assert set(sources.hold_out(fewer, 5)[1].names) == set(held_out.names)


@pytest.mark.parametrize("num_eval", [1, 8, 100])
def test_whole_photographs_are_held_out(num_eval):
    source = sources.sample_photos()
    train, held_out = sources.hold_out(source, num_eval)
    assert len(held_out) == num_eval and len(train) > 0
    assert not set(train.groups) & set(held_out.groups)
    shuffled = source.select(np.random.default_rng(0).permutation(len(source)))
    assert set(sources.hold_out(shuffled, num_eval)[1].names) == set(held_out.names)


@pytest.mark.parametrize("num_eval", [0, 23, 24, 180])
def test_holding_out_nothing_or_everything_is_refused(photos, num_eval):
    with pytest.raises(ValueError, match=f"num_eval={num_eval}"):
        sources.hold_out(sources.folder(str(photos)), num_eval)


def test_a_tile_is_a_png_file():
    file = sources.sample_photos().read(tf.constant(3, tf.int64))["y"].numpy()
    assert Image.open(io.BytesIO(file)).format == "PNG"


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_a_second_source_has_the_share_of_the_examples_that_it_is_given(
    tmp_path, make_photo, weight
):
    for name, count in (("photos", 3), ("places", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            make_photo(i).save(tmp_path / name / f"{name}{i}.png")
    config = inpaint.get_config("tiny")
    config.data.update(
        source="folder",
        folder=str(tmp_path / "photos"),
        eval_folder=str(tmp_path / "photos"),
        extra_folder=str(tmp_path / "places"),
        extra_weight=weight,
    )
    found = [(len(s), share) for s, share in build_data._train_sources(config)]
    assert found == [(3, 1 - weight), (2, weight)]
