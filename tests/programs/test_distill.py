"""A student from its teacher's run to a restored picture, as a user makes it."""

import pathlib
import signal
from collections.abc import Callable

import numpy as np
import pytest

from palette_jax.training import checkpoints
from tests.programs import untrained
from tests.programs.conftest import Process, Run
from tests.states import assert_same_bits, newest_state

QUICK = (
    "--config.data.num_eval=4",
    "--config.data.max_broken_share=0.5",
    "--config.eval.batch_size=4",
    "--config.train.batch_size=4",
    "--config.train.num_steps=8",
    "--config.train.log_every=1",
    "--config.train.checkpoint_every=2",
    "--config.train.preview_every=100",
    "--config.optim.warmup_steps=1",
)


@pytest.fixture(scope="module")
def teacher(
    photos: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """An untrained network, whose pictures lie in a folder."""
    folder = tmp_path_factory.mktemp("teacher")
    data = {"source": "folder", "folder": str(photos), "min_side": 8}
    return untrained.save_run(folder, data=data)


@pytest.fixture(scope="module")
def distill(start: Callable[..., Process], teacher: pathlib.Path) -> Callable:
    """Starts `palette-jax distill` in a folder; the student has two steps."""

    def distill(folder: pathlib.Path, *flags: str) -> Process:
        return start(
            "distill", str(teacher), "--steps=2", "--out=s", *flags, folder=folder
        )

    return distill


@pytest.fixture(scope="module")
def student(
    distill: Callable[..., Process], tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """The run of a student, to its end."""
    folder = tmp_path_factory.mktemp("student")
    result = distill(folder, *QUICK).finish()
    assert result.code == 0, result.output
    return folder / "s"


def test_a_student_starts_as_its_teacher_and_moves(
    student: pathlib.Path, teacher: pathlib.Path
) -> None:
    theirs, own = newest_state(teacher), newest_state(student)
    config = checkpoints.load_config(student / "checkpoints")
    assert config["distill"]["steps"] == config["sample"]["num_steps"] == 2
    weights = [array.size for array in theirs]
    assert weights == [array.size for array in own]
    moved = [np.abs(np.float64(a) - b).max() for a, b in zip(theirs, own, strict=True)]
    # Adam moves a weight by at most about the rate in each of the eight steps.
    assert 0 < max(moved[1 : len(moved) // 4]) < 0.1


@pytest.mark.slow  # Two runs more.
def test_stopped_and_started_again_it_ends_with_the_same_bits(
    distill: Callable[..., Process], student: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    process = distill(tmp_path, *QUICK)
    process.wait_for(" ms/step ", count=3)
    process.signal(signal.SIGTERM)
    assert process.finish().code in (75, 0)
    result = distill(tmp_path, *QUICK).finish()
    assert result.code == 0, result.output
    assert_same_bits(newest_state(tmp_path / "s"), newest_state(student))


def test_a_student_takes_its_own_steps_and_no_others(
    student: pathlib.Path,
    photos: pathlib.Path,
    main: Callable[..., Run],
    tmp_path: pathlib.Path,
) -> None:
    photo = str(photos / "0.jpg")
    command = ("restore", photo, "--task=colorize", f"--checkpoint={student}")
    result = main(*command, "--out=out.png", folder=tmp_path)
    assert result.code == 0, result.output
    result = main(*command, "--out=more.png", "--num-steps=8", folder=tmp_path)
    assert "expected the 2 steps of ddim" in result.error
    result = main(*command, "--out=more.png", "--check-steps", folder=tmp_path)
    assert "leave --check-steps out" in result.error
    assert not (tmp_path / "more.png").exists()
    result = main(
        *("--mode=evaluate", f"--workdir={student}", "--config.sample.num_steps=8"),
        folder=tmp_path,
    )
    assert "take --config.sample.num_steps=2" in result.error


def test_an_exported_student_is_one_still(
    student: pathlib.Path,
    photos: pathlib.Path,
    main: Callable[..., Run],
    tmp_path: pathlib.Path,
) -> None:
    result = main("export", str(student), "--out=s.safetensors", folder=tmp_path)
    assert result.code == 0, result.output
    result = main("distill", "s.safetensors", "--out=t", folder=tmp_path)
    assert "use its own teacher" in result.error
    command = ("restore", str(photos / "0.jpg"), "--task=colorize", "--out=out.png")
    result = main(
        *command, "--checkpoint=s.safetensors", "--sampler=unipc_2", folder=tmp_path
    )
    assert "expected the 2 steps of ddim" in result.error


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--steps=0", "expected a whole number from 1 to"),
        ("--config.distill.teacher_steps=7", "to be a multiple"),
        ("--config.parallel.compile=pmap", "expected parallel.compile='jit'"),
        ("--config.model.base_features=16", "a student must have the same values"),
    ],
)
def test_what_cannot_be_distilled_is_refused(
    distill: Callable[..., Process], tmp_path: pathlib.Path, flag: str, says: str
) -> None:
    assert says in distill(tmp_path, *QUICK, flag).finish().error
