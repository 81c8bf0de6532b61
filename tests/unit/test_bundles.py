"""How do messages share bundles?"""

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
