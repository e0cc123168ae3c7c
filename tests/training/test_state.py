"""The state before the first step."""

import jax
import jax.numpy as jnp
import numpy as np

from palette_jax.training import optimizer, state


def _state() -> state.TrainState:
    params = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}
    return state.make_state(params, optimizer.make_optimizer(1e-3, 10))


def test_it_starts_from_nothing_seen_and_the_average_at_the_weights() -> None:
    start = _state()
    assert int(start.step) == 0 and int(start.bad_steps) == 0
    for name, value in start.params.items():
        np.testing.assert_array_equal(start.ema_params[name], value)
    # Adam's moments and counts, all 0; two for each weight.
    leaves = jax.tree.leaves(start.opt_state)
    assert sum(leaf.size for leaf in leaves if leaf.ndim) == 2 * 9
    assert not any(np.any(leaf) for leaf in leaves)


def test_it_can_be_donated() -> None:
    start = _state()
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(start)]
    assert len(set(buffers)) == len(buffers)
    step = jax.jit(lambda s: jax.tree.map(lambda leaf: leaf + 1, s), donate_argnums=0)
    after = step(start)
    assert int(after.step) == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(start))


def test_it_can_be_described_without_a_device() -> None:
    start, shapes = _state(), jax.eval_shape(_state)
    assert jax.tree.structure(start) == jax.tree.structure(shapes)
    for leaf, shape in zip(
        jax.tree.leaves(start), jax.tree.leaves(shapes), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
