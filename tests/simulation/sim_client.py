"""What stands in for the client's loop and for a user's script in a simulated run?

Uses the client's core as `client.py`, `submission.py` and `gathering.py` do.
"""

from collections.abc import Callable

from mpicluster import messages as m
from mpicluster.client.core import ClientCore
from mpicluster.client.records import CANCELLED, ERROR, FINISHED, PENDING, FutureRecord
from mpicluster.config import Config
from mpicluster.ids import ClientId, Key, Rank
from tests.simulation.workload import Plan, Spec

Send = Callable[[Rank, Rank, list[m.Message]], None]


class SimClient:
    """One client: core, futures and the values that it has fetched."""

    def __init__(self, config: Config, client: ClientId, plan: Plan, send: Send) -> None:
        self.client = client
        self.core = ClientCore(config, client)
        self.plan = plan
        self.send = send
        self.push_bytes_max = config.push_bytes_max
        #: {key: record} of the futures that the script holds, cancelled ones included.
        self.futures: dict[Key, FutureRecord] = {}
        #: {key: None} of futures on which `cancel` was called here.
        self.cancelled: dict[Key, None] = {}
        #: {key: None} of futures of other clients' keys.
        self.foreign: dict[Key, None] = {}
        self.values: dict[Key, bytes] = {}
        #: {request: (rank, {key: None})} of fetches under way.
        self.fetches: dict[int, tuple[Rank, dict[Key, None]]] = {}
        #: {request: key} of questions where a value is.
        self.questions: dict[int, Key] = {}
        #: Requests for copies that have not been answered.
        self.copying: dict[int, tuple[list[Key], list[Rank]]] = {}
        self.gathering = False
        self.left = False
        self.core.to_scheduler(m.ClientStarted({}))
        self._functions: dict[str, int] = {}

    # --- turns of the loop ---

    def turn(self, arrived: list[tuple[Rank, list[m.Message]]], now: float) -> None:
        """Take what has arrived, send what is due."""
        for source, messages in arrived:
            for message in messages:
                self._take(source, message, now)
        if self.gathering and not self.left:
            self._gather()
        for rank, bundle in self.core.outgoing(now):
            self.send(self.client, rank, bundle)

    def _take(self, source: Rank, message: m.Message, now: float) -> None:
        if isinstance(message, m.ValuesSent):
            for key, value in zip(message.keys, message.values, strict=True):
                self._take_value(message.request, key, value)
        elif isinstance(message, m.LargeValueSent):
            self._take_value(message.request, message.key, bytes(message.buffers[0]))
        elif isinstance(message, m.ValuesMissing):
            for key in message.keys:
                self._take_value(message.request, key, None)
        else:
            self.core.receive(source, message, now)
            if isinstance(message, m.WorkerLost):
                for request, (rank, keys) in list(self.fetches.items()):
                    if rank == message.rank:
                        for key in list(keys):
                            self._take_value(request, key, None)
            elif isinstance(message, m.Answer):
                self._take_answer(message.request)

    def _take_answer(self, request: int) -> None:
        body = self.core.answers.pop(request)
        if request in self.copying:
            assert set(body) <= set(self.copying.pop(request)[0])
            return
        key = self.questions.pop(request)
        ranks = body.get(key)
        if ranks and key in self.core.records:
            self.core.records[key].rank = ranks[0]

    def _take_value(self, request: int, key: Key, value: bytes | None) -> None:
        found = self.fetches.get(request)
        if found is None:
            return
        found[1].pop(key, None)
        if not found[1]:
            del self.fetches[request]
        if value is not None:
            self.values[key] = value
        elif key in self.core.records:
            self.core.records[key].rank = -1

    def _gather(self) -> None:
        """Fetch the values of finished futures; ask where a value is that was not found."""
        under_way = {key for _, keys in self.fetches.values() for key in keys}
        under_way.update(self.questions.values())
        for key, record in self.core.records.items():
            if record.status is not FINISHED or key in under_way or key in self.values:
                continue
            if record.value is not None:
                self.values[key] = record.value
            elif record.rank in self.core.lost_workers or record.rank < 0:
                if record.error is None:
                    self.questions[self.core.ask("who_has", [key])] = key
            else:
                request = self.core.next_number()
                self.fetches[request] = (record.rank, {key: None})
                self.core.to_worker(record.rank, m.FetchValues(request, [key]))

    # --- what a script does ---

    @property
    def started(self) -> bool:
        """Whether the cluster is there."""
        return self.core.workers is not None and not self.left

    def usable(self) -> list[Key]:
        """Return the keys that new tasks may use."""
        return [key for key, record in self.futures.items() if record.status is not CANCELLED]

    def held(self, *statuses: str) -> list[Key]:
        """Return the keys of futures with one of the statuses."""
        return [key for key, record in self.futures.items() if record.status in statuses]

    def submit(self, specs: list[Spec], wanted: list[bool], retries: int, graph: int) -> None:
        """Send tasks in one message; they share their options."""
        for spec, is_wanted in zip(specs, wanted, strict=True):
            if is_wanted:
                self._hold(spec.key)
        options = m.TaskOptions(
            specs[0].options.workers, specs[0].options.allow_other_workers,
            specs[0].options.resources, retries, specs[0].options.priority,
        )  # fmt: skip
        needs = [list(spec.needs) for spec in specs]
        self.core.to_scheduler(m.SubmitTasks(
            keys=[spec.key for spec in specs],
            functions=[self._function(spec) for spec in specs],
            payloads=[b"payload"] * len(specs),
            dependencies=needs if any(needs) else [],
            wanted=bytes(wanted),
            options=options.to_columns(),
            graph=graph,
        ))  # fmt: skip

    def _function(self, spec: Spec) -> int:
        """Tasks of one kind and duration share a function."""
        name = f"{spec.kind}-{spec.duration_s}"
        if name not in self._functions:
            number = self._functions[name] = self.core.next_number()
            self.core.to_scheduler(m.DefineFunctions([number], [name], [b"code"]))
        return self._functions[name]

    def _hold(self, key: Key) -> FutureRecord:
        record = FutureRecord(key, "task", None, None)
        record.references = 1
        self.core.add(record, named=False)
        self.futures[key] = record
        return record

    def scatter(self, keys: list[Key], ranks: list[Rank], inline_bytes_max: int) -> None:
        """Send values straight to workers."""
        self.core.to_scheduler(m.DeclareValues(keys, ranks))
        for key, rank in zip(keys, ranks, strict=True):
            self._hold(key)
            value = self.plan.outcomes[key].value
            if self.plan.specs[key].nbytes <= inline_bytes_max:
                self.core.to_worker(rank, m.PutValues([key], [value]))
            else:
                size = [len(value)]
                large = m.PutLargeValue(key, size, size, [memoryview(value)])
                self.core.to_worker(rank, large)

    def want(self, key: Key) -> None:
        """Take a future of a key that another client has made."""
        self.foreign[key] = None
        self._hold(key)
        self.core.to_scheduler(m.WantKeys([key]))

    def release(self, keys: list[Key]) -> None:
        """Let futures go."""
        for key in keys:
            self.core.drop_reference(self.futures.pop(key))
            self.values.pop(key, None)

    def replicate(self, keys: list[Key], ranks: list[Rank]) -> None:
        """Ask for copies, and for an answer when they are there."""
        request = self.core.next_number()
        if keys:
            self.copying[request] = keys, ranks
            self.core.to_scheduler(m.ReplicateKeys(keys, ranks, request))

    def cancel(self, keys: list[Key], force: bool) -> None:
        """Give tasks up, as `Client.cancel` does."""
        for key in keys:
            self.cancelled[key] = None
            record = self.core.records.get(key)
            if record is not None:
                self.core.cancel(record)
        self.core.to_scheduler(m.CancelKeys(keys, force))

    def leave(self) -> None:
        """Close the client; the cluster goes on."""
        self.left = True
        self.futures.clear()
        self.core.to_scheduler(m.ClientStopped(stop=False))

    # --- what must hold at the end ---

    def unsettled(self) -> list[Key]:
        """Return the keys of futures that are pending, or finished without their value here."""
        return [
            key for key, record in self.futures.items()
            if record.status is PENDING
            or (record.status is FINISHED and key not in self.values and record.error is None)
        ]  # fmt: skip

    def problem(self, key: Key, excuses: list[str]) -> str | None:
        """Return what is wrong with a future that is settled, None if all is right."""
        record, outcome = self.futures[key], self.plan.outcomes[key]
        if record.status is CANCELLED:
            return None if "CancelledError" in excuses else "was cancelled without a reason"
        if record.error is not None and (record.status is ERROR or key not in self.values):
            name = record.error[1]
            if name in outcome.errors or name in excuses:
                return None
            return f"has the error {name} ({record.error[2]}), right are {outcome.errors or 'none'}"
        if record.status is FINISHED:
            if outcome.errors:
                return f"has a value, but should have erred with {set(outcome.errors)}"
            return None if self.values[key] == outcome.value else "has a wrong value"
        return f"is {record.status}"


