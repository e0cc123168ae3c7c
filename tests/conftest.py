"""Gives every test the same machine: four CPU devices and strict shapes."""

import os
import pathlib
import signal
import tempfile

import pytest

from tests import xla_flags

# JAX and TensorFlow read their settings when they are imported, and the programs that
# tests start read the same ones: so they are set here, before any test file is read.
# A platform that the caller names wins, which is how the tests run on an accelerator.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} {xla_flags.fast_to_compile(num_devices=4)}"
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
# Set, so that the commands do not restart themselves: some run in forks of a process
# that has another command line.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")

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
