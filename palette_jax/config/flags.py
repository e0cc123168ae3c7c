"""Configs by name or file, and the flags `--config.KEY=VALUE` that change keys."""

import ast
import importlib.util
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import ml_collections

from palette_jax.config import base
from palette_jax.config.values import ConfigError, flatten, nearest

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
_OVERRIDE = re.compile(r"--?(no)?config\.([\w.]+)(?:=(.*))?", re.DOTALL)
_KINDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    tuple: "values separated by commas",
}

Override = tuple[str, str | None]
"""A key and its value as text; None where the flag has no value."""


def names() -> list[str]:
    """Returns the names of the configs that come with the package."""
    return sorted(path.stem for path in CONFIGS.glob("[!_]*.py"))


def load(name: str) -> ml_collections.ConfigDict:
    """Returns the config of `NAME:VARIANT` or `FILE.py:VARIANT`.

    Raises:
      ConfigError: if there is no such config or variant.
    """
    file, _, variant = name.partition(".py:") if ".py" in name else (name, "", "")
    if name.endswith(".py") or variant:
        path = pathlib.Path(name if not variant else f"{file}.py").expanduser()
    else:
        file, _, variant = name.partition(":")
        path = CONFIGS / f"{file}.py"
    if not path.is_file():
        raise ConfigError(
            f"expected --config=NAME or --config=FILE.py, got {name!r}, which is"
            f" neither a file nor one of {', '.join(names())}{nearest(file, names())};"
            " write e.g. --config=uncrop:tiny"
        )
    spec = importlib.util.spec_from_file_location("palette_jax_config", path)
    assert spec is not None and spec.loader is not None  # It ends in .py.
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(variant) if variant else module.get_config()
        missing = dict(flatten(base.get_config().to_dict())).keys() - dict(
            flatten(config.to_dict())
        )
    except ConfigError:
        raise
    except Exception as error:  # A user's file may raise any.
        raise ConfigError(
            f"expected a function get_config() in {path} that returns the config, got"
            f" {type(error).__name__}: {error}"
        ) from error
    if missing:
        raise ConfigError(
            f"expected the keys of palette_jax/config/base.py in {path}, got no"
            f" {', '.join(sorted(missing)[:5])}; change what base.get_config() returns"
        )
    return config


def split(argv: Sequence[str]) -> tuple[list[str], list[Override]]:
    """Returns the arguments without `--config.KEY` flags, and those as overrides.

    A value may be the next argument; a flag without a value sets a key to true, and
    `--noconfig.KEY` to false. The last flag of a repeated key counts.
    """
    rest: list[str] = []
    overrides: dict[str, str | None] = {}
    waiting = None  # The key of a flag whose value may follow.
    for arg in argv:
        match = _OVERRIDE.fullmatch(arg)
        if match:
            negated, key, value = match.groups()
            overrides.pop(key, None)
            overrides[key] = "false" if negated else value
            waiting = key if value is None and not negated else None
        elif waiting and not arg.startswith("--"):
            overrides[waiting], waiting = arg, None
        else:
            rest.append(arg)
            waiting = None
    return rest, list(overrides.items())


def override(config: ml_collections.ConfigDict, overrides: Sequence[Override]) -> None:
    """Changes keys of a config.

    Raises:
      ConfigError: for an unknown key, or a value of another kind.
    """
    values = dict(flatten(config.to_dict()))
    for key, text in overrides:
        if key not in values:
            raise ConfigError(f"the config has no key {key!r}{nearest(key, values)}")
        kind = type(values[key])
        try:
            value = _parse(text, kind)
        except (ValueError, SyntaxError) as error:
            got = "no value" if text is None else repr(text)
            raise ConfigError(
                f"expected {_KINDS[kind]} for {key}, got {got}; write"
                f" --config.{key}=VALUE"
            ) from error
        group, _, name = key.rpartition(".")
        with config.unlocked():
            (config[group] if group else config)[name] = value


def _parse(text: str | None, kind: type) -> Any:
    """Returns the value of a text; raises ValueError for another kind."""
    if kind is bool:
        known = {"true": True, "1": True, "false": False, "0": False}
        word = "true" if text is None else text.lower()
        if word not in known:
            raise ValueError
        return known[word]
    if text is None:
        raise ValueError
    if kind is str and text.startswith("~"):
        return os.path.expanduser(text)
    if kind is not tuple:
        return kind(text)
    text = text.strip().removeprefix("(").removesuffix(")")
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(_literal(part) for part in parts)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # The checks raise an error about it.
