"""The page, in a real browser, against the real server and a small checkpoint."""

import io
import os
import pathlib
import shlex
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from palette_jax.config import build
from palette_jax.configs import multitask
from palette_jax.pictures import files
from palette_jax.tasks import TASKS
from palette_jax.training.checkpoint_writer import CheckpointWriter
from palette_jax.training.state import make_state
from tests.programs import browse
from tests.programs.browse import Served, choose, give, open_photo

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="expected playwright, got none; make setup"
)
pytest.importorskip("gradio", reason="expected the extra `demo`, got no gradio")

pytestmark = pytest.mark.slow  # A server, a browser and a network are started.

# Small enough that all tasks are computed in one tile, and compiled once.
SIZE = (24, 16)
_FAST = "--xla_backend_optimization_level=0"


@pytest.fixture(scope="module")
def server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server, with an untrained network for all tasks."""
    folder = tmp_path_factory.mktemp("demo")
    _save_run(folder)
    flags = (f"--checkpoint={folder}", "--max-megapixels=8")
    with browse.serve(folder, *flags, XLA_FLAGS=_FAST) as served:
        yield served
    assert not list(served.folder.glob("palette_jax_*")), "files were left behind"
    assert "Traceback" not in served.log.read_text()


@pytest.fixture
def visit(browser: Any, server: Served) -> Iterator[Callable[..., Any]]:
    """Opens the page as a new session; at the end, checks what all pages asked for."""
    contexts, asked_for = [], []

    def visit(**options: Any) -> Any:
        options = {"viewport": {"width": 1280, "height": 1000}, **options}
        context = browser.new_context(**options)
        contexts.append(context)
        context.on("request", lambda request: asked_for.append(request.url))
        return browse.open_page(context, server.url)

    yield visit
    for context in contexts:
        context.close()
    assert all(url.startswith((server.url, "data:", "blob:")) for url in asked_for)


@pytest.fixture
def page(visit: Callable[..., Any], photo: bytes) -> Any:
    """The page with a photograph open."""
    page = visit()
    open_photo(page, "holiday.png", photo)
    return page


@pytest.fixture
def photo() -> bytes:
    rng = np.random.default_rng(0)
    return _png(rng.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8))


def _save_run(folder: pathlib.Path) -> None:
    config = multitask.get_config("tiny")
    config.data.image_size = 32
    config.data.hints = True
    config.mix.superres = config.mix.old_photo = 1.0
    config.model.base_features = 8
    config.model.feature_multipliers = (1, 2)
    config.model.norm_groups = 4
    state = make_state(
        jax.jit(lambda: build.init_params(jax.random.key(0), config))(),
        build.make_optimizer(config),
    )
    with CheckpointWriter(folder / "checkpoints") as writer:
        writer.save(state, config.to_dict(), 1.0)


def _png(pixels: np.ndarray) -> bytes:
    return _encoded(Image.fromarray(pixels), format="PNG")


def _encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def _pixels(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)))


def _ask_for(page: Any, quality: str, count: int = 1) -> None:
    page.get_by_label(quality).check()
    field = page.locator("#num_samples input")
    if not field.is_visible():
        page.get_by_text("More settings").click()
        field.wait_for()
        # Gradio draws the fields anew right after it shows them, with what they had.
        page.evaluate(
            """() => new Promise(done => requestAnimationFrame(() =>
              requestAnimationFrame(() => setTimeout(done, 500))))"""
        )
    field.fill(str(count))
    assert field.input_value() == str(count)


def _place(page: Any, x: float, y: float) -> tuple[float, float]:
    """Returns where a pixel of the photograph is in the window, while all is shown."""
    box = page.locator(".stage").bounding_box()
    # Inside a border of a pixel.
    width, height = box["width"] - 2, box["height"] - 2
    scale = min(width / SIZE[0], height / SIZE[1], 16)
    left = box["x"] + 1 + (width - scale * SIZE[0]) / 2
    top = box["y"] + 1 + (height - scale * SIZE[1]) / 2
    return left + scale * x, top + scale * y


def _paint(page: Any, start: float, end: float, button: str = "left") -> None:
    """Draws a stroke between two places, given as shares of both sides."""
    page.mouse.move(*_place(page, start * SIZE[0], start * SIZE[1]))
    page.mouse.down(button=button)
    page.mouse.move(*_place(page, end * SIZE[0], end * SIZE[1]), steps=5)
    page.mouse.up(button=button)


def _mask(page: Any) -> np.ndarray:
    """Returns the mask as the server would be given it."""
    with urllib.request.urlopen(page.evaluate("paletteEditor.value().mask")) as data:
        mask = _pixels(data.read())[..., 0]
    assert set(np.unique(mask)) <= {0, 255}
    return mask == 255


def _saved(page: Any, selector: str) -> tuple[str, bytes]:
    """Clicks on what downloads a file; returns its name and content."""
    with page.expect_download() as download:
        page.click(selector)
    return download.value.suggested_filename, download.value.path().read_bytes()


def _run(page: Any) -> tuple[str, np.ndarray]:
    """Runs to the end, and returns the name and the pixels of the result."""
    page.click("#run")
    page.get_by_text("Done in").wait_for()
    name, content = _saved(page, ".download")
    return name, _pixels(content)


def _drop(page: Any, name: str, content: bytes) -> None:
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
          const transfer = new DataTransfer();
          const content = [new Uint8Array(bytes)];
          transfer.items.add(new File(content, name, {type: 'image/png'}));
          return transfer;
        }""",
        [name, list(content)],
    )
    page.dispatch_event(".stage", "drop", {"dataTransfer": transfer})


def test_paint_cancel_run_and_download(page: Any, photo: bytes) -> None:
    choose(page, "inpaint")
    _paint(page, 0.3, 0.6)
    _ask_for(page, "paper", 8)
    page.click("#run")
    preview = page.locator("#result .preview")
    preview.wait_for()
    page.wait_for_function(
        "before => document.querySelector('#result .preview').src !== before",
        arg=preview.get_attribute("src"),
    )
    page.keyboard.press("Escape")
    page.get_by_text("Stopped.").wait_for()

    # One computation at a time: this one would wait for thousands of steps.
    _ask_for(page, "fast")
    mask = _mask(page)
    name, result = _run(page)
    assert name == "holiday_inpaint.png"
    original = _pixels(photo)
    assert result.shape == original.shape
    np.testing.assert_array_equal(result[~mask], original[~mask])
    assert (result != original).any(-1)[mask].mean() > 0.9
    # The brush is 40 wide where the longer side has 512 pixels.
    assert mask[7, 10] and not mask[2, 3] and not mask[12, 18]
    assert 0 < mask.mean() < 0.2


def test_the_mask_is_edited_as_in_other_programs(page: Any) -> None:
    choose(page, "inpaint")
    _paint(page, 0.2, 0.4)
    one = _mask(page)
    _paint(page, 0.6, 0.9)
    two = _mask(page)
    assert 0 < one.sum() < two.sum()
    page.keyboard.press("Control+z")
    np.testing.assert_array_equal(_mask(page), one)
    page.keyboard.press("Control+Shift+z")
    np.testing.assert_array_equal(_mask(page), two)
    page.click("[data-do=invert]")
    np.testing.assert_array_equal(_mask(page), ~two)
    name, content = _saved(page, "[data-do=save-mask]")
    assert name == "holiday_mask.png"
    np.testing.assert_array_equal(_pixels(content)[..., 0] == 255, ~two)
    page.click("[data-do=clear]")
    assert not _mask(page).any()
    page.click("[data-do=undo]")
    np.testing.assert_array_equal(_mask(page), ~two)
    page.click("[data-do=redo]")
    page.keyboard.press("Control+z")
    page.click("[data-do=clear]")
    give(page, "mine.png", content, "mask")
    page.get_by_text("mask mine.png: it covers").wait_for()
    np.testing.assert_array_equal(_mask(page), ~two)

    _paint(page, 0.1, 0.3, button="right")
    right = _mask(page)
    page.click("[data-do=eraser]")
    _paint(page, 0.1, 0.9)
    assert _mask(page).sum() < right.sum() < (~two).sum()

    page.click("[data-do=clear]")
    page.click("[data-do=brush]")
    size = page.locator(".editor .size")
    before = float(size.input_value())
    page.keyboard.press("]")
    assert float(size.input_value()) > before
    for _ in range(20):
        page.keyboard.press("[")
    assert float(size.input_value()) == 1
    size.fill("200")
    _paint(page, 0.5, 0.5)
    broad = _mask(page).sum()
    assert broad == pytest.approx(np.pi / 4 * (200 * SIZE[0] / 512) ** 2, rel=0.1)
    # Under a lens of 1.5 x 1.5, the middle stays where it is, and so does the size.
    page.click("[data-do=clear]")
    page.click("[data-do=zoom-in]")
    _paint(page, 0.5, 0.5)
    assert _mask(page).sum() == pytest.approx(broad, rel=0.1)
    assert _mask(page)[SIZE[1] // 2, SIZE[0] // 2]
    # What is at the edge of the window is now nearer to the middle of the picture.
    size.fill("40")
    page.click("[data-do=clear]")
    _paint(page, 0.0, 0.0)
    assert _mask(page)[1:4, 3:6].any()


def test_an_edge_is_dragged_and_the_picture_extended(page: Any, photo: bytes) -> None:
    choose(page, "uncrop")
    assert page.locator("[data-side=right]").input_value() == "50"
    page.fill("[data-side=right]", "0")
    box = page.locator(".stage").bounding_box()
    scale = min((box["width"] - 82) / SIZE[0], (box["height"] - 82) / SIZE[1], 16)
    x = box["x"] + box["width"] / 2 - SIZE[0] * scale / 2
    y = box["y"] + box["height"] / 2
    # Outward by a quarter of the picture.
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 0.25 * SIZE[0] * scale, y, steps=4)
    page.mouse.up()
    assert int(page.locator("[data-side=left]").input_value()) in (24, 25, 26)
    page.fill("[data-side=left]", "25")
    page.fill("[data-side=top]", "50")
    name, result = _run(page)
    assert name == "holiday_uncrop_1.png"
    assert result.shape == (SIZE[1] + 8, SIZE[0] + 6, 3)
    np.testing.assert_array_equal(result[8:, 6:], _pixels(photo))


def test_a_dropped_gray_picture_is_colorized_and_taken_on(visit: Any) -> None:
    page = visit()
    rng = np.random.default_rng(1)
    gray = rng.integers(0, 256, SIZE[::-1], dtype=np.uint8)
    _drop(page, "old.png", _png(gray))
    page.get_by_text("old.png, 24 x 16").wait_for()
    choose(page, "colorize")
    _ask_for(page, "fast", 2)
    name, first = _run(page)
    assert name == "old_colorize_1.png" and first.shape == (*SIZE[::-1], 3)
    assert np.ptp(first.astype(int), axis=-1).mean() > 5
    thumbnails = page.locator(".samples img")
    for i in range(2):
        with urllib.request.urlopen(thumbnails.nth(i).get_attribute("src")) as data:
            shown = _pixels(data.read())
        thumbnails.nth(i).click(force=True)  # Its button takes the click.
        name, content = _saved(page, ".download")
        assert name == f"old_colorize_{i + 1}.png"
        np.testing.assert_array_equal(shown, _pixels(content))
    second = _pixels(content)
    assert (first != second).mean() > 0.1
    # Red as far as the two differ, four times as strong.
    page.click(".doubt")
    assert page.locator("img.deviation").is_visible()
    source = page.locator("img.deviation").get_attribute("src")
    with urllib.request.urlopen(source) as data:
        deviation = _pixels(data.read())
    apart = np.abs(first.astype(float) - second).mean(-1) / 2
    np.testing.assert_allclose(deviation[..., 3], (4 * apart).clip(0, 255), atol=1)
    assert (deviation[..., 0] == 255).all() and not deviation[..., 1:3].any()
    page.click(".doubt")
    assert not page.locator("img.deviation").is_visible()
    # The slider follows the mouse, and the keys.
    compare = page.locator(".compare")
    box = compare.bounding_box()
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 20)
    assert compare.get_attribute("aria-valuenow") == "25"
    compare.press("ArrowRight")
    assert compare.get_attribute("aria-valuenow") == "30"

    page.click(".again")
    page.get_by_text("old_colorize_2.png, 24 x 16").wait_for()
    choose(page, "jpeg")
    _ask_for(page, "fast")
    name, result = _run(page)
    assert name == "old_colorize_2_jpeg.png" and result.shape == second.shape


def test_the_result_is_enlarged_up_to_its_pixels_and_beyond(page: Any) -> None:
    choose(page, "superres")
    _run(page)
    size = page.locator(".compare img.after")

    def shown() -> tuple[float, float]:
        box = size.bounding_box()
        return box["width"], box["height"]

    fitted = shown()
    page.click(".one")
    assert shown() == (4 * SIZE[0], 4 * SIZE[1])
    for _ in range(10):
        page.click(".closer")
    assert shown() == (16 * 4 * SIZE[0], 16 * 4 * SIZE[1])  # And no further.
    # What was in the middle is there still.
    frame = page.locator(".result .frame")
    left, most = frame.evaluate("f => [f.scrollLeft, f.scrollWidth - f.clientWidth]")
    assert most > 0 and left == pytest.approx(most / 2, abs=2)
    page.click(".farther")
    assert shown()[0] == pytest.approx(16 * 4 * SIZE[0] / 1.5, abs=1)
    page.click(".fit")
    assert shown() == fitted


def test_the_frames_grow_with_the_window(page: Any) -> None:
    def sizes() -> list[float]:
        boxes = [page.locator(one).bounding_box() for one in (".stage", ".frame")]
        return [box[side] for box in boxes for side in ("width", "height")]

    before = sizes()
    page.set_viewport_size({"width": 2200, "height": 1600})
    page.wait_for_function("document.querySelector('.stage canvas').width > 850")
    assert all(now > 1.3 * then for now, then in zip(sizes(), before, strict=True))
    # The picture is drawn as large as the frame allows, and painted on where it is.
    choose(page, "inpaint")
    _paint(page, 0.5, 0.5)
    rows, columns = np.nonzero(_mask(page))
    assert abs(rows.mean() - 7.5) <= 1 and abs(columns.mean() - 11.5) <= 1


def test_a_folder_is_dropped(visit: Any, tmp_path: pathlib.Path, photo: bytes) -> None:
    """Its pictures are gone through; what is hidden or no picture is left out."""
    for name in ("b10.png", "b9.png", "deep/a.png", ".hidden/c.png", "deep/.d.png"):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
    (tmp_path / "album" / "notes.txt").write_text("no picture")
    page = visit()
    box = page.locator(".stage").bounding_box()
    place = {"x": box["x"] + 50, "y": box["y"] + 50}
    data = {"items": [], "files": [str(tmp_path / "album")], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    for name, count in (("b9.png", 1), ("b10.png", 2), ("a.png", 3)):
        page.get_by_text(f"{name}, 24 x 16").wait_for()
        assert page.locator(".place").inner_text() == f"{count} of 3"
        page.click("[data-do=next]")
    page.click("[data-do=previous]")
    page.get_by_text("b10.png, 24 x 16").wait_for()
    choose(page, "jpeg")
    assert _run(page)[0] == "b10_jpeg.png"


@pytest.mark.parametrize("task", ["inpaint", "uncrop", "colorize"])
def test_the_copied_command_writes_the_same_bytes(
    page: Any, task: str, server: Served, photo: bytes, tmp_path: pathlib.Path
) -> None:
    choose(page, task)
    _ask_for(page, "fast", 2)
    page.locator("#seed input").fill("7")
    if task == "uncrop":
        page.fill("[data-side=left]", "25")
    else:
        _paint(page, 0.3, 0.6)
        name, content = _saved(
            page, "[data-do=save-mask]" if task == "inpaint" else "[data-do=save-hints]"
        )
        (tmp_path / name).write_bytes(content)
    _run(page)
    page.locator(".samples button").nth(1).click()
    _, wanted = _saved(page, ".download")
    page.click(".copy")
    command = page.locator(".command").inner_text()
    assert page.evaluate("String(getSelection())") == command
    (tmp_path / "holiday.png").write_bytes(photo)
    # The page tells the name of the checkpoint, and not where it lies.
    (tmp_path / server.folder.parent.name).symlink_to(server.folder.parent)
    program, *arguments = shlex.split(command)
    assert program == "palette-jax" and "--seed=8" in arguments
    subprocess.run(
        [sys.executable, "-m", "palette_jax.cli", *arguments],
        cwd=tmp_path,
        env={**os.environ, "XLA_FLAGS": _FAST},
        check=True,
    )
    assert (tmp_path / "restored" / "holiday.png").read_bytes() == wanted


def test_strips_are_refused_and_large_pictures_cancelled_at_once(page: Any) -> None:
    strip = _encoded(Image.new("1", (8_000_000, 1)), format="PNG")
    give(page, "strip.png", strip)
    page.locator(".about.wrong", has_text="sides of at most 32,767").wait_for()
    # Hundreds of tiles, each of which takes a moment; and before that, compiling.
    open_photo(page, "long.png", _encoded(Image.new("L", (20_000, 1)), format="PNG"))
    choose(page, "jpeg")
    page.click("#run")
    page.get_by_text("Preparing").wait_for()
    for _ in range(2):  # While it compiles, and while the device is busy.
        page.click("#cancel")
        page.get_by_text("Stopped.").wait_for()
        page.click("#run")
        page.get_by_text("Step 0 of 8").wait_for()
    page.click("#cancel")
    page.get_by_text("Stopped.").wait_for()
    # Nothing came of it, neither a file nor a picture.
    assert page.locator(".download").is_hidden()


def test_each_task_has_its_sentence(visit: Any) -> None:
    page = visit()
    for name in ("colorize", "inpaint", "uncrop", "jpeg", "superres", "old_photo"):
        assert TASKS[name].sentence in page.locator("#heading").inner_text()
        choose(page, name)
        assert page.locator(".hint").inner_text() == TASKS[name].sentence


def test_of_a_guess_there_are_four_to_choose_from(page: Any) -> None:
    choose(page, "colorize")
    name, _ = _run(page)
    assert name == "holiday_colorize_1.png"
    page.locator(".samples img").nth(3).click(force=True)
    name, _ = _saved(page, ".download")
    assert name == "holiday_colorize_4.png"
    choose(page, "jpeg")
    name, _ = _run(page)
    assert name == "holiday_jpeg.png" and not page.locator(".samples img").count()


def test_the_number_of_results_that_was_entered_stays(page: Any) -> None:
    number = page.locator("#num_samples input")
    page.get_by_text("More settings").click()
    choose(page, "jpeg")
    expect = sync_api.expect
    expect(number).to_have_value("1")
    choose(page, "colorize")
    expect(number).to_have_value("4")
    number.fill("1")
    choose(page, "jpeg")
    choose(page, "colorize")
    page.wait_for_timeout(500)
    expect(number).to_have_value("1")


def test_the_mask_stays_with_the_result_as_input(page: Any) -> None:
    choose(page, "inpaint")
    _paint(page, 0.3, 0.6)
    mask = _mask(page)
    assert mask.any()
    _run(page)
    page.click(".again")
    page.get_by_text("holiday_inpaint_1.png, 24 x 16").wait_for()
    np.testing.assert_array_equal(_mask(page), mask)
    page.click("[data-do=take-back]")
    page.get_by_text("holiday.png, 24 x 16").wait_for()
    np.testing.assert_array_equal(_mask(page), mask)
    assert not page.locator("[data-do=take-back]").is_visible()
    open_photo(page, "other.png", _png(np.zeros((*SIZE[::-1], 3), np.uint8)))
    assert not _mask(page).any()


def test_a_page_is_not_left_without_a_question_once_it_is_painted_on(page: Any) -> None:
    choose(page, "inpaint")
    _paint(page, 0.3, 0.6)
    with page.expect_event("dialog") as dialog:
        page.close(run_before_unload=True)
    assert dialog.value.type == "beforeunload"
    dialog.value.dismiss()
    page.click("[data-do=clear]")
    with page.expect_event("close"):
        page.close(run_before_unload=True)


def test_colour_hints_are_painted(page: Any) -> None:
    choose(page, "colorize")
    assert page.evaluate("paletteEditor.value().hints") is None
    page.fill(".color", "#c02010")
    _paint(page, 0.3, 0.6)
    with urllib.request.urlopen(page.evaluate("paletteEditor.value().hints")) as data:
        hints = _pixels(data.read())
    is_hint = hints[..., 3] == 255
    assert is_hint[7, 10] and 0 < is_hint.mean() < 0.2
    assert set(np.unique(hints[..., 3])) == {0, 255}
    # A browser multiplies colours by their opacity, in bytes.
    np.testing.assert_allclose(
        hints[is_hint][:, :3], [[0xC0, 0x20, 0x10]] * is_hint.sum(), atol=2
    )
    assert _run(page)[1].shape == (*SIZE[::-1], 3)
    choose(page, "jpeg")
    assert page.evaluate("paletteEditor.value().hints") is None
    choose(page, "colorize")
    page.keyboard.press("Control+z")
    assert page.evaluate("paletteEditor.value().hints") is None


def test_superres_gives_a_larger_picture(page: Any) -> None:
    choose(page, "superres")
    assert _run(page)[1].shape == (4 * SIZE[1], 4 * SIZE[0], 3)


def test_a_pasted_jpeg_is_restored(visit: Any, photo: bytes) -> None:
    page = visit()
    jpeg = _encoded(Image.fromarray(_pixels(photo)), format="JPEG", quality=10)
    page.evaluate(
        """bytes => {
          const clipboardData = new DataTransfer();
          const content = [new Uint8Array(bytes)];
          clipboardData.items.add(new File(content, 'bad.jpg', {type: 'image/jpeg'}));
          document.dispatchEvent(new ClipboardEvent('paste', {clipboardData}));
        }""",
        list(jpeg),
    )
    page.get_by_text("bad.jpg, 24 x 16").wait_for()
    choose(page, "jpeg")
    name, result = _run(page)
    assert name == "bad_jpeg.png" and result.shape == (*SIZE[::-1], 3)
    assert (result != _pixels(jpeg)).any()


def test_odd_files_are_shown_as_they_are_restored(visit: Any, photo: bytes) -> None:
    """What lies in the editor is what the library reads: upright, and with its mask."""
    page = visit()
    pixels = _pixels(photo)
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by a quarter.
    deep = Image.fromarray(np.full(SIZE[::-1], 30000, np.uint16))
    clear = Image.fromarray(np.dstack([pixels, pixels[..., 0]]))
    turned = _encoded(Image.fromarray(pixels), format="PNG", exif=exif)
    cases = {
        "turned.png": (turned, "16 x 24"),
        "deep.png": (_encoded(deep, format="PNG"), "24 x 16"),
        "clear.png": (_encoded(clear, format="PNG"), "24 x 16"),
        # No browser shows it.
        "scan.tif": (_encoded(Image.fromarray(pixels), format="TIFF"), "24 x 16"),
    }
    choose(page, "inpaint")
    for name, (content, size) in cases.items():
        give(page, name, content)
        page.get_by_text(f"{name}, {size}").wait_for()
        assert _mask(page).shape == files.read(content).pixels.shape[:2]
        page.click("[data-do=clear]")

    # A mask of another size and mode is brought to the picture.
    open_photo(page, "turned.png", turned)
    half = np.zeros((48, 48), np.uint8)
    half[:24] = 255
    give(page, "half.jpg", _encoded(Image.fromarray(half), format="JPEG"), "mask")
    page.get_by_text("it is resized").wait_for()
    assert _mask(page).shape == (24, 16)
    assert _mask(page)[:11].all() and not _mask(page)[13:].any()

    # The mask of a large photograph has its size.
    large = Image.new("RGB", (3000, 2000), (90, 120, 60))
    open_photo(page, "large.jpg", _encoded(large, format="JPEG"))
    box = page.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.up()
    mask = _mask(page)
    assert mask.shape == (2000, 3000)
    rows, columns = np.nonzero(mask)
    # In the middle, and 40 / 512 of the longer side wide.
    assert rows.mean() == pytest.approx(1000, abs=10)
    assert columns.mean() == pytest.approx(1500, abs=10)
    assert np.ptp(columns) == pytest.approx(3000 * 40 / 512, abs=4)


def test_what_cannot_be_done_is_said(visit: Any, photo: bytes) -> None:
    page = visit()

    def refused(said: str) -> None:
        page.click("#run")
        page.locator("#result .wrong", has_text=said).wait_for()
        page.locator("#run").wait_for()

    choose(page, "inpaint")
    refused("expected a picture, got none")
    open_photo(page, "holiday.png", photo)
    refused("expected a painted mask")
    choose(page, "uncrop")
    page.fill("[data-side=right]", "0")
    refused("expected a side to extend")
    choose(page, "colorize")
    _ask_for(page, "fast", 9)
    refused("expected at most 8 results, got 9")
    _ask_for(page, "fast", 1)
    page.locator("#num_steps input").fill("1000000000")
    refused("expected at most 2,000 steps, got 1,000,000,000")


def test_wrong_files_get_a_sentence_and_no_trace(page: Any, photo: bytes) -> None:
    """And the picture that was open stays."""
    large = _encoded(Image.new("1", (4000, 4000)), format="PNG")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    for name, content, said in (
        ("notes.png", b"This is no picture.", "notes.png: expected a picture"),
        ("half.png", photo[:200], "half.png: expected a complete picture"),
        ("large.png", large, "large.png: expected at most 8,000,000 pixels"),
        ("program.eps", script, "program.eps: expected a picture"),
        ("empty.png", b"", "empty.png"),
    ):
        give(page, name, content)
        page.locator(".about.wrong", has_text=said).wait_for()
    page.evaluate("paletteEditor.openAll([new File([new Uint8Array(51e6)], 'huge')])")
    page.locator(
        ".about.wrong", has_text="expected at most 50 MB, got 51 MB"
    ).wait_for()
    assert "Traceback" not in page.content()
    choose(page, "jpeg")
    assert _run(page)[1].shape == (*SIZE[::-1], 3)


def test_two_sessions_wait_for_each_other_and_see_nothing_of_each_other(
    visit: Any, photo: bytes, server: Served
) -> None:
    first, second = visit(), visit()
    open_photo(first, "grandmother.png", photo)
    choose(first, "jpeg")
    _run(first)
    address = server.url + first.locator(".download").get_attribute("href")
    assert _status(address) == 200
    mine = set(_kept(server))

    open_photo(second, "somebody.png", photo)
    choose(second, "jpeg")
    assert "grandmother" in first.content() and "somebody" in second.content()
    assert "grandmother" not in second.content() + second.evaluate(
        "JSON.stringify(Object.values(localStorage))"
    )
    _ask_for(first, "paper", 8)
    first.click("#run")
    first.locator("#result .preview").wait_for()
    second.click("#run")
    second.get_by_text("Waiting: one other is in front of you.").wait_for()
    second.click("#cancel")
    second.get_by_text("Stopped.").wait_for()
    second.click("#run")
    second.get_by_text("Waiting: one other is in front of you.").wait_for()

    # Whoever leaves ends what was computed for them, and their files go.
    first.close()
    second.get_by_text("Done in").wait_for()
    assert _status(address) == 403
    assert not mine & set(_kept(server)) and _kept(server)


def _kept(server: Served) -> list[pathlib.Path]:
    return [path for path in server.folder.glob("*/files/**/*") if path.is_file()]


def _status(address: str) -> int:
    try:
        with urllib.request.urlopen(address) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_files_of_the_server_cannot_be_asked_for(page: Any, server: Served) -> None:
    assert _status(f"{server.url}gradio_api/file=/etc/passwd") == 403
    # The browser says which file it has sent.
    page.route(
        "**/upload*", lambda route: route.fulfill(json=[str(pathlib.Path(__file__))])
    )
    give(page, "mine.png", b"")
    page.get_by_text("expected an uploaded file").wait_for()
    assert pathlib.Path(__file__).exists()


def test_nobody_else_on_the_network_is_let_in(server: Served) -> None:
    port = int(server.url.rstrip("/").rsplit(":", 1)[1])
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    for address in (other for other in others if not other.startswith("127.")):
        with pytest.raises(OSError):
            socket.create_connection((address, port), timeout=5)


def test_fingers_paint_on_a_phone(visit: Any, photo: bytes) -> None:
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    open_photo(page, "holiday.png", photo)
    choose(page, "inpaint")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for name in ("brush", "eraser", "undo", "clear", "load-mask", "save-mask"):
        box = page.locator(f"[data-do={name}]").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] >= 36
    page.locator(".stage").scroll_into_view_if_needed()
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", _place(page, 6, 8))
    fingers("touchMove", _place(page, 12, 8))
    fingers("touchMove", _place(page, 18, 8))
    fingers("touchEnd")
    mask = _mask(page)
    assert mask[7:9, 7:17].all() and not mask[:5].any()
    # Two fingers look closer, and paint nothing.
    fingers("touchStart", _place(page, 9, 12))
    fingers("touchStart", _place(page, 9, 12), _place(page, 15, 12))
    fingers("touchMove", _place(page, 3, 12), _place(page, 21, 12))
    fingers("touchEnd")
    np.testing.assert_array_equal(_mask(page), mask)
