"""What the training program decides: what is sound, and what held-out pictures say."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from palette_jax.config import build, build_training
from palette_jax.configs import uncrop
from palette_jax.diffusion import objective
from palette_jax.programs import train
from palette_jax.training.state import TrainState, make_state

CONFIG = uncrop.get_config("tiny")


def _state() -> TrainState:
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
    return make_state(params, build.make_optimizer(CONFIG))


def test_a_state_is_sound_if_all_of_it_is_finite() -> None:
    state = _state()
    assert train.is_sound(state, None) and train.is_sound(state, 0.3)
    for loss in (np.nan, np.inf):
        assert not train.is_sound(state, loss)
    assert not train.is_sound(state.replace(bad_steps=jnp.int32(1)), 0.3)
    for name in ("params", "ema_params", "opt_state"):
        leaves, form = jax.tree.flatten(getattr(state, name))
        for index, leaf in enumerate(leaves):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                continue
            for wrong in (np.nan, -np.inf):
                bad = leaf.at[(0,) * leaf.ndim].set(wrong)
                broken = [*leaves[:index], bad, *leaves[index + 1 :]]
                changed = {name: jax.tree.unflatten(form, broken)}
                assert not train.is_sound(state.replace(**changed), 0.3), name


def test_checkpoints_are_due_by_steps_and_by_minutes_since_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    config = uncrop.get_config("tiny")
    config.train.update(checkpoint_every=1000, checkpoint_minutes=1.0, log_every=10)
    due = train._Due(config)
    for now[0], step, is_due in (
        (61.0, 9, False),  # It looks at the clock when it logs.
        (61.0, 10, True),
        (100.0, 20, False),
        (122.0, 30, True),
        (130.0, 1000, True),
        (185.0, 1010, False),
        (191.0, 1020, True),
    ):
        assert due.is_due(step) == is_due, step
    config.train.checkpoint_minutes = 0.0
    now[0] = 1e6
    assert not train._Due(config).is_due(10)


class _Network(nn.Module):
    """Predicts the noisy picture itself, times a weight, and some of the source."""

    @nn.compact
    def __call__(self, x: Array, y_t: Array, gamma: Array) -> Array:
        weight = self.param("weight", nn.initializers.ones, ())
        return weight * y_t + 0.1 * x


@pytest.mark.parametrize("padding", [1, 5])
def test_padded_pictures_count_nothing_in_the_held_out_loss(padding: int) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 256, (3 + padding, 8, 8, 3), dtype=np.uint8)
    batch = {
        "x": y // 2,
        "y": y,
        "hole": np.zeros((len(y), 8, 8, 1), np.uint8),
        "id": np.arange(len(y), dtype=np.uint32),
        "valid": np.arange(len(y)) < 3,
    }
    batch = {name: jnp.asarray(array) for name, array in batch.items()}
    schedule, weights = build.make_schedule(CONFIG), {"weight": jnp.float32(0.5)}

    def total(rows: dict) -> tuple[float, int]:
        loss, count = build_training._held_out_losses(
            _Network(), schedule, objective.denoising_loss, "l2", weights, rows
        )
        return float(loss), int(count)

    alone = total({name: array[:3] for name, array in batch.items()})
    assert total(batch) == (pytest.approx(alone[0], rel=1e-6), 3) and alone[1] == 3
    # Each has noise of its own, which follows from its id.
    swapped = {name: array[jnp.array([2, 0, 1])] for name, array in batch.items()}
    assert total(swapped)[0] == pytest.approx(alone[0], rel=1e-6)
