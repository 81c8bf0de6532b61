"""Does the local transport keep the contract?"""

import threading
from collections.abc import Callable

import pytest

from mpicluster.messages import LargeValueSent
from mpicluster.transport.base import Transport
from mpicluster.transport.local import LocalFabric
from tests.contracts.transport_checks import CHECKS, RANKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Transport], None]) -> None:
    fabric = LocalFabric(RANKS)
    errors: list[BaseException] = []

    def run(end: Transport) -> None:
        try:
            check(end)
        except BaseException as error:  # noqa: BLE001  (a thread's error must reach the test)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(end,)) for end in fabric.ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for end in fabric.ends:
        end.close()
    assert not errors


def test_a_rank_that_is_cut_off_leaves_nobody_waiting() -> None:
    """Buffers come back to their sender, whether they were sent before or after the loss."""
    fabric = LocalFabric(RANKS)
    returned: list[int] = []

    def send(number: int) -> None:
        content = [memoryview(bytes(10))]
        fabric.ends[0].send(2, [LargeValueSent(
            number, number, [10], [10], content, on_sent=lambda: returned.append(number)
        )])  # fmt: skip

    send(1)
    assert fabric.ends[0].sending()
    fabric.lose(2)
    send(2)
    assert fabric.ends[0].receive() == []
    assert sorted(returned) == [1, 2]
    assert not fabric.ends[0].sending()
    for end in fabric.ends:
        end.close()


def test_a_rank_that_is_cut_off_is_named_once() -> None:
    fabric = LocalFabric(RANKS)
    fabric.lose(2)
    assert fabric.ends[0].lost_ranks() == [2]
    assert fabric.ends[0].lost_ranks() == []
    assert fabric.ends[1].lost_ranks() == [2]
    for end in fabric.ends:
        end.close()
