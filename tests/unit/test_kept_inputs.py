"""Which inputs does a slot keep?"""

from mpicluster.worker.kept_inputs import KEPT_BYTES_MAX, KEPT_MAX, KeptInputs


def use(kept: KeptInputs, key: int, found: bytes = b"x") -> str:
    """Let a task use an input as `ValueTraffic.inputs_for` does; return how it is sent."""
    if kept.has(key):
        return "key"
    if kept.is_second_use(key):
        kept.keep(key, found)
        return "kept"
    return "value"


def test_an_input_is_kept_when_it_is_used_again() -> None:
    kept = KeptInputs()
    assert [use(kept, 1) for _ in range(4)] == ["value", "kept", "key", "key"]
    assert kept.take_to_keep() == [(1, b"x")]
    assert kept.take_to_keep() == []


def test_the_longest_unused_goes_first() -> None:
    kept = KeptInputs()
    for key in range(KEPT_MAX):
        use(kept, key)
        use(kept, key)
    assert use(kept, 0) == "key"
    use(kept, KEPT_MAX)
    use(kept, KEPT_MAX)
    assert kept.take_to_forget() == [1]
    assert use(kept, 1) == "value"


def test_large_pickles_push_others_out() -> None:
    kept = KeptInputs()
    half = bytes(KEPT_BYTES_MAX // 2 + 1)
    for key in (1, 2):
        use(kept, key, half)
        use(kept, key, half)
    assert kept.take_to_forget() == [1]


def test_a_dropped_value_is_forgotten() -> None:
    first, second = KeptInputs(), KeptInputs()
    for _ in range(2):
        use(first, 1)
        use(second, 2)
    for kept in (first, second):
        kept.forget_dropped([1, 3])
    assert (first.take_to_forget(), second.take_to_forget()) == ([1], [])
    assert use(first, 1) == "value"


def test_all_can_be_forgotten() -> None:
    kept = KeptInputs()
    for key in (1, 2):
        use(kept, key)
        use(kept, key)
    kept.forget_all()
    assert kept.take_to_forget() == [1, 2]


def test_an_input_that_is_kept_again_is_not_forgotten_after_that() -> None:
    """The order to forget it was once sent behind the one to keep it, and undid it."""
    kept = KeptInputs()
    for _ in range(2):
        use(kept, 1)
    kept.forget(1)
    assert [use(kept, 1) for _ in range(3)] == ["value", "kept", "key"]
    assert kept.take_to_forget() == []
