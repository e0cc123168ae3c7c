"""The loss: which pixels count, which levels are drawn, what the network is shown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from palette_jax.diffusion import objective, process, schedules

SCHEDULE = schedules.linear_schedule(2000, 1e-6, 0.01)


def _batch(size: int = 8, count: int = 4, hole: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    holes = np.zeros((count, size, size, 1), np.uint8)
    holes[:, :hole, :hole] = 1
    return {
        "y": jnp.array(y),
        "x": jnp.array(y * (1 - holes)),
        "hole": jnp.array(holes),
    }


def test_bytes_survive_the_way_to_floats_and_back() -> None:
    everything = jnp.arange(256, dtype=jnp.uint8)
    floats = process.to_float(everything)
    assert float(floats.min()) == -1 and float(floats.max()) == 1
    np.testing.assert_array_equal(process.to_bytes(floats), everything)


def test_levels_are_uniform_in_t_and_lie_between_their_neighbours() -> None:
    count = 40_000
    level = objective.draw_level(jax.random.split(jax.random.key(0), count), SCHEDULE)
    t, gamma, var = (np.asarray(a, np.float64) for a in level)
    above = np.append(1.0, SCHEDULE.gamma)[t.astype(int)]
    below = SCHEDULE.gamma[t.astype(int)]
    assert np.all((gamma <= above * (1 + 1e-6)) & (gamma >= below * (1 - 1e-6)))
    np.testing.assert_allclose(gamma + var, 1.0, atol=1e-6)
    counts = np.bincount(t.astype(int) // 200, minlength=10)
    # Five standard deviations of a count of 40,000 / 10.
    np.testing.assert_allclose(counts, 4000, atol=5 * 60)
    assert t.min() == 0 and t.max() == 1999, "the first and the last are drawn too"


def test_var_is_exact_where_float32_cannot_subtract_gamma_from_1() -> None:
    one_step = schedules.NoiseSchedule(SCHEDULE.gamma[:1], SCHEDULE.var[:1])
    level = objective.draw_level(jax.random.split(jax.random.key(0), 1000), one_step)
    # Uniform between 0 and 1e-6, a range in which 1 - gamma takes 17 values.
    assert len(np.unique(np.asarray(level.var))) > 900
    assert float(level.var.mean()) == pytest.approx(0.5e-6, rel=0.1)


def test_the_loss_of_an_untrained_network_is_1() -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    for hole in (0, 3):
        losses, _ = objective.denoising_loss(
            keys, lambda x, y_t, gamma: 0 * y_t, _batch(32, hole=10 * hole), SCHEDULE
        )
        assert losses.shape == (4,)
        np.testing.assert_allclose(losses.mean(), 1.0, atol=0.05)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_an_exact_predictor_has_no_loss(norm: str) -> None:
    batch = _batch(hole=4)
    y = process.to_float(batch["y"])

    def predict_noise(x: Array, y_t: Array, gamma: Array) -> Array:
        gamma = gamma[:, None, None, None]
        return (y_t - jnp.sqrt(gamma) * y) / jnp.sqrt(1 - gamma)

    keys = jax.random.split(jax.random.key(3), 4)
    losses, _ = objective.denoising_loss(
        keys, predict_noise, batch, SCHEDULE, norm=norm
    )
    np.testing.assert_allclose(losses, 0.0, atol=1e-3)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_an_exact_velocity_has_no_loss(norm: str) -> None:
    batch = _batch(hole=4)
    y = process.to_float(batch["y"])

    def predict_velocity(x: Array, y_t: Array, gamma: Array) -> Array:
        gamma = gamma[:, None, None, None]
        noise = (y_t - jnp.sqrt(gamma) * y) / jnp.sqrt(1 - gamma)
        return jnp.sqrt(gamma) * noise - jnp.sqrt(1 - gamma) * y

    keys = jax.random.split(jax.random.key(3), 4)
    losses, _ = objective.velocity_loss(
        keys, predict_velocity, batch, SCHEDULE, norm=norm
    )
    np.testing.assert_allclose(losses, 0.0, atol=1e-3)


def test_an_error_of_the_velocity_is_one_of_the_noise_over_gamma() -> None:
    batch, keys = _batch(hole=4), jax.random.split(jax.random.key(1), 4)

    def off(predicts: str) -> Array:
        def predict(x: Array, y_t: Array, gamma: Array) -> Array:
            gamma = gamma[:, None, None, None]
            if predicts == "noise":
                return 0.3 * x + jnp.sqrt(1 - gamma) * y_t
            return 0.3 * x / jnp.sqrt(gamma)

        loss = {"noise": objective.denoising_loss, "velocity": objective.velocity_loss}
        losses, level = loss[predicts](keys, predict, batch, SCHEDULE)
        return losses * level.gamma if predicts == "velocity" else losses

    np.testing.assert_allclose(off("velocity"), off("noise"), rtol=1e-3)


def test_regression_is_asked_for_the_picture_and_shown_nothing_of_it() -> None:
    batch = _batch(16, hole=8)
    y, seen = process.to_float(batch["y"]), {}

    def predict_picture(x: Array, y_t: Array, gamma: Array) -> Array:
        seen.update(x=x, y_t=y_t, gamma=gamma)
        return jnp.where(batch["hole"] > 0, y + 0.5, 1e6)

    keys = jax.random.split(jax.random.key(0), 4)
    losses, _ = objective.regression_loss(keys, predict_picture, batch, SCHEDULE)
    np.testing.assert_allclose(losses, 0.25, rtol=1e-5)
    losses, _ = objective.regression_loss(
        keys, predict_picture, batch, SCHEDULE, norm="l1"
    )
    np.testing.assert_allclose(losses, 0.5, rtol=1e-5)
    inside = np.broadcast_to(np.asarray(batch["hole"]) > 0, y.shape)
    assert not np.any(seen["y_t"])
    np.testing.assert_allclose(seen["gamma"], SCHEDULE.gamma[-1], rtol=1e-6)
    assert abs(np.corrcoef(seen["x"][inside], y[inside])[0, 1]) < 0.1
    np.testing.assert_array_equal(seen["x"][~inside], y[~inside])


def test_the_loss_does_not_depend_on_the_size_of_the_hole_nor_on_the_rest() -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    batch = _batch(hole=2)

    def predict_noise(x: Array, y_t: Array, gamma: Array) -> Array:
        return jnp.where(batch["hole"] > 0, 0.0, 1e6) * jnp.ones_like(y_t)

    losses, _ = objective.denoising_loss(keys, predict_noise, batch, SCHEDULE)
    # 12 squared normal numbers a picture: their mean has a standard deviation of 0.4.
    assert np.all((np.asarray(losses) > 0.1) & (np.asarray(losses) < 4))


def test_the_network_sees_noise_in_holes_and_clean_pixels_around() -> None:
    batch = _batch(64, count=2, hole=32)
    seen = {}

    def predict_noise(x: Array, y_t: Array, gamma: Array) -> Array:
        seen.update(x=x, y_t=y_t, gamma=gamma)
        return jnp.zeros_like(y_t)

    keys = jax.random.split(jax.random.key(0), 2)
    objective.denoising_loss(keys, predict_noise, batch, SCHEDULE)
    y = process.to_float(batch["y"])
    inside = np.broadcast_to(np.asarray(batch["hole"]) > 0, y.shape)
    for name in ("x", "y_t"):
        np.testing.assert_array_equal(seen[name][~inside], y[~inside])
    hole = np.asarray(seen["x"])[inside]
    assert abs(hole.mean()) < 0.06 and abs(hole.std() - 1) < 0.05
    # The noise in the source's hole is not the noise on the target: a network that
    # could subtract one from the other would be lost when sampling.
    assert abs(np.corrcoef(hole, np.asarray(seen["y_t"])[inside])[0, 1]) < 0.06


def test_the_mask_is_the_hole_or_everything() -> None:
    hole = jnp.zeros((2, 4, 4, 1), jnp.uint8).at[0, 1, 1].set(1)
    mask = process.generation_mask(hole)
    np.testing.assert_array_equal(mask[0], hole[0].astype(jnp.float32))
    np.testing.assert_array_equal(mask[1], jnp.ones((4, 4, 1)))
