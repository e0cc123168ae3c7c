"""Which keys the weights and the results of a run follow from."""

import pytest

from palette_jax.config import flags, identity
from palette_jax.config.values import ConfigError
from palette_jax.configs import multitask, uncrop


def _changed(*overrides: str):
    config = uncrop.get_config("tiny")
    flags.override(config, flags.split(overrides)[1])
    return config


@pytest.mark.parametrize(
    "override",
    [
        "--config.diffusion.objective=denoise",
        "--config.diffusion.beta_max=0.02",
        "--config.diffusion.loss_norm=l1",
        "--config.data.image_size=64",
        "--config.data.hints=True",
        "--config.task=inpaint",
    ],
)
def test_what_the_weights_mean_stays(override: str) -> None:
    key = override.split("=")[0].removeprefix("--config.")
    named = "tasks" if key == "task" else key
    with pytest.raises(ConfigError, match=f"{named}: expected .*--workdir"):
        identity.check_resume(_changed(), _changed(override), "runs/a")


@pytest.mark.parametrize("key", uncrop.get_config("tiny").model)
def test_of_the_network_all_but_its_cost_stays(key: str) -> None:
    before, after = _changed(), _changed()
    old = before.model[key]
    others = {bool: not old, tuple: (1,), str: "other"}
    after.model[key] = others[type(old)] if type(old) in others else old + 1
    if key in ("remat", "dtype", "dropout"):
        assert identity.check_resume(before, after, "runs/a")
        return
    with pytest.raises(ConfigError, match=f"model.{key}: expected"):
        identity.check_resume(before, after, "runs/a")


@pytest.mark.parametrize(
    "override",
    [
        "--config.optim.clip_norm=0",
        "--config.optim.learning_rate=1e-5",
        "--config.optim.accumulate=4",
        "--config.parallel.fsdp=2",
        "--config.train.num_steps=9",
    ],
)
def test_what_a_step_costs_may_change_and_is_told(override: str) -> None:
    (line,) = identity.check_resume(_changed(), _changed(override), "runs/a")
    assert line.startswith(override.split("=")[0].removeprefix("--config."))


def test_weights_of_a_mix_may_change_and_its_tasks_may_not() -> None:
    before, after = multitask.get_config("tiny"), multitask.get_config("tiny")
    after.mix.jpeg = 3.0
    assert identity.check_resume(before, after, "runs/a")
    after.mix.jpeg = 0.0
    with pytest.raises(ConfigError, match="tasks: expected"):
        identity.check_resume(before, after, "runs/a")


@pytest.mark.parametrize(
    "override",
    [
        "--config.diffusion.objective=denoise",
        "--config.data.gray=lightness",
        "--config.eval.jpeg_quality=6",
        "--config.sample.clip=False",
        "--config.sample.num_samples=2",
        "--config.sample.spacing=2.5",
        "--config.model.dtype=bfloat16",
        "--config.seed=1",
    ],
)
def test_results_of_other_settings_are_other_results(override: str) -> None:
    one, other = (
        identity.digest(identity.protocol(config))
        for config in (_changed(), _changed(override))
    )
    assert one != other


@pytest.mark.parametrize(
    "override",
    [
        "--config.optim.learning_rate=1",
        "--config.parallel.fsdp=2",
        "--config.data.folder=/elsewhere",
        "--config.train.keep=9",
    ],
)
def test_results_do_not_follow_from_how_a_run_was_trained(override: str) -> None:
    assert identity.protocol(_changed()) == identity.protocol(_changed(override))


def test_held_out_pictures_stay_held_out_when_the_bound_is_given() -> None:
    before = _changed("--config.data.held_out_below=1000")
    for same in ("--config.data.held_out_below=1000", "--config.data.held_out_below=0"):
        identity.check_resume(before, _changed(same), "runs/a")
    with pytest.raises(ConfigError, match=r"held_out_below=1000, .* got 2000"):
        identity.check_resume(
            before, _changed("--config.data.held_out_below=2000"), "runs/a"
        )
