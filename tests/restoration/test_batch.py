"""Batches of degraded pictures: what is kept, and what a result depends on."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from jax import Array
from jax.tree_util import Partial

from palette_jax import parallel
from palette_jax.config import build
from palette_jax.configs import uncrop
from palette_jax.diffusion import samplers, schedules
from palette_jax.restoration.batch import image_keys, predictor, restore_batch

IDS = np.arange(100, 108, dtype=np.uint32)


def _batch() -> dict[str, np.ndarray]:
    """Eight crops of a photograph: four with holes, four to paint anew."""
    photo = skimage.data.astronaut()[::8, ::8]
    corners = [
        (0, 0),
        (20, 12),
        (30, 30),
        (8, 40),
        (44, 5),
        (16, 16),
        (40, 24),
        (5, 28),
    ]
    x = np.stack([photo[i : i + 16, j : j + 16] for i, j in corners])
    hole = np.zeros((8, 16, 16, 1), np.uint8)
    hole[0, :, 8:] = hole[1, 4:12, 4:12] = hole[2, :5] = hole[3, ::2, ::3] = 1
    return {"x": x * (1 - hole), "hole": hole, "id": IDS}


def _some(batch: dict[str, np.ndarray], rows: list[int]) -> dict[str, np.ndarray]:
    return {name: value[rows] for name, value in batch.items()}


@functools.cache
def _network() -> tuple[Any, Any]:
    """A small network whose every weight matters."""
    config = uncrop.get_config("tiny")
    config.data.image_size = 16
    config.model.base_features = 8
    config.model.feature_multipliers = (1, 2)
    config.sample.sampler = "ddpm"
    config.sample.num_steps = 4
    params = jax.jit(lambda: build.init_params(jax.random.key(0), config))()
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [
        leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return config, jax.tree.unflatten(tree, leaves)


def _restore(
    batch: dict[str, np.ndarray], *, devices: int = 1, sample_index: int = 0
) -> np.ndarray:
    """Restores with the network, on some of the devices."""
    config, params = _network()
    mesh = parallel.make_mesh(devices=jax.devices()[:devices])
    restore = build.make_restore(config, mesh)
    return restore(params, batch, sample_index)


@functools.cache
def _together() -> np.ndarray:
    return _restore(_batch())


def _assert_same_picture(got: np.ndarray, expected: np.ndarray) -> None:
    """The same but for a rounding of the network's sums that depends on the shape."""
    apart = np.abs(got.astype(int) - expected)
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01


def test_known_pixels_are_kept_to_the_bit_and_the_others_painted() -> None:
    batch, restored = _batch(), _together()
    assert restored.dtype == np.uint8
    known = np.broadcast_to(batch["hole"] == 0, restored.shape)
    for i in range(4):
        np.testing.assert_array_equal(restored[i][known[i]], batch["x"][i][known[i]])
        assert len(np.unique(restored[i][~known[i]])) > 20
    assert np.all((restored[4:] != batch["x"][4:]).mean((1, 2, 3)) > 0.5)


def test_what_lies_in_a_hole_is_not_looked_at() -> None:
    batch = _batch()
    batch["x"] = np.where(batch["hole"], 201, batch["x"])
    np.testing.assert_array_equal(_restore(batch), _together())


@pytest.mark.parametrize("rows", [[0], [5], [7, 0, 3, 5]])
def test_a_picture_is_restored_the_same_alone_and_at_any_place(rows: list[int]) -> None:
    _assert_same_picture(_restore(_some(_batch(), rows)), _together()[rows])


@pytest.mark.parametrize("devices", [2, 4])
def test_the_devices_do_not_change_a_picture(devices: int) -> None:
    _assert_same_picture(_restore(_batch(), devices=devices), _together())


def test_another_sample_is_another_picture_and_the_same_again() -> None:
    again = _restore(_batch(), sample_index=0)
    np.testing.assert_array_equal(again, _together())
    other = _restore(_batch(), sample_index=1)
    painted = np.broadcast_to(_batch()["hole"], other.shape) > 0
    painted[4:] = True
    for i in range(8):
        assert (other[i] != again[i])[painted[i]].mean() > 0.5


def test_equal_pictures_of_different_names_are_restored_differently() -> None:
    batch = _some(_batch(), [0, 0])
    batch["id"] = np.array([1, 2], np.uint32)
    first, second = _restore(batch)
    assert (first != second)[:, 8:].mean() > 0.5


def test_a_key_follows_from_the_seed_the_id_and_the_sample() -> None:
    def data(seed: int, ids: list[int], index: int) -> list[tuple[int, ...]]:
        keys = image_keys(seed, jnp.array(ids, jnp.uint32), sample_index=index)
        return [tuple(row) for row in jax.random.key_data(keys).tolist()]

    assert data(0, [5, 6, 7], 0) == data(0, [5], 0) + data(0, [6], 0) + data(0, [7], 0)
    drawn = [
        row
        for seed in (0, 1)
        for index in range(3)
        for row in data(seed, [0, 1, 2, 2**32 - 1], index)
    ]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("objective", ["denoise", "velocity"])
def test_a_network_is_never_asked_below_the_levels_it_knows(objective: str) -> None:
    # The paper's sampling schedule goes far below.
    schedule = schedules.linear_schedule(1000, 1e-4, 0.09)
    floor = 1e-3
    assert schedule.gamma[-1] < floor / 1e6
    asked = []

    def apply(params: Array, x: Array, y_t: Array, gamma: Array) -> Array:
        jax.debug.callback(lambda g: asked.append(float(g.min())), gamma)
        return y_t * params

    batch = _some(_batch(), [0])
    restore_batch(
        image_keys(0, jnp.array(batch["id"])),
        predictor(apply, jnp.float32(1), objective=objective, gamma_floor=floor),
        jnp.array(batch["x"]),
        jnp.array(batch["hole"]),
        samplers.ddim(schedules.respace(schedule, 10)),
    )
    jax.effects_barrier()
    assert len(asked) == 10
    assert min(asked) == pytest.approx(floor) and max(asked) > 0.5


def test_the_hole_and_the_start_have_noise_of_their_own() -> None:
    seen = {}

    def predict(x: Array, y_t: Array, gamma: Array) -> Array:
        jax.debug.callback(lambda x, y_t: seen.update(x=x, y_t=y_t), x, y_t)
        return jnp.zeros_like(x)

    sampler = samplers.ddim(schedules.linear_schedule(1, 0.9999, 0.9999))
    keys = image_keys(0, jnp.arange(4, dtype=jnp.uint32))
    x = jnp.zeros((4, 16, 16, 3), jnp.uint8)
    restore_batch(
        keys, Partial(predict), x, jnp.ones((4, 16, 16, 1), jnp.uint8), sampler
    )
    jax.effects_barrier()
    correlation = np.corrcoef(seen["x"].ravel(), seen["y_t"].ravel())[0, 1]
    # Five standard errors of a correlation of independent numbers.
    assert abs(correlation) < 5 / np.sqrt(seen["x"].size)
