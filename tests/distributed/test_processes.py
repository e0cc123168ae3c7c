"""Several real processes: they make one run, and they end together."""

import json
import pathlib
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from palette_jax.config import build_data
from palette_jax.training import watchdog
from tests.distributed.group import TINY, Group, free_port, run
from tests.states import newest_state

TRAIN = (
    *TINY,
    "--config.train.num_steps=8",
    "--config.train.checkpoint_every=4",
    "--config.train.preview_every=8",
)
# It would go on for hours.
ENDLESS = (
    *TINY,
    "--config.train.num_steps=100000",
    "--config.train.checkpoint_every=1000",
    "--config.train.preview_every=100000",
)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Group:
    return run(tmp_path_factory.mktemp("two"), 2, *TRAIN)


@pytest.mark.slow
def test_two_processes_train_as_one_and_only_the_first_speaks_and_writes(
    two: Group, tmp_path: pathlib.Path
) -> None:
    run(tmp_path, 1, *TRAIN)
    states = [newest_state(folder / "run") for folder in (two.folder, tmp_path)]
    for got, expected in zip(*states, strict=True):
        # To rounding, which Adam makes steps of where a gradient is near zero.
        np.testing.assert_allclose(got, expected, atol=2e-3)
    assert "waiting for 2 hosts at 127.0.0.1:" in two.output()
    assert "step 8/8" in two.output(0) and "step 8/8" not in two.output(1)
    for folder in (two.folder, tmp_path):
        events = list((folder / "run").glob("events.out.tfevents.*.v2"))
        assert len(events) == 1
        assert [p.name for p in (folder / "run" / "previews").iterdir()] == [
            "step_0000008.png"
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "folder", "count"),
    [("evaluate", "evaluation", 4), ("sample", "samples", 2)],
)
def test_several_processes_evaluate_and_sample_as_one(
    two: Group, tmp_path: pathlib.Path, mode: str, folder: str, count: int
) -> None:
    # Six pictures in batches of four: the last one is padded on the last hosts.
    run(two.folder, count, f"--mode={mode}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(two.folder / "run" / "checkpoints")
    run(tmp_path, 1, f"--mode={mode}")
    ours, theirs = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*.png")}
        for root in (two.folder / "run" / folder, tmp_path / "run" / folder)
    )
    assert ours and ours == theirs
    if mode == "evaluate":
        ours, theirs = (
            json.loads((root / "step_0000008" / "table.json").read_text())["tasks"]
            for root in (two.folder / "run" / folder, tmp_path / "run" / folder)
        )
        assert ours["uncrop"]["pictures"] == 6
        # To rounding: how many are measured at once depends on the devices.
        expected = pytest.approx(theirs["uncrop"]["model_psnr"], rel=1e-5)
        assert ours["uncrop"]["model_psnr"] == expected


@pytest.mark.slow
def test_when_one_is_killed_all_end_with_an_error_and_a_restart_goes_on(
    tmp_path: pathlib.Path,
) -> None:
    # Step 9 comes after the save at 8, which waits for the one at 4; so there is a
    # checkpoint, and the second one is killed in a run that goes on.
    for victim, after in ((1, "step 9/"), (0, r"resuming from step [\s\S]*step \d+/")):
        group = Group(tmp_path, 2, *TRAIN, "--config.train.num_steps=100000")
        group.wait_for(after)
        assert group.is_running and re.search(after, group.output()), group.output()
        group.signal(victim, signal.SIGKILL)
        began = time.monotonic()
        codes = group.finish(timeout=60)
        assert time.monotonic() - began < 60
        assert codes[victim] == -signal.SIGKILL and codes[1 - victim] not in (0, 75)


def _hang_at_step_12(index: int) -> None:
    """Lets the last of one or two processes get no more data."""
    watchdog._HANGS_AFTER, watchdog._AT_LEAST = 1, 5
    start = build_data.train_batches

    def train_batches(*args: Any, **kwargs: Any) -> Iterator[dict[str, np.ndarray]]:
        for step, batch in enumerate(start(*args, **kwargs), 1):
            if step == 12 and index == jax.process_count() - 1:
                threading.Event().wait()
            yield batch

    build_data.train_batches = train_batches


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_when_one_hangs_all_end_with_75_and_the_same_command_goes_on(
    tmp_path: pathlib.Path, count: int
) -> None:
    train = (*TRAIN, "--config.train.num_steps=16")
    group = Group(tmp_path, count, *train, before=_hang_at_step_12)
    codes = group.finish(timeout=120)
    said = [group.output(index) for index in range(count)]
    assert codes == [75] * count, said
    assert "in train_batches" in said[-1]
    for output in said:
        assert "Timeout" in output and "in _train" in output
        assert "checkpoint is step 8; run the same command again" in output
    assert "resuming from step 8 " in run(tmp_path, count, *train).output()


@pytest.mark.slow
def test_four_processes_with_sharded_parameters_stop_when_one_is_told(
    tmp_path: pathlib.Path,
) -> None:
    # Of the kernels of the second level there is enough to be shared.
    sharded = ("--config.parallel.fsdp=2", "--config.model.base_features=64")
    group = Group(tmp_path, 4, *ENDLESS, *sharded)
    group.wait_for("step 2/")
    group.signal(2, signal.SIGUSR1)
    assert group.finish() == [75] * 4, group.output()
    assert "stop requested: saving and stopping" in group.output()
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    # On another number of processes, under pmap.
    step = int(saved.name)
    more = (f"--config.train.num_steps={step + 2}", "--config.parallel.compile=pmap")
    more += ("--config.model.base_features=64",)
    pmapped = run(tmp_path, 2, *ENDLESS, *more)
    assert f"resuming from step {step}" in pmapped.output()
    assert f"the last checkpoint is step {step + 2}" in pmapped.output()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "values"),
    [("optim.learning_rate", (0.001, 0.002)), ("data.num_eval", (6, 5))],
)
def test_hosts_with_different_configs_say_which_key_differs(
    tmp_path: pathlib.Path, key: str, values: tuple[float, float]
) -> None:
    address = f"--coordinator=127.0.0.1:{free_port()}"
    groups = [
        Group(
            *(tmp_path / str(index), 1, *TRAIN, address, "--num_processes=2"),
            *(f"--process_id={index}", f"--config.{key}={value}"),
        )
        for index, value in enumerate(values)
    ]
    for group in groups:
        assert group.finish(timeout=120) == [1], group.output()
        assert f"config.{key}: {values[0]} on host 0, {values[1]}" in group.output()


def test_a_process_that_no_one_joins_gives_up_in_the_time_it_was_given(
    tmp_path: pathlib.Path,
) -> None:
    address = ("--coordinator=127.0.0.1:1", "--num_processes=2", "--process_id=1")
    group = Group(tmp_path, 1, *TRAIN, *address, "--join_timeout=1")
    (code,) = group.finish(timeout=60)
    assert code not in (0, 75)
    assert "waiting for 2 hosts at 127.0.0.1:1" in group.output()


def test_flags_that_are_not_enough_are_said_in_one_line(tmp_path: pathlib.Path) -> None:
    group = Group(tmp_path, 1, *TRAIN, "--num_processes=2")
    assert group.finish() == [1]
    assert "Traceback" not in group.output()
    assert "set all three" in group.output().splitlines()[-1]
