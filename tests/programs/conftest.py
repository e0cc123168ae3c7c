"""Runs main.py as a user does, without waiting for TensorFlow each time."""

import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from palette_jax import cli
from tests.programs import browse

_MAIN = pathlib.Path(__file__).resolve().parents[2] / "main.py"

# The server imports what all programs need, once; each run is a fork of it.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(
    ["palette_jax.programs.train", "palette_jax.evaluation.of_run"]
)

TINY = (
    "--config.model.base_features=8",
    "--config.model.feature_multipliers=1,2",
    "--config.model.attn_resolutions=8",
    "--config.model.norm_groups=4",
    "--config.data.image_size=16",
    "--config.data.min_side=16",
    "--config.data.num_eval=4",
    "--config.eval.batch_size=4",
    "--config.train.batch_size=4",
    "--config.train.num_steps=4",
    "--config.train.log_every=2",
    "--config.train.checkpoint_every=2",
    "--config.train.preview_every=4",
    "--config.sample.num_steps=2",
)


@dataclasses.dataclass
class Run:
    """A run of main.py.

    Attributes:
      code: its exit status; negative if a signal ended it.
      output: all that it printed.
    """

    code: int
    output: str

    @property
    def error(self) -> str:
        """What it said to stop; fails unless that is one line without a trace."""
        assert self.code == 1 and "Traceback" not in self.output, self.output
        return self.output.strip().splitlines()[-1]


class Process:
    """A run of main.py that goes on while the test does."""

    def __init__(self, args: tuple[str, ...], folder: pathlib.Path):
        self._log = folder / "main.log"
        self._log.write_text("")
        self._process = _FORKSERVER.Process(
            target=_run_main,
            args=(args, str(folder), str(self._log)),
            daemon=True,  # A test that fails leaves no run behind.
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def output(self) -> str:
        """All that it has printed so far."""
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, *, count: int = 1, timeout: float = 120) -> None:
        """Waits until it has printed a text so many times, or has ended."""
        deadline = time.monotonic() + timeout
        while self._process.is_alive() and self.output().count(text) < count:
            if time.monotonic() > deadline:
                self._process.kill()
                raise AssertionError(f"no {text!r} in {self.output()}")
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal; one that has ended stays a zombie until it is joined."""
        os.kill(self.pid, number)

    def finish(self, *, timeout: float = 200) -> Run:
        """Waits for its end."""
        self._process.join(timeout)
        with contextlib.suppress(ProcessLookupError):
            if self._process.is_alive():
                self._process.kill()
                raise AssertionError(f"still running: {self.output()}")
        return Run(self._process.exitcode, self.output())


@pytest.fixture(scope="session")
def start() -> Callable[..., Process]:
    """`start(*args, folder=...)` starts main.py, or a command, in a folder."""

    def start(*args: str, folder: pathlib.Path) -> Process:
        return Process(args, folder)

    return start


@pytest.fixture(scope="session")
def main(start: Callable[..., Process]) -> Callable[..., Run]:
    """`main(*args, folder=...)` runs main.py in a folder."""

    def main(*args: str, folder: pathlib.Path) -> Run:
        return start(*args, folder=folder).finish()

    return main


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Twelve small pictures that differ, a truncated JPEG and a text named .jpg."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    (folder / "deep").mkdir()
    for i in range(12):
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC)
        image.save(folder / "deep" / f"{i}.png" if i % 2 else folder / f"{i}.jpg")
    whole = (folder / "0.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("This is no picture.")
    return folder


def _run_main(args: tuple[str, ...], folder: str, log: str) -> None:
    """What the fork does: becomes `python main.py ARGS` in a folder.

    Or `palette-jax ARGS`, if the first of them is a command.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(folder)
    if not args[0].startswith("-"):
        sys.exit(cli.run(args))
    sys.argv = [str(_MAIN), *args]
    sys.path.insert(0, str(_MAIN.parent))
    runpy.run_path(str(_MAIN), run_name="__main__")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's own Chromium."""
    pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with browse.chromium() as chromium:
        if chromium is None:
            pytest.skip(
                "expected Chromium or Chrome on the PATH, got none; install one"
            )
        yield chromium
