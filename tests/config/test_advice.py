"""Errors that name a flag: what they advise is tried, and works."""

import re

import pytest

from palette_jax.config import build, flags
from palette_jax.config.values import ConfigError
from palette_jax.configs import uncrop

_ADVICE = re.compile(r"--config\.[\w.]+=[^\s;,)]+")


def _check(*overrides: str) -> None:
    config = uncrop.get_config("tiny")
    flags.override(config, flags.split(overrides)[1])
    build.check(config, num_devices=4)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--config.train.batch_size=6",),
        ("--config.eval.batch_size=30",),
        ("--config.data.image_size=30",),
        ("--config.parallel.fsdp=3",),
        ("--config.parallel.fsdp=2", "--config.parallel.compile=pmap"),
        ("--config.diffusion.beta_max=1e-5",),
        *((f"--config.diffusion.num_steps={n}",) for n in (1, 2, 5, 25, 30, 100)),
        ("--config.sample.beta_max=1e-3",),
        ("--config.model.num_heads=7",),
        ("--config.model.feature_multipliers=1,2,7",),
        ("--config.model.attn_resolutions=5",),
        ("--config.sample.sampler=ddim2",),
    ],
)
def test_following_the_advice_of_an_error_works(wrong: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as raised:
        _check(*wrong)
    advice = _ADVICE.findall(str(raised.value))
    assert advice, f"no flag to set in: {raised.value}"
    _check(*wrong, advice[0])
