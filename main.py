"""The command line of a checkout.

python main.py --config=configs/uncrop.py:tiny --workdir=runs/tiny
python main.py --mode=evaluate --workdir=runs/tiny

The same as `palette-jax train` and `palette-jax evaluate`.
"""

import argparse
import sys

from palette_jax.__main__ import use_huge_pages


def main() -> int:
    """Runs the mode that the arguments name; returns its exit status."""
    use_huge_pages()
    # After the restart, because these imports take seconds.
    from palette_jax import cli
    from palette_jax.programs.run import MODES

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--mode", choices=MODES, default="train")
    args, rest = parser.parse_known_args()
    if args.mode == "evaluate" and not any(arg.startswith("--workdir") for arg in rest):
        sys.exit("error: expected --workdir=DIR, where the run is kept, got none")
    return cli.run([args.mode, *rest])


if __name__ == "__main__":
    sys.exit(main())
