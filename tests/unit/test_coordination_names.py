"""Which names and counts of locks and queues are refused before the scheduler hears of them?"""

from typing import Any

import pytest

from mpicluster.client.coordination import Event, Lock, Queue, Semaphore, Variable


@pytest.mark.parametrize("kind", [Lock, Event, Queue, Variable])
@pytest.mark.parametrize("name", [["a"], {"a": 1}, ("a", ["b"]), b"a"])
def test_a_name_without_a_stable_text_is_refused(kind: Any, name: Any) -> None:
    with pytest.raises(TypeError, match="A name is a text"):
        kind(name)


def test_names_become_texts() -> None:
    assert Lock("a").name == "a"
    assert Lock(("a", 1)).name == Lock(("a", 1)).name
    assert Lock(("a", 1)).name != Lock(("a", 2)).name
    assert Lock(0).name == "0"
    assert isinstance(Lock().name, str)


def test_counts_are_whole_numbers() -> None:
    with pytest.raises(TypeError, match="maxsize"):
        Queue("q", maxsize="a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="maxsize"):
        Queue("q", maxsize=-1)
    with pytest.raises(TypeError, match="batch"):
        Queue("q").get(batch="a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_leases"):
        Semaphore(0)
