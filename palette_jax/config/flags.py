"""Command-line flags to a config; what is wrong with them is said in one line."""

import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from etils import epath
from ml_collections import config_flags

from palette_jax.config.values import flatten, from_dict, nearest
from palette_jax.training import checkpoints

_OVERRIDE = re.compile(r"--?(?:no)?config\.([\w.]+)")
_NO_VALUE = re.compile(r"--?config(\.[\w.]+)?")
_CONFIG_FILE = re.compile(r"--?config(=|$)")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "tuple": "values separated by commas",
}


def define(*, flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags that do not depend on others."""
    flags.DEFINE_string(
        "workdir",
        None,
        "Where the run is kept; a local path or gs://. Planning needs none.",
        flag_values=flag_values,
    )
    flags.DEFINE_enum(
        "mode",
        "train",
        ["train", "sample", "evaluate", "plan"],
        "What to do with the run.",
        flag_values=flag_values,
    )
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Check, say what would be done, and stop.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "topology",
        "",
        "Of --mode=plan: the machine, v5e:4x4, 2*v5e:4x4, cpu, gpu:80GB...",
        flag_values=flag_values,
    )
    flags.DEFINE_bool(
        "search_batch",
        False,
        "Of --mode=plan: look for the largest training batch that fits.",
        flag_values=flag_values,
    )
    flags.DEFINE_enum(
        "effort",
        "quick",
        ["quick", "full"],
        "Of --mode=plan: how hard the compiler for a TPU tries. A run gets full, which"
        " takes ten times as long or more.",
        flag_values=flag_values,
    )
    _define_processes(flag_values)


def _define_processes(flag_values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of the first of several processes, where JAX does not find it.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "num_processes", None, "How many there are.", flag_values=flag_values
    )
    flags.DEFINE_integer(
        "process_id", None, "Which one this is, from 0.", flag_values=flag_values
    )
    flags.DEFINE_integer(
        "join_timeout",
        1800,
        "Seconds to wait for the other processes.",
        lower_bound=1,
        flag_values=flag_values,
    )


def parse(argv: Sequence[str]) -> list[str]:
    """Parses flags for `app.run`.

    Training and planning read `--config=FILE`. The other modes take the config that the
    checkpoint was trained with and need no file; `--config.KEY=VALUE` changes either.
    """
    argv = _join(argv)
    # Of a key that is given twice the last counts; a tuple would grow instead.
    overrides = list(
        {_split(arg)[0]: arg for arg in argv if _OVERRIDE.match(arg)}.values()
    )
    rest = [arg for arg in argv if not _OVERRIDE.match(arg)]
    known: Any = flags.FLAGS
    try:
        known(rest, known_only=True)
        if known.workdir is None and known.mode != "plan":
            raise ValueError("expected --workdir=DIR, where the run is kept, got none")
        if known.mode in ("train", "plan"):
            values = dict(flatten(_load_file(rest)))
            config_flags.DEFINE_config_file("config", None, "File of the config.")
        else:
            stored = checkpoints.load_config(epath.Path(known.workdir) / "checkpoints")
            config = from_dict(stored)  # With the keys that were added since.
            values = dict(flatten(config.to_dict()))
            config_flags.DEFINE_config_dict("config", config)
            rest = [arg for arg in rest if not _CONFIG_FILE.match(arg)]
        _check_keys(overrides, values)
    except (flags.Error, OSError, ValueError, TypeError) as error:
        sys.exit(f"error: {_last_cause(error)}")
    known.unparse_flags()
    try:
        left = known([*rest, *overrides])
    except (flags.Error, ValueError, TypeError) as error:
        sys.exit(f"error: {_explain(error, overrides, values)}")
    if left[1:]:
        sys.exit(f"error: expected --FLAG=VALUE, got {left[1]!r}")
    return left


def _join(argv: Sequence[str]) -> list[str]:
    """Returns `--config.KEY VALUE` as `--config.KEY=VALUE`."""
    joined: list[str] = []
    for arg in argv:
        if joined and _NO_VALUE.fullmatch(joined[-1]) and not arg.startswith("--"):
            joined[-1] += f"={arg}"
        else:
            joined.append(arg)
    return joined


def _load_file(argv: Sequence[str]) -> dict[str, Any]:
    """Returns the config of `--config=FILE`, as yet without overrides."""
    alone: Any = flags.FlagValues()
    define(flag_values=alone)
    config_flags.DEFINE_config_file(
        "config", None, flag_values=alone, sys_argv=list(argv)
    )
    alone(argv, known_only=True)
    if alone.config is None:
        raise ValueError("expected --config=FILE, e.g. --config=configs/uncrop.py:tiny")
    return alone.config.to_dict()


def _check_keys(overrides: Sequence[str], values: dict[str, Any]) -> None:
    for key, _ in map(_split, overrides):
        if key not in values:
            raise ValueError(f"the config has no key {key!r}{nearest(key, values)}")


def _explain(error: Exception, overrides: Sequence[str], values: dict[str, Any]) -> str:
    for key, value in map(_split, overrides):
        if f"config.{key}=" in str(error):
            kind = type(values[key]).__name__
            return f"expected {_KINDS.get(kind, kind)} for {key}, got {value!r}"
    return _last_cause(error)


def _split(override: str) -> tuple[str, str]:
    name, _, value = override.partition("=")
    return name.split("config.", 1)[1], value


def _last_cause(error: Exception) -> str:
    """Returns what a config file raised, without the trace around it."""
    causes = [line for line in str(error).splitlines() if "Error: " in line]
    return causes[-1].split("Error: ", 1)[1] if causes else str(error)
