"""The student: agrees with the teacher where it must, and learns the exact map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from palette_jax.diffusion import (
    distillation,
    process,
    samplers,
    sampling,
    schedules,
)
from palette_jax.diffusion.schedules import NoiseSchedule
from palette_jax.types import PredictFn

CURVE = schedules.linear_schedule(1000, 1e-4, 0.09)
FLOOR = 4e-5
STD = 0.5


def _schedule(num_steps: int) -> NoiseSchedule:
    return schedules.respace(CURVE, num_steps, gamma_floor=FLOOR, exponent=1.5)


def _batch(count: int, hole: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    holes = np.zeros((count, 4, 4, 1), np.uint8)
    holes[:, :hole, :hole] = 1
    arrays = {"y": y, "x": y * (1 - holes), "hole": holes}
    return {name: jnp.asarray(array) for name, array in arrays.items()}


def _gaussian(x: Array, y_t: Array, gamma: Array) -> Array:
    """Returns the exact denoiser of pixels from N(0, STD^2)."""
    gain = jnp.sqrt(gamma) * STD**2 / (gamma * STD**2 + 1 - gamma)
    return gain[:, None, None, None] * y_t


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("hole", [0, 2])
def test_a_student_with_the_teachers_steps_has_no_loss(norm: str, hole: int) -> None:
    losses, _ = distillation.distillation_loss(
        jax.random.split(jax.random.key(0), 64),
        _gaussian,
        _batch(64, hole),
        _schedule(8),
        teacher=_gaussian,
        num_segments=8,
        norm=norm,
    )
    np.testing.assert_array_less(losses, 1e-9)


def test_with_fewer_steps_the_teacher_is_not_yet_a_student() -> None:
    losses, _ = distillation.distillation_loss(
        jax.random.split(jax.random.key(0), 64),
        _gaussian,
        _batch(64),
        _schedule(8),
        teacher=_gaussian,
        num_segments=1,
    )
    assert float(losses.mean()) > 1e-4


@pytest.mark.parametrize("num_segments", [1, 2, 4])
def test_a_linear_student_learns_the_exact_map(num_segments: int) -> None:
    """Its samples are those of the teacher with all steps, and of the Gaussian flow."""
    schedule = _schedule(32)
    table = jnp.asarray(schedule.gamma, jnp.float32)
    batch = _batch(64)

    def student(gains: Array) -> PredictFn:
        def predict(x: Array, y_t: Array, gamma: Array) -> Array:
            index = jax.vmap(lambda level: jnp.argmin(jnp.abs(table - level)))(gamma)
            return gains[index][:, None, None, None] * y_t

        return predict

    def step(gains: Array, key: Array) -> tuple[Array, None]:
        def loss(gains: Array) -> Array:
            losses, level = distillation.distillation_loss(
                jax.random.split(key, 64),
                student(gains),
                batch,
                schedule,
                teacher=_gaussian,
                num_segments=num_segments,
            )
            # Without the weight, so that one rate suits all levels.
            return (losses * level.var).sum()

        return gains - 0.1 * jax.grad(loss)(gains), None

    keys = jax.random.split(jax.random.key(1), 2000)
    gains, _ = jax.jit(lambda keys: jax.lax.scan(step, jnp.zeros(32), keys))(keys)
    x, mask = jnp.zeros((8, 4, 4, 3)), jnp.ones((8, 4, 4, 1))
    keys = jax.random.split(jax.random.key(2), 8)
    ends = _schedule(num_segments)  # Those of the segments.
    np.testing.assert_allclose(ends.gamma, schedule.gamma[:: -32 // num_segments][::-1])
    ours = sampling.sample(keys, student(gains), x, mask, samplers.ddim(ends))
    theirs = sampling.sample(keys, _gaussian, x, mask, samplers.ddim(schedule))
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    noise = process.normal_like(jax.vmap(jax.random.fold_in, (0, None))(keys, 0), x)
    np.testing.assert_allclose(ours, STD * noise, rtol=0.06, atol=1e-3)


def test_pixels_outside_the_mask_give_no_loss_and_are_shown_clean() -> None:
    batch = _batch(16, hole=2)
    known = np.asarray(batch["hole"]) == 0
    y = np.asarray(batch["y"]) / 127.5 - 1
    offset = jnp.where(known, 3.0, 0.0).astype(jnp.float32)
    shown = []

    def look(x: Array, y_t: Array, gamma: Array) -> Array:
        shown.append(y_t)
        return _gaussian(x, y_t, gamma)

    def off_outside(x: Array, y_t: Array, gamma: Array) -> Array:
        return look(x, y_t, gamma) + offset

    keys = jax.random.split(jax.random.key(0), 16)
    losses = [
        distillation.distillation_loss(
            keys, student, batch, _schedule(8), teacher=look, num_segments=2
        )[0]
        for student in (look, off_outside)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    for y_t in shown:
        np.testing.assert_allclose(np.where(known, y_t - y, 0), 0, atol=1e-6)


def test_holes_of_the_source_have_noise_of_their_own() -> None:
    batch = _batch(256, hole=2)
    seen = []

    def look(x: Array, y_t: Array, gamma: Array) -> Array:
        seen.append((np.asarray(x), np.asarray(y_t)))
        return _gaussian(x, y_t, gamma)

    keys = jax.random.split(jax.random.key(1), 256)
    distillation.distillation_loss(
        keys, look, batch, _schedule(8), teacher=look, num_segments=2
    )
    inside = np.broadcast_to(np.asarray(batch["hole"]) > 0, seen[0][0].shape)
    clean = np.asarray(batch["x"]) / 127.5 - 1
    for x, y_t in seen:  # Of the teacher, and of both calls of the student.
        np.testing.assert_array_equal(x, seen[0][0])
        np.testing.assert_allclose(x[~inside], clean[~inside], atol=1e-6)
        assert abs(x[inside].mean()) < 0.06 and abs(x[inside].std() - 1) < 0.05
        # A network that copied it would look as if it had learned.
        assert abs(np.corrcoef(x[inside], y_t[inside])[0, 1]) < 0.06
    assert len(seen) == 3


@pytest.mark.parametrize("num_segments", [5, 24])
def test_segments_must_divide_the_steps(num_segments: int) -> None:
    with pytest.raises(ValueError, match="divides 12 steps"):
        distillation.distillation_loss(
            jax.random.split(jax.random.key(0), 1),
            _gaussian,
            _batch(1),
            _schedule(12),
            teacher=_gaussian,
            num_segments=num_segments,
        )
