"""Which schedulers of diffusers a network is taken with."""

import pytest

from palette_jax.errors import WeightsError
from palette_jax.interop.diffusers_config import check_schedule


def test_schedulers_of_predicted_noise_are_taken() -> None:
    for name in ("DDPMScheduler", "DDIMScheduler", "UniPCMultistepScheduler"):
        check_schedule({"_class_name": name, "beta_schedule": "linear"})


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
        {"_class_name": "EDMEulerScheduler"},
        {"_class_name": "ScoreSdeVeScheduler"},
        {"_class_name": "CMStochasticIterativeScheduler"},
        {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True},
        {"_class_name": "DDPMScheduler", "prediction_type": "v_prediction"},
        {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True},
    ],
)
def test_all_others_are_refused(config: dict) -> None:
    with pytest.raises(WeightsError):
        check_schedule(config)
