"""Gives every test the same machine: four CPU devices and strict shapes."""

import os
import pathlib
import signal
import tempfile

import pytest

# JAX and TensorFlow read their settings when they are imported, and the programs that
# tests start read the same ones: so they are set here, before any test file is read.
# A platform that the caller names wins, which is how the tests run on an accelerator.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        # Compiles twice as fast. But the gradient of a convolution inside a scan runs
        # 80 times slower: keep those out of the tests, or very small.
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",  # Compiles in two thirds of the time.
    ]
)
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Kept from run to run; the user's name, because another user could not write there.
_CACHE = pathlib.Path(tempfile.gettempdir(), f"palette_jax_tests_{os.getuid()}")
_CACHE.mkdir(mode=0o700, exist_ok=True)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

# What is started in the background ignores Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def reference_data() -> pathlib.Path:
    """The folder of pictures, weights and numbers that other projects computed.

    It is not part of the repository: its tests are skipped where it is missing.
    """
    named = os.environ.get("PALETTE_JAX_TEST_DATA")
    folder = pathlib.Path(named) if named else _ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            f"expected the reference data in {folder}, got no such folder; set"
            " PALETTE_JAX_TEST_DATA to where it lies"
        )
    return folder
