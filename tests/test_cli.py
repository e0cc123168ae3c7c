"""The command line: what all programs share."""

import argparse
import errno
import importlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from PIL import Image

from palette_jax import cli, parallel
from palette_jax.programs import doctor
from tests.programs.untrained import save_run


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


def test_warnings_in_a_pipe_are_not_wrapped(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two steps of ddpm, a JPEG as a mask, of another size: all of it is told.
    name = "a_picture_with_a_name_that_leaves_little_room_in_a_line_of_80_columns.png"
    Image.new("RGB", (12, 9)).save(tmp_path / name)
    Image.new("L", (24, 18), 255).save(tmp_path / "mask.jpg")
    run = save_run(tmp_path / "run")
    command = (
        f"{sys.executable} -m palette_jax.cli restore {name} {name[:-3]}jpg"
        f" --task=inpaint --mask=mask.jpg --checkpoint={run} --sampler=ddpm"
        " --num-steps=2"
    )
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True
    )
    lines = done.stderr.splitlines()
    (told,) = [line for line in lines if "ddpm with 2 steps" in line]
    assert told.endswith("or 250 steps or more") and len(told) > 80
    assert any("mask.jpg" in line and line.endswith("it is resized") for line in lines)
    # A reader that takes one line ends the command without a trace.
    done = subprocess.run(
        f"{command} --overwrite | head -0",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr and "Error" not in done.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_a_sentence(monkeypatch, capsys, number):
    def write(args: argparse.Namespace) -> int:
        raise OSError(number, os.strerror(number), "runs/table.json")

    monkeypatch.setattr(doctor, "run", write)
    assert cli.run(["doctor"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert "runs/table.json" in said and "make room" in said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("argv", ["--help", "--version", "restore --help", ""])
def test_help_that_cannot_be_written_is_an_error(argv: str) -> None:
    command = f"{sys.executable} -m palette_jax.cli {argv} > /dev/full"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_no_command_shows_what_there_is(capsys) -> None:
    assert cli.run([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)


def _flags() -> Iterator[tuple[str, argparse.Action]]:
    """Yields each flag and argument of each command, with the command's name."""
    modules = {module for module, _ in cli.COMMANDS.values()}
    parsers = []
    for module in sorted(modules):
        parsers.append(argparse.ArgumentParser(module))
        program = importlib.import_module(f"palette_jax.programs.{module}")
        program.add_arguments(parsers[-1])
    for parser in parsers:  # It grows by subcommands.
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            else:
                yield parser.prog, action
        assert parser.format_help()  # A % that is not doubled is an error.


def test_every_flag_has_a_help_text() -> None:
    assert all(action.help for _, action in _flags())


@pytest.mark.parametrize(
    "text", ["-1e30", "-1", "nan", "inf", "1e30", "1e400", str(2**63), "9" * 5000]
)
def test_every_numeric_flag_has_limits(text: str) -> None:
    count = 0
    for command, action in _flags():
        if action.type is None or action.dest == "extend_share":  # Settings has those.
            continue
        assert callable(action.type)
        count += 1
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            action.type(text)
            pytest.fail(f"{command} {action.dest}")
    assert count > 10


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("resotre a.png", "got 'resotre'; did you mean 'restore'?"),
        ("data", "expected COMMAND, got none"),
        ("study mak", "expected COMMAND out of "),
        ("restore", "expected PHOTO|FOLDER, got none"),
        ("restore a.png --seed=1e3", "expected a whole number from 0 to 4,294,967,295"),
        ("train --join-timeout=99999999999", "from 1 to 604,800 for --join-timeout"),
        ("restore a.png --task=colorise", "did you mean 'colorize'?"),
        ("restore a.png --seed", "expected a value for --seed, got none"),
        ("restore a.png --nope=1", "expected known flags, got --nope=1"),
        ("restore a.png --extend=left=1,left=2", "expected each side once"),
        ("demo --max-seconds=1h", "to 1,000,000 for --max-seconds, got '1h'"),
        ("train --profile=²:٣", "expected two steps such as 100:110"),
    ],
)
def test_wrong_arguments_are_told_in_the_form_of_all_errors(
    argv: str, said: str, capsys: pytest.CaptureFixture
) -> None:
    assert cli.run(argv.split()) == 1
    error = capsys.readouterr().err
    assert said in error and " --help`" in error and error.count("\n") == 1


def test_a_name_that_no_disk_takes_is_told(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["restore", "n" * 300, "--task=jpeg"]) == 1
    error = capsys.readouterr().err
    assert "File name too long" in error and error.count("\n") == 1


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


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_a_missing_package_is_named_with_the_extra_that_installs_it(
    command: str,
) -> None:
    program = (
        "import sys\n"
        "sys.modules['skimage'] = None\n"
        "from palette_jax import cli\n"
        f"sys.exit(cli.run(['{command}', 'a', 'b', '--reference=c']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "got no skimage; pip install 'palette-jax[eval]'" in done.stderr


@pytest.mark.parametrize(
    "argv",
    [
        ["restore", "", "--task=jpeg"],
        ["restore", "a.png", "--task=jpeg", "--out="],
        ["restore", "a.png", "--task=inpaint", "--mask", ""],
        ["train", "--config=uncrop:tiny", "--workdir="],
        ["evaluate", "results", "--reference="],
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    argv, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    assert cli.run(argv) == 1
    assert "expected a value, got an empty one" in capsys.readouterr().err
    assert os.listdir() == ["a.png"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_do_not_stop_a_command(
    closed: str, tmp_path: pathlib.Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    run = save_run(tmp_path / "run")
    command = (
        f"{sys.executable} -m palette_jax.cli restore a.png --task=jpeg"
        f" --checkpoint={run} --num-steps=1 {closed}"
    )
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "restored") == ["a.png"]


_FAULTS = """
import ctypes, resource, sys
from palette_jax.__main__ import use_huge_pages
if sys.argv[1] == "huge":
    use_huge_pages()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
ctypes.memset(libc.malloc(1 << 28), 1, 1 << 28)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, sys.argv[2])
"""


def test_commands_use_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[madvise]" not in setting.read_text():
        pytest.skip("this machine has no huge pages, or uses them everywhere")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    faults = {}
    for name in ("usual", "huge"):
        command = [sys.executable, "-c", _FAULTS, name, "an argument"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        count, _, argument = done.stdout.strip().partition(" ")
        faults[name] = int(count)
        assert argument == "an argument"
    assert faults["usual"] >= (1 << 28) / 4096
    assert faults["huge"] < faults["usual"] / 100


_WRITING = """
import os, sys
from palette_jax import atomic, cli
from palette_jax.programs import doctor

def run(args):
    with atomic.writing("new.txt") as part:
        part.write_text("a half")
        os.kill(os.getpid(), NUMBER)
    return 0

doctor.run = run
sys.argv = ["palette-jax", "doctor"]
sys.exit(cli.main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_stopped_command_leaves_no_partial_file(
    number: signal.Signals, tmp_path: pathlib.Path
) -> None:
    script = _WRITING.replace("NUMBER", str(int(number)))
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "stopped\n")
    assert os.listdir(tmp_path) == []


def test_a_command_under_nohup_outlives_its_terminal(tmp_path: pathlib.Path) -> None:
    script = _WRITING.replace("NUMBER", str(int(signal.SIGHUP)))
    command = ["nohup", sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and os.listdir(tmp_path) == ["new.txt"]


@pytest.mark.parametrize(("own", "level"), [(None, "2"), ("1", "1"), ("0", "0")])
def test_the_users_own_level_of_tensorflows_log_counts(
    own: str | None, level: str, tmp_path: pathlib.Path
) -> None:
    script = (
        "import os\n"
        "from palette_jax import cli\n"
        "args = ['train', '--config=uncrop:tiny', '--workdir=w', '--dry-run']\n"
        "assert cli.run(args) == 0\n"
        "print('level', os.environ['TF_CPP_MIN_LOG_LEVEL'])\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    if own is not None:
        environment["TF_CPP_MIN_LOG_LEVEL"] = own
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert f"level {level}" in done.stdout.splitlines(), done.stderr
