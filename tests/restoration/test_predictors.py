"""The clean picture, from networks that give noise, velocity or picture."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from palette_jax.config import build
from palette_jax.configs import uncrop
from palette_jax.restoration.batch import image_keys, predictor, restore_batch


# Above the noisiest level, the floor is what the network is told, and nothing else.
@pytest.mark.parametrize("floor", [1e-5, 0.1])
@pytest.mark.parametrize("objective", ["denoise", "velocity"])
def test_the_picture_follows_from_what_the_network_gives(
    objective: str, floor: float
) -> None:
    rng = np.random.default_rng(0)
    y, noise = (jnp.array(rng.normal(size=(3, 4, 4, 3)), jnp.float32) for _ in range(2))
    gamma = jnp.array([1e-4, 0.5, 0.999])
    root_gamma, root_var = (
        jnp.sqrt(g)[:, None, None, None] for g in (gamma, 1 - gamma)
    )

    def apply(params: Array, x: Array, y_t: Array, told: Array) -> Array:
        np.testing.assert_allclose(told, jnp.maximum(gamma, floor))
        if objective == "denoise":
            return noise
        return root_gamma * noise - root_var * x

    predict = predictor(apply, jnp.zeros(()), objective=objective, gamma_floor=floor)
    picture = predict(y, root_gamma * y + root_var * noise, gamma)
    # The noise of gamma 1e-4 hides all but a hundredth of the picture.
    np.testing.assert_allclose(picture, y, atol=1e-4)


@pytest.mark.parametrize("hole", [0, 5])
def test_the_picture_that_the_network_gives_is_the_result(hole: int) -> None:
    config = uncrop.get_config("tiny")
    config.diffusion.objective = "regress"
    sampler = build.make_sampler(config)
    assert sampler.num_steps == 1
    rng = np.random.default_rng(0)
    x = jnp.array(rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    holes = np.zeros((2, 8, 8, 1), np.uint8)
    holes[:, :hole] = 1

    def apply(params: Array, x: Array, y_t: Array, gamma: Array) -> Array:
        # What depends on the noise would show in the comparison.
        return jnp.broadcast_to(params, x.shape) + y_t

    picture = 100 / 127.5 - 1
    predict = predictor(
        apply,
        jnp.float32(picture),
        objective="regress",
        gamma_floor=build.schedule_end(config),
    )
    keys = image_keys(0, jnp.arange(2, dtype=jnp.uint32))
    result = restore_batch(keys, predict, x, jnp.array(holes), sampler)
    painted = holes if hole else np.ones_like(holes)
    np.testing.assert_array_equal(result, np.where(painted, 100, x))


def test_a_network_of_squares_leaves_no_lattice() -> None:
    """Whatever it says: of one that hands through all that it sees."""
    rng = np.random.default_rng(0)
    y_t = rng.standard_normal((2, 8, 12, 3)).astype(np.float32)
    pattern = rng.standard_normal((2, 2, 3)).astype(np.float32)
    tiled = np.tile(pattern, (4, 6, 1))

    def restored(y_t: np.ndarray, size: int) -> np.ndarray:
        predict = predictor(
            lambda params, x, y_t, gamma: x,
            {},
            objective="regress",
            gamma_floor=0.0,
            patch_size=size,
        )
        return np.asarray(predict(jnp.array(y_t), jnp.array(y_t), jnp.full(2, 0.5)))

    with_lattice = restored(y_t + tiled, 2)
    # What differs from the places' own mean goes, that mean stays.
    np.testing.assert_allclose(
        with_lattice, restored(y_t, 2) + pattern.mean((0, 1)), atol=1e-5
    )
    places = with_lattice.reshape(2, 4, 2, 6, 2, 3).mean((1, 3))
    np.testing.assert_allclose(
        places,
        np.broadcast_to(with_lattice.mean((1, 2))[:, None, None], places.shape),
        atol=1e-5,
    )
    np.testing.assert_allclose(restored(with_lattice, 2), with_lattice, atol=1e-5)
