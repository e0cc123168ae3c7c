"""The page, in a real browser, against the real server and a small checkpoint."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from configs import multitask
from palette_jax import build
from palette_jax.training import checkpoints
from palette_jax.training.state import make_state

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio", reason="the page needs the extra `demo`")

# Chromium asks its makers for many things at the start, and sandboxes do not nest.
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZE = (40, 28)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An untrained network for all tasks, as a run would have saved it."""
    config = multitask.get_config("tiny")
    config.data.image_size = 16
    config.model.base_features = 8
    config.model.feature_multipliers = (1, 2)
    config.model.norm_groups = 4
    folder = tmp_path_factory.mktemp("demo")
    state = make_state(
        build.init_params(jax.random.key(0), config), build.make_optimizer(config)
    )
    with checkpoints.open_manager(folder / "checkpoints") as manager:
        checkpoints.save(manager, state, config.to_dict(), 1.0)
    return folder


@pytest.fixture(scope="module")
def url(checkpoint: pathlib.Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "palette_jax.cli", "demo"]
    log = (checkpoint / "server.log").open("w")
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    server = subprocess.Popen(
        [*command, f"--checkpoint={checkpoint}", f"--port={port}"],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(600):
            assert server.poll() is None, (checkpoint / "server.log").read_text()
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if found is None:
        pytest.skip("expected Chromium or Chrome on the PATH, got none; install one")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=_QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, url: str, tmp_path: pathlib.Path) -> Iterator[Any]:
    """The page with a photograph open."""
    page = browser.new_page(viewport={"width": 1280, "height": 1100})
    page.set_default_timeout(90_000)
    page.goto(url)
    page.wait_for_function("window.paletteEditor !== undefined")
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "holiday.png")
    page.set_input_files(".photo-file", tmp_path / "holiday.png")
    page.wait_for_function("window.paletteEditor.value() !== 'null'")
    yield page
    page.close()


def _paint(page: Any, start: float, end: float) -> None:
    """Draws a stroke between two places, given as shares of both sides."""
    box = page.locator(".editor canvas").bounding_box()
    for share, then in ((start, page.mouse.down), (end, page.mouse.up)):
        x, y = box["x"] + share * box["width"], box["y"] + share * box["height"]
        page.mouse.move(x, y, steps=5)
        then()


def _mask_area(page: Any) -> float:
    """Returns the share of the picture that is painted, as the server would see it."""
    return page.evaluate(
        """async () => {
          const image = new Image();
          image.src = JSON.parse(window.paletteEditor.value()).mask;
          await image.decode();
          const canvas = document.createElement('canvas');
          [canvas.width, canvas.height] = [image.width, image.height];
          const context = canvas.getContext('2d');
          context.drawImage(image, 0, 0);
          const {data} = context.getImageData(0, 0, image.width, image.height);
          const white = data.filter((value, i) => i % 4 === 0 && value === 255);
          return white.length * 4 / data.length;
        }"""
    )


def _result(page: Any, folder: pathlib.Path) -> tuple[str, np.ndarray]:
    """Waits for the result, downloads it, and returns its name and pixels."""
    with page.expect_download() as download:
        page.locator("#results a").first.click()
    path = folder / "downloaded.png"
    download.value.save_as(path)
    return download.value.suggested_filename, np.asarray(Image.open(path))


def _choose(page: Any, task: str) -> None:
    page.get_by_label(task, exact=True).check()
    page.wait_for_timeout(300)


def test_paint_cancel_run_and_download(page: Any, tmp_path: pathlib.Path) -> None:
    _choose(page, "Inpaint")
    _paint(page, 0.3, 0.6)
    page.get_by_label("paper", exact=True).check()
    page.get_by_label("number input for Number of results").fill("8")
    page.click("#run")
    first = page.locator("#preview img")
    first.wait_for()
    before = first.get_attribute("src")
    page.wait_for_function(
        "before => document.querySelector('#preview img').src !== before", arg=before
    )
    page.click("#cancel")
    page.get_by_text("Stopped.").wait_for()

    # One computation at a time: this one would wait for the thousand steps.
    page.get_by_label("fast", exact=True).check()
    page.get_by_label("number input for Number of results").fill("1")
    page.click("#run")
    name, result = _result(page, tmp_path)
    assert name == "holiday_inpaint.png"
    photo = np.asarray(Image.open(tmp_path / "holiday.png"))
    changed = (result != photo).any(-1)
    assert result.shape == photo.shape and 0 < changed.mean() < 0.5
    # The brush is 24 wide where the longer side has 512 pixels.
    rows, columns = np.nonzero(changed)
    for at, length in ((rows, SIZE[1]), (columns, SIZE[0])):
        assert at.min() >= 0.3 * length - 3 and at.max() <= 0.6 * length + 3


def test_the_mask_is_edited_as_in_other_programs(
    page: Any, tmp_path: pathlib.Path
) -> None:
    _choose(page, "Inpaint")
    _paint(page, 0.2, 0.5)
    one = _mask_area(page)
    _paint(page, 0.6, 0.9)
    two = _mask_area(page)
    assert 0 < one < two
    page.keyboard.press("Control+z")
    assert _mask_area(page) == one
    page.keyboard.press("Control+Shift+z")
    assert _mask_area(page) == two
    page.click("[data-do=invert]")
    assert _mask_area(page) == pytest.approx(1 - two)
    with page.expect_download() as download:
        page.click("[data-do=save-mask]")
    assert download.value.suggested_filename == "holiday_mask.png"
    download.value.save_as(tmp_path / "mask.png")
    saved = np.asarray(Image.open(tmp_path / "mask.png").convert("L"))
    assert set(np.unique(saved)) == {0, 255}
    assert (saved == 255).mean() == pytest.approx(1 - two)
    page.click("[data-do=clear]")
    assert _mask_area(page) == 0
    page.set_input_files(".mask-file", tmp_path / "mask.png")
    page.wait_for_timeout(500)
    assert _mask_area(page) == pytest.approx(1 - two)
    page.click("[data-do=eraser]")
    _paint(page, 0.1, 0.9)
    assert _mask_area(page) < 1 - two
    before = float(page.locator(".editor .size").input_value())
    page.keyboard.press("]")
    assert float(page.locator(".editor .size").input_value()) > before


def test_an_edge_is_dragged_and_the_picture_extended(
    page: Any, tmp_path: pathlib.Path
) -> None:
    _choose(page, "Extend")
    assert page.locator("[data-side=right]").input_value() == "50"
    page.fill("[data-side=right]", "0")
    box = page.locator(".editor canvas").bounding_box()
    # Dragged to the left by a quarter of the picture.
    scale = (box["width"] - 48) / SIZE[0]
    x, y = box["x"] + 24, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 0.25 * SIZE[0] * scale, y, steps=4)
    page.mouse.up()
    assert int(page.locator("[data-side=left]").input_value()) in (24, 25, 26)
    page.fill("[data-side=left]", "25")
    page.click("#run")
    name, result = _result(page, tmp_path)
    photo = np.asarray(Image.open(tmp_path / "holiday.png"))
    assert name == "holiday_uncrop.png"
    assert result.shape == (SIZE[1], SIZE[0] + 10, 3)
    np.testing.assert_array_equal(result[:, 10:], photo)


def test_a_dropped_gray_picture_is_colorized(page: Any, tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(1)
    gray = rng.integers(0, 256, SIZE[::-1], dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / "old.png")
    content = (tmp_path / "old.png").read_bytes()
    transfer = page.evaluate_handle(
        """bytes => {
          const transfer = new DataTransfer();
          const content = [new Uint8Array(bytes)];
          transfer.items.add(new File(content, 'old.png', {type: 'image/png'}));
          return transfer;
        }""",
        list(content),
    )
    page.dispatch_event(".stage", "drop", {"dataTransfer": transfer})
    page.get_by_text("old.png").wait_for()
    _choose(page, "Colorize")
    page.click("#run")
    name, result = _result(page, tmp_path)
    assert name == "old_colorize.png" and result.shape == (*SIZE[::-1], 3)
    assert np.ptp(result.astype(int), axis=-1).mean() > 5
    page.click("#again")
    page.get_by_text("old_colorize.png, 40").wait_for()


@pytest.mark.parametrize("case", ["nothing painted", "no picture"])
def test_a_mistake_gets_a_sentence_and_no_trace(
    page: Any, tmp_path: pathlib.Path, case: str
) -> None:
    _choose(page, "Inpaint")
    if case == "nothing painted":
        page.click("#run")
        page.get_by_text("expected a painted mask").wait_for()
    else:
        (tmp_path / "notes.png").write_text("This is no picture.")
        page.set_input_files(".photo-file", tmp_path / "notes.png")
        page.get_by_text("cannot be shown as a picture").wait_for()
    assert "Traceback" not in page.content()


def test_files_of_the_server_cannot_be_asked_for(page: Any) -> None:
    page.evaluate(
        """window.paletteEditor.value = () => JSON.stringify(
          {path: '/etc/passwd', name: 'x.png', mask: null,
           extend: {left: 0, right: 0, top: 0, bottom: 0}})"""
    )
    page.click("#run")
    page.get_by_text("expected a file that was uploaded").wait_for()
