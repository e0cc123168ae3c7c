"""Networks whose outputs are known in closed form, in place of the public ones."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from palette_jax.evaluation import suite
from palette_jax.evaluation.metrics import inception, weight_files
from palette_jax.evaluation.metrics.extractor import Extractor

SHA256 = "0123456789abcdef" * 4


def install(monkeypatch: pytest.MonkeyPatch, *, is_broken: bool = False) -> None:
    """Makes all metrics available.

    Inception's features and the pooled ones of v1 are the mean red, green and blue, 0
    to 255; the classifier says the mean red; LPIPS is the mean difference.
    """

    def load_means(*outputs: str) -> Any:
        def load(*paths: pathlib.Path, **options: Any) -> Extractor:
            def apply(params: Any, pictures: jax.Array) -> dict[str, jax.Array]:
                means = pictures.mean((1, 2))
                if is_broken:
                    means = jnp.where(means[:, :1] > 150, jnp.nan, means)
                classes = jnp.round(means[:, :1]).astype(int) == jnp.arange(256)[None]
                found = {name: means for name in outputs}
                return found | {"logits": classes.astype(jnp.float32)}

            return _extractor(apply, (*outputs, "logits"), options)

        return load

    def load_lpips(*paths: pathlib.Path, **options: Any) -> Extractor:
        def apply(params: Any, a: jax.Array, b: jax.Array) -> dict[str, jax.Array]:
            return {"lpips": jnp.abs(a - b).mean((1, 2, 3))}

        return _extractor(apply, ("lpips",), options)

    for name, load in {
        "inception": load_means("64", "2048"),
        "resnet50": load_means(),
        "inception_v1": load_means("pool"),
        "lpips": load_lpips,
        "lpips_vgg": load_lpips,
    }.items():
        network = suite._NETWORKS[name]._replace(load=load)
        monkeypatch.setitem(suite._NETWORKS, name, network)
    monkeypatch.setattr(inception, "find", lambda: epath.Path("inception.pth"))
    monkeypatch.setattr(weight_files, "find", epath.Path)
    monkeypatch.setattr(weight_files, "sha256", lambda path: SHA256)
    monkeypatch.setattr(weight_files, "differs", lambda name, digest: "")


def _extractor(apply: Any, outputs: tuple[str, ...], options: Any) -> Extractor:
    for seen in ("clean", "whole"):  # All see the pictures as they are.
        options.pop(seen, None)

    def prepare(pictures: jax.Array) -> jax.Array:
        return pictures.astype(jnp.float32)

    return Extractor(prepare, apply, {}, sha256=SHA256, outputs=outputs, **options)
