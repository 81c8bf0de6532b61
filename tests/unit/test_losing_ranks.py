"""When does a rank count as silent, and what follows at those who waited for it?"""

import threading
from types import SimpleNamespace

from mpicluster import messages as m
from mpicluster.client.gathering import fetch_values
from mpicluster.client.loop import ClientLoop, allocate_for_client
from mpicluster.client.records import FINISHED, FutureRecord
from mpicluster.config import Config
from mpicluster.ids import CLIENT_RANK, SCHEDULER_RANK, first_number
from mpicluster.serialization.frames import dumps
from mpicluster.transport.local import LocalFabric
from mpicluster.transport.silence import Silence
from mpicluster.worker import slot_protocol as p
from mpicluster.worker.relay import ClientRelay
from mpicluster.worker.zygote import Watch


def test_silence_ends_with_a_sign_of_life() -> None:
    silence = Silence(Config())
    assert silence.look(10.0, {2: 1.0, 3: 1.0}) == {2: 0.0, 3: 0.0}
    assert silence.look(11.0, {2: 10.5, 3: 1.0}) == {2: 0.0, 3: 1.0}
    assert silence.look(12.0, {2: 10.5, 3: 11.5}) == {2: 1.0, 3: 0.0}


def test_time_without_listening_is_no_silence() -> None:
    """After a minute of work, or of being stopped, signs of life may still wait to be received."""
    silence = Silence(Config())
    silence.look(0.0, {2: 0.0})
    assert silence.look(60.0, {2: 0.0}) == {2: 2.0}


def test_silence_is_looked_for_often_enough() -> None:
    silence = Silence(Config(lost_after_s=2.0))
    silence.look(0.0, {})
    assert not silence.is_due(0.4)
    assert silence.is_due(0.5)


def test_a_watch_does_not_count_before_the_first_sign_nor_while_it_was_stopped() -> None:
    watch = Watch(3.0)
    assert not watch.is_over(1000.0)
    watch.heard()
    assert not watch.is_over(1100.0)
    assert [watch.is_over(1100.0 + seconds) for seconds in (1, 2, 3)] == [False, False, True]


def test_a_client_looks_elsewhere_for_what_a_lost_worker_has_not_sent() -> None:
    fabric = LocalFabric(4)
    client = fabric.ends[CLIENT_RANK]
    loop = ClientLoop(client, Config(), allocate_for_client, {})
    keys = [first_number(CLIENT_RANK) + 10, first_number(CLIENT_RANK) + 11]
    records = [FutureRecord(key, str(key), None, None) for key in keys]
    for record in records:
        record.status, record.rank, record.nbytes = FINISHED, 2, 10
        loop.core.add(record, named=False)
    values: dict[int, object] = {}
    thread = threading.Thread(target=lambda: values.update(fetch_values(loop, records)))
    thread.start()
    asked = next_message(fabric, 2, m.FetchValues)
    fabric.ends[2].send(CLIENT_RANK, [m.ValuesSent(asked.request, keys[:1], [dumps("first")])])
    fabric.ends[SCHEDULER_RANK].send(CLIENT_RANK, [m.WorkerLost(2, "a test")])
    where = next_message(fabric, SCHEDULER_RANK, m.AskScheduler)
    assert where.arguments == keys[1:]
    answer = m.Answer(where.request, {keys[1]: [3]})
    fabric.ends[SCHEDULER_RANK].send(CLIENT_RANK, [answer])
    again = next_message(fabric, 3, m.FetchValues)
    fabric.ends[3].send(CLIENT_RANK, [m.ValuesSent(again.request, keys[1:], [dumps("second")])])
    thread.join()
    assert values == {keys[0]: "first", keys[1]: "second"}
    loop.close()
    for end in fabric.ends:
        end.close()


def next_message(fabric: LocalFabric, rank: int, kind: type[m.Message]) -> m.Message:
    """Wait for a message of a kind."""
    while True:
        for _, messages in fabric.ends[rank].receive():
            for message in messages:
                if isinstance(message, kind):
                    return message


def test_a_client_in_a_task_hears_that_the_holder_of_a_value_is_lost() -> None:
    fabric = LocalFabric(5)
    sent: list[m.Message] = []
    pool = SimpleNamespace(
        send_control=lambda _link, message: sent.extend(m.decode_bundle(message.bundle))
    )
    values = SimpleNamespace(store={}, lend_to_client=lambda _slot, _key: None)
    relay = ClientRelay(pool, fabric.ends[2], values)  # type: ignore[arg-type]
    link = SimpleNamespace(client=7, index=0)

    def fetch(request: int, holder: int, key: int) -> list[m.Message]:
        bundle = m.encode_bundle([m.FetchValues(request, [key])])
        return relay.from_slot(link, p.FromSlotClient(holder, bundle))  # type: ignore[arg-type]

    assert fetch(1, 3, 100) == [m.AcquireValues([[100, 0, [3]]])]
    assert fetch(2, 4, 101) == [m.AcquireValues([[101, 0, [4]]])]
    relay.rank_lost(3)
    assert sent == [m.ValuesMissing(1, [100])]
    assert fetch(3, 3, 102) == []
    assert sent[1:] == [m.ValuesMissing(3, [102])]
    for end in fabric.ends:
        end.close()
