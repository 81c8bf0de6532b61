"""What does the scheduler do with a message, and what does it send?

The contract of a core: `receive` takes note and never decides where tasks go, `outgoing` decides
once and empties the outbox. No clock, no I/O, no values, no user code.
"""

import math

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.ids import (
    CLIENT_ATTEMPT,
    SCHEDULER_RANK,
    Attempt,
    Key,
    NBytes,
    Rank,
    rank_of_client,
)
from mpicluster.load import Load
from mpicluster.scheduler import lifecycle
from mpicluster.scheduler.from_clients import FromClients
from mpicluster.scheduler.placement import place, queue_anywhere, requeue_local
from mpicluster.scheduler.reasons import (
    killed_error,
    lost_value_error,
    no_worker_error,
    no_worker_left_error,
)
from mpicluster.scheduler.records import (
    TaskRecord,
    TaskState,
    WorkerRecord,
    may_run,
)
from mpicluster.scheduler.replication import CopyRequest
from mpicluster.scheduler.room import note_room
from mpicluster.scheduler.sending import compute_tasks, news_for_clients
from mpicluster.scheduler.stealing import choose_steals

Outgoing = list[tuple[Rank, list[m.Message]]]
#: No tasks are taken back from workers while there may be more messages, but at most for so long,
#: in seconds. Of 10 000 workers with ten short tasks each, half seemed to be behind.
MORE_S_MAX = 1.0


class SchedulerCore(FromClients):
    """The scheduler without its surroundings.

    `worker_ranks` are all workers that must report before the cluster counts as started.
    """

    def __init__(self, config: Config, worker_ranks: list[Rank]) -> None:
        super().__init__(config, worker_ranks)
        self._handlers = {
            m.ClientStarted: self._on_client_started,
            m.DefineFunctions: self._on_define_functions,
            m.SubmitTasks: self._on_submit_tasks,
            m.CloseGraph: self._on_close_graph,
            m.DeclareValues: self._on_declare_values,
            m.ReplicateKeys: self._on_replicate_keys,
            m.WantKeys: self._on_want_keys,
            m.ReleaseKeys: self._on_release_keys,
            m.FinishKeys: self._on_finish_keys,
            m.CancelKeys: self._on_cancel_keys,
            m.AskScheduler: self._on_ask_scheduler,
            m.Coordinate: self._on_coordinate,
            m.ClientStopped: self._on_client_stopped,
            m.WorkerStarted: self._on_worker_started,
            m.TasksFinished: self._on_tasks_finished,
            m.TaskErred: self._on_task_erred,
            m.TaskKilled: self._on_task_killed,
            m.InputsMissing: self._on_inputs_missing,
            m.ValuesAdded: self._on_values_added,
            m.ValuesArrived: self._on_values_arrived,
            m.CopiesMissed: self._on_copies_missed,
            m.TasksYielded: self._on_tasks_yielded,
            m.WorkerStatus: self._on_worker_status,
            m.WorkerPaused: self._on_worker_paused,
            m.SlotsChanged: self._on_slots_changed,
            m.WorkerStopped: self._on_worker_stopped,
            m.WorkerLost: self._on_worker_lost,
        }

    # --- the contract of a core ---

    def outgoing(self, now: float, *, more: bool = False) -> Outgoing:
        """Decide, and return what to send to whom.

        With `more` there may be messages that have arrived and come next: who seems to be behind
        may have reported in one of them.
        """
        state = self.state
        state.now = now
        for function in state.measured:
            function.update_means()
        state.measured = {}
        assigned: dict[WorkerRecord, list[TaskRecord]] = {}
        if not self._stopping:
            if self._some_lost:
                self._fail_hopeless()
            assigned = place(state)
        # First what is over, then what begins: a new attempt must not meet the orders for the
        # one before, nor a value that is made again the order to drop it.
        self._send_ends()
        for worker, tasks in assigned.items():
            for message in compute_tasks(worker, tasks):
                self._send(worker.rank, message)
        copied: list[CopyRequest] = []
        if self.replication.wanted:
            orders, copied = self.replication.next_copies()
            for worker, holders in orders.items():
                self._send(worker.rank, m.AcquireValues(holders))
        self._more_since = min(self._more_since, now) if more else math.inf
        long = now - self._more_since >= MORE_S_MAX
        if now >= self._next_balance and (long or not more) and not self._stopping:
            self._next_balance = now + self.config.balance_interval_s
            self._steal()
        for client, message in news_for_clients(state):
            self._send(client, message)
        for request in copied:  # after the news why a value is gone
            if request.client in state.clients:
                self._send(request.client, m.Answer(request.request, request.gone))
        outbox, self._outbox = self._outbox, {}
        # New work goes out first: a worker may be waiting for it, for the rest nobody is.
        bundles = [(worker.rank, outbox.pop(worker.rank)) for worker in assigned]
        bundles += outbox.items()
        return bundles

    def next_deadline(self) -> float | None:
        """Return when to be called again if nothing arrives; None: not before a message."""
        state = self.state
        waits = (state.idle or state.without_slots) and state.working and not self._stopping
        return self._next_balance if waits else None

    @property
    def load(self) -> Load:
        """How much the slots of the workers have to do."""
        state = self.state
        if not state.idle and (len(state.ready) or state.with_local):
            return Load.FULL
        return Load.SOME if state.working else Load.NONE

    def signs_of_life(self) -> dict[Rank, float]:
        """Return when each worker that has not stopped was heard last; -1: it has not started."""
        workers = self.state.workers
        return {
            rank: workers[rank].last_heard if rank in workers else -1.0 for rank in self._running
        }

    def patience_s(self, rank: Rank) -> float:
        """Return for how long a worker may be silent before it counts as lost."""
        if self._stopping:
            # Less than the client waits for all of them.
            return min(self.config.lost_after_s, self.config.stop_timeout_s * 0.75)
        started = rank in self.state.workers
        return self.config.lost_after_s if started else self.config.start_timeout_s

    # --- sending ---

    def _send_ends(self) -> None:
        """Tell workers which attempts and which values nobody needs any more."""
        state = self.state
        for worker, attempts in state.to_cancel.items():
            keys = [key for key, _ in attempts]
            self._send(worker.rank, m.CancelTasks(keys, [attempt for _, attempt in attempts]))
        for worker, keys in state.to_free.items():
            self._send(worker.rank, m.FreeKeys(keys))
            worker.frees_sent += 1
            if state.keeps_lineage:
                for key in keys:
                    worker.freed.pop(key, None)  # the dict stays in the order of the numbers
                    worker.freed[key] = worker.frees_sent
        state.to_cancel, state.to_free = {}, {}

    def _fail_hopeless(self) -> None:
        """End the tasks that no worker can run since the last that could is lost."""
        state, nobody = self.state, not self.worker_ranks
        ready = list(state.fresh.values())
        for group in state.groups.values():
            ready += group.ready.items()
        if nobody:
            ready += state.ready.items()
        for task in ready:
            if task.state is TaskState.READY and (
                nobody or (task.group is not None and not task.group.workers)
            ):
                error = no_worker_left_error(task) if nobody else no_worker_error(task)
                lifecycle.become_erred(state, task, error, "no worker left")

    def _steal(self) -> None:
        for worker, tasks in choose_steals(self.state).items():
            for task in tasks:
                task.stealing = True
            worker.stealing += len(tasks)
            note_room(self.state, worker)
            self._send(
                worker.rank,
                m.StealTasks([task.key for task in tasks], [task.attempt for task in tasks]),
            )

    # --- workers ---

    def _worker(self, rank: Rank) -> WorkerRecord | None:
        worker = self.state.workers.get(rank)
        if worker is not None:
            worker.last_heard = self.state.now
        return worker

    def _on_worker_started(self, source: Rank, message: m.WorkerStarted) -> None:
        if source not in self.worker_ranks:
            return  # it was lost before this report of it came
        worker = WorkerRecord(source, message.description)
        worker.last_heard = worker.last_progress = self.state.now
        self.state.workers[source] = worker
        for group in self.state.groups.values():
            if may_run(worker, group.options):
                group.workers[source] = worker
        note_room(self.state, worker)
        self._tell_started()

    def _on_tasks_finished(self, source: Rank, message: m.TasksFinished) -> None:
        state, tasks = self.state, self.state.tasks
        rank = message.worker or source
        # What a client tells is no sign of life of the worker.
        worker = state.workers.get(rank) if message.worker else self._worker(rank)
        if worker is None:
            return
        worker.last_progress = state.now
        if worker.freed:
            forget_seen(worker, message.frees_seen)
        function = None
        rows = zip(message.keys, message.attempts, message.sizes, message.durations, strict=True)
        for key, attempt, nbytes, duration_s in rows:
            if attempt == CLIENT_ATTEMPT and self.client_attempts.is_early(
                key, rank, m.TasksFinished([key], [attempt], [nbytes], [duration_s])
            ):
                continue
            task = tasks.get(key)
            if task is None or task.attempt != attempt or task.processing_on is not worker:
                self._take_copy(worker, key, nbytes)
                continue
            if task.function is not None:
                if task.function is not function:
                    function = task.function
                    state.measured[function] = None
                function.finished += 1
                function.duration_s_total += duration_s
                function.nbytes_total += nbytes
            lifecycle.stop_processing(state, task)
            lifecycle.put_in_memory(state, task, worker, nbytes, "finished")

    def _take_copy(self, worker: WorkerRecord, key: Key, nbytes: NBytes) -> None:
        """A worker has a value that no attempt of now has made: a late one, or one fetched."""
        if key in worker.freed:
            return  # the order to drop it is on its way
        task = self.state.tasks.get(key)
        if task is None or task.state in (TaskState.RELEASED, TaskState.ERRED):
            self.state.to_free.setdefault(worker, []).append(key)
        elif task.state is TaskState.MEMORY:
            lifecycle.add_replica(task, worker)
        else:
            lifecycle.accept_copy(self.state, task, worker, nbytes)

    def _current(
        self, rank: Rank, key: Key, attempt: Attempt, report: m.Message
    ) -> TaskRecord | None:
        """Return the task that a report is about, None if its attempt was given up."""
        worker, task = self._worker(rank), self.state.tasks.get(key)
        if worker is None:
            return None
        if attempt == CLIENT_ATTEMPT and self.client_attempts.is_early(key, rank, report):
            return None
        if task is None:
            return None
        return task if task.attempt == attempt and task.processing_on is worker else None

    def _on_task_erred(self, source: Rank, message: m.TaskErred) -> None:
        task = self._current(source, message.key, message.attempt, message)
        if task is None:
            return
        if task.retries > 0:
            task.retries -= 1
            lifecycle.run_again(self.state, task, "retried")
        else:
            lifecycle.stop_processing(self.state, task)
            lifecycle.become_erred(self.state, task, message.error, "raised")

    def _on_task_killed(self, source: Rank, message: m.TaskKilled) -> None:
        task = self._current(source, message.key, message.attempt, message)
        if task is None:
            return
        task.failures += 1
        if task.failures < self.config.allowed_failures:
            lifecycle.run_again(self.state, task, "slot ended")
        else:
            worker = lifecycle.stop_processing(self.state, task)
            error = killed_error(task, worker, message.how)
            lifecycle.become_erred(self.state, task, error, "slot ended")

    def _on_inputs_missing(self, source: Rank, message: m.InputsMissing) -> None:
        task = self._current(source, message.key, message.attempt, message)
        if task is None:
            return
        worker = self.state.workers[source]
        for key in message.inputs:
            dependency = self.state.tasks.get(key)
            if dependency is not None and dependency.key in worker.has_what:
                lifecycle.drop_replica(self.state, dependency, worker, "missing")
        if task.processing_on is worker and task.attempt == message.attempt:
            lifecycle.run_again(self.state, task, "inputs missing")

    def _on_values_added(self, source: Rank, message: m.ValuesAdded) -> None:
        worker = self._worker(source)
        if worker is None:
            return
        forget_seen(worker, message.frees_seen)
        for key, nbytes in zip(message.keys, message.sizes, strict=True):
            self._take_copy(worker, key, nbytes)

    def _on_values_arrived(self, source: Rank, message: m.ValuesArrived) -> None:
        state, worker = self.state, self._worker(source)
        if worker is None:
            return
        for key, nbytes in zip(message.keys, message.sizes, strict=True):
            if state.arriving.pop(key, None) is None:
                state.early[key] = (worker, nbytes)
                continue
            task = state.tasks.get(key)
            if task is not None and task.state is TaskState.WAITING:
                lifecycle.put_in_memory(state, task, worker, nbytes, "arrived")
            else:
                state.to_free.setdefault(worker, []).append(key)

    def _on_copies_missed(self, source: Rank, message: m.CopiesMissed) -> None:
        for key in message.keys:
            self.replication.missed(key, source)

    def _on_tasks_yielded(self, source: Rank, message: m.TasksYielded) -> None:
        worker = self._worker(source)
        for key, attempt in zip(message.keys, message.attempts, strict=True):
            report = m.TasksYielded([key], [attempt], [])
            task = self._current(source, key, attempt, report)
            if task is not None:
                lifecycle.run_again(self.state, task, "stolen")
                if task.state is TaskState.READY:
                    queue_anywhere(self.state, task)
        for key in message.refused:
            task = self.state.tasks.get(key)
            if task is not None and task.stealing and task.processing_on is worker:
                task.stealing = False
                if worker is not None:
                    worker.stealing -= 1
                    self.state.touched[worker] = None

    def _on_worker_status(self, source: Rank, message: m.WorkerStatus) -> None:
        worker = self._worker(source)
        if worker is not None:
            worker.metrics = message.metrics

    def _on_worker_paused(self, source: Rank, message: m.WorkerPaused) -> None:
        worker = self._worker(source)
        if worker is None:
            return
        worker.paused, worker.last_resort = message.paused, message.last_resort
        self.state.touched[worker] = None
        if message.paused:
            self.state.paused[worker] = None
            requeue_local(self.state, worker)
        else:
            self.state.paused.pop(worker, None)

    def _on_slots_changed(self, source: Rank, message: m.SlotsChanged) -> None:
        worker = self._worker(source)
        if worker is not None:
            worker.slots += message.lent - worker.lent - message.abandoned + worker.abandoned
            worker.lent, worker.abandoned = message.lent, message.abandoned
            if worker.slots:
                self.state.without_slots.pop(worker, None)
            else:
                self.state.without_slots[worker] = None
            self.state.touched[worker] = None

    def _on_worker_stopped(self, source: Rank, _message: m.WorkerStopped) -> None:
        worker = self.state.workers.pop(source, None)
        if worker is not None:
            self._leave_queues(worker)
            self.client_attempts.worker_lost(source)
        self._running.pop(source, None)
        self._finish_stop()

    def _on_worker_lost(self, source: Rank, message: m.WorkerLost) -> None:
        """A local event of the loop: what only this rank held is computed again."""
        state, rank = self.state, message.rank
        if source != SCHEDULER_RANK or rank not in self.worker_ranks:
            return
        del self.worker_ranks[rank]
        self._running.pop(rank, None)
        self._some_lost = True
        worker = state.workers.pop(rank, None)
        if worker is not None:
            self._leave_worker(worker)
        self.replication.worker_lost(rank)
        self.client_attempts.worker_lost(rank)
        self._lose_scattered(rank)
        for client in list(state.clients):
            if rank_of_client(client) == rank:
                self._on_client_stopped(client, m.ClientStopped(stop=False))
        for peer in (*state.clients, *state.workers):
            self._send(peer, m.WorkerLost(rank, message.reason))
        self._tell_started()
        self._finish_stop()

    def _leave_worker(self, worker: WorkerRecord) -> None:
        """Forget a lost worker: its tasks run elsewhere, its values are gone."""
        state = self.state
        for group in state.groups.values():
            group.workers.pop(worker.rank, None)
        requeue_local(state, worker)
        for task in list(worker.has_what.values()):
            lifecycle.drop_replica(state, task, worker, "worker lost")
        for task in list(worker.processing.values()):
            if task.processing_on is worker:
                lifecycle.run_again(state, task, "worker lost")
        self._leave_queues(worker)

    def _leave_queues(self, worker: WorkerRecord) -> None:
        state = self.state
        for queue in (
            state.idle, state.roomy, state.touched, state.to_free, state.to_cancel,
            state.paused, state.last_resorts, state.without_slots,
        ):  # fmt: skip
            queue.pop(worker, None)
        worker.is_idle = worker.is_roomy = False

    def _lose_scattered(self, rank: Rank) -> None:
        """Values that were on their way to a lost worker, or from one, may never arrive."""
        state = self.state
        for key, (receiver, _) in [
            (key, ranks) for key, ranks in state.arriving.items() if rank in ranks
        ]:
            if receiver == rank:
                del state.arriving[key]  # what may come yet from a lost sender is freed then
            task = state.tasks.get(key)
            if task is not None and task.state is TaskState.WAITING:
                lifecycle.become_erred(state, task, lost_value_error(task), "worker lost")
        for key in [key for key, (holder, _) in state.early.items() if holder.rank == rank]:
            del state.early[key]


def forget_seen(worker: WorkerRecord, frees_seen: int) -> None:
    """Forget which values a worker was told to drop in orders that it has taken in."""
    freed = worker.freed
    while freed:
        key = next(iter(freed))
        if freed[key] > frees_seen:
            return
        del freed[key]
