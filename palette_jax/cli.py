"""The `palette-jax` command: one subcommand for each program of a user."""

import argparse
import importlib
import sys

from palette_jax.errors import UserError

# Subcommand: the module of palette_jax.programs, and what it does. A module has
# `add_arguments(parser)` and `run(args) -> exit status`; only the one asked for is
# imported, since some take seconds.
COMMANDS = {
    "restore": ("restore", "restore pictures of your own"),
    "panorama": ("panorama", "extend a picture again and again"),
    "evaluate": ("evaluate_pictures", "judge pictures that any program made"),
    "study": ("study", "ask people which of two pictures is from a camera"),
    "doctor": ("doctor", "check what is installed, the devices, a checkpoint"),
    "diff": ("diff", "say what differs between two runs"),
    "verify": ("verify", "repeat the last steps of a run and compare the bits"),
    "demo": ("demo", "open a page in the browser for your own pictures"),
    "import": ("import_weights", "turn weights that were trained elsewhere into a run"),
    "export": ("export_weights", "write the weights of a run as safetensors"),
}


def main() -> int:
    """Runs the subcommand that the arguments name; returns its exit status."""
    argv = sys.argv[1:]
    parser = argparse.ArgumentParser(
        prog="palette-jax",
        description="Image-to-image diffusion: restore pictures, look after models.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked_for = next((arg for arg in argv if not arg.startswith("-")), None)
    program = None
    for name, (module, what) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=what, description=what)
        if name == asked_for:
            program = importlib.import_module(f"palette_jax.programs.{module}")
            program.add_arguments(subparser)
    args = parser.parse_args(argv)
    assert program is not None  # The parser has refused what is no command.
    try:
        return program.run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
