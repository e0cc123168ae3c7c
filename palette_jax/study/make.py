"""Writes the page of a study: pictures and all in one HTML file."""

import base64
import hashlib
import io
import json
import pathlib
import random
from collections.abc import Mapping
from importlib import resources
from typing import Any

from PIL import Image

from palette_jax import atomic
from palette_jax.errors import UserError
from palette_jax.evaluation import folders
from palette_jax.pictures import files


def write(
    out: pathlib.Path,
    originals: pathlib.Path,
    methods: Mapping[str, pathlib.Path],
    *,
    seconds: float,
    pairs: int,
    seed: int,
) -> int:
    """Writes the page; returns how many pairs a person sees.

    Everybody sees a picture once, by one of the methods. Which ones, in which order and
    on which sides follows from the seed and the person's name.

    Args:
      out: the file.
      originals: the folder of pictures from a camera.
      methods: the folders of results, under the same names, by method.
      seconds: how long a pair is shown.
      pairs: how many a person sees, or as many as there are pictures.
      seed: which pictures are taken if there are more than enough, too.

    Raises:
      UserError: for names that do not match, sizes that differ, or numbers that make no
        sense.
    """
    if not 0 < seconds <= 3600 or pairs < 1:
        raise UserError(
            "expected --seconds above 0 and --pairs of 1 or more, got"
            f" {seconds:g} and {pairs}"
        )
    matched = {name: folders.pair(path, originals) for name, path in methods.items()}
    names = sorted(next(iter(matched.values())))
    # A person sees `pairs` of these; more would make the file large for nothing.
    chosen = sorted(random.Random(seed).sample(names, min(len(names), 2 * pairs)))
    pictures = []
    for name in chosen:
        camera = files.read(matched[next(iter(matched))][name].reference).pixels
        made = {
            method: files.read(found[name].result).pixels
            for method, found in matched.items()
        }
        for method, pixels in made.items():
            if pixels.shape != camera.shape:
                raise UserError(
                    f"expected {matched[method][name].result} to be as large as its"
                    f" original, {camera.shape[1]} x {camera.shape[0]}, got"
                    f" {pixels.shape[1]} x {pixels.shape[0]}"
                )
        pictures.append(
            {
                "name": name,
                "camera": _data_uri(camera),
                "made": {method: _data_uri(p) for method, p in made.items()},
            }
        )
    content: dict[str, Any] = {
        "seed": seed,
        "seconds": seconds,
        "pairs": min(pairs, len(chosen)),
        "methods": list(methods),
        "pictures": pictures,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    content["id"] = digest[:8]
    template = resources.files("palette_jax.study").joinpath("study.html").read_text()
    # `</script>` in a name would end the script that holds it.
    text = json.dumps(content).replace("<", "\\u003c")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(out, template.replace("/*STUDY*/", text))
    except OSError as error:
        raise UserError(f"could not write {out}: {error}") from error
    return content["pairs"]


def _data_uri(pixels: Any) -> str:
    """Returns a picture as an address that holds it: PNG, so nothing is changed.

    Both of a pair are written again, so that no file format tells them apart.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
