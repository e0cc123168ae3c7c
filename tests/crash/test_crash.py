"""The short form of `python -m tests.crash`."""

import pathlib
import random

import pytest

from tests.crash.crash import PLACES, crash, draw_kills


@pytest.mark.slow
def test_a_run_that_is_killed_ends_with_the_bits_of_one_that_is_not(
    tmp_path: pathlib.Path,
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # Shown where it fails.
    kills = draw_kills(seed, len(PLACES), alone=False)
    assert len(crash(tmp_path, kills)) == len(PLACES)
