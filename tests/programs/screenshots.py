"""Pictures of the page at each task, for the README and docs/demo.md.

    python -m tests.programs.screenshots PICTURE docs/images [--checkpoint DIR|FILE]

The picture is made gray, painted over, extended and compressed; the page does the rest.
"""

import argparse
import io
import pathlib
import tempfile
from typing import Any

from PIL import Image, ImageOps

from tests.programs import browse

WIDTH, MAX_BYTES = 1280, 200_000
# What is painted over, in shares of the sides: clouds, in the picture of docs/demo.md.
STROKE = ((0.68, 0.335), (0.75, 0.325), (0.82, 0.335))


def main() -> None:
    """Takes one picture of each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--checkpoint")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    photo = Image.open(args.picture).convert("RGB")
    flags = [f"--checkpoint={args.checkpoint}"] if args.checkpoint else []
    with (
        tempfile.TemporaryDirectory() as folder,
        browse.serve(pathlib.Path(folder), *flags) as server,
        browse.chromium() as browser,
    ):
        assert browser is not None, "expected Chromium or Chrome, got none; install one"
        for task, given in {
            "colorize": _encoded(photo.convert("L"), "PNG"),
            "inpaint": _encoded(photo, "PNG"),
            "uncrop": _encoded(photo, "PNG"),
            # It is restored in tiles, which takes long for a large one.
            "jpeg": _encoded(ImageOps.contain(photo, (288, 288)), "JPEG", quality=10),
        }.items():
            context = browser.new_context(viewport={"width": WIDTH, "height": 800})
            page = browse.open_page(context, server.url)
            kind = "jpg" if task == "jpeg" else "png"
            browse.open_photo(page, f"{args.picture.stem}.{kind}", given)
            browse.choose(page, task)
            if task == "inpaint":
                _paint(page, photo.size)
            elif task == "uncrop":
                page.fill("[data-side=right]", "25")
            page.click("#run")
            page.get_by_text("Done in").wait_for(timeout=0)  # However long it takes.
            page.wait_for_function(
                "[...document.querySelectorAll('.compare img')].every(i => i.complete)"
            )
            for _ in range(4):  # More of what came of it.
                page.locator(".compare").press("ArrowLeft")
            page.locator(".compare").blur()
            page.mouse.move(0, 0)
            page.wait_for_timeout(500)  # Until the button has its own colour again.
            content = _small(page.screenshot(full_page=True))
            path = args.out / f"demo_{task}.png"
            path.write_bytes(content)
            print(f"{path}: {len(content) // 1000} kB", flush=True)
            context.close()


def _paint(page: Any, size: tuple[int, int]) -> None:
    box = page.locator(".stage").bounding_box()
    scale = min(box["width"] / size[0], box["height"] / size[1])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            box["x"] + box["width"] / 2 + (x - 0.5) * scale * size[0],
            box["y"] + box["height"] / 2 + (y - 0.5) * scale * size[1],
        )

    page.mouse.move(*place(*STROKE[0]))
    page.mouse.down()
    for corner in STROKE[1:]:
        page.mouse.move(*place(*corner), steps=8)
    page.mouse.up()


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def _small(screenshot: bytes) -> bytes:
    """Returns it with as many colours as the bytes allow."""
    image = Image.open(io.BytesIO(screenshot)).convert("RGB")
    for colors in (256, 128, 64, 48, 32, 24, 16):
        content = _encoded(
            image.quantize(colors, Image.Quantize.FASTOCTREE), "PNG", optimize=True
        )
        if len(content) <= MAX_BYTES:
            break
    return content


if __name__ == "__main__":
    main()
