"""Tests of the order, the randomness and the gaps of batches."""

import dataclasses
import functools
import shutil
import zlib
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from palette_jax.data import pipeline, sources, tasks
from palette_jax.errors import UserError

OPTIONS = {"image_size": 32, "batch_size": 4, "seed": 1}
TASK = functools.partial(
    tasks.multitask,
    tasks=[tasks.inpaint, tasks.jpeg, tasks.uncrop],
    weights=[1.0, 1.0, 1.0],
)


@pytest.fixture(scope="module")
def source(photos) -> sources.Source:
    return sources.folder(str(photos))


@pytest.fixture(scope="module")
def plain() -> Callable[..., sources.Source]:
    """A source whose picture number i is gray of level i."""

    def make(count: int, first: int = 0) -> sources.Source:
        def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
            level = tf.cast(first + index, tf.uint8)
            return {"y": tf.io.encode_png(tf.fill([32, 32, 3], level))}

        return sources.Source(
            np.array([f"{first + i}.png" for i in range(count)]), read
        )

    return make


def train(source, count: int, start: int = 0, **options) -> list[pipeline.Batch]:
    sourced = source if isinstance(source, list) else [(source, 1.0)]
    options = {**OPTIONS, **options}
    task = options.pop("task", TASK)
    batches = pipeline.train_batches(sourced, task, start_step=start, **options)
    return list(islice(batches, count))


def levels(batches: list[pipeline.Batch]) -> list[int]:
    return [int(y[0, 0, 0]) for batch in batches for y in batch["y"]]


def assert_same(some: list[pipeline.Batch], others: list[pipeline.Batch]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def join(hosts: list[list[pipeline.Batch]]) -> list[pipeline.Batch]:
    return [
        {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        for batches in zip(*hosts, strict=True)
    ]


def test_starting_at_a_step_gives_what_skipping_gives(source):
    batches = train(source, 9)
    assert_same(train(source, 4, start=5), batches[5:])
    assert len({batch["x"].tobytes() for batch in batches}) == 9


def test_a_step_in_the_far_future_is_as_near_as_any(plain):
    step = 10**12
    assert_same(
        train(plain(30), 2, start=step)[1:], train(plain(30), 1, start=step + 1)
    )


def test_two_hosts_together_get_the_batches_of_one(source):
    whole = train(source, 5)
    halves = [train(source, 5, host_index=i, host_count=2) for i in range(2)]
    assert halves[0][0]["x"].shape[0] == 2
    assert_same(join(halves), whole)


def test_two_hosts_start_again_at_the_step_of_one(plain):
    options = {"task": tasks.colorize, "start": 5}
    halves = [
        train(plain(30), 3, **options, host_index=i, host_count=2) for i in (0, 1)
    ]
    assert_same(join(halves), train(plain(30), 3, **options))


def test_another_seed_gives_other_batches(source):
    first, second = train(source, 2), train(source, 2, seed=2)
    assert not np.array_equal(first[0]["y"], second[0]["y"])


@pytest.mark.parametrize("count", [1, 2, 3, 23, 64])
def test_an_epoch_is_a_permutation(plain, count):
    batches = train(plain(count), 5 * count, batch_size=1)
    epochs = np.reshape(levels(batches), [5, count])
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(count), [5, 1]))
    if count > 20:
        assert len({tuple(epoch) for epoch in epochs}) == 5


def test_places_in_the_order_are_fair(plain):
    # Of 400 epochs of ten pictures, each should open about 40.
    firsts = levels(train(plain(10), 400, batch_size=10, task=tasks.colorize))[::10]
    assert abs(np.bincount(firsts, minlength=10) - 40).max() < 4 * 6


def test_sources_are_mixed_by_weight(plain):
    several = [(plain(20), 3.0), (plain(50, first=100), 1.0)]
    drawn = np.array(levels(train(several, 40, batch_size=60)))
    assert abs((drawn < 100).sum() - 1800) < 4 * 21
    counts = np.bincount(drawn, minlength=150)
    # Expected are 90 and 12 of each; a Poisson number around 12 is rarely 0.
    assert counts[:20].min() > 50 and counts[100:].min() > 0
    halves = [train(several, 3, host_index=i, host_count=2) for i in range(2)]
    assert_same(join(halves), train(several, 3))


def test_what_is_drawn_for_one_thing_says_nothing_of_another():
    """Of one seed for two, one source would have the small windows alone."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None], (64, 64))

    def of(level: int) -> sources.Source:
        # Says in each pixel what source and column it is from.
        pixels = np.stack([np.full((64, 64), level), ramp.T, ramp], -1)
        file = tf.io.encode_png(tf.constant(pixels, tf.uint8))
        return sources.Source(np.array(["one.png"]), lambda index: {"y": file})

    def task(seed, picture):
        return {**picture, "x": tf.random.stateless_uniform([], seed)}

    options = {"image_size": 8, "batch_size": 400, "min_scale": 0.25, "task": task}
    (batch,) = train([(of(0), 1.0), (of(255), 1.0)], 1, **options)
    y = batch["y"].astype(float)
    width = y[:, 0, -1, 1] - y[:, 0, 0, 1]
    drawn = [y[:, 0, 0, 0], np.abs(width), np.sign(width), batch["x"]]
    correlation = np.corrcoef(drawn) - np.eye(len(drawn))
    assert abs(correlation).max() < 0.2  # Four deviations.


def test_epochs_of_several_sources_have_orders_of_their_own(plain):
    several = [(plain(40), 1.0), (plain(40, first=100), 1.0)]
    drawn = np.reshape(levels(train(several, 3, batch_size=40)), [3, 40])
    orders = [
        {place: int(level) % 100 for place, level in enumerate(epoch) if of(level)}
        for epoch in drawn
        for of in (lambda level: level < 100, lambda level: level >= 100)
    ]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            both = one.keys() & other.keys()
            assert sum(one[n] == other[n] for n in both) <= 4 or len(both) < 5


def test_x_and_y_of_a_pair_keep_together(tmp_path, make_photo):
    for i in range(4):
        photo = make_photo(i, 70, 90)
        for name, size in (("x", (90, 70)), ("y", (90, 70) if i % 2 else (180, 140))):
            (tmp_path / name).mkdir(exist_ok=True)
            photo.resize(size, Image.Resampling.BICUBIC).save(
                tmp_path / name / f"{i}.png"
            )
    pairs = sources.paired(str(tmp_path / "x"), str(tmp_path / "y"))
    for batch in train(pairs, 5, task=tasks.paired, min_scale=0.5):
        for x, y in zip(batch["x"].astype(int), batch["y"].astype(int), strict=True):
            assert abs(x - y).mean() < 6 < abs(x[:, ::-1] - y).mean()


def test_pairs_of_two_shapes_are_broken(tmp_path, make_photo):
    for i, x_width in enumerate((50, 51, 52, 50)):  # One pixel more is rounding.
        for name in ("x", "y"):
            (tmp_path / name).mkdir(exist_ok=True)
            width = x_width if name == "x" else 50
            make_photo(i, 50, width).save(tmp_path / name / f"{i}.png")
    pairs = sources.paired(str(tmp_path / "x"), str(tmp_path / "y"))
    batches = pipeline.eval_batches(pairs, tasks.paired, **OPTIONS)
    (batch,) = batches
    assert batch["valid"].tolist() == [True, True, False, True]
    assert batches.broken == {"2.png": "a pair of two shapes: 52 x 50 and 50 x 50"}


@pytest.fixture(scope="module")
def broken(photos, tmp_path_factory, make_photo) -> sources.Source:
    """The photos and three files that are none."""
    root = tmp_path_factory.mktemp("broken") / "photos"
    shutil.copytree(photos, root)
    make_photo().save(root / "whole.jpg")
    file = (root / "whole.jpg").read_bytes()
    (root / "whole.jpg").unlink()
    (root / "class 0/cut.jpg").write_bytes(file[: len(file) // 2])
    (root / "class 1/text.jpg").write_text("this is a text")
    make_photo(0, 10, 10).save(root / "class 2/tiny.png")
    return sources.folder(str(root))


def test_broken_pictures_are_replaced_and_named(broken):
    batches = pipeline.train_batches(
        [(broken, 1.0)], TASK, **OPTIONS, max_broken_share=0.2
    )
    epoch = list(islice(batches, 7))
    assert all(batch["y"].any((1, 2, 3)).all() for batch in epoch)
    assert batches.broken.keys() == {
        "class 0/cut.jpg",
        "class 1/text.jpg",
        "class 2/tiny.png",
    }
    assert batches.broken["class 2/tiny.png"] == "too small: 10 x 10, need 32"
    assert batches.broken["class 0/cut.jpg"].startswith("cannot be decoded")
    assert "expected a JPEG" in batches.broken["class 1/text.jpg"]


def test_broken_pictures_move_no_other_example(photos, tmp_path):
    def epoch() -> list[pipeline.Batch]:
        options = {**OPTIONS, "batch_size": 1}
        source = sources.folder(str(tmp_path / "p"))
        batches = pipeline.train_batches([(source, 1.0)], TASK, **options)
        return list(islice(batches, 23))

    shutil.copytree(photos, tmp_path / "p")
    whole = epoch()
    (tmp_path / "p/class 0/03.png").write_bytes(b"")
    damaged = epoch()
    differ = [
        not np.array_equal(one["x"], other["x"])
        for one, other in zip(whole, damaged, strict=True)
    ]
    assert sum(differ) == 1
    place = differ.index(True)
    # The next picture of the epoch stands in.
    assert_same(
        damaged[:place] + damaged[place + 1 :], whole[:place] + whole[place + 1 :]
    )
    assert_same(epoch(), damaged)


def test_a_broken_picture_is_replaced_at_the_end_of_an_epoch_too(plain):
    whole = plain(3)

    def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
        file = tf.where(index == 1, tf.constant(b""), whole.read(index)["y"])
        return {"y": file}

    torn = dataclasses.replace(whole, read=read)
    drawn = levels(train(torn, 20, batch_size=3, task=tasks.colorize))
    # The order of each epoch is another one, so the broken one is also the last.
    assert {*drawn} == {0, 2}


def test_a_read_that_fails_once_changes_nothing_and_breaks_no_picture(source):
    failed = set()

    def read_later(index: tf.Tensor) -> tf.Tensor:
        if int(index) % 3 == 0 and int(index) not in failed:
            failed.add(int(index))
            raise OSError("503: the store does not answer")
        return index

    def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
        index = tf.py_function(read_later, [index], tf.int64)
        return source.read(tf.ensure_shape(index, []))

    shaky = dataclasses.replace(source, read=read)
    batches = pipeline.train_batches([(shaky, 1.0)], TASK, **OPTIONS)
    steady = pipeline.train_batches([(source, 1.0)], TASK, **OPTIONS)
    assert_same(list(islice(batches, 6)), list(islice(steady, 6)))
    assert failed and not batches.broken


def test_too_many_broken_pictures_stop_training(broken):
    batches = pipeline.train_batches([(broken, 1.0)], TASK, **OPTIONS)
    with pytest.raises(UserError, match=r"at most 1 .* of 26 .*got 2"):
        list(islice(batches, 20))


def test_a_source_without_a_good_picture_stops_at_once(tmp_path):
    for i in range(300):
        (tmp_path / f"{i}.png").write_bytes(b"")
    source = sources.folder(str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be decoded|cannot be"):
        train(source, 1, max_broken_share=0.9)
    with pytest.raises(UserError):
        list(pipeline.eval_batches(source, TASK, **OPTIONS))


def test_evaluation_visits_all_pictures_once_in_order(source):
    batches = list(pipeline.eval_batches(source, TASK, **OPTIONS))
    names = np.concatenate([batch["name"] for batch in batches])
    valid = np.concatenate([batch["valid"] for batch in batches])
    ids = np.concatenate([batch["id"] for batch in batches])
    assert len(batches) == 6 and {len(batch["x"]) for batch in batches} == {4}
    assert names[valid].tolist() == source.names.tolist()
    assert ids.dtype == np.uint32
    assert ids[valid].tolist() == [zlib.crc32(name.encode()) for name in names[valid]]


def by_name(batches) -> dict[str, tuple[bytes, bytes]]:
    return {
        name: (batch["x"][i].tobytes(), batch["y"][i].tobytes())
        for batch in batches
        for i, name in enumerate(batch["name"])
        if batch["valid"][i]
    }


def test_evaluation_does_not_depend_on_batches_neighbours_or_hosts(source):
    whole = by_name(pipeline.eval_batches(source, TASK, **OPTIONS))
    alone = source.select(np.arange(len(source))[::-3])
    options = {**OPTIONS, "batch_size": 6}
    for name, example in by_name(pipeline.eval_batches(alone, TASK, **options)).items():
        assert example == whole[name]
    hosts = [
        list(pipeline.eval_batches(source, TASK, **options, host_index=i, host_count=3))
        for i in range(3)
    ]
    assert {len(batches) for batches in hosts} == {4}
    assert by_name(join(hosts)) == whole
    other_seed = {**OPTIONS, "seed": 2}
    assert by_name(pipeline.eval_batches(source, TASK, **other_seed)) != whole


def test_evaluation_leaves_broken_pictures_out(broken, source):
    options = {**OPTIONS, "max_broken_share": 0.2}
    batches = pipeline.eval_batches(broken, TASK, **options)
    whole = by_name(pipeline.eval_batches(source, TASK, **OPTIONS))
    assert by_name(batches) == whole
    assert len(batches.broken) == 3
    with pytest.raises(UserError):
        list(pipeline.eval_batches(broken, TASK, **OPTIONS))
