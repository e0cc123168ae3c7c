"""The `palette-jax` command: one subcommand for each program."""

import argparse
import errno
import importlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import palette_jax
from palette_jax import interruptible
from palette_jax.config import flags
from palette_jax.config.values import nearest
from palette_jax.errors import UserError

# Subcommand: the module of palette_jax.programs, and its help. A module has
# `add_arguments(parser)` and `run(args) -> exit status`. Only the requested module is
# imported, because some imports take seconds.
COMMANDS = {
    "train": ("run", "train a model; the same command resumes it"),
    "distill": ("distill", "train a student of a run that samples in few steps"),
    "sample": ("run", "restore the evaluation pictures with a run"),
    "evaluate": ("evaluate", "measure pictures of any program, or a run (--workdir)"),
    "compare": ("compare", "test which of two methods is better on the same pictures"),
    "plan": ("run", "print the memory and time of a run on a machine"),
    "restore": ("restore", "restore your own pictures"),
    "panorama": ("panorama", "extend a picture several times"),
    "demo": ("demo", "open a page in the browser for your own pictures"),
    "data": ("data_check", "check a folder of pictures before training"),
    "study": ("study", "ask people which of two pictures is from a camera"),
    "doctor": ("doctor", "check the installation, the devices, a checkpoint"),
    "diff": ("diff", "list the differences between two runs"),
    "verify": ("verify", "repeat the last steps of a run, or a result, bit by bit"),
    "import": ("import_weights", "make a run of weights of other projects"),
    "export": ("export_weights", "write the weights of a run as safetensors"),
}


# Errors of a full or read-only disk, and of paths that no disk takes.
_DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


def main() -> int:
    """Runs the subcommand that the arguments name; returns its exit status."""
    for name in ("stdout", "stderr"):  # A service may have closed them.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
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
        # Python would report the error again when it flushes at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _DISK:
            raise
        print(
            f"error: {error}; make room, check the permissions, or choose another"
            " place",
            file=sys.stderr,
        )
        return 1


# Messages of argparse, and ours.
_ARGUMENT_ERRORS = (
    (
        r"argument (.+?): invalid choice: (.+) \(choose from (.+)\)",
        r"expected \1 out of \3, got \2",
    ),
    (r"argument (.+?): invalid int value: ", r"expected a whole number for \1, got "),
    (r"argument (.+?): invalid float value: ", r"expected a number for \1, got "),
    (r"argument (.+?): expected (.+? from .+?), got ", r"expected \2 for \1, got "),
    (r"argument (.+?): expected one argument", r"expected a value for \1, got none"),
    (r"the following arguments are required: (.+)", r"expected \1, got none"),
    (r"unrecognized arguments: (.+)", r"expected known flags, got \1"),
)


class _Parser(argparse.ArgumentParser):
    """Raises errors in the arguments, to print them in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises `UserError`, in the form of all errors."""
        for pattern, expected in _ARGUMENT_ERRORS:
            message = re.sub(pattern, expected, message, flags=re.DOTALL)
        got = re.search(r"expected \S+ out of (.*), got '(\w+)'", message)
        hint = nearest(got[2], re.findall(r"[\w-]+", got[1])) if got else ""
        raise UserError(f"{message}{hint}; see `{self.prog} --help`")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints help; argparse would hide that it could not be written."""
        print(message, end="", file=file, flush=True)


def _run(argv: list[str], overrides: list[flags.Override]) -> int:
    parser = _Parser(
        prog="palette-jax",
        description="Image-to-image diffusion: train, restore, evaluate.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"palette-jax {palette_jax.__version__}"
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    log_level = os.environ.get("TF_CPP_MIN_LOG_LEVEL")  # JAX sets it when imported.
    command = next((arg for arg in argv if not arg.startswith("-")), None)
    program: Any = None
    for name, (module, about) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=about, description=f"{about[0].upper()}{about[1:]}."
        )
        if name == command:
            if name == "evaluate" and any(arg.startswith("--workdir") for arg in argv):
                module = "run"
            program = _import(f"palette_jax.programs.{module}", name)
            program.add_arguments(subparser)
    for arg in argv:
        # An unset variable of a shell; as a path, it would be the current folder.
        if not arg or (arg.startswith("--") and arg.endswith("=")):
            raise UserError(f"expected a value, got an empty one ({arg or repr(arg)})")
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
    args.overrides, args.tensorflow_log_level = overrides, log_level
    if overrides and module not in ("run", "distill"):
        raise UserError(
            f"expected no --config.{overrides[0][0]} with {args.command}, which has no"
            " config; see `palette-jax"
            f" {args.command} --help`"
        )
    if module not in ("run", "distill"):  # Training has its own handlers.
        _stop_as_ctrl_c()
    status = program.run(args)
    sys.stdout.flush()
    return status


def _stop_as_ctrl_c() -> None:
    """Makes SIGTERM and a lost terminal stop as Ctrl+C does, without partial files."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # As under nohup.
            signal.signal(number, signal.default_int_handler)


def _import(module: str, command: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if command not in ("evaluate", "compare"):
            raise
        raise UserError(
            f"expected the packages of `palette-jax {command}`, got no"
            f" {str(error.name).partition('.')[0]}; pip install 'palette-jax[eval]'"
        ) from error


def _expand(value: Any) -> Any:
    is_home = isinstance(value, str) and value.startswith("~")
    return os.path.expanduser(value) if is_home else value


if __name__ == "__main__":
    sys.exit(main())
