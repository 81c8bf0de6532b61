"""What does the client's core do in single situations?"""

from mpicluster import messages as m
from mpicluster.client.core import ClientCore
from mpicluster.client.records import CANCELLED, ERROR, FINISHED, PENDING, FutureRecord
from mpicluster.config import Config
from mpicluster.ids import SCHEDULER_RANK
from mpicluster.load import Load

ERROR_COLUMNS = [b"", "ValueError", "no", b"", "", 3, "host"]


def make_core() -> ClientCore:
    return ClientCore(Config(submit_credits=1), 1)


def hold(core: ClientCore, name: str | None = None) -> FutureRecord:
    """Return the record of a new future."""
    record = FutureRecord(core.next_number(), "f", name, None)
    record.references = 1
    core.add(record, named=name is not None)
    return record


def submit_message(key: int) -> m.SubmitTasks:
    return m.SubmitTasks([key], [1], [b""], [], b"\1", None)


def sent(core: ClientCore) -> list[m.Message]:
    """Return what goes to the scheduler now."""
    return [
        message for rank, bundle in core.outgoing(0.0) if rank == SCHEDULER_RANK
        for message in bundle
    ]  # fmt: skip


def test_submissions_wait_for_credits_and_nothing_overtakes_them() -> None:
    core = make_core()
    for key in (5, 6):
        core.to_scheduler(submit_message(key))
    core.to_scheduler(m.FinishKeys([5]))
    assert [type(message) for message in sent(core)] == [m.SubmitTasks]
    assert core.backlog == 2
    core.receive(SCHEDULER_RANK, m.TasksAccepted(1), 0.0)
    assert [type(message) for message in sent(core)] == [m.SubmitTasks, m.FinishKeys]


def test_release_goes_before_what_is_asked_for_later() -> None:
    core = make_core()
    record = hold(core)
    core.drop_reference(record)
    core.to_scheduler(m.WantKeys([record.key]))
    assert sent(core) == [m.ReleaseKeys([record.key]), m.WantKeys([record.key])]


def test_cancelled_future_is_not_released_a_second_time() -> None:
    core = make_core()
    record = hold(core)
    core.cancel(record)
    core.drop_reference(record)
    assert record.status is CANCELLED
    assert sent(core) == []


def test_name_used_again_after_a_cancel_stays_known() -> None:
    core = make_core()
    old = hold(core, "x")
    core.cancel(old)
    new = hold(core, "x")
    core.drop_reference(old)
    assert core.by_name["x"] is new


def test_unnamed_record_of_a_named_key_does_not_forget_the_name() -> None:
    core = make_core()
    record = hold(core, "x")
    other = FutureRecord(core.next_number(), "f", "x", None)
    other.references = 1
    core.add(other, named=False)
    core.drop_reference(other)
    assert core.by_name["x"] is record


def test_results_and_errors_reach_their_records_once() -> None:
    core = make_core()
    done, erred = hold(core), hold(core)
    calls: list[str] = []
    done.callbacks = [lambda record: calls.append(record.status)]
    core.receive(2, m.ValuesPushed([done.key, 999], [b"value", b"late"]), 0.0)
    core.receive(SCHEDULER_RANK, m.KeysFinished([done.key], [5], [2]), 0.0)
    core.receive(SCHEDULER_RANK, m.KeysErred([erred.key], ERROR_COLUMNS), 0.0)
    assert (done.status, done.value, done.rank) == (FINISHED, b"value", 2)
    assert (erred.status, erred.error) == (ERROR, ERROR_COLUMNS)
    assert calls == [FINISHED]


def test_cluster_that_stops_cancels_what_is_pending() -> None:
    core = make_core()
    record = hold(core)
    assert record.status is PENDING
    core.receive(SCHEDULER_RANK, m.ClusterStopped(), 0.0)
    assert record.status is CANCELLED
    assert core.stopped


def test_load_counts_the_slots_that_are_left() -> None:
    core = make_core()
    workers = [{"rank": rank, "slots": 1} for rank in (2, 3)]
    core.receive(SCHEDULER_RANK, m.ClusterStarted(workers), 0.0)
    assert core.load is Load.NONE
    records = [hold(core) for _ in range(2)]
    assert core.load is Load.SOME
    core.receive(SCHEDULER_RANK, m.WorkerLost(3, "gone"), 0.0)
    assert core.load is Load.FULL
    core.receive(2, m.ValuesPushed([records[0].key], [b"value"]), 0.0)
    assert core.load is Load.SOME
