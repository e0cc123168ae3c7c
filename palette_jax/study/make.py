"""Writes the page of a study: one HTML file that contains all pictures."""

import hashlib
import json
import pathlib
import random
import secrets
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from palette_jax import atomic
from palette_jax.errors import UserError
from palette_jax.evaluation import folders
from palette_jax.pictures import files, resize

MIN_MILLISECONDS = 300
"""Faster answers do not count: nobody sees a picture in that time."""


def write(
    out: pathlib.Path,
    answer_key: pathlib.Path,
    originals: pathlib.Path,
    methods: Mapping[str, pathlib.Path],
    *,
    seconds: float,
    pairs: int,
    catches: int,
    seed: int,
) -> int:
    """Writes the page and its answer key; returns the number of pairs for each person.

    Each person sees each picture once, by one of the methods. The seed and the person's
    name determine methods, order and sides. The page contains neither names nor methods
    nor the solution; the answer key contains them.

    Raises:
      UserError: for names that do not match, different sizes, or numbers out of range.
    """
    if not 0 < seconds <= 3600 or pairs < 1 or not 0 <= catches <= 100:
        raise UserError(
            "expected --seconds above 0, --pairs of 1 or more and --catches of 0 to"
            f" 100, got {seconds:g}, {pairs} and {catches}"
        )
    if answer_key.resolve() == out.resolve():
        raise UserError(f"expected two files, got {out} for page and key; change --key")
    if answer_key.exists():
        raise UserError(
            f"{answer_key} exists; without it the answers of its study mean nothing:"
            " give another --out, or remove it"
        )
    for name, path in methods.items():
        if path.resolve() == originals.resolve():
            raise UserError(
                f"expected results in --method={name}={path}, got the folder of the"
                " originals; name the folder of the method's results"
            )
    matched = {name: folders.pair(path, originals) for name, path in methods.items()}
    names = sorted(next(iter(matched.values())))
    # A person sees `pairs` of these; more would only enlarge the file.
    chosen = sorted(random.Random(seed).sample(names, min(len(names), 2 * pairs)))
    order = secrets.SystemRandom().sample(sorted(methods), len(methods))
    answers: dict[str, Any] = {}

    def hide(camera: Any, made: Any, **about: Any) -> list[str]:
        """Returns the anonymous pair, and stores its answer."""
        name, place = secrets.token_hex(4), secrets.randbelow(2)
        answers[name] = {**about, "camera": place}
        # Encoded again, so that both files have the same form.
        both = [files.data_uri(Image.fromarray(each)) for each in (made, camera)]
        return [name, *(both if place else both[::-1])]

    pictures, plain = [], []
    copies = dict.fromkeys(order, 0)
    for name in chosen:
        camera = files.read(matched[order[0]][name].reference).pixels
        hidden = []
        for method in order:
            path = matched[method][name].result
            made = files.read(path).pixels
            if made.shape != camera.shape:
                raise UserError(
                    f"expected {path} to be as large as its original,"
                    f" {camera.shape[1]} x {camera.shape[0]}, got"
                    f" {made.shape[1]} x {made.shape[0]}"
                )
            copies[method] += np.array_equal(made, camera)
            hidden.append(hide(camera, made, picture=name, method=method))
        pictures.append(hidden)
    for method, count in copies.items():
        if count == len(chosen):
            raise UserError(
                f"expected results in {methods[method]}, got pictures equal to the"
                " originals; name the folder of the method's results"
            )
    for index in range(catches):
        name = chosen[index % len(chosen)]
        camera = files.read(matched[order[0]][name].reference).pixels
        about = {"picture": name, "method": ""}
        plain.append(hide(camera, _blocks(camera), **about))
    content: dict[str, Any] = {
        "seed": seed,
        "seconds": seconds,
        "pairs": min(pairs, len(chosen)),
        "min_milliseconds": MIN_MILLISECONDS,
        "pictures": pictures,
        "catches": plain,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    content["id"] = digest[:8]
    template = resources.files("palette_jax.study").joinpath("study.html").read_text()
    text = json.dumps(content)
    content_of_key = {"study": content["id"], "pairs": answers}
    try:
        for path, written in (
            (answer_key, json.dumps(content_of_key, indent=1)),
            (out, template.replace("/*STUDY*/", text)),
        ):
            atomic.write_text(path, written)
    except OSError as error:
        raise UserError(f"could not write {out} and {answer_key}: {error}") from error
    return content["pairs"] + catches


def _blocks(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture of a few large squares, which is obviously not a photograph."""
    height, width = pixels.shape[:2]
    rows, columns = (np.arange(side) * 6 // side for side in (height, width))
    small = resize.resize(pixels, min(6, height), min(6, width))
    return small[rows.clip(max=len(small) - 1)][:, columns.clip(max=small.shape[1] - 1)]
