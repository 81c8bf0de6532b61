"""How many of the ready tasks does a worker get, and when?"""

from mpicluster import messages as m
from mpicluster.ids import first_number, slot_client
from mpicluster.messages import TaskOptions
from tests.unit.core_environment import CLIENT, NBYTES, SchedulerEnvironment


def test_a_worker_gets_more_when_half_of_what_is_ahead_is_missing() -> None:
    env = SchedulerEnvironment(prefetch_s=0.45)  # four tasks of 0.1 s ahead
    env.have("first", rank=3)
    env.core.state.functions[1].duration_s = 0.1
    env.submit(*(f"t{number}" for number in range(30)))
    assert len(env.take(3, m.ComputeTasks).keys) == 5
    env.finish("t0", 3)
    env.take(CLIENT, m.KeysFinished)
    env.nothing_left()
    env.finish("t1", 3)
    env.take(CLIENT, m.KeysFinished)
    assert len(env.take(3, m.ComputeTasks).keys) == 2
    env.nothing_left()


def test_the_last_tasks_are_shared_evenly_as_workers_end() -> None:
    """Who asks first does not get all that is left: two would then wait for one."""
    env = SchedulerEnvironment(workers=2, prefetch_s=0.45)  # four tasks of 0.1 s ahead
    env.have("first", rank=3)
    env.core.state.functions[1].duration_s = 0.1
    names = [f"t{number}" for number in range(8)]
    env.submit(*names)
    given = {rank: env.take(rank, m.ComputeTasks).keys for rank in (3, 4)}
    assert {rank: len(keys) for rank, keys in given.items()} == {3: 3, 4: 3}
    env.take(4, m.DefineFunctions)
    at_3 = [name for name in names if env.key(name) in given[3]]
    for name, count in zip(at_3, (0, 1, 1), strict=True):  # one ahead of what runs
        env.finish(name, 3)
        env.take(CLIENT, m.KeysFinished)
        if count:
            assert len(env.take(3, m.ComputeTasks).keys) == count
        env.nothing_left()


def test_short_tasks_leave_in_handfuls_where_there_are_many_workers() -> None:
    """One or two in a message cost the scheduler more than the workers gain by it."""
    env = SchedulerEnvironment(workers=100)
    env.have("first", rank=3)
    env.core.state.functions[1].duration_s = 15e-6  # what a message costs
    env.submit(*(f"t{number}" for number in range(500)))
    counts = []
    for rank in env.ranks:
        sent = env.take(rank, m.ComputeTasks, optional=True)
        if sent is not None:
            counts.append(len(sent.keys))
    # Each slot has one, and the first gets the square root of the 400 that are left, and so on.
    assert (len(counts), sum(counts), counts[:3]) == (100, 500, [20, 19, 19])


def test_long_tasks_leave_one_by_one() -> None:
    env = SchedulerEnvironment(workers=100)
    env.have("first", rank=3)
    env.core.state.functions[1].duration_s = 0.01
    env.submit(*(f"t{number}" for number in range(200)))
    counts = [len(env.take(rank, m.ComputeTasks).keys) for rank in env.ranks]
    assert counts == [2] * 100


def test_what_tasks_submit_runs_first_and_the_newest_of_it_before_all() -> None:
    """In the order of arrival all tasks of a recursion would wait before the first could end."""
    env = SchedulerEnvironment()
    inside = slot_client(3, 1)
    env.say(3, m.WorkerPaused(True))
    env.submit("plain")
    env.say(inside, m.DefineFunctions([2], ["g"], [b"code"]))
    for first in (1, 3):
        keys = [first_number(inside) + first, first_number(inside) + first + 1]
        env.say(inside, m.SubmitTasks(keys, [2, 2], [b"", b""], [], b"\1\1", None))
    env.submit("urgent", options=TaskOptions(priority=1))
    env.say(3, m.WorkerPaused(False))
    order = []
    while len(order) < 6:
        for key in env.take(3, m.ComputeTasks).keys:
            order.append(key)
            env.say(3, m.TasksFinished([key], [1], [NBYTES], [0.1]))
    own = [first_number(inside) + number for number in (3, 4, 1, 2)]
    assert order == [env.key("urgent"), *own, env.key("plain")]


def test_what_goes_ahead_goes_where_it_could_begin_first() -> None:
    """A few bytes more on one worker must not draw all that follows there."""
    env = SchedulerEnvironment(workers=2, promise_s=10)
    env.have("x", rank=3)
    env.have("y", rank=4)
    env.core.state.functions[1].duration_s = 0.001
    env.submit("a", options=TaskOptions(workers=(3,)))
    env.submit("b", options=TaskOptions(workers=(4,)))
    names = [f"t{number}" for number in range(6)]
    env.submit(*names, needs=["a", "b"])
    given = {rank: env.core.state.workers[rank].ahead for rank in (3, 4)}
    assert given == {3: 3, 4: 3}
    # All of the inputs on one worker: the others would have to fetch them.
    env.submit("c", needs=["a"])
    assert env.task("c").processing_on is env.core.state.workers[3]


def test_tasks_that_wait_for_inputs_do_not_make_a_worker_one_that_is_behind() -> None:
    """It lost the task whose inputs it fetched, got it again, and lost it again (seed 200118)."""
    env = SchedulerEnvironment(workers=2, promise_s=10)
    env.submit("a")
    worker = env.task("a").processing_on
    assert worker is not None
    env.take(worker.rank, m.ComputeTasks)
    env.submit("b", "c", "d", needs=["a"])
    assert len(env.take(worker.rank, m.ComputeTasks).keys) == worker.ahead == 3
    env.now = 100.0
    env.decide()
    env.nothing_left()


def test_when_all_workers_are_paused_last_resorts_take_single_tasks() -> None:
    """All were full of arguments that no disk had room for, and stood for ever."""
    env = SchedulerEnvironment(workers=2, slots=4)
    env.say(3, m.WorkerPaused(True))
    env.submit("a", "b", "c")
    env.take(4, m.ComputeTasks)
    for name in ("a", "b", "c"):
        env.finish(name, 4)
    env.say(3, m.WorkerPaused(True, True))
    env.sent.clear()
    env.submit("d", needs=["a"])  # worker 4 takes tasks
    assert env.take(4, m.ComputeTasks).keys == [env.key("d")]
    env.finish("d", 4)
    env.say(4, m.WorkerPaused(True))
    env.sent.clear()
    env.submit("e", "f", "g", needs=["b"])
    env.take(3, m.DefineFunctions)
    assert env.take(3, m.ComputeTasks).keys == [env.key("e")]
    env.nothing_left()
    env.finish("e", 3)
    env.take(CLIENT, m.KeysFinished)
    assert env.take(3, m.ComputeTasks).keys == [env.key("f")]
    env.nothing_left()
    env.say(3, m.SlotsChanged(1))
    assert env.take(3, m.ComputeTasks).keys == [env.key("g")]


def test_a_last_resort_takes_what_only_paused_workers_may() -> None:
    env = SchedulerEnvironment(workers=3, slots=4)
    env.say(3, m.WorkerPaused(True, True))
    env.say(4, m.WorkerPaused(True))
    env.submit("a", "b", options=TaskOptions(workers=(3, 4)))
    env.take(3, m.DefineFunctions)
    assert env.take(3, m.ComputeTasks).keys == [env.key("a")]
    env.submit("c", options=TaskOptions(workers=(4, 5)))
    env.take(5, m.DefineFunctions)
    assert env.take(5, m.ComputeTasks).keys == [env.key("c")]
    env.nothing_left()


def test_a_last_resort_takes_what_others_have_no_resources_for() -> None:
    env = SchedulerEnvironment(workers=2, slots=4)  # worker 3 has the GPU
    env.say(4, m.WorkerPaused(True, True))
    env.core.state.workers[4].resources = {"GPU": 1.0}
    env.core.state.workers[4].resources_free = {"GPU": 1.0}
    env.submit("a", "b", options=TaskOptions(resources=(("GPU", 1.0),)))
    env.take(3, m.DefineFunctions)
    assert env.take(3, m.ComputeTasks).keys == [env.key("a")]
    env.take(4, m.DefineFunctions)
    assert env.take(4, m.ComputeTasks).keys == [env.key("b")]


def with_a_task_behind_an_abandoned_run() -> SchedulerEnvironment:
    """Return two workers of which 4 goes on with "a", which was cancelled, and has "b" too."""
    env = SchedulerEnvironment(workers=2)
    env.submit("a")
    env.take(4, m.DefineFunctions)
    assert env.take(4, m.ComputeTasks).keys == [env.key("a")]
    env.say(CLIENT, m.CancelKeys([env.key("a")], force=False))
    env.submit("b")  # the worker has not answered: its slot may be free
    assert env.take(4, m.ComputeTasks).keys == [env.key("b")]
    env.say(4, m.SlotsChanged(0, 1))
    return env


def test_what_waits_behind_an_abandoned_run_goes_to_who_is_idle() -> None:
    """The slot counted as free: the next task waited there, and nobody took it away."""
    env = with_a_task_behind_an_abandoned_run()
    env.submit("c")
    assert env.take(3, m.ComputeTasks).keys == [env.key("c")]
    env.finish("c", 3)
    env.now += env.core.config.balance_interval_s
    env.decide()
    assert env.take(4, m.StealTasks).keys == [env.key("b")]
    env.say(4, m.TasksYielded([env.key("b")], [1], []))
    assert env.take(3, m.ComputeTasks).keys == [env.key("b")]
    env.finish("b", 3, attempt=2)
    env.say(4, m.SlotsChanged(0, 0))
    env.submit("d", "e")
    assert sorted(env.take(rank, m.ComputeTasks).keys[0] for rank in (3, 4)) == [
        env.key("d"), env.key("e")
    ]  # fmt: skip


def test_workers_whose_slots_are_all_abandoned() -> None:
    """Nobody divides by the number of slots that they have left."""
    env = SchedulerEnvironment(workers=2)
    env.have("a", rank=3)
    env.have("b", rank=4)
    for rank in (3, 4):
        env.say(rank, m.SlotsChanged(0, 1))
    env.submit("c", "d", "e", "f", needs=["a"])
    env.submit("g", "h", needs=["a", "b"])
    env.submit("i", "j", "k", needs=["g"])
    env.sent.clear()
    for rank in (3, 4):
        env.say(rank, m.SlotsChanged(0, 0))
    waiting = {env.key(name) for name in "cdefgh"}
    for _ in range(20):
        for rank in (3, 4):
            for task in list(env.core.state.workers[rank].processing.values()):
                waiting.discard(task.key)
                env.say(rank, m.TasksFinished([task.key], [task.attempt], [1], [0.1]))
    assert not waiting
    assert not env.core.state.working


def test_a_worker_without_slots_gets_nothing_and_keeps_nothing() -> None:
    """It got the second of a thousand tasks, and kept it until all others had begun."""
    env = with_a_task_behind_an_abandoned_run()
    env.sent.clear()
    env.submit(*(f"t{number}" for number in range(20)))
    assert not env.core.state.workers[4].processing.keys() - {env.key("b")}
    assert len(env.core.state.ready)
    env.now += env.core.config.balance_interval_s
    env.decide()
    assert env.take(4, m.StealTasks).keys == [env.key("b")]
    env.say(4, m.TasksYielded([env.key("b")], [1], []))
    env.sent.clear()
    (first, *_) = env.core.state.workers[3].processing.values()
    env.say(3, m.TasksFinished([first.key], [1], [1], [0.1]))
    assert env.take(3, m.ComputeTasks).keys[0] == env.key("b")


def test_tasks_of_the_only_worker_stay_though_it_has_no_slots() -> None:
    env = SchedulerEnvironment(workers=1)
    env.submit("a")
    env.say(CLIENT, m.CancelKeys([env.key("a")], force=False))
    env.submit("b")
    env.say(3, m.SlotsChanged(0, 1))
    env.sent.clear()
    env.now += env.core.config.balance_interval_s
    env.decide()
    env.nothing_left()


def test_siblings_go_to_the_same_worker() -> None:
    """One by one they were spread over the workers, and each next task had to fetch an input."""
    env = SchedulerEnvironment(workers=3)
    names = [f"t{number}" for number in range(6)]
    keys = [env.key(name) for name in (*names, "sum0", "sum1", "sum2")]
    inputs: list[list[int]] = [*([] for _ in names), keys[0:2], keys[2:4], keys[4:6]]
    env.say(CLIENT, m.SubmitTasks(
        keys, [1] * 9, [b""] * 9, inputs, bytes([0] * 6 + [1] * 3), None, 0
    ))  # fmt: skip
    given = [env.take(rank, m.ComputeTasks).keys for rank in (3, 4, 5)]
    assert given == [keys[0:2], keys[2:4], keys[4:6]]
    for rank, pair in zip((3, 4, 5), given, strict=True):
        env.say(rank, m.TasksFinished(pair, [1, 1], [NBYTES, NBYTES], [0.1, 0.1]))
        message = env.take(rank, m.ComputeTasks)
        assert (len(message.keys), message.holders) == (1, [])


def test_siblings_are_known_before_what_needs_them_has_come() -> None:
    """A client sends a large graph in parts, the first of which may hold only its leaves."""
    env = SchedulerEnvironment(workers=2)
    for wanted in (False, True):
        names = [f"{wanted}{number}" for number in range(4)]
        env.submit(*names, wanted=wanted, graph=1)
        given = [env.take(rank, m.ComputeTasks).keys for rank in (3, 4)]
        keys = [env.key(name) for name in names]
        assert given == ([keys[:2], keys[2:]] if not wanted else [keys[0::2], keys[1::2]])
        for rank, found in zip((3, 4), given, strict=True):
            env.say(rank, m.TasksFinished(found, [1, 1], [1, 1], [0.5, 0.5]))


def test_siblings_leave_no_worker_without_a_task() -> None:
    env = SchedulerEnvironment(workers=3, slots=2)
    names = [f"t{number}" for number in range(7)]
    keys = [env.key(name) for name in (*names, "sum")]
    inputs: list[list[int]] = [*([] for _ in names), keys[:-1]]
    env.say(CLIENT, m.SubmitTasks(keys, [1] * 8, [b""] * 8, inputs, bytes([0] * 7 + [1]), None, 0))
    given = [env.take(rank, m.ComputeTasks).keys for rank in (3, 4, 5)]
    assert [len(found) for found in given] == [3, 2, 2]


def test_what_is_urgent_does_not_wait_for_its_siblings() -> None:
    env = SchedulerEnvironment(workers=2)
    env.say(3, m.WorkerPaused(True))
    env.say(4, m.WorkerPaused(True))
    for name, priority in (("a", 1), ("b", 0), ("c", 0), ("d", 0)):
        env.submit(name, options=TaskOptions(priority=priority))
    env.submit("e", needs=["a", "b", "c", "d"])
    env.sent.clear()
    env.say(3, m.WorkerPaused(False), decide=False)
    env.say(4, m.WorkerPaused(False))
    urgent, others = (env.take(rank, m.ComputeTasks).keys for rank in (3, 4))
    assert urgent[0] == env.key("a")
    assert others[0] == env.key("b")
