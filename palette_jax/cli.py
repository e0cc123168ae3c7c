"""The `palette-jax` command: one subcommand for each program."""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import palette_jax
from palette_jax import interruptible
from palette_jax.config import flags
from palette_jax.errors import UserError

# Subcommand: the module of palette_jax.programs, and what it does. A module has
# `add_arguments(parser)` and `run(args) -> exit status`; only the one asked for is
# imported, since some take seconds.
COMMANDS = {
    "train": ("run", "train a model; the same command again goes on"),
    "distill": ("distill", "train a student of a run that needs only a few steps"),
    "sample": ("run", "restore the evaluation pictures with a run"),
    "evaluate": (
        "evaluate",
        "judge pictures that any program made, or a run (--workdir)",
    ),
    "compare": ("compare", "say which of two methods is better on the same pictures"),
    "plan": ("run", "say what a run would take on a machine"),
    "restore": ("restore", "restore pictures of your own"),
    "panorama": ("panorama", "extend a picture again and again"),
    "demo": ("demo", "open a page in the browser for your own pictures"),
    "data": ("data_check", "check a folder of pictures before training"),
    "study": ("study", "ask people which of two pictures is from a camera"),
    "doctor": ("doctor", "check what is installed, the devices, a checkpoint"),
    "diff": ("diff", "say what differs between two runs"),
    "verify": ("verify", "repeat the last steps of a run, or a result, bit by bit"),
    "import": ("import_weights", "turn weights that were trained elsewhere into a run"),
    "export": ("export_weights", "write the weights of a run as safetensors"),
}


# What a disk says that is full, or that may not be written to.
_DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)


def main() -> int:
    """Runs the subcommand that the arguments name; returns its exit status."""
    return interruptible.leave(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Runs a subcommand with its arguments; returns its exit status."""
    argv, overrides = flags.split(argv)
    try:
        return _run(argv, overrides)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # As with `| head -1`.
        # Python would complain once more when it flushes at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _DISK:
            raise
        print(
            f"error: {error}; make room, or choose a place that you may write to",
            file=sys.stderr,
        )
        return 1


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong with the arguments, to be said in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises `UserError`."""
        raise UserError(f"{message}; see `{self.prog} --help`")


def _run(argv: list[str], overrides: list[flags.Override]) -> int:
    parser = _Parser(
        prog="palette-jax",
        description="Image-to-image diffusion: train, restore pictures, judge results.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"palette-jax {palette_jax.__version__}"
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    asked_for = next((arg for arg in argv if not arg.startswith("-")), None)
    program: Any = None
    for name, (module, what) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=what, description=f"{what[0].upper()}{what[1:]}."
        )
        if name == asked_for:
            if name == "evaluate" and any(arg.startswith("--workdir") for arg in argv):
                module = "run"
            program = importlib.import_module(f"palette_jax.programs.{module}")
            program.add_arguments(subparser)
    module = program.__name__.rpartition(".")[2] if program else ""
    for arg in argv[1:] if module == "run" else ():
        if not arg.startswith("-") and "=" in arg and ":" not in arg:
            raise UserError(f"expected --FLAG=VALUE, got {arg!r}; write --{arg}")
    args = parser.parse_args(argv)
    if program is None:
        parser.print_help()
        return 0
    for name, value in vars(args).items():
        # A shell expands ~ at the start of a word only, not in --out=~/x.
        if isinstance(value, str):
            setattr(args, name, _expand(value))
        elif isinstance(value, list):
            setattr(args, name, [_expand(item) for item in value])
    args.overrides = overrides
    if overrides and module not in ("run", "distill"):
        raise UserError(
            f"expected no --config.{overrides[0][0]} with {args.command}, which has no"
            " config; see `palette-jax"
            f" {args.command} --help`"
        )
    status = program.run(args)
    sys.stdout.flush()
    return status


def _expand(value: Any) -> Any:
    is_home = isinstance(value, str) and value.startswith("~")
    return os.path.expanduser(value) if is_home else value


if __name__ == "__main__":
    sys.exit(main())
