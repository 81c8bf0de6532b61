"""What becomes of tasks that clients send to workers themselves?"""

import pytest

from mpicluster import messages as m
from mpicluster.client.core import ClientCore
from mpicluster.client.records import FutureRecord
from mpicluster.client.untold import UNHURRIED_S
from mpicluster.config import Config
from mpicluster.ids import CLIENT_ATTEMPT, SCHEDULER_RANK, ClientId, Key, slot_client
from mpicluster.worker import events as e
from mpicluster.worker.core import WorkerCore
from tests.unit.core_environment import CLIENT, SchedulerEnvironment

WORKER = 3


class ClientEnvironment:
    """A client core, and what it sends."""

    def __init__(self, client: ClientId = CLIENT) -> None:
        self.core = ClientCore(Config(), client)
        self.now = 0.0

    def submit(self, function: int = 1, needs: tuple[Key, ...] = (), **columns: object) -> Key:
        """Submit one task as `Client.submit` does."""
        key = self.core.next_number()
        self.core.add(FutureRecord(key, "f", None, None), named=False)
        dependencies = [list(needs)] if needs else []
        message = m.SubmitTasks([key], [function], [b"call"], dependencies, b"\1", None)
        for name, value in columns.items():
            setattr(message, name, value)
        self.core.to_scheduler(message)
        return key

    def push(self, key: Key, worker: int = WORKER) -> None:
        """Let a worker send the value of a task."""
        self.core.receive(worker, m.ValuesPushed([key], [b"value"]), self.now)

    def end_own(self, key: Key, worker: int = WORKER) -> None:
        """Let a worker send the value of a task that it was sent by the client itself."""
        own = [[key, 5, 0.001]]
        self.core.receive(worker, m.ValuesPushed([key], [b"value"], own), self.now)

    def sent(self, after_s: float = 0.0) -> list[tuple[int, list[str]]]:
        """Return what leaves after a while: (rank, names of messages)."""
        self.now += after_s
        return [
            (rank, [type(message).__name__ for message in bundle])
            for rank, bundle in self.core.outgoing(self.now)
        ]

    def run_one(self) -> None:
        """Have worker 3 run a task of function 1."""
        key = self.submit()
        self.sent()
        self.push(key)


def test_a_task_alone_goes_to_the_worker_that_has_run_the_last_one() -> None:
    env = ClientEnvironment()
    first = env.submit()
    assert env.sent() == [(SCHEDULER_RANK, ["SubmitTasks"])]
    env.push(first)
    second = env.submit()
    ((rank, bundle),) = env.core.outgoing(0.0)
    assert (rank, bundle) == (WORKER, [
        m.ComputeTasks([second], [CLIENT_ATTEMPT], [1], [second], [b"call"], [CLIENT], [], [])
    ])  # fmt: skip
    assert env.core.next_deadline() == UNHURRIED_S
    assert env.core.backlog == 1
    assert env.sent(after_s=UNHURRIED_S / 2) == []
    ((rank, bundle),) = env.core.outgoing(UNHURRIED_S)
    assert rank == SCHEDULER_RANK
    assert [message.placed_on for message in bundle if isinstance(message, m.SubmitTasks)] == [3]
    assert env.core.next_deadline() is None


def test_the_scheduler_hears_of_several_tasks_in_one_message_of_each_kind() -> None:
    env = ClientEnvironment()
    env.run_one()
    keys = []
    for _ in range(3):
        keys.append(env.submit())
        assert env.sent() == [(WORKER, ["ComputeTasks"])]
        env.end_own(keys[-1])
        env.core.drop_reference(env.core.records[keys[-1]])
        assert env.sent() == []
    ((rank, (submitted, ended, released)),) = env.core.outgoing(UNHURRIED_S)
    assert rank == SCHEDULER_RANK
    assert submitted == m.SubmitTasks(
        keys, [1] * 3, [b"call"] * 3, [], b"\1" * 3, None, placed_on=WORKER
    )
    assert ended == m.TasksFinished(
        keys, [CLIENT_ATTEMPT] * 3, [5] * 3, [0.001] * 3, worker=WORKER
    )
    assert released == m.ReleaseKeys(keys)
    # One for each message, not for each task.
    assert env.core.credits == Config().submit_credits - 2


def test_tasks_on_different_workers_are_told_of_apart() -> None:
    env = ClientEnvironment()
    for function, worker in ((1, 4), (2, 3), (1, 3)):
        key = env.submit(function)
        assert [rank for rank, _ in env.sent(after_s=1.0)] == [SCHEDULER_RANK]
        env.push(key, worker)
    first = env.submit()
    assert env.sent() == [(3, ["ComputeTasks"])]
    other = env.submit()
    assert env.sent() == [(SCHEDULER_RANK, ["SubmitTasks", "SubmitTasks"])]
    env.end_own(first, worker=3)
    env.push(other, worker=4)
    last = env.submit()
    assert env.sent() == [(4, ["ComputeTasks"])]
    env.end_own(last, worker=4)
    ((_, bundle),) = env.core.outgoing(env.now + UNHURRIED_S)
    ends = [message for message in bundle if isinstance(message, m.TasksFinished)]
    assert [(end.worker, end.keys) for end in ends] == [(3, [first]), (4, [last])]


def test_what_the_scheduler_must_know_takes_along_what_came_before() -> None:
    env = ClientEnvironment()
    env.run_one()
    key = env.submit()
    env.sent()
    env.end_own(key)
    env.core.to_scheduler(m.WantKeys([key]))
    assert env.sent() == [(SCHEDULER_RANK, ["SubmitTasks", "TasksFinished", "WantKeys"])]
    env.submit()
    env.sent()
    env.core.hurry()
    assert env.sent() == [(SCHEDULER_RANK, ["SubmitTasks"])]


@pytest.mark.parametrize(
    "reason", ["other function", "inputs", "options", "graph", "another pending", "two", "lost"]
)
def test_other_tasks_go_through_the_scheduler(reason: str) -> None:
    env = ClientEnvironment()
    env.run_one()
    if reason == "lost":
        env.core.receive(0, m.WorkerLost(WORKER, "a test"), 0.0)
    if reason == "another pending":
        env.core.add(FutureRecord(env.core.next_number(), "f", None, None), named=False)
    columns: dict[str, object] = {
        "options": {"options": [[], False, [], 1, 0]}, "graph": {"graph": 7},
        "two": {"keys": [98, 99], "functions": [1, 1], "payloads": [b"", b""], "wanted": b"\1\1"},
    }.get(reason, {})  # fmt: skip
    function, needs = 2 if reason == "other function" else 1, (5,) if reason == "inputs" else ()
    env.submit(function, needs, **columns)
    assert env.sent() == [(SCHEDULER_RANK, ["SubmitTasks"])]


def test_after_a_future_was_pickled_the_scheduler_hears_of_all_first() -> None:
    """Who got the future asked the scheduler for a key that it did not know: LostValueError."""
    env = ClientEnvironment()
    env.run_one()
    first = env.submit()
    env.sent()
    env.push(first)
    env.core.tell_scheduler()
    env.submit()
    assert env.sent() == [(SCHEDULER_RANK, ["SubmitTasks", "SubmitTasks"])]


@pytest.mark.parametrize("end", ["large", "error"])
def test_what_the_scheduler_tells_of_goes_through_it_the_next_time(end: str) -> None:
    env = ClientEnvironment()
    env.run_one()
    key = env.submit()
    assert env.sent() == [(WORKER, ["ComputeTasks"])]
    if end == "large":
        env.core.receive(0, m.KeysFinished([key], [10_000], [WORKER]), 0.0)
    else:
        env.core.receive(0, m.KeysErred([key], [b"", "ValueError", "", b"", "", 3, "host"]), 0.0)
    env.submit()
    assert env.sent() == [(SCHEDULER_RANK, ["SubmitTasks", "SubmitTasks"])]


def test_while_a_task_without_a_future_may_run_the_next_goes_through_the_scheduler() -> None:
    """Each call of `fire_and_forget` in a loop went to the same worker."""
    env = ClientEnvironment()
    env.run_one()
    key = env.submit()
    assert env.sent() == [(WORKER, ["ComputeTasks"])]
    env.core.drop_reference(env.core.records[key])
    env.submit()
    assert [rank for rank, _ in env.sent()] == [SCHEDULER_RANK]


def test_clients_in_tasks_send_everything_to_the_scheduler() -> None:
    env = ClientEnvironment(slot_client(WORKER, 1))
    env.run_one()
    env.submit()
    assert env.sent() == [(SCHEDULER_RANK, ["SubmitTasks"])]


def test_the_loss_of_the_worker_is_no_reason_to_wait() -> None:
    env = ClientEnvironment()
    env.run_one()
    env.submit()
    env.sent()
    env.core.receive(0, m.WorkerLost(WORKER, "a test"), 0.0)
    assert env.sent() == [(SCHEDULER_RANK, ["SubmitTasks"])]


def test_a_wish_that_crossed_the_word_that_its_key_is_cancelled_is_taken_back() -> None:
    """The scheduler kept the value for a client that had no future of it any more."""
    env = ClientEnvironment()
    key = env.submit()
    env.sent()
    env.core.receive(0, m.KeysCancelled([key], "cancelled"), 0.0)
    assert env.sent(after_s=UNHURRIED_S) == []
    assert env.sent(after_s=UNHURRIED_S) == [(SCHEDULER_RANK, ["ReleaseKeys"])]


# --- the scheduler ---


def sent_by_client(env: SchedulerEnvironment, name: str, rank: int) -> None:
    message = m.SubmitTasks([env.key(name)], [1], [b""], [], b"\1", None, placed_on=rank)
    env.say(CLIENT, message)


def finished(env: SchedulerEnvironment, name: str, worker: int = 0) -> m.TasksFinished:
    return m.TasksFinished([env.key(name)], [CLIENT_ATTEMPT], [100], [0.001], worker=worker)


def test_the_scheduler_sends_nothing_to_a_worker_that_has_the_task() -> None:
    env = SchedulerEnvironment(workers=2)
    sent_by_client(env, "a", 4)
    assert env.task("a").processing_on is env.core.state.workers[4]
    env.nothing_left()
    env.say(4, finished(env, "a"))
    env.nothing_left()  # the value was pushed
    assert [worker.rank for worker in env.task("a").who_has] == [4]
    env.say(CLIENT, m.ReleaseKeys([env.key("a")]))
    assert env.take(4, m.FreeKeys).keys == [env.key("a")]
    assert not env.core.client_attempts.running


def test_the_client_tells_the_end_of_a_task_whose_value_it_was_sent() -> None:
    env = SchedulerEnvironment(workers=2)
    sent_by_client(env, "a", 4)
    env.say(CLIENT, finished(env, "a", worker=4))
    env.nothing_left()
    assert [worker.rank for worker in env.task("a").who_has] == [4]
    assert not env.core.client_attempts.running


def test_the_end_of_a_task_whose_worker_is_lost_is_none() -> None:
    """It was told by the client: the worker was there when it sent the value."""
    env = SchedulerEnvironment(workers=2, survive="ranks")
    sent_by_client(env, "a", 4)
    env.lose(4)
    env.take(3, m.DefineFunctions)
    assert env.take(3, m.ComputeTasks).keys == [env.key("a")]
    env.sent.clear()
    env.say(CLIENT, finished(env, "a", worker=4))
    assert env.task("a").processing_on is env.core.state.workers[3]
    assert not env.core.client_attempts.early


def test_a_report_that_comes_before_the_word_of_the_client_waits() -> None:
    env = SchedulerEnvironment()
    env.say(3, finished(env, "a"))
    env.nothing_left()
    sent_by_client(env, "a", 3)
    env.nothing_left()
    assert [worker.rank for worker in env.task("a").who_has] == [3]


def test_an_early_error_waits_too() -> None:
    env = SchedulerEnvironment()
    error = [b"", "ValueError", "no", b"", "", 3, "host"]
    env.say(3, m.TaskErred(env.key("a"), CLIENT_ATTEMPT, error))
    sent_by_client(env, "a", 3)
    assert env.take(CLIENT, m.KeysErred).keys == [env.key("a")]


def test_what_a_worker_gives_back_runs_elsewhere() -> None:
    env = SchedulerEnvironment(workers=2)
    env.say(4, m.TasksYielded([env.key("a")], [CLIENT_ATTEMPT], []))
    sent_by_client(env, "a", 4)
    env.take(3, m.DefineFunctions, optional=True)
    rank = 3 if env.task("a").processing_on is env.core.state.workers[3] else 4
    env.take(rank, m.DefineFunctions, optional=True)
    orders = env.take(rank, m.ComputeTasks)
    assert (orders.keys, orders.attempts) == ([env.key("a")], [CLIENT_ATTEMPT + 1])


def test_a_task_sent_to_a_lost_worker_runs_elsewhere() -> None:
    env = SchedulerEnvironment(workers=2, survive="ranks")
    env.say(4, finished(env, "a"))
    env.lose(4)
    env.sent.clear()
    sent_by_client(env, "a", 4)
    env.take(3, m.DefineFunctions)
    assert env.take(3, m.ComputeTasks).keys == [env.key("a")]
    assert not env.core.client_attempts.early
    assert not env.core.client_attempts.running


def test_a_client_that_leaves_has_told_of_all_its_tasks() -> None:
    env = ClientEnvironment()
    env.run_one()
    env.submit()
    env.sent()
    env.core.to_scheduler(m.ClientStopped(stop=False))
    assert env.sent() == [(SCHEDULER_RANK, ["SubmitTasks", "ClientStopped"])]


# --- the worker ---


def worker_with(slots: int) -> WorkerCore:
    core = WorkerCore(Config(), WORKER, slots)
    for slot in range(slots):
        core.receive(-1, e.SlotStarted(slot), 0.0)
    return core


def send_task(core: WorkerCore, key: Key, attempt: int = CLIENT_ATTEMPT) -> list[m.Message]:
    """Send a task to a worker; return what it answers at once."""
    orders = m.ComputeTasks([key], [attempt], [1], [key], [b""], [CLIENT], [], [])
    core.receive(CLIENT, orders, 0.0)
    return [message for _, bundle in core.outgoing(0.0) for message in bundle]


def given_back(key: Key) -> list[m.Message]:
    return [m.TasksYielded([key], [CLIENT_ATTEMPT], [])]


def test_a_worker_gives_back_what_it_cannot_begin_at_once() -> None:
    core = worker_with(slots=2)
    assert send_task(core, 11) == send_task(core, 12) == []
    assert send_task(core, 13) == given_back(13)
    core.receive(-1, e.SlotFinished(0, [1], [1], [0.1]), 0.0)
    core.outgoing(0.0)
    assert send_task(core, 13) == []


def test_a_worker_over_its_memory_limit_begins_nothing_for_clients() -> None:
    core = worker_with(slots=1)
    core.state.paused = True
    assert send_task(core, 11) == given_back(11)
    assert send_task(core, 11, attempt=1) == []


def test_a_worker_that_has_a_later_attempt_gives_the_clients_back() -> None:
    core = worker_with(slots=2)
    assert send_task(core, 11, attempt=1) == []
    assert send_task(core, 11) == given_back(11)
    core.receive(-1, e.SlotFinished(0, [1], [1], [0.1]), 0.0)
    core.outgoing(0.0)
    assert send_task(core, 11) == given_back(11)


@pytest.mark.parametrize(
    ("excess_bytes", "duration_s"), [(0, 0.001), (1, 0.001), (0, 0.1)],
    ids=["small", "large", "long"],
)  # fmt: skip
def test_a_worker_reports_of_the_attempts_of_clients_what_is_large_or_was_long(
    excess_bytes: int, duration_s: float
) -> None:
    """A client whose script kept the interpreter's lock told of a long task much too late."""
    core = worker_with(slots=1)
    send_task(core, 11)
    nbytes = core.config.push_bytes_max + excess_bytes
    core.receive(-1, e.SlotFinished(0, [1], [nbytes], [duration_s]), 0.0)
    reports = [m.TasksFinished([11], [CLIENT_ATTEMPT], [nbytes], [duration_s])]
    small = not excess_bytes and duration_s < 0.01
    assert core.outgoing(0.0) == ([] if small else [(SCHEDULER_RANK, reports)])
    assert core.state.has == {11: nbytes}


def test_a_later_attempt_that_overtakes_the_end_of_a_clients() -> None:
    core = worker_with(slots=1)
    send_task(core, 11)
    assert send_task(core, 11, attempt=1) == [*given_back(11), m.SlotsChanged(0, 1)]
    core.receive(0, m.CancelTasks([11], [CLIENT_ATTEMPT]), 0.0)
    core.receive(-1, e.SlotFinished(0, [1], [1], [0.1]), 0.0)
    assert core.outgoing(0.0) == [(SCHEDULER_RANK, [m.SlotsChanged(0, 0)])]
    core.receive(-1, e.SlotFinished(0, [2], [1], [0.1]), 0.0)
    ((_, (report,)),) = core.outgoing(0.0)
    assert isinstance(report, m.TasksFinished)
    assert report.attempts == [1]


def test_a_cancelled_attempt_of_a_client_is_reported_once() -> None:
    core = worker_with(slots=1)
    send_task(core, 11)
    core.receive(0, m.CancelTasks([11], [CLIENT_ATTEMPT]), 0.0)
    ((rank, bundle),) = core.outgoing(0.0)
    assert (rank, bundle) == (SCHEDULER_RANK, [*given_back(11), m.SlotsChanged(0, 1)])
    core.receive(-1, e.SlotFinished(0, [1], [1], [0.1]), 0.0)
    assert core.outgoing(0.0) == [(SCHEDULER_RANK, [m.SlotsChanged(0, 0)])]
