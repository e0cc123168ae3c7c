"""Which differences between the hosts of a run are found, and who is told."""

from typing import Any

import jax
import pytest
from jax._src import distributed

from palette_jax.errors import UserError
from palette_jax.training import agreement

FACTS = {"config.seed": 1, "code": "0.1", "data": [3, "a"]}


class _Store(dict[str, str]):
    """The coordinator's store, which answers at once."""

    def key_value_set(self, key: str, value: str) -> None:
        self[key] = value

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        if key not in self:
            raise jax.errors.JaxRuntimeError("deadline exceeded")
        return self[key]


def _agree(
    monkeypatch: pytest.MonkeyPatch, hosts: list[dict[str, Any] | None]
) -> list[str]:
    """Returns what each host says, empty if it agrees; None does not answer."""
    store, said = _Store(), {}
    monkeypatch.setattr(distributed.global_state, "client", store)
    monkeypatch.setattr(agreement.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(jax, "process_count", lambda: len(hosts))
    # First the others, who do not get host 0's result; then they ask once more.
    for index in (*range(1, len(hosts)), *range(len(hosts))):
        if (facts := hosts[index]) is None:
            continue
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        said[index] = ""
        try:
            agreement.agree(facts)
        except UserError as error:
            said[index] = str(error)
    return [said[index] for index in sorted(said)]


def test_hosts_with_equal_facts_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    reordered = dict(reversed(FACTS.items()))
    assert _agree(monkeypatch, [FACTS, reordered, FACTS]) == ["", "", ""]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({**FACTS, "config.seed": 2}, "config.seed: 1 on host 0, 2 on host 2"),
        ({**FACTS, "new": 5}, "new: None on host 0, 5 on host 2"),
        ({"config.seed": 1, "code": "0.1"}, 'data: [3, "a"] on host 0, None on host 2'),
        (None, "no answer of host 2 within"),
    ],
)
def test_every_host_is_told_what_differs(
    monkeypatch: pytest.MonkeyPatch, other: dict[str, Any] | None, says: str
) -> None:
    said = _agree(monkeypatch, [FACTS, FACTS, other])
    assert len(said) == (2 if other is None else 3)
    assert all(says in text for text in said)


def test_a_host_0_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (said,) = _agree(monkeypatch, [None, FACTS])
    assert "host 0 did not answer within 600 s" in said
