"""The frozen networks against what torchvision, pytorch-fid and lpips compute."""

import functools
import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from palette_jax.errors import WeightsError
from palette_jax.evaluation.metrics import inception, inception_v1, lpips, resnet
from palette_jax.evaluation.metrics.errors import MetricError
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


def test_pictures_too_small_for_lpips_are_refused(tmp_path: pathlib.Path) -> None:
    extract = load("lpips", tmp_path)
    small = np.zeros((1, lpips.MIN_SIDE - 1, 40, 3), np.uint8)
    with pytest.raises(MetricError, match=r"31 pixels or more.*got 30 x 40"):
        extract(small, small)
    least = np.zeros((1, lpips.MIN_SIDE, 40, 3), np.uint8)
    assert extract(least, least)["lpips"] == 0
    assert extract(least, 255 - least)["lpips"] > 0


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
