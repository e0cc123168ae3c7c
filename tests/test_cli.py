"""The command line: what all programs share."""

import argparse
import errno
import os
import pathlib
import subprocess
import sys

import pytest

from palette_jax import cli, parallel
from palette_jax.programs import doctor


def test_the_home_folder_is_expanded_wherever_a_path_is_given(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for argv in (
        ["restore", "~/no.png", "--task=colorize", "--out=~/results"],
        ["evaluate", "~/results", "--reference=~/originals", "--out=~/tables"],
        ["export", "~/run", "--out=~/weights.safetensors"],
        ["diff", "~/a", "~/b"],
        ["train", "--config=~/c.py", "--workdir=~/run"],
    ):
        assert cli.run(argv) == 1
        assert "~" not in capsys.readouterr().err
    assert not (tmp_path / "~").exists()


def test_a_reader_that_ends_early_is_no_error() -> None:
    command = f"{sys.executable} -m palette_jax.cli --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage: palette-jax") and done.stderr == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_a_sentence(monkeypatch, capsys, number):
    def write(args: argparse.Namespace) -> int:
        raise OSError(number, os.strerror(number), "runs/table.json")

    monkeypatch.setattr(doctor, "run", write)
    assert cli.run(["doctor"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert "runs/table.json" in said and "make room" in said


def test_no_command_shows_what_there_is(capsys) -> None:
    assert cli.run([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)


def test_a_config_key_of_a_program_without_a_config_is_refused(capsys) -> None:
    assert cli.run(["doctor", "--config.seed=1"]) == 1
    assert "config.seed" in capsys.readouterr().err


def test_a_protocol_is_of_evaluate_alone(capsys) -> None:
    args = ["train", "--config=uncrop:tiny", "--workdir=x", "--protocol=i2sb"]
    assert cli.run(args) == 1
    assert "--config.eval.protocol" in capsys.readouterr().err


def test_a_system_that_does_not_tell_its_cores_can_train(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # As on macOS.
    monkeypatch.delenv("XLA_FLAGS")
    seen = {}
    monkeypatch.setattr(
        "jax.config.update", lambda key, value: seen.update({key: value})
    )
    parallel.use_cpu_cores([2 * 3 * 4 * 5 * 7, 840])
    assert 1 <= seen["jax_num_cpu_devices"] <= (os.cpu_count() or 1)
