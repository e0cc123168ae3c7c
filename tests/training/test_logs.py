"""What a run says: the line of progress, the curves, and when it has diverged."""

import itertools
import logging
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from palette_jax.training import logs, pace, step

LEVELS = step.NUM_LEVELS


def _metrics(
    loss: float = 0.5,
    *,
    level_loss: np.ndarray | None = None,
    level_count: np.ndarray | None = None,
    bad_steps: int = 0,
) -> step.Metrics:
    ones = np.ones(LEVELS, np.float32)
    return step.Metrics(
        np.float32(loss),
        np.float32(2 * loss),
        ones if level_loss is None else np.asarray(level_loss, np.float32),
        ones if level_count is None else np.asarray(level_count, np.float32),
        np.int32(bad_steps),
    )


def _log(folder: pathlib.Path, **options: int) -> logs.TrainingLog:
    settings = {"start_step": 0, "num_steps": 99, "batch_size": 8, "log_every": 5}
    return logs.TrainingLog(str(folder), **(settings | options))


def _curves(folder: pathlib.Path) -> dict[str, dict[int, float]]:
    """Reads the curves back as TensorBoard does."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: {
            event.step: float(tf.make_ndarray(event.tensor_proto))
            for event in events.Tensors(tag)
        }
        for tag in events.Tags()["tensors"]
    }


@pytest.fixture(autouse=True)
def _listen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="absl")


def test_the_loss_of_each_level_is_the_mean_over_its_pictures(tmp_path) -> None:
    rng = np.random.default_rng(0)
    counts = rng.multinomial(8, np.full(LEVELS, 1 / LEVELS), size=10)
    counts[:, 3] = 0  # A level that no picture drew has no loss, not a loss of 0.
    losses = rng.random((10, LEVELS)) * counts
    log = _log(tmp_path, num_steps=10)
    for number in range(1, 11):
        i = number - 1
        log.add(number, _metrics(i, level_loss=losses[i], level_count=counts[i]))
    log.flush()
    curves = _curves(tmp_path)
    for number, rows in ((5, slice(0, 5)), (10, slice(5, 10))):
        assert curves["loss"][number] == pytest.approx(np.mean(range(10)[rows]))
        for level in range(LEVELS):
            total = counts[rows, level].sum()
            name = f"loss_at_level/{level}"
            if not total:
                assert number not in curves.get(name, {})
                continue
            expected = losses[rows, level].sum() / total
            assert curves[name][number] == pytest.approx(expected, rel=1e-5)
    assert "loss_at_level/3" not in curves


def test_a_skipped_step_is_counted_and_leaves_the_means_alone(tmp_path, caplog) -> None:
    log = _log(tmp_path, num_steps=5)
    for number in range(1, 6):
        bad = number == 3
        level_loss = np.full(LEVELS, np.nan if bad else 0.5)
        loss = np.nan if bad else 0.25
        log.add(number, _metrics(loss, level_loss=level_loss, bad_steps=int(bad)))
    log.flush()
    curves = _curves(tmp_path)
    assert curves["loss_at_level/4"][5] == 0.5
    assert curves["skipped_steps"][5] == 1
    assert curves["loss"][5] == 0.25 and curves["grad_norm"][5] == 0.5
    assert any("step 3 skipped" in line for line in caplog.messages)


def test_the_progress_line_says_how_fast_and_how_long(
    tmp_path, caplog, monkeypatch
) -> None:
    # A step of compiling, 40 seconds, and then 0.25 seconds each.
    clock = itertools.chain([0.0, 40.0], itertools.count(41.0, 1.25))
    monkeypatch.setattr(
        pace,
        "time",
        types.SimpleNamespace(monotonic=lambda: next(clock), time=lambda: 0.0),
    )
    log = _log(tmp_path, num_steps=20_000)
    for number in range(1, 12):
        log.add(number, _metrics(0.125))
    assert caplog.messages == [
        f"step {number}/20000  loss 0.1250  250 ms/step  32.0 images/s  data 0%"
        "  goodput 100%  1h23m left"
        for number in (5, 10)
    ]


def test_utilization_and_memory_are_told_where_the_device_does(
    tmp_path, caplog, monkeypatch
) -> None:
    found = pace.Pace(0.5, 0.02, 0.41, 0.93, 3 * 2**29)
    monkeypatch.setattr(pace.Clock, "lap", lambda self, step: found)
    log = _log(tmp_path, num_steps=5)
    for number in range(1, 6):
        log.add(number, _metrics())
    log.flush()
    (said,) = caplog.messages
    assert "  MFU 41%  data 2%  goodput 93%  1.5 GiB  " in said
    curves = _curves(tmp_path)
    assert curves["model_flops_utilization"][5] == pytest.approx(0.41)
    assert curves["data_share"][5] == pytest.approx(0.02)
    assert curves["goodput"][5] == pytest.approx(0.93)
    assert curves["peak_memory_gib"][5] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("steps_left", "says"), [(0, "0s"), (3, "3s"), (60, "1m00s"), (3599, "59m59s")]
)
def test_the_time_left_is_short_to_read(
    tmp_path, caplog, monkeypatch, steps_left: int, says: str
) -> None:
    clock = itertools.count(0.0, 5.0)  # Of each line; a step takes a second.
    monkeypatch.setattr(
        pace,
        "time",
        types.SimpleNamespace(monotonic=lambda: next(clock), time=lambda: 0.0),
    )
    # Going on at step 4: what came before says nothing of the speed now.
    log = _log(tmp_path, start_step=4, num_steps=10 + steps_left)
    for number in range(5, 11):
        log.add(number, _metrics())
    log.flush()
    said = caplog.messages[-1]
    assert said.endswith(f" images/s  data 0%  goodput 100%  {says} left")
    assert "  1000 ms/step  8.0 images/s" in said


def test_what_is_still_under_way_is_written_at_the_end(tmp_path) -> None:
    log = _log(tmp_path, num_steps=7)
    for number in range(1, 6):
        log.add(number, _metrics())
    assert "loss" not in _curves(tmp_path)
    for number in (6, 7):
        log.add(number, _metrics())
    log.flush()
    assert list(_curves(tmp_path)["loss"]) == [5, 7]


@pytest.mark.parametrize("restored", [0, 5])
def test_after_a_restore_no_step_is_there_twice(tmp_path, restored: int) -> None:
    # The first was killed at step 12, the second at step 8; the third is finished.
    for start, end, loss in ((0, 12, 0.25), (restored, 8, 0.5), (restored, 10, 0.75)):
        log = _log(tmp_path, start_step=start, num_steps=end, log_every=1)
        for number in range(start + 1, end + 1):
            log.add(number, _metrics(loss))
        log.scalars(end, {"held_out_loss": loss})
        log.flush()
        newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        newest.write_bytes(newest.read_bytes() + b"\x07\0\0")  # Part of a record.
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    losses = [
        (event.step, float(tf.make_ndarray(event.tensor_proto)))
        for event in events.Tensors("loss")
    ]
    assert losses == [(n, 0.25 if n <= restored else 0.75) for n in range(1, 11)]
    assert [event.step for event in events.Tensors("held_out_loss")] == [10]


def test_numbers_and_pictures_of_their_own_are_written(tmp_path, caplog) -> None:
    log = _log(tmp_path)
    log.scalars(7, {"held_out_loss": 0.25})
    log.preview(7, np.zeros((4, 6, 3), np.uint8))
    log.flush()
    assert Image.open(tmp_path / "previews" / "step_0000007.png").size == (6, 4)
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert curves.Tags()["tensors"] == ["held_out_loss", "preview"]
    assert caplog.messages == ["step 7  held_out_loss 0.2500"]


def test_ten_bad_steps_in_a_row_stop_the_run_and_are_named(tmp_path) -> None:
    log = _log(tmp_path)
    for number in range(1, 5):
        log.add(number, _metrics())
    with pytest.raises(logs.DivergedError, match=r"steps 5 to 14 .*learning_rate"):
        for bad in range(1, 12):
            log.add(4 + bad, _metrics(np.nan, bad_steps=bad))


def test_nine_bad_steps_and_a_good_one_go_on(tmp_path) -> None:
    log = _log(tmp_path, log_every=100)
    for number in range(1, 60):
        bad = number % 10
        log.add(number, _metrics(np.nan if bad else 0.5, bad_steps=bad))
    log.flush()
    with pytest.raises(logs.DivergedError):  # The tenth in a row does stop it.
        log.add(60, _metrics(np.nan, bad_steps=10))
        log.flush()
