"""Prints the memory and communication of each device, with four images on each.

python -m benchmarks.scaling

The devices are simulated on this machine's CPU, and nothing runs: the figures come from
the compiled training step.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)

import jax

from palette_jax.configs import uncrop
from palette_jax.planning import steps
from palette_jax.planning.topology import Chip, Topology

IMAGES_PER_DEVICE = 4
ANY_CHIP = Chip("CPU", 1.0, 1.0, 1.0)  # Its rates are not used.


def compile_for(num_devices: int, fsdp: int) -> steps.Compiled:
    """Compiles the training step of a small network for some devices."""
    config = uncrop.get_config("tiny")
    config.data.image_size = 4  # Too small for Winograd, which only CPUs use.
    config.model.base_features = 128
    config.model.feature_multipliers = (1,)
    config.model.attention = "none"
    config.train.batch_size = IMAGES_PER_DEVICE * num_devices
    config.parallel.fsdp = fsdp
    devices = jax.devices()[:num_devices]
    topology = Topology("cpu", ANY_CHIP, devices, compiles=True)
    return steps.compile_step(steps.training_step(config, topology), topology)


def print_row(num_devices: int, fsdp: int) -> None:
    """Prints the figures of one device, in megabytes."""
    found = compile_for(num_devices, fsdp)
    sent = ", ".join(
        f"{kind} {one[1] / 1e6:.3f}" for kind, one in found.collectives.items()
    )
    total = sum(one[1] for one in found.collectives.values())
    print(
        f"{num_devices:>7}{fsdp:>6}{found.memory['arguments'] / 1e6:>16.3f}"
        f"{found.needed / 1e6:>15.3f}{total / 1e6:>14.3f}  {sent or 'none'}",
        flush=True,
    )


def main() -> None:
    """Prints a row for each number of devices, whole copies first, then fsdp."""
    print(f"MB of each device; {IMAGES_PER_DEVICE} images of 4 x 4 on each")
    print(f"{'devices':>7}{'fsdp':>6}{'state and batch':>16}{'peak':>15}{'sent':>14}")
    for num_devices in (1, 2, 4, 8):
        print_row(num_devices, 1)
    for num_devices in (2, 4, 8):
        print_row(num_devices, num_devices)


if __name__ == "__main__":
    main()
