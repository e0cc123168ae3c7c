"""The frozen networks against what torchvision, pytorch-fid and lpips compute."""

import functools
import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from palette_jax.errors import WeightsError
from palette_jax.evaluation.metrics import inception, inception_v1, lpips, resnet
from palette_jax.evaluation.metrics.extractor import Extractor
from tests.evaluation.metrics.write_network_numbers import (
    FILE,
    draw_pictures,
    draw_state,
)
from tests.interop.files import write_torch

NUMBERS = json.loads(FILE.read_text())
LOAD: dict[str, Callable[..., Extractor]] = {
    "inception": inception.load,
    "resnet50": resnet.load,
    "inception_v1": inception_v1.load,
}


@functools.cache
def state_of(network: str) -> dict[str, np.ndarray]:
    return draw_state(NUMBERS[network]["shapes"])


def load(network: str, folder: pathlib.Path) -> Extractor:
    path = folder / f"{network}.pth"
    if network != "lpips":
        write_torch(path, state_of(network))
        return LOAD[network](path, batch_size=2)
    linear = {k: v for k, v in state_of("lpips").items() if k.startswith("lin")}
    alexnet = {k: v for k, v in state_of("lpips").items() if k not in linear}
    write_torch(path, alexnet)
    write_torch(folder / "linear.pth", linear)
    return lpips.load(path, folder / "linear.pth", batch_size=2)


@pytest.mark.slow
@pytest.mark.parametrize("network", NUMBERS)
def test_outputs_are_those_of_an_independent_network(
    tmp_path: pathlib.Path, network: str
) -> None:
    extract = load(network, tmp_path)
    got = extract(*draw_pictures(network))
    expected = NUMBERS[network]["out"]
    assert set(extract.outputs) == got.keys() == expected.keys()
    for name, values in expected.items():
        step = 7 if got[name].ndim > 1 else 1
        np.testing.assert_allclose(
            got[name].ravel()[::step],
            values,
            rtol=1e-4,
            atol=1e-4 * np.std(values) if step > 1 else 0,
            err_msg=name,
        )


def test_the_smallest_pictures_for_lpips(tmp_path: pathlib.Path) -> None:
    extract = load("lpips", tmp_path)
    least = np.zeros((1, lpips.MIN_SIDE, 40, 3), np.uint8)
    assert extract(least, least)["lpips"] == 0
    assert extract(least, 255 - least)["lpips"] > 0


def test_lpips_with_vgg_is_its_definition(tmp_path: pathlib.Path) -> None:
    blocks = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
    channels, shapes, before = (64, 128, 256, 512, 512), {}, 3
    for index, (layers, wide) in enumerate(zip(blocks, channels, strict=True)):
        for layer in layers:
            shapes[f"features.{layer}.weight"] = (wide, before, 3, 3)
            shapes[f"features.{layer}.bias"] = (wide,)
            before = wide
        shapes[f"lin{index}.model.1.weight"] = (1, wide, 1, 1)
    state = draw_state(shapes)
    files = (tmp_path / "vgg16.pth", tmp_path / "vgg.pth")
    write_torch(files[0], {k: v for k, v in state.items() if k.startswith("features")})
    write_torch(files[1], {k: v for k, v in state.items() if k.startswith("lin")})
    first, second = np.random.default_rng(1).integers(
        0, 256, (2, 1, 36, 33, 3), np.uint8
    )
    got = lpips.load(*files, vgg=True, batch_size=1)(first, second)["lpips"][0]
    expected = 0.0
    for index, (a, b) in enumerate(
        zip(_vgg(first[0], state, blocks), _vgg(second[0], state, blocks), strict=True)
    ):
        a, b = (h / np.linalg.norm(h, axis=0) for h in (a, b))
        weight = state[f"lin{index}.model.1.weight"][0]
        expected += float(((a - b) ** 2 * weight).sum(0).mean())
    assert got == pytest.approx(expected, rel=1e-4)


def _vgg(
    picture: np.ndarray, state: dict[str, np.ndarray], blocks: tuple
) -> list[np.ndarray]:
    """The last activations of each block, by sums over shifted copies."""
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    # LPIPS rounds these numbers, of [-1, 1], to three digits.
    scaled = ((2 * (picture / 255) - 1) - (-0.030, -0.088, -0.188)) / (
        0.458,
        0.448,
        0.450,
    )
    np.testing.assert_allclose(
        scaled, (picture / 255 - mean) / deviation, atol=0.02, rtol=0.01
    )
    h, outputs = scaled.transpose(2, 0, 1), []
    for index, layers in enumerate(blocks):
        if index:
            height, width = (side // 2 * 2 for side in h.shape[1:])
            cut = h[:, :height, :width]
            h = cut.reshape(len(h), height // 2, 2, width // 2, 2).max((2, 4))
        for layer in layers:
            padded = np.pad(h, ((0, 0), (1, 1), (1, 1)))
            kernel = state[f"features.{layer}.weight"]
            shifted = [
                np.einsum(
                    "oc,chw->ohw",
                    kernel[:, :, i, j],
                    padded[:, i : i + h.shape[1], j : j + h.shape[2]],
                    optimize=True,
                )
                for i in range(3)
                for j in range(3)
            ]
            bias = state[f"features.{layer}.bias"][:, None, None]
            h = np.maximum(sum(shifted) + bias, 0)
        outputs.append(h)
    return outputs


def test_weights_of_another_network_are_refused(tmp_path: pathlib.Path) -> None:
    small = {k: np.zeros(1, np.float32) for k in ("layer1.0.conv1.weight", "fc.weight")}
    write_torch(tmp_path / "w.pth", small)
    for load_one in LOAD.values():
        with pytest.raises(WeightsError, match=r"w\.pth: .*got a file without"):
            load_one(tmp_path / "w.pth")
    state = {**state_of("lpips"), "features.0.bias": np.zeros(3, np.float32)}
    write_torch(tmp_path / "w.pth", state)
    with pytest.raises(WeightsError, match=r"features\.0 .*\(64,\).*\(3,\)"):
        lpips.load(tmp_path / "w.pth", tmp_path / "w.pth")
    del state["features.0.bias"]  # Nothing that a file lacks is taken for zeros.
    write_torch(tmp_path / "w.pth", state)
    with pytest.raises(WeightsError, match=r"without features\.0\.bias"):
        lpips.load(tmp_path / "w.pth", tmp_path / "w.pth")
