"""python -m tests.crash: kills a run of two processes at random moments.

In steps, in saves and in start-up, one process first or alone. It must end with the
bits of a run that nothing happened to, and lose no step beyond the save interval.
"""

import argparse
import pathlib
import random
import sys
import tempfile

import tests.conftest  # noqa: F401  # Sets the environment of JAX.
from tests.crash.crash import PLACES, crash, draw_kills


def main() -> int:
    """Returns 0 if nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="20 by default")
    parser.add_argument("--seed", type=int, help="of the moments; by default another")
    args = parser.parse_args()
    seed = random.randrange(10**6) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        kills = draw_kills(seed, args.kills, alone=True)
        places = crash(
            pathlib.Path(folder), kills, say=lambda line: print(line, flush=True)
        )
    print(", ".join(f"{places.count(place)} in {place}" for place in PLACES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
