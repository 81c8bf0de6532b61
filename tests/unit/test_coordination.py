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
    assert ask(1, "semaphore", "acquire", 2) == [(1, 1, True)]
    assert ask(1, "semaphore", "acquire", 2) == [(1, 2, True)]
    assert ask(2, "semaphore", "acquire", 2) == []
    assert ask(2, "semaphore", "count") == [(2, 4, 2)]
    assert ask(1, "semaphore", "release") == [(1, 5, True), (2, 3, True)]


def test_an_event_lets_all_go_on() -> None:
    ask = Asked()
    ask(1, "event", "wait")
    ask(2, "event", "wait")
    assert ask(3, "event", "set") == [(3, 3, True), (1, 1, True), (2, 2, True)]
    assert ask(1, "event", "wait") == [(1, 4, True)]
    ask(3, "event", "clear")
    assert ask(1, "event", "is_set") == [(1, 6, False)]


def test_the_first_number_of_leases_counts() -> None:
    ask = Asked()
    assert ask(1, "semaphore", "acquire", 2) == [(1, 1, True)]
    assert ask(2, "semaphore", "acquire", 3) == [(2, 2, 2)]
    assert ask(2, "semaphore", "count") == [(2, 3, 1)]
    assert ask(1, "lock", "acquire", 1) == [(1, 4, True)]  # a lock of that name is another thing


def test_a_queue_keeps_order_and_room() -> None:
    ask = Asked()
    assert ask(1, "queue", "get", 1) == []
    assert ask(2, "queue", "put", b"a", [], 1) == [(2, 2, True), (1, 1, [[b"a"], False])]
    assert ask(2, "queue", "put", b"b", [], 1) == [(2, 3, True)]
    assert ask(2, "queue", "put", b"c", [], 1) == []
    assert ask(1, "queue", "get", 1) == [(1, 5, [[b"b"], False]), (2, 4, True)]
    assert ask(1, "queue", "get", 0) == [(1, 6, [[b"c"], False])]


def test_all_of_a_queue_may_be_nothing() -> None:
    ask = Asked()
    assert ask(1, "queue", "get", 0) == [(1, 1, [[], False])]
    assert ask(2, "queue", "get", 2) == []
    assert ask(2, "queue", "put", b"a", [], 0) == [(2, 3, True)]
    assert ask(1, "queue", "get", 0) == [(1, 4, [[b"a"], False])]


def test_the_first_limit_of_a_queue_counts() -> None:
    ask = Asked()
    assert ask(1, "queue", "put", b"a", [], 0) == [(1, 1, True)]  # it names no limit
    assert ask(1, "queue", "put", b"b", [], 2) == [(1, 2, True)]
    assert ask(1, "queue", "put", b"c", [], 3) == [(1, 3, 2)]
    assert ask(1, "queue", "put", b"c", [], 0) == []
    assert ask(2, "queue", "get", 0) == [(2, 5, [[b"a", b"b"], False]), (1, 4, True)]


def test_a_variable_gives_its_last_value() -> None:
    ask = Asked()
    assert ask(1, "variable", "get") == []
    assert ask(2, "variable", "set", b"x", []) == [(2, 2, True), (1, 1, [[b"x"], False])]
    ask(2, "variable", "set", b"y", [])
    assert ask(1, "variable", "get") == [(1, 4, [[b"y"], False])]
    ask(2, "variable", "delete")
    assert ask(1, "variable", "get") == []


def test_an_item_holds_its_keys_until_its_taker_has_futures_of_them() -> None:
    ask = Asked()
    ask(1, "queue", "put", b"a", [7, 8], 1)
    ask(1, "queue", "put", b"b", [8], 1)  # waits for room, and holds its key as well
    assert (ask.core.held, ask.core.take_changed_keys()) == ({7: 1, 8: 2}, [7, 8])
    assert ask(2, "queue", "get", 1) == [(2, 3, [[b"a"], True]), (1, 2, True)]
    assert ask.core.held == {7: 1, 8: 2}
    assert ask(2, "queue", "received", 3) == []
    assert (ask.core.held, ask.core.take_changed_keys()) == ({8: 1}, [7, 8])
    ask(2, "queue", "get", 1)
    ask.core.client_left(2)
    assert (ask.core.held, ask.core.take_changed_keys()) == ({}, [8])


def test_a_put_that_is_given_up_holds_nothing() -> None:
    ask = Asked()
    ask(1, "queue", "put", b"a", [], 1)
    ask(1, "queue", "put", b"b", [7], 1)
    assert ask(1, "queue", "withdraw", 2) == [(1, 3, True)]
    ask(2, "queue", "put", b"c", [8], 1)
    ask.core.client_left(2)
    assert (ask.core.held, ask.core.take_changed_keys()) == ({}, [7, 8])


def test_a_variable_holds_the_keys_of_its_last_value() -> None:
    ask = Asked()
    ask(1, "variable", "set", b"x", [7])
    ask(1, "variable", "set", b"y", [7, 8])
    assert ask.core.held == {7: 1, 8: 1}
    ask(2, "variable", "get")
    ask(1, "variable", "delete")
    assert ask.core.held == {7: 1, 8: 1}
    ask(2, "variable", "received", 3)
    assert ask.core.held == {}


def test_who_waits_for_a_closed_semaphore_is_told() -> None:
    ask = Asked()
    ask(1, "semaphore", "acquire", 1)
    assert ask(2, "semaphore", "acquire", 1) == []
    assert ask(3, "semaphore", "close") == [(3, 3, True), (2, 2, False)]
    assert ask.core.shared == {}
    assert ask(2, "semaphore", "acquire", 5) == [(2, 4, True)]


def test_what_is_as_new_takes_no_memory() -> None:
    """Names are often made for one use: a million locks were once a million records."""
    ask = Asked()
    ask(1, "lock", "acquire", 1)
    ask(2, "lock", "acquire", 1)
    ask(1, "lock", "release")
    assert len(ask.core.shared) == 1
    ask(2, "lock", "release")
    ask(1, "queue", "put", b"x", [], 0)
    ask(1, "queue", "get", 1)
    ask(1, "event", "set")
    ask(1, "event", "clear")
    ask(1, "variable", "set", b"x", [])
    ask(1, "variable", "delete")
    ask(1, "variable", "get")
    ask.core.client_left(1)
    assert ask.core.shared == {}
    ask(1, "semaphore", "acquire", 2)
    ask(1, "semaphore", "release")
    ask(1, "queue", "put", b"x", [], 3)
    ask(1, "queue", "get", 1)
    ask.core.client_left(1)
    assert len(ask.core.shared) == 2  # their limits are known


def test_a_dataset_is_taken_once_and_nobody_waits_for_it() -> None:
    ask = Asked()
    assert ask(1, "dataset", "get") == [(1, 1, None)]
    assert ask(1, "dataset", "publish", b"x", [7], False) == [(1, 2, True)]
    assert ask(2, "dataset", "publish", b"y", [8], False) == [(2, 3, False)]
    assert ask(2, "dataset", "names") == [(2, 4, ["name"])]
    assert ask(2, "dataset", "get") == [(2, 5, [[b"x"], True])]
    assert ask(2, "dataset", "received", 5) == []
    assert ask.core.held == {7: 1}
    assert ask(2, "dataset", "publish", b"y", [8], True) == [(2, 7, True)]
    assert ask.core.held == {8: 1}
    assert ask(1, "dataset", "delete") == [(1, 8, True)]
    assert ask(1, "dataset", "delete") == [(1, 9, False)]
    assert ask.core.held == {}
    assert ask.core.shared == {}
