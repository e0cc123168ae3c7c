"""The real server and a real browser, for the tests of the page and its pictures."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

# A loaded machine is slow; nothing here is about time.
PATIENCE = 60_000

# Chromium asks its makers for many things at the start, and sandboxes do not nest.
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Served(NamedTuple):
    """A server that runs."""

    url: str
    folder: pathlib.Path  # In it are the files of its sessions, and nothing else.
    log: pathlib.Path
    process: subprocess.Popen


@contextlib.contextmanager
def serve(
    folder: pathlib.Path, *args: str, port: int | None = None, **environment: str
) -> Iterator[Served]:
    """Runs `palette-jax demo ARGS`; keeps what it writes in a folder."""
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    temporary, log = folder / "tmp", folder / "server.log"
    temporary.mkdir(exist_ok=True)
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "palette_jax.cli", "demo", f"--port={port}", *args],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temporary), **environment},
        )
    try:
        deadline = time.monotonic() + 2 * PATIENCE / 1000
        while "Open http" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Served(f"http://127.0.0.1:{port}/", temporary, log, process)
    finally:
        process.terminate()
        process.wait(120)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Runs the machine's own Chromium; gives None where there is none."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=_QUIET, timeout=PATIENCE
        )
        yield browser
        browser.close()


def open_page(context: Any, url: str) -> Any:
    """Opens the page, and waits until it can be used."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.wait_for_function("window.paletteEditor && window.paletteResult")
    return page


def give(page: Any, name: str, content: bytes, kind: str = "photo") -> None:
    """Gives the page a file, as if it was chosen: a photo or a mask."""
    page.set_input_files(
        f".{kind}-file", {"name": name, "mimeType": "image/png", "buffer": content}
    )


def open_photo(page: Any, name: str, content: bytes) -> None:
    """Opens a photograph and waits until it is there."""
    give(page, name, content)
    page.get_by_text(f"{name}, ").wait_for()


def choose(page: Any, task: str) -> None:
    """Chooses a task, out of colorize, inpaint, uncrop and jpeg."""
    page.locator(f"#task input[value={task}]").check()
    page.locator(f".editor.{task}").wait_for()
