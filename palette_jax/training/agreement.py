"""Compares the settings of all processes of a run before its first step."""

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any

import jax

from palette_jax.errors import UserError

# Seconds to wait for the other processes where all have joined.
_ANSWER_TIMEOUT = 600


def agree(facts: Mapping[str, Any]) -> None:
    """Waits until all processes have compared their facts, and raises if any differ.

    Processes with different configs or pictures would train different models, or wait
    for each other forever. Call it before the first collective operation, with
    JSON values under the same names.

    Raises:
      UserError: on every process, if one of them differs or does not answer.
    """
    count, index = jax.process_count(), jax.process_index()
    if count == 1:
        return
    from jax._src import distributed  # No public function waits with a limit.

    client: Any = distributed.global_state.client
    prefix = "palette_jax/facts/"
    mine = {name: json.dumps(value, default=str) for name, value in facts.items()}
    client.key_value_set(f"{prefix}{index}", json.dumps(mine))
    if index == 0:
        wrong = _disagreements(client, prefix, mine, count)
        client.key_value_set(f"{prefix}verdict", json.dumps(wrong))
        if wrong:
            _wait_for_readers(client, prefix, count)
    else:
        try:
            # Host 0 itself waits for each of the others.
            key, limit = f"{prefix}verdict", 1000 * (_ANSWER_TIMEOUT + 60)
            wrong = json.loads(client.blocking_key_value_get(key, limit))
            client.key_value_set(f"{prefix}read/{index}", "")
        except jax.errors.JaxRuntimeError as error:
            wrong = [f"host 0 did not answer within {_ANSWER_TIMEOUT} s ({error})"]
    if wrong:
        raise UserError(
            "expected the same config, code, packages and pictures on all hosts, got"
            f" {'; '.join(wrong)}; start the same command on every host"
        )


def _wait_for_readers(client: Any, prefix: str, count: int) -> None:
    """Waits until the other hosts have read the result: they die with host 0."""
    for index in range(1, count):
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            client.blocking_key_value_get(f"{prefix}read/{index}", 10_000)
    time.sleep(2)  # For their messages.


def _disagreements(
    client: Any, prefix: str, mine: dict[str, str], count: int
) -> list[str]:
    """Returns the differences of the other hosts' facts from host 0's."""
    wrong = []
    for index in range(1, count):
        try:
            text = client.blocking_key_value_get(
                f"{prefix}{index}", 1000 * _ANSWER_TIMEOUT
            )
        except jax.errors.JaxRuntimeError:
            return [*wrong, f"no answer of host {index} within {_ANSWER_TIMEOUT} s"]
        theirs = json.loads(text)
        wrong += [
            f"{name}: {mine.get(name)} on host 0, {theirs.get(name)} on host {index}"
            for name in sorted(mine.keys() | theirs.keys())
            if theirs.get(name) != mine.get(name)
        ]
    return wrong[:5]
