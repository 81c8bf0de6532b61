"""What does the scheduler do with a client's message?

Handlers only take note: they change records and fill the outbox. Nothing is placed here.
"""

from mpicluster import messages as m
from mpicluster.ids import CLIENT_ATTEMPT, CLIENT_SHIFT, ClientId, Key, Rank, rank_of_client
from mpicluster.scheduler import answers, lifecycle
from mpicluster.scheduler.core_base import CoreBase
from mpicluster.scheduler.reasons import (
    forgotten_input_error,
    lost_value_error,
    no_worker_error,
    released_value_error,
)
from mpicluster.scheduler.records import (
    FIRE_AND_FORGET,
    OPEN_GRAPH,
    SHARED_BY_NAME,
    ClientRecord,
    FunctionRecord,
    TaskRecord,
    TaskState,
)


class FromClients(CoreBase):
    """The handlers of what clients send."""

    def _on_client_started(self, source: ClientId, _message: m.ClientStarted) -> None:
        self._client(source)
        self._waiting_clients.append(source)
        self._tell_started()

    def _on_define_functions(self, _source: ClientId, message: m.DefineFunctions) -> None:
        unknown_s = self.config.unknown_duration_s
        rows = zip(message.functions, message.prefixes, message.codes, strict=True)
        for number, prefix, code in rows:
            self.state.functions[number] = FunctionRecord(number, prefix, code, unknown_s)

    def _on_submit_tasks(self, source: ClientId, message: m.SubmitTasks) -> None:
        state, tasks = self.state, self.state.tasks
        functions, wanted = state.functions, message.wanted
        client = self._client(source)
        alone, wants = client.alone, client.wants
        nobody: tuple[ClientId, ...] = ()
        held: list[TaskRecord] | None = None
        if message.graph:
            alone, nobody = (source, OPEN_GRAPH), (OPEN_GRAPH,)
            held = client.graphs.setdefault(message.graph, [])
        options = m.TaskOptions.from_columns(message.options)
        group = state.group_for(options)
        first = state.first_priority(source, len(message.keys), options.priority)
        payloads, retries = message.payloads, options.retries
        dependencies, placed_on = message.dependencies, message.placed_on
        for index, key in enumerate(message.keys):
            if key in tasks:
                if wanted[index]:
                    self._want(client, tasks[key])
                continue
            task = TaskRecord(key, functions[message.functions[index]], first + index)
            task.payload = payloads[index]
            task.group = group
            task.retries = retries
            tasks[key] = task
            if wanted[index]:
                task.wanted_by = alone
                wants[key] = task
            else:
                task.wanted_by = nobody
            if held is not None:
                held.append(task)
            lost = None
            if dependencies and dependencies[index]:
                lost = self._link(task, dependencies[index])
            elif group is None:
                lifecycle.become_ready(state, task, "submitted")
                if placed_on:
                    self._take_placed(task, source, placed_on)
                continue
            if lost is not None:
                lifecycle.become_erred(state, task, forgotten_input_error(task), "submitted")
            elif group is not None and not group.workers:
                lifecycle.become_erred(state, task, no_worker_error(task), "submitted")
            else:
                lifecycle.start_waiting(state, task, "submitted")
        self._give_credits(client)

    def _take_placed(self, task: TaskRecord, source: ClientId, rank: Rank) -> None:
        """A client has sent its task to a worker itself; if that is lost, it waits as others do."""
        worker = self.state.workers.get(rank)
        if worker is None:
            return
        lifecycle.leave_queue(self.state, task)
        lifecycle.start_processing(self.state, [task], worker)
        task.attempt = CLIENT_ATTEMPT
        task.pushed_to = source
        self.state.touched[worker] = None  # for `note_room`
        report = self.client_attempts.begin(task.key, rank)
        if report is not None:
            self.receive(rank, report, self.state.now)

    def _give_credits(self, client: ClientRecord) -> None:
        """Answer some messages at once: a client with most of its credits left waits for none."""
        client.accepted += 1
        if client.accepted > self.config.submit_credits // 4:
            self._send(client.client, m.TasksAccepted(client.accepted))
            client.accepted = 0

    def _want(self, client: ClientRecord, task: TaskRecord) -> None:
        client.wants[task.key] = task
        lifecycle.add_interest(self.state, task, client.client, client.alone)

    def _on_close_graph(self, source: ClientId, message: m.CloseGraph) -> None:
        for task in self._client(source).graphs.pop(message.graph, ()):
            lifecycle.drop_interest(self.state, task, OPEN_GRAPH, "graph closed")

    def _link(self, task: TaskRecord, keys: list[Key]) -> Key | None:
        """Connect a new task with its inputs; return the key of one that is not known."""
        tasks = self.state.tasks
        try:
            dependencies = tuple(map(tasks.__getitem__, keys))
        except KeyError as error:
            return int(error.args[0])
        task.dependencies = dependencies
        if self.state.keeps_lineage:
            for dependency in dependencies:
                dependency.lineage += 1
        return None

    def _on_declare_values(self, source: ClientId, message: m.DeclareValues) -> None:
        state, client = self.state, self._client(source)
        ranks = message.ranks or [-1] * len(message.keys)
        for key, rank in zip(message.keys, ranks, strict=True):
            task = TaskRecord(key, None, state.first_priority(source, 1, 0))
            state.tasks[key] = task
            task.wanted_by = client.alone
            client.wants[key] = task
            lifecycle.start_waiting(state, task, "scattered")
            arrived = state.early.pop(key, None)
            if arrived is not None:
                lifecycle.put_in_memory(state, task, *arrived, "arrived")
            elif rank >= 0 and rank not in state.workers:
                lifecycle.become_erred(state, task, lost_value_error(task), "worker lost")
            else:
                state.arriving[key] = (rank, rank_of_client(source))

    def _on_replicate_keys(self, source: ClientId, message: m.ReplicateKeys) -> None:
        for key in message.keys:
            self.replication.want(key, message.ranks)
        if message.request and message.keys:
            self.replication.tell_end(source, message.request, message.keys)
        elif message.request:
            self._send(source, m.Answer(message.request, []))

    def _on_want_keys(self, source: ClientId, message: m.WantKeys) -> None:
        client = self._client(source)
        for key in message.keys:
            task = self.state.tasks.get(key)
            if task is None:
                self._send(source, m.KeysErred([key], released_value_error()))
            else:
                self._want(client, task)

    def _on_release_keys(self, source: ClientId, message: m.ReleaseKeys) -> None:
        wants, state = self._client(source).wants, self.state
        for key in message.keys:
            task = wants.pop(key, None)
            if task is not None:
                lifecycle.drop_interest(state, task, source, "released by client")

    def _on_finish_keys(self, _source: ClientId, message: m.FinishKeys) -> None:
        for key in message.keys:
            task = self.state.tasks.get(key)
            if task is not None and task.state not in (TaskState.MEMORY, TaskState.ERRED):
                lifecycle.add_interest(self.state, task, FIRE_AND_FORGET, (FIRE_AND_FORGET,))

    def _on_cancel_keys(self, source: ClientId, message: m.CancelKeys) -> None:
        """Give tasks up with all that depend on them, but not what another client wants."""
        state = self.state
        seen: dict[Key, TaskRecord] = {}
        told: dict[ClientId, list[Key]] = {}
        todo = [state.tasks[key] for key in message.keys if key in state.tasks]
        while todo:
            task = todo.pop()
            if task.key in seen:
                continue
            seen[task.key] = task
            others = any(other not in (source, OPEN_GRAPH) for other in task.wanted_by)
            if others and not message.force:
                leaving: tuple[ClientId, ...] = (source,) if source in task.wanted_by else ()
            else:
                leaving = task.wanted_by
                todo.extend((task.dependents or {}).values())
            for client in leaving:
                if client > 0:
                    told.setdefault(client, []).append(task.key)
                    state.clients[client].wants.pop(task.key, None)
            task.wanted_by = tuple(other for other in task.wanted_by if other not in leaving)
            task.pushed_to = 0
        lifecycle.release_all(state, seen.values(), "cancelled")
        for client, keys in told.items():
            self._send(client, m.KeysCancelled(keys, "cancelled"))

    def _on_ask_scheduler(self, source: ClientId, message: m.AskScheduler) -> None:
        body = answers.answer(self.state, message.question, message.arguments)
        self._send(source, m.Answer(message.request, body))

    def _on_coordinate(self, source: ClientId, message: m.Coordinate) -> None:
        self._reply(self.coordination.request(
            source, message.request, message.kind, message.name, message.action, message.arguments
        ))  # fmt: skip
        self._keep_shared_values()

    def _keep_shared_values(self) -> None:
        """Keep the values of futures that lie in queues and variables, as long as they do."""
        for key in self.coordination.take_changed_keys():
            task = self.state.tasks.get(key)
            if task is None:
                continue  # who takes its future hears that the value has gone
            if key in self.coordination.held:
                lifecycle.add_interest(self.state, task, SHARED_BY_NAME, (SHARED_BY_NAME,))
            else:
                lifecycle.drop_interest(self.state, task, SHARED_BY_NAME, "left queue")

    def _on_client_stopped(self, source: ClientId, message: m.ClientStopped) -> None:
        client = self.state.clients.pop(source, None)
        # What it sent and could not declare any more is nobody's.
        for key in [key for key in self.state.early if key >> CLIENT_SHIFT == source]:
            holder, _ = self.state.early.pop(key)
            self.state.to_free.setdefault(holder, []).append(key)
        self._reply(self.coordination.client_left(source))
        self._keep_shared_values()
        if client is not None:
            for task in client.wants.values():
                lifecycle.drop_interest(self.state, task, source, "client left")
            for number in list(client.graphs):
                for task in client.graphs.pop(number):
                    lifecycle.drop_interest(self.state, task, OPEN_GRAPH, "client left")
        if message.stop:
            self._stopping = True
            self._waiting_clients.append(source)
            for rank in self._running:
                self._send(rank, m.StopWorker())
            self._finish_stop()
