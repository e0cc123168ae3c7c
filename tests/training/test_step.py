"""The training step: what it learns, averages, skips, and does not depend on."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from palette_jax import parallel
from palette_jax.diffusion import objective, schedules
from palette_jax.training import optimizer, state, step


class _Network(nn.Module):
    """Two convolutions, since a U-Net takes long to compile; the last starts at 0."""

    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: jax.Array, y_t: jax.Array, gamma: jax.Array, deterministic: bool = True
    ) -> jax.Array:
        level = jnp.broadcast_to(gamma[:, None, None, None], (*x.shape[:3], 1))
        hidden = jnp.concatenate([x, y_t, level], -1)
        hidden = jnp.tanh(nn.Conv(64, (3, 3), name="conv_in")(hidden))
        hidden = nn.Dropout(self.dropout, deterministic=deterministic)(hidden)
        zeros = nn.initializers.zeros
        return nn.Conv(3, (3, 3), kernel_init=zeros, name="conv_out")(hidden)


NETWORK = _Network()
SCHEDULE = schedules.linear_schedule(2000, 1e-6, 0.01)
KEY = jax.random.key(7)


def _batch(count: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    hole = np.zeros((count, 8, 8, 1), np.uint8)
    hole[: count // 2, :, :4] = 1
    return {"y": y, "x": y * (1 - hole), "hole": hole}


def _start(adam: optax.GradientTransformation) -> state.TrainState:
    image = jnp.zeros((1, 8, 8, 3))
    params = jax.jit(NETWORK.init)(jax.random.key(0), image, image, jnp.ones(1))[
        "params"
    ]
    return state.make_state(params, adam)


def _run(num_steps: int, **options: object) -> tuple[state.TrainState, list]:
    rule = options.pop("rule", optimizer.make_optimizer(1e-2, 1, clip_norm=1.0))
    train_step = jax.jit(step.make_train_step(KEY, NETWORK, rule, SCHEDULE, **options))
    current, seen = _start(rule), []
    for _ in range(num_steps):
        current, metrics = train_step(current, _batch())
        seen.append(jax.device_get(metrics))
    return current, seen


def _distance(tree: dict, other: dict) -> float:
    difference = jax.tree.map(jnp.subtract, tree, other)
    return float(optax.tree.norm(difference) / optax.tree.norm(other))


def test_the_loss_starts_at_1_and_falls_on_one_batch() -> None:
    _, metrics = _run(60)
    assert metrics[0].loss == pytest.approx(1.0, abs=0.15)
    assert np.mean([m.loss for m in metrics[-10:]]) < 0.5


def test_the_loss_per_level_adds_up_to_the_mean() -> None:
    _, metrics = _run(3)
    for seen in metrics:
        assert seen.level_count.sum() == 8
        np.testing.assert_allclose(seen.level_loss.sum() / 8, seen.loss, rtol=1e-5)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    # Plain descent: Adam would turn the roundings of tiny gradients into whole steps.
    whole, seen = _run(2, rule=optax.sgd(0.1))
    parts, told = _run(2, rule=optax.sgd(0.1), accumulate=2)
    assert _distance(parts.params, whole.params) < 1e-5
    for one, other in zip(seen, told, strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), one, other
        )


def test_the_devices_do_not_change_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MIN_SHARDED", 1)
    rule = optax.sgd(0.1)
    train_step = jax.jit(step.make_train_step(KEY, NETWORK, rule, SCHEDULE))
    results = []
    for fsdp in (None, 1, 2, 4):
        current, batch = _start(rule), _batch()
        if fsdp:
            mesh = parallel.make_mesh(fsdp=fsdp)
            shardings = parallel.param_shardings(mesh, current)
            current = jax.device_put(current, shardings)
            batch = parallel.to_global(mesh, batch)
        for _ in range(2):
            current, metrics = train_step(current, batch)
        results.append((jax.device_get(current.params), float(metrics.loss)))
    for params, loss in results[1:]:
        assert loss == pytest.approx(results[0][1], rel=1e-5)
        assert _distance(params, results[0][0]) < 1e-5


def test_each_device_keeps_its_own_images_of_every_part() -> None:
    whole = parallel.to_global(parallel.make_mesh(), {"y": np.arange(16)})["y"]
    dealt = jax.jit(step._deal, static_argnums=1)(whole, 2)
    for own, of_parts in zip(
        whole.addressable_shards, dealt.addressable_shards, strict=True
    ):
        assert of_parts.data.shape == (2, 2)
        assert {*of_parts.data.ravel().tolist()} == {*own.data.tolist()}


def test_shares_of_a_batch_under_a_named_axis_are_the_step_of_the_whole() -> None:
    """As `jax.pmap` runs it; `jax.vmap` gives the same axis on one device."""
    rule = optax.sgd(0.1)  # Which is moved by a wrong scale, as Adam is not.
    whole, shares = (
        step.make_train_step(KEY, NETWORK, rule, SCHEDULE, axis_name=name)
        for name in (None, "devices")
    )
    current, batch = _start(rule), _batch()
    wanted, seen = jax.jit(whole)(current, batch)
    parts = {name: a.reshape(4, 2, *a.shape[1:]) for name, a in batch.items()}
    mapped = jax.vmap(shares, (None, 0), axis_name="devices")
    found, seen_there = jax.jit(mapped)(current, parts)
    for device in range(4):
        copy, told = jax.tree.map(lambda leaf, i=device: leaf[i], (found, seen_there))
        assert _distance(copy.params, wanted.params) < 1e-5
        for name in ("loss", "grad_norm", "level_loss", "level_count"):
            there, here = getattr(told, name), getattr(seen, name)
            np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_step_that_is_not_finite_changes_nothing_but_the_count() -> None:
    adam = optimizer.make_optimizer(1e-2, 1)
    good = _start(adam)
    bad_params = jax.tree.map(lambda p: p, good.params)
    bad_params["conv_out"]["bias"] = jnp.full((3,), jnp.nan)
    bad = good.replace(params=bad_params)
    train_step = jax.jit(step.make_train_step(KEY, NETWORK, adam, SCHEDULE))
    after, metrics = train_step(bad, _batch())
    assert not np.isfinite(metrics.loss)
    assert int(after.bad_steps) == 1 and int(after.step) == 1
    for name in ("params", "ema_params", "opt_state"):
        for new, old in zip(
            jax.tree.leaves(getattr(after, name)),
            jax.tree.leaves(getattr(bad, name)),
            strict=True,
        ):
            np.testing.assert_array_equal(new, old)
    again, metrics = train_step(after, _batch())  # The log counts those in a row.
    assert int(again.bad_steps) == int(metrics.bad_steps) == 2
    recovered, metrics = train_step(after.replace(params=good.params), _batch())
    assert int(recovered.bad_steps) == 0 and np.isfinite(metrics.loss)


def test_the_average_is_of_the_weights_after_each_step() -> None:
    adam = optimizer.make_optimizer(1e-2, 1)
    train_step = jax.jit(
        step.make_train_step(KEY, NETWORK, adam, SCHEDULE, ema_decay=0.5)
    )
    current = _start(adam)
    ema = current.params
    for number in range(3):
        current, _ = train_step(current, _batch())
        decay = min(0.5, (1 + number) / (10 + number))
        ema = jax.tree.map(
            lambda e, p, d=decay: d * e + (1 - d) * p, ema, current.params
        )
    assert _distance(current.ema_params, ema) < 1e-5
    assert _distance(current.ema_params, current.params) > 1e-4


def test_the_step_is_compiled_once() -> None:
    adam = optimizer.make_optimizer(1e-2, 1)
    train_step = jax.jit(step.make_train_step(KEY, NETWORK, adam, SCHEDULE))
    current = _start(adam)
    for _ in range(3):
        current, _ = train_step(current, _batch())
    assert train_step._cache_size() == 1


def test_dropout_is_drawn_again_at_every_step() -> None:
    dropped = NETWORK.clone(dropout=0.5)
    rule = optax.sgd(0.0)  # The weights stay, so all that changes is what is drawn.
    train_step = jax.jit(step.make_train_step(KEY, dropped, rule, SCHEDULE))
    plain_step = jax.jit(step.make_train_step(KEY, NETWORK, rule, SCHEDULE))
    current = _start(rule)
    # At the start the last convolution is 0, and nothing that is dropped is seen.
    current = current.replace(params=jax.tree.map(lambda p: p + 0.05, current.params))
    ratios = []
    for number in range(3):
        at = current.replace(step=jnp.int32(number))
        losses = [
            f(jax.tree.map(jnp.copy, at), _batch())[1].loss
            for f in (train_step, plain_step)
        ]
        ratios.append(float(losses[0] / losses[1]))
    # The noise is the same in both; with one mask for all steps, what it changes
    # would not depend on the step so much.
    assert len({round(ratio, 6) for ratio in ratios}) == 3


class _Dropped(nn.Module):
    """Has a gradient of 0 or 2 for each weight, by what is dropped."""

    @nn.compact
    def __call__(self, x, y_t, gamma, deterministic):
        weights = self.param("weights", nn.initializers.ones, (64,))
        return nn.Dropout(0.5, deterministic=deterministic)(weights).sum()


@pytest.mark.parametrize(
    "options",
    [
        # Two ways to go over the parts.
        {"accumulate": 2, "platform": "cpu"},
        {"accumulate": 2, "platform": "tpu"},
        {"axis_name": "devices"},
    ],
)
def test_each_part_of_a_batch_drops_something_else(options: dict) -> None:
    def loss(keys, apply, batch, schedule, *, norm):
        count = len(batch["y"])
        zeros = jnp.zeros(count)
        level = objective.NoiseLevel(jnp.zeros(count, int), zeros, zeros)
        return apply(batch["x"], batch["y"], level.var) * jnp.ones(count), level

    rule = optax.sgd(1.0)
    train_step = step.make_train_step(
        KEY, _Dropped(), rule, SCHEDULE, loss=loss, **options
    )
    before, batch = state.make_state({"weights": jnp.ones(64)}, rule), _batch()
    if "axis_name" in options:
        train_step = jax.vmap(train_step, (None, 0), axis_name="devices")
        batch = {name: a.reshape(2, 4, *a.shape[1:]) for name, a in batch.items()}
    after, _ = jax.jit(train_step)(before, batch)
    gradient = 1.0 - after.params["weights"].reshape(-1, 64)[0]
    # The mean of two draws; with one draw for both there would be no 1.
    counts = [int((gradient == value).sum()) for value in (0, 1, 2)]
    assert sum(counts) == 64 and min(counts) >= 6 and counts[1] >= 20


def test_losses_are_told_by_the_tenth_of_the_levels_that_they_are_of() -> None:
    t = jnp.array([0, 199, 200, 1000, 1999, 1999, 5, 1399])

    def loss(keys, network, batch, schedule, *, norm):
        return 1.0 + t, objective.NoiseLevel(t, jnp.ones(8), jnp.ones(8))

    rule = optax.sgd(0.1)
    train_step = jax.jit(step.make_train_step(KEY, NETWORK, rule, SCHEDULE, loss=loss))
    _, metrics = train_step(state.make_state({"w": jnp.ones(1)}, rule), _batch())
    np.testing.assert_array_equal(metrics.level_count, [3, 1, 0, 0, 0, 1, 1, 0, 0, 2])
    sums = [1 + 200 + 6, 201, 0, 0, 0, 1001, 1400, 0, 0, 4000]
    np.testing.assert_array_equal(metrics.level_loss, sums)


class _Root(nn.Module):
    """A network of one weight, whose gradient is infinite where the weight is 0."""

    @nn.compact
    def __call__(self, x: jax.Array, *_: object) -> jax.Array:
        return x + jnp.sqrt(self.param("w", nn.initializers.zeros, ()))


@pytest.mark.parametrize("wrong", ["gradient", "loss"])
def test_a_step_is_skipped_though_one_of_loss_and_gradient_is_finite(
    wrong: str,
) -> None:
    ones = jnp.ones(8)

    def loss(keys, network, batch, schedule, *, norm):
        level = objective.NoiseLevel(jnp.zeros(8, int), ones, ones)
        if wrong == "loss":
            return jnp.full(8, jnp.inf), level
        return network(ones, ones, ones), level

    rule = optax.sgd(0.1)
    train_step = jax.jit(step.make_train_step(KEY, _Root(), rule, SCHEDULE, loss=loss))
    after, metrics = train_step(state.make_state({"w": jnp.zeros(())}, rule), _batch())
    assert np.isfinite(metrics.loss) == (wrong == "gradient")
    assert np.isfinite(metrics.grad_norm) == (wrong == "loss")
    assert int(after.bad_steps) == 1 and float(after.params["w"]) == 0
