"""What is said of a config's keys, and configs that come back from a checkpoint."""

import json
import math
from typing import Any

import jax
import pytest

from palette_jax.config import build, build_restorer, build_training, flags, limits
from palette_jax.config.values import (
    ConfigError,
    flatten,
    from_dict,
    nearest,
    task_names,
)
from palette_jax.configs import (
    colorize,
    inpaint,
    jpeg,
    multitask,
    old_photo,
    paired,
    superres,
    uncrop,
)

MODULES = (colorize, inpaint, jpeg, multitask, old_photo, paired, superres, uncrop)
VARIANTS = ["paper", "small", "tiny"]
EVERY_CONFIG = pytest.mark.parametrize(
    ("module", "variant"), [(m, v) for m in MODULES for v in VARIANTS]
)


@EVERY_CONFIG
def test_every_variant_can_be_run(module, variant: str) -> None:
    config = module.get_config(variant)
    if module is paired:
        # Nobody knows the folders of a user; all else is there.
        with pytest.raises(ConfigError, match="input_folder"):
            build.check(config)
        config.data.input_folder, config.data.target_folder = "a", "b"
    build.check(config, num_devices=8)
    assert config.variant == variant
    assert task_names(config) and config.is_locked


@EVERY_CONFIG
def test_a_config_comes_back_from_json_as_it_was(module, variant: str) -> None:
    config = module.get_config(variant)
    back = from_dict(json.loads(json.dumps(config.to_dict())))
    assert back.is_locked
    assert back.to_dict() == config.to_dict()
    assert type(back.model.attn_resolutions) is tuple
    assert [type(value) for _, value in flatten(back.to_dict())] == [
        type(value) for _, value in flatten(config.to_dict())
    ]


@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("sample.sampler", build.make_sampler),
        ("sample.variance", build.make_sampler),
        ("diffusion.objective", build_training.make_loss),
        ("diffusion.schedule", build_training.make_loss),
        ("diffusion.objective", build.make_predictor),
        ("model.dtype", build.make_network),
    ],
)
def test_every_name_that_is_accepted_can_be_built(key: str, make) -> None:
    group, name = key.split(".")
    for value in limits.NAMES[key]:
        config = uncrop.get_config("tiny")
        config[group][name] = value
        build.check(config)
        make(config)


def test_flat_names_lead_to_the_values() -> None:
    values = {"a": 1, "b": {"c": (2, 3), "d": {"e": None}}, "f": {}}
    flat = dict(flatten(values))
    assert flat == {"a": 1, "b.c": (2, 3), "b.d.e": None}
    config = uncrop.get_config("tiny")
    for name, value in flatten(config.to_dict()):
        found = config
        for part in name.split("."):
            found = found[part]
        assert found == value


def test_the_config_of_an_older_run_means_what_it_meant() -> None:
    values = uncrop.get_config("tiny").to_dict()
    del values["diffusion"]["objective"]
    assert from_dict(values).diffusion.objective == "denoise"


_WIDE = ("data.held_out_below", str(2**63))  # A bound of hashes of 64 bits.


def _changed(group: str, **keys: Any) -> dict[str, Any]:
    values = uncrop.get_config("tiny").to_dict()
    return {**values, group: {**values[group], **keys}}


@pytest.mark.parametrize("text", ["-1e30", "1e30", "1e400", str(2**63), "9" * 5000])
def test_every_number_has_limits(text: str) -> None:
    config = flags.load("multitask:tiny")
    for key, value in flatten(config.to_dict()):
        if isinstance(value, bool | str) or (key, text) == _WIDE:
            continue
        changed = config.copy_and_resolve_references()
        with pytest.raises(ConfigError):
            flags.override(changed, [(key, text)])
            build.check(changed, num_devices=4)
            pytest.fail(f"{key}={text}")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (_changed("model", flux=3), "the unknown key model.flux"),
        (_changed("sample", clp=True), "sample.clp; did you mean 'sample.clip'"),
        (_changed("train", num_step=9), "train.num_step; did you mean 'train.num_"),
        (_changed("model", base_features="big"), "'big' for model.base_features"),
        ({**uncrop.get_config("tiny").to_dict(), "model": None}, "without model"),
        ([1, 2], "one without"),
        (None, "one without"),
        ({"data": None}, "one without"),
    ],
)
def test_a_config_of_a_newer_version_or_another_program_is_refused(
    values: Any, problem: str
) -> None:
    with pytest.raises(ConfigError, match=f"got .*{problem}.*; update palette_jax"):
        from_dict(values)


def test_keys_of_a_user_are_kept() -> None:
    values = {**_changed("data", camera="x100"), "notes": {"for_whom": "me"}}
    config = from_dict(values)
    assert (config.data.camera, config.notes.for_whom) == ("x100", "me")


def test_older_weights_have_every_key_of_a_config() -> None:
    """The weights of the package, and a config without what came later."""
    found = [
        build_restorer.load_config(p)
        for p in build_restorer.SHIPPED.iterdir()
        if p.suffix == ".safetensors"
    ]
    values = uncrop.get_config("tiny").to_dict()
    del values["distill"], values["parallel"]["slices"], values["model"]["patch_size"]
    for config in [*found, from_dict(values)]:
        config.data.source = "sample_photos"  # Theirs lie elsewhere.
        build.check(config)
        keys = dict(flatten(uncrop.get_config("paper").to_dict())).keys()
        assert dict(flatten(config.to_dict())).keys() == keys


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("train.bach_size", "train.batch_size"),
        ("train.batchsize", "train.batch_size"),
        ("model.atn_resolutions", "model.attn_resolutions"),
        ("sample.steps", "sample.num_steps"),
        ("xyzzy", ""),
    ],
)
def test_the_nearest_key_is_named_if_one_is_near(word: str, says: str) -> None:
    keys = dict(flatten(uncrop.get_config("tiny").to_dict()))
    assert nearest(word, keys) == (f"; did you mean {says!r}?" if says else "")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.log_every", 0),
        ("train.preview_every", 0),
        ("train.num_previews", 0),
        ("optim.accumulate", 0),
        ("optim.clip_norm", math.nan),
        ("optim.learning_rate", -1.0),
        ("data.num_eval", 0),
        ("data.min_scale", 1.5),
        ("eval.jpeg_quality", 101),
        ("sample.eta", 1.5),
        ("sample.num_steps", 0),
        ("sample.beta_min", 0.5),
        ("diffusion.beta_min", 0.5),
        ("diffusion.num_steps", 0),
        ("model.num_heads", 3),
        ("model.feature_multipliers", ()),
        ("model.feature_multipliers", (0, 1, 2)),
        ("model.feature_multipliers", (1, math.inf, 2)),
        ("model.norm_epsilon", -1e-5),
        ("model.norm_epsilon", math.nan),
        ("model.dropout", 1.0),
        ("mix.jpeg", math.nan),
        ("optim.learning_rate", math.inf),
        ("optim.b2", 1.0),
        ("optim.ema_decay", 1.0),
        ("train.checkpoint_minutes", -1.0),
        ("train.checkpoint_minutes", math.nan),
        ("distill.teacher_steps", 0),
        ("distill.steps", -4),
        ("diffusion.num_steps", 10**11),  # A table of 745 GiB.
        ("sample.num_steps", 10**11),
    ],
)
def test_a_number_that_nothing_can_be_done_with_is_named(
    key: str, value: float | tuple
) -> None:
    config = uncrop.get_config("tiny")
    group, name = key.split(".")
    config[group][name] = value
    with pytest.raises(ConfigError, match=key) as raised:
        build.check(config)
    assert str(raised.value).startswith("expected ")
    assert str(value) in str(raised.value)


def test_a_batch_that_the_devices_cannot_share_is_refused() -> None:
    config = uncrop.get_config("tiny")
    build.check(config, num_devices=16)
    for key, devices, enough in (("train", 3, "18"), ("eval", 16, "48")):
        config = uncrop.get_config("tiny")
        config.eval.batch_size = 33 if key == "eval" else 48
        with pytest.raises(ConfigError, match=f"{key}.batch_size={enough}"):
            build.check(config, num_devices=devices)


def test_a_second_source_is_one_of_single_pictures() -> None:
    config = uncrop.get_config("paper")
    build.check(config)  # ImageNet and Places2.
    config.data.source, config.data.folder = "folder", "photos"
    build.check(config)
    config.data.extra_folder = "places"
    with pytest.raises(ConfigError, match=r"extra_folder=places.*extra_tfds_name"):
        build.check(config)
    pairs = paired.get_config("tiny")
    pairs.data.input_folder = pairs.data.target_folder = "pairs"
    pairs.data.extra_folder = "places"
    with pytest.raises(ConfigError, match=r"places with data\.source=paired"):
        build.check(pairs)


def test_seeds_that_would_be_others_once_more_are_refused() -> None:
    config = uncrop.get_config("tiny")
    for seed in (0, 2**32 - 1):
        config.seed = seed
        build.check(config)
    first, last = (jax.random.key_data(jax.random.key(s)) for s in (0, 2**32 - 1))
    assert (first != last).any()
    for seed in (-1, 2**32):
        config.seed = seed
        with pytest.raises(ConfigError, match="expected seed >= 0 and <= 4294967295"):
            build.check(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x =", "SyntaxError"),
        ("", "get_config"),
        ("def get_config(): return None", "returns the config"),
        ("def get_config(v='a'): return {}[v]", "KeyError: 'b'"),
        (
            "import ml_collections\n"
            "def get_config(v=''): return ml_collections.ConfigDict({'seed': 1})",
            "got no data",
        ),
        (
            "from palette_jax.config import base\n"
            "def get_config(v):\n"
            "  config = base.get_config('tiny')\n"
            "  config.train.num_stepz = 3\n"
            "  return config",
            "num_stepz",
        ),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, text: str, words: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as raised:
        flags.load(f"{path}:b" if "(v" in text else str(path))
    assert "mine.py" in str(raised.value) and "\n" not in str(raised.value)
