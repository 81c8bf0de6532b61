"""Does Python's collector get its thresholds back?"""

import gc
import threading
from collections.abc import Iterator

import pytest

from mpicluster.client.collector import NEW_OBJECTS, rare_collections


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield before
    gc.set_threshold(*before)


def test_an_error_gives_the_thresholds_back() -> None:
    with pytest.raises(ZeroDivisionError), rare_collections():
        _ = 1 // (gc.get_threshold() != (NEW_OBJECTS, 10, 10))
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("chosen", [0, 10 * NEW_OBJECTS])
def test_who_wants_still_fewer_collections_keeps_them(chosen: int) -> None:
    gc.set_threshold(chosen, 10, 10)
    with rare_collections():
        assert gc.get_threshold()[0] == chosen
    assert gc.get_threshold()[0] == chosen


def test_a_choice_made_meanwhile_stays() -> None:
    with rare_collections():
        gc.set_threshold(123, 4, 5)
    assert gc.get_threshold() == (123, 4, 5)


def test_the_last_of_several_threads_gives_them_back() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def make_tasks() -> None:
        with rare_collections():
            inside.set()
            go_on.wait(60)

    other = threading.Thread(target=make_tasks)
    with rare_collections():
        other.start()
        assert inside.wait(60)
    assert gc.get_threshold() == (NEW_OBJECTS, 10, 10)
    go_on.set()
    other.join()
    assert gc.get_threshold() == (700, 10, 10)
