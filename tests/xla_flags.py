"""The flags of XLA that make tests compile fast, those that this jaxlib knows."""

from importlib import metadata


def fast_to_compile(num_devices: int) -> str:
    """Returns the value of XLA_FLAGS; an unknown flag would end the process.

    Without optimization XLA compiles twice as fast. But the gradient of a convolution
    inside a scan runs 80 times slower: keep those out of the tests, or very small.
    """
    flags = [
        f"--xla_force_host_platform_device_count={num_devices}",
        "--xla_backend_optimization_level=0",
    ]
    version = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    if version < (0, 11):  # Compiles in two thirds of the time; gone in 0.11.
        flags.append("--xla_cpu_use_fusion_emitters=false")
    return " ".join(flags)
