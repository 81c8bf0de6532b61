"""Do locks, events, queues and variables answer in the right order?"""

from typing import Any

from mpicluster.scheduler.coordination import Coordination


class Asked:
    """Asks as several clients; answers are collected."""

    def __init__(self) -> None:
        self.core = Coordination()
        self.request = 0

    def __call__(self, client: int, kind: str, action: str, *arguments: Any) -> list[Any]:
        self.request += 1
        return self.core.request(client, self.request, kind, "name", action, list(arguments))


def test_a_lock_goes_to_one_after_the_other() -> None:
    ask = Asked()
    assert ask(1, "lock", "acquire", 1) == [(1, 1, True)]
    assert ask(2, "lock", "acquire", 1) == []
    assert ask(3, "lock", "acquire", 1) == []
    assert ask(1, "lock", "release") == [(1, 4, True), (2, 2, True)]
    assert ask(2, "lock", "release") == [(2, 5, True), (3, 3, True)]
    assert ask(3, "lock", "release") == [(3, 6, True)]
    assert ask(3, "lock", "release") == [(3, 7, False)]


def test_a_client_that_leaves_gives_its_lock_back() -> None:
    ask = Asked()
    ask(1, "lock", "acquire", 1)
    ask(2, "lock", "acquire", 1)
    ask(3, "lock", "acquire", 1)
    assert ask.core.client_left(2) == []
    assert ask.core.client_left(1) == [(3, 3, True)]


def test_who_gives_up_waiting_gets_nothing() -> None:
    ask = Asked()
    ask(1, "lock", "acquire", 1)
    ask(2, "lock", "acquire", 1)
    assert ask(2, "lock", "withdraw", 2) == [(2, 3, True)]
    assert ask(2, "lock", "withdraw", 2) == [(2, 4, False)]
    assert ask(1, "lock", "release") == [(1, 5, True)]


def test_a_semaphore_has_several_leases() -> None:
    ask = Asked()
    assert ask(1, "lock", "acquire", 2) == [(1, 1, True)]
    assert ask(1, "lock", "acquire", 2) == [(1, 2, True)]
    assert ask(2, "lock", "acquire", 2) == []
    assert ask(2, "lock", "count") == [(2, 4, 2)]
    assert ask(1, "lock", "release") == [(1, 5, True), (2, 3, True)]


def test_an_event_lets_all_go_on() -> None:
    ask = Asked()
    ask(1, "event", "wait")
    ask(2, "event", "wait")
    assert ask(3, "event", "set") == [(3, 3, True), (1, 1, True), (2, 2, True)]
    assert ask(1, "event", "wait") == [(1, 4, True)]
    ask(3, "event", "clear")
    assert ask(1, "event", "is_set") == [(1, 6, False)]


def test_a_queue_keeps_order_and_room() -> None:
    ask = Asked()
    assert ask(1, "queue", "get", 1) == []
    assert ask(2, "queue", "put", b"a", 1) == [(2, 2, True), (1, 1, [b"a"])]
    assert ask(2, "queue", "put", b"b", 1) == [(2, 3, True)]
    assert ask(2, "queue", "put", b"c", 1) == []
    assert ask(1, "queue", "get", 1) == [(1, 5, [b"b"]), (2, 4, True)]
    ask(2, "queue", "put", b"d", 0)
    assert ask(1, "queue", "get", 0) == [(1, 7, [b"c", b"d"])]


def test_a_variable_gives_its_last_value() -> None:
    ask = Asked()
    assert ask(1, "variable", "get") == []
    assert ask(2, "variable", "set", b"x") == [(2, 2, True), (1, 1, b"x")]
    ask(2, "variable", "set", b"y")
    assert ask(1, "variable", "get") == [(1, 4, b"y")]
    ask(2, "variable", "delete")
    assert ask(1, "variable", "get") == []
