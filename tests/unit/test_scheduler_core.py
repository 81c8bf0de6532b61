"""What does the scheduler's core do in single situations, mostly races that went wrong once?"""

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.ids import SCHEDULER_RANK, first_number, slot_client
from mpicluster.load import Load
from mpicluster.messages import TaskOptions
from mpicluster.scheduler.core import SchedulerCore
from mpicluster.scheduler.records import TaskState
from tests.unit.core_environment import CLIENT, NBYTES, OTHER_CLIENT, SchedulerEnvironment

ERROR = [b"", "ValueError", "no", b"", "", 3, "host"]


def test_graph_in_two_messages_keeps_values_until_it_is_closed() -> None:
    env = SchedulerEnvironment()
    env.submit("a", wanted=False, graph=7)
    env.take(3, m.ComputeTasks)
    env.finish("a", 3)
    env.nothing_left()
    env.submit("b", needs=["a"], graph=7)
    env.take(3, m.ComputeTasks)
    env.say(CLIENT, m.CloseGraph(7))
    env.nothing_left()
    env.finish("b", 3)
    env.take(CLIENT, m.KeysFinished)
    assert env.take(3, m.FreeKeys).keys == [env.key("a")]
    env.nothing_left()


def test_task_of_a_later_message_errs_with_the_error_of_an_unwanted_input() -> None:
    env = SchedulerEnvironment()
    env.submit("a", wanted=False, graph=7)
    env.take(3, m.ComputeTasks)
    env.say(3, m.TaskErred(env.key("a"), 1, ERROR))
    env.submit("b", needs=["a"], graph=7)
    assert env.take(CLIENT, m.KeysErred).error == ERROR
    env.say(CLIENT, m.CloseGraph(7))
    env.nothing_left()
    assert not env.known("a")


def test_scattered_value_arrives_before_it_is_declared() -> None:
    env = SchedulerEnvironment()
    env.say(3, m.ValuesArrived([env.key("s")], [5]))
    env.nothing_left()
    env.say(CLIENT, m.DeclareValues([env.key("s")], [3]))
    assert env.take(CLIENT, m.KeysFinished).ranks == [3]
    env.nothing_left()


def test_scattered_value_arrives_after_its_future_was_released() -> None:
    env = SchedulerEnvironment()
    key = env.key("s")
    env.say(CLIENT, m.DeclareValues([key], [3]), m.ReleaseKeys([key]))
    env.say(3, m.ValuesArrived([key], [5]))
    assert env.take(3, m.FreeKeys).keys == [key]
    env.nothing_left()
    assert not env.core.state.arriving


def test_scattered_value_of_a_task_whose_worker_is_lost_is_not_waited_for() -> None:
    """The worker that sends it on may have sent only a part of it, which its receiver drops."""
    env = SchedulerEnvironment(workers=2, survive="ranks")
    inside = slot_client(4, 1)
    key = first_number(inside) + 1
    env.say(inside, m.DeclareValues([key], [3]))
    env.say(CLIENT, m.WantKeys([key]))
    env.lose(4)
    assert env.take(CLIENT, m.KeysErred).error[1] == "LostValueError"
    env.say(3, m.ValuesArrived([key], [5]))  # it had come completely
    assert env.take(3, m.FreeKeys).keys == [key]
    env.nothing_left()
    assert not env.core.state.arriving


def test_what_a_client_could_not_declare_any_more_is_freed() -> None:
    env = SchedulerEnvironment()
    inside = slot_client(3, 1)
    key = first_number(inside) + 1
    env.say(3, m.ValuesArrived([key], [5]))
    env.say(inside, m.ClientStopped(stop=False))
    assert env.take(3, m.FreeKeys).keys == [key]
    env.nothing_left()
    assert not env.core.state.early


def test_copy_of_a_scattered_value_arrives_after_its_only_holder_was_lost() -> None:
    env = SchedulerEnvironment(workers=2, survive="ranks")
    key = env.key("s")
    env.say(CLIENT, m.DeclareValues([key], [3]))
    env.say(3, m.ValuesArrived([key], [5]))
    env.take(CLIENT, m.KeysFinished)
    env.say(CLIENT, m.ReplicateKeys([key], [4]))
    env.take(4, m.AcquireValues)
    env.lose(3)
    assert env.take(CLIENT, m.KeysErred).error[1] == "LostValueError"
    env.say(4, m.ValuesAdded([key], [5]))
    assert env.take(4, m.FreeKeys).keys == [key]
    env.nothing_left()


def test_cancel_of_one_client_does_not_keep_what_the_other_lets_go_later() -> None:
    env = SchedulerEnvironment()
    env.have("a")
    key = env.key("a")
    env.say(OTHER_CLIENT, m.WantKeys([key]))
    env.take(OTHER_CLIENT, m.KeysFinished)
    env.say(CLIENT, m.CancelKeys([key], force=False))
    assert env.take(CLIENT, m.KeysCancelled).keys == [key]
    env.nothing_left()
    env.say(OTHER_CLIENT, m.ReleaseKeys([key]))
    env.take(3, m.FreeKeys)
    env.nothing_left()
    assert not env.known("a")


def test_report_of_an_old_attempt_is_dropped() -> None:
    env = SchedulerEnvironment(workers=2)
    env.submit("a", options=TaskOptions(workers=(3,), retries=1))
    env.take(3, m.ComputeTasks)
    env.say(3, m.TaskErred(env.key("a"), 1, ERROR))
    assert env.take(3, m.ComputeTasks).attempts == [2]
    env.say(3, m.TaskErred(env.key("a"), 1, ERROR), m.TaskKilled(env.key("a"), 1, "how"))
    env.nothing_left()
    assert env.task("a").state is TaskState.PROCESSING


def test_report_of_a_lost_worker_about_a_task_that_waits_again() -> None:
    env = SchedulerEnvironment(workers=2, survive="ranks")
    env.submit("a")
    env.take(4, m.ComputeTasks)
    env.say(3, m.WorkerPaused(True))
    env.lose(4)
    env.say(4, m.TaskErred(env.key("a"), 1, ERROR))
    env.nothing_left()
    assert env.task("a").state is TaskState.READY


def test_a_single_task_goes_to_the_worker_that_was_used_last() -> None:
    env = SchedulerEnvironment(workers=3)
    env.submit("a", options=TaskOptions(workers=(3,)))
    env.take(3, m.DefineFunctions, optional=True)
    env.take(3, m.ComputeTasks)
    env.finish("a", 3)
    env.take(CLIENT, m.KeysFinished)
    env.submit("b")
    assert env.take(3, m.ComputeTasks).keys == [env.key("b")]


def test_worker_is_lost_before_its_report_that_it_has_started_comes() -> None:
    env = SchedulerEnvironment(workers=2, survive="ranks")
    env.lose(4)
    env.say(4, m.WorkerStarted({"slots": 1}))
    env.submit("a", "b")
    assert env.take(3, m.ComputeTasks).keys == [env.key("a"), env.key("b")]
    env.nothing_left()


def test_client_that_comes_after_a_worker_was_lost_is_answered() -> None:
    env = SchedulerEnvironment(workers=2, survive="ranks")
    env.lose(4)
    env.say(99, m.ClientStarted({}))
    assert [worker["rank"] for worker in env.take(99, m.ClusterStarted).workers] == [3]
    env.nothing_left()


def test_finished_value_of_a_given_up_attempt_meets_the_order_to_drop_it() -> None:
    """The scheduler must not believe in a value that a `FreeKeys` on its way will drop.

    b keeps a's record (survive = ranks). a is released and dropped, wanted again, and cancelled
    on worker 3, whose report of the first attempt, sent before `FreeKeys` came, arrives late.
    """
    env = SchedulerEnvironment(survive="ranks")
    env.have("a")
    env.submit("b", needs=["a"])
    env.take(3, m.ComputeTasks)
    env.finish("b", 3)
    env.take(CLIENT, m.KeysFinished)
    env.say(CLIENT, m.ReleaseKeys([env.key("a")]))
    env.take(3, m.FreeKeys)
    env.say(CLIENT, m.WantKeys([env.key("a")]))
    assert env.take(3, m.ComputeTasks).attempts == [2]
    env.finish("a", 3, attempt=1, frees_seen=0)
    env.nothing_left()
    assert env.task("a").state is TaskState.PROCESSING
    env.finish("a", 3, attempt=1, frees_seen=1)
    env.take(CLIENT, m.KeysFinished)
    assert env.take(3, m.CancelTasks).attempts == [2]
    env.nothing_left()


def test_orders_to_cancel_and_to_drop_come_before_new_attempts() -> None:
    env = SchedulerEnvironment(survive="ranks")
    env.have("a")
    env.submit("b", needs=["a"])
    env.take(3, m.ComputeTasks)
    env.finish("b", 3)
    env.take(CLIENT, m.KeysFinished)
    key = env.key("a")
    env.say(CLIENT, m.ReleaseKeys([key]), m.WantKeys([key]))
    kinds = [type(message) for _, message in env.sent]
    assert kinds == [m.FreeKeys, m.ComputeTasks]


def test_erred_task_is_not_computed_again_without_its_inputs() -> None:
    """An input that was never known is missing for ever, also when the key is wanted again."""
    env = SchedulerEnvironment(survive="ranks")
    env.submit("x", needs=["never"])
    assert env.take(CLIENT, m.KeysErred).error[1] == "LostValueError"
    env.submit("y", needs=["x"])
    env.take(CLIENT, m.KeysErred)
    env.say(CLIENT, m.ReleaseKeys([env.key("x")]))
    env.say(OTHER_CLIENT, m.WantKeys([env.key("x")]))
    assert env.take(OTHER_CLIENT, m.KeysErred).error[1] == "LostValueError"
    env.nothing_left()


def test_lost_value_made_of_released_scattered_data_errs() -> None:
    env = SchedulerEnvironment(workers=2, survive="ranks")
    key = env.key("s")
    env.say(CLIENT, m.DeclareValues([key], [3]))
    env.say(3, m.ValuesArrived([key], [5]))
    env.take(CLIENT, m.KeysFinished)
    env.submit("a", needs=["s"])
    env.take(3, m.ComputeTasks)
    env.finish("a", 3)
    env.take(CLIENT, m.KeysFinished)
    env.say(CLIENT, m.ReleaseKeys([key]))
    env.take(3, m.FreeKeys)
    env.lose(3)
    assert env.take(CLIENT, m.KeysErred).error[1] == "LostValueError"
    env.nothing_left()


def test_failed_copy_is_made_from_another_holder() -> None:
    env = SchedulerEnvironment(workers=3, survive="ranks")
    env.have("a")
    key = env.key("a")
    env.say(4, m.ValuesAdded([key], [NBYTES]))
    env.say(CLIENT, m.ReplicateKeys([key], [5]))
    assert env.take(5, m.AcquireValues).holders == [[key, NBYTES, [3]]]
    env.lose(3)
    env.say(5, m.CopiesMissed([key]))
    assert env.take(5, m.AcquireValues).holders == [[key, NBYTES, [4]]]
    env.say(5, m.ValuesAdded([key], [NBYTES]))
    env.nothing_left()
    assert not env.core.replication.wanted
    assert not env.core.replication.sending


def test_who_asked_for_copies_hears_when_all_are_there() -> None:
    env = SchedulerEnvironment(workers=3)
    env.have("a")
    env.have("b")
    keys = [env.key("a"), env.key("b")]
    env.say(CLIENT, m.ReplicateKeys(keys, [3, 4, 5], 7))
    assert env.take(4, m.AcquireValues).holders == [[key, NBYTES, [3]] for key in keys]
    assert env.take(5, m.AcquireValues).holders == [[key, NBYTES, [3]] for key in keys]
    env.say(4, m.ValuesAdded(keys, [NBYTES, NBYTES]))
    env.say(5, m.ValuesAdded(keys[:1], [NBYTES]))
    env.nothing_left()
    env.say(5, m.ValuesAdded(keys[1:], [NBYTES]))
    assert env.take(CLIENT, m.Answer) == m.Answer(7, [])
    env.say(CLIENT, m.ReplicateKeys(keys, [4], 8))
    assert env.take(CLIENT, m.Answer) == m.Answer(8, [])
    env.nothing_left()


def test_who_asked_for_copies_hears_that_a_worker_or_a_value_is_lost() -> None:
    """Once it asked again and again who has the values, for ever."""
    env = SchedulerEnvironment(workers=3, survive="ranks")
    env.have("a")
    env.say(CLIENT, m.ReplicateKeys([env.key("a")], [4, 5], 7))
    env.take(4, m.AcquireValues)
    env.take(5, m.AcquireValues)
    env.say(4, m.ValuesAdded([env.key("a")], [NBYTES]))
    env.lose(5)
    assert env.take(CLIENT, m.Answer) == m.Answer(7, [])
    env.say(CLIENT, m.ReplicateKeys([env.key("a"), 99], [3, 4], 8))
    assert env.take(CLIENT, m.Answer) == m.Answer(8, [99])


def test_copy_for_a_lost_worker_does_not_block_the_others() -> None:
    env = SchedulerEnvironment(workers=3, survive="ranks")
    env.have("a")
    env.say(CLIENT, m.ReplicateKeys([env.key("a")], [4, 5]))
    env.take(4, m.AcquireValues)
    env.lose(4)
    env.take(5, m.AcquireValues)
    env.nothing_left()


def test_stolen_task_does_not_go_back_to_the_worker_that_has_its_inputs() -> None:
    env = SchedulerEnvironment(workers=2, prefetch_s=10)
    env.say(4, m.WorkerPaused(True))
    env.have("a")
    env.submit("b", "c", "d", needs=["a"])
    assert len(env.take(3, m.ComputeTasks).keys) >= 2
    env.say(4, m.WorkerPaused(False))
    env.now = 5.0
    env.decide()
    stolen = env.take(3, m.StealTasks, optional=True) or env.take(4, m.ComputeTasks)
    if isinstance(stolen, m.StealTasks):
        env.say(3, m.TasksYielded(stolen.keys, stolen.attempts, []))
        assert env.take(4, m.ComputeTasks).keys == stolen.keys[:1]


def test_nothing_is_taken_from_a_worker_whose_report_may_be_among_what_has_arrived() -> None:
    env = SchedulerEnvironment(workers=2)
    env.say(4, m.WorkerPaused(True))
    env.submit("a", "b")
    env.take(3, m.DefineFunctions)
    env.take(3, m.ComputeTasks)
    env.now = 0.5
    env.say(4, m.WorkerPaused(False), decide=False)
    assert env.core.outgoing(env.now, more=True) == []
    ((rank, bundle),) = env.core.outgoing(env.now)
    assert (rank, [type(message) for message in bundle]) == (3, [m.StealTasks])


def test_tasks_are_taken_from_a_worker_although_more_and_more_arrives() -> None:
    env = SchedulerEnvironment(workers=2)
    env.say(4, m.WorkerPaused(True))
    env.submit("a", "b")
    env.sent.clear()
    env.say(4, m.WorkerPaused(False), decide=False)
    assert env.core.outgoing(0.5, more=True) == []
    assert env.core.outgoing(1.4, more=True) == []
    ((rank, bundle),) = env.core.outgoing(1.6, more=True)
    assert (rank, [type(message) for message in bundle]) == (3, [m.StealTasks])


def test_what_follows_from_one_workers_value_is_shared_with_idle_workers() -> None:
    """Task Bench's sweep and nearest neighbours: one worker got every task, the other none."""
    env = SchedulerEnvironment(workers=2)  # tasks of 0.1 s
    env.have("a", rank=3)
    env.submit("b", "c", "d", "e", needs=["a"])
    assert len(env.take(3, m.ComputeTasks).keys) == 1
    assert len(env.take(4, m.ComputeTasks).keys) == 1
    env.take(4, m.DefineFunctions)
    env.nothing_left()


def test_tasks_that_wait_for_a_paused_worker_go_elsewhere() -> None:
    env = SchedulerEnvironment(workers=2)
    env.have("a")
    env.say(4, m.WorkerPaused(True))
    env.submit("b", "c", "d", "e", needs=["a"])
    env.take(3, m.ComputeTasks)
    env.say(4, m.WorkerPaused(False), m.SlotsChanged(0))
    env.sent.clear()
    env.say(3, m.WorkerPaused(True))
    assert not len(env.core.state.workers[3].local)


def test_client_that_let_go_of_a_pushed_value_is_told_when_it_wants_it_again() -> None:
    env = SchedulerEnvironment()
    key = env.key("a")
    env.submit("a")
    assert env.take(3, m.ComputeTasks).push_to == [CLIENT]
    env.submit("b", needs=["a"])
    env.say(CLIENT, m.ReleaseKeys([key]), m.WantKeys([key]))
    env.say(3, m.TasksFinished([key], [1], [8], [0.1]))
    assert env.take(CLIENT, m.KeysFinished).keys == [key]


def test_pushed_value_whose_worker_is_lost_is_announced_from_another_holder() -> None:
    env = SchedulerEnvironment(workers=2, survive="ranks")
    key = env.key("a")
    env.submit("a", options=TaskOptions(workers=(3,)))
    env.take(3, m.ComputeTasks)
    env.say(3, m.TasksFinished([key], [1], [8], [0.1]))
    env.nothing_left()
    env.say(4, m.ValuesAdded([key], [8]))
    env.lose(3)
    assert env.take(CLIENT, m.KeysFinished).ranks == [4]
    env.nothing_left()


def test_all_workers_are_lost() -> None:
    env = SchedulerEnvironment(survive="ranks")
    env.submit("a")
    env.take(3, m.ComputeTasks)
    env.say(SCHEDULER_RANK, m.WorkerLost(3, "a test"))
    error = env.take(CLIENT, m.KeysErred).error
    assert error[1] == "NoValidWorkerError"
    assert "all workers of this cluster are lost" in error[2]


def test_the_end_does_not_wait_for_a_lost_worker() -> None:
    env = SchedulerEnvironment(workers=3, survive="ranks")
    env.lose(3)
    env.say(CLIENT, m.ClientStopped(stop=True))
    env.take(4, m.StopWorker)
    env.take(5, m.StopWorker)
    env.say(4, m.WorkerStopped())
    env.nothing_left()
    env.say(SCHEDULER_RANK, m.WorkerLost(5, "a test"))
    assert env.core.stopped
    env.take(CLIENT, m.ClusterStopped)


def test_clients_in_the_tasks_of_a_lost_worker_leave() -> None:
    """What they wanted is released, and the lock that one of them held is free again."""
    env = SchedulerEnvironment(workers=2, survive="ranks")
    inside = slot_client(3, 1)
    key = first_number(inside) + 1
    env.say(inside, m.ClientStarted({}), m.DefineFunctions([2], ["g"], [b"code"]))
    env.take(inside, m.ClusterStarted)
    env.say(inside, m.Coordinate(1, "semaphore", "l", "acquire", [1]))
    assert env.take(inside, m.Answer).request == 1
    env.say(CLIENT, m.Coordinate(2, "semaphore", "l", "acquire", [1]))
    env.say(inside, m.SubmitTasks([key], [2], [b""], [], bytes([1]), None))
    worker = next(rank for rank, message in env.sent if isinstance(message, m.ComputeTasks))
    env.take(worker, m.DefineFunctions)
    env.take(worker, m.ComputeTasks)
    env.take(inside, m.TasksAccepted, optional=True)
    env.lose(3)
    assert env.take(CLIENT, m.Answer).request == 2
    assert key not in env.core.state.tasks
    assert inside not in env.core.state.clients
    env.take(4, m.CancelTasks, optional=worker == 3)
    env.nothing_left()


def test_silence_is_measured_against_what_a_worker_is_doing() -> None:
    env = SchedulerEnvironment(workers=2, lost_after_s=30, start_timeout_s=300, stop_timeout_s=8)
    env.now = 5.0
    env.say(3, m.WorkerStatus({}))
    assert env.core.signs_of_life() == {3: 5.0, 4: 0.0}
    assert env.core.patience_s(3) == 30
    env.say(CLIENT, m.ClientStopped(stop=True))
    env.say(3, m.WorkerStopped())
    assert env.core.signs_of_life() == {4: 0.0}
    assert env.core.patience_s(4) == 6


def test_a_worker_that_has_not_started_may_be_silent_for_longer() -> None:
    core = SchedulerCore(Config(), [2])
    assert core.signs_of_life() == {2: -1.0}
    assert core.patience_s(2) == Config().start_timeout_s


def test_resources_are_held_while_a_task_runs() -> None:
    env = SchedulerEnvironment(workers=2, slots=4)
    env.submit("a", "b", options=TaskOptions(resources=(("GPU", 1.0),)))
    assert env.take(3, m.ComputeTasks).keys == [env.key("a")]
    env.nothing_left()
    env.finish("a", 3)
    env.take(CLIENT, m.KeysFinished)
    assert env.take(3, m.ComputeTasks).keys == [env.key("b")]
    env.nothing_left()


def test_larger_priority_runs_first() -> None:
    env = SchedulerEnvironment()
    env.say(3, m.WorkerPaused(True))
    env.submit("low", options=TaskOptions(priority=-1))
    env.submit("plain")
    env.submit("high", options=TaskOptions(priority=1))
    env.say(3, m.WorkerPaused(False))
    assert env.take(3, m.ComputeTasks).keys == [env.key("high"), env.key("plain")]


# --- tasks that go out before their inputs are made ---


def test_only_inputs_that_take_no_time_are_not_waited_for() -> None:
    env = SchedulerEnvironment(promise_s=0.4)
    env.submit("a")
    env.take(3, m.ComputeTasks)
    env.submit("b", needs=["a"])
    env.nothing_left()  # how long a takes is not known
    env.finish("a", 3)  # within 0.1 s: 0.3 s is the mean from now on
    env.take(CLIENT, m.KeysFinished)
    assert env.take(3, m.ComputeTasks).holders == []
    env.submit("c", needs=["b"])
    sent = env.take(3, m.ComputeTasks)
    assert (sent.keys, sent.holders) == ([env.key("c")], [[env.key("b"), m.PROMISED, [3]]])
    env.nothing_left()


def test_worker_that_waits_for_inputs_is_not_robbed_of_the_task() -> None:
    env = SchedulerEnvironment(workers=2, promise_s=10, steal_after_s=0.01)
    env.have("a")
    env.take(4, m.ComputeTasks, optional=True)
    env.submit("b", "c", options=TaskOptions(workers=(3,)))
    env.sent.clear()
    env.submit("d", "e", "f", needs=["b", "c"])
    assert env.take(3, m.ComputeTasks).keys == [env.key(name) for name in "def"]
    env.now = 5.0
    env.decide()
    env.nothing_left()


def test_value_comes_from_another_worker_before_its_maker_has_reported() -> None:
    """The task that was promised a value is done: nobody needs the value when its report comes."""
    env = SchedulerEnvironment(promise_s=10)
    env.submit("a", wanted=False, graph=1)
    env.submit("b", needs=["a"], graph=1)
    assert [env.take(3, m.ComputeTasks).keys[0] for _ in "ab"] == [env.key("a"), env.key("b")]
    env.say(CLIENT, m.CloseGraph(1))
    env.finish("b", 3)
    assert env.take(CLIENT, m.KeysFinished).keys == [env.key("b")]
    assert env.take(3, m.CancelTasks).keys == [env.key("a")]
    env.finish("a", 3)
    assert env.take(3, m.FreeKeys).keys == [env.key("a")]
    env.nothing_left()


def test_copies_are_planned_anew_when_another_worker_has_the_only_value() -> None:
    """As many holders, wanted and coming copies as before: the plan was once taken for the same."""
    env = SchedulerEnvironment(workers=2, survive="ranks")
    env.have("a")
    key = env.key("a")
    env.say(CLIENT, m.ReplicateKeys([key], [4]))
    env.take(4, m.AcquireValues)
    env.say(SCHEDULER_RANK, m.WorkerLost(3, "a test"), decide=False)
    env.say(4, m.ValuesAdded([key], [NBYTES]))
    assert env.task("a").who_has == (env.core.state.workers[4],)
    assert not env.core.replication.wanted
    assert not env.core.replication.sending


def test_tasks_that_wait_for_their_inputs_take_no_places() -> None:
    """What the input itself waits for must run, or it would wait for ever."""
    env = SchedulerEnvironment(promise_s=10)
    env.submit("a")
    names = [f"b{number}" for number in range(7)]
    env.submit(*names, needs=["a"])
    assert [len(env.take(3, m.ComputeTasks).keys) for _ in range(2)] == [1, 7]
    env.submit("child")  # of a, which waits for it
    assert env.take(3, m.ComputeTasks).keys == [env.key("child")]
    worker = env.core.state.workers[3]
    assert (worker.ahead, len(worker.processing)) == (7, 9)
    env.finish("child", 3)
    env.finish("a", 3)
    assert worker.ahead == 0
    assert worker not in env.core.state.idle


def test_load_is_full_only_while_tasks_wait_for_slots() -> None:
    env = SchedulerEnvironment(prefetch_s=0.0)  # one task ahead
    assert env.core.load is Load.NONE
    env.submit("a")
    env.take(3, m.ComputeTasks)
    assert env.core.load is Load.SOME
    env.submit("b", "c", "d")
    env.take(3, m.ComputeTasks)
    assert env.core.load is Load.FULL
