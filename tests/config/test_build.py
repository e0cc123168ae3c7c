"""Every key of a config reaches what it is said to change."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from palette_jax.config import build, build_training, checks
from palette_jax.configs import multitask, uncrop
from palette_jax.training.state import make_state


def _config(**changes: Any) -> ml_collections.ConfigDict:
    config = uncrop.get_config("tiny")
    config.optim.warmup_steps = 2
    for key, value in changes.items():
        group, name = key.split("__")
        config[group][name] = value
    return config


def test_the_network_has_what_the_config_says() -> None:
    other = {
        "base_features": 24,
        "feature_multipliers": (1, 3),
        "num_res_blocks": 3,
        "patch_size": 2,
        "attention": "dilated",
        "attn_resolutions": (4,),
        "head_features": 12,
        "num_heads": 3,
        "dropout": 0.37,
        "remat": True,
        "resize": "conv_pad_end",
        "conditioning": "shift",
        "norm_groups": 6,
        "norm_epsilon": 3e-4,
        "level_position": "gamma",
        "level_freq_shift": 1,
    }
    config = _config()
    assert other.keys() | {"dtype"} == set(config.model)
    config.model.update(other)
    config.model.dtype = {"float32": "bfloat16", "bfloat16": "float32"}[
        config.model.dtype
    ]
    network = build.make_network(config)
    for key, value in other.items():
        assert getattr(network, key) == value, key
    assert jnp.dtype(network.dtype).name == config.model.dtype
    assert network.image_size == config.data.image_size


def _updates(config: ml_collections.ConfigDict) -> np.ndarray:
    """Returns the weight after each of a few steps of large and small gradients."""
    optimizer, weight, seen = build.make_optimizer(config), jnp.ones(3), []
    state = optimizer.init(weight)
    for gradient in ([3.0, -1, 0.1], [0.2, 5, 0.3], [-1, 2, 0.5], [0.1, 0.1, 9]):
        updates, state = optimizer.update(jnp.array(gradient), state, weight)
        weight = weight + updates
        seen.append(weight)
    return np.stack(seen)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim__learning_rate", 3e-3),
        ("optim__warmup_steps", 5),
        ("optim__decay_steps", 3),
        ("train__num_steps", 9),
        ("optim__b1", 0.5),
        ("optim__b2", 0.5),
        ("optim__clip_norm", 0.1),
    ],
)
def test_every_key_of_the_optimizer_changes_its_steps(key: str, value: Any) -> None:
    base = {"train__num_steps": 4, "optim__clip_norm": 0.0, "optim__decay_steps": 2}
    before = _updates(_config(**base))
    after = _updates(_config(**{**base, key: value}))
    assert not np.allclose(before - 1, after - 1, rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("changes", "sampler"),
    [
        ({"sampler": "ddim"}, "ddpm"),
        ({"sampler": "unipc_2"}, "dpmpp_2m"),
        ({"sampler": "unipc_3"}, "unipc_2"),
        ({"spacing": 2.0}, "ddim"),
        ({"spacing": 0.0}, "ddim"),  # That of the sampler, which is not even.
        ({"schedule": "paper"}, "ddim"),
        ({"num_steps": 7}, "ddim"),
        ({"beta_min": 2e-4}, "ddim"),
        ({"beta_max": 0.07}, "ddpm"),
        ({"variance": "small"}, "ddpm"),
        ({"eta": 0.5}, "ddim"),
    ],
)
def test_every_key_of_sampling_changes_the_sampler(changes, sampler: str) -> None:
    base = {
        "sampler": sampler,
        "num_steps": 6,
        "schedule": "trimmed",
        "variance": "large",
        "spacing": 1.0,
    }
    tables = [
        build.make_sampler(_config(**{f"sample__{k}": v for k, v in values.items()}))
        for values in (base, base | changes)
    ]
    same = [
        a.shape == b.shape and np.allclose(a, b, rtol=1e-6)
        for a, b in zip(*tables, strict=True)
    ]
    assert not all(same)


@pytest.mark.parametrize("objective", ["denoise", "velocity", "regress"])
def test_the_seed_and_the_sample_change_what_is_restored(
    monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    """Of a network that returns what it sees."""

    def apply(params, x, y_t, gamma):
        return 0.5 * x + 0.1 * y_t

    network = type("Network", (), {"apply": staticmethod(lambda p, *a: apply(p, *a))})
    monkeypatch.setattr(build, "make_network", lambda config: network)
    batch = {
        "x": np.full((4, 8, 8, 3), 99, np.uint8),
        "hole": np.ones((4, 8, 8, 1), np.uint8),
        "id": np.arange(4, dtype=np.uint32),
    }

    def restored(seed: int, index: int) -> bytes:
        config = _config(sample__num_steps=2, diffusion__objective=objective)
        config.seed = seed
        restore = build.make_restore(config, build.make_mesh(config))
        return restore(jnp.zeros(()), batch, index).tobytes()

    results = {restored(seed, index) for seed in (0, 1) for index in (0, 1)}
    assert len(results) == 4 and restored(1, 1) in results


def _lattice(pictures: jax.Array) -> float:
    """Returns how far the means of the places in squares of 2 x 2 pixels differ."""
    b, h, w, c = pictures.shape
    places = pictures.reshape(b, h // 2, 2, w // 2, 2, c).mean((1, 3))
    return float(jnp.ptp(places, (1, 2)).max())


def _replace_network(monkeypatch: pytest.MonkeyPatch, apply: Any) -> None:
    network = type("Network", (), {"apply": staticmethod(lambda p, *a: apply(*a))})
    monkeypatch.setattr(build, "make_network", lambda config: network)


def test_the_floor_and_the_squares_of_a_config_reach_its_predictor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []

    def apply(x, y_t, gamma):
        told.append(gamma)
        return y_t

    _replace_network(monkeypatch, apply)
    noise = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    for size in (1, 2):
        config = _config(model__patch_size=size, diffusion__objective="velocity")
        predict = build.make_predictor(config)({})
        out = predict(jnp.zeros_like(noise), noise, jnp.array([1e-9, 0.5]))
        floor = build.schedule_end(config)
        np.testing.assert_allclose(told[-1], [floor, 0.5], rtol=1e-6)
        assert (_lattice(out) < 1e-5) == (size == 2)


@pytest.mark.parametrize("clip", [False, True])
def test_estimates_are_clipped_if_the_config_says_so(
    monkeypatch: pytest.MonkeyPatch, clip: bool
) -> None:
    """Of a network that overshoots, and in the last step sees what it said."""
    config = _config(
        sample__clip=clip,
        sample__sampler="ddim",
        sample__num_steps=16,
        diffusion__objective="denoise",
    )
    last = build.make_sampler(config).gamma[-1]

    def apply(x, y_t, gamma):
        gamma = gamma[:, None, None, None]
        seen = y_t / jnp.sqrt(gamma)
        picture = jnp.where(gamma < 0.999 * last, 3.0, seen - 2.5)
        return (y_t - jnp.sqrt(gamma) * picture) / jnp.sqrt(1 - gamma)

    _replace_network(monkeypatch, apply)
    batch = {
        "x": np.zeros((4, 8, 8, 3), np.uint8),
        "hole": np.ones((4, 8, 8, 1), np.uint8),
        "id": np.arange(4, dtype=np.uint32),
    }
    restore = build.make_restore(config, build.make_mesh(config))
    # 1 - 2.5 is black, 3 - 2.5 is light gray.
    wanted = 0 if clip else 255 * 0.75
    assert restore({}, batch).mean() == pytest.approx(wanted, abs=5)


@pytest.mark.parametrize(("steps", "is_lossless"), [(4, True), (1, False)])
def test_a_student_is_its_teacher_also_with_squares(
    monkeypatch: pytest.MonkeyPatch, steps: int, is_lossless: bool
) -> None:
    """With its weights and its steps there is no loss; with fewer steps there is."""

    def apply(x, y_t, gamma):
        return 0.5 * x + 0.3 * y_t

    _replace_network(monkeypatch, apply)
    config = _config(
        model__patch_size=2, distill__steps=steps, distill__teacher_steps=4
    )
    loss, schedule = build_training.make_loss(config)
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.integers(0, 256, (16, 8, 8, 3), np.uint8),
        "y": rng.integers(0, 256, (16, 8, 8, 3), np.uint8),
        "hole": np.zeros((16, 8, 8, 1), np.uint8),
    }
    keys = jax.random.split(jax.random.key(0), 16)
    batch = jax.tree.map(jnp.asarray, batch)
    losses, _ = loss(keys, apply, batch, schedule, {}, norm="l2")
    assert np.allclose(losses, 0, atol=1e-9) == is_lossless


class _Silent(nn.Module):
    """Predicts 0."""

    @nn.compact
    def __call__(self, x: jax.Array, y_t: jax.Array, *_: Any) -> jax.Array:
        return 0 * y_t


def _pictures(count: int) -> dict[str, jax.Array]:
    y = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    hole = np.zeros((count, 8, 8, 1), np.uint8)
    return jax.tree.map(jnp.asarray, {"x": y // 2, "y": y, "hole": hole})


@pytest.mark.parametrize(("norm", "wanted"), [("l2", 1.0), ("l1", (2 / np.pi) ** 0.5)])
def test_the_held_out_loss_has_the_norm_of_the_config(
    monkeypatch: pytest.MonkeyPatch, norm: str, wanted: float
) -> None:
    monkeypatch.setattr(build, "make_network", lambda config: _Silent())
    config = _config(diffusion__loss_norm=norm, diffusion__objective="denoise")
    loss = build_training.make_held_out_loss(config, build.make_mesh(config))
    ids, valid = jnp.arange(16, dtype=jnp.uint32), jnp.ones(16, bool)
    total, count = loss({}, {**_pictures(16), "id": ids, "valid": valid})
    # Of normal noise, and five standard errors.
    assert float(total / count) == pytest.approx(wanted, abs=0.13)


def test_the_seed_determines_the_weights_and_the_noise_of_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = lambda key, config: {"w": jax.random.normal(key, (3,))}  # noqa: E731
    monkeypatch.setattr(build, "init_params", draw)
    monkeypatch.setattr(build, "make_network", lambda config: _Silent())

    def first(seed: int) -> tuple[bytes, float]:
        config = _config(diffusion__objective="denoise")
        config.seed = seed
        optimizer = build.make_optimizer(config)
        _, layout = build_training.abstract_state(
            config, optimizer, build.make_mesh(config)
        )
        state = build_training.init_state(config, optimizer, layout)
        weights = np.asarray(state.params["w"]).tobytes()
        _, metrics = jax.jit(build_training.make_step(config))(state, _pictures(4))
        return weights, float(metrics.loss)

    weights, losses = zip(*map(first, (0, 5, 0)), strict=True)
    for values in (weights, losses):
        assert values[0] == values[2] != values[1]


@pytest.mark.parametrize(
    ("task", "key", "value"),
    [
        ("colorize", "data.gray", "lightness"),
        ("inpaint", "eval.inpaint_mask", "rectangles"),
        ("uncrop", "eval.uncrop_side", "left"),
        ("jpeg", "eval.jpeg_quality", 50),
    ],
)
def test_every_key_of_a_task_changes_evaluated_pictures(task, key, value) -> None:
    import tensorflow as tf

    from palette_jax.config import build_data

    y = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)

    def degraded(config: ml_collections.ConfigDict) -> bytes:
        example = build_data._eval_task(config, task)(
            tf.constant([0, 1]), {"y": tf.constant(y)}
        )
        return example["x"].numpy().tobytes()

    before, config = multitask.get_config("tiny"), multitask.get_config("tiny")
    group, name = key.split(".")
    config[group][name] = value
    assert degraded(before) != degraded(config)


def test_every_key_of_the_data_changes_what_is_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from palette_jax.config import build_data
    from palette_jax.data import sources

    # They take a second to make.
    photos = functools.cache(sources.sample_photos)
    monkeypatch.setattr(sources, "sample_photos", photos)

    def first(start_step: int = 0, **changes: Any) -> bytes:
        config = multitask.get_config("tiny")
        config.data.source = "sample_photos"
        config.train.batch_size = 8
        config.mix.update({"colorize": 1.0, "inpaint": 0.0, "jpeg": 0.0})
        for key, value in changes.items():
            group, name = key.split("__")
            config[group][name] = value
        batch = next(iter(build_data.train_batches(config, start_step=start_step)))
        return b"".join(batch[name].tobytes() for name in ("x", "y", "hole"))

    made = [
        first(),
        first(data__min_scale=0.61),
        first(data__hints=True),
        first(data__gray="lightness"),
        first(mix__jpeg=1.0),
        first(data__image_size=16),
        first(data__num_eval=100),
        first(start_step=1),
    ]
    assert len(set(made)) == len(made) and first() == made[0]


@pytest.mark.parametrize("name", ["colorize", "inpaint", "uncrop", "jpeg"])
def test_the_weights_of_a_mix_are_those_of_its_tasks(name: str) -> None:
    import tensorflow as tf

    from palette_jax.config import build_data

    config = multitask.get_config("tiny")
    config.mix.update(
        {each: 1e-9 for each in ("colorize", "inpaint", "uncrop", "jpeg")}
    )
    config.mix[name] = 1.0
    y = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    task = build_data._task(config, "multitask")
    for i in range(4):
        made = task(tf.constant([i, 1]), {"y": tf.constant(y)})
        x, hole = made["x"].numpy(), made["hole"].numpy()[..., 0]
        is_half = hole.mean() > 0.45
        is_gray = not np.ptp(x, axis=-1).any()
        kind = "uncrop" if is_half else "inpaint" if hole.any() else "jpeg"
        assert ("colorize" if is_gray else kind) == name


def test_every_key_of_the_step_changes_its_program() -> None:
    def program(**changes: Any) -> str:
        small = {
            "model__base_features": 8,
            "model__feature_multipliers": (1,),
            "model__num_res_blocks": 1,
            "model__attn_resolutions": (),
            "model__norm_groups": 4,
            "model__dtype": "float32",
        }
        config = _config(**{**small, **changes})
        state = jax.eval_shape(
            lambda key: make_state(
                build.init_params(key, config), build.make_optimizer(config)
            ),
            jax.random.key(0),
        )
        size = config.data.image_size
        batch = {
            name: jax.ShapeDtypeStruct((4, size, size, channels), jnp.uint8)
            for name, channels in (("x", 3), ("y", 3), ("hole", 1))
        }
        return str(jax.make_jaxpr(build_training.make_step(config))(state, batch))

    programs = [
        program(),
        program(diffusion__loss_norm="l1"),
        program(diffusion__objective="denoise"),
        program(optim__ema_decay=0.9),
        program(optim__accumulate=2),
        program(optim__muon=True),
        program(model__dropout=0.1),
    ]
    assert len(set(programs)) == len(programs)


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_student_is_sampled_at_the_ends_of_its_segments(steps: int) -> None:
    config = _config(distill__steps=steps, distill__teacher_steps=24)
    config.sample.update(checks.student_sampling(steps))
    _, schedule = build_training.make_loss(config)
    ends = schedule.gamma[:: -24 // steps]  # The noisiest first.
    np.testing.assert_allclose(build.make_sampler(config).gamma, ends, rtol=1e-12)


@pytest.mark.parametrize(
    ("folder", "extra", "held_out", "is_told"),
    [
        ("photos", "", "photos", True),
        ("photos", "", "photos/val", True),
        ("photos/train", "", "photos/val", False),
        ("photos", "photos", "", True),
        ("photos", "link", "", True),
        ("photos", "", "photos2", False),
        ("", "photos", "photos/val/../val", True),
        ("gs://b/a", "", "gs://b/a/val/", True),
        ("gs://b/a", "gs://b/c", "gs://b/d", False),
        ("photos", "other", "", False),
    ],
)
def test_held_out_pictures_that_are_trained_on_are_told(
    folder: str, extra: str, held_out: str, is_told: bool, tmp_path, monkeypatch, caplog
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    config = _config(
        data__source="folder" if folder else "sample_photos",
        data__folder=folder,
        data__extra_folder=extra,
        data__eval_folder=held_out,
    )
    with caplog.at_level("WARNING"):
        build.check(config, num_devices=1)
    assert ("held-out pictures are also trained on" in caplog.text) == is_told
