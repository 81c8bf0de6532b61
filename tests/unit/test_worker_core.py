"""What does the worker's core do in single situations, mostly races that went wrong once?"""

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.ids import SCHEDULER_RANK, Key, Rank
from mpicluster.worker import checks
from mpicluster.worker import events as e
from mpicluster.worker.core import WorkerCore

RANK = 4
A, B, C, D = 101, 102, 103, 104
T = TypeVar("T")


class WorkerEnvironment:
    """A worker core whose messages and effects the test must take."""

    def __init__(self, slots: int = 1) -> None:
        self.core = WorkerCore(Config(), RANK, slots)
        self.now = 0.0
        self.sent: list[tuple[Rank, m.Message]] = []
        self.effects: list[Any] = []
        for slot in range(slots):
            self.core.receive(-1, e.SlotStarted(slot), 0.0)

    def turn(self, *events: Any) -> None:
        """Let messages and events arrive in one turn; then the worker decides."""
        for event in events:
            self.core.receive(SCHEDULER_RANK, event, self.now)
        for rank, bundle in self.core.outgoing(self.now):
            self.sent += [(rank, message) for message in bundle]
        self.effects += self.core.effects()
        checks.check_state(self.core.state)

    def take(self, kind: type[T], rank: Rank = SCHEDULER_RANK) -> T:
        """Return the first message of a kind to a rank, which must have been sent."""
        for number, (target, message) in enumerate(self.sent):
            if target == rank and isinstance(message, kind):
                del self.sent[number]
                return message
        raise AssertionError(f"no {kind.__name__} to {rank}, but {self.sent}")

    def effect(self, kind: type[T]) -> T:
        """Return the first effect of a kind, which must have been asked for."""
        for number, effect in enumerate(self.effects):
            if isinstance(effect, kind):
                del self.effects[number]
                return effect
        raise AssertionError(f"no {kind.__name__}, but {self.effects}")

    def ran(self) -> list[Key]:
        """Return the keys of the tasks given to a slot."""
        return [task.key for task in self.effect(e.RunTasks).tasks]

    def nothing_left(self) -> None:
        """Fail if anything was sent or asked for that the test did not take."""
        assert not self.sent, f"not expected: {self.sent}"
        assert not self.effects, f"not expected: {self.effects}"


def compute(
    *keys: Key, needs: Sequence[Key] = (), holders: dict[Key, list[Rank]] | None = None,
    attempt: int = 1, nbytes: int = 8,
) -> m.ComputeTasks:  # fmt: skip
    """Return an assignment of tasks that all need the same inputs."""
    count = len(keys)
    rows: list[list[Any]] = [[key, nbytes, ranks] for key, ranks in (holders or {}).items()]
    return m.ComputeTasks(
        list(keys), [attempt] * count, [1] * count, list(keys), [b""] * count, [0] * count,
        [list(needs)] * count, rows,
    )  # fmt: skip


def finished(ticket: int, slot: int = 0) -> e.SlotFinished:
    """Return a slot's report of one task."""
    return e.SlotFinished(slot, [ticket], [8], [1.0])


def test_value_is_looked_for_at_its_next_holder() -> None:
    env = WorkerEnvironment()
    env.turn(compute(A, needs=[B], holders={B: [5, 6]}))
    first = env.take(m.FetchValues, 5)
    env.turn(e.FetchFailed(first.request, [B]))
    second = env.take(m.FetchValues, 6)
    env.turn(e.ValuesStored(second.request, [B], [8]))
    assert env.take(m.ValuesAdded).keys == [B]
    assert env.ran() == [A]
    env.nothing_left()


def test_all_missing_inputs_are_reported_once() -> None:
    env = WorkerEnvironment()
    env.turn(compute(A, needs=[B, C], holders={D: [5]}))
    assert env.take(m.InputsMissing).inputs == [B, C]
    env.nothing_left()


def test_new_attempt_waits_for_an_input_that_the_old_one_was_fetching() -> None:
    env = WorkerEnvironment()
    env.turn(compute(A, needs=[B, C], holders={B: [5]}))
    assert env.take(m.InputsMissing).inputs == [C]
    env.turn(compute(A, needs=[B, C], holders={B: [5], C: [6]}, attempt=2))
    fetch_b, fetch_c = env.take(m.FetchValues, 5), env.take(m.FetchValues, 6)
    env.turn(e.ValuesStored(fetch_c.request, [C], [8]))
    env.take(m.ValuesAdded)
    env.nothing_left()
    env.turn(e.ValuesStored(fetch_b.request, [B], [8]))
    env.take(m.ValuesAdded)
    assert env.ran() == [A]


def test_peer_is_lost_while_its_value_is_fetched() -> None:
    env = WorkerEnvironment()
    env.turn(compute(A, needs=[B], holders={B: [5]}), compute(C, needs=[D], holders={D: [5, 6]}))
    assert env.take(m.FetchValues, 5).keys == [B, D]
    env.turn(m.WorkerLost(5, "a test"))
    assert env.take(m.InputsMissing).inputs == [B]
    assert env.take(m.FetchValues, 6).keys == [D]
    env.turn(compute(A, needs=[B], holders={B: [5]}, attempt=2))
    assert env.take(m.InputsMissing).attempt == 2
    env.nothing_left()


def test_peer_is_lost_from_which_one_task_needs_two_values() -> None:
    """The second fetch had gone with the task, which was given up for the first."""
    env = WorkerEnvironment()
    env.turn(compute(C, needs=[B], holders={B: [5]}))
    env.take(m.FetchValues, 5)
    env.turn(compute(A, needs=[B, D], holders={B: [5], D: [5]}))
    env.turn(m.WorkerLost(5, "a test"))
    assert sorted(env.take(m.InputsMissing).key for _ in (A, C)) == [A, C]
    env.nothing_left()
    assert not env.core.state.fetches


def test_scattered_value_arrives_while_it_waits_to_be_fetched() -> None:
    """No request for nothing may be left, which would never be answered."""
    env = WorkerEnvironment()
    env.turn(compute(A, needs=[B], holders={B: [5]}))
    env.take(m.FetchValues, 5)
    env.turn(compute(C, needs=[D], holders={D: [5]}))
    env.turn(e.ValuesStored(0, [D], [8]))
    env.take(m.ValuesArrived)
    assert env.ran() == [C]
    env.nothing_left()
    assert not env.core.state.fetch_queues


def test_copy_that_nobody_has_is_reported() -> None:
    env = WorkerEnvironment()
    env.turn(m.AcquireValues([[A, 8, [5]]]))
    fetch = env.take(m.FetchValues, 5)
    env.turn(e.FetchFailed(fetch.request, [A]))
    assert env.take(m.CopiesMissed).keys == [A]
    env.nothing_left()


def test_value_that_comes_again_in_the_turn_in_which_it_is_dropped_stays() -> None:
    """Effects are carried out at the end of the turn; the value of the new run is stored before."""
    env = WorkerEnvironment()
    env.turn(compute(A))
    assert env.ran() == [A]
    env.turn(finished(1))
    assert env.take(m.TasksFinished).frees_seen == 0
    env.turn(compute(A, attempt=2))
    assert env.ran() == [A]
    env.turn(m.FreeKeys([A]), finished(2))
    assert env.take(m.TasksFinished).frees_seen == 1
    env.nothing_left()
    assert A in env.core.state.has


def test_report_from_before_an_order_to_drop_says_so() -> None:
    env = WorkerEnvironment()
    env.turn(compute(A))
    assert env.ran() == [A]
    env.turn(finished(1), m.FreeKeys([A]))
    assert env.take(m.TasksFinished).frees_seen == 0
    assert env.effect(e.DropValues).keys == [A]
    env.nothing_left()


def test_result_of_an_abandoned_run_does_not_count() -> None:
    env = WorkerEnvironment()
    env.turn(compute(A))
    assert env.ran() == [A]
    env.turn(m.CancelTasks([A], [1]))
    assert env.take(m.SlotsChanged) == m.SlotsChanged(0, 1)
    env.turn(finished(1))
    assert env.take(m.SlotsChanged) == m.SlotsChanged(0, 0)
    env.nothing_left()
    assert not env.core.state.has


def test_abandoned_run_and_a_new_attempt_of_the_same_task() -> None:
    env = WorkerEnvironment(slots=2)
    env.turn(compute(A))
    assert env.ran() == [A]
    env.turn(m.CancelTasks([A], [1]), compute(A, attempt=2))
    assert env.ran() == [A]
    assert env.take(m.SlotsChanged).abandoned == 1
    env.turn(finished(1))
    assert env.take(m.SlotsChanged).abandoned == 0
    env.nothing_left()
    env.turn(finished(2, slot=1))
    assert env.take(m.TasksFinished).attempts == [2]


def test_slots_count_as_abandoned_while_they_have_nothing_that_is_wanted() -> None:
    env = WorkerEnvironment(slots=2)
    env.core.state.durations[1] = 1e-6
    env.turn(compute(A, B, C, D))
    env.turn(m.CancelTasks([A, B], [1, 1]))  # C and D wait behind them
    assert not [message for _, message in env.sent]
    env.turn(e.SlotReturned(0, [3]))
    assert env.take(m.SlotsChanged) == m.SlotsChanged(0, 1)
    env.turn(finished(1))
    assert env.take(m.SlotsChanged) == m.SlotsChanged(0, 0)


def test_no_more_slots_count_as_abandoned_than_tasks_may_run() -> None:
    env = WorkerEnvironment()
    env.turn(compute(A))
    env.turn(e.SlotLent(0, True))
    assert env.take(m.SlotsChanged) == m.SlotsChanged(1, 0)
    env.turn(e.SlotStarted(1), compute(B))
    env.turn(e.SlotLent(0, False))
    assert env.take(m.SlotsChanged) == m.SlotsChanged(0, 0)
    env.turn(m.CancelTasks([A, B], [1, 1]))
    assert env.take(m.SlotsChanged) == m.SlotsChanged(0, 1)


def test_a_task_that_ends_while_its_slot_is_lent_gives_it_back() -> None:
    """After `secede` without `rejoin` the slot was used no more, and each time one was added."""
    env = WorkerEnvironment()
    for ticket in (1, 2):
        env.turn(compute(A, attempt=ticket))
        assert env.ran() == [A]
        env.turn(e.SlotLent(0, True))
        assert env.take(m.SlotsChanged) == m.SlotsChanged(1, 0)
        if ticket == 1:
            assert env.effect(e.StartSlot).slot == 1
            env.turn(e.SlotStarted(1))
        env.turn(finished(ticket))
        env.take(m.TasksFinished)
        assert env.take(m.SlotsChanged) == m.SlotsChanged(0, 0)
    assert len(env.core.state.slots) == 2
    env.nothing_left()


def test_a_lent_slot_counts_for_no_task_that_nobody_wants() -> None:
    env = WorkerEnvironment()
    env.turn(compute(A))
    env.turn(e.SlotLent(0, True))
    assert env.take(m.SlotsChanged) == m.SlotsChanged(1, 0)
    env.turn(m.CancelTasks([A], [1]))
    assert env.take(m.SlotsChanged) == m.SlotsChanged(0, 0)


def test_a_further_slot_that_is_abandoned_takes_no_place_from_a_task_that_runs() -> None:
    env = WorkerEnvironment()
    env.turn(compute(A))
    env.turn(e.SlotLent(0, True))
    env.turn(e.SlotStarted(1), compute(B))
    env.turn(e.SlotLent(0, False))
    env.sent.clear()
    env.turn(m.CancelTasks([B], [1]))
    assert not env.sent
    env.turn(finished(1))
    env.take(m.TasksFinished)
    assert env.take(m.SlotsChanged) == m.SlotsChanged(0, 1)


def test_started_tasks_are_not_given_back() -> None:
    env = WorkerEnvironment()
    env.turn(compute(A, B))
    assert env.ran() == [A]
    env.turn(m.StealTasks([A, B], [1, 1]))
    yielded = env.take(m.TasksYielded)
    assert (yielded.keys, yielded.refused) == ([B], [A])
    env.nothing_left()


def test_slot_ends_with_tasks_that_wait_in_it() -> None:
    env = WorkerEnvironment()
    env.core.state.durations[1] = 1e-6
    env.turn(compute(A, B))
    env.effects.clear()
    env.turn(e.SlotLost(0, 1, "a signal"))
    killed = env.take(m.TaskKilled)
    assert (killed.key, killed.how) == (A, "a signal")
    assert env.effect(e.StartSlot).slot == 0
    env.nothing_left()
    env.turn(e.SlotStarted(0))
    assert env.ran() == [B]


def test_silent_slot_is_asked_at_its_deadline() -> None:
    env = WorkerEnvironment()
    env.core.state.durations[1] = 1e-6
    env.turn(compute(A, B))
    env.effects.clear()
    deadline = env.core.next_deadline()
    assert deadline is not None
    env.now = deadline
    env.turn()
    assert env.effect(e.AskSlot).slot == 0
    env.turn(e.SlotReturned(0, [2]))
    env.turn(m.StealTasks([B], [1]))
    assert env.take(m.TasksYielded).keys == [B]
    env.nothing_left()


def test_slot_that_could_not_give_a_task_back_is_asked_again() -> None:
    """Rarely at last: the task may lie behind one that lasts for hours."""
    env = WorkerEnvironment()
    env.core.state.durations[1] = 1e-6
    env.turn(compute(A, B))
    env.effects.clear()
    pauses = []
    for _ in range(9):
        deadline = env.core.next_deadline()
        assert deadline is not None
        pauses.append(round(deadline - env.now, 4))
        env.now = deadline + 1e-9
        env.turn()
        assert env.effect(e.AskSlot).slot == 0
        env.turn(e.SlotReturned(0, []))
    assert pauses[1] < 0.03
    assert pauses == sorted(pauses)
    assert pauses[-2:] == [0.51, 0.51]


def test_slot_is_given_time_for_all_of_its_tasks_before_it_counts_as_silent() -> None:
    env = WorkerEnvironment()
    env.core.state.durations[1] = 0.02
    env.turn(compute(A, B, C))
    assert env.ran() == [A]
    assert env.ran() == [B, C]
    assert env.core.next_deadline() == pytest.approx(0.07)


def test_slot_that_has_several_tasks_shares_them_with_one_that_has_none() -> None:
    env = WorkerEnvironment(slots=2)
    env.core.state.durations[1] = 0.02
    env.turn(compute(A, B, C, D))
    given = [env.ran() for _ in range(4)]
    assert given == [[A], [B], [C], [D]]
    env.turn(e.SlotFinished(1, [2, 4], [8, 8], [0.02, 0.02]))
    assert env.effect(e.AskSlot).slot == 0
    env.turn(e.SlotReturned(0, [3]))
    (run,) = (effect for effect in env.effects if isinstance(effect, e.RunTasks))
    assert run.slot == 1
    assert [task.key for task in run.tasks] == [C]


def test_cancelled_task_is_taken_back_from_the_queue_of_its_slot() -> None:
    env = WorkerEnvironment()
    env.core.state.durations[1] = 0.02
    env.turn(compute(A, B, C))
    env.effects.clear()
    env.turn(m.CancelTasks([B, C], [1, 1]))
    assert env.effect(e.AskSlot).slot == 0
    env.nothing_left()
    env.turn(e.SlotReturned(0, [2, 3]))
    env.turn(finished(1))
    assert env.take(m.TasksFinished).keys == [A]
    env.nothing_left()


def test_slot_gives_back_what_another_worker_might_take() -> None:
    env = WorkerEnvironment()
    env.core.state.durations[1] = 0.02
    env.turn(compute(A, B))
    env.effects.clear()
    env.turn(m.StealTasks([B], [1]))
    assert env.take(m.TasksYielded).refused == [B]
    assert env.effect(e.AskSlot).slot == 0
    env.turn(e.SlotReturned(0, [2]))
    env.turn(m.StealTasks([B], [1]))
    assert env.take(m.TasksYielded).keys == [B]


def test_fetch_for_a_cancelled_task_that_has_not_begun_is_dropped() -> None:
    env = WorkerEnvironment()
    env.turn(compute(A, needs=[B], holders={B: [5]}))
    env.take(m.FetchValues, 5)
    env.turn(compute(C, needs=[D], holders={D: [5]}))
    env.turn(m.CancelTasks([C], [1]))
    assert D not in env.core.state.fetches
    env.nothing_left()


# --- values that are still to be made ---


def promised(*keys: Key, needs: Sequence[Key], rank: Rank, attempt: int = 1) -> m.ComputeTasks:
    """Return an assignment of tasks whose inputs a rank is still to make."""
    holders = {key: [rank] for key in needs}
    return compute(*keys, needs=needs, holders=holders, attempt=attempt, nbytes=m.PROMISED)


def test_task_runs_as_soon_as_its_own_worker_has_made_the_input() -> None:
    env = WorkerEnvironment()
    env.turn(compute(B), promised(A, needs=[B], rank=RANK))
    assert env.ran() == [B]
    env.turn(finished(1))
    assert env.take(m.TasksFinished).keys == [B]
    assert env.ran() == [A]
    env.nothing_left()


def test_what_is_still_to_be_made_holds_no_other_fetch_up() -> None:
    env = WorkerEnvironment()
    env.turn(promised(A, needs=[B], rank=5))
    assert env.take(m.FetchValues, 5).keys == [B]
    for number in range(env.core.config.fetches_max + 1):
        env.turn(promised(200 + number, needs=[300 + number], rank=5))
        assert env.take(m.FetchValues, 5).keys == [300 + number]
    env.turn(compute(C, needs=[D], holders={D: [5]}))
    assert env.take(m.FetchValues, 5).keys == [D]
    env.nothing_left()


def test_long_chain_whose_first_value_is_not_made_is_given_up() -> None:
    """It was once given up by calls within calls, of which Python permits a thousand."""
    env = WorkerEnvironment()
    chain = range(1000, 2000)
    env.turn(compute(1000), *(promised(key + 1, needs=[key], rank=RANK) for key in chain))
    assert env.ran() == [1000]
    env.turn(m.CancelTasks([1000], [1]))
    env.take(m.SlotsChanged)
    assert [env.take(m.InputsMissing).key for _ in chain] == [key + 1 for key in chain]
    assert not env.sent
    assert not env.core.state.fetches


def test_who_asks_for_a_value_that_is_being_made_gets_it_or_is_told() -> None:
    env = WorkerEnvironment(slots=2)
    env.turn(compute(A, B))
    ticket, other = env.core.state.running
    now = env.core.promise(5, m.FetchValues(7, [A, C, B], "home", promised=True))
    assert now == m.FetchValues(7, [C], "home")
    env.effects.clear()
    env.turn(finished(ticket))
    assert env.effect(e.SendValue) == e.SendValue(A, [(5, 7, "home")])
    env.take(m.TasksFinished)
    env.turn(e.SlotRaised(1, other, [b"", "ValueError", "", b"", "", 4, "host"]))
    assert env.take(m.ValuesMissing, 5) == m.ValuesMissing(7, [B])
    env.take(m.TaskErred)
    env.nothing_left()


def test_who_expects_a_value_to_be_there_does_not_wait_until_it_is_made() -> None:
    """Other requests of that rank wait until this one is answered, perhaps for an input of the task
    that makes the value: two workers once waited for each other in this way for ever.
    """
    env = WorkerEnvironment()
    env.turn(compute(A))
    fetch = m.FetchValues(7, [A], "home")
    assert env.core.promise(5, fetch) == fetch
    assert not env.core.state.promised


def test_next_holder_of_a_value_is_asked_as_one_that_makes_it() -> None:
    env = WorkerEnvironment()
    env.turn(promised(B, needs=[C], rank=6), promised(A, needs=[B], rank=RANK))
    assert env.take(m.FetchValues, 6).promised
    env.turn(promised(D, needs=[B], rank=5), m.CancelTasks([B], [1]))
    assert env.take(m.FetchValues, 5) == m.FetchValues(2, [B], "", promised=True)


def test_values_that_are_to_be_made_are_all_asked_for_at_once_however_large() -> None:
    env = WorkerEnvironment()
    nbytes = env.core.config.fetch_bytes_max
    env.turn(m.AcquireValues([[B, nbytes, [5]]]))
    env.turn(m.AcquireValues([[C, nbytes, [5]]]))  # waits until B has been answered
    env.take(m.FetchValues, 5)
    env.turn(promised(A, needs=[B], rank=6), promised(D, needs=[C], rank=6))
    env.turn(m.WorkerLost(5, "a test"))
    assert env.take(m.FetchValues, 6) == m.FetchValues(2, [B, C], "", promised=True)
    env.nothing_left()


def test_value_promised_by_another_rank_is_then_made_here() -> None:
    env = WorkerEnvironment()
    env.turn(promised(A, needs=[B], rank=5))
    fetch = env.take(m.FetchValues, 5)
    env.turn(compute(B))
    assert env.ran() == [B]
    env.turn(e.FetchFailed(fetch.request, [B]))
    env.nothing_left()
    env.turn(finished(1))
    env.take(m.TasksFinished)
    assert env.ran() == [A]
