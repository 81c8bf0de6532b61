"""How do messages share bundles?"""

import sys
import threading
from collections.abc import Callable, Iterator

import msgpack
import msgpack.fallback
import pytest

from mpicluster import codec
from mpicluster import messages as m
from mpicluster.messages import MessageClass
from mpicluster.transport.base import to_bundles

RELEASE = m.ReleaseKeys([1])
SUBMIT = m.SubmitTasks([2], [1], [b"call"], [], b"\x01", None)
LARGE = m.PutLargeValue(3, [4], [4], [memoryview(b"four")])


def kinds(messages: list[m.Message]) -> list[tuple[MessageClass, list[m.Message]]]:
    """Return the class and the messages of each bundle."""
    return [(message_class, sent) for message_class, _, sent in to_bundles(messages)]


def test_messages_of_different_classes_share_a_bundle_of_the_highest() -> None:
    assert kinds([RELEASE, SUBMIT, RELEASE]) == [
        (MessageClass.TASK, [RELEASE, SUBMIT, RELEASE])
    ]
    assert kinds([RELEASE]) == [(MessageClass.ADMIN, [RELEASE])]
    assert kinds([]) == []


def test_a_message_with_buffers_ends_its_bundle() -> None:
    assert kinds([RELEASE, LARGE, SUBMIT, LARGE, RELEASE]) == [
        (MessageClass.DATA, [RELEASE, LARGE]),
        (MessageClass.DATA, [SUBMIT, LARGE]),
        (MessageClass.ADMIN, [RELEASE]),
    ]


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("compiled", [True, False])
def test_threads_share_a_codec(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """msgpack's packer in Python mixes up what threads pack with it."""
    if not compiled:
        monkeypatch.setattr(msgpack, "Packer", msgpack.fallback.Packer)
    shared = codec.Codec([m.ReleaseKeys])
    messages = [m.ReleaseKeys(list(range(200)))]
    expected = shared.encode(messages)
    wrong: list[bytes] = []

    def encode() -> None:
        wrong.extend(found for _ in range(200) if (found := shared.encode(messages)) != expected)

    run_in_threads(encode, 4)
    assert not wrong


def run_in_threads(function: Callable[[], None], count: int) -> None:
    """Run a function in several threads at once."""
    threads = [threading.Thread(target=function) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
